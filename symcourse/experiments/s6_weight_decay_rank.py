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

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from symcourse.experiments._training import (
    decay_to,
    draw_batches,
    flat_images,
    linear,
    short,
    short_mean_error,
    start_and_anchor,
    train,
    uniform_layer,
)
from symlib.syre import covariance_spectrum, dead_units, effective_rank, thresholded_rank

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
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = (
    "gamma 0.01, alpha 1.0, seed 0",
    {"data": "digits", "widths": [784, 12, 12, 10], "steps": 60, "last_steps": 20}
    | {"methods": ["weight decay", "syre 0.1", "L2 Init"], "rank_batch": 200}
    | {"spectra_places": [1, 2, 3, 12]},
)


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
    images, labels, *test = flat_images(settings.get("data", "mnist"))
    data = images, labels
    start_key, anchor_key, batch_key = jax.random.split(key, 3)
    start = _network(start_key, settings["widths"])
    batches = draw_batches(batch_key, len(images), settings)
    schedule = settings["step_size"], settings["last_steps"], settings["momentum"]
    with_spectra = (case["gamma"], case["alpha"]) == (settings["spectra_gamma"], 1.0)
    found = {}
    for method in _methods(settings, **case):
        params, anchor = start_and_anchor(start, anchor_key, method)
        params = _train(params, anchor, case["gamma"], case["alpha"], data, batches, schedule)
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


def _network(key, widths):
    keys = jax.random.split(key, len(widths) - 1)
    return [uniform_layer(*layer) for layer in zip(keys, widths[:-1], widths[1:], strict=True)]


def _logits(params, x):
    for layer in params[:-1]:
        x = jax.nn.relu(linear(layer, x))
    return linear(params[-1], x)


def _loss(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(_logits(params, x), y).mean()


@functools.partial(jax.jit, static_argnames="schedule")
def _train(params, anchor, gamma, alpha, data, batches, schedule):
    step_size, last_steps, momentum = schedule
    falling = optax.linear_schedule(step_size, 0.0, last_steps, len(batches) - last_steps)
    optimizer = optax.chain(decay_to(anchor, gamma), optax.sgd(falling, momentum))
    images, labels = data

    def loss(params, places):
        return _loss(params, alpha * images[places], labels[places])

    return train(loss, optimizer, params, batches)


def _evaluate(params, anchor, alpha, data, test, settings):
    first, few = settings["evaluated"], test[0][: settings["rank_batch"]]
    train = data[0][:first], data[1][:first]
    train_loss, train_accuracy = _quality(params, alpha, *train)
    test_loss, test_accuracy = _quality(params, alpha, *test)
    before = linear(params[0], alpha * few)
    after = jax.nn.relu(before)
    of_anchor = linear(anchor[0], alpha * few)
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
        "norm": optax.tree.norm(params),
        "distance_to_anchor": optax.tree.norm(jax.tree.map(jnp.subtract, params, anchor)),
    }
    return {name: short(value) for name, value in found.items()}


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
    before = linear(params[0], test[0][: settings["rank_batch"]])
    places = np.array(settings["spectra_places"]) - 1
    return {
        name: [short(value) for value in np.asarray(covariance_spectrum(features))[places]]
        for name, features in (("before", before), ("after", jax.nn.relu(before)))
    }


def summarise(settings, results):
    """Return, for each gamma, alpha and method, means and standard errors over the seeds."""
    values = {}
    for group in dict.fromkeys(name.rsplit(",", 1)[0] for name in results):
        runs = [result for name, result in results.items() if name.startswith(f"{group},")]
        values[group] = {
            method: {
                name: short_mean_error([run[method][name] for run in runs])
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
