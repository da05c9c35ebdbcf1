"""Tests of symlib.groups on small networks whose symmetries are known."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from numpy.testing import assert_allclose

from symlib.groups import (
    Orthogonal,
    Permutation,
    Product,
    Reflection,
    Scaling,
    SignFlip,
    Translation,
    invariance_error,
    is_symmetric,
)

X = np.linspace(-2, 2, 7)
WIDTH = 4
SIZE = 3 * WIDTH  # input weights, biases, output weights


def network(theta, activation=jnp.tanh):
    """Return the outputs of a network of one hidden layer at the inputs X."""
    weights, biases, outputs = theta.reshape(3, WIDTH)
    return activation(jnp.outer(X.astype(theta.dtype), weights) + biases) @ outputs


def neuron(index):
    """Return the positions in theta of one hidden neuron."""
    return [index, WIDTH + index, 2 * WIDTH + index]


def random_parameters(dtype, seed=0):
    return jax.random.normal(jax.random.key(seed), (SIZE,), dtype)


def reflections():
    """Return named reflections of the tanh network."""
    return {
        "swap of neurons 0 and 2": Reflection.swap(SIZE, neuron(0), neuron(2)),
        "sign of neuron 1": Reflection.sign_flip(SIZE, neuron(1)),
    }


NAMES = ["swap of neurons 0 and 2", "sign of neuron 1"]


@pytest.mark.parametrize("name", NAMES)
def test_reflection_laws(dtype, tolerance, name):
    reflection, theta = reflections()[name], random_parameters(dtype)
    bound = tolerance(dtype)
    mirrored, foot = reflection.reflect(theta), reflection.symmetric_point(theta)
    assert mirrored.dtype == dtype
    assert_allclose(reflection.reflect(mirrored), theta, atol=bound)
    assert_allclose(jnp.linalg.norm(mirrored), jnp.linalg.norm(theta), rtol=bound)
    assert_allclose((theta + mirrored) / 2, foot, atol=bound)
    assert_allclose(jnp.linalg.norm(theta - foot), reflection.distance(theta), rtol=bound)
    assert reflection.distance(theta) > 0.1
    assert is_symmetric(reflection, foot, tolerance=10 * bound)
    assert not is_symmetric(reflection, theta, tolerance=10 * bound)


def test_swap_exchanges_the_blocks_and_sign_flip_the_signs(dtype):
    theta = random_parameters(dtype)
    order = np.arange(SIZE)
    order[neuron(0)], order[neuron(2)] = neuron(2), neuron(0)
    signs = np.ones(SIZE)
    signs[neuron(1)] = -1
    swap, flip = (reflections()[name] for name in NAMES)
    bound = 4 * jnp.finfo(dtype).eps
    assert_allclose(swap.reflect(theta), theta[order], atol=bound, rtol=bound)
    assert_allclose(flip.reflect(theta), theta * signs, atol=bound, rtol=bound)
    assert swap.rank == flip.rank == 3


def test_center_moves_the_mirror(x64, tolerance):
    # f is even about 3 along the first coordinate: Definition 1 with theta' = (3, 0).
    reflection = Reflection(jnp.diag(jnp.array([1.0, 0.0])), jnp.array([3.0, 0.0]))

    def f(theta):
        return jnp.cosh(theta[0] - 3) * jnp.sin(theta[1])

    assert_allclose(reflection.reflect(jnp.array([5.0, 2.0])), [1.0, 2.0])
    assert_allclose(reflection.distance(jnp.array([5.0, 2.0])), 2.0)
    assert is_symmetric(reflection, jnp.array([3.0, 7.0]), tolerance=0.0)
    theta = jnp.array([0.4, 1.3])
    assert invariance_error(f, reflection, theta) < tolerance(theta.dtype)
    unmoved = Reflection(reflection.projection)
    assert invariance_error(f, unmoved, theta) > 0.1
    # The definition as it stands in the paper.
    identity = jnp.eye(2)
    moved = f((identity - 2 * reflection.projection) @ theta + reflection.center)
    assert_allclose(f(theta + reflection.center), moved)


@pytest.mark.parametrize("name", NAMES)
def test_tanh_network_has_its_reflections(dtype, name):
    theta = random_parameters(dtype)
    error = invariance_error(network, reflections()[name], theta)
    assert error < 50 * jnp.finfo(dtype).eps


def test_relu_network_lacks_the_sign_flip(dtype):
    def relu_network(theta):
        return network(theta, jax.nn.relu)

    theta = random_parameters(dtype)
    swap, flip = (reflections()[name] for name in NAMES)
    assert invariance_error(relu_network, swap, theta) < 50 * jnp.finfo(dtype).eps
    assert invariance_error(relu_network, flip, theta) > 0.1


def test_swap_of_input_weights_alone_is_no_symmetry(dtype):
    half = Reflection.swap(SIZE, [0], [2])
    assert invariance_error(network, half, random_parameters(dtype)) > 0.1


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", NAMES)
def test_gradient_does_not_leave_the_mirror(dtype, name, seed):
    # Proposition 3, for a loss on random data: P grad = 0 at a symmetric point.
    reflection = reflections()[name]
    data = jax.random.normal(jax.random.key(100 + seed), X.shape, dtype)

    def loss(theta):
        return jnp.mean((network(theta) - data) ** 2)

    theta = random_parameters(dtype, seed)
    foot = reflection.symmetric_point(theta)
    eps = jnp.finfo(dtype).eps
    slope = jax.jit(jax.grad(loss))
    gradient = slope(foot)
    assert jnp.linalg.norm(reflection.projection @ gradient) < 50 * eps * (
        1 + jnp.linalg.norm(gradient)
    )
    assert jnp.linalg.norm(reflection.projection @ slope(theta)) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_descent_from_a_symmetric_start_never_leaves_it(x64, name):
    # Proposition 3 for all times, under stochastic gradients: one data point a step.
    reflection = reflections()[name]
    data = jnp.sin(3 * X)
    foot = reflection.symmetric_point(random_parameters(jnp.float64))

    def run(start):
        def step(theta, index):
            gradient = jax.grad(lambda theta: (network(theta)[index] - data[index]) ** 2)(theta)
            return theta - 0.05 * gradient, None

        return jax.lax.scan(step, start, jnp.arange(300) % X.size)[0]

    end, end_off = jax.jit(run)(foot), jax.jit(run)(foot + 0.1 * random_parameters(jnp.float64, 1))
    assert jnp.linalg.norm(end - foot) > 0.1
    assert is_symmetric(reflection, end, tolerance=1e-9)
    assert not is_symmetric(reflection, end_off, tolerance=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_odd_terms_across_the_mirror_vanish(x64, name):
    # Eq. 1: along a direction across the mirror the first and third derivatives are 0, the second
    # is not; along the mirror the first is not.
    reflection = reflections()[name]
    foot = reflection.symmetric_point(random_parameters(jnp.float64))
    step = random_parameters(jnp.float64, seed=1)
    across = reflection.projection @ step
    along = step - across

    @jax.jit
    def derivatives(direction):
        def value(t):
            return network(foot + t * direction)

        first, second = jax.jacfwd(value), jax.jacfwd(jax.jacfwd(value))
        return first(0.0), second(0.0), jax.jacfwd(second)(0.0)

    first, second, third = derivatives(across)
    assert np.max(np.abs(first)) < 1e-12
    assert np.max(np.abs(third)) < 1e-10
    assert np.max(np.abs(second)) > 0.1
    assert np.max(np.abs(derivatives(along)[0])) > 0.1


def layers(theta):
    """Return the network's parameters with one neuron on each row."""
    return theta.reshape(3, WIDTH).T


def test_groups_of_the_tanh_network(dtype):
    rows = layers(random_parameters(dtype))

    @jax.jit
    def errors(rows):
        groups = [Permutation(WIDTH), Product(*[SignFlip(3)] * WIDTH), Orthogonal(3)]
        key = jax.random.key(1)
        return [invariance_error(lambda z: network(z.T.ravel()), g, rows, key) for g in groups]

    permutation, signs, rotation = errors(rows)
    bound = 50 * jnp.finfo(dtype).eps
    assert permutation < bound
    assert signs < bound
    assert rotation > 0.1


def test_scaling_is_found_for_relu_and_not_claimed_for_tanh(dtype):
    theta = random_parameters(dtype)

    @jax.jit
    def errors(theta):
        point = (theta[: 2 * WIDTH], theta[2 * WIDTH :])
        scales = jnp.array([0.5, 2.0, 3.0], dtype)
        return [
            invariance_error(
                lambda pair, activation=activation: network(jnp.concatenate(pair), activation),
                Scaling(),
                point,
                jax.random.key(0),
                elements=scales,
            )
            for activation in [jax.nn.relu, jnp.tanh]
        ]

    relu, tanh = errors(theta)
    assert relu < 50 * jnp.finfo(dtype).eps
    assert tanh > 0.1


def test_invariance_error_is_the_largest_over_elements_and_outputs(x64):
    # f(z + t) - f(z) = (t, -2 t) entry by entry.
    def f(z):
        return {"plain": z, "double": -2 * z}

    shifts = jnp.array([[0.5, 0.0], [0.0, -3.0], [1.0, 1.0]])
    error = invariance_error(f, Translation(2), jnp.ones(2), jax.random.key(0), elements=shifts)
    assert error == 6


def test_nan_is_not_hidden(dtype):
    theta = random_parameters(dtype).at[3].set(jnp.nan)
    swap = reflections()[NAMES[0]]
    assert jnp.isnan(invariance_error(network, swap, theta))
    group, key = Permutation(WIDTH), jax.random.key(0)
    assert jnp.isnan(invariance_error(lambda rows: rows, group, layers(theta), key))
    with pytest.raises(ValueError, match="theta holds NaN"):
        jax.block_until_ready(is_symmetric(swap, theta, tolerance=1.0))


def test_distance_at_the_mirror_and_far_from_it(dtype):
    mirror = Reflection(jnp.eye(2, dtype=dtype))
    value, slope = jax.jit(jax.value_and_grad(mirror.distance))(jnp.zeros(2, dtype))
    assert value == 0 and not slope.any()
    theta = jnp.array([3.0, 4.0], dtype)
    value, slope = jax.jit(jax.value_and_grad(mirror.distance))(theta)
    assert_allclose([value, *slope], [5, 0.6, 0.8], rtol=1e-6)
    assert_allclose(mirror.distance(1e25 * theta), 5e25, rtol=1e-6)  # squares overflow in float32
    assert jnp.isnan(mirror.distance(theta.at[0].set(jnp.nan)))
    assert_allclose(mirror.distance(jnp.array([300.0, 400.0], jnp.float16)), 500)  # and in float16


def test_invariance_error_of_counts_and_truths():
    flip, z = SignFlip(1), jnp.ones(1)
    for f in (lambda z: (z < 0).astype(jnp.uint8), lambda z: z < 0):
        assert invariance_error(f, flip, z, jax.random.key(0)) == 1


def test_non_compact_group_asks_for_elements():
    point, key = (jnp.ones(2), jnp.ones(2)), jax.random.key(0)
    with pytest.raises(ValueError, match="Pass them as `elements`"):
        invariance_error(lambda pair: pair[0], Scaling(), point, key)
    with pytest.raises(ValueError, match="num_elements has to be an integer of at least 1"):
        invariance_error(lambda z: z, SignFlip(2), jnp.ones(2), key, num_elements=0)


@pytest.mark.parametrize(
    "projection",
    [
        [[2.0, 0.0], [0.0, 0.0]],  # not idempotent
        [[1.0, 1.0], [0.0, 0.0]],  # idempotent, not symmetric
        [[np.nan, 0.0], [0.0, 1.0]],
    ],
)
def test_matrices_that_are_no_projection_are_refused(dtype, projection):
    with pytest.raises(ValueError, match="symmetric and idempotent"):
        jax.block_until_ready(Reflection(np.array(projection)).projection)


def test_center_off_the_range_is_refused(dtype):
    with pytest.raises(ValueError, match="P center = center"):
        jax.block_until_ready(Reflection(np.diag([1.0, 0.0]), np.array([1.0, 1.0])).center)


def test_wrong_shapes_and_positions_are_refused(monkeypatch):
    # Without the run-time checks of annotations that the tests switch on.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="square matrix"):
        Reflection(np.ones((2, 3)))
    with pytest.raises(ValueError, match="center has to have shape"):
        Reflection(np.eye(2), np.ones(3))
    with pytest.raises(ValueError, match="blocks have to match"):
        Reflection.swap(4, [0, 1], [2])
    with pytest.raises(ValueError, match="distinct"):
        Reflection.swap(4, [0, 1], [1, 2])
    with pytest.raises(ValueError, match="from 0 to 3"):
        Reflection.sign_flip(4, [4])
    with pytest.raises(ValueError, match="distinct and not empty"):
        Reflection.sign_flip(4, [])
    with pytest.raises(ValueError, match="theta has to have shape"):
        Reflection.sign_flip(4, [0]).distance(jnp.ones(3))
    with pytest.raises(ValueError, match="tolerance has to be at least 0"):
        is_symmetric(Reflection.sign_flip(4, [0]), jnp.ones(4), tolerance=-1.0)


def test_reflection_refuses_integer_points(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    mirror = Reflection([[1, 0], [0, 0]])
    assert jnp.array_equal(mirror.reflect(jnp.array([1.5, 2.0])), jnp.array([-1.5, 2.0]))
    # An integer point would be rounded, and found symmetric where it is not.
    for method in mirror.reflect, mirror.distance, mirror.symmetric_point:
        with pytest.raises(ValueError, match="floating-point arrays, got int32"):
            method(jnp.array([1, 2], dtype=jnp.int32))


def test_lazy_training_from_a_symmetric_start_never_sees_the_masked_features(x64):
    # Proposition 2: in the limit of small steps the model is linear in J (I - P), and gradient
    # descent goes to the least-squares solution of smallest norm.
    swap = Reflection.swap(SIZE, neuron(0), neuron(2))
    start = swap.symmetric_point(random_parameters(jnp.float64))
    J = jax.jacobian(network)(start)
    assert_allclose(J @ swap.projection, 0, atol=1e-12)
    target, rate, steps, scale = jnp.sin(X), 0.01, 300, 1e-6

    def loss(theta):
        model = (network(scale * theta + start) - network(start)) / scale
        return jnp.sum((model - target) ** 2)

    slope = jax.jit(jax.grad(loss))
    theta = jnp.zeros(SIZE)
    for _ in range(steps):
        theta = theta - rate * slope(theta)
    U, s, Vt = np.linalg.svd(J, full_matrices=False)
    learned = 1 - (1 - 2 * rate * s**2) ** steps  # the share of each direction after these steps
    kept = s > 1e-9 * s[0]
    assert rate < 1 / (2 * s[0] ** 2)  # the condition of the proposition
    expected = (learned / np.where(kept, s, 1) * kept * (U.T @ np.asarray(target))) @ Vt
    assert_allclose(theta, expected, atol=1e-4)
    limit = np.linalg.pinv(J.T @ J, rcond=1e-12) @ J.T @ target
    assert_allclose(
        ((kept / np.where(kept, s, 1)) * (U.T @ np.asarray(target))) @ Vt, limit, atol=1e-6
    )
    assert_allclose(swap.projection @ theta, 0, atol=1e-9)


def test_large_integers_are_compared_as_integers():
    def f(z):
        return jnp.where(z[0] > 0, 16777216, 16777217)

    error = invariance_error(
        f, SignFlip(1), jnp.ones(1), jax.random.key(0), elements=jnp.array([-1.0])
    )
    assert error == 1
