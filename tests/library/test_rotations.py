"""Mixtures over rotations against quadrature over O(2), Monte Carlo over O(3), and sign flips."""

import inspect
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from symlib.groups import (
    Orthogonal,
    SignFlip,
    printed_log_ratio,
    rotation_log_ratio,
    rotation_log_ratio_bound,
    stack_rows,
)
from symlib.groups.rotations import langevin_weights
from symlib.inference import elbo
from symlib.posteriors import (
    DiagonalGaussian,
    IsotropicGaussian,
    Symmetrized,
    rotation_kl_annealed,
    rotation_kl_bound,
    sampled_log_ratio,
)
from symlib.special import langevin_mean, matrix_langevin_sample

kl_from_base = eqx.filter_jit(Symmetrized.kl_from_base)
log_ratio = jax.jit(rotation_log_ratio, static_argnames="method")
printed = jax.jit(printed_log_ratio, static_argnames="method")
log_ratios = jax.jit(jax.vmap(rotation_log_ratio, (0, None, None)))
printed_ratios = jax.jit(
    jax.vmap(lambda X, M, c: printed_log_ratio(X, M, c, "calibrated"), (0, None, None))
)
bounds = jax.jit(jax.vmap(rotation_log_ratio_bound, (0, None)))
kl_bound = eqx.filter_jit(rotation_kl_bound)
kl_annealed = eqx.filter_jit(rotation_kl_annealed)
weights_of = jax.jit(langevin_weights)
gradient = jax.jit(jax.grad(rotation_log_ratio, argnums=(0, 1, 2)))
slope_along = jax.jit(lambda points, tangents: jax.jvp(rotation_log_ratio, points, tangents)[1])
log_prob = eqx.filter_jit(lambda density, z: density.log_prob(z))


@eqx.filter_jit
def haar_terms(keys, base):
    """Return the terms of the bound from 16 elements drawn uniformly, one draw for each key."""

    def term(key):
        return sampled_log_ratio(key, base, Orthogonal(2), base.sample(key), num_elements=16)

    return jax.vmap(term)(keys)


def instance(seed, n=6, k=2, scale=1.0, variance=0.5):
    """Return a mean and one draw around it."""
    draws = np.random.default_rng(seed)
    M = scale * draws.normal(size=(n, k))
    return M + math.sqrt(variance) * draws.normal(size=(n, k)), M


# ---- Direct quadrature over both components of O(2), in NumPy ----

ANGLES = np.arange(480) * 2 * np.pi / 480


def log_weights(X, M, S, angles=ANGLES):
    """Return log q*(X T) - log q*(X) for points (..., n, 2), as (..., 2, number of angles)."""
    x, y, cos, sin = X[..., 0], X[..., 1], np.cos(angles), np.sin(angles)
    squares = ((X - M) ** 2 / S).sum((-2, -1))[..., None, None]
    for column, (first, second) in enumerate([(cos, -sin), (sin, cos)]):
        m, s = M[:, column], S[:, column]
        # sum_i (a x_i + b y_i - m_i)^2 / s_i, the second column with both signs.
        a, b = (x / s) @ m, (y / s) @ m
        linear = a[..., None] * first + b[..., None] * second
        linear = np.stack([linear, -linear if column else linear], -2)
        moments = [(u * v / s).sum(-1)[..., None] for u, v in [(x, x), (x, y), (y, y)]]
        square = moments[0] * first**2 + 2 * moments[1] * first * second + moments[2] * second**2
        squares = squares - (square[..., None, :] + (m**2 / s).sum()) + 2 * linear
    return squares / 2


def true_log_ratio(X, M, S):
    """Return log q* - log q~ by the trapezoid rule, for points (..., n, 2)."""
    values = log_weights(X, M, np.broadcast_to(S, M.shape))
    return math.log(2 * len(ANGLES)) - special.logsumexp(values, axis=(-2, -1))


def draws_around(M, S, count=1000, seed=0):
    return M + np.sqrt(S) * np.random.default_rng(seed).normal(size=(count, *M.shape))


def mean_and_error(values):
    return np.mean(values), np.std(values, ddof=1) / math.sqrt(len(values))


def test_quadrature_against_plain_rotations():
    X, M = instance(0)
    S = np.random.default_rng(1).uniform(0.3, 2, size=M.shape)
    angle = 0.7
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    values = log_weights(X, M, S, np.array([angle]))[:, 0]
    for value, T in zip(values, [rotation, rotation @ np.diag([1, -1])], strict=True):
        expected = ((X - M) ** 2 / S).sum() - ((X @ T - M) ** 2 / S).sum()
        np.testing.assert_allclose(value, expected / 2, rtol=1e-12)


# ---- One variance: the closed form ----


@pytest.mark.parametrize("seed", range(10))
def test_kl_from_base_against_quadrature(seed, x64):
    draws = np.random.default_rng(seed)
    variance = 10 ** draws.uniform(-1.5, 0.5)
    M = draws.uniform(0.2, 2) * draws.normal(size=(5, 2))
    X = draws_around(M, variance)
    expected = true_log_ratio(X, M, variance)
    values = log_ratios(X, M, variance)
    np.testing.assert_allclose(values, expected, atol=1e-9)

    posterior = Symmetrized(IsotropicGaussian(jnp.asarray(M), variance), Orthogonal(2))
    value, error = kl_from_base(posterior, jax.random.key(seed), 1000)
    expected, expected_error = mean_and_error(expected)
    assert 0 < error < 0.05
    assert abs(value - expected) < 4 * math.hypot(error, expected_error)


def test_row_variances_against_quadrature(x64):
    X, M = instance(3)
    variance = np.random.default_rng(0).uniform(0.1, 3, size=6)
    expected = true_log_ratio(X, M, variance[:, None])
    np.testing.assert_allclose(log_ratio(X, M, variance), expected, atol=1e-9)
    equal = log_ratio(X, M, np.full(6, 0.5))
    np.testing.assert_allclose(equal, log_ratio(X, M, 0.5), rtol=1e-12)


def test_printed_kl_is_too_large_by_half_a_nat(x64):
    # n = 6, M of size 2, c = 1/2: the symmetrized matrix, with the exact Bessel function.
    excess = []
    for seed in range(5):
        M = 2 * np.random.default_rng(seed).normal(size=(6, 2))
        X = draws_around(M, 0.5)
        wrong = printed_ratios(X, M, 0.5)
        value, error = mean_and_error(wrong - true_log_ratio(X, M, 0.5))
        assert value > 10 * error
        excess.append(value)
    assert 0.4 < np.mean(excess) < 0.6


@pytest.mark.parametrize("k", [1, 2, 3])
def test_symmetrized_matrix_never_gives_less(k, x64):
    X = np.random.default_rng(k).normal(size=(300, 4, k))
    M = 3 * np.random.default_rng(0).normal(size=(4, k))
    right, wrong = log_ratios(X, M, 0.7), printed_ratios(X, M, 0.7)
    assert np.all(wrong >= right - 1e-10)
    assert k == 1 or np.mean(wrong > right + 0.01) > 0.5


def test_skew_matrix(x64):
    # B = M^T X / c is skew here, so that its symmetric part vanishes.
    X, M = np.eye(2), np.array([[0.0, 3.0], [-3.0, 0.0]])
    np.testing.assert_allclose(printed(X, M, 0.5, "calibrated"), 0, atol=1e-12)
    # Both singular values of B are 6: log 0F1 is log of (I_0(12) + 1) / 2.
    expected = -np.log((special.iv(0, 12) + 1) / 2)
    np.testing.assert_allclose(log_ratio(X, M, 0.5), expected, rtol=1e-12)
    np.testing.assert_allclose(true_log_ratio(X, M, 0.5), expected, rtol=1e-12)


def test_printed_log_ratio_is_listing_1(x64):
    k, c = 3, 0.4
    X, M = instance(5, n=7, k=k)
    A = (X.T @ M + M.T @ X) / (2 * c)
    s = np.linalg.svd(A, compute_uv=False)
    u = 2 * s / k
    y = u / (np.sqrt(u**2 + 1) + 1)
    pairs = np.log(1 - np.outer(y**2, y**2)).sum()
    log_bessel = np.sum(s * y + k / 2 * np.log(1 - y**2)) - pairs / 2
    np.testing.assert_allclose(printed(X, M, c), np.trace(A) - log_bessel, rtol=1e-10)


def test_three_columns_against_rotations_drawn_uniformly(x64):
    X, M = instance(2, n=4, k=3, scale=0.6)
    q, r = np.linalg.qr(np.random.default_rng(0).normal(size=(40_000, 3, 3)))
    T = q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    squares = ((X @ T - M) ** 2).sum((1, 2)) - ((X - M) ** 2).sum()
    ratio, error = mean_and_error(np.exp(-squares / (2 * 0.5)))
    value = np.exp(-log_ratio(X, M, 0.5))
    assert error < 0.05 * ratio
    assert abs(value - ratio) < 4 * error


# ---- The mixture as a density ----


def test_one_row_is_normalised_and_has_the_density_of_rice(x64):
    # n = 1, k = 2: the radius has Rice's law, the angle is uniform.
    m, c = np.array([[0.8, -0.6]]), 0.3
    posterior = Symmetrized(IsotropicGaussian(jnp.asarray(m), c), Orthogonal(2))
    axis = np.arange(-6, 6, 0.06)
    points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 1, 2)
    log_density = jax.jit(jax.vmap(posterior.log_prob))(points)
    np.testing.assert_allclose(np.sum(np.exp(log_density)) * 0.06**2, 1, rtol=1e-9)
    r = np.linalg.norm(points, axis=(1, 2))
    expected = np.exp(-((r - 1) ** 2) / (2 * c)) * special.ive(0, r / c) / (2 * np.pi * c)
    np.testing.assert_allclose(np.exp(log_density), expected, rtol=1e-9)


@pytest.mark.parametrize(("n", "k"), [(5, 2), (2, 4)])
def test_log_prob_is_invariant(n, k, dtype, tolerance):
    X, M = (jnp.asarray(a, dtype) for a in instance(n, n, k))
    group = Orthogonal(k)

    @jax.jit
    def values(keys):
        posterior = Symmetrized(IsotropicGaussian(M, 0.5), group)
        turned = jax.vmap(lambda key: posterior.log_prob(group.act(group.sample(key), X)))
        return turned(keys), posterior.log_prob(X)

    found, expected = values(jax.random.split(jax.random.key(0), 3))
    bound = tolerance(dtype)
    np.testing.assert_allclose(found, np.full(3, expected), rtol=bound, atol=10 * bound)
    assert expected.dtype == dtype


def test_one_column_is_a_sign_flip(dtype, tolerance):
    X, M = (jnp.asarray(a, dtype) for a in instance(0, n=4, k=1))
    base = IsotropicGaussian(M, 0.5)
    rotated, flipped = Symmetrized(base, Orthogonal(1)), Symmetrized(base, SignFlip(4))
    bound = tolerance(dtype)
    for z in [X, M, -2 * X]:
        found, expected = log_prob(rotated, z), log_prob(flipped, z)
        np.testing.assert_allclose(found, expected, rtol=bound, atol=bound)


def test_a_pair_of_factors_is_one_matrix(x64):
    X, M = map(jnp.asarray, instance(1, n=7, k=3))

    def split(X):
        return {"U": X[:4].reshape(2, 2, 3), "V": (X[4:6], X[6])}

    pair = Symmetrized(IsotropicGaussian(split(M), 0.5), Orthogonal(3))
    whole = Symmetrized(IsotropicGaussian(M, 0.5), Orthogonal(3))
    found, expected = log_prob(pair, split(X)), log_prob(whole, X)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_array_equal(jax.jit(stack_rows)(split(X)), X)


def test_elbo_of_the_mixture_itself_is_zero(x64):
    _, M = instance(4, n=5, k=3)
    posterior = Symmetrized(IsotropicGaussian((M[:2], M[2:]), 0.5), Orthogonal(3))

    @jax.jit
    def estimates(key):
        # The group is that of the mixture: its check would be a third program.
        options = {"num_samples": 400, "check_invariance": False}
        return [
            elbo(key, posterior.log_prob, posterior, form=form, **options)
            for form in ("density", "divergence")
        ]

    (density, _), (value, error) = estimates(jax.random.key(0))
    np.testing.assert_allclose(density, 0, atol=1e-10)
    assert 0 < error < 0.3
    assert abs(value) < 4 * error


# ---- Numbers ----


def test_gradient_against_differences(x64):
    X, M = instance(6, n=5, k=3)
    direction = instance(7, n=5, k=3)
    slope = slope_along((X, M, 0.5), (*direction, 0.0))
    step = 1e-5
    ends = [log_ratio(X + s * direction[0], M + s * direction[1], 0.5) for s in (step, -step)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-7)


@pytest.mark.parametrize("k", [3, 5])
def test_gradient_where_singular_values_are_zero_or_equal(k, dtype, tolerance):
    X = np.asarray(instance(0, n=6, k=k)[0], dtype)
    # Near M = 0 the value is tr B up to second order.
    dX, dM, dc = map(np.asarray, gradient(X, np.zeros_like(X), 0.5))
    np.testing.assert_allclose(dM, X / 0.5, rtol=tolerance(dtype), atol=tolerance(dtype))
    assert not dX.any()
    assert dc == 0
    # B is 8 I: the slope is diagonal with equal entries, since the value is even in each one.
    frame = np.eye(6, k, dtype=dtype)
    dX, _, dc = map(np.asarray, gradient(2 * frame, 2 * frame, 0.5))
    np.testing.assert_allclose(dX, dX[0, 0] * frame, atol=tolerance(dtype))
    np.testing.assert_allclose(dc, -4 * k * dX[0, 0], rtol=tolerance(dtype))
    assert 0 < dX[0, 0] < 4


def test_gradient_of_fewer_rows_than_columns(x64):
    # B has rank one: its other singular values are zero.
    X = np.ones((1, 3))
    slopes = [np.asarray(leaf) for leaf in gradient(X, X + 1, 0.5)]
    ends = [log_ratio(X + s, X + 1, 0.5) for s in (1e-5, -1e-5)]
    np.testing.assert_allclose(slopes[0].sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-7)
    assert all(np.all(np.isfinite(leaf)) for leaf in slopes)


@pytest.mark.parametrize(("k", "variance"), [(2, 1e-3), (3, 1e-2), (20, 1e-2)])
def test_float32_against_float64(k, variance, x64):
    X, M = instance(1, n=40, k=k, variance=variance)
    right = log_ratio(X, M, variance)
    single = log_ratio(jnp.float32(X), jnp.float32(M), jnp.float32(variance))
    size = np.linalg.svd(M.T @ X / variance, compute_uv=False).sum()
    assert single.dtype == jnp.float32
    # Some roundings of terms of this size.
    assert abs(single - right) < 4 * size * np.finfo(np.float32).eps


def test_a_very_small_variance(x64):
    # The density of X given its orbit is that of a Gaussian on it: the value grows by
    # log(c) / 2 for each of the k (k - 1) / 2 rotations.
    _, M = instance(0, n=6, k=3)
    values = np.array([log_ratio(M, M, c) for c in (1e-3, 1e-4, 1e-5)])
    np.testing.assert_allclose(np.diff(values), 1.5 * math.log(10), rtol=1e-3)


def test_batches_are_single_values(x64):
    Xs, Ms = (np.random.default_rng(s).normal(size=(3, 5, 4)) for s in (0, 1))
    together = jax.jit(jax.vmap(rotation_log_ratio))(Xs, Ms, np.array([0.1, 1.0, 3.0]))
    for value, X, M, c in zip(together, Xs, Ms, [0.1, 1.0, 3.0], strict=True):
        np.testing.assert_allclose(value, log_ratio(X, M, c), rtol=1e-10)


def test_products_keep_full_precision_on_accelerators():
    X, M = map(jnp.asarray, instance(0))
    gradient = jax.make_jaxpr(jax.grad(rotation_log_ratio, argnums=(0, 1)))(X, M, 0.5)
    products = [line for line in str(gradient).split("\n") if "dot_general" in line]
    assert products
    assert str(gradient).count("dot_general[") == str(gradient).count("precision=(Precision.HIGH")


def test_float32_at_large_scale(dtype):
    # Singular values of 2e7. The value is k (k - 1) / 4 log(scale) + a constant, up to rounding.
    draws = np.random.default_rng(0)
    M = jnp.asarray(draws.normal(size=(200, 5)), dtype)
    value, slope = jax.jit(jax.value_and_grad(rotation_log_ratio))(M, M, 1e-5)
    wider = jax.jit(rotation_log_ratio)(M, M, 1e-3)
    rounding = 1e-3 if dtype == "float64" else 4 * 1e8 * np.finfo(np.float32).eps
    assert abs(float(value - wider) - 5 * math.log(100)) < rounding
    assert np.all(np.isfinite(slope))


def test_second_derivatives(x64):
    X, M = map(jnp.asarray, instance(6, n=5, k=4))
    direction = jnp.asarray(instance(7, n=5, k=4)[0])

    @eqx.filter_jit
    def slopes(M, t):
        """Return the first and the second derivative along the direction, at X + t direction."""
        along = jax.grad(lambda t: rotation_log_ratio(X + t * direction, M, 0.5))
        return jax.value_and_grad(along)(t)

    (after, _), (_, curvature), (before, _) = (slopes(M, jnp.array(t)) for t in (1e-5, 0.0, -1e-5))
    assert float(curvature) == pytest.approx(float(after - before) / 2e-5, rel=1e-6)
    low = M.at[2:].set(0)  # B has two singular values of zero
    with pytest.raises(RuntimeError, match="distinct singular values above zero"):
        jax.block_until_ready(slopes(low, jnp.array(0.0)))


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_single(half):
    X, M = (jnp.asarray(a, half) for a in instance(0))
    found = log_ratio(X, M, 0.5)
    exact = log_ratio(X.astype(jnp.float32), M.astype(jnp.float32), 0.5)
    assert found.dtype == half and found == exact.astype(half)


# ---- A variance for each entry: bounds ----

# The size of the means, and the standard deviation of log S around log(1/2).
ENTRYWISE = {"mild": (1.0, 0.3), "wide": (1.0, 1.0), "weak": (0.3, 1.0)}


def entrywise(name):
    scale, spread = ENTRYWISE[name]
    draws = np.random.default_rng(3)
    return scale * draws.normal(size=(6, 2)), 0.5 * np.exp(spread * draws.normal(size=(6, 2)))


@pytest.mark.parametrize("name", ENTRYWISE)
def test_bounds_are_below_the_divergence(name, x64):
    M, S = entrywise(name)
    X = draws_around(M, S, 2000)
    truth = true_log_ratio(X, M, S)
    expected, expected_error = mean_and_error(truth)
    # The same draws, so that their noise cancels; W is whatever one likes.
    other = np.random.default_rng(0).normal(size=M.shape)
    gaps = []
    for W in [np.asarray(weights_of(M, S)), M / S, other]:
        terms = bounds(X, W)
        gap, error = mean_and_error(truth - terms)
        assert gap > -3 * error
        gaps.append(gap)
    assert gaps[0] < min(0.7, gaps[1])
    assert gaps[2] > 1

    base, key = DiagonalGaussian(jnp.asarray(M), jnp.asarray(S)), jax.random.key(0)
    value, error = kl_bound(key, base, 2000)
    assert abs(expected - gaps[0] - value) < 4 * math.hypot(error, expected_error)
    annealed, annealed_error = kl_annealed(key, base, 2000, 32, weights=weights_of(M, S))
    # The bound from elements drawn uniformly; at most log 16, which is above the truth here.
    keys = jax.random.split(key, 1000)
    haar, haar_error = mean_and_error(np.asarray(haar_terms(keys, base)))
    for bound, error in [(haar, haar_error), (annealed, annealed_error)]:
        assert bound < expected + 4 * math.hypot(error, expected_error)
    assert expected - 1 < haar < math.log(16)
    assert abs(annealed - expected) < 4 * math.hypot(annealed_error, expected_error) + 0.03


def test_importance_sampling_and_laplace_are_no_bounds():
    M, S = entrywise("weak")
    X = draws_around(M, S, 2000)
    truth = true_log_ratio(X, M, S)
    # Eight rotations among which the true one is not counted.
    values = log_weights(X, M, S)
    draws = np.random.default_rng(1)
    chosen = draws.integers(2, size=(2000, 8)), draws.integers(len(ANGLES), size=(2000, 8))
    drawn = values[np.arange(2000)[:, None], *chosen]
    gap, error = mean_and_error(truth + special.logsumexp(drawn, axis=1) - math.log(8))
    assert gap < -0.5 - 4 * error
    # The best rotation and the best reflection, each with the curvature at it.
    best = np.argmax(values, axis=2)[..., None]
    around = [np.take_along_axis(values, (best + i) % len(ANGLES), 2)[..., 0] for i in (-1, 0, 1)]
    curvature = (2 * around[1] - around[0] - around[2]) / ANGLES[1] ** 2
    # Relative to the uniform law of both circles, of length 4 pi.
    laplace = around[1] + np.log(2 * np.pi / curvature) / 2 - math.log(4 * math.pi)
    gap, error = mean_and_error(truth + special.logsumexp(laplace, axis=1))
    assert gap < -0.05 - 4 * error


def test_bound_is_an_equality_for_equal_variances_in_a_row(x64):
    X, M = instance(8)
    variance = np.random.default_rng(0).uniform(0.1, 3, size=6)
    S = jnp.asarray(np.repeat(variance[:, None], 2, axis=1))
    W = weights_of(M, S)
    np.testing.assert_allclose(bounds(X[None], W)[0], log_ratio(X, M, variance), rtol=1e-12)
    # With nothing to anneal the annealed values agree draw by draw, at any temperature.
    base, key = DiagonalGaussian(jnp.asarray(M), S), jax.random.key(0)
    estimate = kl_bound(key, base, 2000)
    annealed = kl_annealed(key, base, 2000, 32, weights=W)
    np.testing.assert_allclose(annealed, estimate, rtol=1e-9)
    # One variance for all entries is that of each.
    np.testing.assert_allclose(
        kl_bound(key, IsotropicGaussian((M[:2], M[2:]), 0.5), 2000),
        kl_bound(key, DiagonalGaussian(jnp.asarray(M), jnp.full_like(S, 0.5)), 2000),
        rtol=1e-10,
    )


def test_one_temperature_is_the_bound_itself(x64):
    M, S = entrywise("wide")
    base, key = DiagonalGaussian(jnp.asarray(M), jnp.asarray(S)), jax.random.key(1)
    W = jnp.asarray(M / S)
    np.testing.assert_allclose(
        kl_annealed(key, base, 2000, 1, weights=W), kl_bound(key, base, 2000, weights=W), rtol=1e-12
    )
    # Which the choice of W moves, more than the noise, and annealing mends.
    worse, _ = kl_bound(key, base, 2000, weights=W)
    mended, _ = kl_annealed(key, base, 2000, 32, weights=W)
    assert worse < mended - 0.2


def test_annealing_tightens():
    draws = np.random.default_rng(0)
    M = jnp.asarray(draws.normal(size=(12, 5)), jnp.float32)
    S = jnp.asarray(0.5 * np.exp(draws.normal(size=(12, 5))), jnp.float32)
    base, key = DiagonalGaussian((M[:6], M[6:]), (S[:6], S[6:])), jax.random.key(0)
    annealed, _ = kl_annealed(key, base, 200, 16)
    assert annealed.dtype == jnp.float32
    assert kl_bound(key, base, 200)[0] + 1 < annealed


def test_annealing_one_column(x64):
    # The one variance of a row needs no annealing, and there are no pairs of columns.
    M, S = jnp.ones((3, 1)), jnp.array([[0.3], [1.0], [2.0]])
    base, key = DiagonalGaussian(M, S), jax.random.key(0)
    np.testing.assert_allclose(kl_annealed(key, base, 20, 4), kl_bound(key, base, 20), rtol=1e-12)


def test_bound_is_differentiable_in_everything(x64):
    M, S = entrywise("mild")

    def value(base, W):
        draws = jax.random.key(0), base, 4
        return rotation_kl_bound(*draws, weights=W)[0] + rotation_kl_bound(*draws)[0]

    gradient = jax.jit(jax.grad(value, argnums=(0, 1)))
    base = DiagonalGaussian(jnp.asarray(M), jnp.asarray(S))
    leaves = jax.device_get(jax.tree.leaves(gradient(base, jnp.asarray(M))))
    assert all(np.all(np.isfinite(leaf)) and np.all(leaf != 0) for leaf in leaves)
    # At M = 0 the default weights vanish.
    centred = DiagonalGaussian(jnp.zeros_like(base.mean), base.variance)
    leaves = jax.device_get(jax.tree.leaves(gradient(centred, jnp.zeros_like(base.mean))))
    assert all(np.all(np.isfinite(leaf)) for leaf in leaves)


# ---- Bad input ----

A = jnp.ones((3, 2))
BASE = DiagonalGaussian(A, A)
KEY = jax.random.key(0)


@pytest.mark.parametrize("function", [rotation_log_ratio, printed_log_ratio])
@pytest.mark.parametrize(
    ("X", "M", "variance"),
    [
        (A, A, 0.0),
        (A, A, -1.0),
        (A, A, math.nan),
        (A, A, math.inf),
        (A, A, jnp.array([1.0, 0.0, 1.0])),
        (A, A.at[1, 1].set(math.nan), 1.0),
        (A.at[0, 0].set(math.inf), A, 1.0),
    ],
)
def test_bad_values_raise(function, X, M, variance):
    with pytest.raises(RuntimeError, match="variance has to be positive and finite, X and M"):
        jax.block_until_ready(jax.jit(function)(X, M, variance))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rotation_log_ratio(A[:, :0], A[:, :0], 1.0), r"at least 1, got \(3, 0\)"),
        (lambda: rotation_log_ratio(A, A, A), r"variance .* shape \(3,\).*rotation_kl_bound"),
        (lambda: rotation_log_ratio(A, A, 1.0, "magic"), "method has to be one of"),
        (lambda: rotation_log_ratio_bound(A[:0], A[:0]), r"X has to have shape \(n, k\)"),
        (lambda: stack_rows((A, jnp.ones((3, 4)))), "share the length of the last axis"),
        (lambda: stack_rows(jnp.ones(())), "share the length of the last axis"),
        (lambda: rotation_kl_bound(KEY, BASE, 1), "num_samples of at least 2"),
        (lambda: rotation_kl_bound(KEY, BASE, 2, weights=A[:2]), "weights has to have shape"),
        (lambda: rotation_kl_annealed(KEY, BASE, 2, 0), "num_temperatures has to be an integer"),
    ],
)
def test_static_mistakes_raise_value_error(call, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call)  # they show when a call is traced: nothing has to be compiled


# The annotations refuse these while the tests run; the functions below them do too.
@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (rotation_log_ratio, (A[0], A[0], 1.0), r"shape \(n, k\).* got \(2,\)"),
        (rotation_log_ratio, (A, A[:2], 1.0), r"got \(3, 2\) and \(2, 2\)"),
        (rotation_log_ratio, (A, A.astype(int), 1.0), "M has to hold floating-point"),
        (printed_log_ratio, (A, A[:, :1], 1.0), "printed_log_ratio: X and M"),
        (rotation_log_ratio_bound, (A, A[:2]), r"weights has to have shape \(3, 2\)"),
        (rotation_log_ratio_bound, (A[0], A[0]), r"X has to have shape \(n, k\)"),
        (langevin_weights, (A, A[:2]), r"S has to have shape \(3, 2\)"),
    ],
)
def test_wrong_shapes_raise_value_error(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(function)(*arguments)


def test_samplers_have_no_derivative():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="has no derivative"):
        jax.grad(lambda a: matrix_langevin_sample(key, jnp.array([[a]]), 2)[0, 0])(0.7)
    with pytest.raises(ValueError, match="has no derivative"):
        jax.jacfwd(lambda s: langevin_mean(key, s, 20)[0])(jnp.array([1.5, 0.5]))


def test_weights_need_positive_variances():
    with pytest.raises(ValueError, match="positive"):
        langevin_weights(jnp.ones((2, 2)), -jnp.ones((2, 2)))
