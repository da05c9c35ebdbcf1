"""Tests of stochastic variational matrix factorization against closed forms and quadrature."""

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
    fit_matrix,
    fit_matrix_entries,
    generate_ratings,
    matrix_log_joint,
    matrix_mean_field,
    predict,
    scalar_exact,
    scalar_mean_field,
    scalar_symmetrized,
)
from symlib.groups import Orthogonal, rotation_log_ratio
from symlib.inference import elbo, fit
from symlib.posteriors import DiagonalGaussian, IsotropicGaussian, Symmetrized

KEY = jax.random.key(0)


def column_evidence(ratings, k, noise):
    """Return log p(R) for one column: given v, its rows are N(0, |v|^2 / k + noise)."""
    r = np.ravel(ratings)

    def integrand(x):  # x^2 = |v|^2 has the chi-squared law of k degrees
        variance = x**2 / k + noise
        density = scipy.stats.chi.pdf(x, k)
        return density * np.exp(-0.5 * np.sum(r**2) / variance) / variance ** (len(r) / 2)

    total, _ = scipy.integrate.quad(integrand, 0, 12, epsabs=0, epsrel=1e-10, limit=200)
    return np.log(total) - 0.5 * len(r) * np.log(2 * np.pi)


@pytest.mark.parametrize(("r", "noise"), [(1.5, 1.0), (-3.0, 0.5)])
def test_one_by_one_is_the_scalar_model(x64, r, noise):
    ratings = Ratings(jnp.array([[r]]), noise)
    # The scalar optima have equal variances, so the isotropic family holds them.
    flat = fit_matrix(KEY, ratings, 1, symmetrize=False)
    scalar = scalar_mean_field(r, noise)
    assert_allclose(flat.bound, scalar.elbo, rtol=1e-6)
    assert flat.bound_error == 0
    result = fit_matrix(KEY, ratings, 1, num_samples=20000)
    scalar = scalar_symmetrized(r, noise)
    assert result.bound_error < 0.005
    assert_allclose(result.bound, scalar.elbo, atol=4 * result.bound_error)
    assert_allclose(result.prediction[0, 0], scalar.predictive_mean, atol=0.03)
    assert result.bound <= scalar_exact(r, noise).log_evidence + 4 * result.bound_error


def test_quadrature_of_the_evidence_has_the_scalar_case(x64):
    expected = scalar_exact(1.5, 0.7).log_evidence
    assert_allclose(column_evidence([[1.5]], 1, 0.7), expected, rtol=1e-9)
    # r = u.v / sqrt(k) + noise has the characteristic function (1 + t^2 / k)^(-k / 2) e^(-...).
    density, _ = scipy.integrate.quad(
        lambda t: np.cos(2.5 * t) * (1 + t**2 / 3) ** -1.5 * np.exp(-0.35 * t**2) / np.pi, 0, 40
    )
    assert_allclose(column_evidence([[2.5]], 3, 0.7), np.log(density), rtol=1e-8)


@pytest.mark.parametrize("covariance", ["isotropic", "diagonal"])
def test_bounds_are_below_the_evidence_and_ordered(x64, covariance):
    k, noise = 3, 0.5
    ratings = Ratings(jnp.array([[2.0], [-1.5], [0.3], [1.0]]), noise)
    evidence = column_evidence(ratings.values, k, noise)
    lower = matrix_mean_field(ratings, k).objective  # the best of all mean fields
    result = fit_matrix(KEY, ratings, k, covariance=covariance, num_samples=4000)
    assert result.bound_error < 0.05
    assert lower < result.bound - 4 * result.bound_error
    assert result.bound < evidence
    assert evidence - result.bound < 0.7 * (evidence - lower)


# One size for most tests, as each new one is compiled.
N, K, NOISE = 6, 2, 0.5
FLAT = {"symmetrize": False, "covariance": "diagonal", "steps": 3000}


def draw_ratings():
    return generate_ratings(jax.random.key(4), N, N, K, NOISE).ratings


@pytest.fixture(scope="module")
def small():
    """Return ratings and the symmetrized fit of them."""
    with jax.enable_x64(True):
        ratings = draw_ratings()
        return ratings, fit_matrix(KEY, ratings, K)


def test_diagonal_mean_field_climbs_to_the_closed_form(x64):
    ratings = draw_ratings()
    exact = matrix_mean_field(ratings, K)
    assert exact.singular_values[-1] > 0.1  # no trait is lost: the search is not trivial
    result = fit_matrix(KEY, ratings, K, **FLAT)
    assert result.bound <= exact.objective + 1e-10
    assert_allclose(result.bound, exact.objective, rtol=1e-4)
    assert_allclose(result.prediction, exact.prediction, atol=0.02)


@pytest.mark.parametrize("form", ["density", "divergence"])
def test_bound_is_the_one_estimated_by_monte_carlo(x64, small, form):
    # Moore's eqs. 4 and 5, with the joint density and that of the mixture at each draw.
    ratings, result = small
    mixture = Symmetrized(result.base, Orthogonal(K))

    def log_joint(factors):
        return matrix_log_joint(factors, ratings)

    value, error = jax.jit(lambda key: elbo(key, log_joint, mixture, 4000, form))(KEY)
    assert_allclose(value, result.bound, atol=4 * math.hypot(error, result.bound_error))
    assert_allclose(result.prediction, predict(result.base.mean), rtol=1e-12)


def test_trace_climbs_to_the_bound(x64, small):
    _, result = small
    trace = np.asarray(result.trace)
    end = trace[-200:]
    error = math.hypot(end.std() / math.sqrt(200), float(result.bound_error))
    assert_allclose(end.mean(), result.bound, atol=4 * error)
    assert trace[0] < end.mean() - 10


def test_optimum_has_the_singular_vectors_of_the_ratings(x64, small):
    # For n = m the best means are P diag(a) and Q diag(a), with R = P diag(gamma) Q^T: the search
    # over k + 1 numbers finds the same bound as that over (n + m) k + 1.
    ratings, result = small
    P, gamma, QT = np.linalg.svd(ratings.values)
    rotated = P.T @ result.prediction @ QT.T
    off = rotated - np.diag(np.diag(rotated))
    assert np.abs(off).max() < 0.03 * gamma[0]
    assert np.diag(rotated)[K - 1] > 0.2  # full rank
    singular = Ratings(jnp.diag(gamma), NOISE)

    def bound(base, key):
        # In the basis of the singular vectors.
        mean = jnp.eye(N, K) * base.mean
        full = IsotropicGaussian((mean, mean), jnp.exp(base.log_variance))
        X, M = jnp.concatenate(full.sample(key)), jnp.concatenate([mean, mean])
        ratio = rotation_log_ratio(X, M, full.variance)
        return expected_log_joint(full, singular) + full.entropy() + ratio

    reduced = fit(KEY, bound, lambda key: IsotropicGaussian(jnp.ones(K), 0.1), steps=1000)
    end = reduced.trace[0, -500:]  # the last steps are short
    error = math.hypot(np.std(end) / math.sqrt(len(end)), float(result.bound_error))
    assert_allclose(np.mean(end), result.bound, atol=4 * error)
    expected = reduced.posterior.mean**2 / math.sqrt(K)
    assert_allclose(np.diag(rotated)[:K], expected, atol=0.03 * gamma[0])


def entries_of(ratings, observed):
    rows, columns = np.nonzero(observed)
    return jnp.asarray(rows), jnp.asarray(columns), ratings.values[rows, columns]


def test_minibatches_climb_to_the_same_bound(x64, small):
    ratings, result = small
    entries = entries_of(ratings, np.ones((N, N)))
    found = fit_matrix_entries(KEY, *entries, N, N, K, NOISE, batch_size=12, steps=4000)
    error = math.hypot(found.bound_error, result.bound_error)
    # The steps are noisier, but what that costs at the end is of the second order.
    assert_allclose(found.bound, result.bound, atol=4 * error + 0.05)
    assert_allclose(found.prediction.reshape(N, N), result.prediction, atol=0.2)


def test_bound_from_entries_is_that_from_the_matrix(x64):
    ratings = draw_ratings()
    observed = np.random.default_rng(0).random((N, N)) < 0.7
    entries = entries_of(ratings, observed)
    options = {"batch_size": 5, "steps": 20, "symmetrize": False, "covariance": "diagonal"}
    result = fit_matrix_entries(KEY, *entries, N, N, K, NOISE, **options)
    base = result.base
    assert isinstance(base, DiagonalGaussian)
    seen = Ratings(ratings.values, NOISE, jnp.asarray(observed))
    expected = expected_log_joint(base, seen) + base.entropy()
    assert_allclose(result.bound, expected, rtol=1e-12)
    assert_allclose(result.prediction, predict(base.mean)[observed], rtol=1e-12)


def test_unobserved_ratings_do_not_matter(x64):
    values = draw_ratings().values
    observed = jnp.asarray(np.random.default_rng(0).random((N, N)) < 0.7).at[0].set(False)
    one = fit_matrix(KEY, Ratings(values, NOISE, observed), K)
    other = jnp.where(observed, values, np.nan)
    two = fit_matrix(KEY, Ratings(other, NOISE, observed), K)
    assert two.bound == one.bound
    assert_allclose(two.prediction, one.prediction, rtol=0)
    # The first row has no ratings at all.
    assert np.abs(one.prediction[0]).max() < 0.15
    assert np.abs(one.prediction[1:]).max() > 0.5


def test_a_row_without_ratings_keeps_its_prior_in_diagonal_mean_field(x64):
    observed = jnp.ones((N, N), bool).at[0].set(False)
    result = fit_matrix(KEY, Ratings(draw_ratings().values, NOISE, observed), K, **FLAT)
    assert_allclose(result.base.mean[0][0], 0, atol=1e-6)
    assert_allclose(result.base.variance[0][0], 1, atol=1e-6)
    assert_allclose(result.prediction[0], 0, atol=1e-6)


def test_a_batch_in_float32_agrees(small):
    ratings, result = small
    batch = np.stack([np.asarray(ratings.values, np.float32)] * 2)
    keys = jax.random.split(KEY)
    found = jax.jit(jax.vmap(lambda key, R: fit_matrix(key, Ratings(R, NOISE), K)))(keys, batch)
    assert found.bound.dtype == found.prediction.dtype == np.float32
    expected = np.asarray(result.prediction)
    error = np.hypot(found.bound_error, np.asarray(result.bound_error))
    assert np.all(np.abs(np.asarray(found.bound) - np.asarray(result.bound)) < 4 * error)
    assert np.abs(np.asarray(found.prediction) - expected).max() < 0.05 * np.abs(expected).max()


def test_bad_input_is_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    ratings = Ratings(jnp.ones((2, 3)))
    for call, message in [
        (lambda: fit_matrix(KEY, jnp.ones((2, 3)), 1), r"ratings has to be Ratings\("),
        (lambda: fit_matrix(KEY, ratings, 0), "num_traits has to be an integer of at least 1"),
        (lambda: fit_matrix(KEY, ratings, 1, covariance="full"), 'has to be "isotropic" or'),
        (lambda: fit_matrix(KEY, ratings, 1, steps=0), "steps"),
        (lambda: fit_matrix(KEY, ratings, 1, num_samples=1), "num_samples of at least 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_bad_entries_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    rows, columns, values = jnp.array([0, 1]), jnp.array([2, 0]), jnp.array([1.0, 2.0])

    def call(rows=rows, columns=columns, values=values, sizes=(2, 3, 1), noise=1.0, batch_size=2):
        options = {"batch_size": batch_size, "steps": 1}
        return fit_matrix_entries(KEY, rows, columns, values, *sizes, noise, **options)

    for arguments, message in [
        ({"rows": jnp.array([0])}, r"rows has to have shape \(2,\), got \(1,\)"),
        ({"columns": jnp.array([0.0, 1.0])}, "columns has to hold integers"),
        ({"values": jnp.array([1, 2])}, "values has to hold floating-point"),
        ({"values": jnp.ones((2, 1))}, r"values has to have shape \(N,\)"),
        ({"sizes": (2, 3, 0)}, "num_traits has to be an integer of at least 1"),
        ({"sizes": (0, 3, 1)}, "num_rows has to be an integer of at least 1"),
        ({"batch_size": 0}, "batch_size has to be an integer of at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            call(**arguments)
    for arguments, message in [
        ({"rows": jnp.array([0, 2])}, "rows has to be from 0 to 1"),
        ({"columns": jnp.array([-1, 0])}, "columns has to be from 0 to 2"),
        ({"values": jnp.array([1.0, np.nan])}, "values has to be finite"),
        ({"noise": -1.0}, "noise_variance has to be positive"),
    ]:
        with pytest.raises(ValueError, match=message):
            jax.block_until_ready(call(**arguments))
