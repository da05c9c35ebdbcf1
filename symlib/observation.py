r"""Observation models: how far data are from what a decoder says, and the curvature of that.

An observation model takes the output $o$ of a decoder and an observation $x$. Its loss is
$-\log p(x | o)$, up to a constant that is stated; its curvature is the diagonal of the loss's
Hessian in $o$. Entries are independent, so that the Hessian is diagonal; it is never negative.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Observation(NamedTuple):
    r"""A loss $-\log p(x | o)$ in nats and its curvature; both are functions (x, output)."""

    loss: Callable[[Array, Array], Float[Array, ""]]
    curvature: Callable[[Array, Array], Array]


def _squared_error(x, output):
    return 0.5 * jnp.sum((x - output) ** 2)


def _bernoulli(x, output):
    # log(1 + e^o) - x o: finite for every logit.
    return jnp.sum(jax.nn.softplus(output) - x * output)


# Independent entries of variance 1 with the output as mean: |x - o|^2 / 2, without the constant
# (D / 2) log(2 pi). Curvature 1.
GAUSSIAN = Observation(_squared_error, lambda x, output: jnp.ones_like(output))

# Independent entries of 0 or 1 with the output as logit: the whole -log p. Curvature p (1 - p) with
# p the sigmoid of the output. In terms of the probability itself the Hessian of the loss is
# 1 / (1 - x - p)^2, and a decoder that ends in a sigmoid has a Hessian of its own on top.
BERNOULLI = Observation(
    _bernoulli, lambda x, output: jax.nn.sigmoid(output) * jax.nn.sigmoid(-output)
)
