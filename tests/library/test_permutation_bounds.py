"""Tests of symlib.special and symlib.posteriors against sums over all permutations."""

import itertools
import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp
from numpy.testing import assert_allclose

from symlib.groups import HiddenPermutation, SignFlip, Translation, unit_log_densities
from symlib.posteriors import (
    DiagonalGaussian,
    IsotropicGaussian,
    Symmetrized,
    block_log_ratio,
    sampled_log_ratio,
    sampled_log_ratio_upper,
    unit_blocks,
)
from symlib.special import log_permanent, permutation_log_ratio


def permutations(size):
    return np.array(list(itertools.permutations(range(size))))


def brute_force(log_matrix):
    """Return the log permanent as a sum over all permutations."""
    size = len(log_matrix)
    return logsumexp(log_matrix[np.arange(size), permutations(size)].sum(1))


@partial(jax.jit, static_argnums=1)
def random_base(key, width, spread=1.0):
    """Return a Gaussian with random means and variances over a network 2 - width - 1."""
    mean_key, variance_key = jax.random.split(key)
    leaves, structure = jax.tree.flatten(
        [(jnp.zeros((width, 2)), jnp.zeros(width)), (jnp.zeros((1, width)), jnp.zeros(1))]
    )
    mean_keys, variance_keys = (jax.random.split(k, 4) for k in (mean_key, variance_key))
    mean = [spread * jax.random.normal(k, a.shape) for k, a in zip(mean_keys, leaves, strict=True)]
    variance = [
        jnp.exp(0.5 * jax.random.normal(k, a.shape))
        for k, a in zip(variance_keys, leaves, strict=True)
    ]
    return DiagonalGaussian(structure.unflatten(mean), structure.unflatten(variance))


@eqx.filter_jit
def draw(base, seed=1):
    return base.sample(jax.random.key(seed))


# Each is compiled once for a shape, not operation by operation.
sampled = eqx.filter_jit(sampled_log_ratio)
sampled_upper = eqx.filter_jit(sampled_log_ratio_upper)
blocks_of = eqx.filter_jit(unit_blocks)
in_blocks = jax.jit(block_log_ratio)
log_prob = eqx.filter_jit(lambda density, z: density.log_prob(z))


# ---- The permanent ----


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_log_permanent_against_the_sum(size, dtype, tolerance):
    log_matrix = 3 * jax.random.normal(jax.random.key(size), (size, size), dtype)
    found, slope = jax.jit(jax.value_and_grad(log_permanent))(log_matrix)
    assert found.dtype == dtype
    # The slope is a doubly stochastic matrix: shares of the permutations with g(i) = j.
    assert_allclose(slope.sum(0), np.ones(size), rtol=10 * tolerance(dtype))
    assert_allclose(slope.sum(1), np.ones(size), rtol=10 * tolerance(dtype))
    expected, expected_slope = jax.jit(jax.value_and_grad(brute_force))(log_matrix)
    assert_allclose(found, expected, rtol=tolerance(dtype))
    assert_allclose(slope, expected_slope, atol=10 * tolerance(dtype))


def test_log_permanent_of_known_matrices(x64):
    # All ones: n!. The complement of the identity: the derangements. Rank one: n! times products.
    assert_allclose(log_permanent(jnp.zeros((10, 10))), math.lgamma(11), rtol=1e-14)
    no_fixed_points = jnp.where(jnp.eye(7, dtype=bool), -jnp.inf, 0.0)
    assert_allclose(jnp.exp(log_permanent(no_fixed_points)), 1854, rtol=1e-13)
    row, column = jnp.arange(8.0) / 3, -jnp.arange(8.0)
    expected = math.lgamma(9) + row.sum() + column.sum()
    assert_allclose(log_permanent(row[:, None] + column), expected, rtol=1e-14)


def test_log_permanent_does_not_overflow_and_keeps_zero():
    large = jnp.full((5, 5), 3e4, jnp.float32)
    assert_allclose(log_permanent(large), 15e4 + math.log(120), rtol=1e-6)
    # A row of zeros leaves no permutation.
    assert log_permanent(jnp.zeros((3, 3)).at[1].set(-jnp.inf)) == -jnp.inf
    assert jnp.isnan(log_permanent(jnp.zeros((3, 3)).at[1, 1].set(jnp.nan)))


@pytest.mark.parametrize("shape", [(2, 3), (4,), (0, 0), (16, 16)])
def test_log_permanent_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match="square matrix|size has to be 1, ..., 15"):
        log_permanent(jnp.zeros(shape))


# ---- The exact divergence ----


@pytest.mark.parametrize("width", [3, 5])
def test_symmetrized_log_prob_is_the_sum_over_all_permutations(width, x64):
    base = random_base(jax.random.key(width), width)
    group = HiddenPermutation(width)
    posterior = Symmetrized(base, group)

    @jax.jit
    @jax.vmap
    def both(key):
        z = base.sample(key)
        moved = jax.vmap(lambda g: base.log_prob(group.act(group.inverse(g), z)))
        terms = moved(group.elements())
        return posterior.log_prob(z), logsumexp(terms) - math.log(group.order)

    found, expected = both(jax.random.split(jax.random.key(1), 20))
    assert_allclose(found, expected, rtol=1e-12)


def test_symmetrized_with_two_hidden_layers_is_invariant(x64):
    normal = np.random.default_rng(0).normal
    mean = [jnp.asarray(normal(size=shape)) for shape in [(3, 2), (2, 3), (1, 2)]]
    base, group = IsotropicGaussian(mean, 0.5), HiddenPermutation(3, 2)
    posterior = Symmetrized(base, group)

    @jax.jit
    def values():
        z = base.sample(jax.random.key(0))
        moved = jax.vmap(lambda g: posterior.log_prob(group.act(g, z)))(group.elements())
        return moved, posterior.log_prob(z), base.log_prob(z)

    moved, mixture, plain = values()
    assert_allclose(moved, np.full(12, mixture), rtol=1e-12)
    assert abs(mixture - plain) > 0.1


# ---- Which way the bounds go ----


@eqx.filter_jit
def divergences(key, base, group, num_samples):
    """Return, for each estimator, its mean over common draws, and the error of I - mean."""

    def one(key):
        draw_key, key = jax.random.split(key)
        z = base.sample(draw_key)
        log_densities = unit_log_densities(base, z)
        few, many = 4, math.factorial(len(log_densities))
        return {
            "exact": permutation_log_ratio(log_densities),
            "lower": sampled_log_ratio(key, base, group, z, few),
            "distinct": sampled_log_ratio(key, base, group, z, few, replace=False),
            "everything": sampled_log_ratio(key, base, group, z, many, replace=False),
            "blocks": block_log_ratio(base, z, unit_blocks(base, 2)),
            "one block": block_log_ratio(base, z, unit_blocks(base, len(log_densities))),
            "upper": sampled_log_ratio_upper(key, base, group, z, few),
        }

    terms = jax.lax.map(one, jax.random.split(key, num_samples), batch_size=200)
    gaps = jax.tree.map(lambda t: terms["exact"] - t, terms)
    error = jax.tree.map(lambda t: jnp.std(t, ddof=1) / math.sqrt(num_samples), gaps)
    return jax.tree.map(jnp.mean, terms), error


@pytest.mark.parametrize("width", [3, 5])
def test_lower_exact_upper_over_random_posteriors(width, x64):
    # 34 bases a width, from copies that nearly coincide to copies far apart. A bound may be crossed
    # by Monte Carlo noise only: four standard errors of the difference.
    group = HiddenPermutation(width)
    clear = 0
    keys = jax.random.split(jax.random.key(width), 34)
    for key, spread in zip(keys, np.linspace(0.1, 3.1, 34), strict=True):
        mean, error = jax.device_get(divergences(key, random_base(key, width, spread), group, 400))
        exact = mean.pop("exact")
        # Not below 0 but by the noise of 400 terms, whose spread is below 2.
        assert -0.4 < exact < math.lgamma(width + 1) + 1e-9
        for name in ("lower", "distinct", "blocks"):
            assert mean[name] < exact + 4 * error[name], name
        assert mean["upper"] > exact - 4 * error["upper"]
        assert mean["lower"] < math.log(4) + 1e-9
        # All elements, or one block of all units, is the divergence itself, draw by draw.
        assert_allclose([mean["everything"], mean["one block"]], [exact] * 2, atol=1e-10)
        clear += exact - mean["lower"] > 0.2 and mean["upper"] - exact > 0.2
    assert clear > 10  # the bounds are not vacuous


@partial(jax.jit, static_argnums=1)
def layered_base(key, widths, spread):
    """Return a Gaussian of variance 1 over a network without biases."""
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    keys = jax.random.split(key, len(shapes))
    mean = [spread * jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]
    return IsotropicGaussian(mean, 1.0)


@eqx.filter_jit
def layered_terms(key, base, group, blocks):
    def one(key):
        z = base.sample(key)
        exact = base.log_prob(z) - Symmetrized(base, group).log_prob(z)
        single = [
            block_log_ratio(base, z, [b if i == j else None for j in range(len(blocks))])
            for i, b in enumerate(blocks)
            if b is not None
        ]
        return exact, block_log_ratio(base, z, blocks), jnp.stack(single)

    return jax.lax.map(one, jax.random.split(key, 1000), batch_size=250)


@pytest.mark.parametrize("widths", [(2, 2), (2, 3, 2)])
def test_adjacent_layers_are_counted_together(widths, x64):
    # Against the sum over all elements, from copies that overlap to copies far apart.
    group = HiddenPermutation(*widths)
    blocks = [jnp.arange(width)[None] for width in widths]
    crossed = 0
    for index, spread in enumerate([0.3, 1.0, 3.0]):
        key = jax.random.fold_in(jax.random.key(len(widths)), index)
        base = layered_base(key, (1, *widths, 1), spread)
        exact, joint, single = map(np.asarray, layered_terms(key, base, group, blocks))
        error = 4 / math.sqrt(len(exact))
        assert joint.mean() < exact.mean() + error * np.std(exact - joint)
        # More than the best single layer: the direction is not all there is to it.
        assert spread < 1 or joint.mean() > single.mean(0).max()
        surplus = single.sum(1) - exact
        crossed += surplus.mean() > error * np.std(surplus)
    assert crossed  # the sum of the single layers is none


def test_one_trace_of_two_exchanges_is_counted_once(x64):
    # A diagonal matrix between the layers shows the product of both exchanges alone: log 2.
    mean = [jnp.zeros((2, 1)), 20 * jnp.eye(2), jnp.zeros((1, 2))]
    base, pair = IsotropicGaussian(mean, 1.0), jnp.array([[0, 1]])
    exact, joint, single = layered_terms(
        jax.random.key(0), base, HiddenPermutation(2, 2), [pair, pair]
    )
    assert_allclose(np.mean(exact), math.log(2), atol=1e-6)
    assert_allclose(np.mean(single, axis=0), [math.log(2)] * 2, atol=1e-6)
    assert_allclose(np.mean(joint), math.log(2), atol=1e-6)


def test_layers_that_are_not_adjacent_add_up(x64):
    base = layered_base(jax.random.key(0), (1, 2, 2, 2, 1), 1.0)
    pair = jnp.array([[0, 1]])
    _, both, single = layered_terms(
        jax.random.key(1), base, HiddenPermutation(2, 2, 2), [pair, None, pair]
    )
    assert_allclose(both, np.sum(single, axis=1), rtol=1e-12)


def test_permanent_with_zeros_has_derivatives(dtype):
    # Some sub-permanents are 0, the whole is not; also the second order exists.
    log_matrix = jnp.where(jnp.eye(3, dtype=bool), jnp.arange(3.0), -jnp.inf).at[0, 1].set(0.5)
    value, slope = jax.jit(jax.value_and_grad(log_permanent))(log_matrix)
    assert_allclose(value, 3.0, rtol=1e-6)
    assert_allclose(slope, np.eye(3), atol=1e-6)
    full = jax.random.normal(jax.random.key(0), (3, 3), dtype)
    found, expected = (
        jax.jit(jax.hessian(f))(full).reshape(9, 9) for f in (log_permanent, brute_force)
    )
    assert_allclose(found, expected, atol=1e-5)


class Unsorted(SignFlip):
    """A group whose list begins with another element."""

    def elements(self):
        return jnp.array([-1.0, 1.0])


def test_draws_without_replacement_need_the_identity_first():
    base = IsotropicGaussian(jnp.ones(2), 1.0)
    with pytest.raises(ValueError, match="has to be its identity"):
        sampled_log_ratio(jax.random.key(0), base, Unsorted(2), jnp.ones(2), 2, replace=False)


def test_example_of_four_scalars(x64):
    # Gelberg et al. (2024) as checked by others: I = 2.579, K = 20 gives 2.178 and 3.50.
    mean = (jnp.array([[-1.5], [-0.5], [0.5], [1.5]]), jnp.zeros((0, 4)))
    base, group = IsotropicGaussian(mean, 0.25), HiddenPermutation(4)

    def one(key):
        draw_key, key = jax.random.split(key)
        z = base.sample(draw_key)
        return (
            permutation_log_ratio(unit_log_densities(base, z)),
            sampled_log_ratio(key, base, group, z, 20),
            sampled_log_ratio_upper(key, base, group, z, 20),
        )

    keys = jax.random.split(jax.random.key(0), 40000)
    terms = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=1000))(keys)
    for values, expected in zip(terms, (2.579, 2.178, 3.50), strict=True):
        error = np.std(values) / math.sqrt(len(values))
        assert error < 0.02
        assert abs(np.mean(values) - expected) < 4 * error + 0.005


def test_matrix_and_network_give_the_same_sampled_term(x64):
    # The short cut for one hidden layer against the general path, which moves the network.
    base = random_base(jax.random.key(0), 4)
    z = draw(base)
    group = HiddenPermutation(4)

    class General(HiddenPermutation):
        """The same group, which the library does not know as one."""

    for function in (sampled, sampled_upper):
        found, expected = (function(jax.random.key(2), base, g, z, 50) for g in (group, General(4)))
        assert_allclose(found, expected, rtol=1e-10)


def test_sampled_ratio_serves_other_groups(x64):
    # One sign flip has two elements, so K = 2 without replacement is exact.
    base, group = IsotropicGaussian(jnp.array([0.7, -0.2]), 1.0), SignFlip(2)
    z = draw(base)
    found = sampled(jax.random.key(1), base, group, z, 2, replace=False)
    expected = log_prob(base, z) - log_prob(Symmetrized(base, group), z)
    assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("order", [None, [3, 1, 0, 2, 5, 4]])
def test_blocks_hold_the_near_units(order):
    places = np.array([0.0, 0.1, 5.0, 5.3, 20.0, 21.0])[order or range(6)]
    base = IsotropicGaussian((jnp.asarray(places)[:, None], jnp.zeros((1, 6))), 1.0)
    pairs, triples = (np.asarray(blocks_of(base, size)) for size in (2, 3))
    assert {tuple(sorted(places[b])) for b in pairs} == {(0.0, 0.1), (5.0, 5.3), (20.0, 21.0)}
    assert sorted(places[triples[0]]) == [0.0, 0.1, 5.0]
    assert sorted(triples.ravel()) == list(range(6))
    assert jax.eval_shape(lambda: unit_blocks(base, 4)).shape == (1, 4)


def test_blocks_of_one_take_every_unit_once():
    # The last unit has no distance to another free one.
    base = random_base(jax.random.key(0), 5)
    assert sorted(np.ravel(blocks_of(base, 1))) == list(range(5))


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("num_elements", [1, 4])
def test_sampled_ratio_keeps_the_dtype_and_one_element_gains_nothing(num_elements, replace, x64):
    base = random_base(jax.random.key(0), 3)
    base = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), base)
    z = draw(base)
    found = sampled(jax.random.key(2), base, HiddenPermutation(3), z, num_elements, replace=replace)
    assert found.dtype == jnp.float32
    assert found <= math.log(num_elements) + 1e-6
    if num_elements == 1:
        assert_allclose(found, 0, atol=1e-6)


def test_blocks_of_two_are_transpositions(x64):
    base = random_base(jax.random.key(0), 5)
    z = draw(base)
    log_densities = np.asarray(jax.jit(unit_log_densities)(base, z))
    # By hand: for each pair log(2 p_ii p_jj / (p_ii p_jj + p_ij p_ji)).
    expected = sum(
        math.log(2)
        - np.logaddexp(
            0.0,
            log_densities[i, j] + log_densities[j, i] - log_densities[i, i] - log_densities[j, j],
        )
        for i, j in [(0, 3), (4, 1)]
    )
    found = in_blocks(base, z, jnp.array([[0, 3], [4, 1]]))
    assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("estimator", ["exact", "blocks", "sampled"])
def test_gradients_are_finite_at_coinciding_units(estimator, dtype):
    # A collapsed start: all units alike. The gradient has to exist there, and pushes apart.
    zeros = [(jnp.zeros((4, 2), dtype), jnp.zeros(4, dtype)), (jnp.zeros((1, 4), dtype),)]
    base = DiagonalGaussian(zeros, jax.tree.map(jnp.ones_like, zeros))

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def value(base):
        z = base.sample(jax.random.key(0))
        log_densities = unit_log_densities(base, z)
        if estimator == "exact":
            return permutation_log_ratio(log_densities)
        if estimator == "blocks":
            return block_log_ratio(base, z, unit_blocks(base, 2))
        return sampled_log_ratio(jax.random.key(1), base, HiddenPermutation(4), z, 5)

    found, slope = value(base)
    assert_allclose(found, 0, atol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


# ---- Mistakes ----

BASE = IsotropicGaussian([jnp.ones((3, 2)), jnp.ones((1, 3))], 1.0)
DEEP = IsotropicGaussian([jnp.ones((2, 1)), jnp.ones((2, 2)), jnp.ones((1, 2))], 1.0)
PLANE = IsotropicGaussian(jnp.ones(2), 1.0)
KEY = jax.random.key(0)
LARGE = IsotropicGaussian([jnp.ones((16, 2)), jnp.ones((1, 16))], 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(sampled_log_ratio, num_elements=0), "num_elements .* at least 1, got 0"),
        (partial(sampled_log_ratio_upper, num_elements=0), "num_elements .* at least 1, got 0"),
        (partial(sampled_log_ratio, num_elements=7, replace=False), "6 elements, fewer than the 7"),
    ],
)
def test_bad_numbers_of_elements(call, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda key: call(key, BASE, HiddenPermutation(3), BASE.mean), KEY)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: Symmetrized(LARGE, HiddenPermutation(16)).log_prob(LARGE.mean),
            "posteriors.sampled_log_ratio bounds",
        ),
        (lambda: Symmetrized(BASE, HiddenPermutation(4)), r"widths \(3,\), not \(4,\)"),
        (
            lambda: sampled_log_ratio(
                jax.random.key(0), LARGE, HiddenPermutation(16), LARGE.mean, 5, replace=False
            ),
            "too many to list",
        ),
        (
            lambda: sampled_log_ratio(
                jax.random.key(0),
                IsotropicGaussian(jnp.ones(2), 1.0),
                Translation(2),
                jnp.ones(2),
                5,
            ),
            "not compact",
        ),
        (lambda: permutation_log_ratio(jnp.zeros((16, 16))), "symlib.posteriors"),
        (lambda: block_log_ratio(BASE, BASE.mean, jnp.array([0, 1])), "integer array"),
        (lambda: block_log_ratio(BASE, BASE.mean, jnp.ones((1, 2))), "integer array"),
        (lambda: block_log_ratio(DEEP, DEEP.mean, jnp.array([[0, 1]])), "list with an entry for"),
        (lambda: block_log_ratio(DEEP, DEEP.mean, [None, None]), "blocks for one or more"),
        (lambda: unit_blocks(BASE, 4), "at most 3, the width, got 4"),
        (lambda: unit_blocks(BASE, 0), "at least 1, got 0"),
        (lambda: unit_blocks(BASE, 2, layer=1), "layer has to be in 0, ..., 0, got 1"),
    ],
)
def test_static_mistakes_raise_value_error(call, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call)  # they show when a call is traced: nothing has to be compiled


@pytest.mark.parametrize("blocks", [[[0, 1], [1, 2]], [[0, 3]], [[-1, 2]], [[1, 1]]])
def test_blocks_that_are_not_disjoint(blocks):
    with pytest.raises(ValueError, match="different and of 0, ..., 2"):
        block_log_ratio(BASE, BASE.mean, jnp.array(blocks))
