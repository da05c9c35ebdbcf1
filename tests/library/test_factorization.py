"""Tests of symlib.factorization against quadrature, scipy's optimisers and published formulas."""

import itertools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import scipy
from numpy.testing import assert_allclose

from symlib.factorization import (
    scalar_exact,
    scalar_log_joint,
    scalar_map_estimate,
    scalar_mean_field,
    scalar_symmetrized,
)
from symlib.posteriors import DiagonalGaussian, kl_sign_flip

GOLDEN = (1 + np.sqrt(5)) / 2
OBSERVATIONS = [-1.7, 0.0, 0.02, 0.5, 3.0, 10.0]
NOISE = [0.01, 1.0, 20.0]
CASES = [(r, noise) for noise in NOISE for r in OBSERVATIONS]


def bound(x, r, noise, symmetrize):
    """Return minus the bound and minus its gradient at means x[:2], log variances x[2:].

    Written out in numpy, for any means and variances: nothing of the reduction in the library.
    """
    m, s = x[:2], np.exp(x[2:])
    second = m**2 + s
    value = -0.5 * np.log(2 * np.pi * noise) + 1 + 0.5 * x[2:].sum() - 0.5 * second.sum()
    value -= (r**2 - 2 * r * m.prod() + second.prod()) / (2 * noise)
    slope_m = (r * m[::-1] - m * second[::-1]) / noise - m
    slope_s = 0.5 - 0.5 * s * (1 + second[::-1] / noise)
    if symmetrize:
        a = (m**2 / s).sum()
        nodes = np.linspace(-9, 9, 217)
        weights = np.exp(-(nodes**2) / 2) / np.exp(-(nodes**2) / 2).sum()
        y = a + np.sqrt(a) * nodes
        value += weights @ (np.log(2) - np.logaddexp(0, -2 * y))
        slope = 0.5 * weights @ (1 - np.tanh(y))  # dKL/da
        slope_m = slope_m + slope * 2 * m / s
        slope_s = slope_s - slope * m**2 / s
    return -value, -np.concatenate([slope_m, slope_s])


def search(r, noise, symmetrize, restarts):
    """Return the best bound that a quasi-Newton search over four parameters finds, and where."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(restarts):
        start = np.concatenate(
            [2 * max(1, np.sqrt(abs(r))) * random.normal(size=2), random.normal(size=2) - 1]
        )
        result = scipy.optimize.minimize(
            bound,
            start,
            args=(r, noise, symmetrize),
            jac=True,
            method="L-BFGS-B",
            bounds=[(None, None)] * 2 + [(-12, 5)] * 2,
            options={"gtol": 1e-9, "ftol": 1e-15, "maxiter": 300},
        )
        found.append((-result.fun, result.x))
    return max(found, key=lambda pair: pair[0])


def test_log_joint_is_the_product_of_three_normal_densities(dtype, tolerance):
    u, v, r, noise = 0.7, -1.2, 0.4, 0.3
    normal = scipy.stats.norm
    expected = normal.logpdf(r, u * v, np.sqrt(noise)) + normal.logpdf([u, v]).sum()
    value = scalar_log_joint(jnp.array([u, v], dtype), r, noise)
    assert value.dtype == dtype
    assert_allclose(value, expected, atol=tolerance(dtype))


def test_log_joint_does_not_change_under_a_sign_flip_of_both(dtype):
    z = jnp.array([0.7, -1.2], dtype)
    assert scalar_log_joint(-z, 0.4) == scalar_log_joint(z, 0.4)


@pytest.mark.parametrize(("r", "noise"), [(-5.0, 1.0), (0.3, 1.0), (1.5, 1.0), (2.0, 0.3)])
def test_map_is_the_mode(x64, r, noise):
    starts = [[1.0, 0.5], [1.0, -0.5], [0.1, 0.1]]
    objective = jax.jit(lambda z: -scalar_log_joint(z, r, noise))
    best = min((scipy.optimize.minimize(objective, z) for z in starts), key=lambda o: o.fun)
    # At the threshold-free optimum the gradient tolerance of 1e-5 leaves about 1e-5 in z.
    assert_allclose(scalar_map_estimate(r, noise), best.x.prod(), atol=1e-4)


def test_mean_field_known_values_at_unit_noise(dtype, tolerance):
    below, above = (
        scalar_mean_field(jnp.asarray(1.6, dtype)),
        scalar_mean_field(jnp.asarray(3.0, dtype)),
    )
    assert_allclose(below.variance, np.full(2, GOLDEN - 1), atol=tolerance(dtype))
    assert below.predictive_mean == 0
    assert_allclose(above.predictive_mean, 3 - 1 - 1 / 3, atol=tolerance(dtype))
    assert_allclose(above.variance, np.full(2, 1 / 3), atol=tolerance(dtype))


@pytest.mark.parametrize("noise", NOISE)
def test_mean_field_is_nakajimas_solution(x64, noise):
    rows = columns = 1
    t = (rows + columns) / 2 + noise / 2
    threshold = np.sqrt(noise) * np.sqrt(t + np.sqrt(t**2 - rows * columns))
    for r in threshold * np.array([0.5, 0.999, 1.001, 1.5, 10]):
        root = np.sqrt((rows - columns) ** 2 + 4 * r**2)
        shrunk = r * (1 - noise / (2 * r**2) * (rows + columns + root)) if r > threshold else 0
        # The two formulas meet in a difference of numbers of the size of r.
        assert_allclose(scalar_mean_field(r, noise).predictive_mean, shrunk, atol=1e-13 * r)


@pytest.mark.parametrize(("r", "noise"), CASES)
def test_mean_field_is_the_best_of_all_factorized_gaussians(x64, r, noise):
    best, _ = search(r, noise, symmetrize=False, restarts=4)
    assert_allclose(scalar_mean_field(r, noise).elbo, best, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("solution", [scalar_mean_field, scalar_symmetrized])
def test_elbo_is_the_bound_at_the_returned_parameters(dtype, solution):
    for r, noise in [(-3.0, 0.5), (0.4, 1.0), (2.5, 7.0)]:
        result = solution(jnp.asarray(r, dtype), noise)
        x = np.concatenate([result.mean, np.log(result.variance)]).astype(float)
        expected = -bound(x, r, noise, symmetrize=solution is scalar_symmetrized)[0]
        assert_allclose(result.elbo, expected, rtol=1e-5 if dtype == "float32" else 1e-12)
        assert_allclose(result.predictive_mean, result.mean.prod(), rtol=1e-6)


@pytest.mark.parametrize(("r", "noise"), CASES)
def test_symmetrized_beats_searches_over_four_parameters(x64, r, noise):
    best, x = search(r, noise, symmetrize=True, restarts=4)
    result = scalar_symmetrized(r, noise)
    # The library's value may only be the larger one, up to the rounding of r^2 / noise.
    assert float(result.elbo) >= best - 1e-11 * (1 + abs(best))
    assert_allclose(result.elbo, best, rtol=1e-7, atol=1e-7)
    assert_allclose(result.predictive_mean, x[:2].prod(), rtol=1e-4, atol=1e-5)
    if abs(r) >= 0.5:  # below, the maximum is so flat across |m_u| = |m_v| that the search stops
        assert_allclose(np.abs(x[0]), np.abs(x[1]), rtol=5e-3)
        assert_allclose(x[2], x[3], atol=1e-3)


def test_symmetrized_without_data_is_the_mean_field(dtype, tolerance):
    # At r = 0 the objective depends on the second moments alone, and a Gaussian has most entropy.
    flat, symmetric = scalar_mean_field(0.0), scalar_symmetrized(0.0)
    assert_allclose(symmetric.mean, np.zeros(2), atol=tolerance(dtype))
    assert_allclose(symmetric.variance, flat.variance, atol=tolerance(dtype))
    assert_allclose(symmetric.elbo, flat.elbo, atol=tolerance(dtype))


def test_symmetrized_has_no_threshold(x64):
    # Near 0 the optimum is r times the square of the variance at r = 0 (divided by the noise).
    slope = scalar_symmetrized(1e-5).predictive_mean / 1e-5
    assert_allclose(slope, (GOLDEN - 1) ** 2, rtol=1e-4)


def test_one_unknown_has_one_optimum(x64):
    # The bisection needs a slope with one change of sign. The stationary r is a function of the
    # signal a = m^T Sigma^-1 m, and rises with it, for every noise variance.
    a = np.linspace(1e-3, 30, 400)
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    y = a[:, None] + np.sqrt(a)[:, None] * nodes
    squared_error = (1 - np.tanh(y)) @ (weights / weights.sum())
    correlation = a / (2 + a)
    slope = 1 / (1 - correlation) - squared_error / (1 - correlation) ** 2
    for noise in [1e-6, 1e-2, 1.0, 1e2, 1e6]:
        moment = (np.sqrt(noise**2 + 4 * noise * (1 + correlation * slope)) - noise) / 2
        assert np.all(np.diff(noise * slope / moment) > 0)


def test_guessing_a_sign_beats_guessing_linearly(x64):
    # The inequality behind equal means and variances: 2 (1 + a) dKL/da <= 1.
    def divergence(a):
        return kl_sign_flip(DiagonalGaussian(jnp.sqrt(a)[None], jnp.ones(1)))

    a = jnp.linspace(1e-3, 50, 500)
    assert np.all(2 * (1 + a) * jax.jit(jax.vmap(jax.grad(divergence)))(a) < 1)


def test_bounds_are_ordered(x64):
    r, noise = (grid.ravel() for grid in np.meshgrid(np.linspace(-12, 12, 97), [0.05, 1.0, 30.0]))
    lower = jax.jit(jax.vmap(scalar_mean_field))(r, noise).elbo
    middle = jax.jit(jax.vmap(scalar_symmetrized))(r, noise).elbo
    upper = jax.jit(jax.vmap(scalar_exact))(r, noise).log_evidence
    assert np.all(middle >= lower - 1e-12)
    assert np.all(middle < upper)
    assert np.all(middle - lower <= np.log(2) + 1e-12)


def test_bayes_known_values(dtype):
    r = jnp.array([0.5, 1.0, 1.5, 2.0, 3.0], dtype)
    means = jax.jit(jax.vmap(scalar_exact))(r).predictive_mean
    assert means.dtype == dtype
    assert_allclose(means, [0.146, 0.316, 0.535, 0.833, 1.717], atol=5e-4)


@pytest.mark.parametrize("noise", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("r", [0.0, 0.3, 4.0, -50.0])
def test_exact_agrees_with_quadrature_over_u(x64, r, noise):
    # Scaled by exp(|r|): the integrand is at most about exp(-|r|).
    def weight(u):
        variance = noise + u**2
        return np.exp(abs(r) - u**2 / 2 - r**2 / (2 * variance)) / np.sqrt(variance)

    edges = np.unique([0, np.sqrt(noise), np.sqrt(abs(r)), np.sqrt(2 * (abs(r) + 45))])

    def integrate(function):
        pieces = itertools.pairwise(edges)
        options = {"epsabs": 0, "epsrel": 1e-12, "limit": 400}
        return sum(scipy.integrate.quad(function, a, b, **options)[0] for a, b in pieces)

    total = integrate(weight)
    product = r * integrate(lambda u: weight(u) * u**2 / (noise + u**2)) / total
    result = scalar_exact(r, noise)
    assert_allclose(result.log_evidence, np.log(total / np.pi) - abs(r), rtol=1e-11, atol=1e-11)
    assert_allclose(result.predictive_mean, product, rtol=1e-11)


@pytest.mark.parametrize(("r", "noise"), [(0.0, 1.0), (1.5, 1.0), (-3.0, 0.2), (6.0, 4.0)])
def test_exact_agrees_with_the_law_of_the_product(x64, r, noise):
    # w = uv has the density K_0(|w|) / pi; p(r) and E[w | r] are integrals over w.
    def weight(w):
        density = scipy.special.k0(abs(w)) / np.pi
        return density * scipy.stats.norm.pdf(r, w, np.sqrt(noise))

    def integrate(function):
        # K_0 has a logarithm at 0: one piece for each side, and the bump at r on its own.
        edges = np.unique([-60, -1, 0, 1, r - 1, r + 1, 60])
        pieces = itertools.pairwise(edges)
        return sum(scipy.integrate.quad(function, a, b, limit=400)[0] for a, b in pieces)

    total = integrate(weight)
    result = scalar_exact(r, noise)
    assert_allclose(result.log_evidence, np.log(total), atol=1e-8)
    assert_allclose(result.predictive_mean, integrate(lambda w: w * weight(w)) / total, atol=1e-8)


def test_slope_of_the_log_evidence_is_the_residual(x64):
    # d log p(r) / dr = (E[uv | r] - r) / noise: evidence and mean agree with each other.
    slope = jax.jit(jax.grad(lambda r, noise: scalar_exact(r, noise).log_evidence))
    for r, noise in [(0.4, 1.0), (-3.0, 0.1), (20.0, 5.0)]:
        expected = (scalar_exact(r, noise).predictive_mean - r) / noise
        assert_allclose(slope(r, noise), expected, rtol=1e-11)


@pytest.mark.parametrize("solution", [scalar_exact, scalar_symmetrized])
def test_float32_keeps_its_stated_accuracy(solution):
    r = np.repeat(np.float32([0, 0.01, 0.5, 3, 50]), 3)
    noise = np.tile(np.float32([0.01, 1, 100]), 5)
    single = jax.jit(jax.vmap(solution))(r, noise)
    with jax.enable_x64(True):
        double = jax.jit(jax.vmap(solution))(r.astype(float), noise.astype(float))
    assert single.predictive_mean.dtype == np.float32
    mean_error = np.abs(single.predictive_mean - np.asarray(double.predictive_mean))
    assert np.max(mean_error / (1 + r)) < 1e-6
    bound = "log_evidence" if solution is scalar_exact else "elbo"
    expected = np.asarray(getattr(double, bound))
    assert np.max(np.abs(getattr(single, bound) - expected) / (1 + np.abs(expected))) < 1e-6


def test_negative_observation_mirrors(dtype):
    for solution in [scalar_mean_field, scalar_symmetrized]:
        plus, minus = solution(2.5, 0.7), solution(-2.5, 0.7)
        assert minus.predictive_mean == -plus.predictive_mean
        assert minus.elbo == plus.elbo
        assert_allclose(minus.mean, plus.mean * np.array([1, -1]), rtol=0)
    plus, minus = scalar_exact(2.5, 0.7), scalar_exact(-2.5, 0.7)
    assert minus == (plus.log_evidence, -plus.predictive_mean)


@pytest.mark.parametrize(
    "solution", [scalar_map_estimate, scalar_mean_field, scalar_symmetrized, scalar_exact]
)
def test_jit_and_vmap_change_nothing(x64, solution):
    r = np.linspace(-10, 10, 11)
    batch = jax.jit(jax.vmap(solution))(r)
    for index, value in enumerate(r):
        one = solution(value)
        for field, fields in zip(jax.tree.leaves(one), jax.tree.leaves(batch), strict=True):
            assert_allclose(fields[index], field, rtol=1e-11, atol=1e-13)


def test_symmetrized_has_the_right_derivatives(x64):
    r, step = 1.5, 1e-5
    slopes = jax.jit(jax.jacrev(scalar_symmetrized))(r)
    plus, middle, minus = (scalar_symmetrized(r + shift) for shift in [step, 0, -step])
    difference = (plus.predictive_mean - minus.predictive_mean) / (2 * step)
    assert_allclose(slopes.predictive_mean, difference, rtol=1e-7)
    # At the optimum only the explicit r counts.
    assert_allclose(slopes.elbo, middle.predictive_mean - r, rtol=1e-10)


@pytest.mark.parametrize(
    "solution", [scalar_map_estimate, scalar_mean_field, scalar_symmetrized, scalar_exact]
)
def test_bad_input_is_refused(solution, monkeypatch):
    for noise in [0.0, -1.0, np.nan, np.inf]:
        with pytest.raises(ValueError, match="noise_variance has to be positive"):
            solution(1.0, noise)
    for r in [np.nan, np.inf]:
        with pytest.raises(ValueError, match="r has to be finite"):
            solution(r)
    # Without the run-time checks of annotations that the tests switch on.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="have to be scalars"):
        solution(jnp.ones(3))


def test_log_joint_refuses_other_shapes(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"shape \(2,\), got shape \(3,\)"):
        scalar_log_joint(jnp.ones(3), 1.0)
