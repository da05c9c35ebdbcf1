"""What the experiments on networks share: images, starts, batches, steps, means and errors."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from symlib.data import load
from symlib.syre import RELATIVE_SIGMA0, default_sigma0, draw_anchor


def flat_images(name):
    """Return training images and labels and test images and labels, an image as a row of 784.

    The digits of 8 x 8 pixels, which need no network, are enlarged: a pixel becomes 3 x 3, in a
    frame of 2. They stand in for the larger sets in the small cases.
    """
    found = []
    for part in load(name):
        if part.ndim == 3:
            if name == "digits":
                larger = np.kron(part, np.ones((1, 3, 3), np.float32))
                part = np.pad(larger, [(0, 0), (2, 2), (2, 2)])
            part = part.reshape(len(part), -1)
        found.append(jnp.asarray(part))
    return found


def uniform_layer(key, inputs, outputs):
    """Return weights and biases uniform in +-1 / sqrt(fan-in)."""
    bound = 1 / math.sqrt(inputs)
    draws = jax.random.uniform(key, (outputs, inputs + 1), minval=-bound, maxval=bound)
    return {"weight": draws[:, :-1], "bias": draws[:, -1]}


def linear(layer, x):
    """Return the outputs of a layer for inputs in rows."""
    return x @ layer["weight"].T + layer["bias"]


def relative_anchor(params, key, relative):
    """Return an anchor of standard deviation relative / sqrt(fan-in).

    The normal draws are the same for every value of `relative`.
    """
    factor = relative / RELATIVE_SIGMA0
    sigma0 = jax.tree.map(lambda sigma: factor * sigma, default_sigma0(params))
    return draw_anchor(params, key, sigma0)[0]


def start_and_anchor(params, key, method):
    """Return the start of phi, the parameters that the model sees, and the anchor of its decay.

    Methods are "no decay", "plain" and "weight decay", with the anchor 0; "L2 Init", with the
    anchor at the start; "syre S", with a random anchor of standard deviation S / sqrt(fan-in) that
    the start is moved by.
    """
    if method in ("no decay", "plain", "weight decay"):
        return params, jax.tree.map(jnp.zeros_like, params)
    if method == "L2 Init":
        return params, params
    anchor = relative_anchor(params, key, float(method.removeprefix("syre ")))
    return jax.tree.map(jnp.add, params, anchor), anchor


def pull(gradient, params, anchor, gamma):
    """Return gradient + 2 gamma (phi - anchor)."""
    return jax.tree.map(
        lambda slope, leaf, centre: slope + 2 * gamma * (leaf - centre), gradient, params, anchor
    )


def decay_to(anchor, gamma):
    """Return `pull` as a transformation of optax."""
    return optax.stateless(lambda gradient, params: pull(gradient, params, anchor, gamma))


def draw_batches(key, count, settings):
    """Return the places of each step's images: pass after pass over all of them."""
    needed = settings["steps"] * settings["batch_size"]
    keys = jax.random.split(key, math.ceil(needed / count))
    orders = jnp.concatenate([jax.random.permutation(key, count) for key in keys])
    return orders[:needed].reshape(settings["steps"], -1)


def make_step(loss, optimizer):
    """Return a step that `jax.lax.scan` takes: (params, state), inputs -> (params, state), loss.

    `inputs` is the tuple of what `loss` takes behind the parameters.
    """

    def step(carry, inputs):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, *inputs)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    return step


def train(loss, optimizer, params, *inputs):
    """Return the parameters after a step on each entry of the inputs."""
    carry = params, optimizer.init(params)
    (params, _), _ = jax.lax.scan(make_step(loss, optimizer), carry, inputs)
    return params


@eqx.filter_jit
def train_networks(objective, networks, beta, data, batches, key, step_size):
    """Return modules after a step of Adam on each batch of an array, or of several.

    The step size falls to 0 along a cosine.
    """
    params, static = eqx.partition(networks, eqx.is_inexact_array)

    def loss(params, places, key):
        batch = jax.tree.map(lambda leaf: leaf[places], data)
        return objective(eqx.combine(params, static), batch, key, beta)

    optimizer = optax.adam(optax.cosine_decay_schedule(step_size, len(batches)))
    params = train(loss, optimizer, params, batches, jax.random.split(key, len(batches)))
    return eqx.combine(params, static)


def short(value):
    """Round to four digits, which keeps the file small; None stays None."""
    return None if value is None else float(f"{float(value):.4g}")


def mean_error(samples):
    """Return mean and standard error along the first axis; the error of one sample is None."""
    samples = np.asarray(samples, float)
    mean = samples.mean(axis=0).tolist()
    if len(samples) == 1:
        return [mean, None]
    return [mean, (samples.std(axis=0, ddof=1) / math.sqrt(len(samples))).tolist()]


def short_mean_error(samples):
    """Return mean and standard error of numbers, in four digits."""
    return [short(value) for value in mean_error(samples)]
