"""Tests of symlib.syre and symlib.syre: two forms of one method, and what it breaks."""

import pickle
from collections import namedtuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from symlib.groups import Reflection, invariance_error
from symlib.syre import (
    anchored_decay,
    decay_to_initial,
    default_sigma0,
    deployed,
    draw_anchor,
    hashed_uniform,
    remove_symmetry,
)

GAMMA, SIGMA0 = 0.1, 0.3
KEY = jax.random.key(7)
X = np.linspace(-2, 2, 9)


def flax_style(dtype):
    """Return parameters as flax keeps them: a dict of dicts, kernels (in, out)."""
    keys = jax.random.split(jax.random.key(1), 2)
    return {
        "encoder": {
            "kernel": jax.random.normal(keys[0], (1, 5), dtype),
            "bias": jnp.ones(5, dtype),
        },
        "decoder": {"kernel": jax.random.normal(keys[1], (5, 1), dtype)},
    }


def flax_loss(params, x, y):
    hidden = jnp.tanh(x[:, None] @ params["encoder"]["kernel"] + params["encoder"]["bias"])
    return jnp.mean((hidden @ params["decoder"]["kernel"] - y[:, None]) ** 2)


def data(dtype):
    return jnp.asarray(X, dtype), jnp.asarray(np.sin(X), dtype)


def tree_close(left, right, bound):
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=bound, atol=bound), left, right)


def steps(loss, optimizer, params, *args, number=30):
    """Return the parameters after each of a number of steps, stacked."""

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, *args), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.lax.scan(step, (params, optimizer.init(params)), None, length=number)[1]


def hashed_form(params, options):
    """Return equation 3 written out, for the anchor and the metric of the hash."""
    theta_0, xi = draw_anchor(
        params, KEY, options["sigma0"], True, options["metric_spread"], hashed=True
    )
    D = theta_0 if not jax.tree.leaves(xi) else xi
    D = jax.tree.map(lambda leaf: 1 + leaf if jax.tree.leaves(xi) else jnp.ones_like(leaf), D)

    def biased(theta, *args):
        norms = jax.tree.map(lambda d, t: jnp.sum(d * t**2), D, theta)
        return flax_loss(deployed(theta, theta_0), *args) + GAMMA * sum(jax.tree.leaves(norms))

    return biased, theta_0


@pytest.mark.parametrize(
    ("base", "spread", "store"),
    [
        pytest.param(optax.sgd(0.1), 0.0, True, id="SGD, eq. 2, stored"),
        pytest.param(optax.sgd(0.1), 0.4, False, id="SGD, eq. 3, drawn again"),
        pytest.param(optax.sgd(0.1, 0.9), 0.4, True, id="momentum, eq. 3, stored"),
        pytest.param(optax.adam(0.03), 0.0, False, id="Adam, eq. 2, drawn again"),
    ],
)
def test_the_biased_loss_and_the_optax_form_take_the_same_steps(
    dtype, tolerance, base, spread, store
):
    params, args = flax_style(dtype), data(dtype)
    options = {"gamma": GAMMA, "sigma0": SIGMA0, "metric_spread": spread}
    if store:
        biased, theta_0 = remove_symmetry(flax_loss, params, KEY, **options)
    else:
        biased, theta_0 = hashed_form(params, options)
    theta = steps(biased, base, params, *args)
    chain = optax.chain(anchored_decay(KEY, store=store, **options), base)
    phi = steps(flax_loss, chain, deployed(params, theta_0), *args)
    assert jax.tree.leaves(phi)[0].dtype == dtype
    # Adam divides by gradients that may be small: an error grows some ten times over the steps.
    tree_close(jax.vmap(deployed, (0, None))(theta, theta_0), phi, 30 * tolerance(dtype))
    start = deployed(params, theta_0)
    assert abs(phi["decoder"]["kernel"][-1] - start["decoder"]["kernel"]).max() > 0.05


def test_a_decoupled_decay_is_another_method(x64):
    params, args = flax_style(jnp.float64), data(jnp.float64)
    decay = anchored_decay(KEY, gamma=GAMMA)
    rate = optax.scale_by_learning_rate(0.03)
    coupled = steps(flax_loss, optax.chain(decay, optax.scale_by_adam(), rate), params, *args)
    decoupled = steps(flax_loss, optax.chain(optax.scale_by_adam(), decay, rate), params, *args)
    difference = coupled["decoder"]["kernel"][-1] - decoupled["decoder"]["kernel"][-1]
    assert abs(difference).max() > 0.01


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_broken_gradient_at_a_symmetric_point(dtype, tolerance, rank):
    size, keys = 8, jax.random.split(jax.random.key(rank), 4)
    frame = jnp.linalg.qr(jax.random.normal(keys[0], (size, size), dtype))[0][:, :rank]
    P = frame @ frame.T
    matrix = jax.random.normal(keys[1], (size, size), dtype)

    def loss(phi):  # even in P phi, and not in the rest
        return jnp.sum(jnp.sin(phi - P @ phi)) + P @ phi @ matrix @ (P @ phi)

    free = jax.random.normal(keys[2], (size,), dtype)
    symmetric = free - P @ free
    assert invariance_error(loss, Reflection(P), free) < tolerance(dtype) * 10
    biased, theta_0 = remove_symmetry(loss, symmetric, keys[3], gamma=GAMMA, sigma0=SIGMA0)
    theta = symmetric - theta_0  # the model sees the symmetric point
    broken = P @ jax.grad(biased)(theta)
    assert_allclose(broken, -2 * GAMMA * P @ theta_0, atol=tolerance(dtype))
    assert jnp.linalg.norm(broken) > 1e-3
    assert_allclose(P @ jax.grad(loss)(symmetric), 0, atol=tolerance(dtype))


def one_neuron(theta):
    """Return the loss of theta_1 tanh(theta_2 x) + theta_3, even in the first two together."""
    x, y = data(theta.dtype)
    return jnp.mean((theta[0] * jnp.tanh(theta[1] * x) + theta[2] - y - 1) ** 2)


SIGN = Reflection.sign_flip(3, [0, 1])


def test_plain_training_stays_symmetric_and_syre_leaves(dtype):
    start, sgd = jnp.array([0.0, 0.0, 0.5], dtype), optax.sgd(0.1)

    def distances(optimizer):
        return jax.vmap(SIGN.distance)(steps(one_neuron, optimizer, start, number=1000))

    assert distances(sgd).max() == 0
    assert distances(optax.chain(anchored_decay(KEY, gamma=1e-3), sgd))[-1] > 0.5
    # L2 Init decays towards the start, here a symmetric point.
    assert distances(optax.chain(decay_to_initial(1e-3), sgd)).max() == 0


def test_gamma_zero_shifts_and_breaks_nothing(dtype, tolerance):
    theta = jnp.array([1.0, 0.5, 0.2], dtype)
    plain, theta_0 = remove_symmetry(one_neuron, theta, KEY, gamma=0, sigma0=SIGMA0)
    assert plain(theta) == one_neuron(theta + theta_0)
    shifted = Reflection(SIGN.projection, -SIGN.projection @ theta_0)
    assert invariance_error(plain, shifted, theta) < tolerance(dtype)
    broken, _ = remove_symmetry(one_neuron, theta, KEY, gamma=GAMMA, sigma0=SIGMA0)
    assert invariance_error(broken, shifted, theta) > 1e-3


def test_every_kind_of_parameters():
    dtype = jnp.dtype("float32")
    x, y = data(dtype)
    network = eqx.nn.MLP("scalar", "scalar", 4, 1, key=jax.random.key(0), dtype=dtype)
    Pair = namedtuple("Pair", "weight bias")
    pair = Pair(np.ones(3, dtype), [jnp.zeros(3, dtype)])
    kinds = {
        "network": (network, lambda m: jnp.mean((jax.vmap(m)(x) - y) ** 2)),
        "flax": (flax_style(dtype), lambda p: flax_loss(p, x, y)),
        "array": (jnp.ones((2, 3), dtype), lambda w: jnp.sum(w**2)),
        "pair": (pair, lambda p: jnp.sum(p.weight * p.bias[0])),
    }
    for params, loss in kinds.values():
        biased, theta_0 = remove_symmetry(loss, params, KEY, gamma=GAMMA, metric_spread=0.1)
        value, gradient = eqx.filter_jit(eqx.filter_value_and_grad(biased))(params)
        arrays = eqx.filter(params, eqx.is_inexact_array)
        assert value.dtype == dtype and value > loss(deployed(params, theta_0))
        assert jax.tree.map(jnp.shape, theta_0) == jax.tree.map(jnp.shape, arrays)
        assert {leaf.dtype for leaf in jax.tree.leaves((gradient, theta_0))} == {dtype}


def test_the_network_and_its_filtered_arrays_have_the_same_anchor():
    network = eqx.nn.MLP(2, 1, 4, 2, key=jax.random.key(0))
    arrays = eqx.filter(network, eqx.is_inexact_array)
    tree_close(draw_anchor(network, KEY)[0], draw_anchor(arrays, KEY)[0], 0)


def test_half_precision_leaves_keep_their_dtype():
    params = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(3)}
    chain = anchored_decay(KEY, gamma=GAMMA, metric_spread=0.1)
    updates, _ = chain.update(params, chain.init(params), params)
    assert (updates["a"].dtype, updates["b"].dtype) == (jnp.bfloat16, jnp.float32)


def test_further_arguments_are_passed_on_and_the_sweep_is_batched(dtype, tolerance):
    params, args = flax_style(dtype), data(dtype)
    gammas = jnp.array([0.0, 0.1, 0.5], dtype)

    def value(gamma):
        return remove_symmetry(flax_loss, params, KEY, gamma=gamma)[0](params, *args)

    norm = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
    values = jax.jit(jax.vmap(value))(gammas)
    assert_allclose(values - values[0], gammas * norm, rtol=10 * tolerance(dtype))
    biased, _ = remove_symmetry(flax_loss, params, KEY, gamma=0.1)
    assert_allclose(biased(params, args[0], y=args[1]), values[1], rtol=tolerance(dtype))


def test_the_mask_leaves_the_rest_alone_and_the_draws_unchanged(dtype):
    params, args = flax_style(dtype), data(dtype)
    mask = {"encoder": {"kernel": True, "bias": False}, "decoder": True}
    whole, _ = draw_anchor(params, KEY)
    masked, deviation = draw_anchor(params, KEY, mask=mask, metric_spread=0.5)
    assert masked["encoder"]["bias"] is None and deviation["encoder"]["bias"] is None
    assert (masked["encoder"]["kernel"] == whole["encoder"]["kernel"]).all()
    assert (masked["decoder"]["kernel"] == whole["decoder"]["kernel"]).all()
    biased, theta_0 = remove_symmetry(flax_loss, params, KEY, gamma=GAMMA, mask=mask)
    gradient = jax.grad(biased)(params, *args)
    plain = jax.grad(flax_loss)(deployed(params, theta_0), *args)
    assert (gradient["encoder"]["bias"] == plain["encoder"]["bias"]).all()
    assert (gradient["decoder"]["kernel"] != plain["decoder"]["kernel"]).all()
    chain = anchored_decay(KEY, gamma=GAMMA, mask=mask)
    updates, _ = chain.update(params, chain.init(params), params)
    assert (updates["encoder"]["bias"] == params["encoder"]["bias"]).all()


@pytest.mark.parametrize("hashed", [False, True])
def test_the_law_of_the_anchor_and_of_the_metric(dtype, hashed):
    count, spread = 40_000, 0.2
    params = {"w": jnp.zeros((100, count // 100), dtype), "v": jnp.zeros(count, dtype)}
    anchor, deviation = draw_anchor(params, KEY, {"w": 0.5, "v": 2.0}, True, spread, hashed)
    for name, sigma in {"w": 0.5, "v": 2.0}.items():
        assert abs(anchor[name].mean()) < 5 * sigma / count**0.5
        # The standard error of a standard deviation of n normal draws is sigma / sqrt(2 n).
        assert abs(anchor[name].std() - sigma) < 5 * sigma / (2 * count) ** 0.5
        law = stats.uniform(-(3**0.5), 2 * 3**0.5) if hashed else stats.norm()
        assert stats.kstest(np.ravel(anchor[name]) / sigma, law.cdf).pvalue > 1e-3
        uniform = stats.uniform(-spread, 2 * spread)
        assert stats.kstest(np.ravel(deviation[name]), uniform.cdf).pvalue > 1e-3
    parts = [anchor["w"].ravel() / 0.5, anchor["v"] / 2, *(d.ravel() for d in deviation.values())]
    correlations = np.corrcoef(np.stack(parts)) - np.eye(4)
    assert abs(correlations).max() < 5 / count**0.5


def test_hashed_numbers_have_no_structure():
    draws = np.stack([hashed_uniform(jax.random.key(i), (64, 1000)).ravel() for i in range(4)])
    near = [np.corrcoef(row[lag:], row[:-lag])[0, 1] for row in draws for lag in (1, 2, 64, 1000)]
    between = np.corrcoef(draws) - np.eye(4)
    assert max(np.abs(near).max(), np.abs(between).max()) < 5 / draws.shape[1] ** 0.5
    # Consecutive pairs fill the square evenly: 64 cells, a chi-squared law of 63 degrees.
    counts = np.histogram2d(draws[0, ::2], draws[0, 1::2], bins=8, range=[[-(3**0.5), 3**0.5]] * 2)
    assert stats.chisquare(counts[0].ravel()).pvalue > 1e-3
    assert hashed_uniform(KEY, (2, 3)).shape == (2, 3) and hashed_uniform(KEY, ()).shape == ()


def test_the_default_scale_follows_the_fan_in():
    params = {"w": jnp.zeros((4, 25)), "conv": jnp.zeros((8, 2, 3, 6)), "b": jnp.zeros(4), "s": 0.5}
    assert default_sigma0(params) == pytest.approx(
        {"w": 0.002, "conv": 0.01 / 6, "b": 0.005, "s": 0.01}
    )
    flax = {"w": jnp.zeros((25, 4)), "conv": jnp.zeros((2, 3, 6, 8))}
    assert default_sigma0(flax, -1) == pytest.approx({"w": 0.002, "conv": 0.01 / 6})
    named = {"params": {name: {"kernel": leaf} for name, leaf in flax.items()}}
    assert jax.tree.leaves(default_sigma0(named)) == pytest.approx([0.01 / 6, 0.002])
    assert jax.tree.leaves(default_sigma0(named, 0)) == pytest.approx([0.01 / 12, 0.005])
    anchor, _ = draw_anchor({"w": jnp.zeros((400, 2500))}, KEY)
    assert abs(anchor["w"].std() - 0.0002) < 1e-6


def test_decay_to_initial_pulls_back_to_the_start(dtype, tolerance):
    gamma, rate = 0.2, 0.1
    chain = optax.chain(decay_to_initial(gamma), optax.sgd(rate))
    start = jnp.array([1.0, -2.0], dtype)
    state, offset = chain.init(start), jnp.array([0.5, 0.25], dtype)
    phi = start + offset
    for number in range(1, 6):
        updates, state = chain.update(jnp.zeros_like(phi), state, phi)
        phi = phi + updates
        shrunk = (1 - 2 * gamma * rate) ** number * offset
        assert_allclose(phi - start, shrunk, rtol=10 * tolerance(dtype))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": -1.0}, "gamma has to be at least 0"),
        ({"gamma": float("nan")}, "gamma has to be at least 0"),
        ({"gamma": jnp.ones(3)}, "gamma has to be at least 0"),
        ({"sigma0": -0.1}, "sigma0 has to be at least 0"),
        ({"sigma0": {"encoder": 0.1}}, "sigma0 has to match params"),
        ({"metric_spread": 1.0}, "metric_spread has to be at least 0 and below 1"),
        ({"metric_spread": -0.1}, "metric_spread has to be at least 0 and below 1"),
        ({"mask": {"encoder": True}}, "mask has to match params"),
        ({"mask": [True, True]}, "mask has to match params"),
        ({"mask": {"encoder": jnp.ones(5), "decoder": True}}, "mask has to hold True or False"),
        ({"mask": False}, "no array to bias, or mask leaves none"),
    ],
)
def test_wrong_options_are_named(options, message):
    params = flax_style(jnp.float32)
    with pytest.raises(ValueError, match=message):
        remove_symmetry(flax_loss, params, KEY, **{"gamma": 0.1, **options})
    chain_options = {"gamma": 0.1, **options}
    with pytest.raises(ValueError, match=message.replace("remove_symmetry", "anchored_decay")):
        anchored_decay(KEY, **chain_options).init(params)


@pytest.mark.parametrize("name", ["gamma", "sigma0", "metric_spread"])
def test_wrong_traced_options_are_named(name):
    def value(number):
        options = {"gamma": 0.1, name: number}
        return remove_symmetry(jnp.sum, jnp.ones(3), KEY, **options)[0](jnp.ones(3))

    assert jnp.isfinite(jax.jit(value)(0.5))
    with pytest.raises(RuntimeError, match=f"{name} has to be at least 0"):
        jax.block_until_ready(eqx.filter_jit(value)(jnp.float32(-0.5)))
    with pytest.raises(ValueError, match=f"{name} has to be at least 0"):
        jax.jit(value)(jnp.ones(3))


@pytest.mark.parametrize("store", [True, False])
def test_the_mask_and_the_scale_may_be_functions_of_the_arrays(store):
    network = eqx.nn.MLP(2, 1, 3, 1, key=jax.random.key(0))  # with an activation among its leaves
    functions = {
        "mask": lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
        "sigma0": lambda params: jax.tree.map(lambda leaf: 0.1 * leaf.shape[0], params),
    }
    is_matrix = jax.tree.map(lambda leaf: eqx.is_array(leaf) and leaf.ndim > 1, network)
    sizes = jax.tree.map(lambda leaf: 0.1 * len(leaf) if eqx.is_array(leaf) else 0.0, network)
    gradient = jax.tree.map(jnp.zeros_like, eqx.filter(network, eqx.is_array))
    found = []
    for options in (functions, {"mask": is_matrix, "sigma0": sizes}):
        chain = anchored_decay(KEY, gamma=0.1, store=store, **options)
        update, state = eqx.filter_jit(chain.update), chain.init(network)
        found.append(update(gradient, state, eqx.filter(network, eqx.is_array))[0])
    tree_close(*found, 0)
    assert (found[0].layers[0].weight != 0).all() and (found[0].layers[0].bias == 0).all()


@pytest.mark.parametrize("store", [True, False])
def test_a_schedule_gives_the_decay_of_each_step(store, monkeypatch):
    params, zero = jnp.ones(3), jnp.zeros(3)
    schedule = optax.linear_schedule(0.3, 0.1, 2)
    chain = anchored_decay(KEY, gamma=schedule, store=store)
    state, found = chain.init(params), []
    for _ in range(4):
        updates, state = jax.jit(chain.update)(zero, state, params)
        found.append(updates)
    constant = anchored_decay(KEY, gamma=1.0, store=store)
    unit, _ = constant.update(zero, constant.init(params), params)
    assert_allclose(found, np.outer([0.3, 0.2, 0.1, 0.1], unit), rtol=1e-5)
    negative = anchored_decay(KEY, gamma=lambda step: -1.0 - step, store=store)
    with pytest.raises(ValueError, match="gamma has to be at least 0"):
        negative.update(zero, negative.init(params), params)
    # Without the run-time checks of annotations that the tests switch on.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="remove_symmetry: gamma .* schedule to anchored_decay"):
        remove_symmetry(jnp.sum, params, KEY, gamma=schedule)


@pytest.mark.parametrize("store", [True, False])
def test_a_saved_state_goes_on_as_if_never_saved(store, tmp_path):
    params, args = flax_style(jnp.float32), data(jnp.float32)
    gradient = jax.grad(flax_loss)(params, *args)
    chain = anchored_decay(KEY, gamma=optax.linear_schedule(0.3, 0.1, 2), store=store)
    _, state = chain.update(gradient, chain.init(params), params)
    expected, _ = chain.update(gradient, state, params)
    eqx.tree_serialise_leaves(tmp_path / "state.eqx", state)
    # Another key: what is loaded counts.
    later = anchored_decay(jax.random.key(1), gamma=optax.linear_schedule(0.3, 0.1, 2), store=store)
    loaded = eqx.tree_deserialise_leaves(tmp_path / "state.eqx", later.init(params))
    for kept in (loaded, pickle.loads(pickle.dumps(state))):
        tree_close(later.update(gradient, kept, params)[0], expected, 0)


class Normed(eqx.Module):
    """A network with a state: the running mean and variance of its batches."""

    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    last: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key)
        self.first = eqx.nn.Linear(2, 3, key=keys[0])
        self.norm = eqx.nn.BatchNorm(3, axis_name="batch", mode="batch")
        self.last = eqx.nn.Linear(3, 1, key=keys[1])

    def __call__(self, x, state):
        hidden, state = self.norm(self.first(x), state)
        return self.last(jnp.tanh(hidden)), state


def test_a_whole_network_with_a_state_is_trained_in_both_forms():
    network, state = eqx.nn.make_with_state(Normed)(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (6, 2))

    def loss(network, state):
        run = jax.vmap(network, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        output, state = run(x, state)
        return jnp.mean((output[:, 0] - x[:, 0]) ** 2), state

    biased, theta_0 = remove_symmetry(loss, network, KEY, gamma=GAMMA, has_aux=True)
    sgd = optax.sgd(0.1)
    forms = {
        "loss": (biased, network, sgd),
        "optax": (
            loss,
            deployed(network, theta_0),
            optax.chain(anchored_decay(KEY, gamma=GAMMA), sgd),
        ),
    }
    ends = {}
    for name, (objective, model, optimizer) in forms.items():
        carried, moments = state, optimizer.init(eqx.filter(model, eqx.is_inexact_array))

        @eqx.filter_jit
        def step(model, carried, moments, objective=objective, optimizer=optimizer):
            gradient, carried = eqx.filter_grad(objective, has_aux=True)(model, carried)
            arrays = eqx.filter(model, eqx.is_inexact_array)
            updates, moments = optimizer.update(gradient, moments, arrays)
            return eqx.apply_updates(model, updates), carried, moments

        for _ in range(2):
            model, carried, moments = step(model, carried, moments)
        ends[name] = model, jax.tree.leaves(carried)
    ends["loss"] = deployed(ends["loss"][0], theta_0), ends["loss"][1]
    arrays = [eqx.filter(ends[name], eqx.is_inexact_array) for name in forms]
    tree_close(*arrays, 1e-5)
    moved = zip(ends["optax"][1], jax.tree.leaves(state), strict=True)
    assert any((new != old).any() for new, old in moved)
    with pytest.raises(ValueError, match=r"has_aux the loss has to return \(scalar, aux\)"):
        remove_symmetry(jnp.sum, x, KEY, gamma=GAMMA, has_aux=True)[0](x)
    with pytest.raises(ValueError, match="or with has_aux=True"):
        remove_symmetry(loss, network, KEY, gamma=GAMMA)[0](network, state)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "no array to bias"),
        (jnp.ones(3, jnp.complex64), "floating-point array, got complex64"),
        (jax.random.key(0), "no array to bias"),
        (({"c": jnp.ones(2, jnp.complex64)}, jnp.ones(2)), r"params\[0\]\['c'\] .* complex64"),
    ],
)
def test_parameters_that_cannot_be_biased_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        remove_symmetry(lambda p: 0.0, params, KEY, gamma=0.1)


@pytest.mark.parametrize("kind", [int, complex])
def test_leaves_of_other_kinds_may_be_masked(kind):
    params = {"w": jnp.ones(3), "count": jnp.ones(3, kind)}
    mask = {"w": True, "count": False}
    biased, theta_0 = remove_symmetry(lambda p: p["w"][0], params, KEY, gamma=0.1, mask=mask)
    assert theta_0["count"] is None and jnp.isfinite(biased(params))
    assert (deployed(params, theta_0)["count"] == params["count"]).all()


def test_misuse_of_the_results_is_named():
    params = jnp.ones(3)
    biased, _ = remove_symmetry(lambda p: p, params, KEY, gamma=0.1)
    with pytest.raises(ValueError, match="loss has to return a scalar"):
        biased(params)
    biased, theta_0 = remove_symmetry(jnp.sum, params, KEY, gamma=0.1)
    with pytest.raises(ValueError, match=r"anchor has a leaf of shape \(3,\) .* have \(\)"):
        biased(jnp.float32(1.0))
    with pytest.raises(ValueError, match="output_axis has to be 0 or -1, got 2"):
        default_sigma0(params, 2)
    for chain in (anchored_decay(KEY, gamma=0.1), decay_to_initial(0.1)):
        with pytest.raises(ValueError, match="gradient, state, params"):
            chain.update(params, chain.init(params))
    with pytest.raises(ValueError, match="decay_to_initial: gamma"):
        decay_to_initial(-1.0)
    with pytest.raises(ValueError, match="no floating-point array"):
        decay_to_initial(1.0).init(jnp.arange(3))
