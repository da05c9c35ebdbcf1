"""Bayesian networks on MNIST: mean field, and symmetrized by three bounds (Gelberg et al. 2024).

One hidden layer of 5, 10, 20 or 30 ReLU units, Adam with step size 1e-3, batches of 100, ten passes
over the data: the paper's settings. It does not state the prior, the first variance and the
number of draws; ours are among the settings below. All methods of a case share their start, their
batches and their draws, so that differences between them are due to the added term alone.

- "mean field": the plain evidence bound;
- "sampled": plus the paper's K-sample bound, K = 20;
- "tight": plus the exact permanent up to width 15, and above it blocks of near units, permuted
  within each block. The blocks follow the base.

Needs MNIST: it is downloaded on first use, see symlib.data.load.
"""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from symcourse.experiments._training import flat_images, mean_error
from symlib.groups import HiddenPermutation, unit_log_densities
from symlib.inference import categorical_log_likelihood, fit, minibatch_elbo
from symlib.posteriors import (
    DiagonalGaussian,
    IsotropicGaussian,
    Symmetrized,
    block_log_ratio,
    sampled_log_ratio,
    unit_blocks,
)
from symlib.special import permutation_log_ratio
from symlib.special.permanent import MAX_SIZE

SETTINGS = {
    "seed": 2024,
    "widths": [5, 10, 20, 30],
    "methods": ["mean field", "sampled", "tight"],
    "num_elements": 20,  # K of the paper
    "block_size": 5,
    "seeds": 5,
    "passes": 10,
    "batch_size": 100,
    "learning_rate": 1e-3,
    "prior_variance": 1.0,
    "first_standard_deviation": 0.05,
    # A start so wide that the permuted copies of the base overlap, for one width.
    "wide": {"width": 10, "first_standard_deviation": 0.3},
    "test_draws": 50,
    "bound_draws": 20,
    "information_draws": 200,
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = (
    "wide start, seed 0",
    {"data": "digits", "methods": ["sampled"], "widths": [], "passes": 2, "num_elements": 4}
    | {"wide": {"width": 3, "first_standard_deviation": 0.3}, "block_size": 2, "test_draws": 5}
    | {"bound_draws": 5, "information_draws": 5},
)


def cases(settings):
    """Return one case for each seed and width, and for each seed one with a wide start."""
    narrow = settings["first_standard_deviation"]
    starts = [(f"width {width}", width, narrow) for width in settings["widths"]]
    starts.append(("wide start", *settings["wide"].values()))
    return [
        (f"{name}, seed {seed}", {"width": width, "first_standard_deviation": deviation})
        for seed in range(settings["seeds"])
        for name, width, deviation in starts
    ]


def run_case(settings, case, key):
    """Return, for each method, accuracy, log likelihood, bounds and the distance to mean field."""
    images, labels, *test = flat_images(settings.get("data", "mnist"))
    data = images, labels
    fit_key, *keys = jax.random.split(key, 4)
    steps = settings["passes"] * len(images) // settings["batch_size"]
    found, plain = {}, None
    for method in settings["methods"]:
        chosen = {
            name: settings[name]
            for name in ("num_elements", "block_size", "batch_size", "prior_variance")
        }
        objective, initialize = _problem(method, **case, **chosen)
        result = fit(
            fit_key,
            eqx.Partial(objective, data),
            initialize,
            steps=steps,
            optimizer=optax.adam(settings["learning_rate"]),
        )
        base = result.posterior
        plain = plain or base
        accuracy, log_likelihood = _predict(base, keys[0], test, settings["test_draws"])
        bound, error = _bound(base, keys[1], data, settings)
        found[method] = {
            "accuracy": float(accuracy),
            "log_likelihood": float(log_likelihood),
            "bound": float(bound),
            "bound_error": float(error),
            "information": _information(base, keys[2], case["width"], settings),
            "moved_by_sd": float(_moved(base, plain)),
        }
    return found


@functools.cache  # the same functions for all seeds, so that each width and method compiles once
def _problem(
    method, width, first_standard_deviation, num_elements, block_size, batch_size, prior_variance
):
    """Return the objective and the start of one fit."""

    def initialize(key):
        parameters = eqx.filter(_network(width, key), eqx.is_inexact_array)
        variance = first_standard_deviation**2
        return DiagonalGaussian(
            parameters, jax.tree.map(lambda leaf: jnp.full_like(leaf, variance), parameters)
        )

    def log_ratio(key, base, z):  # the key for the elements of a sampled one
        if method == "sampled":
            group = HiddenPermutation(width)
            return sampled_log_ratio(key, base, group, z, num_elements)
        if width <= MAX_SIZE:
            return permutation_log_ratio(unit_log_densities(base, z))
        return block_log_ratio(base, z, unit_blocks(base, block_size))

    def objective(data, base, key):
        prior = _prior(base, prior_variance)
        posterior = base
        if method != "mean field":
            *_, term_key = jax.random.split(key, 3)  # left for it by minibatch_elbo
            posterior = Symmetrized(
                base, HiddenPermutation(width), lambda base, z: log_ratio(term_key, base, z)
            )
        value, _ = minibatch_elbo(key, _log_likelihood, prior, posterior, *data, batch_size)
        return value

    return objective, initialize


def _network(width, key):
    return eqx.nn.MLP(784, 10, width, 1, key=key)


def _logits(parameters, x):
    first, second = parameters.layers
    return second(jax.nn.relu(first(x)))


def _log_likelihood(parameters, x, y):
    return categorical_log_likelihood(_logits(parameters, x), y)


def _prior(base, variance):
    zero = jax.tree.map(jnp.zeros_like, base.mean)
    return IsotropicGaussian(zero, variance)


@eqx.filter_jit
def _predict(base, key, test, draws):
    """Return accuracy and mean log likelihood of the averaged probabilities."""
    images, labels = test

    def probabilities(key):
        logits = jax.vmap(_logits, (None, 0))(base.sample(key), images)
        return jax.nn.softmax(logits)

    mean = jnp.mean(jax.lax.map(probabilities, jax.random.split(key, draws)), axis=0)
    right = jnp.argmax(mean, axis=1) == labels
    return jnp.mean(right), jnp.mean(jnp.log(mean[jnp.arange(len(labels)), labels]))


@eqx.filter_jit
def _bound(base, key, data, settings):
    """Return the plain evidence bound on all training data, and its standard error, in nats."""

    def draw(key):
        terms = jax.vmap(_log_likelihood, (None, 0, 0))(base.sample(key), *data)
        return jnp.sum(terms) - base.kl(_prior(base, settings["prior_variance"]))

    values = jax.lax.map(draw, jax.random.split(key, settings["bound_draws"]))
    return jnp.mean(values), jnp.std(values, ddof=1) / math.sqrt(len(values))


def _information(base, key, width, settings):
    """Return bounds of I = KL[q || q^G] in nats, and I itself (None above width 15)."""
    found = {
        name: float(_average(base, key, name, width, settings))
        for name in ("exact", "blocks", "sampled")
        if name != "exact" or width <= MAX_SIZE
    }
    return {"exact": None, **found, "largest": math.lgamma(width + 1)}


@eqx.filter_jit
def _average(base, key, name, width, settings):
    blocks = unit_blocks(base, settings["block_size"])

    def term(key):
        draw_key, element_key = jax.random.split(key)
        z = base.sample(draw_key)
        if name == "sampled":
            group = HiddenPermutation(width)
            return sampled_log_ratio(element_key, base, group, z, settings["num_elements"])
        if name == "exact":
            return permutation_log_ratio(unit_log_densities(base, z))
        return block_log_ratio(base, z, blocks)

    return jnp.mean(jax.lax.map(term, jax.random.split(key, settings["information_draws"])))


def _moved(base, plain):
    """Return the root mean square difference of two means, in standard deviations of mean field."""
    difference = jax.tree.map(
        lambda a, b, v: (a - b) ** 2 / v, base.mean, plain.mean, plain.variance
    )
    squares = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(difference)])
    return jnp.sqrt(jnp.mean(squares))


def summarise(settings, results):
    """Return, for each width and for the wide start, means and standard errors over the seeds.

    Accuracies and their differences are in percent. `gain` is the difference to mean field of the
    same seed. `information` and `moved_by_sd` are means.
    """
    values = {}
    for group in dict.fromkeys(name.split(",")[0] for name in results):
        runs = [result for name, result in results.items() if name.startswith(f"{group},")]
        rows = {}
        for method in settings["methods"]:
            accuracy, log_likelihood, bound, moved = (
                np.array([run[method][name] for run in runs])
                for name in ("accuracy", "log_likelihood", "bound", "moved_by_sd")
            )
            plain = np.array([run["mean field"]["accuracy"] for run in runs])
            base_likelihood = np.array([run["mean field"]["log_likelihood"] for run in runs])
            base_bound = np.array([run["mean field"]["bound"] for run in runs])
            rows[method] = {
                "accuracy": mean_error(100 * accuracy),
                "accuracy_gain": mean_error(100 * (accuracy - plain)),
                "log_likelihood": mean_error(log_likelihood),
                "log_likelihood_gain": mean_error(log_likelihood - base_likelihood),
                "plain_bound": mean_error(bound),
                "plain_bound_gain": mean_error(bound - base_bound),
                "moved_by_sd": float(moved.mean()),
                "information": {
                    name: None
                    if runs[0][method]["information"][name] is None
                    else float(np.mean([run[method]["information"][name] for run in runs]))
                    for name in runs[0][method]["information"]
                },
            }
        values[group] = rows
    return values
