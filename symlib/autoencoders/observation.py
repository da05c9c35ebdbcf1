r"""Observation models: how far data are from what a decoder says, and the curvature of that.

An observation model takes the output $o$ of a decoder and an observation $x$. Its loss is
$-\log p(x | o)$, up to a constant that is stated; its curvature is the diagonal of the loss's
Hessian in $o$. Entries are independent, so that the Hessian is diagonal; it is never negative.

Both models here refuse data that their law does not have, NaN among them: a ValueError where the
data are known, a RuntimeError where they are traced. The two arrays have to have one shape.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from symlib._checks import caller, entries, finite, full_precision


class Observation(NamedTuple):
    r"""A loss $-\log p(x | o)$ in nats and its curvature; both are functions (x, output).

    The loss returns a scalar. The curvature returns an array of the shape of the output, or one
    number for all its entries, at least 0.
    """

    loss: Callable[[Array, Array], Float[Array, ""]]
    curvature: Callable[[Array, Array], Array]


def _check_shapes(x, output):
    if jnp.shape(x) != jnp.shape(output):  # or (D,) and (D, 1) would make D^2 errors
        raise ValueError(
            f"{caller()}: x and the output have to have one shape, got {jnp.shape(x)} and "
            f"{jnp.shape(output)}."
        )


def _squared_error(x, output):
    _check_shapes(x, output)
    full_precision("x or the output", jnp.empty((), jnp.result_type(x, output, float)))
    return 0.5 * jnp.sum((finite("x", x) - output) ** 2)


def _probabilities(x):
    # Outside of [0, 1] the loss has no lower bound: the logit runs away.
    wanted = "in [0, 1], and pixels up to 255 to be divided by 255"
    return entries("x", x, lambda x: (x >= 0) & (x <= 1), wanted)


def _bernoulli(x, output):
    _check_shapes(x, output)
    x = _probabilities(x)
    # Not log(1 + e^o) - x o, whose digits cancel for a large logit that is right.
    return jnp.sum(x * jax.nn.softplus(-output) + (1 - x) * jax.nn.softplus(output))


def _bernoulli_curvature(x, output):
    # x only says whether there is such a law; without it in the result the check would be left out.
    return jax.nn.sigmoid(output) * jax.nn.sigmoid(-output) + 0 * _probabilities(x)


# Independent entries of variance 1 with the output as mean: |x - o|^2 / 2, without the constant
# (D / 2) log(2 pi). Curvature 1.
GAUSSIAN = Observation(_squared_error, lambda x, output: jnp.ones_like(output))

# Independent entries of 0 or 1 with the output as logit: the whole -log p; for x between, which is
# a probability then, the cross-entropy. Curvature p (1 - p) with p the sigmoid of the output. In
# terms of the probability itself the Hessian of the loss is 1 / (1 - x - p)^2, and a decoder that
# ends in a sigmoid has a Hessian of its own on top.
BERNOULLI = Observation(_bernoulli, _bernoulli_curvature)
