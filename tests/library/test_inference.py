"""Tests of symlib.inference on targets whose posterior and evidence are known."""

import inspect
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy
from numpy.testing import assert_allclose, assert_array_equal

from symlib.factorization import scalar_exact, scalar_log_joint, scalar_symmetrized
from symlib.groups import Orthogonal, Permutation, Reflection, SignFlip
from symlib.inference import elbo, fit, minibatch_elbo
from symlib.posteriors import DiagonalGaussian, IsotropicGaussian, Symmetrized, kl_sign_flip
from symlib.syre import anchored_decay

DRAWS = 4000


@eqx.filter_jit  # one compilation a test, instead of one for each operation
def estimates(seed, log_joint, pairs, num_samples=DRAWS):
    """Return the values and errors for pairs of a posterior and a form, all from one key."""
    key = jax.random.key(seed)
    results = [elbo(key, log_joint, posterior, num_samples, form) for posterior, form in pairs]
    return tuple(jnp.stack(column) for column in zip(*results, strict=True))


def linear_gaussian(dtype):
    """Return log p(x, z), the exact posterior and log p(x) for x = z + noise, z and x in R^3.

    z ~ N(0, 1) and noise ~ N(0, 1/4) entry by entry, so z | x ~ N(.8 x, .2), x ~ N(0, 1.25).
    """
    x = jnp.array([1.0, -2.0, 0.5], dtype)

    def log_joint(z):
        prior = IsotropicGaussian(jnp.zeros(3, dtype), 1.0)
        return prior.log_prob(z) + IsotropicGaussian(z, 0.25).log_prob(x)

    evidence = scipy.stats.norm.logpdf(np.asarray(x), 0, np.sqrt(1.25)).sum()
    return log_joint, DiagonalGaussian(0.8 * x, jnp.full(3, 0.2, dtype)), evidence


def two_modes(z):
    """Return the log density of modes of weights .75 and .25 at 3 and -3, variance 1/4."""
    log_modes = [
        jnp.log(weight) + IsotropicGaussian(jnp.full(1, place, z.dtype), 0.25).log_prob(z)
        for weight, place in [(0.75, 3.0), (0.25, -3.0)]
    ]
    return jnp.logaddexp(*log_modes)


def test_density_form_is_exact_at_the_posterior(dtype):
    # log p(x, z) - log p(z | x) is log p(x) for every z: no Monte Carlo error is left.
    log_joint, posterior, evidence = linear_gaussian(dtype)
    value, error = estimates(0, log_joint, [(posterior, "density")], 50)
    assert value.dtype == error.dtype == dtype
    eps = jnp.finfo(dtype).eps
    assert_allclose(value[0], evidence, rtol=50 * eps)
    assert error[0] < 50 * eps


def test_forms_agree_within_their_errors(dtype):
    log_joint, posterior, evidence = linear_gaussian(dtype)
    wrong = DiagonalGaussian(posterior.mean + 0.2, 1.5 * posterior.variance)
    # KL[q || p] of two Gaussians, by hand.
    gap = 1.5 * (1.5 - 1 - np.log(1.5)) + 3 * 0.2**2 / (2 * 0.2)
    value, error = estimates(1, log_joint, [(wrong, "density"), (wrong, "entropy")])
    assert np.all((0 < error) & (error < 0.1))
    assert np.all(np.abs(value - (evidence - gap)) < 4 * error)


def test_standard_error_is_that_of_the_mean(x64):
    # The estimates over many keys scatter by what each of them claims.
    log_joint, posterior, _ = linear_gaussian(jnp.float64)
    wrong = DiagonalGaussian(posterior.mean + 0.2, 1.5 * posterior.variance)
    keys = jax.random.split(jax.random.key(2), 400)
    values, errors = jax.jit(jax.vmap(lambda key: elbo(key, log_joint, wrong, 100, "entropy")))(
        keys
    )
    # 400 draws fix a standard deviation to about 3.5 per cent.
    assert_allclose(np.std(values, ddof=1), np.mean(errors), rtol=0.15)


def scalar_target(r):
    return lambda z: scalar_log_joint(z, r)


def test_symmetrized_forms_agree(dtype):
    # An off-centre base whose mirror image overlaps it: the divergence is neither 0 nor log 2.
    base = DiagonalGaussian(jnp.array([0.8, 0.5], dtype), jnp.array([0.4, 0.6], dtype))
    posterior = Symmetrized(base, SignFlip(2))
    value, error = estimates(
        3,
        scalar_target(1.5),
        [(base, "entropy"), (posterior, "density"), (posterior, "divergence")],
    )
    value, error = np.asarray(value), np.asarray(error)
    expected = value[0] + jax.jit(kl_sign_flip)(base)
    assert np.all(np.abs(value[1:] - expected) < 4 * (error[1:] + error[0]))
    assert np.all(value[1:] > value[0] + 0.2)


def test_symmetrized_bound_is_the_closed_form_of_the_scalar_model(x64):
    @jax.jit
    def bounds(r):
        solution = scalar_symmetrized(r)
        posterior = Symmetrized(DiagonalGaussian(solution.mean, solution.variance), SignFlip(2))
        pairs = [(posterior, "density"), (posterior, "divergence")]
        found = estimates(4, lambda z: scalar_log_joint(z, r), pairs)
        return *found, solution.elbo, scalar_exact(r).log_evidence

    for r in [0.5, 1.5, 3.0]:
        value, error, expected, evidence = map(np.asarray, bounds(r))
        assert np.all(np.abs(value - expected) < 4 * error)
        assert np.all(value - 4 * error < evidence)


def test_draws_of_the_mixture_give_the_same_bound(x64):
    # Eq. 4 drops the average over the group. Put back, with draws of the mixture itself:
    base = DiagonalGaussian(jnp.array([0.8, 0.5]), jnp.array([0.4, 0.6]))
    posterior, target = Symmetrized(base, SignFlip(2)), scalar_target(1.5)

    @jax.jit
    @jax.vmap
    def term(key):
        z = posterior.sample(key)
        return target(z) - posterior.log_prob(z)

    terms = term(jax.random.split(jax.random.key(5), DRAWS))
    (value,), (error,) = estimates(6, target, [(posterior, "density")])
    spread = np.std(terms) / np.sqrt(DRAWS)
    assert abs(np.mean(terms) - value) < 4 * np.hypot(error, spread)


def test_an_invariant_base_gains_nothing(dtype):
    # Forms that differ only by a divergence of 0 agree draw by draw, given the same key.
    base = IsotropicGaussian(jnp.zeros(3, dtype), 0.7)
    pairs = [(base, "density"), (base, "entropy")]
    for group in [SignFlip(3), Permutation(3)]:
        pairs += [(Symmetrized(base, group), form) for form in ["density", "divergence"]]
    value, _ = estimates(7, lambda z: -jnp.sum(z**4), pairs, 200)
    bound = 50 * jnp.finfo(dtype).eps
    value = np.asarray(value)
    assert_allclose(value[[2, 4]], value[[0, 0]], rtol=bound)
    assert_allclose(value[[3, 5]], value[[1, 1]], rtol=bound)
    assert value[0] != value[1]


def test_logarithm_of_the_number_of_modes_is_wrong_when_they_overlap(x64):
    # Moore's footnote 1: the mean-field bound plus log 2 can exceed the log evidence.
    base = DiagonalGaussian(jnp.zeros(2), jnp.full(2, (np.sqrt(5) - 1) / 2))
    (value,), (error,) = estimates(8, scalar_target(0.5), [(base, "entropy")])
    assert value + np.log(2) - 4 * error > scalar_exact(0.5).log_evidence


def test_elbo_is_reparameterized(x64):
    # d/dm of E log p + H at the exact posterior's variance is (m* - m) / .2, by hand.
    log_joint, posterior, _ = linear_gaussian(jnp.float64)

    def value(mean):
        shifted = DiagonalGaussian(mean, posterior.variance)
        return elbo(jax.random.key(9), log_joint, shifted, DRAWS, "entropy")[0]

    gradient = jax.jit(jax.grad(value))(posterior.mean + 0.3)
    # Each entry of the gradient has a standard error of sqrt(5 / DRAWS) = .035.
    assert_allclose(gradient, np.full(3, -1.5), atol=0.15)


def test_fit_reaches_the_exact_posterior_and_evidence(dtype):
    log_joint, posterior, evidence = linear_gaussian(dtype)

    def initialize(key):
        return DiagonalGaussian(jax.random.normal(key, (3,), dtype), jnp.ones(3, dtype))

    def objective(q, key):
        return elbo(key, log_joint, q, 32)[0]

    result = fit(jax.random.key(10), objective, initialize, steps=1000)
    assert result.posterior.mean.dtype == result.value.dtype == dtype
    assert result.trace.shape == (1, 1000)
    # The gradient stays noisy at the optimum, and the parameters with it; the bound does not.
    assert_allclose(result.posterior.mean, posterior.mean, atol=0.02)
    assert_allclose(result.posterior.variance, posterior.variance, rtol=0.05)
    assert_allclose(result.value, evidence, atol=3e-3)


def test_fit_finds_the_symmetrized_optimum_of_the_scalar_model(x64):
    solution = scalar_symmetrized(1.5)

    def initialize(key):
        base = DiagonalGaussian(0.1 * jax.random.normal(key, (2,)), jnp.full(2, 0.1))
        return Symmetrized(base, SignFlip(2))

    def objective(q, key):
        return elbo(key, scalar_target(1.5), q, 64)[0]

    result = fit(jax.random.key(12), objective, initialize, steps=600, restarts=2)
    assert result.posterior.group == SignFlip(2)
    # 60 steps of 64 draws leave the mean objective a standard error near .01.
    assert_allclose(result.values, np.full(2, solution.elbo), atol=0.05)
    assert_allclose(result.posterior.base.mean.prod(), solution.predictive_mean, atol=0.05)
    assert_allclose(result.posterior.base.variance, solution.variance, rtol=0.15)


def test_fit_takes_the_best_of_its_restarts(x64):
    # A narrow q finds one mode only; its bound is the log weight of that mode.
    def initialize(key):
        return IsotropicGaussian(jax.random.uniform(key, (1,), minval=-4, maxval=4), 0.25)

    def objective(q, key):
        return elbo(key, two_modes, q, 4)[0]

    result = fit(jax.random.key(14), objective, initialize, steps=400, restarts=8)
    found = result.posteriors.mean[:, 0]
    assert np.any(found > 2)
    assert np.any(found < -2)
    # A start between the modes may stay there, with a worse bound: no value is above log .75.
    assert_allclose(result.values[found > 2], np.log(0.75), atol=0.02)
    assert_allclose(result.values[found < -2], np.log(0.25), atol=0.02)
    assert result.value == result.values.max()
    assert_allclose(result.posterior.mean, [3.0], atol=0.02)
    assert result.trace.shape == (8, 400)
    assert_allclose(result.trace[:, -40:].mean(1), result.values, rtol=1e-5)


def test_fit_follows_its_optimizer(x64):
    # Steepest ascent on -(m - 1)^2 / 2 by hand: 1 - m shrinks by 1 - rate each step.
    def objective(q, key):
        return -0.5 * jnp.sum((q.mean - 1) ** 2)

    def initialize(key):
        return IsotropicGaussian(jnp.zeros(1), 1.0)

    result = fit(jax.random.key(0), objective, initialize, steps=7, optimizer=optax.sgd(0.25))
    assert_allclose(result.posterior.mean, [1 - 0.75**7])
    assert_allclose(result.trace[0], -0.5 * 0.75 ** (2 * np.arange(7)))
    assert result.value == result.trace[0, -1]


def test_fit_repeats_for_the_same_key(x64):
    def objective(q, key):
        return jnp.mean(jax.random.normal(key, (3,)) * q.mean)

    def initialize(key):
        return IsotropicGaussian(jax.random.normal(key, (3,)), 1.0)

    def run(seed):
        return fit(jax.random.key(seed), objective, initialize, steps=5, restarts=2).trace

    first, again, other = run(0), run(0), run(1)
    assert np.array_equal(first, again)
    assert not np.any(first == other)
    assert not np.any(first[0] == first[1])


class Ratio(eqx.Module):
    value: jax.Array


def test_fit_names_an_objective_that_is_lost():
    def initialize(key):
        return Ratio(jnp.array(0.5))

    def run(objective):
        result = fit(jax.random.key(0), objective, initialize, steps=30, learning_rate=0.1)
        jax.block_until_ready(result.value)

    with pytest.raises(RuntimeError, match=r"fit: at step \d+, the objective became NaN"):
        run(lambda q, key: jnp.log(q.value) - 2 * jnp.log(q.value))  # rises towards value = 0
    with pytest.raises(RuntimeError, match="fit: at step 0, the objective became NaN"):
        run(lambda q, key: q.value * jnp.nan)
    with pytest.raises(RuntimeError, match="fit: at step 0, the gradient of the objective became"):
        run(lambda q, key: jnp.sqrt(q.value - q.value))  # finite, with an infinite slope


class Pair(eqx.Module):
    """A place, and whether it is one where the objective breaks."""

    place: jax.Array
    broken: jax.Array


def start_pair(key):
    place = jax.random.uniform(key)
    return Pair(place, (place < 0.5).astype(float))


# How one restart fails: in the objective, in a parameter, by an error that the objective raises.
# Each counts its steps by the place, which plain ascent of slope 1 moves by 1 a step.
def lost_objective(q, key):
    return q.place + jnp.where((q.broken > 0) & (q.place > 2), jnp.nan, 0.0)


def lost_parameter(q, key):
    bad = (q.broken > 0) & (q.place > 2)
    root = jnp.where(bad, q.place - q.place, 1.0)
    return q.place + jnp.sqrt(root) - root  # 0 is added, with an infinite slope where it is bad


def raised_error(q, key):
    bad = (q.broken > 0) & (q.place > 2)
    return eqx.error_if(q.place, bad, "own: the place is too large.")


@pytest.mark.parametrize(
    ("objective", "reason"),
    [
        (lost_objective, "the objective became NaN"),
        (lost_parameter, "the gradient of the objective became NaN"),
        (raised_error, "own: the place is too large."),
    ],
)
def test_failed_restarts_are_marked_and_left_out(objective, reason):
    options = {"steps": 5, "optimizer": optax.sgd(1.0)}
    with pytest.warns(RuntimeWarning, match=f"failed at step 2: {reason}"):
        result = fit(jax.random.key(0), objective, start_pair, restarts=4, **options)
    places = result.posteriors.place
    assert 0 < result.failed.sum() < 4
    assert_array_equal(jnp.isnan(places), result.failed)
    assert_array_equal(result.values == -jnp.inf, result.failed)
    # What is left is what the fit without trouble gives.
    plain = fit(jax.random.key(0), lambda q, key: q.place, start_pair, restarts=4, **options)
    good = ~result.failed
    assert_allclose(places[good], plain.posteriors.place[good])
    assert_allclose(result.value, plain.values[good].max())
    assert jnp.isfinite(result.posterior.place)

    def all_broken(key):
        return Pair(jnp.array(0.5), jnp.array(1.0))

    message = f"all 2 restarts failed, restart 0: at step 2, {reason}"
    with pytest.raises(RuntimeError, match=message):
        fit(jax.random.key(0), objective, all_broken, restarts=2, **options)


# ---- Going on, stopping and watching ----


def noisy_bowl(q, key):
    return -0.5 * jnp.sum((q.mean - 1 + 0.1 * jax.random.normal(key, (2,))) ** 2)


def random_start(key):
    return IsotropicGaussian(jax.random.normal(key, (2,)), 1.0)


def constant_rate(step):
    return 0.02


def test_a_fit_goes_on_as_one_long_one(x64):
    key = jax.random.key(3)
    options = {"restarts": 2, "learning_rate": constant_rate}
    long = fit(key, noisy_bowl, random_start, steps=50, **options)
    first = fit(key, noisy_bowl, random_start, steps=30, **options)
    rest = fit(key, noisy_bowl, random_start, steps=20, state=first.state, **options)
    assert_allclose(jnp.concatenate([first.trace, rest.trace], 1), long.trace, rtol=1e-12)
    assert_allclose(rest.posteriors.mean, long.posteriors.mean, rtol=1e-12)
    assert rest.state.steps == 50
    with pytest.raises(ValueError, match="state holds 2 restarts, not 1"):
        fit(key, noisy_bowl, random_start, steps=20, state=first.state)
    with pytest.raises(ValueError, match="state is that of another problem"):
        fit(
            key,
            noisy_bowl,
            lambda key: IsotropicGaussian(jnp.zeros(3), 1.0),
            steps=20,
            restarts=2,
            state=first.state,
        )
    with pytest.raises(ValueError, match="state is that of another optimiser"):
        fit(
            key,
            noisy_bowl,
            random_start,
            steps=20,
            restarts=2,
            state=first.state,
            optimizer=optax.sgd(0.1),
        )


def test_a_fit_is_watched_and_stops_at_rest(x64):
    key, seen = jax.random.key(3), []
    plain = fit(key, noisy_bowl, random_start, steps=95, restarts=2)

    def watch(step, values):
        seen.append((step, values))

    watched = fit(
        key, noisy_bowl, random_start, steps=95, restarts=2, callback=watch, progress=True
    )
    assert_allclose(watched.trace, plain.trace, rtol=1e-12)
    assert [step for step, _ in seen] == [*range(10, 95, 10), 95]
    assert_allclose(seen[1][1], plain.trace[:, 10:20].mean(1))
    assert plain.converged is None
    # An exact objective comes to rest and stops early; with noise a small tolerance is not met,
    # a large one is.
    options = {"steps": 400, "learning_rate": constant_rate}

    def exact(q, key):
        return -0.5 * jnp.sum((q.mean - 1) ** 2)

    found = fit(key, exact, random_start, tolerance=1e-3, **options)
    assert found.converged.all() and found.state.steps == found.trace.shape[1] < 400
    assert_allclose(found.posterior.mean, 1, atol=0.05)
    noisy = fit(key, noisy_bowl, random_start, tolerance=1e-4, **options)
    assert not noisy.converged.any() and noisy.trace.shape == (1, 400)
    assert fit(key, noisy_bowl, random_start, tolerance=0.05, **options).converged.all()
    with pytest.raises(ValueError, match="tolerance compares tenths"):
        fit(key, exact, random_start, steps=19, tolerance=1.0)
    with pytest.raises(ValueError, match="callback and progress need values"):
        jax.jit(lambda key: fit(key, exact, random_start, steps=2, callback=print).value)(key)


def test_a_module_as_objective_is_traced_once():
    traces = []

    class Bowl(eqx.Module):
        centre: jax.Array

        def __call__(self, q, key):
            traces.append(None)
            return -0.5 * jnp.sum((q.mean - self.centre) ** 2)

    def run(centre):
        return fit(jax.random.key(0), Bowl(jnp.full(2, centre)), random_start, steps=300)

    assert_allclose(run(1.0).posterior.mean, 1, atol=0.1)
    count = len(traces)
    assert_allclose(run(2.0).posterior.mean, 2, atol=0.1)
    assert len(traces) == count > 0


def test_fit_takes_optimisers_that_search_along_a_line(x64):
    scales = jnp.array([1.0, 100.0])

    def stretched(q, key):
        return -0.5 * jnp.sum(scales * (q.mean - 1) ** 2) - q.log_variance**2

    found = fit(
        jax.random.key(0), stretched, random_start, steps=15, restarts=2, optimizer=optax.lbfgs()
    )
    assert_allclose(found.posteriors.mean, np.ones((2, 2)), atol=1e-6)


def test_an_error_in_a_start_costs_one_restart():
    def start(key):
        value = jax.random.uniform(key)
        return Ratio(eqx.error_if(value, value < 0.5, "own: no start here."))

    options = {"steps": 3, "optimizer": optax.sgd(0.1), "restarts": 4}
    with pytest.warns(RuntimeWarning, match="failed at step 0: own: no start here"):
        found = fit(jax.random.key(0), lambda q, key: q.value, start, **options)
    assert 0 < found.failed.sum() < 4
    assert_allclose(found.trace[~found.failed][:, -1], found.values[~found.failed], rtol=1e-6)


def test_the_likeliest_mistakes_have_their_sentence():
    key, q = jax.random.key(0), IsotropicGaussian(jnp.ones(2), 1.0)
    bare = inspect.unwrap(fit)  # without the tests' own check of annotations
    with pytest.raises(ValueError, match=r"returned a tuple, as elbo does; .* elbo\(...\)\[0\]"):
        fit(key, lambda q, key: elbo(key, q.log_prob, q, 4), random_start, steps=1)
    with pytest.raises(ValueError, match="got a IsotropicGaussian; to start there, pass lambda"):
        bare(key, noisy_bowl, q, steps=1)
    with pytest.raises(ValueError, match="Of a log joint density make one by"):
        fit(key, lambda z: -jnp.sum(z**2), random_start, steps=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"callback": lambda step: None}, r"fit: callback has to be a function \(steps done, mean"),
        ({"callback": 3}, "fit: callback has to be a function"),
        ({"initialize": lambda: None}, "fit: initialize has to take one argument, the random key"),
        ({"optimizer": optax.adam}, r"optax optimiser, got a function; call it, adam\(0.1\)"),
        ({"optimizer": 0.1}, "has to be an optax optimiser, got a float"),
        ({"objective": lambda q, key: 1}, "objective has to return a floating-point number"),
    ],
)
def test_mistakes_are_refused_before_the_first_step(options, message):
    bare = inspect.unwrap(fit)  # without the tests' own check of annotations
    given = {"objective": noisy_bowl, "initialize": random_start, "steps": 20} | options
    with pytest.raises(ValueError, match=message):
        bare(jax.random.key(0), **given)


class Uniform(eqx.Module):
    """A posterior of one's own without closed forms."""

    mean: jax.Array

    def sample(self, key):
        return self.mean + jax.random.uniform(key, (2,), minval=-1)

    def log_prob(self, z):
        return jnp.where(jnp.all(abs(z - self.mean) <= 1), -2 * math.log(2), -jnp.inf)


class Moved(Uniform):
    """One that says a group and no base."""

    group: SignFlip = SignFlip(2)


def test_what_a_posterior_of_ones_own_lacks_is_said():
    key, own = jax.random.key(0), Uniform(jnp.zeros(2))
    value, _ = elbo(key, lambda z: 0.0 * z.sum(), own, 4)
    assert_allclose(value, 2 * math.log(2), rtol=1e-6)
    gaussian = IsotropicGaussian(jnp.zeros(2), 1.0)
    batch = (jnp.ones(3), jnp.ones(3), 2)

    def likelihood(z, x, y):
        return z.sum() * 0

    for call, message in (
        (lambda: elbo(key, jnp.sum, own, 4, "entropy"), r"a Uniform lacks entropy\(\)"),
        (lambda: elbo(key, jnp.sum, Symmetrized(own, SignFlip(2)), 4, "divergence"), "entropy"),
        (lambda: elbo(key, jnp.sum, Moved(own.mean), 4), "Moved has a group and no base"),
        (lambda: minibatch_elbo(key, likelihood, gaussian, own, *batch), r"lacks kl\(\)"),
        (lambda: minibatch_elbo(key, likelihood, own, gaussian, *batch), "got a Uniform"),
        (lambda: gaussian.kl(own), "needs another Gaussian with independent entries, got a Unif"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


# ---- A group that the model lacks ----


def lopsided(z):
    """Return a normalised log density on the line, which a sign flip moves: the evidence is 0."""
    return IsotropicGaussian(jnp.full(1, 3.0), 1.0).log_prob(z)


def start_lopsided(key):
    return Symmetrized(IsotropicGaussian(jnp.full(1, 2.5), 1.0), SignFlip(1))


def test_a_group_that_the_model_lacks_is_refused():
    key, posterior = jax.random.key(0), start_lopsided(None)
    # Eagerly both values are told; under a transformation and in fit, the group.
    with pytest.raises(ValueError, match=r"changes under SignFlip\(dim=1\).*: -\S+ became -"):
        elbo(key, lopsided, posterior, 2)
    with pytest.raises(RuntimeError, match=r"changes under SignFlip\(dim=1\)"):
        jax.block_until_ready(jax.jit(lambda key: elbo(key, lopsided, posterior, 2))(key))
    with pytest.raises(RuntimeError, match=r"fit: at step 0, elbo: the model changes under Sign"):
        fit(key, lambda q, key: elbo(key, lopsided, q, 2)[0], start_lopsided, steps=3)
    # What would come out: .69 nats above the evidence of a normalised density.
    wrong, error = jax.jit(
        lambda key: elbo(key, lopsided, posterior, 4000, check_invariance=False)
    )(key)
    assert wrong - 4 * error > 0.4


def test_rounding_is_no_broken_invariance(dtype):
    # Log densities of -1e6, which rotations and permutations keep to rounding only.
    @jax.jit
    def bound(key):
        x = jax.random.normal(jax.random.key(0), (40, 40), dtype)

        def target(z):
            return -0.5 * jnp.sum((30 * x - z @ z.T) ** 2) - 0.5 * jnp.sum(z**2)

        base = IsotropicGaussian(3 * jax.random.normal(jax.random.key(1), (40, 2), dtype), 0.01)
        return elbo(key, target, Symmetrized(base, Orthogonal(2)), 64)[0]

    assert bound(jax.random.key(2)) < -1e5


def test_elbo_has_a_gradient_where_all_terms_are_equal(x64):
    log_joint, posterior, _ = linear_gaussian(jnp.float64)

    def both(mean):
        value, error = elbo(jax.random.key(0), log_joint, DiagonalGaussian(mean, jnp.ones(3)), 8)
        return value + 0 * error

    centre = IsotropicGaussian(jnp.zeros(3), 1.0)

    def constant(mean):  # all terms are 0
        value, error = elbo(
            jax.random.key(0), lambda z: centre.log_prob(z - mean), IsotropicGaussian(mean, 1.0), 8
        )
        return value + error

    assert np.isfinite(jax.jit(jax.grad(constant))(jnp.zeros(3))).all()
    # First and second derivatives for a fixed key, against differences.
    mean, step = np.asarray(posterior.mean) + 0.3, 1e-4 * np.eye(3)
    slope = jax.grad(both)
    derivatives = jax.jit(jax.vmap(lambda m: (both(m), slope(m), jax.jacobian(slope)(m))))
    points = np.vstack([mean, mean + step, mean - step])
    value, slopes, curvatures = map(np.asarray, derivatives(points))
    for f, found in [(value, slopes[0]), (slopes, curvatures[0])]:
        assert_allclose(found, (f[1:4] - f[4:]) / 2e-4, atol=1e-7)


def test_bad_arguments_are_refused():
    base = IsotropicGaussian(jnp.ones(2), 1.0)
    key = jax.random.key(0)

    def target(z):
        return -jnp.sum(z**2)

    def initialize(key):
        return base

    def objective(q, key):
        return q.mean.sum()

    with pytest.raises(ValueError, match="steps has to be an integer of at least 1, got 0"):
        fit(key, objective, initialize, steps=0)
    with pytest.raises(ValueError, match="restarts has to be an integer of at least 1"):
        fit(key, objective, initialize, steps=1, restarts=0)
    with pytest.raises(ValueError, match="objective has to return a scalar"):
        fit(key, lambda q, key: q.mean, initialize, steps=1)
    with pytest.raises(ValueError, match="arrays to train"):
        fit(key, objective, lambda key: Ratio(jnp.array(1)), steps=1)
    with pytest.raises(ValueError, match="num_samples of at least 2"):
        elbo(key, target, base, 1)
    with pytest.raises(ValueError, match="form has to be one of"):
        elbo(key, target, base, 10, "eq. 5")
    with pytest.raises(ValueError, match="closed-form entropy"):
        elbo(key, target, Symmetrized(base, SignFlip(2)), 10, "entropy")
    with pytest.raises(ValueError, match="is for a Symmetrized posterior, got IsotropicGaussian"):
        elbo(key, target, base, 10, "divergence")
    with pytest.raises(ValueError, match="log_joint has to return a scalar"):
        elbo(key, lambda z: z, base, 10)
    for kind in (jnp.float16, jnp.bfloat16):
        with pytest.raises(ValueError, match="the start has to be float32 or float64"):
            fit(key, lambda q, key: q.value, lambda key, k=kind: Ratio(jnp.ones((), k)), steps=1)
    for rate in (0.0, math.nan, -1.0):
        with pytest.raises(ValueError, match="learning_rate has to be"):
            fit(key, objective, initialize, steps=1, learning_rate=rate)
    diagonal = DiagonalGaussian(base.mean, jnp.ones(2))
    with pytest.raises(ValueError, match="rotation_kl_bound"):
        elbo(key, target, Symmetrized(diagonal, Orthogonal(2)), 10)
    for broken in [jnp.nan, -jnp.inf]:
        with pytest.raises(ValueError, match="log_joint gave NaN or infinity"):
            value, _ = elbo(key, lambda z, broken=broken: z.sum() * 0 + broken, base, 10)
            jax.block_until_ready(value)


@pytest.mark.parametrize(("distance", "stays"), [(4.5, False), (5.2, True)])
def test_a_gaussian_slides_between_two_near_modes(distance, stays, x64):
    # Gelberg et al. (2024): the fit to two equal modes of variance 1 sits between them when they
    # are near, with a larger variance. It starts at one mode; the expectation is a sum.
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()

    def bound(posterior, key):
        z = posterior.mean + jnp.sqrt(posterior.variance) * nodes
        mode = jnp.array([[0.5], [-0.5]]) * distance
        log_modes = -0.5 * (z - mode) ** 2 - 0.5 * math.log(2 * math.pi)
        return weights @ (jnp.logaddexp(*log_modes) - math.log(2)) + posterior.entropy()

    def start(key):
        return DiagonalGaussian(jnp.array([distance / 2]), jnp.ones(1))

    result = fit(jax.random.key(0), bound, start, steps=500)
    mean, variance = float(result.posterior.mean[0]), float(result.posterior.variance[0])
    if stays:
        assert mean > 0.9 * distance / 2 and variance < 1.5
    else:
        assert abs(mean) < 1e-3 and variance > 3
    assert -math.log(2) < result.value < 0  # minus the divergence; the mixture has evidence 1


def test_data_that_lose_digits_are_no_broken_invariance():
    c = 1e-3
    y = 2000 + c**0.5 * jax.random.normal(jax.random.key(2), (5,))

    def log_joint(z):  # symmetric, but the sum rounds differently in another order
        total = sum(z[j] for j in range(5))
        return -0.5 * jnp.sum((y - total) ** 2) / c - 0.5 * jnp.sum((z - 400) ** 2) / 1e4

    mean = jnp.array([300.1, 350.2, 400.3, 450.1, 499.3])
    posterior = Symmetrized(IsotropicGaussian(mean, c / 5), Permutation(5))
    bound = jax.jit(lambda key: elbo(key, log_joint, posterior, 64)[0])
    for seed in range(3):
        assert np.isfinite(bound(jax.random.key(seed)))


def test_the_identity_that_is_not_first_is_noticed():
    class Reversed(SignFlip):
        def elements(self):
            return jnp.array([-1.0, 1.0])

    posterior = Symmetrized(IsotropicGaussian(jnp.array([3.0]), 1.0), Reversed(1))
    with pytest.raises(ValueError, match="first of the elements"):
        elbo(jax.random.key(0), lambda z: -0.5 * jnp.sum((z - 3) ** 2), posterior, 64)


def test_a_decay_may_stand_before_the_optimiser():
    """As the README has it, in a fit too; beside a line search it is refused."""

    def bowl(q, key):
        return -jnp.sum((q.mean - 1) ** 2)

    decay = anchored_decay(jax.random.key(1), gamma=1.0)
    found = fit(
        jax.random.key(0),
        bowl,
        random_start,
        steps=200,
        optimizer=optax.chain(decay, optax.sgd(0.1)),
    )
    assert_allclose(found.posterior.mean, 0.5, atol=0.1)  # between 1 and an anchor near 0
    with pytest.raises(ValueError, match="a line search sees the loss without the decay"):
        fit(
            jax.random.key(0),
            bowl,
            random_start,
            steps=2,
            optimizer=optax.chain(decay, optax.lbfgs()),
        )


def test_a_mirror_is_not_trained(x64):
    mirror = Reflection.sign_flip(2, [0])

    def start(key):
        return Symmetrized(random_start(key), mirror)

    def objective(posterior, key):
        return elbo(key, lambda z: -jnp.sum(z**2), posterior, 16)[0]

    found = fit(
        jax.random.key(0), objective, start, steps=5, optimizer=optax.adamw(0.05, weight_decay=1.0)
    )
    assert_array_equal(found.posterior.group.projection, mirror.projection)
    # Such a fit goes on, too.
    options = {"optimizer": optax.adamw(0.05, weight_decay=1.0), "state": found.state}
    assert fit(jax.random.key(0), objective, start, steps=3, **options).state.steps == 8
