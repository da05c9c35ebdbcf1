"""Tests of symlib.groups: relabelled hidden units compute the same function."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from symlib.groups import HiddenPermutation, hidden_widths, unit_log_densities, unit_rows
from symlib.posteriors import DiagonalGaussian, IsotropicGaussian


def mlp(depth, key=0, **options):
    """Return the parameters of an equinox MLP and the function (parameters, x) -> output."""
    network = eqx.nn.MLP(3, 2, 4, depth, key=jax.random.key(key), **options)
    parameters, static = eqx.partition(network, eqx.is_inexact_array)
    return parameters, lambda p, x: eqx.combine(p, static)(x)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("use_bias", [True, False])
def test_permuted_network_computes_the_same_function(depth, use_bias, dtype, tolerance):
    parameters, apply = mlp(depth, use_bias=use_bias)
    parameters = jax.tree.map(lambda leaf: leaf.astype(dtype), parameters)
    group = HiddenPermutation(*hidden_widths(parameters))
    assert group.widths == (4,) * depth and group.order == 24**depth
    x = jax.random.normal(jax.random.key(1), (5, 3), dtype)

    @jax.jit
    def outputs(key):
        g = group.sample(key)
        moved = group.act(g, parameters)
        return moved, jax.vmap(apply, (None, 0))(moved, x)

    moved, found = outputs(jax.random.key(2))
    expected = jax.vmap(apply, (None, 0))(parameters, x)
    assert_allclose(found, expected, rtol=tolerance(dtype), atol=tolerance(dtype))
    # The weights did move.
    assert jnp.max(jnp.abs(moved.layers[0].weight - parameters.layers[0].weight)) > 0.1


def test_kinds_of_layers_agree():
    weights = [np.arange(6.0).reshape(3, 2), np.arange(3.0).reshape(1, 3)]
    bias = np.array([10.0, 20.0, 30.0])
    g = (jnp.array([2, 0, 1]),)
    group = HiddenPermutation(3)
    pairs = group.act(g, ((weights[0], bias), (weights[1], np.zeros(1))))
    dicts = group.act(g, [{"kernel": weights[0], "bias": bias}, {"kernel": weights[1]}])
    bare = group.act(g, [*weights])
    # Unit 0 moves to place 2.
    for first, second in [
        (pairs[0][0], pairs[1][0]),
        (dicts[0]["kernel"], dicts[1]["kernel"]),
        bare,
    ]:
        assert_array_equal(first, weights[0][[1, 2, 0]])
        assert_array_equal(second, weights[1][:, [1, 2, 0]])
    assert_array_equal(pairs[0][1], bias[[1, 2, 0]])
    assert_array_equal(dicts[0]["bias"], bias[[1, 2, 0]])


def test_unit_rows_hold_all_that_moves():
    parameters, _ = mlp(2)
    group = HiddenPermutation(4, 4)
    for layer in (0, 1):
        rows = unit_rows(parameters, layer)
        assert rows.shape == (4, (3, 4)[layer] + 1 + (4, 2)[layer])
        g = [group.groups[0].identity()] * 2
        g[layer] = jnp.array([1, 0, 3, 2])
        moved = group.act(tuple(g), parameters)
        assert_array_equal(unit_rows(moved, layer), rows[jnp.array([1, 0, 3, 2])])
        # Of all numbers of the network, those of the rows are the ones that moved.
        changed = jax.tree.map(lambda a, b: int(jnp.sum(a != b)), moved, parameters)
        assert sum(jax.tree.leaves(changed)) == rows.size


@pytest.mark.parametrize("kind", [IsotropicGaussian, DiagonalGaussian])
def test_unit_log_densities_give_every_permuted_density(kind, dtype, tolerance):
    mean, _ = mlp(1)
    mean = jax.tree.map(lambda leaf: leaf.astype(dtype), mean)
    variance = 0.3
    if kind is DiagonalGaussian:
        variance = jax.tree.map(lambda leaf: 0.2 + leaf**2, mean)
    base = kind(mean, variance)
    z = base.sample(jax.random.key(3))
    group = HiddenPermutation(4)
    log_densities = unit_log_densities(base, z)
    assert log_densities.dtype == dtype

    @jax.jit
    @jax.vmap
    def difference(g):
        return base.log_prob(group.act(group.inverse(g), z)) - base.log_prob(z)

    (permutations,) = elements = group.elements()
    expected = difference(elements)
    found = log_densities[jnp.arange(4), permutations].sum(1) - jnp.trace(log_densities)
    assert jnp.ptp(expected) > 1
    assert_allclose(found, expected, rtol=10 * tolerance(dtype), atol=10 * tolerance(dtype))


def test_unit_log_densities_of_narrow_units_far_from_zero():
    # (x - m)^2 multiplied out would lose all digits in float32: x^2 / s is 1e10 here.
    mean = (jnp.full((2, 1), 100.0, jnp.float32), jnp.zeros((1, 2), jnp.float32))
    base = IsotropicGaussian(mean, 1e-6)
    z = (mean[0] + jnp.array([[0.0], [0.0009765625]]), mean[1])
    found = unit_log_densities(base, z)
    assert_allclose(found[0, 1] - found[0, 0], -0.5 * 0.0009765625**2 / 1e-6, rtol=1e-3)


class Slopes(eqx.Module):
    """An activation with a trained slope for each unit."""

    slope: jax.Array = eqx.field(default_factory=lambda: jnp.ones(()))

    def __call__(self, x):
        return self.slope * jnp.tanh(x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: HiddenPermutation(), "one group or more"),
        (lambda: HiddenPermutation(3, 0), "n has to be an integer of at least 1"),
        (lambda: HiddenPermutation(3).act((jnp.arange(3),), mlp(1)[0]), r"widths \(4,\), not \(3,"),
        (lambda: HiddenPermutation(4).act((jnp.arange(3),), mlp(1)[0]), r"shape \(4,\), got \(3,"),
        (
            lambda: HiddenPermutation(4).act(
                (jnp.arange(4),), eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
            ),
            "equinox.filter",
        ),
        (lambda: hidden_widths(jnp.zeros((3, 2))), "equinox.nn.MLP or a tuple or list"),
        (lambda: hidden_widths([jnp.zeros((3, 2))]), "two layers or more"),
        (lambda: hidden_widths([jnp.zeros((3, 2)), jnp.zeros((1, 4))]), "gives 3 .* takes 4"),
        (lambda: hidden_widths([(jnp.zeros((3, 2)), jnp.zeros(2)), jnp.zeros((1, 3))]), "vectors"),
        (lambda: hidden_widths([jnp.zeros(3), jnp.zeros((1, 3))]), "one matrix"),
        (lambda: hidden_widths(mlp(1, activation=Slopes())[0]), "arrays outside its layers"),
        (lambda: unit_log_densities(Slopes(), mlp(1)[0]), "IsotropicGaussian or a Diag.*Slopes"),
        (lambda: unit_rows(mlp(1)[0], 1), "layer has to be in 0, ..., 0, got 1"),
        (
            lambda: unit_log_densities(
                IsotropicGaussian([jnp.zeros((3, 2)), jnp.zeros((1, 3))], 1.0),
                [jnp.zeros((4, 2)), jnp.zeros((1, 4))],
            ),
            r"\(3, 3\) as the base has, got \(4, 3\)",
        ),
    ],
)
def test_bad_networks_raise_value_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
