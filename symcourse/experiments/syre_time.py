"""Time one training step with syre beside one of the plain loss, and count its memory.

The network of Figure 4 in Ziyin, Xu & Chuang (2024): four layers, 300 units wide, batches of 64
images of 28 x 28 pixels (random ones: the time does not depend on them), plain gradient descent in
float32. Each step is one call of a compiled function that may overwrite its input: within a scan
XLA would draw the anchor once, before the loop. The variants are timed in turn, so that other load
hits all alike; ratios within one run are what to read. The memory is what a step asks for beside
its arguments, and the optimiser's state.

- "plain": the loss alone;
- "weight decay": optax's own;
- "biased loss": equation 2, the anchor a constant of the loss;
- "stored": the optax form, the anchor in the optimiser's state;
- "hashed": the optax form that keeps the key alone and hashes the anchor in every step;
- "drawn again": the same with JAX's own generator, for comparison.
"""

import os
import platform
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from symcourse.experiments._training import make_step
from symlib.syre import anchored_decay, draw_anchor, remove_symmetry

SETTINGS = {
    "seed": 5,
    "width": 300,
    "inputs": 784,
    "classes": 10,
    "batch_size": 64,
    "gamma": 1e-3,
    "learning_rate": 0.01,
    "steps": 40,
    "repeats": 25,
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = (
    "four layers",
    {"width": 5, "inputs": 6, "classes": 3, "batch_size": 4, "steps": 2, "repeats": 1},
)


def cases(settings):
    """Return the one case."""
    return [("four layers", {"hidden_layers": 3})]


def run_case(settings, case, key):
    """Return the milliseconds a step and the bytes of every variant."""
    network_key, image_key, label_key, anchor_key = jax.random.split(key, 4)
    network = eqx.nn.MLP(
        settings["inputs"],
        settings["classes"],
        settings["width"],
        case["hidden_layers"],
        key=network_key,
    )
    params, static = eqx.partition(network, eqx.is_inexact_array)
    steps, batch = settings["steps"], settings["batch_size"]
    images = list(jax.random.normal(image_key, (steps, batch, settings["inputs"])))
    labels = list(jax.random.randint(label_key, (steps, batch), 0, settings["classes"]))

    def loss(params, images, labels):
        logits = jax.vmap(eqx.combine(params, static))(images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    gamma, sgd = settings["gamma"], optax.sgd(settings["learning_rate"])
    variants = {
        "plain": (loss, sgd),
        "weight decay": (loss, optax.chain(optax.add_decayed_weights(2 * gamma), sgd)),
        "biased loss": (remove_symmetry(loss, params, anchor_key, gamma=gamma)[0], sgd),
        "stored": (loss, optax.chain(anchored_decay(anchor_key, gamma=gamma), sgd)),
        "hashed": (loss, optax.chain(anchored_decay(anchor_key, gamma=gamma, store=False), sgd)),
        "drawn again": (loss, optax.chain(_drawn_again(anchor_key, gamma), sgd)),
    }
    compiled, carries = {}, {}
    for name, (objective, optimizer) in variants.items():
        # A copy, since a step overwrites its input.
        carries[name] = jax.tree.map(jnp.copy, (params, optimizer.init(params)))
        step = jax.jit(make_step(objective, optimizer), donate_argnums=0)
        compiled[name] = step.lower(carries[name], (images[0], labels[0])).compile()
    state_bytes = {name: _bytes(state) for name, (_, state) in carries.items()}
    seconds = {name: [] for name in compiled}
    for _ in range(settings["repeats"]):
        for name, step in compiled.items():
            start = time.perf_counter()
            for batch in zip(images, labels, strict=True):
                carries[name], _ = step(carries[name], batch)
            jax.block_until_ready(carries[name])
            seconds[name].append((time.perf_counter() - start) / steps)
    return {
        "milliseconds": {name: 1e3 * float(np.median(times)) for name, times in seconds.items()},
        "state_bytes": state_bytes,
        "temporary_bytes": {
            name: step.memory_analysis().temp_size_in_bytes for name, step in compiled.items()
        },
        "parameter_bytes": _bytes(params),
    }


def summarise(settings, results):
    """Return the ratios of the times to that of the plain loss."""
    (found,) = results.values()
    plain = found["milliseconds"]["plain"]
    values = {"cores": os.cpu_count(), "processor": platform.machine()}
    values["time_to_plain"] = {name: time / plain for name, time in found["milliseconds"].items()}
    for kind in ("state", "temporary"):
        values[f"{kind}_to_parameters"] = {
            name: size / found["parameter_bytes"] for name, size in found[f"{kind}_bytes"].items()
        }
    return values


def _drawn_again(key, gamma):
    """Return `anchored_decay` with an anchor from JAX's generator in every step."""

    def update(updates, key, params):
        anchor, _ = draw_anchor(params, key)
        pull = jax.tree.map(lambda u, p, a: u + 2 * gamma * (p - a), updates, params, anchor)
        return pull, key

    return optax.GradientTransformation(lambda _: key, update)


def _bytes(tree):
    return sum(jnp.asarray(leaf).nbytes for leaf in jax.tree.leaves(tree))
