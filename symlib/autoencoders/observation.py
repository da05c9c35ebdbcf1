"""Observation models: how far data are from what a decoder says, and the curvature of that.

Both models here refuse data that their law does not have, NaN among them, and arrays of two shapes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from symlib._checks import caller, entries, finite, full_precision


class Observation(NamedTuple):
    r"""A loss $-\log p(x | o)$ in nats and its curvature, of (prediction, target).

    The prediction is the decoder's output $o$, the target the observation $x$. The curvature is the
    diagonal of the loss's Hessian in $o$, whose entries are independent: of the shape of the
    output, or one number, at least 0.
    """

    loss: Callable[[Array, Array], Float[Array, ""]]
    curvature: Callable[[Array, Array], Array]


def _check_shapes(prediction, target):
    if jnp.shape(prediction) != jnp.shape(target):  # or (D,) and (D, 1) would make D^2 errors
        raise ValueError(
            f"{caller()}: prediction and target have to have one shape, got "
            f"{jnp.shape(prediction)} and {jnp.shape(target)}."
        )


def _name():
    """Return what the user calls the data: `x` in an objective, `target` in a loss itself."""
    return (
        "target" if caller() in ("squared_error", "bernoulli_loss", "bernoulli_curvature") else "x"
    )


def squared_error(prediction, target):
    _check_shapes(prediction, target)
    dtype = jnp.result_type(prediction, target, float)
    full_precision("prediction or target", jnp.empty((), dtype))
    return 0.5 * jnp.sum((finite(_name(), target) - prediction) ** 2)


def _probabilities(target):
    # Outside of [0, 1] the loss has no lower bound: the logit runs away.
    wanted = "in [0, 1], and pixels up to 255 to be divided by 255"
    return entries(_name(), target, lambda x: (x >= 0) & (x <= 1), wanted)


def bernoulli_loss(prediction, target):
    _check_shapes(prediction, target)
    x = _probabilities(target)
    # Not log(1 + e^o) - x o, whose digits cancel for a large logit that is right.
    return jnp.sum(x * jax.nn.softplus(-prediction) + (1 - x) * jax.nn.softplus(prediction))


def bernoulli_curvature(prediction, target):
    # x only says whether there is such a law; without it in the result the check would be left out.
    p = jax.nn.sigmoid(prediction)
    return p * jax.nn.sigmoid(-prediction) + 0 * _probabilities(target)


# Independent entries of variance 1 with the output as mean: |x - o|^2 / 2, without the constant
# (D / 2) log(2 pi). Curvature 1.
GAUSSIAN = Observation(squared_error, lambda prediction, target: jnp.ones_like(prediction))

# Independent entries of 0 or 1 with the output as logit: the whole -log p; for x between, which is
# a probability then, the cross-entropy. Curvature p (1 - p) with p the sigmoid of the output. In
# terms of the probability itself the Hessian of the loss is 1 / (1 - x - p)^2, and a decoder that
# ends in a sigmoid has a Hessian of its own on top.
BERNOULLI = Observation(bernoulli_loss, bernoulli_curvature)
