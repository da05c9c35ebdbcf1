"""Collapse of a four-layer network under weight decay, on MNIST (Ziyin, Xu & Chuang 2024, C.3).

Figures 4 and 5: 300 units in each of three hidden layers, ReLU, batches of 64, inputs scaled by
alpha. The decay gamma is swept at alpha = 1, and alpha at gamma = .01. The paper leaves open the
optimizer, the number of steps, sigma_0 and whether its gamma stands for gamma ||theta||^2 or half
of it. We take gamma ||theta||^2, as in its eq. 2, the cross-entropy, and SGD with momentum: the
step size is constant and falls to 0 at the end, so that the last numbers carry little noise.
Shortened: 1500 steps, 1.6 passes. Momentum makes up for part of that, since a weight without
gradient shrinks by 2 gamma times the step size over 1 - momentum in each step.

All methods are the update gradient + 2 gamma (phi - anchor) and share start and batches:

- "weight decay", the paper's vanilla network: anchor 0. "no decay": gamma 0;
- "syre S": a random anchor of standard deviation S / sqrt(fan-in), where .01 is the paper's
  default, and the start theta + theta_0. The normal draws are the same for all S;
- "L2 Init": the anchor is the start.

Ranks are of the first layer's output, before and after activation, on 1000 test images: the
eigenvalues of the covariance above 1e-4 alpha^2, our reading of "scaled by alpha^2". An anchor has
a rank of its own: "anchor_rank_before" is the rank that the anchor alone gives, without training.

Needs MNIST: it is downloaded on first use, see symlib.data.load.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from symlib.data import load
from symlib.syre import (
    RELATIVE_SIGMA0,
    covariance_spectrum,
    dead_units,
    default_sigma0,
    draw_anchor,
    effective_rank,
    thresholded_rank,
)

SETTINGS = {
    "seed": 2024,
    "widths": [784, 300, 300, 300, 10],
    "seeds": 3,
    "steps": 1500,
    "last_steps": 500,  # the step size falls to 0 over these
    "batch_size": 64,
    "step_size": 0.03,
    "momentum": 0.9,
    "sweep_gamma": [1e-3, 3e-3, 1e-2, 2e-2, 3e-2],
    "sweep_alpha": {"gamma": 1e-2, "alpha": [0.1, 0.3, 3.0]},
    "methods": ["weight decay", "syre 0.01", "syre 0.1", "L2 Init"],
    # sigma_0 is swept where the decay is moderate and where the network collapses.
    "sweep_sigma0": {"gamma": [3e-3, 3e-2], "methods": ["syre 0.03", "syre 0.3", "syre 1.0"]},
    "threshold": 1e-4,
    "evaluated": 10000,
    "rank_batch": 1000,
    # Spectra are kept at this gamma and alpha 1, thinned.
    "spectra_gamma": 1e-2,
    "spectra_places": [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 65, 80, 100]
    + [125, 150, 175, 200, 225, 250, 275, 300],
}


def cases(settings):
    """Return one case for each seed, gamma and alpha."""
    sweep = settings["sweep_alpha"]
    pairs = [(0.0, 1.0), *((gamma, 1.0) for gamma in settings["sweep_gamma"])]
    pairs += [(sweep["gamma"], alpha) for alpha in sweep["alpha"]]
    return [
        (f"gamma {gamma}, alpha {alpha}, seed {seed}", {"gamma": gamma, "alpha": alpha})
        for seed in range(settings["seeds"])
        for gamma, alpha in pairs
    ]


def run_case(settings, case, key):
    """Return, for each method, accuracies, losses and ranks after training."""
    images, labels, test_images, test_labels = load("mnist")
    data = jnp.asarray(images.reshape(len(images), -1)), jnp.asarray(labels)
    test = jnp.asarray(test_images.reshape(len(test_images), -1)), jnp.asarray(test_labels)
    start_key, anchor_key, batch_key = jax.random.split(key, 3)
    start = _network(start_key, settings["widths"])
    batches = _batches(batch_key, len(images), settings)
    with_spectra = (case["gamma"], case["alpha"]) == (settings["spectra_gamma"], 1.0)
    found = {}
    for method in _methods(settings, **case):
        params, anchor = _begin(start, anchor_key, method)
        params = _train(params, anchor, case["gamma"], case["alpha"], data, batches)
        found[method] = _evaluate(params, anchor, case["alpha"], data, test, settings)
        if with_spectra:
            found[method]["spectra"] = _spectra(params, test, settings)
    return found


def _methods(settings, gamma, alpha):
    if gamma == 0:
        return ["no decay"]
    sweep = settings["sweep_sigma0"]
    swept = sweep["methods"] if alpha == 1 and gamma in sweep["gamma"] else []
    return settings["methods"] + swept


def _begin(start, key, method):
    """Return the start of phi and the anchor."""
    if method in ("weight decay", "no decay"):
        return start, jax.tree.map(jnp.zeros_like, start)
    if method == "L2 Init":
        return start, start
    factor = float(method.removeprefix("syre ")) / RELATIVE_SIGMA0
    sigma0 = jax.tree.map(lambda sigma: factor * sigma, default_sigma0(start))
    theta_0, _ = draw_anchor(start, key, sigma0)
    return jax.tree.map(jnp.add, start, theta_0), theta_0


def _network(key, widths):
    """Return weights uniform in +-1 / sqrt(fan-in)."""
    layers = []
    keys = jax.random.split(key, len(widths) - 1)
    for layer_key, inputs, outputs in zip(keys, widths[:-1], widths[1:], strict=True):
        bound = 1 / math.sqrt(inputs)
        draws = jax.random.uniform(layer_key, (outputs, inputs + 1), minval=-bound, maxval=bound)
        layers.append({"weight": draws[:, :-1], "bias": draws[:, -1]})
    return layers


def _linear(layer, x):
    return x @ layer["weight"].T + layer["bias"]


def _logits(params, x):
    for layer in params[:-1]:
        x = jax.nn.relu(_linear(layer, x))
    return _linear(params[-1], x)


def _loss(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(_logits(params, x), y).mean()


def _batches(key, count, settings):
    """Return the images of each step, shape (steps, batch): pass after pass over all of them."""
    needed = settings["steps"] * settings["batch_size"]
    keys = jax.random.split(key, math.ceil(needed / count))
    orders = jnp.concatenate([jax.random.permutation(key, count) for key in keys])
    return orders[:needed].reshape(settings["steps"], -1)


@jax.jit
def _train(params, anchor, gamma, alpha, data, batches):
    settings = SETTINGS
    schedule = optax.linear_schedule(
        settings["step_size"], 0.0, settings["last_steps"], len(batches) - settings["last_steps"]
    )
    optimizer = optax.sgd(schedule, settings["momentum"])
    images, labels = data

    def step(carry, places):
        params, state = carry
        gradient = jax.grad(_loss)(params, alpha * images[places], labels[places])
        gradient = jax.tree.map(
            lambda slope, leaf, centre: slope + 2 * gamma * (leaf - centre),
            gradient,
            params,
            anchor,
        )
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), batches)
    return params


def _evaluate(params, anchor, alpha, data, test, settings):
    first, few = settings["evaluated"], test[0][: settings["rank_batch"]]
    train = data[0][:first], data[1][:first]
    train_loss, train_accuracy = _quality(params, alpha, *train)
    test_loss, test_accuracy = _quality(params, alpha, *test)
    before = _linear(params[0], alpha * few)
    after = jax.nn.relu(before)
    of_anchor = _linear(anchor[0], alpha * few)
    found = {
        "train_loss": train_loss,
        "test_loss": test_loss,
        "train_accuracy": train_accuracy,
        "test_accuracy": test_accuracy,
        "rank_before": _rank(before / alpha, settings),
        "rank_after": _rank(after / alpha, settings),
        "anchor_rank_before": _rank(of_anchor / alpha, settings),
        "effective_rank_before": effective_rank(before),
        "effective_rank_after": effective_rank(after),
        "dead_units": dead_units(after),
        "norm": optax.global_norm(params),
        "distance_to_anchor": optax.global_norm(jax.tree.map(jnp.subtract, params, anchor)),
    }
    return {name: _short(value) for name, value in found.items()}


@jax.jit
def _quality(params, alpha, x, y):
    """Return the cross-entropy and the accuracy."""
    logits = _logits(params, alpha * x)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
    return loss, jnp.mean(jnp.argmax(logits, axis=1) == y)


def _rank(features, settings):
    return thresholded_rank(features, settings["threshold"])


def _spectra(params, test, settings):
    """Return thinned spectra of the first layer before and after activation, for alpha 1."""
    before = _linear(params[0], test[0][: settings["rank_batch"]])
    places = np.array(settings["spectra_places"]) - 1
    return {
        name: [_short(value) for value in np.asarray(covariance_spectrum(features))[places]]
        for name, features in (("before", before), ("after", jax.nn.relu(before)))
    }


def _short(value):
    """Round to four digits, which keeps the file small."""
    return float(f"{float(value):.4g}")


def summarise(settings, results):
    """Return, for each gamma, alpha and method, means and standard errors over the seeds."""
    values = {}
    for group in dict.fromkeys(name.rsplit(",", 1)[0] for name in results):
        runs = [result for name, result in results.items() if name.startswith(f"{group},")]
        values[group] = {
            method: {
                name: _mean_error([run[method][name] for run in runs])
                for name in (
                    "train_accuracy",
                    "test_accuracy",
                    "test_loss",
                    "rank_before",
                    "rank_after",
                    "anchor_rank_before",
                    "effective_rank_before",
                )
            }
            for method in runs[0]
        }
    return values


def _mean_error(samples):
    error = np.std(samples, ddof=1) / math.sqrt(len(samples))
    return [_short(np.mean(samples)), _short(error)]
