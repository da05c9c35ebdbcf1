"""Loss of plasticity on permuted MNIST (Ziyin, Xu & Chuang 2024, Fig. 9 and C.6).

Ten tasks in a row: MNIST, then MNIST under nine fixed random permutations of the pixels. One
network learns them without a restart: convolutions of 5 x 5 with 10 and 20 channels, each followed
by ReLU and maxima over 2 x 2, then 320 inputs to 50 ReLU units to 10 outputs. SGD with decay .01.

The paper leaves open the step size, momentum, the batch, the length of a task and sigma_0. Ours are
among the settings below, and gamma stands for gamma ||theta||^2. Shortened: 350 steps on batches of
64 in each task, 22400 of the 60000 images. Momentum makes up for it; with 300 steps and a step size
of .1 without momentum, no method collapsed in five tasks, nor did its rank get small.

All methods are the update gradient + 2 gamma (phi - anchor) and share start, tasks and batches:

- "no decay"; "weight decay", the paper's vanilla network: anchor 0;
- "syre S": a random anchor of standard deviation S / sqrt(fan-in), where .01 is the paper's
  default, and the start theta + theta_0. The normal draws are the same for both S;
- "L2 Init": the anchor is the start.

After each task: test accuracy on this task, and the rank of the second convolution's output, 320
features on 1000 test images, eigenvalues of the covariance above 1e-4.

Needs MNIST: it is downloaded on first use, see symlib.data.load.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from symcourse.experiments._training import (
    decay_to,
    flat_images,
    linear,
    make_step,
    short,
    short_mean_error,
    start_and_anchor,
    uniform_layer,
)
from symlib.syre import dead_units, effective_rank, thresholded_rank

SETTINGS = {
    "seed": 2024,
    "seeds": 3,
    "tasks": 10,
    "steps": 350,  # in each task
    "batch_size": 64,
    "step_size": 0.05,
    "momentum": 0.9,
    "gamma": 0.01,
    "methods": ["no decay", "weight decay", "syre 0.01", "syre 0.1", "L2 Init"],
    # Inputs and outputs of the layers; a convolution takes patches of 25 pixels of each channel.
    "layers": {"conv1": [25, 10], "conv2": [250, 20], "hidden": [320, 50], "output": [50, 10]},
    "threshold": 1e-4,
    "rank_batch": 1000,
    "test_images": 5000,
    "loss_steps": 50,  # the training loss is the mean over the last steps of a task
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = (
    "seed 0",
    {"data": "digits", "tasks": 2, "steps": 10, "batch_size": 16, "loss_steps": 5}
    | {"methods": ["weight decay", "syre 0.1"], "rank_batch": 100, "test_images": 100}
    | {"layers": {"conv1": [25, 3], "conv2": [75, 4], "hidden": [64, 8], "output": [8, 10]}},
)


def cases(settings):
    """Return one case for each seed."""
    return [(f"seed {seed}", {}) for seed in range(settings["seeds"])]


def run_case(settings, case, key):
    """Return, for each method, what was measured after each task."""
    images, labels, *test = flat_images(settings.get("data", "mnist"))
    data, test = (images, labels), tuple(part[: settings["test_images"]] for part in test)
    start_key, anchor_key, task_key, batch_key = jax.random.split(key, 4)
    start = _network(start_key, settings["layers"])
    tasks = _permutations(task_key, settings["tasks"], images.shape[1])
    found = {}
    for method in settings["methods"]:
        params, anchor = start_and_anchor(start, anchor_key, method)
        gamma = 0.0 if method == "no decay" else settings["gamma"]
        decay = anchor, jnp.float32(gamma)
        state = _optimizer(settings, *decay).init(params)
        entries = []
        for number, permutation in enumerate(tasks):
            order = jax.random.permutation(jax.random.fold_in(batch_key, number), len(images))
            batches = order[: settings["steps"] * settings["batch_size"]]
            batches = batches.reshape(settings["steps"], -1)
            params, state, loss = _train(settings, params, state, decay, permutation, data, batches)
            entry = {"train_loss": loss, **_evaluate(settings, params, permutation, test)}
            entries.append({name: _finite(value) for name, value in entry.items()})
        found[method] = {name: [entry[name] for entry in entries] for name in entries[0]}
    return found


def _permutations(key, tasks, pixels):
    """Return the order of the pixels in each task, the first as it is."""
    keys = jax.random.split(key, tasks - 1)
    orders = jax.vmap(lambda key: jax.random.permutation(key, pixels))(keys)
    return jnp.concatenate([jnp.arange(pixels)[None], orders])


def _network(key, layers):
    keys = jax.random.split(key, len(layers))
    return {
        name: uniform_layer(layer_key, *layers[name])
        for layer_key, name in zip(keys, layers, strict=True)
    }


def _convolution(layer, x):
    """Convolve by 5 x 5, apply ReLU, and take maxima over 2 x 2; x is (channels, n, h, h).

    A matrix product with all patches, which is several times faster on a CPU than a convolution.
    """
    channels, n, side, _ = x.shape
    size = side - 4
    shifts = [x[:, :, i : i + size, j : j + size] for i in range(5) for j in range(5)]
    patches = jnp.concatenate(shifts).reshape(25 * channels, -1)
    output = jax.nn.relu(layer["weight"] @ patches + layer["bias"][:, None])
    return output.reshape(-1, n, size // 2, 2, size // 2, 2).max(axis=(3, 5))


def _features(params, x):
    """Return the output of the convolutions, shape (n, 320)."""
    x = _convolution(params["conv1"], x.reshape(1, -1, 28, 28))
    x = _convolution(params["conv2"], x)
    return jnp.moveaxis(x, 1, 0).reshape(x.shape[1], -1)


def _head(params, features):
    return linear(params["output"], jax.nn.relu(linear(params["hidden"], features)))


def _loss(params, x, y):
    logits = _head(params, _features(params, x))
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def _optimizer(settings, anchor, gamma):
    return optax.chain(
        decay_to(anchor, gamma), optax.sgd(settings["step_size"], settings["momentum"])
    )


@eqx.filter_jit
def _train(settings, params, state, decay, permutation, data, batches):
    """Return parameters, state, and the mean training loss of the last steps."""
    images, labels = data

    def loss(params, places):
        return _loss(params, images[places][:, permutation], labels[places])

    step = make_step(loss, _optimizer(settings, *decay))
    (params, state), losses = jax.lax.scan(step, (params, state), (batches,))
    return params, state, jnp.mean(losses[-settings["loss_steps"] :])


@eqx.filter_jit
def _evaluate(settings, params, permutation, test):
    size = settings["rank_batch"]
    images = test[0][:, permutation].reshape(-1, size, test[0].shape[1])
    features = jax.lax.map(lambda few: _features(params, few), images)
    logits = _head(params, features.reshape(len(test[1]), -1))
    return {
        "accuracy": jnp.mean(jnp.argmax(logits, axis=1) == test[1]),
        "rank": thresholded_rank(features[0], settings["threshold"]),
        "effective_rank": effective_rank(features[0]),
        "dead_features": dead_units(features[0]),
        "norm": optax.tree.norm(params),
    }


def _finite(value):
    """Round to four digits, which keeps the file small; None for what overflowed."""
    return short(value) if math.isfinite(value) else None


def summarise(settings, results):
    """Return, for each method and task, means and standard errors over the seeds.

    "collapsed_after" holds for each seed the first task, from 1, after which the accuracy is
    below 20 % and stays there, or None.
    """
    values = {}
    for method in settings["methods"]:
        runs = [result[method] for result in results.values()]
        values[method] = {
            name: [
                short_mean_error(samples) for samples in np.transpose([run[name] for run in runs])
            ]
            for name in ("accuracy", "rank")
        }
        values[method]["collapsed_after"] = [_collapse(run["accuracy"]) for run in runs]
    return values


def _collapse(accuracies):
    above = np.flatnonzero(np.array(accuracies) >= 0.2)
    first = int(above[-1]) + 2 if len(above) else 1
    return first if first <= len(accuracies) else None
