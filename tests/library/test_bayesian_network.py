"""Tests of symlib.inference on models whose evidence is known."""

import builtins
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from numpy.testing import assert_allclose

from symlib.groups import HiddenPermutation, unit_log_densities
from symlib.inference import (
    categorical_log_likelihood,
    elbo,
    gaussian_log_likelihood,
    minibatch_elbo,
    nuts,
)
from symlib.posteriors import DiagonalGaussian, IsotropicGaussian, Symmetrized
from symlib.special import permutation_log_ratio


def test_log_likelihoods_against_scipy(dtype, tolerance):
    f, y = jnp.array([0.3, -1.0, 2.0], dtype), jnp.array([1.0, -1.5, 2.5], dtype)
    found = gaussian_log_likelihood(f, y, 0.4)
    expected = scipy.stats.norm.logpdf(np.asarray(y), np.asarray(f), math.sqrt(0.4)).sum()
    assert found.dtype == dtype
    assert_allclose(found, expected, rtol=tolerance(dtype))
    found = [categorical_log_likelihood(f, jnp.array(label)) for label in range(3)]
    assert_allclose(found, scipy.special.log_softmax(np.asarray(f)), rtol=tolerance(dtype))
    # Large logits neither overflow nor lose the sum of one.
    assert_allclose(categorical_log_likelihood(jnp.array([1e4, 0.0], dtype), jnp.array(1)), -1e4)


@pytest.mark.parametrize("kind", [IsotropicGaussian, DiagonalGaussian])
def test_kl_of_gaussians_against_monte_carlo(kind, x64):
    mean = {"w": jnp.array([0.3, -1.0]), "b": jnp.array([2.0])}
    variance = 0.6
    if kind is DiagonalGaussian:
        variance = {"w": jnp.array([0.2, 1.5]), "b": jnp.array([0.7])}
    q = kind(mean, variance)
    p = DiagonalGaussian(jax.tree.map(jnp.ones_like, mean), jax.tree.map(jnp.ones_like, mean))
    z = jax.vmap(q.sample)(jax.random.split(jax.random.key(0), 40000))
    terms = jax.vmap(q.log_prob)(z) - jax.vmap(p.log_prob)(z)
    error = jnp.std(terms) / math.sqrt(len(terms))
    assert error < 0.02
    assert abs(q.kl(p) - jnp.mean(terms)) < 4 * error
    assert q.kl(q) == 0


def test_kl_of_close_gaussians_keeps_its_digits():
    # KL is d^2 / 4 to leading order for variances in the ratio 1 + d: 2.5e-9 is below the
    # rounding of 1 in float32.
    q, p = (IsotropicGaussian(jnp.zeros(1), v) for v in (1.0001, 1.0))
    assert_allclose(q.kl(p), 2.5e-9, rtol=0.01)


def test_kl_refuses_another_shape():
    q, p = (IsotropicGaussian(jnp.zeros(size), 1.0) for size in (2, 3))
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(3,\)"):
        q.kl(p)


def linear(parameters, x, y):
    """Return the log likelihood of a line through zero, with noise of variance 1/4."""
    return gaussian_log_likelihood(parameters @ x, y, 0.25)


def line():
    """Return inputs, targets, prior, exact posterior and log evidence of a linear model."""
    x = jax.random.normal(jax.random.key(0), (12, 2))
    y = x @ jnp.array([1.0, -0.5]) + 0.5 * jax.random.normal(jax.random.key(1), (12,))
    precision = jnp.eye(2) + 4 * x.T @ x
    mean = jnp.linalg.solve(precision, 4 * x.T @ y)
    covariance = np.eye(12) * 0.25 + np.asarray(x @ x.T)
    evidence = scipy.stats.multivariate_normal.logpdf(np.asarray(y), np.zeros(12), covariance)
    return x, y, IsotropicGaussian(jnp.zeros(2), 1.0), mean, precision, evidence


def test_minibatch_elbo_of_a_linear_model(x64):
    x, y, prior, mean, precision, evidence = line()
    # The best factorised Gaussian: the right mean, the inverse of the diagonal of the precision.
    # Its bound misses the evidence by the KL divergence to the exact posterior, known in full.
    base = DiagonalGaussian(mean, 1 / jnp.diag(precision))
    gap = 0.5 * (jnp.sum(jnp.log(jnp.diag(precision))) - jnp.linalg.slogdet(precision)[1])
    for size in (12, 3):  # all data, and minibatches

        @jax.jit
        @jax.vmap
        def terms(key, size=size):
            return minibatch_elbo(key, linear, prior, base, x, y, size)[0]

        values = terms(jax.random.split(jax.random.key(2), 40000))
        error = jnp.std(values) / math.sqrt(len(values))
        assert error < 0.15
        assert abs(jnp.mean(values) - (evidence - gap)) < 4 * error
    assert gap > 0.001


def test_minibatch_elbo_adds_the_symmetrized_term(x64):
    # Two units that compute a constant: the bound with the exact term is that of the mixture,
    # by quadrature over both units at most the evidence 0 of a model without data.
    base = IsotropicGaussian([jnp.array([[1.0], [-1.0]]), jnp.zeros((0, 2))], 0.3)
    prior = IsotropicGaussian([jnp.zeros((2, 1)), jnp.zeros((0, 2))], 1.0)

    def log_ratio(base, z):
        return permutation_log_ratio(unit_log_densities(base, z))

    group, no_data = HiddenPermutation(2), jnp.zeros((1, 0))
    tilde = Symmetrized(base, group)

    @eqx.filter_jit
    def bound(posterior):
        return minibatch_elbo(
            jax.random.key(0),
            lambda *_: jnp.zeros(()),
            prior,
            posterior,
            no_data,
            no_data,
            batch_size=1,
            num_samples=4000,
        )

    (plain, zero), (mixture, error) = bound(base), bound(tilde)
    assert_allclose(plain, -base.kl(prior), rtol=1e-12)
    assert zero < 1e-12 and 0 < error < 0.01
    # The term may be named, and is the same by another way: both bounds meet the same draws.
    assert_allclose(bound(Symmetrized(base, group, log_ratio))[0], mixture, rtol=1e-12)
    half = Symmetrized(base, group, lambda base, z: 0.5 * log_ratio(base, z))
    assert_allclose(bound(half)[0], (plain + mixture) / 2, rtol=1e-12)

    @eqx.filter_jit  # elbo, with the same model, agrees
    def other(posterior):
        return elbo(jax.random.key(1), prior.log_prob, posterior, 4000, "divergence")

    value, other_error = other(tilde)
    assert abs(value - mixture) < 4 * (error + other_error)
    # KL of the mixture to the prior, on a grid of both units.
    u = jnp.linspace(-8, 8, 401)
    pairs = jnp.stack(jnp.meshgrid(u, u, indexing="ij"), -1)

    def log_densities(pair):
        logs = [
            IsotropicGaussian(jnp.array(center), 0.3).log_prob(pair)
            for center in ([1.0, -1.0], [-1.0, 1.0])
        ]
        return jnp.logaddexp(*logs) - math.log(2), IsotropicGaussian(jnp.zeros(2), 1.0).log_prob(
            pair
        )

    log_q, log_p = jax.jit(jax.vmap(jax.vmap(log_densities)))(pairs)
    exact = -jnp.sum(jnp.exp(log_q) * (log_q - log_p)) * (u[1] - u[0]) ** 2
    assert_allclose(mixture, exact, atol=0.02)
    assert plain < exact - 0.3 and exact < 0


@pytest.mark.parametrize(
    ("inputs", "targets", "size", "message"),
    [
        (12, 11, 3, "12 inputs, 11 targets"),
        (12, 12, 13, "batch_size 13"),
        (12, 12, 0, "at least 1, got 0"),
    ],
)
def test_minibatch_elbo_refuses_data_that_do_not_match(inputs, targets, size, message):
    base = IsotropicGaussian(jnp.zeros(2), 1.0)
    with pytest.raises(ValueError, match=message):
        minibatch_elbo(
            jax.random.key(0), linear, base, base, jnp.ones((inputs, 2)), jnp.ones(targets), size
        )


def test_the_error_of_minibatch_elbo(x64):
    # The standard error of a few draws is that of many estimates; of one draw it is unknown.
    x, y, prior, mean, precision, _ = line()
    base = DiagonalGaussian(mean, 1 / jnp.diag(precision))

    @jax.jit
    @jax.vmap
    def estimates(key):
        return minibatch_elbo(key, linear, prior, base, x, y, 3, num_samples=8)

    values, errors = estimates(jax.random.split(jax.random.key(0), 4000))
    assert_allclose(jnp.sqrt(jnp.mean(errors**2)), jnp.std(values), rtol=0.06)
    _, error = minibatch_elbo(jax.random.key(0), linear, prior, base, x, y, 3)
    assert error == jnp.inf


def test_data_with_nan_are_refused():
    x, y, prior, *_ = line()
    key = jax.random.key(0)

    def ignores(parameters, x, y):  # its value would be finite
        return jnp.sum(parameters**2)

    for inputs, targets, name in [(x.at[3].set(jnp.nan), y, "inputs"), (x, y * jnp.nan, "targets")]:
        with pytest.raises(ValueError, match=f"minibatch_elbo: {name} has to be without NaN"):
            minibatch_elbo(key, ignores, prior, prior, inputs, targets, 1)
        with pytest.raises(RuntimeError, match=f"{name} has to be without NaN"):
            call = eqx.filter_jit(minibatch_elbo)
            jax.block_until_ready(call(key, ignores, prior, prior, inputs, targets, 12))
    with pytest.raises(ValueError, match="gaussian_log_likelihood: target has to be finite"):
        gaussian_log_likelihood(x, x * jnp.nan, 1.0)


def test_gaussian_log_likelihood_does_not_broadcast():
    # (3,) against (3, 1) would add nine terms without a word.
    with pytest.raises(ValueError, match=r"\(3,\) and \(3, 1\)"):
        gaussian_log_likelihood(jnp.zeros(3), jnp.zeros((3, 1)), 1.0)


def test_numbers_that_are_no_label_and_no_variance_are_refused():
    logits = jnp.zeros(3)
    for label in (3, -1):  # JAX takes class 2 for both
        with pytest.raises(ValueError, match="label has to be from 0 to 2"):
            jax.block_until_ready(categorical_log_likelihood(logits, jnp.array(label)))
    for variance in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="noise_variance has to be"):
            gaussian_log_likelihood(logits, logits, variance)


def test_minibatch_elbo_compares_the_model_before_and_after_a_move():
    base = IsotropicGaussian([jnp.array([[1.0], [-1.0]]), jnp.ones((1, 2))], 0.3)
    even = IsotropicGaussian([jnp.zeros((2, 1)), jnp.zeros((1, 2))], 1.0)
    x, group, key = jnp.ones((4, 1)), HiddenPermutation(2), jax.random.key(0)

    def network(z, x, y):
        return gaussian_log_likelihood(z[1] @ jnp.tanh(z[0] @ x), y, 1.0)

    def first_unit(z, x, y):
        return network(z, x, y) + z[0][0, 0]

    def run(prior, likelihood, **options):
        call = eqx.filter_jit(minibatch_elbo)
        return call(key, likelihood, prior, Symmetrized(base, group), x, x, 2, **options)[0]

    assert jnp.isfinite(run(even, network))
    for prior, likelihood in [(base, network), (even, first_unit)]:
        with pytest.raises(RuntimeError, match=r"changes under HiddenPermutation\(2\)"):
            jax.block_until_ready(run(prior, likelihood))
    assert jnp.isfinite(run(base, network, check_invariance=False))
    with pytest.raises(ValueError, match="log_likelihood has to return a scalar"):
        run(even, lambda z, x, y: x)
    with pytest.raises(RuntimeError, match="gave NaN or infinity"):
        jax.block_until_ready(run(even, lambda z, x, y: network(z, x, y) * jnp.nan))


def test_nuts_finds_a_gaussian_posterior(x64):
    x, y, prior, mean, precision, _ = line()

    def log_density(z):
        return prior.log_prob(z) + jnp.sum(jax.vmap(linear, (None, 0, 0))(z, x, y))

    starts = jax.random.normal(jax.random.key(3), (4, 2))
    draws, divergences = nuts(
        jax.random.key(4), log_density, starts, num_warmup=200, num_samples=500
    )
    assert draws.shape == (4, 500, 2) and divergences.tolist() == [0] * 4
    covariance = jnp.linalg.inv(precision)
    draws = draws.reshape(-1, 2)
    # NUTS draws of a Gaussian are nearly independent; half of them counts as the effective number.
    error = jnp.sqrt(jnp.diag(covariance) / (len(draws) / 2))
    assert (jnp.abs(draws.mean(0) - mean) < 4 * error).all()
    assert_allclose(jnp.cov(draws.T), covariance, atol=0.15 * float(covariance.max()))


def test_nuts_takes_networks_and_one_chain():
    network = eqx.nn.MLP(1, 1, 2, 1, key=jax.random.key(0))
    start = jax.tree.map(lambda leaf: leaf[None], eqx.filter(network, eqx.is_inexact_array))
    group = HiddenPermutation(2)

    def log_density(z):
        return -0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(z))

    draws, _ = nuts(jax.random.key(1), log_density, start, num_warmup=20, num_samples=5)
    assert draws.layers[0].weight.shape == (1, 5, 2, 1)
    one = jax.tree.map(lambda leaf: leaf[0, 0], draws)
    group.act((jnp.array([1, 0]),), one)  # still a network


def test_nuts_mistakes(monkeypatch):
    start = jnp.zeros((2, 3))
    with pytest.raises(ValueError, match="num_samples .* at least 1, got 0"):
        nuts(jax.random.key(0), lambda z: -jnp.sum(z**2), start, num_samples=0)
    with pytest.raises(ValueError, match="number of starts .* at least 1, got 0"):
        nuts(jax.random.key(0), lambda z: -jnp.sum(z**2), start[:0])
    with pytest.raises(ValueError, match="share a leading axis"):
        nuts(jax.random.key(0), lambda z: 0.0, {"a": start, "b": jnp.zeros((3, 3))})
    real = builtins.__import__

    def without_numpyro(name, *arguments, **options):
        if name.startswith("numpyro"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_numpyro)
    with pytest.raises(ImportError, match="nuts needs NumPyro: run pip install numpyro"):
        nuts(jax.random.key(0), lambda z: -jnp.sum(z**2), start)


def test_likelihoods_at_the_ends_of_their_range():
    zero = jnp.zeros(1, jnp.float32)
    np.testing.assert_allclose(gaussian_log_likelihood(zero, zero, 1e38), -44.668053, rtol=1e-6)
    with pytest.warns(RuntimeWarning, match="overflow"):  # NumPy's, of the cast
        with pytest.raises(ValueError, match="beyond the range"):
            gaussian_log_likelihood(zero, zero, 1e39)
    label = jnp.uint8(3)  # 256 classes are more than its largest number
    np.testing.assert_allclose(
        categorical_log_likelihood(jnp.zeros(256), label), -math.log(256), rtol=1e-6
    )
