"""Tests of the experiments on syre: what they compute beside slower, plainer ways."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import optimize

from symcourse.experiments import s2_identical_neurons as s2
from symcourse.experiments import s4_degree_of_symmetry as s4
from symcourse.experiments import s5_dead_neurons as s5
from symcourse.experiments import s10_permuted_mnist as s10
from symlib.syre import remove_symmetry

SIZE, GAMMA = 4, 0.7
SMALL = s4.SETTINGS | {
    "size": SIZE,
    "seeds": 2,
    "dropout_seeds": 2,
    "steps": 30,
    "stops": [10, 30],
    "learning_rate": 0.01,
    "fractions": [0.5],
    # In four dimensions larger anchors and rates lift the end above the start.
    "relative_sigma0s": [0.1],
    "dropout_rates": [0.05],
}


def objective(matrix):
    return lambda w: (w @ w) ** 2 - w @ matrix @ w


def test_descent_in_the_eigenbasis_is_that_of_the_biased_loss(x64):
    matrix, values, rows, start = s4.problem(SMALL, "unstructured", 0)
    anchor = np.random.default_rng(1).normal(size=SIZE)
    y = s4.descend(
        values, rows @ start, rows @ anchor, GAMMA, steps=30, rate=SMALL["learning_rate"]
    )
    biased, theta_0 = remove_symmetry(
        objective(matrix), jnp.asarray(start), jax.random.key(0), gamma=GAMMA, sigma0=0
    )
    assert (theta_0 == 0).all()
    theta = jnp.asarray(start - anchor)

    def shifted(theta):  # the loss at theta + anchor, the decay at theta
        return objective(matrix)(theta + anchor) - objective(matrix)(theta) + biased(theta)

    for _ in range(30):
        theta = theta - SMALL["learning_rate"] * jax.grad(shifted)(theta)
    assert_allclose(rows.T @ y, theta + anchor, atol=1e-12)


def test_the_limit_is_the_global_minimum(x64):
    _, values, _, _ = s4.problem(SMALL, "unstructured", 0)
    random = np.random.default_rng(2)
    for anchor in (random.normal(size=SIZE), np.zeros(SIZE)):

        def loss(y, anchor=anchor):
            return np.sum(y**2) ** 2 - values @ y**2 + GAMMA * np.sum((y - anchor) ** 2)

        ends = [optimize.minimize(loss, random.normal(size=SIZE), tol=1e-12) for _ in range(20)]
        best = min(ends, key=lambda end: end.fun).x
        expected = np.sum(best**2) ** 2 - values @ best**2
        assert_allclose(s4._limit(values, anchor, GAMMA), expected, atol=1e-5)


def test_no_point_passes_the_frontier():
    values, threshold = np.array([-1.0, 0.5, 2.0, 3.0]), 0.3
    smallest = s4.frontier(values, threshold)
    points = np.random.default_rng(3).normal(size=(200_000, SIZE)) * [0.3, 0.4, 0.6, 1.3]
    degree = np.sum(np.abs(points) < threshold, axis=1)
    square = np.sum(points**2, axis=1)
    found = square**2 - points**2 @ values
    for count in range(SIZE):
        best = found[degree == count].min()
        assert smallest[count] <= best < smallest[count] + 0.15


@pytest.mark.parametrize("method", s4.METHODS)
def test_every_method_falls_from_its_start(method):
    case = {"spectrum": "unstructured", "method": method, "start": 1.0}
    rows = s4.run_case(SMALL, case, jax.random.key(0))
    starts = [
        float(objective(matrix)(start))
        for matrix, _, _, start in (s4.problem(SMALL, "unstructured", seed) for seed in range(2))
    ]
    for row in rows:
        assert len(row["objective"]) == len(row["degree"]) == 2
        assert np.mean(row["objective"]) < np.mean(starts)
        assert all(0 <= degree <= SIZE for degree in row["degree"])


def run_s5(method, **changes):
    settings = s5.SETTINGS | {"seeds": 2, "steps": 20, "stops": 2, "size": 12, "examples": 30}
    settings |= {"relevant": 3, "thresholds": [1e-9, 10.0], "variants": {"sparse": changes}}
    return s5.run_case(settings, {"variant": "sparse", "method": method}, jax.random.key(0))


def test_dead_neurons_are_counted_from_the_start():
    plain = run_s5("plain")
    assert np.array(plain["dead"])[0].max() == 0  # no number is below 1e-9
    assert np.array(plain["dead"])[1].min() == 12  # all are below 10
    assert plain["never_frozen"] == [12, 12]
    # 30 percent of 12 entries, rounded to 4, of u and of w: 4 to 8 neurons are touched.
    assert all(4 <= free <= 8 for free in run_s5("W-fix")["never_frozen"])


def test_the_two_readings_of_kappa_differ_by_the_size_of_the_frozen_values():
    # All weights but the frozen ones start at 1e-9: what is above 1e-4 is frozen.
    thresholds = s5.SETTINGS["end_thresholds"]
    sizes = {}
    for method in ("W-fix", "W-fix sd 0.01"):
        counts = run_s5(method, start=1e-9, learning_rate=0.0)["dead_at_end"]
        below = np.mean(counts, axis=1)
        sizes[method] = thresholds[np.argmax(below > (below[0] + 12) / 2)]
    assert sizes["W-fix"] > 4 * sizes["W-fix sd 0.01"]


def test_a_run_that_diverges_says_so():
    assert run_s5("plain", learning_rate=1e3) == {"diverged": 2}


@pytest.mark.parametrize("method", s2.SETTINGS["methods"])
def test_identical_neurons_stay_identical_without_an_anchor(method):
    choices = s2.SETTINGS["methods"][method] | {"fraction": 1.0}
    keys = jax.random.split(jax.random.key(0), 4)
    start, anchor = s2._begin(keys[0], keys[1], 6, choices)
    data = jax.random.normal(keys[2], (40, 784)), jnp.arange(40) % 10
    batches = jax.random.randint(keys[3], (2, 5, 8), 0, 40)
    one = jax.tree.map(lambda leaf: leaf[None], (start, anchor))
    strengths = jnp.array([choices["gamma"]]), jnp.array([6])
    params, _, spread = s2._train(
        *one, *strengths, data, batches, optimizer="sgd", step_size=s2.SETTINGS["optimizers"]["sgd"]
    )
    units = s2._units(jax.tree.map(lambda leaf: leaf[0], params))
    if choices["anchor"] == "random":  # the start has moved, or the decay pushes
        assert spread[0, -1] > 1e-8 and abs(units - units[0]).max() > 0
    else:
        assert abs(units - units[0]).max() < 1e-6
        assert s2._distinct(units, s2.SETTINGS["alike"]) == 1


def test_patches_make_a_convolution():
    keys = jax.random.split(jax.random.key(1), 2)
    layer = {"weight": jax.random.normal(keys[0], (3, 50)), "bias": jnp.array([0.1, -0.2, 0.3])}
    x = jax.random.normal(keys[1], (2, 4, 12, 12))
    found = s10._convolution(layer, x)
    # Patches list the 25 shifts, each with its channels.
    kernel = jnp.moveaxis(layer["weight"].reshape(3, 5, 5, 2), 3, 1)
    full = jax.lax.conv(jnp.moveaxis(x, 0, 1), kernel, (1, 1), "VALID")
    full = jax.nn.relu(full + layer["bias"][:, None, None])
    expected = full.reshape(4, 3, 4, 2, 4, 2).max(axis=(3, 5))
    assert_allclose(jnp.moveaxis(found, 0, 1), expected, rtol=1e-4, atol=1e-4)


def test_a_collapse_has_to_last():
    assert s10._collapse([0.9, 0.1, 0.1]) == 2
    assert s10._collapse([0.9, 0.1, 0.8]) is None  # it came back
    assert s10._collapse([0.1, 0.1]) == 1
    assert s10._collapse([0.9, 0.8]) is None
