"""Tests of symlib.factorization and symlib.factorization against quadrature over V."""

import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import scipy
from numpy.testing import assert_allclose

from symlib.factorization import (
    Ratings,
    generate_ratings,
    log_evidence,
    log_evidence_upper,
    matrix_gibbs,
    scalar_exact,
)
from symlib.factorization.gibbs import _inverse_of_lower, row_law

SMALL = np.array([[1.0, -0.5], [2.0, 0.3], [-0.7, 1.8]])
HOLES = np.array([[True, False], [True, True], [False, False]])


def exact(ratings, k, noise, observed=None, nodes=24):
    """Return log p(R) and E[U V^T / sqrt(k) | R] by Gauss-Hermite quadrature over V.

    Given V the rows of R are normal, with the covariance noise I + V V^T / k.
    """
    n, m = ratings.shape
    observed = np.ones((n, m), bool) if observed is None else observed
    x, weight = np.polynomial.hermite_e.hermegauss(nodes)
    weight = weight / weight.sum()
    V = np.stack(np.meshgrid(*[x] * (m * k), indexing="ij"), -1).reshape(-1, m, k)
    prior = np.stack(np.meshgrid(*[weight] * (m * k), indexing="ij"), -1).reshape(len(V), -1)
    log_weight = np.log(prior).sum(1)
    gram = V @ V.swapaxes(1, 2) / k
    means = np.zeros((len(V), n, m))
    for i in range(n):
        seen = observed[i]
        if seen.any():
            covariance = gram[:, seen][:, :, seen] + noise * np.eye(seen.sum())
            r = np.broadcast_to(ratings[i, seen], (len(V), seen.sum()))
            solved = np.linalg.solve(covariance, r[..., None])[..., 0]
            log_weight -= 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
            log_weight -= 0.5 * (r * solved).sum(1)
            means[:, i] = np.einsum("vab,vb->va", gram[:, :, seen], solved)
    log_evidence = scipy.special.logsumexp(log_weight)
    return log_evidence, np.einsum("v,vab->ab", np.exp(log_weight - log_evidence), means)


def keys(number):
    return jax.random.split(jax.random.key(number), number)


@functools.cache
def small_exact(masked):
    return exact(SMALL, 2, 0.7, HOLES if masked else None)


def small(masked, noise=0.7):
    if masked:
        return Ratings(jnp.asarray(np.where(HOLES, SMALL, np.nan)), noise, jnp.asarray(HOLES))
    return Ratings(jnp.asarray(SMALL), noise)


# The oracle itself.


@pytest.mark.parametrize("r", [0.3, -2.0])
def test_quadrature_is_the_scalar_model(x64, r):
    evidence, mean = exact(np.array([[r]]), 1, 1.3, nodes=120)
    expected = scalar_exact(r, 1.3)
    assert_allclose(evidence, expected.log_evidence, rtol=1e-9)
    assert_allclose(mean, expected.predictive_mean, rtol=1e-8)


def test_quadrature_has_converged():
    for masked in [False, True]:
        evidence, mean = exact(SMALL, 2, 0.7, HOLES if masked else None, nodes=18)
        assert_allclose(evidence, small_exact(masked)[0], atol=1e-3)
        assert_allclose(mean, small_exact(masked)[1], atol=1e-3)


# The law of the rows.


@pytest.mark.parametrize("k", [3, 30])
@pytest.mark.parametrize("masked", [False, True])
def test_row_law_is_bayes_rule_in_dense_matrices(dtype, tolerance, k, masked):
    data = generate_ratings(jax.random.key(3), 5, 4, k, 0.4)
    observed = np.random.default_rng(0).random((5, 4)) < 0.6 if masked else np.ones((5, 4), bool)
    ratings = np.where(observed, data.ratings.values, 0)
    _, V = data.factors
    mask = jnp.asarray(observed) if masked else None
    law = jax.jit(row_law)(V, jnp.asarray(ratings), 1 / 0.4, mask)
    assert law.mean.dtype == dtype
    W = np.asarray(V, float) / np.sqrt(k)
    log_integral = 0
    for i in range(5):
        seen, r = W[observed[i]], ratings[i, observed[i]].astype(float)
        covariance = np.linalg.inv(np.eye(k) + seen.T @ seen / 0.4)
        spread = law.spread[i] if masked else law.spread
        assert_allclose(spread @ spread.T, covariance, atol=tolerance(dtype))
        assert_allclose(law.mean[i], covariance @ seen.T @ r / 0.4, atol=tolerance(dtype))
        if len(r):
            marginal = scipy.stats.multivariate_normal(cov=0.4 * np.eye(len(r)) + seen @ seen.T)
            free = scipy.stats.norm.logpdf(r, 0, np.sqrt(0.4))
            log_integral += marginal.logpdf(r) - free.sum()
    assert_allclose(law.log_integral, log_integral, rtol=1e-5, atol=10 * tolerance(dtype))


@pytest.mark.parametrize("k", [24, 25, 97])
def test_inverse_by_halves(dtype, tolerance, k):
    draws = np.random.default_rng(0).normal(size=(3, k, 2 * k))
    matrix = jnp.asarray(np.linalg.cholesky(draws @ draws.swapaxes(1, 2) / k), dtype)
    product = jax.jit(_inverse_of_lower)(matrix) @ matrix
    assert_allclose(product, np.broadcast_to(np.eye(k), (3, k, k)), atol=tolerance(dtype))


@pytest.mark.parametrize("masked", [False, True])
def test_a_sweep_keeps_the_joint_law(x64, masked):
    # Geweke's test: draws of (U, V) from the prior, new ratings given them, then a sweep. The
    # factors have to be draws of the prior still, every entry and the products alike.
    observed = jnp.asarray(HOLES) if masked else None
    zero_one = HOLES if masked else 1

    def draw(key):
        start_key, key = jax.random.split(key)
        data = generate_ratings(start_key, 3, 2, 2, 0.7)

        def sweep(factors, key):
            noise_key, row_key, column_key = jax.random.split(key, 3)
            U, V = factors
            ratings = U @ V.T / 2**0.5 + 0.7**0.5 * jax.random.normal(noise_key, (3, 2))
            ratings = ratings * zero_one
            U = row_law(V, ratings, 1 / 0.7, observed).sample(row_key)
            law = row_law(U, ratings.T, 1 / 0.7, None if observed is None else observed.T)
            return (U, law.sample(column_key)), None

        return jax.lax.scan(sweep, data.factors, jax.random.split(key, 5))[0]

    U, V = jax.jit(jax.vmap(draw))(keys(4000))
    for entry in np.concatenate([U.reshape(4000, -1), V.reshape(4000, -1)], 1).T:
        assert scipy.stats.kstest(entry, "norm").pvalue > 1e-4
    products = np.einsum("nik,njk->nij", U, V)
    # The inner product of two normal vectors in the plane has the law of Laplace.
    for entry in products.reshape(4000, -1).T:
        assert scipy.stats.kstest(entry, "laplace").pvalue > 1e-4


# The posterior mean.


@functools.cache
def runs(masked):
    """Return independent runs of the sampler on the small problem."""
    run = functools.partial(matrix_gibbs, ratings=small(masked), num_traits=2)
    return jax.jit(jax.vmap(run))(keys(200))


@pytest.mark.parametrize("masked", [False, True])
def test_posterior_mean_and_its_error(x64, masked):
    result, expected = runs(masked), small_exact(masked)[1]
    if masked:
        assert np.all(expected[2] == 0)  # nothing is seen of this row
    spread = np.std(result.prediction, 0)
    assert np.all(spread < 0.05)  # or the next lines would say little
    assert np.all(np.abs(result.prediction.mean(0) - expected) < 4 * spread / np.sqrt(200))
    z = (result.prediction - expected) / result.prediction_error
    # 20 batches: t with 19 degrees of freedom, standard deviation 1.06, and some correlation of
    # the batches on top.
    assert 0.9 < np.sqrt(np.mean(z**2)) < 1.3


def test_last_draw_is_of_the_posterior(x64):
    U, V = runs(False).factors
    assert (U.shape, V.shape) == ((200, 3, 2), (200, 2, 2))
    products = np.einsum("sik,sjk->sij", U, V) / np.sqrt(2)
    error = products.std(0) / np.sqrt(200)
    assert np.all(np.abs(products.mean(0) - small_exact(False)[1]) < 4 * error)
    # Not the law's mean in the place of a draw: given V, rows of U vary.
    assert np.all(error * np.sqrt(200) > 0.3)


def test_posterior_mean_of_the_scalar_model_in_float32():
    r = jnp.asarray([0.5, 1.5, 3.0])
    run = functools.partial(matrix_gibbs, num_traits=1, num_sweeps=4000)
    result = jax.jit(jax.vmap(run))(keys(3), jax.vmap(Ratings)(r[:, None, None]))
    expected = jax.vmap(scalar_exact)(r).predictive_mean
    assert np.all(result.prediction_error < 0.05)
    error = np.abs(result.prediction.ravel() - expected)
    assert np.all(error < 5 * result.prediction_error.ravel())


# The evidence.


@pytest.mark.parametrize("masked", [False, True])
def test_weights_are_unbiased_whatever_the_steps(x64, masked):
    # With few, rough steps the average weight is right all the same, given enough chains.
    ratings = small(masked)
    if masked:  # and p(R) is p(R^T)
        ratings = Ratings(ratings.values.T, 0.7, ratings.observed.T)
    value, error = log_evidence(jax.random.key(0), ratings, 2, num_temperatures=4, num_chains=20000)
    assert error < 0.02
    assert abs(value - small_exact(masked)[0]) < 4 * error


def test_backward_weights_are_unbiased_whatever_the_steps(x64):
    factors = runs(True).factors
    value, error = log_evidence_upper(
        jax.random.key(0),
        (factors[0][0], factors[1][0]),
        small(True),
        num_temperatures=6,
        num_chains=1000,
    )
    assert error < 0.05
    assert abs(value - small_exact(True)[0]) < 4 * error


@pytest.mark.parametrize("k", [1, 20])
def test_evidence_of_one_rating(x64, k):
    # u.v / sqrt(k) has the characteristic function (1 + t^2 / k)^(-k / 2).
    noise = 0.5
    for r in [0.4, -3.0]:

        def density(t, r=r):
            law = (1 + t**2 / k) ** (-k / 2) * np.exp(-noise * t**2 / 2)
            return law * np.cos(r * t) / np.pi

        expected = scipy.integrate.quad(density, 0, 20)[0]
        if k == 1:
            assert_allclose(scalar_exact(r, noise).log_evidence, np.log(expected), rtol=1e-5)
        value, error = log_evidence(
            jax.random.key(2),
            Ratings(jnp.array([[r]]), noise),
            k,
            num_temperatures=100,
            num_chains=200,
        )
        assert error < 0.03
        assert abs(value - np.log(expected)) < 4 * error


def test_standard_error_of_the_evidence(x64):
    run = functools.partial(log_evidence, num_traits=2, num_temperatures=100)
    value, error = jax.jit(jax.vmap(run, in_axes=(0, None)))(keys(150), small(False))
    expected = small_exact(False)[0]
    assert 0.85 < np.sqrt(np.mean(((value - expected) / error) ** 2)) < 1.25
    # Jensen: below on average, by half the variance.
    assert abs(value.mean() - expected + np.var(value) / 2) < 4 * np.std(value) / np.sqrt(150)


def test_forward_and_backward_enclose_the_evidence(x64):
    # Rough annealing of the scalar model: both sides are off by more than their noise.
    def both(key):
        data_key, low_key, high_key = jax.random.split(key, 3)
        data = generate_ratings(data_key, 1, 1, 1, 0.01)
        numbers = {"num_temperatures": 4, "num_chains": 2}
        low = log_evidence(low_key, data.ratings, 1, **numbers)[0]
        high = log_evidence_upper(high_key, data.factors, data.ratings, **numbers)[0]
        expected = scalar_exact(data.ratings.values[0, 0], 0.01).log_evidence
        return low - expected, high - expected

    low, high = jax.jit(jax.vmap(both))(keys(1000))
    assert low.mean() < -4 * low.std() / np.sqrt(1000)
    assert high.mean() > 4 * high.std() / np.sqrt(1000)


def test_forward_and_backward_meet(x64):
    n, m, k, noise = 12, 9, 30, 0.5
    data = generate_ratings(jax.random.key(4), n, m, k, noise)
    low, low_error = log_evidence(jax.random.key(0), data.ratings, k, num_temperatures=500)
    high, high_error = log_evidence_upper(
        jax.random.key(1), data.factors, data.ratings, num_temperatures=500
    )
    assert low_error < 0.2 and high_error < 0.2
    assert abs(high - low) < 4 * np.hypot(low_error, high_error)


# What all three share.


def calls(ratings, key=0):
    """Return what the three functions say of one problem."""
    n, m = ratings.shape
    key, factors = jax.random.key(key), (jnp.ones((n, 2)), jnp.ones((m, 2)))
    return [
        lambda: matrix_gibbs(key, ratings, 2, num_sweeps=20, num_burn_in=2),
        lambda: log_evidence(key, ratings, 2, num_temperatures=4),
        lambda: log_evidence_upper(key, factors, ratings, num_temperatures=4),
    ]


def leaves(*arguments, **options):
    return jax.tree.leaves([call() for call in calls(*arguments, **options)])


def test_same_key_same_numbers(dtype):
    ratings = Ratings(jnp.asarray(SMALL, dtype))
    first, second, other = leaves(ratings), leaves(ratings), leaves(ratings, key=1)
    assert all(np.all(np.isfinite(leaf)) and leaf.dtype == dtype for leaf in first)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_mask_of_ones_and_hidden_values_change_nothing(x64):
    ratings, holes = jnp.asarray(SMALL), jnp.asarray(HOLES)
    ones = leaves(Ratings(ratings, 1.0, jnp.ones_like(holes)))
    for masked, plain in zip(ones, leaves(Ratings(ratings)), strict=True):
        assert_allclose(masked, plain, rtol=1e-9)
    hidden = leaves(Ratings(jnp.where(holes, ratings, jnp.nan), 1.0, holes))
    for one, other in zip(hidden, leaves(Ratings(ratings, 1.0, holes)), strict=True):
        assert_allclose(one, other, rtol=0)


@pytest.mark.parametrize("noise", [1e-4, 1e4])
def test_little_and_much_noise_stay_finite_in_float32(noise):
    assert all(np.all(np.isfinite(leaf)) for leaf in leaves(small(False, noise)))


def test_static_mistakes_are_refused(monkeypatch):
    # Without the run-time checks of annotations that the tests switch on.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    key, ratings = jax.random.key(0), small(False)
    for number in [0, -1, 2.0]:
        with pytest.raises(ValueError, match="num_traits has to be an integer of at least 1"):
            matrix_gibbs(key, ratings, number)
        with pytest.raises(ValueError, match="num_traits has to be an integer of at least 1"):
            log_evidence(key, ratings, number)
    with pytest.raises(ValueError, match="num_sweeps"):
        matrix_gibbs(key, ratings, 2, num_sweeps=0)
    with pytest.raises(ValueError, match="num_burn_in"):
        matrix_gibbs(key, ratings, 2, num_burn_in=0)
    with pytest.raises(ValueError, match="num_temperatures"):
        log_evidence(key, ratings, 2, num_temperatures=0)
    for function in [log_evidence, functools.partial(log_evidence_upper, key)]:
        with pytest.raises(ValueError, match="num_chains of at least 2"):
            first = key if function is log_evidence else (jnp.ones((3, 2)), jnp.ones((2, 2)))
            second = (ratings, 2) if function is log_evidence else (ratings,)
            function(first, *second, num_chains=1)
    with pytest.raises(ValueError, match=r"ratings has to be Ratings\("):
        matrix_gibbs(key, ratings.values, 2)
    with pytest.raises(ValueError, match=r"ratings has to be Ratings\("):
        log_evidence(key, ratings.values, 2)
    with pytest.raises(ValueError, match="U and V have to have shapes"):
        log_evidence_upper(key, (jnp.ones((2, 2)), jnp.ones((3, 2))), ratings)
