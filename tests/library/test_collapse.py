"""Tests of symlib.syre and symlib.syre."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose

from symlib.groups import HiddenPermutation, Orthogonal, Permutation, Product, SignFlip
from symlib.syre import (
    covariance_spectrum,
    dead_units,
    degree_of_symmetry,
    drop_weights,
    effective_rank,
    fix_weights,
    symmetry_breaking_strength,
    thresholded_rank,
)


def test_the_degree_of_symmetry_counts_near_mirrors(dtype):
    rotation = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (6, 6), dtype))[0]
    offsets = jnp.array([0.0, 0.05, -0.05, 0.2, -0.2, -3.0], dtype)
    w = offsets @ rotation
    assert degree_of_symmetry(rotation, w, 0.1) == 3
    assert degree_of_symmetry(rotation, w, 0.3) == 5
    assert degree_of_symmetry(-rotation, w, 0.1) == 3  # the sign of a direction means nothing
    # On the mirror of each row, with partial sums beyond the range of float32.
    signs = jnp.array([[1, 1, -1, -1], [1, -1, 1, -1]], jnp.float32) / 2
    assert degree_of_symmetry(signs, jnp.full(4, 3e38, jnp.float32), 1.0) == 2
    assert degree_of_symmetry(abs(signs), jnp.full(4, 3e38, jnp.float32), 3e38) == 0


@pytest.mark.parametrize("shape", [(40, 5), (5, 40)])
def test_the_spectrum_is_that_of_the_covariance(dtype, tolerance, shape):
    features = jax.random.normal(jax.random.key(1), shape, dtype) + 7
    reference = np.linalg.eigvalsh(np.cov(np.float64(features).T, bias=True))[::-1]
    found = covariance_spectrum(features)
    assert found.shape == (shape[1],)
    assert_allclose(found, reference, atol=50 * tolerance(dtype))
    assert (jnp.diff(found) <= 0).all()


def test_small_eigenvalues_survive_in_float32():
    # Eigenvalues 1 and 1e-8: the covariance itself would lose the latter in float32.
    frame = np.random.default_rng(0).normal(size=(50, 3))
    frame = np.linalg.qr(np.column_stack([np.ones(50), frame]))[0][:, 1:3] * 50**0.5
    features = jnp.asarray(frame * [1, 1e-4], jnp.float32)
    assert_allclose(covariance_spectrum(features), [1, 1e-8], rtol=1e-4)
    assert thresholded_rank(features, 1e-9) == 2
    assert thresholded_rank(features) == 1


def test_the_rank_scales_with_its_threshold(dtype):
    features = jax.random.normal(jax.random.key(2), (100, 4), dtype) * jnp.array([1, 0.1, 1e-3, 0])
    assert thresholded_rank(features) == thresholded_rank(3 * features, 9e-4)
    assert thresholded_rank(features) == 2
    assert thresholded_rank(features + 5) == 2  # a constant has no covariance


def test_the_effective_rank_of_known_matrices(dtype, tolerance):
    bound = tolerance(dtype)
    assert_allclose(effective_rank(jnp.eye(5, dtype=dtype)), 5, rtol=bound)
    assert_allclose(effective_rank(jnp.ones((4, 3), dtype)), 1, atol=50 * bound)
    assert effective_rank(jnp.zeros((4, 3), dtype)) == 0
    matrix = jnp.diag(jnp.array([2.0, 1.0, 1.0], dtype))
    expected = np.exp(0.5 * np.log(2) + 0.5 * np.log(4))
    assert_allclose(effective_rank(matrix), expected, rtol=bound)
    assert_allclose(effective_rank(-100 * matrix), expected, rtol=bound)


def test_dead_units_are_silent_on_the_whole_batch(dtype):
    activations = jnp.array([[0.0, 1.0, -2.0, 1e-3], [0.0, 0.0, 2.0, -1e-3]], dtype)
    assert dead_units(activations) == 1
    assert dead_units(activations, 0.01) == 2


def test_the_breaking_strength_is_a_distance_to_what_the_group_fixes(dtype, tolerance):
    gradient = jnp.array([1.0, 2.0, 6.0], dtype)
    bound = tolerance(dtype)
    strength = symmetry_breaking_strength(Permutation(3), gradient)
    assert_allclose(strength, np.linalg.norm([2, 1, 3]), rtol=bound)  # from the mean, 3
    swap = jnp.array([[0, 1, 2], [1, 0, 2]])
    smaller = symmetry_breaking_strength(Permutation(3), gradient, swap)
    assert_allclose(smaller, 0.5**0.5, rtol=bound)
    assert_allclose(
        symmetry_breaking_strength(SignFlip(3), gradient), np.linalg.norm(gradient), rtol=bound
    )
    assert_allclose(symmetry_breaking_strength(Permutation(3), jnp.ones(3, dtype)), 0, atol=bound)


def test_the_breaking_strength_grows_with_the_subgroup():
    group = Product(*[SignFlip(1)] * 3)
    gradient = jax.random.normal(jax.random.key(4), (3,))
    for flipped in itertools.product([False, True], repeat=3):
        signs = tuple(jnp.array([1.0, -1.0 if flip else 1.0]) for flip in flipped)
        found = symmetry_breaking_strength(group, gradient, signs)
        assert_allclose(found, np.linalg.norm(gradient[np.array(flipped)]), rtol=1e-6)


def test_a_symmetric_network_has_no_broken_gradient(x64):
    group = HiddenPermutation(3)
    unit = [jnp.ones((3, 2)) * 0.3, jnp.ones(3)], [jnp.ones((1, 3)), jnp.zeros(1)]

    def loss(params):
        (W, b), (V, c) = params
        return jnp.sum((V @ jnp.tanh(W @ jnp.array([1.0, 2.0]) + b) + c - 1) ** 2)

    assert symmetry_breaking_strength(group, jax.grad(loss)(unit)) < 1e-12
    one = jax.tree.map(lambda leaf: leaf.at[..., 0].add(0.5), unit)
    assert symmetry_breaking_strength(group, jax.grad(loss)(one)) > 0.1


@pytest.mark.parametrize("fraction", [0.3, 0.75])
def test_fixed_weights_stay_and_the_others_move(dtype, fraction):
    params = {"w": jnp.ones((10, 20), dtype), "b": jnp.ones(4, dtype)}
    start, hold = fix_weights(params, jax.random.key(5), fraction, 0.1)
    fixed = jax.tree.map(lambda leaf: leaf != 1, start)
    assert int(fixed["w"].sum()) == round(200 * fraction)
    assert int(fixed["b"].sum()) == round(4 * fraction)
    optimizer = optax.chain(optax.adam(0.1), hold)
    state, moved = optimizer.init(start), start
    for _ in range(2):
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, moved), state, moved)
        moved = optax.apply_updates(moved, updates)
    assert moved["w"].dtype == dtype
    for name in params:
        assert (moved[name][fixed[name]] == start[name][fixed[name]]).all()
        assert (moved[name][~fixed[name]] < 1).all()
    if fraction == 0.75:
        values = start["w"][fixed["w"]]
        assert abs(values.std() - 0.1) < 5 * 0.1 / (2 * values.size) ** 0.5


def test_dropped_weights_are_unbiased(dtype):
    params, rate = {"w": jnp.array([1.0, -2.0], dtype)}, 0.3
    keys = jax.random.split(jax.random.key(6), 20_000)
    drawn = jax.vmap(lambda key: drop_weights(params, key, rate)["w"])(keys)
    assert drawn.dtype == dtype
    error = np.array([1, 2]) * (rate / (1 - rate) / len(keys)) ** 0.5
    assert (abs(drawn.mean(0) - params["w"]) < 5 * error).all()
    assert set(np.unique(np.round(np.float64(drawn), 4))) == {-2.8571, 0.0, 1.4286}
    assert (drop_weights(params, keys[0], 0)["w"] == params["w"]).all()


def test_wrong_input_is_named():
    key, vector = jax.random.key(0), jnp.ones(3)
    wrong = [
        (lambda: degree_of_symmetry(jnp.eye(2), vector, 0.1), r"w \(d,\), got \(2, 2\) and \(3,\)"),
        (lambda: degree_of_symmetry(jnp.eye(3), vector, -0.1), "threshold has to be at least 0"),
        (lambda: covariance_spectrum(vector), r"expected a matrix .* got shape \(3,\)"),
        (lambda: effective_rank(jnp.ones((0, 3))), "a matrix that is not empty"),
        (lambda: thresholded_rank(jnp.eye(3), float("nan")), "threshold has to be at least 0"),
        (lambda: dead_units(jnp.eye(3), -1.0), "threshold has to be at least 0"),
        (lambda: symmetry_breaking_strength(Orthogonal(3), vector), "infinite"),
        (lambda: symmetry_breaking_strength(Permutation(3), jnp.arange(3)), "floating-point"),
        (lambda: fix_weights(vector, key, 1.0), "fraction has to be at least 0 and below 1"),
        (lambda: fix_weights(vector, key, 0.1, -1.0), "sigma has to be at least 0"),
        (lambda: fix_weights({}, key, 0.1), "params has no floating-point array"),
        (lambda: drop_weights(vector, key, 1.0), "rate has to be at least 0 and below 1"),
        (lambda: drop_weights(jnp.arange(3), key, 0.1), "params has no floating-point array"),
    ]
    for call, message in wrong:
        with pytest.raises(ValueError, match=message):
            call()
