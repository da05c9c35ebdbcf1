"""Edges of autoencoders, collapse, syre and factorization: zeros, ties, saturation, NaN, ranges.

Each test holds a number that was wrong without a word, or a NaN that nothing named.
"""

import inspect
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from numpy.testing import assert_allclose

from symlib import data
from symlib.autoencoders import (
    BERNOULLI,
    GAUSSIAN,
    Observation,
    beta_vae,
    block_scale,
    curvature,
    curve_length,
    deterministic,
    geodesic,
    grae,
    grae_bound,
    grae_bound_sampled,
    kl_to_prior,
    metric,
    optimal_covariance,
    optimal_precision,
    orthogonality_penalty,
    taylor,
)
from symlib.factorization import (
    Ratings,
    expected_log_joint,
    fit_matrix_entries,
    matrix_log_joint,
    mean_field_posterior,
    mean_field_threshold,
    scalar_exact,
    scalar_log_joint,
    scalar_map_estimate,
    scalar_mean_field,
    scalar_symmetrized,
)
from symlib.groups import SignFlip
from symlib.posteriors import DiagonalGaussian
from symlib.syre import (
    anchored_decay,
    covariance_spectrum,
    dead_units,
    decay_to_initial,
    default_sigma0,
    degree_of_symmetry,
    deployed,
    draw_anchor,
    drop_weights,
    effective_rank,
    fix_weights,
    hashed_uniform,
    remove_symmetry,
    symmetry_breaking_strength,
    thresholded_rank,
)

KEY = jax.random.key(3)
LOGITS = np.array([0.5, -20.0, 88.0, -120.0, 1e4])
X = np.array([1.0, 0.0, 1.0, 1.0, 0.25])
W = np.random.default_rng(0).normal(size=(5, 2))
Z = np.array([0.3, -0.6])
HALVES = [jnp.float16, jnp.bfloat16]


def huber(output, x):
    inside = jnp.abs(x - output) < 1
    return jnp.sum(jnp.where(inside, (x - output) ** 2 / 2, jnp.abs(x - output) - 0.5))


HUBER = Observation(huber, lambda output, x: (jnp.abs(x - output) < 1).astype(output.dtype))


def objectives(dtype, observation, x=X, logits=LOGITS, scale=0.5):
    """Return every objective at an observation, as functions of the mean."""
    logits, weights, x = (jnp.asarray(part, dtype) for part in (logits, W, x))
    scale = jnp.full(2, scale, dtype)

    def decoder(z):
        return logits + weights @ jnp.tanh(z)

    return {
        "beta_vae": lambda z: beta_vae(KEY, decoder, x, z, scale, 0.7, observation),
        "taylor": lambda z: taylor(decoder, x, z, scale, 0.7, observation),
        "taylor full": lambda z: taylor(decoder, x, z, scale, 0.7, observation, "full"),
        "full": lambda z: deterministic(decoder, x, z, 50.0, observation, "full"),
        "grae": lambda z: grae(decoder, x, z, 0.7, observation),
        "bound": lambda z: grae_bound(decoder, x, z, 0.7, observation),
        "sampled": lambda z: grae_bound_sampled(KEY, decoder, x, z, 0.7, observation),
    }


def Z_(dtype=None):
    return jnp.asarray(Z, dtype)


def differences(function, z, step=1e-5):
    """Return the derivative of an array-valued function by central differences, last axis z."""
    columns = [(function(z + e) - function(z - e)) / (2 * step) for e in step * np.eye(len(z))]
    return np.stack(columns, -1)


@pytest.mark.parametrize(
    ("observation", "names"),
    [
        pytest.param(BERNOULLI, ["grae", "bound", "sampled", "taylor", "full"], id="Bernoulli"),
        pytest.param(HUBER, ["grae", "bound"], id="zero curvature"),
    ],
)
def test_saturated_observations_have_first_and_second_derivatives(x64, observation, names):
    logits = LOGITS if observation is BERNOULLI else LOGITS / 100

    def values(dtype, names=names):
        all_of_them = objectives(dtype, observation, logits=logits)
        return lambda z: jnp.stack([all_of_them[name](z) for name in names])

    value, slope = jax.jit(values(jnp.float64)), jax.jit(jax.jacrev(values(jnp.float64)))
    # Of the first two: compilation of a fourth derivative takes ten times as long.
    hessian = jax.jit(jax.jacfwd(jax.jacrev(values(jnp.float64, names[:2]))))(Z_())
    # Values are some thousand nats: their rounding leaves 1e-12 * 1e4 / 1e-5 in a difference.
    assert_allclose(slope(Z_()), differences(value, Z_()), rtol=1e-6, atol=2e-3)
    assert_allclose(hessian, differences(slope, Z_())[:2], rtol=1e-6, atol=1e-4)
    single = jax.jit(jax.jacrev(values(jnp.float32)))(Z_(jnp.float32))
    assert_allclose(single, slope(Z_()), rtol=1e-4, atol=1e-2)


def test_taylor_and_deterministic_mean_the_same_curvature_by_default(x64):
    x, z = jnp.asarray(X), Z_()

    def decoder(z):
        return jnp.asarray(W) @ jnp.tanh(z) ** 2

    C = curvature(decoder, x, z)
    scale = jnp.linalg.cholesky(optimal_covariance(C, 0.7))
    closed = deterministic(decoder, x, z, 0.7)
    assert_allclose(taylor(decoder, x, z, scale, 0.7), closed, rtol=1e-12)
    log_determinant = np.linalg.slogdet(np.eye(2) + C / 0.7)[1]
    assert_allclose(closed - GAUSSIAN.loss(decoder(z), x), 0.35 * (z @ z + log_determinant))


def test_the_bound_is_above_grae(dtype, tolerance):
    def both(W, logits, x):
        def decoder(z):
            return logits + W @ jnp.tanh(z)

        point = decoder, x, jnp.zeros(2, dtype), 0.3, BERNOULLI
        return grae(*point), grae_bound(*point)

    keys = jax.random.split(KEY, 3)
    weights = jax.random.normal(keys[0], (20, 5, 2), dtype)
    weights *= jnp.logspace(-3, 3, 20, dtype=dtype)[:, None, None]
    logits = 50 * jax.random.normal(keys[1], (20, 5), dtype)
    x = jax.random.bernoulli(keys[2], 0.5, (20, 5)).astype(dtype)
    value, bound = jax.jit(jax.vmap(both))(weights, logits, x)
    assert (bound >= value - tolerance(dtype) * (1 + jnp.abs(value))).all()


@pytest.mark.parametrize(
    ("observation", "wrong"),
    [(BERNOULLI, 255.0), (BERNOULLI, -0.1), (BERNOULLI, np.nan), (GAUSSIAN, np.nan)],
)
def test_data_that_the_law_does_not_have_are_refused(observation, wrong):
    x = X.copy()
    x[3] = wrong
    wanted = "has to be in" if observation is BERNOULLI else "has to be fin"
    calls = objectives(jnp.float32, observation, x)
    calls["loss"] = lambda z: observation.loss(jnp.asarray(LOGITS), jnp.asarray(x))
    calls["curvature"] = lambda z: curvature(
        lambda z: jnp.asarray(W, jnp.float32) @ z, jnp.asarray(x), z, observation
    )
    for label, call in calls.items():
        name = "target" if label == "loss" else "x"
        with pytest.raises(ValueError, match=f": {name} {wanted}"):
            call(Z_(jnp.float32))

    def batch(x):  # the gradient with respect to the mean, as in training
        def loss(z, x):
            return grae_bound(lambda z: jnp.asarray(W, jnp.float32) @ z, x, z, 0.3, observation)

        return jax.vmap(jax.grad(loss), (None, 0))(Z_(jnp.float32), x)

    with pytest.raises(RuntimeError, match=name):
        jax.block_until_ready(eqx.filter_jit(batch)(jnp.asarray([X, x], jnp.float32)))


def test_data_that_the_law_has_are_taken():
    logits = jnp.asarray(LOGITS)
    for x in (np.array([0, 1, 1, 0, 1], np.uint8), jnp.array([0.0, 1, 1, 0, 1], jnp.bfloat16)):
        assert BERNOULLI.loss(logits, x) == BERNOULLI.loss(logits, x.astype(np.float32))


def test_lists_are_taken_for_vectors():
    bare = inspect.unwrap(beta_vae)  # without the tests' own check of annotations
    key, ones = jax.random.key(0), jnp.ones(2)
    found = bare(key, lambda z: z, [1.0, 1.0], [0.0, 0.0], [1.0, 1.0], 1.0)
    assert found == beta_vae(key, lambda z: z, ones, 0 * ones, ones, 1.0)


def test_an_observation_and_an_output_have_one_shape():
    for observation in (GAUSSIAN, BERNOULLI):
        with pytest.raises(ValueError, match=r"one shape, got \(5,\) and \(5, 1\)"):
            observation.loss(jnp.ones(5), jnp.ones((5, 1)))


def test_an_observation_of_ones_own_is_checked():
    z, x, weights = Z_(jnp.float32), jnp.asarray(X, jnp.float32), jnp.asarray(W, jnp.float32)
    good = GAUSSIAN.loss

    def bound(loss, second):
        return grae_bound(lambda z: weights @ z, x, z, 0.3, Observation(loss, second))

    one = bound(good, lambda o, x: 1.0)  # one number for all entries
    assert_allclose(one, grae_bound(lambda z: weights @ z, x, z, 0.3), rtol=1e-6)
    with pytest.raises(ValueError, match=r"shape of the decoder's output, \(5,\), got \(5, 1\)"):
        bound(good, lambda o, x: jnp.ones((5, 1)))
    with pytest.raises(ValueError, match=r"loss has to return a scalar.* got shape \(5,\)"):
        bound(lambda o, x: (x - o) ** 2, GAUSSIAN.curvature)
    with pytest.raises(ValueError, match="grae_bound: x has to be finite"):
        own = Observation(lambda o, x: jnp.nansum((x - o) ** 2), lambda o, x: 2.0)
        grae_bound(lambda z: weights @ z, x.at[0].set(jnp.nan), z, 0.3, own)
    for value in (-0.01, np.nan, np.inf):
        with pytest.raises(ValueError, match="curvature is negative, infinite or NaN"):
            jax.block_until_ready(bound(good, lambda o, x, value=value: value + 0 * o))


@pytest.mark.parametrize("half", HALVES)
def test_autoencoders_refuse_half_precision(half):
    message = r"has to be float32 or float64, got b?float16"
    for call in objectives(half, GAUSSIAN).values():
        with pytest.raises(ValueError, match=message):
            call(Z_(half))
    z, eye = Z_(jnp.float32), jnp.eye(2, dtype=half)
    for call in (
        lambda: grae(lambda z: jnp.asarray(W, half) @ z.astype(half), jnp.asarray(X), z, 0.3),
        lambda: kl_to_prior(z, eye),
        lambda: optimal_covariance(eye, 0.3),
        lambda: metric(lambda z: z, Z_(half)),
        lambda: curve_length(lambda z: z, eye),
        lambda: curve_length(lambda z: z.astype(half), eye.astype(jnp.float32)),
        lambda: geodesic(lambda z: z, Z_(half), Z_(half)),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_lost_curvature_is_not_blamed_on_beta():
    for C, message in [
        (jnp.array([[1.0, jnp.nan], [jnp.nan, 1.0]]), "the curvature holds NaN or infinity"),
        (jnp.array([[jnp.inf, 0.0], [0.0, 1.0]]), "the curvature holds NaN or infinity"),
        (jnp.array([[1.0, 0.0], [0.9, 1.0]]), "has to be a symmetric matrix"),
        (jnp.array([[-2.0, 0.0], [0.0, 1.0]]), "is not positive definite"),
    ]:
        with pytest.raises(ValueError, match=message):
            jax.block_until_ready(optimal_precision(C, 1.0))


def test_blocks_of_any_numbers_are_cholesky_factors():
    parameters = jnp.array([[[0.0, 200.0], [150.0, 1.0]]])  # e^150 is infinite in float32
    assert_allclose(block_scale(parameters), [[1, 0], [150, math.e]], rtol=1e-6)
    assert jnp.isfinite(jax.grad(lambda p: block_scale(p).sum())(parameters)).all()


def test_probabilities_that_do_not_quite_sum_to_1_leave_no_bias(x64):
    p, z = jnp.array([0.3, 0.7]), Z_()

    def sampled(p):
        return grae_bound_sampled(
            KEY,
            lambda z: jnp.asarray(W) @ z,
            jnp.asarray(X),
            z,
            0.3,
            probabilities=p,
            num_columns=3,
        )

    assert_allclose(sampled(0.9995 * p), sampled(p), rtol=1e-12)
    for wrong in (0.99 * p, jnp.array([jnp.nan, 1.0]), jnp.array([1.0, 0.0])):
        with pytest.raises(ValueError, match="probabilities has to be positive, with sum 1"):
            sampled(wrong)
        with pytest.raises(RuntimeError, match="probabilities has to be positive, with sum 1"):
            jax.block_until_ready(eqx.filter_jit(sampled)(wrong))


def test_the_cosine_does_not_depend_on_the_size_of_columns():
    matrix = jnp.array([[1.0, 1.0], [0.0, 1.0]])

    @jax.jit
    @jax.value_and_grad
    def penalty(matrix):
        return orthogonality_penalty(KEY, lambda z: matrix @ z, jnp.zeros(2))

    expected = jax.grad(lambda m: (m[:, 0] @ m[:, 1]) ** 2 / (m**2).sum(0).prod())(matrix)
    for size in (1e-25, 1.0, 1e25):
        value, slope = penalty(size * matrix)
        assert_allclose(value, 0.5, rtol=1e-5)
        assert_allclose(size * slope, expected, atol=1e-5)
    value, slope = penalty(jnp.zeros((2, 2)))
    assert value == 0 and (slope == 0).all()


def test_the_length_of_a_curve_has_derivatives_also_at_rest(x64):
    points = np.random.default_rng(1).normal(size=(5, 2))

    def decoder(z):
        return jnp.stack([jnp.sin(z[0]), z[0] * z[1], z[1]])

    def length(flat):
        return curve_length(decoder, flat.reshape(-1, 2))

    flat = jnp.asarray(points.ravel())
    slope, value = jax.jit(jax.grad(length)), jax.jit(length)
    assert_allclose(slope(flat), differences(value, flat), atol=1e-8)
    assert_allclose(jax.jit(jax.hessian(length))(flat), differences(slope, flat), atol=1e-8)
    rest = jnp.asarray(np.concatenate([points[:1], points]).ravel())
    found = jax.jit(jax.grad(length))(rest).reshape(-1, 2)
    assert_allclose(found[1:], slope(flat).reshape(-1, 2), atol=1e-12)
    assert (found[0] == 0).all()
    assert jnp.isfinite(jax.jit(jax.hessian(length))(rest)).all()


def test_small_curves_and_points_have_their_length():
    curve = 1e-25 * jnp.array([[0.0, 0.0], [3.0, 4.0]])
    assert_allclose(curve_length(lambda z: z, curve), 5e-25, rtol=1e-6)
    point = jnp.array([0.3, 0.8])
    path = geodesic(lambda z: jnp.sin(z), point, point, num_points=3, steps=2)
    assert_allclose(path, jnp.stack([point] * 3), rtol=1e-6)


MEASURES = {
    "degree_of_symmetry": lambda matrix: degree_of_symmetry(jnp.eye(2), matrix[0], 0.1),
    "covariance_spectrum": covariance_spectrum,
    "thresholded_rank": thresholded_rank,
    "effective_rank": effective_rank,
    "dead_units": dead_units,
    "symmetry_breaking_strength": lambda matrix: symmetry_breaking_strength(SignFlip(6), matrix),
}


@pytest.mark.parametrize("name", MEASURES)
def test_nan_is_no_collapse(name):
    measure = MEASURES[name]
    matrix = jnp.array([[1.0, 2.0], [2.0, -1.0], [0.5, 0.0]])
    assert jnp.isfinite(measure(matrix)).all()
    for wrong in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match=rf"^{name}: .* has to be finite, got -?(nan|inf)\.$"):
            measure(matrix.at[0, 1].set(wrong))
    bad = jnp.stack([matrix, matrix.at[0, 1].set(jnp.nan)])
    with pytest.raises(RuntimeError, match=f"{name}: .* has to be finite"):
        jax.block_until_ready(eqx.filter_jit(jax.vmap(measure))(bad))


@pytest.mark.parametrize("kind", [jnp.int8, jnp.float16, jnp.bfloat16])
def test_collapse_is_measured_in_float32(kind):
    rows = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 0], [1, 0, 1]])
    for name, measure in MEASURES.items():
        if name in ("degree_of_symmetry", "symmetry_breaking_strength"):
            continue
        found, expected = measure(jnp.asarray(rows, kind)), measure(jnp.asarray(rows, jnp.float32))
        assert found.dtype == expected.dtype and (found == expected).all()
    assert dead_units(jnp.array([[-128, 0]], jnp.int8)) == 1  # |-128| is -128 in int8
    half = jnp.asarray([1.0, 1e-3], jnp.float16) * jnp.ones((2, 1), jnp.float16)
    half = half * jnp.array([[1], [-1]], jnp.float16)
    assert_allclose(covariance_spectrum(half)[0], 1, rtol=1e-3)
    strength = symmetry_breaking_strength(SignFlip(2), jnp.array([300.0, 400.0], jnp.float16))
    assert_allclose(strength, 500, rtol=1e-6)  # the square overflows in float16


def test_edges_of_collapse(x64, monkeypatch):
    # Without the run-time checks of annotations that the tests switch on.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="thresholded_rank: a covariance needs 2 points or more"):
        thresholded_rank(jnp.ones((1, 3)))
    for measure in (covariance_spectrum, effective_rank, dead_units):
        with pytest.raises(ValueError, match="real, got complex"):
            measure(jnp.ones((3, 2), complex))
        with pytest.raises(ValueError, match="not empty"):
            measure(jnp.ones((0, 2)))
    with pytest.raises(ValueError, match="directions has to be unit vectors"):
        degree_of_symmetry(2 * jnp.eye(2), jnp.ones(2), 0.1)
    with pytest.raises(ValueError, match="covariance_spectrum: the spectrum has to be finite"):
        covariance_spectrum(1e30 * jnp.asarray(W, jnp.float32))
    for size in (1e-30, 1e30):
        scaled = effective_rank(jnp.asarray(size * W, jnp.float32))
        assert_allclose(scaled, effective_rank(W), rtol=1e-5)
    flat = jnp.asarray(W.ravel())
    rank = jax.jit(lambda flat: effective_rank(flat.reshape(W.shape)))
    assert_allclose(jax.jit(jax.grad(rank))(flat), differences(rank, flat), atol=1e-8)
    slope = jax.jit(jax.grad(rank))
    assert_allclose(jax.jit(jax.hessian(rank))(flat), differences(slope, flat), atol=1e-6)
    # At a symmetric point the strength is 0, a kink: a slope of 0 and no NaN.
    slope = jax.grad(lambda g: symmetry_breaking_strength(SignFlip(2), g))
    assert (slope(jnp.zeros(2)) == 0).all()
    assert_allclose(slope(jnp.array([3.0, 4.0])), [0.6, 0.8], rtol=1e-12)


class Net(eqx.Module):
    """A module with everything that a network may hold beside its floating-point arrays."""

    weight: jax.Array
    temperature: float
    activation: object
    table: jax.Array
    depth: int
    on: bool
    nothing: None
    key: jax.Array
    bias: jax.Array

    def __call__(self, x):
        return self.activation(self.weight @ x + self.bias[self.table]) / self.temperature


def net(dtype=jnp.float32):
    weight, bias = jnp.ones((3, 2), dtype), jnp.zeros(3, dtype)
    return Net(weight, 0.5, jnp.tanh, jnp.arange(3), 2, True, None, jax.random.key(0), bias)


def untouched(model):
    return model.temperature, model.activation, model.depth, model.on, model.nothing


def changed(model, start):
    same = untouched(model) == untouched(start) and model.table is start.table
    assert same and model.key is start.key
    return (model.weight != start.weight).any()


def test_only_arrays_get_an_anchor_and_a_decay():
    start = net()
    x = jnp.ones(2)

    def loss(model):
        return jnp.sum(model(x) ** 2)

    biased, theta_0 = remove_symmetry(loss, start, KEY, gamma=0.1, metric_spread=0.1)
    assert jax.tree.structure(theta_0) == jax.tree.structure(
        eqx.filter(start, eqx.is_inexact_array)
    )
    assert changed(deployed(start, theta_0), start)
    plain = loss(deployed(start, theta_0))
    assert_allclose(biased(start) - plain, 0.1 * 6, rtol=0.1)  # |weight|^2 is 6, bias is 0
    assert default_sigma0(start).temperature == 0.01
    gradient = eqx.filter_grad(loss)(start)
    for chain in (
        anchored_decay(KEY, gamma=0.1),
        anchored_decay(KEY, gamma=0.1, store=False),
        decay_to_initial(0.1),
    ):
        moved = eqx.tree_at(lambda model: model.weight, start, start.weight + 1)
        updates, _ = chain.update(gradient, chain.init(start), moved)
        assert updates.temperature is None and updates.table is None
        assert (updates.weight != gradient.weight).all()
    frozen, hold = fix_weights(start, KEY, 0.5)
    assert changed(frozen, start)
    held, _ = hold.update(gradient, hold.init(start))
    assert ((held.weight == 0) == (frozen.weight != start.weight)).all()
    assert changed(drop_weights(start, KEY, 0.5), start)


@pytest.mark.parametrize("store", [True, False])
def test_a_number_that_jit_made_an_array_has_no_anchor(store):
    params = {"a": 0.5, "w": jnp.ones(4), "z": jnp.ones(4)}
    chain = anchored_decay(KEY, gamma=0.1, store=store, mask={"a": True, "w": False, "z": True})
    state, zero = chain.init(params), jax.tree.map(jnp.zeros_like, params)
    eager, _ = chain.update(zero, state, params)
    jitted, _ = jax.jit(chain.update)(zero, state, params)
    assert jitted["a"] == 0 and (jitted["w"] == 0).all()
    assert_allclose(jitted["z"], eager["z"], rtol=1e-6)
    assert (jitted["z"] != 0).all()


def test_parameters_without_arrays_are_refused():
    for params in ({"t": 0.5}, (1, None, jnp.tanh), jnp.arange(3), {}):
        for call in (
            lambda p: draw_anchor(p, KEY),
            lambda p: decay_to_initial(0.1).init(p),
            lambda p: anchored_decay(KEY, gamma=0.1).init(p),
            lambda p: fix_weights(p, KEY, 0.1),
            lambda p: drop_weights(p, KEY, 0.1),
        ):
            with pytest.raises(ValueError, match="has no (floating-point )?array"):
                call(params)
    with pytest.raises(ValueError, match=r"params\['c'\] .* got complex64"):
        drop_weights({"c": jnp.ones(2, complex)}, KEY, 0.1)


@pytest.mark.parametrize("half", HALVES)
def test_half_precision_is_decayed_in_float32(half):
    params = {"w": jnp.full(70_000, 1.5, half), "v": jnp.full((4, 0), 1.5, half)}
    biased, theta_0 = remove_symmetry(lambda p: 0.0, params, KEY, gamma=1.0, sigma0=0.1)
    assert_allclose(biased(params), 2.25 * 70_000, rtol=1e-6)  # beyond the range of float16
    assert theta_0["w"].dtype == half and theta_0["v"].shape == (4, 0)
    assert abs(theta_0["w"].astype(jnp.float32).std() - 0.1) < 5 * 0.1 / 140_000**0.5
    for store in (True, False):
        chain = anchored_decay(KEY, gamma=0.3, sigma0=0.1, metric_spread=0.2, store=store)
        updates, state = chain.update(params, chain.init(params), params)
        theta_0, xi = draw_anchor(params, KEY, 0.1, True, 0.2, hashed=not store)
        offset = np.float64(params["w"]) - np.float64(theta_0["w"])
        expected = 1.5 + 0.6 * (1 + np.float64(xi["w"])) * offset
        assert updates["w"].dtype == half
        # Once rounded: half a unit in the last place.
        assert_allclose(np.float64(updates["w"]), expected, rtol=0.51 * float(jnp.finfo(half).eps))
    dropped = drop_weights(params, KEY, 0.25)["w"]
    assert dropped.dtype == half and set(np.unique(np.float64(dropped))) == {0.0, 2.0}


def test_dropout_and_hashing_at_their_edges():
    assert jnp.isnan(drop_weights(jnp.full(100, jnp.nan), KEY, 0.9)).all()
    with pytest.raises(ValueError, match="below 2\\^32 entries"):
        hashed_uniform(KEY, (2**16, 2**16))
    for dtype in (jnp.int32, jnp.complex64):
        with pytest.raises(ValueError, match="has to be a floating-point type"):
            hashed_uniform(KEY, (3,), dtype)
    assert hashed_uniform(KEY, (0, 3)).shape == (0, 3)
    assert (abs(hashed_uniform(KEY, (1000,), jnp.bfloat16)) <= jnp.bfloat16(3**0.5)).all()


def test_scalar_answers_at_the_ends_of_their_range_in_float32(tolerance):
    bound = tolerance(jnp.float32)
    noise = 1e37  # its square overflows in float32
    found = scalar_mean_field(2.0, noise)
    assert_allclose(found.variance, 1, rtol=bound)
    assert_allclose(found.elbo, -0.5 * math.log(2 * math.pi * noise), rtol=bound)
    apart = (1e4, 1e-6), (-1e4, 1.0), (50.0, 1e-6)
    cases = *apart, (0.0, 1e6), (1e4, 1e6), (1e-6, 1.0), (100.0, 1e-3), (100.0, 1e3)
    r, noise = jnp.array(cases).T
    plain, symmetrized = jax.jit(
        jax.vmap(lambda *case: (scalar_mean_field(*case).elbo, scalar_symmetrized(*case).elbo))
    )(r, noise)
    gain, slack = symmetrized - plain, bound * (1 + abs(plain))
    assert (abs(gain - math.log(2)) < slack)[:3].all()  # two modes far apart
    assert (gain > -slack).all() and (gain < 0.7 + slack).all()
    exact = jax.jit(jax.vmap(scalar_exact))(r[5:], noise[5:]).log_evidence
    assert (symmetrized[5:] < exact + slack[5:]).all()
    slope = jax.grad(lambda r: scalar_mean_field(r).mean.sum())(0.5)
    assert slope == 0  # below the threshold the mean stays 0


@pytest.mark.parametrize(
    ("solution", "r", "noise", "message"),
    [
        (scalar_symmetrized, 1.01e4, 1.0, "at most 10000"),
        (scalar_symmetrized, 1.0, 9e-7, "from 1e-06 to 1e"),
        (scalar_symmetrized, 1.0, 1.1e6, "from 1e-06 to 1e"),
        (scalar_exact, -101.0, 1.0, "at most 100"),
        (scalar_exact, 1.0, 9e-4, "from 0.001 to 1000"),
        (scalar_map_estimate, np.nan, 1.0, "r has to be finite, got nan"),
        (scalar_mean_field, 1.0, 0.0, "noise_variance has to be positive and finite, got 0.0"),
    ],
)
def test_scalar_answers_beyond_their_range_are_refused(solution, r, noise, message):
    with pytest.raises(ValueError, match=message):
        solution(r, noise)
    with pytest.raises(RuntimeError, match=message.split(", got")[0]):
        jax.block_until_ready(eqx.filter_jit(solution)(jnp.asarray(r), jnp.asarray(noise)))


@pytest.mark.parametrize("half", HALVES)
def test_factorization_refuses_half_precision(half):
    one, ratings = jnp.asarray(1, half), jnp.ones((3, 2), half)
    index = jnp.zeros(2, int)
    full = jnp.ones((3, 2))
    for call in (
        lambda: scalar_map_estimate(one),
        lambda: scalar_exact(one),
        lambda: scalar_log_joint(Z_(jnp.float32), one),
        lambda: Ratings(ratings),
        lambda: matrix_log_joint((ratings, ratings[:2]), Ratings(full)),
        lambda: fit_matrix_entries(KEY, index, index, one + index, 1, 1, 1, batch_size=1, steps=1),
    ):
        with pytest.raises(ValueError, match="has to (be float32 or|hold floating)"):
            call()


def test_the_threshold_of_large_matrices_with_little_noise():
    for n, noise in ((1000, 1e-6), (100_000, 1e-3)):
        t = np.longdouble(n) + np.longdouble(np.float32(noise)) / 2
        expected = np.sqrt(np.float32(noise) * (t + np.sqrt(t**2 - np.longdouble(n) ** 2)))
        assert_allclose(mean_field_threshold(n, n, 1, noise), float(expected), rtol=5e-7)
    assert_allclose(mean_field_threshold(3, 2, 1, 1e25), 1e25, rtol=1e-5)


def test_derivatives_of_mean_field_below_its_threshold(x64):
    ratings = jnp.asarray(0.1 * W)

    def total(noise):
        return sum(leaf.sum() for leaf in mean_field_posterior(Ratings(ratings, noise), 2).mean)

    value, slope = jax.jit(jax.value_and_grad(total))(1.0)
    assert value == 0 and slope == 0


def test_ratings_that_are_not_finite_are_refused_traced_or_not(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    bad = jnp.ones((3, 2)).at[1, 1].set(jnp.nan)
    with pytest.raises(ValueError, match="an observed rating has to be finite, got nan"):
        Ratings(bad)
    with pytest.raises(RuntimeError, match="an observed rating has to be finite"):
        jax.block_until_ready(eqx.filter_jit(Ratings)(bad))
    with pytest.raises(ValueError, match="noise_variance has to be real"):
        Ratings(jnp.ones((3, 2)), jnp.asarray(1j))


def test_labels_of_a_copy_are_classes():
    sizes = (60000, 28, 28), (60000,), (10000, 28, 28), (10000,)
    arrays = [np.zeros(size, np.uint8) for size in sizes]
    arrays[3][7] = 10
    with pytest.raises(ValueError, match="y_test has to hold classes 0 to 9, got 10"):
        data._dataset(arrays, ["x_train", "y_train", "x_test", "y_test"])


def test_chains_start_where_the_density_is_finite():
    nuts = pytest.importorskip("symlib.inference").nuts
    pytest.importorskip("numpyro")
    for density, message in [
        (lambda z: jnp.log(z[0]), "log_density at the starts, and its gradient, has to be finite"),
        (lambda z: -jnp.sqrt(jnp.sum(z**2)), "has to be finite"),  # a kink at the start
        (lambda z: -(z**2), r"log_density has to return a scalar"),
    ]:
        with pytest.raises(ValueError, match=message):
            nuts(KEY, density, jnp.zeros((1, 2)))
    with pytest.raises(ValueError, match="starts has to be float32 or float64"):
        nuts(KEY, lambda z: -jnp.sum(z**2), jnp.zeros((1, 2), jnp.bfloat16))


def test_redundant_latents_are_right_or_refused():
    W = jax.random.normal(jax.random.key(0), (784, 2), jnp.float32)
    W = jnp.concatenate([W, W @ jnp.array([[0.6], [0.8]], jnp.float32)], axis=1)
    C = curvature(lambda z: W @ z, jnp.zeros(784), jnp.zeros(3, jnp.float32))
    exact = np.linalg.inv(np.eye(3) + np.asarray(C, float))
    np.testing.assert_allclose(optimal_covariance(C, 1.0), exact, rtol=3e-3, atol=1e-6)
    with pytest.raises(ValueError, match="redundant"):
        optimal_covariance(C, 1e-4)  # a third of the right values, without a word, once


@pytest.mark.parametrize("beta", [1e-3, 1.0, 1e5, 1e7])
def test_the_log_determinant_for_any_beta(beta):
    loss = grae(lambda z: z, jnp.zeros(1), jnp.zeros(1, jnp.float32), beta)
    np.testing.assert_allclose(loss, beta / 2 * np.log1p(1 / beta), rtol=1e-5)


def test_a_geodesic_does_not_depend_on_the_scale_of_the_decoder():
    def sphere(z):
        around, down = z
        ring = jnp.sin(down) * jnp.stack([jnp.cos(around), jnp.sin(around)])
        return jnp.append(ring, jnp.cos(down))

    ends = jnp.array([0.0, 1.0], jnp.float32), jnp.array([2.0, 1.0], jnp.float32)
    for scale in (1.0, 1e-25):
        curve = geodesic(lambda z, scale=scale: scale * sphere(z), *ends)
        assert curve_length(sphere, curve) < 1.575  # the straight line has 1.683, the arc 1.5735


def test_numbers_under_jit_and_line_searches_are_refused():
    params = {"eps": 1e-5, "w": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match="may be a Python number"):
        jax.jit(lambda p: drop_weights(p, jax.random.key(0), 0.5))(params)
    transformation = anchored_decay(jax.random.key(0), gamma=0.1)
    state = transformation.init(params["w"])
    with pytest.raises(ValueError, match="line search"):
        transformation.update(params["w"], state, params["w"], value_fn=jnp.sum)


def test_a_step_that_donates_leaves_the_anchor_and_the_key():
    key = jax.random.key(0)
    for decay in (decay_to_initial(0.1), anchored_decay(key, gamma=0.1, store=False)):
        params = {"w": jnp.ones(3) + 0}
        state = decay.init(params)

        def step(params, state, decay=decay):
            return decay.update(params, state, params)[0], state

        jax.jit(step, donate_argnums=(0, 1))(params, state)
    jax.random.normal(key)  # deleted, once


def test_small_pushes_and_large_constants_are_measured():
    push = jnp.array([3e-23, 4e-23], jnp.float32)
    np.testing.assert_allclose(symmetry_breaking_strength(SignFlip(2), push), 5e-23, rtol=1e-5)
    assert thresholded_rank(jnp.full((60000, 2), 54321.1, jnp.float32)) == 0


def test_a_right_and_sure_logit_has_a_loss():
    output = jnp.full(1, 16.0, jnp.float32)
    loss, slope = jax.value_and_grad(lambda o: BERNOULLI.loss(o, jnp.ones(1)))(output)
    np.testing.assert_allclose(loss, np.log1p(np.exp(-16.0)), rtol=1e-5)
    np.testing.assert_allclose(slope, -1 / (1 + np.exp(16.0)), rtol=1e-5)


def test_closed_forms_are_for_the_gaussian_itself():
    class Wider(DiagonalGaussian):
        def sample(self, key):
            return jax.tree.map(lambda leaf: 2 * leaf, super().sample(key))

    mean = (jnp.zeros((2, 1)),) * 2
    wider = Wider(mean, jax.tree.map(jnp.ones_like, mean))
    with pytest.raises(ValueError, match="overrides"):
        expected_log_joint(wider, Ratings(jnp.ones((2, 2))))
