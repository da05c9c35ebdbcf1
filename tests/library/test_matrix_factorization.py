"""Tests of the matrix model, its closed forms and coordinate ascent against other routes."""

import itertools
import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import scipy
from numpy.testing import assert_allclose

from symlib.factorization import (
    Ratings,
    expected_log_joint,
    generate_ratings,
    map_ascent,
    matrix_log_joint,
    matrix_map_estimate,
    matrix_mean_field,
    mean_field_ascent,
    mean_field_posterior,
    mean_field_threshold,
    predict,
    scalar_log_joint,
    scalar_map_estimate,
    scalar_mean_field,
)
from symlib.posteriors import DiagonalGaussian, IsotropicGaussian

# (n, m, k, noise variance): tall, wide, and more traits than the rank of the ratings.
SIZES = [(7, 4, 3, 0.5), (4, 6, 2, 0.5), (4, 3, 5, 0.1)]

# One compilation in place of one for each operation.
draw_ratings = jax.jit(generate_ratings, static_argnums=(1, 2, 3))
log_joint_of = jax.jit(matrix_log_joint)
expected_log_joint_of = jax.jit(expected_log_joint)
closed_map = jax.jit(matrix_map_estimate, static_argnums=1)
closed_mean_field = jax.jit(matrix_mean_field, static_argnums=1)


def problem(n, m, k, noise, seed=1):
    """Return ratings, the same with about a quarter left out, and a point (U, V)."""
    data = draw_ratings(jax.random.key(seed), n, m, k, noise)
    observed = jax.random.bernoulli(jax.random.key(seed + 1), 0.75, (n, m))
    return data.ratings, Ratings(data.ratings.values, noise, observed), data.factors


def random_posteriors(n, m, k):
    """Return an isotropic and a diagonal Gaussian over (U, V) with means of order one."""
    keys = jax.random.split(jax.random.key(5), 4)
    shapes = [(n, k), (m, k)] * 2
    M, N, C, D = (jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))
    return IsotropicGaussian((M, N), 0.3), DiagonalGaussian((M, N), (C**2 + 0.1, D**2 + 0.1))


def mode(fit, k):
    """Return factors (U, V) with the prediction of a fit, of the least possible norm."""
    left, values, right = np.linalg.svd(fit.prediction, full_matrices=False)
    rank = min(k, len(values))
    size = np.sqrt(math.sqrt(k) * values[:rank])
    fill = ((0, 0), (0, k - rank))
    return tuple(
        jnp.asarray(np.pad(side * size, fill)) for side in (left[:, :rank], right[:rank].T)
    )


def test_ratings_are_the_truth_and_noise(dtype):
    data = draw_ratings(jax.random.key(0), 300, 200, 5, 4.0)
    assert {leaf.dtype for leaf in jax.tree.leaves(data)} == {dtype}
    U, V = data.factors
    assert_allclose(data.truth, U @ V.T / math.sqrt(5), atol=1e-5)
    # Standard errors of these variances: 1.4 / sqrt(count).
    assert_allclose(np.var(data.ratings.values - data.truth), 4.0, rtol=4 * 1.4 / math.sqrt(60000))
    assert_allclose(np.var(U), 1.0, rtol=4 * 1.4 / math.sqrt(1500))
    # A row of the truth is nearly sqrt(|u|^2 / k) times normal: far fewer independent numbers.
    assert_allclose(np.var(data.truth), 1.0, rtol=0.2)


def test_log_joint_is_a_product_of_normal_densities(dtype):
    ratings, partial, (U, V) = problem(4, 3, 2, 0.5)
    normal = scipy.stats.norm
    prior = normal.logpdf(U).sum() + normal.logpdf(V).sum()
    terms = normal.logpdf(ratings.values, U @ V.T / math.sqrt(2), math.sqrt(0.5))
    for seen, expected in [(ratings, terms.sum()), (partial, terms[partial.observed].sum())]:
        value = log_joint_of((U, V), seen)
        assert value.dtype == dtype
        assert_allclose(value, prior + expected, rtol=1e-5 if dtype == "float32" else 1e-13)


def test_log_joint_does_not_change_under_rotations(dtype, tolerance):
    _, ratings, factors = problem(4, 3, 5, 0.5)
    rotation = jnp.asarray(scipy.stats.ortho_group.rvs(5, random_state=0), dtype)
    rotated = tuple(leaf @ rotation for leaf in factors)
    expected = log_joint_of(factors, ratings)
    value = log_joint_of(rotated, ratings)
    assert_allclose(value, expected, rtol=tolerance(dtype))


def test_expected_log_joint_is_exact_by_cubature(x64):
    # The log joint is of degree 2 in each entry, so the two points mean +- standard deviation
    # give each expectation exactly: 2^10 points for ten entries.
    n, m, k, noise = 3, 2, 2, 0.5
    ratings, partial, _ = problem(n, m, k, noise)
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=(n + m) * k)))
    for posterior in random_posteriors(n, m, k):
        variance = posterior.variance
        C, D = variance if isinstance(variance, tuple) else (variance, variance)
        U = posterior.mean[0] + np.sqrt(C) * signs[:, : n * k].reshape(-1, n, k)
        V = posterior.mean[1] + np.sqrt(D) * signs[:, n * k :].reshape(-1, m, k)
        normal = scipy.stats.norm
        terms = normal.logpdf(ratings.values, U @ V.mT / math.sqrt(k), math.sqrt(noise)).mean(
            axis=0
        )
        prior = (normal.logpdf(U).sum() + normal.logpdf(V).sum()) / len(signs)
        for seen in [partial, ratings]:
            value = expected_log_joint_of(posterior, seen)
            assert_allclose(value, prior + np.sum(terms, where=seen.weights > 0), rtol=1e-12)


@pytest.mark.parametrize(("n", "m", "k", "noise"), SIZES)
def test_map_is_the_mode(x64, n, m, k, noise):
    ratings, _, _ = problem(n, m, k, noise)
    fit = closed_map(ratings, k)
    factors = mode(fit, k)
    log_joint = jax.jit(lambda factors: matrix_log_joint(factors, ratings))
    assert_allclose(log_joint(factors), fit.objective, rtol=1e-12)
    for leaf in jax.jit(jax.grad(log_joint))(factors):
        assert_allclose(leaf, 0, atol=1e-6)  # the square root of a value that is zero to rounding
    random = np.random.default_rng(0)
    for size in [1e-3, 0.1, 1.0]:
        for _ in range(20):
            moved = tuple(leaf + size * random.normal(size=leaf.shape) for leaf in factors)
            assert log_joint(moved) < fit.objective


def test_map_ascent_climbs_to_the_closed_form(x64):
    for n, m, k, noise in SIZES[1:]:
        ratings, _, _ = problem(n, m, k, noise)
        exact = closed_map(ratings, k)
        for seed in range(3):
            fit, trace = map_ascent(jax.random.key(seed), ratings, k, steps=1000)
            assert_allclose(fit.objective, exact.objective, rtol=1e-6)
            assert_allclose(fit.prediction, exact.prediction, atol=1e-3)
            assert np.all(trace <= exact.objective + 1e-10)


def test_mean_field_ascent_climbs_to_the_closed_form(x64):
    for n, m, k, noise in SIZES[1:]:
        ratings, _, _ = problem(n, m, k, noise)
        exact = closed_mean_field(ratings, k)
        for seed in range(3):
            fit, trace = mean_field_ascent(jax.random.key(seed), ratings, k, steps=1000)
            assert_allclose(fit.objective, exact.objective, rtol=1e-6)
            assert_allclose(fit.prediction, exact.prediction, atol=1e-3)
            assert_allclose(fit.singular_values, exact.singular_values, atol=1e-3)
            assert np.all(trace <= exact.objective + 1e-10)


@pytest.mark.parametrize("ascent", [mean_field_ascent, map_ascent])
@pytest.mark.parametrize("masked", [False, True])
def test_ascent_never_descends(dtype, ascent, masked):
    ratings = problem(*SIZES[1])[masked]
    _, trace = ascent(jax.random.key(0), ratings, SIZES[1][2], 1000)
    assert trace.dtype == dtype
    # Rounding in a sum of some hundred terms of a few nats each.
    assert np.min(np.diff(trace)) > (-2e-4 if dtype == "float32" else -1e-12)
    assert trace[-1] - trace[0] > 0.5


@pytest.mark.parametrize(("n", "m", "k", "noise"), SIZES)
def test_mean_field_objective_is_the_bound_of_its_posterior(x64, n, m, k, noise):
    ratings, _, _ = problem(n, m, k, noise)
    fit = closed_mean_field(ratings, k)
    posterior = jax.jit(mean_field_posterior, static_argnums=1)(ratings, k)

    def bound(posterior):
        return expected_log_joint(posterior, ratings) + posterior.entropy()

    value, slope = jax.jit(jax.value_and_grad(bound))(posterior)
    assert_allclose(value, fit.objective, rtol=1e-12)
    for leaf in jax.tree.leaves(slope):
        assert_allclose(leaf, 0, atol=1e-11)
    assert_allclose(predict(posterior.mean), fit.prediction, atol=1e-12)
    found = np.linalg.svd(fit.prediction, compute_uv=False)[:k]
    assert_allclose(fit.singular_values[: len(found)], found, atol=1e-12)


@pytest.mark.parametrize("function", [matrix_map_estimate, matrix_mean_field])
def test_closed_forms_in_float32(function):
    n, m, k, noise = SIZES[0]
    with jax.enable_x64(True):
        ratings, _, _ = problem(n, m, k, noise)
        expected = function(ratings, k)
    values = jnp.asarray(np.asarray(ratings.values), jnp.float32)
    fit = function(Ratings(values, noise), k)
    assert {leaf.dtype for leaf in fit} == {np.dtype("float32")}
    for one, two in zip(fit, expected, strict=True):
        assert_allclose(one, two, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("function", [matrix_map_estimate, matrix_mean_field])
def test_derivatives_at_ties_are_refused(x64, function):
    def total(values):
        return jnp.sum(jnp.arange(4.0) * function(Ratings(values, 0.01), 2).prediction.ravel())

    with pytest.raises(ValueError, match="derivatives in the ratings need distinct singular"):
        jax.grad(total)(2 * jnp.eye(2))
    # At distinct ones, 0 among them, they are those of differences.
    for values in [jnp.array([[3.0, 1.0], [0.5, 2.0]]), jnp.array([[3.0, 0.0], [0.0, 0.0]])]:
        step = jnp.array([[1e-5, 0.0], [0.0, 0.0]])
        expected = (total(values + step) - total(values - step)) / 2e-5
        assert_allclose(jax.grad(total)(values)[0, 0], expected, atol=1e-6)


def test_mean_field_is_nakajimas_formula(x64):
    # With L = n, M = m, sigma^2 = noise and c_a c_b = k^(-1/2), as printed.
    n, m, k, noise = 9, 5, 5, 0.3
    ratings, _, _ = problem(n, m, k, noise)
    gamma = np.linalg.svd(ratings.values, compute_uv=False)
    t = (n + m) / 2 + noise * k / 2
    threshold = np.sqrt(noise) * np.sqrt(t + np.sqrt(t**2 - n * m))
    root = np.sqrt((m - n) ** 2 + 4 * gamma**2 * k)
    shrunk = gamma * (1 - noise / (2 * gamma**2) * (n + m + root))
    expected = np.where(gamma > threshold, shrunk, 0)
    assert 0 < np.sum(expected > 0) < k  # both cases occur
    assert_allclose(mean_field_threshold(n, m, k, noise), threshold, rtol=1e-13)
    assert_allclose(matrix_mean_field(ratings, k).singular_values, expected, atol=1e-12)


@pytest.mark.parametrize(("n", "m", "k"), [(1, 1, 1), (8, 8, 4), (10, 3, 2)])
def test_threshold_is_where_the_first_trait_appears(x64, n, m, k):
    threshold = mean_field_threshold(n, m, k, 0.7)
    direction = jnp.zeros((n, m)).at[0, 0].set(1.0)
    below, above = (
        matrix_mean_field(Ratings(factor * threshold * direction, 0.7), k).singular_values[0]
        for factor in (1 - 1e-6, 1 + 1e-6)
    )
    assert below == 0
    assert 0 < above < 1e-3 * threshold


def test_known_thresholds(dtype):
    golden = (1 + math.sqrt(5)) / 2
    assert_allclose(mean_field_threshold(1, 1, 1, 1.0), golden, rtol=1e-6)
    assert_allclose(mean_field_threshold(40, 40, 20, 4.0), 24.44, atol=0.005)
    assert mean_field_threshold(40, 40, 20, 4).dtype == dtype


@pytest.mark.parametrize("noise", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("r", [-6.0, -0.4, 0.0, 1.5, 3.0])
def test_one_by_one_is_the_scalar_model(x64, r, noise):
    ratings = Ratings(jnp.array([[r]]), noise)
    point = (jnp.array([[0.7]]), jnp.array([[-1.2]]))
    expected = scalar_log_joint(jnp.array([0.7, -1.2]), r, noise)
    assert_allclose(matrix_log_joint(point, ratings), expected, rtol=1e-14)
    assert_allclose(closed_map(ratings, 1).prediction[0, 0], scalar_map_estimate(r, noise))
    fit, scalar = closed_mean_field(ratings, 1), scalar_mean_field(r, noise)
    assert_allclose(fit.prediction[0, 0], scalar.predictive_mean, atol=1e-14)
    assert_allclose(fit.objective, scalar.elbo, rtol=1e-14)
    posterior = mean_field_posterior(ratings, 1)
    assert_allclose(jnp.ravel(jnp.stack(posterior.variance)), scalar.variance, rtol=1e-14)


@pytest.mark.parametrize("ascent", [mean_field_ascent, map_ascent])
def test_a_row_or_column_without_ratings_changes_nothing(x64, ascent):
    # With its factor at the prior it adds nothing to the bound, and log N(0; 0, I) to the mode.
    k, noise = 2, 0.2
    _, ratings, _ = problem(5, 4, k, noise)
    start, more = jax.random.key(0), ((0, 1), (0, 1))
    expected, _ = ascent(start, ratings, k, 2000)
    wider = jnp.pad(ratings.values, more, constant_values=np.nan)
    fit, _ = ascent(start, Ratings(wider, noise, jnp.pad(ratings.observed, more)), k, 2000)
    assert_allclose(fit.prediction[-1], 0, atol=1e-12)
    assert_allclose(fit.prediction[:, -1], 0, atol=1e-12)
    assert_allclose(fit.prediction[:-1, :-1], expected.prediction, atol=1e-5)
    constant = 0 if ascent is mean_field_ascent else -k * math.log(2 * math.pi)
    assert_allclose(fit.objective, expected.objective + constant, rtol=1e-8)


def test_unobserved_ratings_do_not_matter(x64):
    data, partial, factors = problem(4, 5, 2, 0.5)
    values, observed = data.values, partial.observed
    _, posterior = random_posteriors(4, 5, 2)

    @jax.jit
    def results(values):
        ratings = Ratings(values, 0.5, observed)
        return (
            matrix_log_joint(factors, ratings),
            jax.grad(matrix_log_joint)(factors, ratings),
            expected_log_joint(posterior, ratings),
        )

    expected = jax.tree.leaves(results(values))
    for value in [1e3, np.nan, np.inf]:
        found = jax.tree.leaves(results(jnp.where(observed, values, value)))
        for one, two in zip(expected, found, strict=True):
            assert np.all(np.isfinite(one))
            assert_allclose(two, one, rtol=0)


def test_all_observed_is_no_mask(x64):
    ratings, _, factors = problem(4, 5, 2, 0.5)
    everything = Ratings(ratings.values, 0.5, jnp.ones((4, 5), bool))
    posterior, _ = random_posteriors(4, 5, 2)
    for function, point in [(log_joint_of, factors), (expected_log_joint_of, posterior)]:
        expected = function(point, ratings)
        assert_allclose(function(point, everything), expected, rtol=1e-14)


# A batch of larger matrices is its own case: some versions of jaxlib compile sums of products
# wrongly there.
def test_a_batch_is_its_members(x64):
    n, m, k, noise = 40, 40, 20, 2.0
    batch = [problem(n, m, k, noise, seed) for seed in range(3)]
    isotropic, diagonal = random_posteriors(n, m, k)

    def results(ratings, partial, factors):
        return (
            matrix_log_joint(factors, partial),
            expected_log_joint(IsotropicGaussian(factors, 0.3), partial),
            expected_log_joint(isotropic, ratings),
            expected_log_joint(diagonal, ratings),
            mean_field_ascent(jax.random.key(0), partial, k, 3)[1],
        )

    stacked = jax.jit(jax.vmap(results))(*jax.tree.map(lambda *leaves: jnp.stack(leaves), *batch))
    alone = jax.jit(results)
    for index, one in enumerate(batch):
        for leaf, leaves in zip(*map(jax.tree.leaves, (alone(*one), stacked)), strict=True):
            assert_allclose(leaves[index], leaf, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("noise", [0.0, -1.0, np.nan, np.inf])
def test_bad_noise_is_refused(noise):
    for call in [
        lambda: Ratings(jnp.ones((2, 3)), noise),
        lambda: mean_field_threshold(2, 3, 1, noise),
        lambda: generate_ratings(jax.random.key(0), 2, 3, 1, noise),
    ]:
        with pytest.raises(ValueError, match="noise_variance has to be positive"):
            call()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_ratings_are_refused(value):
    values = jnp.ones((2, 3)).at[1, 2].set(value)
    observed = jnp.ones((2, 3), bool).at[0, 0].set(False)
    for mask in [None, observed]:
        with pytest.raises(ValueError, match="Ratings: an observed rating has to be finite"):
            Ratings(values, 1.0, mask)


def test_ratings_say_what_is_observed(dtype):
    values = jnp.array([[1.0, jnp.nan], [2.0, 3.0]])
    ratings = Ratings(values, 0.5, ~jnp.isnan(values))
    assert ratings.shape == (2, 2) and ratings.count == 3
    assert_allclose(ratings.values, [[1, 0], [2, 3]])
    assert_allclose(ratings.weights, [[1, 0], [1, 1]])
    assert_allclose(Ratings(ratings.values).weights, 1)
    assert {ratings.values.dtype, ratings.noise_variance.dtype, ratings.weights.dtype} == {dtype}


def test_bad_shapes_and_types_are_refused(monkeypatch):
    # Without the run-time checks of annotations that the tests switch on.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for values, message in [
        (jnp.ones((2, 3), int), "values has to hold floating-point"),
        (jnp.ones(3), r"values has to have shape \(n, m\), got \(3,\)"),
        (jnp.ones((0, 3)), r"values has to have shape \(n, m\), got \(0, 3\)"),
        ([[1.0, 2.0]], r"values has to have shape \(n, m\), got list"),
    ]:
        with pytest.raises(ValueError, match=message):
            Ratings(values)
    for observed, message in [
        (jnp.ones((3, 2), bool), r"observed has to have shape \(2, 3\), got \(3, 2\)"),
        (jnp.ones((2, 3)), "observed has to be boolean, got float"),
    ]:
        with pytest.raises(ValueError, match=message):
            Ratings(jnp.ones((2, 3)), 1.0, observed)
    with pytest.raises(ValueError, match="noise_variance has to have shape"):
        Ratings(jnp.ones((2, 3)), jnp.ones(2))


def calls(ratings, k=1):
    """Return all calls of this file's functions with these ratings."""
    factors = jnp.ones((2, 1)), jnp.ones((3, 1))
    key = jax.random.key(0)
    return [
        lambda: matrix_log_joint(factors, ratings),
        lambda: expected_log_joint(IsotropicGaussian(factors, 1.0), ratings),
        lambda: mean_field_ascent(key, ratings, k, 2),
        lambda: map_ascent(key, ratings, k, 2),
        lambda: matrix_map_estimate(ratings, k),
        lambda: matrix_mean_field(ratings, k),
        lambda: mean_field_posterior(ratings, k),
    ]


def test_a_plain_matrix_is_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for call in calls(jnp.ones((2, 3))):
        with pytest.raises(ValueError, match=r"ratings has to be Ratings\(values, noise_var"):
            call()


def test_closed_forms_refuse_missing_ratings():
    partial = Ratings(jnp.ones((2, 3)), 1.0, jnp.ones((2, 3), bool).at[0, 0].set(False))
    for call in calls(partial)[4:]:
        with pytest.raises(ValueError, match="needs all ratings observed; with some missing, "):
            call()


def test_bad_sizes_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    ratings, key = Ratings(jnp.ones((2, 3))), jax.random.key(0)
    for k in [0, -1, 1.5]:
        others = [
            lambda k=k: mean_field_threshold(2, 3, k),
            lambda k=k: generate_ratings(key, 2, 3, k),
        ]
        for call in calls(ratings, k)[2:] + others:
            with pytest.raises(ValueError, match="num_traits has to be an integer of at least 1"):
                call()
    with pytest.raises(ValueError, match="steps has to be an integer of at least 1"):
        mean_field_ascent(key, ratings, 1, steps=0)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ((jnp.ones((2, 2)), jnp.ones((3, 1))), r"\(2, k\) and \(3, k\), got \(2, 2\) and \(3, 1\)"),
        ((jnp.ones((3, 1)), jnp.ones((2, 1))), r"\(2, k\) and \(3, k\), got \(3, 1\) and \(2, 1\)"),
        ((jnp.ones(2), jnp.ones(3)), r"\(2, k\) and \(3, k\)"),
        (jnp.ones((2, 2, 1)), "factors has to be the pair"),
        ((jnp.ones((2, 1), int), jnp.ones((3, 1), int)), "floating-point"),
    ],
)
def test_bad_factors_are_refused(factors, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        matrix_log_joint(factors, Ratings(jnp.ones((2, 3))))
