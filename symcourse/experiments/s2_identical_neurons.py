"""A network that starts with identical neurons, on MNIST (Ziyin, Xu & Chuang 2024, Fig. 1).

A two-layer ReLU network starts with a fraction of its hidden units identical, in their incoming
and in their outgoing weights. The paper leaves the width, the fractions, the step sizes and the
strength of the decay open; ours are among the settings below. The loss is the cross-entropy on
batches of 64, and gamma stands for gamma ||theta||^2, half of what many libraries call weight
decay.

All methods are the same update, gradient + 2 gamma (phi - anchor), and differ in gamma, in the
anchor and in the start of phi, the parameters that the model sees:

- "plain": no decay. "weight decay": anchor 0. "L2 Init": anchor at the start, so symmetric too;
- "syre": a random anchor theta_0, and the start theta + theta_0 with theta symmetric, as in the
  paper. The start alone leaves the symmetric point;
- "moved start": the start of syre without any decay, to see what the start does by itself;
- "syre, symmetric start": the anchor of syre, but phi starts symmetric, as with
  symlib.syre.anchored_decay. Only the decay, 2 gamma theta_0, pushes it out;
- "syre 0.1", "syre 1.0": syre with larger anchors, in units of 1 / sqrt(fan-in); "syre, gamma
  0.0005": the same decay if the paper's .001 is a gradient gamma theta;
- "sweep": syre with a symmetric start, from all units identical, for several gamma and sigma_0.

"sgd long" is SGD for three times as many passes, since the paper compares "the end of training".

All runs of a case share the start, the batches and the normal draws of the anchor.

Needs MNIST: it is downloaded on first use, see symlib.data.load.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from symcourse.experiments._training import (
    decay_to,
    flat_images,
    linear,
    make_step,
    relative_anchor,
    short,
    short_mean_error,
    uniform_layer,
)
from symlib.syre import dead_units, effective_rank

SETTINGS = {
    "seed": 2024,
    "width": 64,
    "fractions": [0.0, 0.5, 0.75, 0.9, 1.0],
    "optimizers": {"sgd": 0.1, "adam": 1e-3, "sgd long": 0.1},
    "seeds": 5,
    "passes": 8,
    "long": {"passes": 24, "methods": ["plain", "syre", "syre 0.1"]},
    "batch_size": 64,
    # sigma_0 in units of 1 / sqrt(fan-in).
    "methods": {
        "plain": {"gamma": 0.0, "sigma0": 0.0, "anchor": "zero", "start": "symmetric"},
        "weight decay": {"gamma": 1e-3, "sigma0": 0.0, "anchor": "zero", "start": "symmetric"},
        "L2 Init": {"gamma": 1e-3, "sigma0": 0.0, "anchor": "start", "start": "symmetric"},
        "syre": {"gamma": 1e-3, "sigma0": 0.01, "anchor": "random", "start": "moved"},
        "moved start": {"gamma": 0.0, "sigma0": 0.01, "anchor": "random", "start": "moved"},
        "syre, symmetric start": {
            "gamma": 1e-3,
            "sigma0": 0.01,
            "anchor": "random",
            "start": "symmetric",
        },
        "syre 0.1": {"gamma": 1e-3, "sigma0": 0.1, "anchor": "random", "start": "moved"},
        "syre 1.0": {"gamma": 1e-3, "sigma0": 1.0, "anchor": "random", "start": "moved"},
        "syre, gamma 0.0005": {
            "gamma": 5e-4,
            "sigma0": 0.01,
            "anchor": "random",
            "start": "moved",
        },
    },
    "sweep": {"gamma": [1e-4, 1e-3, 1e-2], "sigma0": [0.01, 0.1, 1.0]},
    # Losses are averaged and units compared once in a segment; curves show some of the segments.
    "segments": 64,
    "curve_segments": [1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 56, 64],
    "escaped": 0.1,  # root mean square distance of the units from their mean, relative
    "alike": 0.1,  # two units are alike below this distance, relative to the larger norm
    "evaluated": 10000,
    "rank_batch": 1000,
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = (
    "sgd, seed 0",
    {"data": "digits", "width": 6, "fractions": [0.5], "passes": 4, "segments": 4}
    | {"sweep": {"gamma": [1e-3], "sigma0": [0.1]}, "curve_segments": [1, 4]}
    | {"evaluated": 500, "rank_batch": 100},
)


def cases(settings):
    """Return one case for each seed and optimizer."""
    return [
        (f"{name}, seed {seed}", {"optimizer": name, "seed": seed})
        for seed in range(settings["seeds"])
        for name in settings["optimizers"]
    ]


def run_case(settings, case, key):
    """Return, for each method and fraction, losses, accuracy, and how the units came apart."""
    images, labels, *test = flat_images(settings.get("data", "mnist"))
    data = images, labels
    # Of the seed alone: the optimizers of a seed share start, anchor and batches.
    key = jax.random.fold_in(jax.random.key(settings["seed"]), case["seed"])
    start_key, anchor_key, batch_key = jax.random.split(key, 3)
    optimizer = case["optimizer"]
    if optimizer.endswith("long"):
        methods = {name: settings["methods"][name] for name in settings["long"]["methods"]}
        settings = settings | {"passes": settings["long"]["passes"], "methods": methods}
        settings |= {"sweep": {"gamma": [], "sigma0": []}}
    names, runs = zip(*_runs(settings), strict=True)
    begun = [_begin(start_key, anchor_key, settings["width"], run) for run in runs]
    params, anchor = jax.tree.map(lambda *leaves: jnp.stack(leaves), *begun)
    gamma = jnp.array([run["gamma"] for run in runs])
    identical = jnp.array([round(run["fraction"] * settings["width"]) for run in runs])
    batches = _batches(batch_key, len(images), settings)
    step_size = settings["optimizers"][optimizer]
    params, losses, spreads = _train(
        *(params, anchor, gamma, identical, data, batches),
        optimizer=optimizer.split()[0],
        step_size=step_size,
    )
    shown = np.array(settings["curve_segments"]) - 1
    steps = batches.shape[1] * np.arange(1, settings["segments"] + 1)
    found = {"curve_steps": steps[shown].tolist(), "runs": {}}
    final = _evaluate(params, data, test, settings)
    for place, name in enumerate(names):
        entry = {label: short(values[place]) for label, values in final.items()}
        spread = spreads[place]
        escaped = np.flatnonzero(spread > settings["escaped"])
        entry["spread"] = short(spread[-1])
        entry["escape_step"] = int(steps[escaped[0]]) if len(escaped) else None
        if not name.startswith("sweep"):
            entry["loss_curve"] = [short(loss) for loss in losses[place, shown]]
        found["runs"][name] = entry
    return found


def _runs(settings):
    """Return the name and the choices of each run."""
    runs = [
        (f"{method}, fraction {fraction}", {**choices, "fraction": fraction})
        for method, choices in settings["methods"].items()
        for fraction in settings["fractions"]
    ]
    base = {"anchor": "random", "start": "symmetric", "fraction": 1.0}
    runs += [
        (f"sweep, gamma {gamma}, sigma0 {sigma0}", {**base, "gamma": gamma, "sigma0": sigma0})
        for gamma in settings["sweep"]["gamma"]
        for sigma0 in settings["sweep"]["sigma0"]
    ]
    return runs


def _begin(start_key, anchor_key, width, run):
    """Return the start of phi and the anchor of one run."""
    symmetric = _network(start_key, width, run["fraction"])
    zero = jax.tree.map(jnp.zeros_like, symmetric)
    theta_0 = relative_anchor(symmetric, anchor_key, run["sigma0"])
    anchor = {"zero": zero, "start": symmetric, "random": theta_0}[run["anchor"]]
    moved = jax.tree.map(jnp.add, symmetric, theta_0)
    return (symmetric if run["start"] == "symmetric" else moved), anchor


def _network(key, width, fraction):
    """Return the layers' parameters, whose first units are copies of the first."""
    hidden_key, output_key = jax.random.split(key)
    copied = np.arange(width)
    copied[: round(fraction * width)] = 0
    hidden = uniform_layer(hidden_key, 784, width)
    output = uniform_layer(output_key, width, 10)
    return {
        "hidden": jax.tree.map(lambda leaf: leaf[copied], hidden),
        "output": {**output, "weight": output["weight"][:, copied]},
    }


def _activations(params, x):
    return jax.nn.relu(linear(params["hidden"], x))


def _logits(params, x):
    return linear(params["output"], _activations(params, x))


def _loss(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(_logits(params, x), y).mean()


def _units(params):
    """Return the weights of each hidden unit as a row: incoming, bias, outgoing."""
    hidden, output = params["hidden"], params["output"]
    return jnp.hstack([hidden["weight"], hidden["bias"][:, None], output["weight"].T])


def _batches(key, count, settings):
    """Return the images of each step, shape (segments, steps of a segment, batch)."""
    size, segments = settings["batch_size"], settings["segments"]
    keys = jax.random.split(key, settings["passes"])
    orders = jax.vmap(lambda key: jax.random.permutation(key, count))(keys)
    steps = settings["passes"] * count // size // segments * segments
    return orders.ravel()[: steps * size].reshape(segments, -1, size)


@functools.partial(jax.jit, static_argnames=("optimizer", "step_size"))
def _train(params, anchor, gamma, identical, data, batches, *, optimizer, step_size):
    """Return the trained parameters, and for each segment the mean loss and the spread."""
    transformation = {"sgd": optax.sgd, "adam": optax.adam}[optimizer](step_size)
    images, labels = data

    def loss(params, places):
        return _loss(params, images[places], labels[places])

    def train_one(run):
        params, anchor, gamma, identical = run
        chain = optax.chain(decay_to(anchor, gamma), transformation)
        step = make_step(loss, chain)

        def segment(carry, places):
            carry, losses = jax.lax.scan(step, carry, (places,))
            return carry, (jnp.mean(losses), _spread(carry[0], identical))

        carry = params, chain.init(params)
        (params, _), (losses, spreads) = jax.lax.scan(segment, carry, batches)
        return params, losses, spreads

    # A few runs at a time, whose weights fit the cache.
    return jax.lax.map(train_one, (params, anchor, gamma, identical), batch_size=4)


def _spread(params, identical):
    """Return the root mean square distance of the first units from their mean, over their norm."""
    units = _units(params)
    weights = (jnp.arange(len(units)) < identical) / jnp.maximum(identical, 1)
    distances = jnp.sum((units - weights @ units) ** 2, axis=1)
    norms = jnp.sum(units**2, axis=1)
    return jnp.sqrt(weights @ distances / jnp.maximum(weights @ norms, 1e-30))


def _evaluate(params, data, test, settings):
    """Return arrays with one entry for each run."""
    first = settings["evaluated"]
    x, y = data[0][:first], data[1][:first]
    few = test[0][: settings["rank_batch"]]

    def one(params):
        right = jnp.argmax(_logits(params, test[0]), axis=1) == test[1]
        activations = _activations(params, few)
        return {
            "train_loss": _loss(params, x, y),
            "test_accuracy": jnp.mean(right),
            "distinct_units": _distinct(_units(params), settings["alike"]),
            "effective_rank": effective_rank(activations),
            "dead_units": dead_units(activations),
        }

    # A map, since the activations of all runs at once would fill the memory.
    return jax.tree.map(np.asarray, jax.jit(lambda params: jax.lax.map(one, params))(params))


def _distinct(units, alike):
    """Count the units that are not alike to one before them."""
    distances = jnp.linalg.norm(units[:, None] - units, axis=-1)
    norms = jnp.linalg.norm(units, axis=1)
    near = distances < alike * jnp.maximum(norms[:, None], norms)
    return jnp.sum(~jnp.any(jnp.tril(near, -1), axis=1))


def summarise(settings, results):
    """Return, for each optimizer and run, the mean and the standard error over the seeds.

    The escape step is the median of the runs that escaped, beside their number.
    """
    values = {}
    for optimizer in settings["optimizers"]:
        runs = [
            result["runs"] for name, result in results.items() if name.startswith(f"{optimizer},")
        ]
        values[optimizer] = {name: _summary([run[name] for run in runs]) for name in runs[0]}
    return values


def _summary(entries):
    escapes = [entry["escape_step"] for entry in entries if entry["escape_step"] is not None]
    names = ("train_loss", "test_accuracy", "distinct_units", "effective_rank")
    return {
        **{name: short_mean_error([entry[name] for entry in entries]) for name in names},
        "escaped": len(escapes),
        "escape_step": float(np.median(escapes)) if escapes else None,
    }
