"""Gaussians against SciPy, symmetrized densities against sums over orbits and quadrature."""

import inspect
import itertools
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from scipy import integrate, special, stats

from symlib.groups import (
    Group,
    HiddenPermutation,
    Orthogonal,
    Permutation,
    Product,
    Reflection,
    Scaling,
    SignFlip,
    Translation,
    unit_log_densities,
)
from symlib.inference import elbo
from symlib.posteriors import (
    DiagonalGaussian,
    IsotropicGaussian,
    Symmetrized,
    kl_sign_flip,
    rotation_kl_annealed,
    rotation_kl_bound,
    sampled_log_ratio,
    sampled_log_ratio_upper,
)
from symlib.special import log_permanent


def gaussian(kind, shapes, dtype, seed=0):
    """Return a Gaussian over arrays of these shapes, with random parameters."""
    leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda s: isinstance(s, tuple))
    draws = np.random.default_rng(seed)
    mean = tree.unflatten([jnp.asarray(draws.normal(size=s), dtype) for s in leaves])
    if kind is IsotropicGaussian:
        return kind(mean, 0.7)
    spread = [jnp.asarray(draws.uniform(0.3, 2, size=s), dtype) for s in leaves]
    return kind(mean, tree.unflatten(spread))


def flat(tree):
    """Return the entries of all leaves as one NumPy array."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def flat_moments(base):
    """Return mean and standard deviation as flat NumPy arrays in float64."""
    mean, variance = flat(base.mean).astype(float), flat(base.variance).astype(float)
    return mean, np.sqrt(np.broadcast_to(variance, mean.shape))


@eqx.filter_jit
def many_samples(posterior, count, seed):
    return jax.vmap(posterior.sample)(jax.random.split(jax.random.key(seed), count))


@eqx.filter_jit
def many_log_probs(posterior, z):
    return jax.vmap(posterior.log_prob)(z)


@eqx.filter_jit
def orbit_log_probs(posterior, z):
    orbit = jax.vmap(posterior.group.act, (0, None))(posterior.group.elements(), z)
    return jax.vmap(posterior.log_prob)(orbit)


kl_from_base = eqx.filter_jit(Symmetrized.kl_from_base)
flip = jax.jit(kl_sign_flip)
log_prob = eqx.filter_jit(lambda density, z: density.log_prob(z))
log_prob_and_slope = eqx.filter_jit(
    lambda density, z: jax.value_and_grad(lambda z: density.log_prob(z))(z)
)
sample = eqx.filter_jit(lambda density, key: density.sample(key))


# ---- Gaussians ----


@settings(max_examples=4)
@given(
    kind=st.sampled_from([IsotropicGaussian, DiagonalGaussian]),
    shapes=st.sampled_from([(), (2, 2), {"u": (2,), "v": (1, 3)}, [(), (2,)]]),
    seed=st.integers(0, 99),
)
def test_gaussian_against_scipy(kind, shapes, seed, dtype, tolerance):
    base = gaussian(kind, shapes, dtype, seed)
    mean, scale = flat_moments(base)
    z = sample(base, jax.random.key(seed))
    value, entropy = jax.jit(lambda base, z: (base.log_prob(z), base.entropy()))(base, z)
    assert jax.tree.structure(z) == jax.tree.structure(base.mean)
    assert jax.tree.map(jnp.shape, z) == jax.tree.map(jnp.shape, base.mean)
    expected = stats.norm.logpdf(flat(z), mean, scale).sum()
    assert value.dtype == entropy.dtype == flat(z).dtype == dtype
    bound = tolerance(dtype)
    np.testing.assert_allclose(value, expected, rtol=bound, atol=bound)
    np.testing.assert_allclose(entropy, stats.norm.entropy(mean, scale).sum(), rtol=bound)


def test_gaussian_sample_has_its_law(dtype):
    base = DiagonalGaussian(jnp.array([1.0, -2.0], dtype), jnp.array([0.25, 4.0], dtype))
    z = np.asarray(many_samples(base, 4000, seed=0))
    for values, mean, scale in zip(z.T, [1, -2], [0.5, 2], strict=True):
        assert stats.kstest(values, stats.norm(mean, scale).cdf).pvalue > 0.01
    assert abs(stats.pearsonr(*z.T).statistic) < 4 / math.sqrt(4000)


def test_sample_is_reparameterized(dtype, tolerance):
    base = gaussian(DiagonalGaussian, (3,), dtype)
    z, mean = np.asarray(sample(base, jax.random.key(0))), np.asarray(base.mean)
    gradient = jax.jit(jax.grad(lambda base: base.sample(jax.random.key(0)).sum()))(base)
    np.testing.assert_allclose(gradient.mean, 1, rtol=tolerance(dtype))
    # dz / d log c = (z - m) / 2.
    bound = tolerance(dtype)
    np.testing.assert_allclose(gradient.log_variance, (z - mean) / 2, rtol=bound, atol=bound)


# ---- Symmetrized densities ----


class Case(NamedTuple):
    """A base over arrays of some shapes, a finite group, and the group's matrices on flat z."""

    kind: type
    shapes: object
    group: Group
    matrices: list


def permutation_matrices(n):
    return [np.eye(n)[list(order)] for order in itertools.permutations(range(n))]


def block_diagonal(*blocks):
    size = sum(map(len, blocks))
    matrix, start = np.zeros((size, size)), 0
    for block in blocks:
        matrix[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    return matrix


CASES = {
    "sign": Case(IsotropicGaussian, (2,), SignFlip(2), [np.eye(2), -np.eye(2)]),
    "sign of a pytree": Case(
        DiagonalGaussian, {"u": (2,), "v": (1, 2)}, SignFlip(4), [np.eye(4), -np.eye(4)]
    ),
    "permutation": Case(
        DiagonalGaussian,
        (3, 2),
        Permutation(3),
        [np.kron(P, np.eye(2)) for P in permutation_matrices(3)],
    ),
    "independent signs": Case(
        DiagonalGaussian,
        (3,),
        Product(*[SignFlip(1)] * 3),
        [np.diag(signs) for signs in itertools.product([1, -1], repeat=3)],
    ),
    "product": Case(
        DiagonalGaussian,
        [(3,), (2,)],
        Product(Permutation(3), SignFlip(2)),
        [block_diagonal(P, sign * np.eye(2)) for P in permutation_matrices(3) for sign in (1, -1)],
    ),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def symmetrize(case, dtype):
    return Symmetrized(gaussian(case.kind, case.shapes, dtype), case.group)


def test_symmetrized_log_prob(case, dtype, tolerance):
    posterior, count = symmetrize(case, dtype), len(case.matrices)
    z = jax.tree.map(lambda leaf: np.asarray(leaf) + dtype.type(0.5), posterior.base.mean)
    values = np.asarray(orbit_log_probs(posterior, jax.tree.map(jnp.asarray, z)))
    assert values.dtype == dtype
    # Invariance: all points of an orbit have the same density, though not under the base.
    np.testing.assert_allclose(values, values[0], rtol=tolerance(dtype))
    mean, scale = flat_moments(posterior.base)
    point = flat(z).astype(float)
    components = [stats.norm.logpdf(m.T @ point, mean, scale).sum() for m in case.matrices]
    assert np.ptp(components) > 0.01
    # An independent sum over the orbit, with matrices written down by hand.
    expected = special.logsumexp(components) - np.log(count)
    np.testing.assert_allclose(values, expected, rtol=tolerance(dtype))


def test_symmetrized_log_prob_far_from_every_mode(dtype):
    posterior = Symmetrized(IsotropicGaussian(jnp.array([100.0], dtype), 1.0), SignFlip(1))
    # Each component underflows to 0; the logarithm must not.
    value, gradient = log_prob_and_slope(posterior, jnp.array([-160.0], dtype))
    expected = stats.norm.logpdf(60) - np.log(2)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, 60, rtol=1e-5)


def test_symmetrized_density_integrates_to_one_on_the_line(x64):
    posterior = Symmetrized(IsotropicGaussian(jnp.array(0.8), 0.5), SignFlip(1))
    # On a Gaussian the trapezoidal rule with a step of half a deviation is exact to rounding.
    axis = jnp.arange(-12, 12.01, 0.3)
    assert abs(jnp.exp(many_log_probs(posterior, axis)).sum() * 0.3 - 1) < 1e-12


@pytest.mark.parametrize(
    "group", [SignFlip(2), Permutation(2), Product(SignFlip(1), SignFlip(1))], ids=str
)
def test_symmetrized_density_integrates_to_one_in_the_plane(group, x64):
    base = DiagonalGaussian(jnp.array([1.2, -0.4]), jnp.array([0.5, 1.5]))
    axis = jnp.arange(-12, 12.01, 0.3)
    grid = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    density = jnp.exp(many_log_probs(Symmetrized(base, group), grid))
    assert abs(density.sum() * 0.3**2 - 1) < 1e-12


# ---- Sampling ----


def test_symmetrized_sample_has_its_law(case):
    posterior = symmetrize(case, jnp.float32)
    mean, scale = flat_moments(posterior.base)
    z = many_samples(posterior, 4000, seed=3)
    z = np.concatenate([np.reshape(leaf, (4000, -1)) for leaf in jax.tree.leaves(z)], 1)
    # A direction that no element leaves alone sees the whole mixture: under the component g,
    # direction . z is Gaussian with mean direction . (M m) and variance |scale * M^T direction|^2.
    direction = np.linspace(0.3, 1.1, mean.size)
    centres = [direction @ matrix @ mean for matrix in case.matrices]
    widths = [np.linalg.norm(scale * (matrix.T @ direction)) for matrix in case.matrices]

    def cdf(x):
        return np.mean([stats.norm.cdf(x, *c) for c in zip(centres, widths, strict=True)], 0)

    assert stats.kstest(z @ direction, cdf).pvalue > 0.01


def test_symmetrized_sample_of_the_orthogonal_group():
    base = DiagonalGaussian(jnp.array([[2.0, 0.0]]), jnp.array([[0.1, 0.6]]))
    x, y = np.asarray(many_samples(Symmetrized(base, Orthogonal(2)), 4000, seed=4))[:, 0].T
    # The angle is uniform and the radius keeps its law.
    assert stats.kstest(np.arctan2(y, x), stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 0.01
    radii = np.linalg.norm(many_samples(base, 4000, seed=5)[:, 0], axis=1)
    assert stats.ks_2samp(np.hypot(x, y), radii).pvalue > 0.01


# ---- The divergence of the base from its mixture ----


def assert_within_standard_errors(estimate, expected):
    value, standard_error = estimate
    assert 0 < standard_error < 0.02
    assert abs(value - expected) < 4 * standard_error


@pytest.mark.parametrize("shift", [0.3, 2.0])
def test_kl_from_base_of_a_sign_flip(shift, dtype):
    base = DiagonalGaussian(jnp.array([shift, 0.5], dtype), jnp.array([1.0, 0.8], dtype))
    estimate = kl_from_base(Symmetrized(base, SignFlip(2)), jax.random.key(5), 4000)
    assert estimate[0].dtype == estimate[1].dtype == dtype
    assert_within_standard_errors(estimate, flip(base))


def test_kl_from_base_against_quadrature(x64):
    mean, scale = np.array([0.9, -0.4]), np.array([0.6, 1.1])
    base = DiagonalGaussian(jnp.asarray(mean), jnp.asarray(scale**2))
    estimate = kl_from_base(Symmetrized(base, Permutation(2)), jax.random.key(6), 4000)

    axis = np.arange(-10, 10, 0.05)
    z = np.stack(np.meshgrid(axis, axis), -1)
    own, swapped = (stats.norm.logpdf(p, mean, scale).sum(-1) for p in (z, z[..., ::-1]))
    ratio = own - np.logaddexp(own, swapped) + np.log(2)
    assert_within_standard_errors(estimate, np.sum(np.exp(own) * ratio) * 0.05**2)


def test_kl_from_base_of_a_permutation_is_a_sign_flip_of_the_difference(x64):
    # Two exchangeable scalars of equal variance c: only z_1 - z_2 ~ N(m_1 - m_2, 2 c) matters.
    base = IsotropicGaussian(jnp.array([0.7, -0.2]), 0.4)
    estimate = kl_from_base(Symmetrized(base, Permutation(2)), jax.random.key(7), 4000)
    difference = IsotropicGaussian(jnp.array(0.9), 0.8)
    assert_within_standard_errors(estimate, flip(difference))


def test_kl_from_base_of_four_scalars(x64):
    # 2.579 nats by independent quadrature, between the two bounds of Gelberg et al. (2024).
    base = IsotropicGaussian(jnp.array([-1.5, -0.5, 0.5, 1.5]), 0.25)
    value, error = kl_from_base(Symmetrized(base, Permutation(4)), jax.random.key(8), 10_000)
    assert abs(value - 2.579) < 4 * error + 5e-4


def test_kl_from_base_lies_between_zero_and_log_order(case):
    posterior, log_order = symmetrize(case, jnp.float32), math.log(case.group.order)
    value, _ = kl_from_base(posterior, jax.random.key(9), 500)
    assert 0 < value < log_order
    # With well separated modes it counts them (Moore 2016, footnote 1).
    entries, unflatten = ravel_pytree(posterior.base.mean)
    far = unflatten(jnp.asarray(100 * np.arange(1, entries.size + 1), entries.dtype))
    far = eqx.tree_at(lambda p: p.base.mean, posterior, far)
    value, error = kl_from_base(far, jax.random.key(9), 500)
    np.testing.assert_allclose(value, log_order, rtol=1e-5)
    assert error < 1e-5


def test_kl_from_base_of_a_symmetric_base_is_zero(dtype):
    centred = IsotropicGaussian(jnp.zeros(3, dtype), 2.0)
    value, error = kl_from_base(Symmetrized(centred, SignFlip(3)), jax.random.key(0), 10)
    np.testing.assert_allclose([value, error], 0, atol=1e-6)


# ---- One sign flip, by quadrature ----


def line(a):
    """Return a one-dimensional base with a = m^2 / c."""
    return IsotropicGaussian(jnp.sqrt(jnp.asarray(a, dtype=float)), 1.0)


def kl_by_scipy(a):
    def integrand(x):
        return stats.norm.pdf(x) * np.logaddexp(0, -2 * (a + np.sqrt(a) * x))

    # log(1 + exp(-2 y)) bends at y = 0, that is at x = -sqrt(a).
    points = sorted({-12, max(-np.sqrt(a), -12), 0, 12})
    parts = [
        integrate.quad(integrand, *ends, epsabs=1e-14, epsrel=1e-13, limit=200)[0]
        for ends in itertools.pairwise(points)
    ]
    return np.log(2) - sum(parts)


GRID = [0.0, 1e-8, 1e-3, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 18.0, 30.0, 60.0, 144.0, 1e4, 1e6]


def test_kl_sign_flip_against_scipy(dtype):
    values = jax.jit(jax.vmap(lambda a: kl_sign_flip(line(a))))(jnp.asarray(GRID, dtype))
    assert values.dtype == dtype
    # In float32 rounding, which depends on how XLA orders a sum, moves the value by 1e-7 to 4e-7.
    bound = {"float32": 5e-7, "float64": 2e-14}[dtype.name]
    np.testing.assert_allclose(values, [kl_by_scipy(a) for a in GRID], rtol=0, atol=bound)


def test_kl_sign_flip_limits(dtype):
    assert flip(line(0.0)) == 0
    np.testing.assert_allclose(flip(line(1e6)), math.log(2), rtol=8e-7)
    # It depends on a = sum of m_i^2 / c_i alone.
    base = DiagonalGaussian(
        {"u": jnp.array([1.0], dtype), "v": jnp.array([[3.0]], dtype)},
        {"u": jnp.array([2.0], dtype), "v": jnp.array([[6.0]], dtype)},
    )
    np.testing.assert_allclose(flip(base), kl_by_scipy(2.0), atol=3e-7)


@pytest.mark.parametrize("a", [0.05, 4.0, 100.0])
def test_kl_sign_flip_gradient(a, x64):
    def value(mean):
        return kl_sign_flip(IsotropicGaussian(mean, 0.5))

    mean, step = np.sqrt(a / 2), 1e-4
    differences = [kl_by_scipy(2 * (mean + s) ** 2) for s in (step, -step)]
    numerical = (differences[0] - differences[1]) / (2 * step)
    # Central differences: a step of 1e-4 leaves some 1e-8 and amplifies rounding to 1e-10.
    derivatives = jax.jit(lambda mean: (jax.grad(value)(mean), jax.hessian(value)(mean)))
    (slope, curvature), (after, _), (before, _) = map(derivatives, (mean, mean + step, mean - step))
    np.testing.assert_allclose(slope, numerical, rtol=0, atol=1e-7)
    np.testing.assert_allclose(curvature, (after - before) / (2 * step), rtol=0, atol=1e-7)


def test_kl_sign_flip_gradient_at_the_symmetric_point(dtype):
    def value(mean):
        return kl_sign_flip(DiagonalGaussian(mean, jnp.array([0.5, 2.0], dtype)))

    zero = jnp.zeros(2, dtype)
    np.testing.assert_array_equal(jax.jit(jax.grad(value))(zero), 0)
    # KL = a / 2 + O(a^2), so the Hessian is Sigma^-1: the slope 1/2 at a = 0.
    np.testing.assert_allclose(jax.jit(jax.hessian(value))(zero), [[2, 0], [0, 0.5]], rtol=1e-6)


# ---- Transformations of JAX ----


@pytest.mark.parametrize("kind", [IsotropicGaussian, DiagonalGaussian])
def test_optimiser_sees_mean_and_log_variance_only(kind, dtype):
    posterior = Symmetrized(gaussian(kind, (2,), dtype), Product(*[SignFlip(1)] * 2))
    base = posterior.base
    assert list(map(id, jax.tree.leaves(posterior))) == [id(base.mean), id(base.log_variance)]
    z = jnp.array([0.3, -1.0], dtype)

    @jax.jit
    def train(posterior):
        optimiser = optax.sgd(0.1)
        gradient = jax.grad(lambda p: -p.log_prob(z))(posterior)
        updates, _ = optimiser.update(gradient, optimiser.init(posterior))
        trained = optax.apply_updates(posterior, updates)
        return trained, trained.log_prob(z), posterior.log_prob(z)

    trained, after, before = train(posterior)
    assert trained.group == posterior.group
    assert after > before
    assert all(
        np.all(np.asarray(old) != new)
        for old, new in zip(*map(jax.tree.leaves, (posterior, trained)), strict=True)
    )


def test_float32_stays_float32_under_x64(x64):
    def everything(key, base):
        results = [base.sample(key), base.entropy(), kl_sign_flip(base)]
        for group in [SignFlip(4), Permutation(2), Product(SignFlip(2), SignFlip(2))]:
            posterior = Symmetrized(base, group)
            results += [posterior.sample(key), posterior.log_prob(base.mean)]
            results += posterior.kl_from_base(key, 3)
        rotated = Symmetrized(IsotropicGaussian(base.mean, 1.0), Orthogonal(2))
        results += [rotated.sample(key), rotated.log_prob(base.mean)]
        return [*results, *rotated.kl_from_base(key, 3)]

    base = DiagonalGaussian(jnp.ones((2, 2), jnp.float32), jnp.ones((2, 2), jnp.float32))
    results = jax.eval_shape(everything, jax.random.key(0), base)
    assert {result.dtype for result in results} == {jnp.dtype("float32")}


def test_construction_under_vmap(dtype, tolerance):
    def log_prob(mean):
        return Symmetrized(IsotropicGaussian(mean, 1.0), SignFlip(2)).log_prob(jnp.ones(2, dtype))

    means = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)), dtype)
    together = jax.jit(jax.vmap(log_prob))(means)
    single = jax.jit(log_prob)
    alone = [single(mean) for mean in means]
    np.testing.assert_allclose(together, alone, rtol=tolerance(dtype))


@pytest.mark.parametrize("transform", ["jit", "vmap", "grad", "scan"])
def test_bad_variance_is_caught_inside(transform):
    def entropy(variance):
        return IsotropicGaussian(jnp.zeros(2), variance).entropy()

    variances = jnp.array([1.0, -1.0])
    run = {
        "jit": lambda: jax.jit(entropy)(-1.0),
        "vmap": lambda: jax.vmap(entropy)(variances),
        "grad": lambda: jax.grad(entropy)(-1.0),
        "scan": lambda: jax.lax.scan(lambda total, v: (total + entropy(v), None), 0.0, variances),
    }[transform]
    # jax.grad leaves the number known.
    error = ValueError if transform == "grad" else RuntimeError
    with pytest.raises(error, match="variance has to be positive and finite"):
        jax.block_until_ready(run())


# ---- What a user overrides ----


class FirstSign(SignFlip):
    """A sign of the first entry alone."""

    def act(self, g, z):
        return z.at[0].multiply(g)


class Relabelled(HiddenPermutation):
    """Hidden units that move without their outgoing weights."""

    def act(self, g, z):
        return [z[0][self.inverse(g)[0]], z[1]]


class Laplace(IsotropicGaussian):
    """Another law, with a Gaussian's fields."""

    def log_prob(self, z):
        return -jnp.sum(jnp.abs(ravel_pytree(z)[0]))


class Entries(IsotropicGaussian):
    """A base whose densities come as a batch, one for each entry."""

    def log_prob(self, z):
        return -0.5 * (z - self.mean) ** 2 - 0.5 * math.log(2 * math.pi)

    def entropy(self):
        return jnp.ones(2)


def test_an_overridden_action_is_in_the_density(x64):
    base = DiagonalGaussian(jnp.array([0.8, 0.5]), jnp.array([0.4, 0.6]))
    posterior, z = Symmetrized(base, FirstSign(2)), jnp.array([0.3, -1.0])
    pair = [log_prob(base, z), log_prob(base, jnp.array([-0.3, -1.0]))]
    np.testing.assert_allclose(log_prob(posterior, z), np.logaddexp(*pair) - math.log(2))
    draws = np.asarray(many_samples(posterior, 500, 0))
    assert np.mean(draws[:, 1] > 0) > 0.65 > np.mean(draws[:, 0] > 0)
    # Not the closed form of the class above it.
    base = IsotropicGaussian([jnp.array([[1.0], [-1.0]]), jnp.array([[2.0, 0.0]])], 0.5)
    z = sample(base, jax.random.key(0))
    pair = [log_prob(base, z), log_prob(base, [z[0][::-1], z[1]])]
    found = log_prob(Symmetrized(base, Relabelled(2)), z)
    np.testing.assert_allclose(found, np.logaddexp(*pair) - math.log(2))


def test_no_closed_form_for_a_subclass_with_another_law():
    network = Laplace([jnp.ones((2, 1)), jnp.ones((1, 2))], 1.0)
    plane = Laplace(jnp.ones(2), 1.0)
    for call in (
        plane.entropy,
        lambda: plane.kl(plane),
        lambda: kl_sign_flip(plane),
    ):
        with pytest.raises(ValueError, match="Laplace overrides a method of Gaussian"):
            call()
    for call in (
        lambda: unit_log_densities(network, network.mean),
        lambda: rotation_kl_bound(jax.random.key(0), plane, 4),
    ):
        with pytest.raises(ValueError, match="got Laplace"):
            jax.eval_shape(call)
    with pytest.raises(ValueError, match="no closed form .*Laplace"):
        log_prob(Symmetrized(plane, Orthogonal(2)), jnp.ones(2))
    # The sum needs no closed form: this law is invariant.
    found = log_prob(Symmetrized(network, HiddenPermutation(2)), network.mean)
    np.testing.assert_allclose(found, -4, rtol=1e-6)


def test_plain_and_symmetrized_have_one_face():
    base = DiagonalGaussian(jnp.array([0.8, 0.5]), jnp.array([0.4, 0.6]))
    z = jnp.array([0.3, -1.0])
    for posterior in (base, Symmetrized(base, SignFlip(2))):
        assert posterior.base is base
        ratio = log_prob(base, z) - log_prob(posterior, z)
        found = jax.jit(lambda posterior: posterior.log_ratio(z))(posterior)
        np.testing.assert_allclose(found, ratio, atol=1e-6)
    assert base.group is None
    assert base.row_variances() is None
    np.testing.assert_allclose(base.variances(), [0.4, 0.6], rtol=1e-6)


def test_the_digits_of_a_mixture_far_from_its_base():
    """At the other bump the base is at -2e8, where float32 has steps of 16."""
    base = DiagonalGaussian(jnp.array([10.0]), jnp.array([1e-6]))
    found = log_prob(Symmetrized(base, SignFlip(1)), -base.mean)
    np.testing.assert_allclose(found, log_prob(base, base.mean) - math.log(2), rtol=1e-6)


class Circle(Group):
    """The rotations of the plane, with a log ratio of its own: a user's group in ten lines."""

    order = math.inf

    def act(self, g, z):
        return jnp.array([[jnp.cos(g), -jnp.sin(g)], [jnp.sin(g), jnp.cos(g)]]) @ z

    def inverse(self, g):
        return -g

    def compose(self, g, h):
        return g + h

    def identity(self):
        return jnp.zeros(())

    def sample(self, key):
        return jax.random.uniform(key, (), maxval=2 * math.pi)

    def elements(self):
        raise ValueError("infinitely many")

    def log_ratio(self, base, z):
        # The mean of exp(m . Tz / c) over the circle is I0(|m| |z| / c).
        scale = jnp.linalg.norm(base.mean) * jnp.linalg.norm(z) / base.row_variances()
        return base.mean @ z / base.row_variances() - scale - jnp.log(jax.scipy.special.i0e(scale))


def test_a_group_of_ones_own_with_its_log_ratio_integrates_to_one(x64):
    base = IsotropicGaussian(jnp.array([1.5, -0.4]), 0.3)
    posterior = Symmetrized(base, Circle())
    axis = np.linspace(-6, 6, 241)
    points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    mass = np.exp(many_log_probs(posterior, jnp.asarray(points))).sum() * (axis[1] - axis[0]) ** 2
    np.testing.assert_allclose(mass, 1, rtol=1e-10)
    z = jnp.array([0.3, 1.1])
    turned = jax.jit(posterior.group.act)(1.234, z)
    np.testing.assert_allclose(log_prob(posterior, turned), log_prob(posterior, z), rtol=1e-12)


class Doubtful(Symmetrized):
    """A mixture with a log ratio of its own."""

    def log_ratio(self, z):
        return jnp.array(7.0)


def test_an_overridden_log_ratio_is_in_the_density():
    base = DiagonalGaussian(jnp.array([0.8, 0.5]), jnp.array([0.4, 0.6]))
    found = log_prob(Doubtful(base, SignFlip(2)), base.mean)
    np.testing.assert_allclose(found, log_prob(base, base.mean) - 7, rtol=1e-6)


def test_two_hidden_layers_keep_their_digits():
    """Relabelled, the base is at -1e7 and the mixture at some hundred nats."""
    draws = np.random.default_rng(0)
    network = [jnp.asarray(draws.normal(size=s), jnp.float32) for s in ((2, 1), (2, 2), (1, 2))]
    posterior = Symmetrized(IsotropicGaussian(network, 1e-7), HiddenPermutation(2, 2))
    exchange = jnp.array([1, 0]), jnp.array([1, 0])
    moved = jax.jit(posterior.group.act)(exchange, network)
    found, expected = log_prob(posterior, moved), log_prob(posterior, network)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("variance", [1e-3, 1e-7])
def test_closed_forms_far_from_the_base_keep_their_digits(variance):
    """At an image of the mean the base is at -1e8 and the mixture at some hundred nats."""
    draws = np.random.default_rng(0)
    M = jnp.asarray(draws.normal(size=(8, 3)), jnp.float32)
    plane = Symmetrized(IsotropicGaussian(M, variance), Orthogonal(3))
    turned = plane.group.act(plane.group.sample(jax.random.key(0)), M)
    layers = [(8, 2), (8,)], [(1, 8), (1,)]
    network = jax.tree.map(
        lambda s: jnp.asarray(draws.normal(size=s), jnp.float32),
        layers,
        is_leaf=lambda s: isinstance(s, tuple) and isinstance(s[0], int),
    )
    hidden = Symmetrized(IsotropicGaussian(network, variance), HiddenPermutation(8))
    moved = hidden.group.act((jnp.roll(jnp.arange(8), 3),), network)
    for posterior, image in ((plane, turned), (hidden, moved)):
        mean = posterior.base.mean
        found = posterior.log_prob(mean)
        np.testing.assert_allclose(posterior.log_prob(image), found, atol=0.02)
        with jax.enable_x64(True):
            exact = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), mean)
            right = Symmetrized(IsotropicGaussian(exact, variance), posterior.group)
            expected = right.base.log_prob(exact) - right.log_ratio(exact)
        np.testing.assert_allclose(found, expected, atol=0.01)


class Correlated(eqx.Module):
    """A Gaussian of two dependent entries that says their variances."""

    mean: jax.Array
    correlation: float

    def log_prob(self, z):
        covariance = jnp.array([[1.0, self.correlation], [self.correlation, 1.0]])
        return jax.scipy.stats.multivariate_normal.logpdf(z, self.mean, covariance)

    def sample(self, key):
        return jax.random.normal(key, (2,))

    def row_variances(self):
        return jnp.ones(())


def test_variances_of_dependent_entries_are_refused():
    z = jnp.array([0.3, 1.0])
    with pytest.raises(ValueError, match=r"Correlated says that its entries are independent"):
        Symmetrized(Correlated(z, 0.5), Orthogonal(2)).log_prob(z)
    found = Symmetrized(Correlated(z, 0.0), Orthogonal(2)).log_prob(-z)
    expected = Symmetrized(IsotropicGaussian(z, 1.0), Orthogonal(2)).log_prob(-z)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_difference_without_digits_is_refused():
    base = IsotropicGaussian(jnp.array([10.0, 3.0]), 1e-6)
    posterior = Symmetrized(base, Circle())
    with pytest.raises(ValueError, match="float32 has too few digits"):
        posterior.log_prob(-base.mean)


def test_a_given_log_ratio_passes_jit():
    base = IsotropicGaussian(jnp.array([1.5, -0.4]), 0.3)
    posterior = Symmetrized(base, SignFlip(2), log_ratio=lambda base, z: 0 * z[0] + 0.25)
    found = jax.jit(lambda posterior, z: posterior.log_prob(z))(posterior, base.mean)
    np.testing.assert_allclose(found, base.log_prob(base.mean) - 0.25, rtol=1e-6)
    bare = inspect.unwrap(Symmetrized.__init__)  # without the tests' own check of annotations
    with pytest.raises(ValueError, match="comes first,.* a SignFlip lacks log_prob"):
        bare(object.__new__(Symmetrized), SignFlip(2), base)


def test_a_log_ratio_that_is_given_takes_the_place_of_the_group_s():
    base = IsotropicGaussian(jnp.array([1.5, -0.4]), 0.3)
    z = sample(base, jax.random.key(0))
    posterior = Symmetrized(base, SignFlip(2), log_ratio=lambda base, z: jnp.sum(z) * 0 + 0.25)
    np.testing.assert_allclose(log_prob(posterior, z), log_prob(base, z) - 0.25, rtol=1e-6)
    np.testing.assert_allclose(kl_from_base(posterior, jax.random.key(0), 4), (0.25, 0), atol=1e-7)
    with pytest.raises(ValueError, match="log_ratio has to return a scalar"):
        Symmetrized(base, SignFlip(2), log_ratio=lambda base, z: z).log_prob(z)


def test_a_reflection_is_a_group(x64):
    base = DiagonalGaussian(jnp.array([0.8, 0.5]), jnp.array([0.4, 0.6]))
    swap, z = Reflection.swap(2, [0], [1]), jnp.array([0.3, -1.0])
    pair = [log_prob(base, z), log_prob(base, z[::-1])]
    found = log_prob(Symmetrized(base, swap), z)
    np.testing.assert_allclose(found, np.logaddexp(*pair) - math.log(2))
    # The mirror is not trained.
    slope = jax.jit(jax.grad(lambda mirror: Symmetrized(base, mirror).log_prob(z)))(swap)
    assert not np.any(slope.projection) and not np.any(slope.center)


def test_a_density_that_is_no_scalar_is_refused():
    base, key = Entries(jnp.array([1.0, 2.0]), 1.0), jax.random.key(0)
    posterior = Symmetrized(base, SignFlip(2))
    for call in (
        lambda: posterior.log_prob(base.mean),
        lambda: posterior.kl_from_base(key, 4),
        lambda: elbo(key, lambda z: -jnp.sum(z**2), posterior, 4),
        lambda: elbo(key, lambda z: -jnp.sum(z**2), base, 4),
        lambda: elbo(key, lambda z: -jnp.sum(z**2), base, 4, "entropy"),
        lambda: sampled_log_ratio(key, base, SignFlip(2), base.mean, 2),
        lambda: sampled_log_ratio_upper(key, base, SignFlip(2), base.mean, 2),
    ):
        with pytest.raises(ValueError, match=r"to return a scalar, got shape \(2,\)"):
            jax.eval_shape(call)


def test_half_precision_is_refused():
    for kind in (jnp.float16, jnp.bfloat16):
        with pytest.raises(ValueError, match="float32 or float64, got b?float16"):
            IsotropicGaussian(jnp.ones(2, kind), 1.0)
        small = jax.tree.map(lambda leaf, kind=kind: leaf.astype(kind), TWO)
        for call in (
            small.entropy,
            lambda small=small: small.log_prob(jnp.ones(2)),
            lambda small=small: small.sample(jax.random.key(0)),
            lambda small=small: kl_sign_flip(small),
            lambda small=small: rotation_kl_bound(jax.random.key(0), small, 4),
            lambda kind=kind: log_permanent(jnp.ones((2, 2), kind)),
        ):
            with pytest.raises(ValueError, match="float32 or float64"):
                call()


# ---- Derivatives ----


def differences(function, point, step):
    """Return central differences of a function of a vector, along a new last axis."""
    sides = jnp.stack([jnp.eye(point.size), -jnp.eye(point.size)]) * step
    up, down = jax.lax.map(jax.vmap(lambda side: function(point + side)), sides)
    return jnp.moveaxis((up - down) / (2 * step), 0, -1)


@pytest.mark.parametrize("place", ["generic", "centre", "tie"])
def test_first_and_second_derivatives_against_differences(place, x64):
    # At the centre and at a tie all copies coincide.
    point = {"generic": [0.8, -0.3], "centre": [0.0, 0.0], "tie": [0.6, 0.6]}[place]
    z = jnp.array([0.7, 0.2])
    functions = [lambda m: kl_sign_flip(IsotropicGaussian(m, 0.5))]
    for group in (SignFlip(2), Permutation(2)):
        functions.append(lambda m, g=group: Symmetrized(IsotropicGaussian(m, 0.5), g).log_prob(z))

    def network(mean):  # two units, which the permanent relabels
        base = IsotropicGaussian([mean[:, None], jnp.ones((1, 2))], 0.5)
        return Symmetrized(base, HiddenPermutation(2)).log_prob([z[:, None], jnp.ones((1, 2))])

    functions.append(network)

    @jax.jit
    def compare(point):
        pairs = []
        for f in functions:
            pairs.append((jax.grad(f)(point), differences(f, point, 1e-5)))
            numerical = differences(jax.grad(f), point, 1e-5)
            pairs += [(jax.hessian(f)(point), numerical)]
            pairs += [(jax.jacrev(jax.grad(f))(point), numerical)]
        return pairs

    for found, expected in compare(jnp.array(point)):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_kl_sign_flip_third_derivative_and_far_away(dtype):
    def value(m):
        return kl_sign_flip(IsotropicGaussian(m, 0.5))

    if dtype == "float64":
        third, second = jax.jit(jax.grad(jax.hessian(value))), jax.jit(jax.hessian(value))
        for m in (0.0, 0.9):
            numerical = (second(m + 1e-4) - second(m - 1e-4)) / 2e-4
            np.testing.assert_allclose(third(m), numerical, atol=1e-5)
    # The square of this mean overflows in float32.
    far, slope = jax.jit(jax.value_and_grad(value))(jnp.asarray(1e25, dtype))
    np.testing.assert_allclose(far, math.log(2), rtol=1e-6)
    assert slope == 0


def test_annealing_refuses_to_be_differentiated():
    def value(mean):
        return rotation_kl_annealed(jax.random.key(0), IsotropicGaussian(mean, 1.0), 2, 2)[0]

    with pytest.raises(ValueError, match="no derivative: train with rotation_kl_bound"):
        jax.grad(value)(jnp.ones((1, 2)))


# ---- Bad input ----


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_bad_values_raise(bad):
    with pytest.raises(ValueError, match="IsotropicGaussian: variance has to be positive"):
        IsotropicGaussian(jnp.zeros(2), bad)
    with pytest.raises(ValueError, match="DiagonalGaussian: variance has to be positive"):
        DiagonalGaussian(jnp.zeros(2), jnp.array([1.0, bad]))
    if not math.isfinite(bad):
        with pytest.raises(ValueError, match="DiagonalGaussian: mean has to be finite"):
            DiagonalGaussian(jnp.array([bad, 0.0]), jnp.ones(2))


TWO = IsotropicGaussian(jnp.zeros(2), 1.0)
TWO_VARIANCES = DiagonalGaussian(jnp.zeros(2), jnp.ones(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: IsotropicGaussian(jnp.array([1, 2]), 1.0), "mean .* floating-point.* got int32"),
        (lambda: IsotropicGaussian({}, 1.0), "mean .* got no array"),
        (lambda: IsotropicGaussian(jnp.zeros(2), jnp.ones(2)), r"variance .* shape \(\), got \(2,"),
        (lambda: DiagonalGaussian(jnp.zeros(2), 1.0), r"variance .* shape \(2,\), got \(\)"),
        (lambda: DiagonalGaussian(jnp.zeros(2), jnp.ones(2, int)), "variance .* got int32"),
        (lambda: DiagonalGaussian({"u": jnp.zeros(2)}, jnp.ones(2)), "variance has to have shape"),
        (lambda: TWO.log_prob(jnp.zeros(3)), r"z has to have shape \(2,\), got \(3,\)"),
        (lambda: TWO.log_prob((jnp.zeros(1), jnp.zeros(1))), "z has to have shape"),
        (
            lambda: Symmetrized(TWO, Permutation(2)).log_prob(jnp.zeros(3)),
            r"first axis of z has to have length 2, got \(3,\)",
        ),
        (
            lambda: Symmetrized(TWO, Permutation(2)).log_prob(jnp.zeros((2, 2))),
            r"z has to have shape \(2,\), got \(2, 2\)",
        ),
        (lambda: Symmetrized(TWO, SignFlip(3)), "3 entries in total, got 2"),
        (lambda: Symmetrized(TWO, Scaling()), "not compact"),
        (lambda: Symmetrized(TWO, Translation(2)), "not compact"),
        (
            lambda: Symmetrized(TWO_VARIANCES, Orthogonal(2)).log_prob(jnp.zeros(2)),
            "no closed form .*Orthogonal.* DiagonalGaussian.*rotation_kl_bound",
        ),
        (
            lambda: Symmetrized(TWO_VARIANCES, Orthogonal(2)).kl_from_base(jax.random.key(0), 2),
            "no closed form .*Orthogonal.* DiagonalGaussian.*rotation_kl_bound",
        ),
        (
            lambda: Symmetrized(
                IsotropicGaussian((jnp.zeros(1), jnp.zeros(2)), 1.0),
                Product(SignFlip(1), Orthogonal(2)),
            ).log_prob((jnp.zeros(1), jnp.zeros(2))),
            "no closed form .*Product",
        ),
        (
            lambda: Symmetrized(TWO, Orthogonal(2)).log_prob(jnp.zeros((3, 2))),
            r"z has to have shape \(2,\), got \(3, 2\)",
        ),
        (
            lambda: Symmetrized(IsotropicGaussian(jnp.zeros(9), 1.0), Permutation(9)).log_prob(
                jnp.zeros(9)
            ),
            r"more than 65536 elements.*symlib\.posteriors",
        ),
        (
            lambda: Symmetrized(
                IsotropicGaussian(jnp.zeros(2000), 1.0), Permutation(2000)
            ).log_prob(jnp.zeros(2000)),
            "more than 65536 elements",
        ),
        (
            lambda: Symmetrized(TWO, SignFlip(2)).kl_from_base(jax.random.key(0), 1),
            "num_samples of at least 2",
        ),
        (
            lambda: Symmetrized(TWO, SignFlip(2)).kl_from_base(jax.random.key(0), 0),
            "num_samples has to be an integer of at least 1",
        ),
    ],
)
def test_static_mistakes_raise_value_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_kl_of_extreme_scales():
    def normal(mean, variance):
        return IsotropicGaussian(jnp.array([mean], jnp.float32), variance)

    # The square of the difference alone would overflow or vanish in float32.
    np.testing.assert_allclose(normal(3e19, 1e37).kl(normal(0.0, 1e37)), 45, rtol=1e-5)
    np.testing.assert_allclose(normal(1e-20, 1e-37).kl(normal(0.0, 1e-37)), 5e-4, rtol=1e-5)
