r"""Remove symmetries from a loss: weight decay towards a small random anchor (syre).

In $\varphi = \theta + \theta_0$, the parameters that the model sees, the biased loss is
$\ell(\varphi) + \gamma \|\varphi - \theta_0\|^2$. At a symmetric point of a reflection with
projection $P$ the decay alone has a gradient along $P$, of norm $2 \gamma \|P \theta_0\|$: it
pushes out.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, PRNGKeyArray, PyTree

from symlib._checks import at_least_single, caller, nonnegative
from symlib.syre.anchor import draw_anchor


def remove_symmetry(
    loss: Callable[..., Any],
    params: PyTree,
    key: PRNGKeyArray,
    *,
    gamma: ArrayLike,
    sigma0: PyTree | Callable[[PyTree], PyTree] | None = None,
    mask: PyTree | Callable[[PyTree], PyTree] = True,
    metric_spread: ArrayLike = 0.0,
    has_aux: bool = False,
) -> tuple[Callable[..., Any], PyTree]:
    r"""Return the biased loss and the anchor $\theta_0$ of syre.

    $\ell_r(\theta) = \ell(\theta + \theta_0) + \gamma \|\theta\|_D^2$, with
    $\theta_0 \sim N(0, \sigma_0^2)$ and $\|\theta\|_D^2 = \sum_i D_i \theta_i^2$ (Ziyin, Xu &
    Chuang 2024, eqs. 2 and 3). With a spread of 0 the metric $D$ is 1, the plain form. Else
    $D_i \sim \mathrm{Uniform}(1 - s, 1 + s)$, the advanced form, for losses with uncountably many
    symmetries, such as rotations.

    Train the biased loss from the same start, with any optimiser that has no weight decay of its
    own; deploy $\theta + \theta_0$ (`deployed`). `anchored_decay` is the same for optax.

    Args:
        loss: Function `(params, *args) -> scalar`, or `-> (scalar, aux)` with `has_aux`.
        params: The parameters, for their shapes: real floating-point arrays, of jax or numpy, in
            any pytree. Other leaves, Python numbers among them, are left alone.
        key: Random key of the anchor and the metric.
        gamma: Strength of the decay, at least 0; many libraries call $2 \gamma$ the weight decay.
            With 0 the loss is shifted, and nothing broken. `anchored_decay` takes a schedule.
        sigma0: Standard deviation of the anchor, at least 0: a number, or a pytree of numbers, or a
            function, as `mask`. By default `default_sigma0`.
        mask: What gets an anchor and a decay: True, or a pytree of True and False that matches
            `params` or its upper levels, such as {"encoder": True, "decoder": False}; or a function
            of the parameters that returns one, and sees None for what is no floating-point array.
        metric_spread: $s$, from 0 to below 1.
        has_aux: Whether the loss returns a pair, of the scalar and of anything else.

    Returns:
        The biased loss, a function as `loss` that passes its further arguments and `aux` on; and
        $\theta_0$, a pytree as `params` with None where nothing is added.

    Raises:
        ValueError: An argument is not as stated, or nothing is left to bias. The biased loss: the
            parameters do not match the anchor, or the loss is no scalar.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> biased, theta_0 = remove_symmetry(
        ...     lambda w: (w[0] * w[1] - 1) ** 2, jnp.zeros(2), jax.random.key(0), gamma=0.1
        ... )
        >>> bool(jnp.allclose(jax.grad(biased)(-theta_0), -0.2 * theta_0))  # pushed out of 0
        True
    """
    if callable(gamma):
        raise ValueError(
            f"{caller()}: gamma has to be a number, since a loss has no step; give the schedule to "
            "anchored_decay."
        )
    gamma = nonnegative("gamma", gamma)
    theta_0, deviation = draw_anchor(params, key, sigma0, mask, metric_spread)

    def biased_loss(theta: PyTree, *args, **kwargs):
        value, aux = loss(deployed(theta, theta_0), *args, **kwargs), None
        if has_aux:
            if not isinstance(value, tuple) or len(value) != 2:
                raise ValueError(
                    f"{caller()}: with has_aux the loss has to return (scalar, aux), got {value!r}."
                )
            value, aux = value
        if isinstance(value, tuple | list | dict) or jnp.shape(value) != ():
            raise ValueError(
                f"{caller()}: loss has to return a scalar, or with has_aux=True (scalar, aux), got "
                f"{value!r}."
            )
        value = value + gamma * _squared_norm(theta, theta_0, deviation)
        return (value, aux) if has_aux else value

    return biased_loss, theta_0


def deployed(params: PyTree, theta_0: PyTree) -> PyTree:
    r"""Return $\theta + \theta_0$, what the model sees; other shapes raise a ValueError."""

    def add(anchor, leaf):
        if anchor is None:
            return leaf
        if jnp.shape(leaf) != jnp.shape(anchor):
            raise ValueError(
                f"{caller()}: the anchor has a leaf of shape {jnp.shape(anchor)} where the "
                f"parameters have {jnp.shape(leaf)}."
            )
        return leaf + anchor

    return jax.tree.map(add, theta_0, params, is_leaf=_is_none)


def _squared_norm(theta, theta_0, deviation):
    """Return the squared norm, in the metric, of the leaves that have an anchor."""

    def of_leaf(anchor, xi, leaf):
        if anchor is None:
            return 0.0
        # In float32 at least: a float16 overflows from a sum of 65504 on.
        leaf = jnp.asarray(leaf)
        leaf = leaf.astype(at_least_single(leaf.dtype))
        return jnp.sum(leaf * leaf) + (0.0 if xi is None else jnp.sum(leaf * (xi * leaf)))

    return sum(jax.tree.leaves(jax.tree.map(of_leaf, theta_0, deviation, theta, is_leaf=_is_none)))


def _is_none(node):
    return node is None
