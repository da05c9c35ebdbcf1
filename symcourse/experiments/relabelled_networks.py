"""Two equal modes, closest swaps, and small networks trained with and without the symmetrized term.

The parts of G4 that need minutes but no hour: the two-unit regression of Gelberg et al. at its
optima and after 100 steps, eight units on 100 of the digits, and how far apart the copies are.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.stats import norm

from symlib.data import load
from symlib.groups import HiddenPermutation, Permutation, unit_log_densities
from symlib.inference import (
    categorical_log_likelihood,
    fit,
    gaussian_log_likelihood,
    minibatch_elbo,
    nuts,
)
from symlib.posteriors import DiagonalGaussian, IsotropicGaussian, Symmetrized, sampled_log_ratio
from symlib.special import permutation_log_ratio

SETTINGS = {
    "seed": 0,
    "mode_steps": 3000,
    "swap_widths": [4, 8, 16, 32],
    "swap_steps": 100,
    "optimum_slopes": np.linspace(0.025, 0.3, 12).tolist(),
    "optimum_steps": 300,
    "slopes": [0.05, 0.1, 0.15, 0.2],
    "noises": [1.0, 3.0],
    "steps": 100,
    "restarts": 40,
    "nuts_draws": 500,
    "digits_units": 8,
    "digits_deviations": [0.05, 0.5],
    "digits_seeds": 4,
    "digits_steps": 2000,
    "estimate_sizes": [4, 6, 8, 10],
    "estimate_draws": 500,
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = "closest swaps", {"swap_widths": [4, 8], "swap_steps": 5}


def cases(settings):
    """Return one case for each part."""
    return [(name, {"part": name}) for name in PARTS]


def run_case(settings, case, key):
    """Return what a part finds, as lists."""
    with jax.enable_x64(True):
        found = PARTS[case["part"]](settings, jax.random.key(settings["seed"]))
        return {name: np.asarray(value).tolist() for name, value in found.items()}


def summarise(settings, results):
    """Return the parts as they are."""
    return results


NODES = np.arange(-8, 8.01, 0.1)
WEIGHTS = np.exp(-(NODES**2) / 2) / np.sum(np.exp(-(NODES**2) / 2))


def _kl_two_modes(m, log_c, a, d=1):
    """Return the KL of N(m, c I) from the two modes, in d dimensions."""
    z = m + jnp.exp(log_c / 2) * NODES
    bridge = WEIGHTS @ jnp.log(jnp.cosh(a * z / 2))
    other = d * (jnp.exp(log_c) - 1 - log_c)
    return (m**2 + other) / 2 + a**2 / 8 - bridge


def _two_modes(settings, key):
    """Follow the gradient from N(m, I): m, c and the KL, from the midpoint and from a mode."""

    @jax.jit
    @jax.vmap
    def descend(m, a, d):
        slope = jax.grad(_kl_two_modes, (0, 1))

        def step(_, at):
            down = slope(*at, a, d)
            return at[0] - 0.15 * down[0], at[1] - 0.15 * down[1]

        m, log_c = jax.lax.fori_loop(0, settings["mode_steps"], step, (m, 0.0))
        return m, jnp.exp(log_c), _kl_two_modes(m, log_c, a, d)

    apart, ones = np.linspace(0.5, 8, 76), np.ones(76)
    fine = np.linspace(4.7, 5.0, 76)
    dimensions = np.array([2.0, 3, 5, 10, 100, np.inf])
    limits, high = np.full(6, 0.5), np.full(6, 6.0)
    for _ in range(50):
        a = (limits + high) / 2
        z = np.sqrt(1 / (1 - 1 / dimensions))[:, None] * NODES
        stable = a**2 / 4 * (np.cosh(a[:, None] * z / 2) ** -2.0 @ WEIGHTS) < 1
        limits, high = np.where(stable, a, limits), np.where(stable, high, a)
    around = limits[0] + np.linspace(-0.05, 0.05, 76)
    return {
        "apart": apart,
        "middle": descend(0 * ones, apart, ones),
        "side": descend(apart / 2, apart, ones),
        "fine": fine,
        "fine_m": descend(fine / 2, fine, ones)[0],
        "limits": limits,
        "around_m": descend(around / 2, around, 2 * ones)[0],
    }


def _outputs(z, x):
    W, V = z
    return jax.nn.relu(x @ W.T) @ V.T


def _random_network(seed, width, units=None):
    """Draw weights with variance 1 / number of inputs, pad with zeros."""
    rng, units = np.random.default_rng(seed), units or width
    W, V = np.zeros((units, 64)), np.zeros((10, units))
    W[:width] = rng.normal(size=(width, 64)) / 8
    V[:, :width] = rng.normal(size=(10, width)) / width**0.5
    return W, V


def _log_likelihood(z, x, y):
    return categorical_log_likelihood(_outputs(z, x), y)


def _digits():
    digits = load("digits")
    images, tests = (
        jnp.asarray(part.reshape(len(part), -1), float)
        for part in (digits.train_images[:200], digits.test_images)
    )
    return images, jnp.asarray(digits.train_labels[:200]), tests, jnp.asarray(digits.test_labels)


def _swaps(settings, key):
    """Return the closest swap of random and of trained networks, over the size of all weights."""
    images, labels, _, _ = _digits()
    widths = settings["swap_widths"]
    units = max(widths)

    def log_joint(z):
        terms = jax.vmap(_log_likelihood, (None, 0, 0))(z, images, labels)
        return terms.sum() - sum((leaf**2).sum() for leaf in z) / 2

    def closest_swap(z, width):
        rows = np.concatenate([z[0], z[1].T], axis=1)[:width]
        gaps = np.linalg.norm(rows[:, None] - rows, axis=2)
        gaps[np.diag_indices(width)] = np.inf
        return 2**0.5 * gaps.min() / np.linalg.norm(rows)

    drawn = (_random_network(d, d, units) for d in widths)
    nets = [np.stack(leaves) for leaves in zip(*drawn, strict=True)]
    best = fit(
        key,
        lambda stack, key: jax.vmap(log_joint)(stack).sum(),
        lambda _: jax.tree.map(jnp.asarray, nets),
        steps=settings["swap_steps"],
        learning_rate=0.03,
    ).posterior
    found = {
        name: [closest_swap(z, d) for *z, d in zip(*map(np.asarray, stack), widths, strict=True)]
        for name, stack in (("random", nets), ("trained", best))
    }
    rows = np.concatenate([best[0][-1], best[1][-1].T], axis=1)
    return found | {"lengths": np.sort(np.linalg.norm(rows, axis=1))}


def _regression_data():
    """Return the 100 points, and the sum of their squares on each side."""
    rng = np.random.default_rng(0)
    for shape in ((20, 3), (5, 3), (2, 5)):  # what the page once drew before
        rng.normal(size=shape)
    x = rng.uniform(-10, 10, size=100)
    return x, np.array([np.sum(x[x > 0] ** 2), np.sum(x[x < 0] ** 2)])


def _slopes(q):
    """Return the means and variances of S+ and S- under a Gaussian."""
    deviation = jnp.sqrt(q.variance)
    signed = jnp.stack([q.mean, -q.mean]) / deviation
    first = deviation * (signed * norm.cdf(signed) + norm.pdf(signed))
    second = q.variance * ((signed**2 + 1) * norm.cdf(signed) + signed * norm.pdf(signed))
    return first.sum(axis=1), (second - first**2).sum(axis=1)


PRIOR = np.zeros(2)


def _exact_term(q, z):
    """Return log q(z) - log q^G(z), whose mean is I."""
    return q.log_prob(z) - Symmetrized(q, Permutation(2)).log_prob(z)


def _optima(settings, key):
    """Fit mean field and the symmetrized Gaussian for each slope, exactly, from three starts."""
    truth, shares = np.array(settings["optimum_slopes"]), np.array([0.0, 1.0])
    _, power = _regression_data()
    coarse = np.arange(-5, 5.1, 0.5)
    pairs = np.stack(np.meshgrid(coarse, coarse), -1).reshape(-1, 2)
    pair_weights = np.exp(-np.sum(pairs**2, axis=1) / 2)
    pair_weights /= pair_weights.sum()

    def gain(q):
        points = q.mean + jnp.sqrt(q.variance) * pairs
        return pair_weights @ jax.vmap(lambda z: _exact_term(q, z))(points)

    def bound(q, a, share):
        mean, variance = _slopes(q)
        misfit = power @ ((mean - a) ** 2 + variance)
        plain = -misfit / 18 - 50 * jnp.log(2 * jnp.pi * 9) - q.kl(IsotropicGaussian(PRIOR, 1.0))
        return plain + share * gain(q)

    def over_cases(function):
        return jax.vmap(jax.vmap(function, (0, None, 0)), (0, 0, None))

    def start(key):
        mean = jax.random.uniform(key) * jnp.array([0.3, -0.3]) + 0.01
        shape = (len(truth), 2, 2)
        return DiagonalGaussian(jnp.broadcast_to(mean, shape), jnp.full(shape, 0.01))

    stacks = fit(
        key,
        lambda stack, key: over_cases(bound)(stack, truth, shares).sum(),
        start,
        steps=settings["optimum_steps"],
        learning_rate=0.02,
        restarts=3,
    ).posteriors

    def facts(q, a, share):
        return bound(q, a, share), _slopes(q)[0], gain(q)

    found = jax.jit(jax.vmap(lambda stack: over_cases(facts)(stack, truth, shares)))(stacks)
    best = np.argmax(found[0], axis=0)  # the best of three starts
    at_best = best, np.arange(len(truth))[:, None], np.arange(2)
    bounds, means, gains = (np.asarray(v)[at_best] for v in found)
    same = DiagonalGaussian(np.array([0.1, 0.1]), np.array([0.01, 0.01]))
    return {
        "bounds": bounds,
        "mean_slopes": means,
        "gains": gains,
        "means": np.asarray(stacks.mean)[at_best],
        "variances": np.asarray(jnp.exp(stacks.log_variance))[at_best],
        "gain_of_equal_units": jax.jit(gain)(same),
    }


def _hundred_steps(settings, key):
    """Return the posterior means of S+ and S- after some steps, for each seed, method and case."""
    x, _ = _regression_data()
    axes = np.array(settings["slopes"]), np.array(settings["noises"]), np.array([-1.0, 1.0])
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    methods = np.array([[0.0, 0], [1, 0], [0, 1]])  # mean field, K = 2, exact
    swap_units = Permutation(2)

    def bound(key, q, case, share):
        a, noise, _ = case

        def log_likelihood(w, x, y):
            return gaussian_log_likelihood(jax.nn.relu(w * x).sum(), y, noise**2)

        *_, term_key = jax.random.split(key, 3)  # left for it by minibatch_elbo

        def term(q, z):
            sampled = sampled_log_ratio(term_key, q, swap_units, z, 2)
            return share[0] * sampled + share[1] * _exact_term(q, z)

        return minibatch_elbo(
            key,
            log_likelihood,
            IsotropicGaussian(PRIOR, 1.0),
            Symmetrized(q, swap_units, term),
            jnp.asarray(x),
            a * jnp.abs(x),
            10,
        )[0]

    def objective(stack, key):
        over = jax.vmap(jax.vmap(bound, (None, 0, 0, None)), (None, 0, None, 0))
        return over(key, stack, grid, methods).sum()

    def start(key):
        size = 0.1 * jnp.abs(jax.random.normal(key, (2,)))
        mean = size * jnp.stack([jnp.ones(len(grid)), grid[:, 2]], axis=1)
        shape = (3, len(grid), 2)
        return DiagonalGaussian(jnp.broadcast_to(mean, shape), jnp.full(shape, 0.01))

    stacks = fit(
        key,
        objective,
        start,
        steps=settings["steps"],
        restarts=settings["restarts"],
        optimizer=optax.adam(5e-3),
    ).posteriors
    over_all = jax.jit(jax.vmap(jax.vmap(jax.vmap(lambda q: _slopes(q)[0]))))
    mean = np.asarray(over_all(stacks))
    errors = 100 / 3 * np.mean((mean - grid[:, :1]) ** 2, axis=-1)
    sizes = [len(axis) for axis in axes]
    return {"errors": errors.reshape(settings["restarts"], 3, *sizes).round(6)}


def _sampler(settings, key):
    """Run NUTS from each mode, for noise 1 and slope 0.1."""
    _, power = _regression_data()

    def log_posterior(w):
        ends = jnp.stack([jax.nn.relu(w).sum(), jax.nn.relu(-w).sum()])
        return -power @ (ends - 0.1) ** 2 / 2 - w @ w / 2

    starts = jnp.array([[0.1, -0.1], [-0.1, 0.1]])
    chains = nuts(key, log_posterior, starts, num_warmup=300, num_samples=settings["nuts_draws"])
    draws = np.asarray(chains.draws)
    return {
        "first_means": draws[..., 0].mean(axis=1),
        "slopes": np.abs(draws).sum(axis=-1).mean(axis=1) / 2,
    }


def _matrices(rows, deviation, count):
    """Return log q_i(n_j) for some draws."""
    noise = np.random.default_rng(2).normal(size=(count, *rows.shape))
    draws = rows + deviation * noise
    squares = ((draws[:, None] - rows[:, None]) / deviation) ** 2
    return -np.sum(squares + np.log(2 * np.pi * deviation**2), -1) / 2


def _exact_terms(A):
    return np.asarray(jax.jit(jax.vmap(permutation_log_ratio))(A))


def _estimates(settings, key):
    """Return means and deviations of five estimates of I for each width."""

    def log_ratio(A, elements):
        chosen = np.take_along_axis(A[:, None], elements[..., None], axis=3)
        sums = chosen[..., 0].sum(axis=2)
        largest = sums.max(axis=1)
        mean = np.exp(sums - largest[:, None]).mean(axis=1)
        return np.trace(A, axis1=1, axis2=2) - largest - np.log(mean)

    def blocks(A, size):
        firsts = range(0, A.shape[1] - size + 1, size)
        return sum(_exact_terms(A[:, i : i + size, i : i + size]) for i in firsts)

    table, count = [], settings["estimate_draws"]
    units = np.random.default_rng(0).normal(size=(max(settings["estimate_sizes"]), 5))
    for d in settings["estimate_sizes"]:
        A = _matrices(units[:d], 0.8, count)
        uniform = np.random.default_rng(0).permuted(np.tile(np.arange(d), (count, 20, 1)), axis=2)
        with_identity = uniform.copy()
        with_identity[:, 0] = np.arange(d)
        estimates = [
            _exact_terms(A),
            log_ratio(A, uniform),
            blocks(A, 4),
            log_ratio(A, with_identity),
            blocks(A, 2),
        ]
        table.append(estimates)
    return {
        "means": [[np.mean(v) for v in row] for row in table],
        "deviations": [[np.std(v) for v in row] for row in table],
    }


def _eight_units(settings, key):
    """Train on 100 digits from two starts, with mean field and the exact permanent."""
    images, labels, test_images, test_labels = _digits()
    images, labels = images[:100], labels[:100]
    width, count = settings["digits_units"], settings["digits_seeds"]
    axes = np.meshgrid(
        range(count), settings["digits_deviations"], np.array([0.0, 1.0]), indexing="ij"
    )
    seeds, firsts, on = (axis.ravel() for axis in axes)

    def prior(q):
        return IsotropicGaussian(jax.tree.map(jnp.zeros_like, q.mean), 1.0)

    def bound(key, q, share):
        def term(q, z):
            return share * permutation_log_ratio(unit_log_densities(q, z))

        mixture = Symmetrized(q, HiddenPermutation(width), term)
        return minibatch_elbo(key, _log_likelihood, prior(q), mixture, images, labels, 50)[0]

    def objective(stack, key):
        return jax.vmap(bound)(jax.random.split(key, count)[seeds], stack, on).sum()

    drawn = (_random_network(seed, width) for seed in seeds)
    mean = [np.stack(leaves) for leaves in zip(*drawn, strict=True)]
    variance = [np.ones_like(leaf) * firsts[:, None, None] ** 2 for leaf in mean]
    start = DiagonalGaussian(mean, variance)
    trained = fit(
        key, objective, lambda _: start, steps=settings["digits_steps"], learning_rate=0.02
    ).posterior

    def judge(q):
        zs = jax.vmap(q.sample)(jax.random.split(jax.random.key(1), 100))
        scores = jax.vmap(_outputs, (0, None))(zs, test_images)
        mean = jax.nn.softmax(scores).mean(axis=0)
        known = jax.nn.log_softmax(jax.vmap(_outputs, (0, None))(zs, images))
        known = known[:, np.arange(100), labels]
        terms = jax.vmap(lambda z: permutation_log_ratio(unit_log_densities(q, z)))(zs)
        right = mean[np.arange(len(test_labels)), test_labels]
        return {
            "accuracy": 100 * (mean.argmax(axis=1) == test_labels).mean(),
            "log_likelihood": jnp.log(right).mean(),
            "bound": known.sum() / 100 - q.kl(prior(q)),
            "gain": terms.mean(),
        }

    found = jax.jit(jax.vmap(judge))(trained)
    W, V = _random_network(0, width)
    at_wide = _exact_terms(_matrices(np.concatenate([W, V.T], axis=1), 0.5, 500))
    lacking = math.lgamma(width + 1) - at_wide.mean()
    shape = (count, 2, 2)
    return {name: np.asarray(v).reshape(shape) for name, v in found.items()} | {
        "lacking_at_wide_start": lacking
    }


def _mnist_start(settings, key):
    """Return the gain of ten units on MNIST before the first step, for both starts."""
    uniform = np.random.default_rng(0).uniform(-1, 1, size=(10, 795))
    uniform[:, :785] /= 784**0.5  # weights and bias into a unit
    uniform[:, 785:] /= 10**0.5  # weights out of it
    starts = (("narrow", 0.05), ("wide", 0.3))
    return {name: _exact_terms(_matrices(uniform, s, 100)).mean() for name, s in starts}


PARTS = {
    "two modes": _two_modes,
    "closest swaps": _swaps,
    "regression at its optima": _optima,
    "regression after 100 steps": _hundred_steps,
    "sampler": _sampler,
    "estimates": _estimates,
    "eight units on digits": _eight_units,
    "start on MNIST": _mnist_start,
}
