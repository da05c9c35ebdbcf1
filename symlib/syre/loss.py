r"""Remove symmetries from a loss: weight decay towards a small random anchor (syre).

$\ell_r(\theta) = \ell(\theta + \theta_0) + \gamma \|\theta\|^2$ with a fixed random $\theta_0$
(Ziyin, Xu & Chuang 2024, eq. 2). In $\varphi = \theta + \theta_0$, the parameters that the model
sees, this is $\ell(\varphi) + \gamma \|\varphi - \theta_0\|^2$: the loss keeps its symmetries and
the decay, whose centre is no symmetric point, has none of them. With $\gamma = 0$ nothing is
broken: the biased loss is the loss, shifted.

At a symmetric point of a reflection with projection $P$ the loss has no gradient along $P$, and
the decay has one of norm $2 \gamma \|P \theta_0\|$, on average close to
$2 \gamma \sigma_0 \sqrt{\mathrm{rank} P}$. It pushes the parameters out of the symmetric point.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from symlib._checks import at_least_single, caller, nonnegative
from symlib.syre.hashing import hashed_uniform

# "At least an order of magnitude smaller than the standard initialization" (appendix C.1).
RELATIVE_SIGMA0 = 0.01


def remove_symmetry(
    loss: Callable[..., Float[Array, ""]],
    params: PyTree,
    key: PRNGKeyArray,
    *,
    gamma: ArrayLike,
    sigma0: PyTree | None = None,
    mask: PyTree = True,
    metric_spread: ArrayLike = 0.0,
) -> tuple[Callable[..., Float[Array, ""]], PyTree]:
    r"""Return the biased loss and the anchor $\theta_0$ of syre.

    $\ell_r(\theta) = \ell(\theta + \theta_0) + \gamma \|\theta\|_D^2$, with
    $\theta_0 \sim N(0, \sigma_0^2)$ and $\|\theta\|_D^2 = \sum_i D_i \theta_i^2$. Train the
    biased loss in place of the loss, from the same start and with any optimiser that has no weight
    decay of its own. The model to deploy is then $\theta + \theta_0$: see `deployed`.
    `symlib.syre` has the same method as an optax transformation.

    With a spread of 0 the metric $D$ is the identity: the plain form, eq. 2. Else
    $D_i \sim \mathrm{Uniform}(1 - s, 1 + s)$: the advanced form, eq. 3, for losses with uncountably
    many symmetries, such as rotations.

    Args:
        loss: Function `(params, *args) -> scalar`.
        params: The parameters, for their shapes: floating-point arrays, of jax or numpy, in any
            pytree. Whatever a network holds beside these is left alone: Python numbers, integer
            arrays, keys, functions, None.
        key: Random key of the anchor and the metric.
        gamma: Strength of the decay, at least 0. Many libraries call $2 \gamma$ the weight decay.
        sigma0: Standard deviation of the anchor, at least 0: a number, or a pytree of numbers as
            `mask`. By default `default_sigma0(params)`.
        mask: What gets an anchor and a decay. True, or a pytree of True and False that matches
            `params` or its upper levels, such as {"encoder": True, "decoder": False}.
        metric_spread: $s$, from 0 to below 1.

    Returns:
        The biased loss, a function `(theta, *args) -> scalar` that passes its further arguments on;
        and $\theta_0$, a pytree as `params` with None where nothing is added.

    Raises:
        ValueError: `gamma`, `sigma0` or `metric_spread` is out of range; nothing is left to bias; a
            selected array is complex; `mask` or `sigma0` does not match `params`. The biased loss:
            the parameters do not match the anchor, or the loss is no scalar.
        RuntimeError: A traced `gamma`, `sigma0` or `metric_spread` is out of range.

    References:
        Ziyin, Xu & Chuang (2024), eqs. 2 and 3.
    """
    gamma = nonnegative("gamma", gamma)
    theta_0, deviation = draw_anchor(params, key, sigma0, mask, metric_spread)

    def biased_loss(theta: PyTree, *args, **kwargs) -> Float[Array, ""]:
        value = loss(deployed(theta, theta_0), *args, **kwargs)
        if isinstance(value, tuple | list | dict) or jnp.shape(value) != ():
            raise ValueError(f"{caller()}: loss has to return a scalar, got {value!r}.")
        return value + gamma * _squared_norm(theta, theta_0, deviation)

    return biased_loss, theta_0


def deployed(params: PyTree, theta_0: PyTree) -> PyTree:
    r"""Return $\theta + \theta_0$, the parameters that the model sees.

    Raises:
        ValueError: A leaf of `params` has another shape than its part of the anchor.
    """

    def add(anchor, leaf):
        if anchor is None:
            return leaf
        if jnp.shape(leaf) != jnp.shape(anchor):
            raise ValueError(
                f"{caller()}: the anchor has a leaf of shape {jnp.shape(anchor)} where the parameters "
                f"have {jnp.shape(leaf)}."
            )
        return leaf + anchor

    return jax.tree.map(add, theta_0, params, is_leaf=_is_none)


def default_sigma0(params: PyTree, output_axis: int = 0) -> PyTree:
    r"""Return $\sigma_0 = 0.01 / \sqrt{\text{fan-in}}$ for each leaf.

    The fan-in of an array of two axes or more is the product of all of them but the output's.
    A vector counts its own length, a number 1.

    Args:
        params: The parameters.
        output_axis: Where the weights have their outputs: 0 in equinox, (out, in, ...); -1 in flax,
            (..., in, out).

    Raises:
        ValueError: `output_axis` is neither 0 nor -1.

    References:
        Ziyin, Xu & Chuang (2024), appendix C.1, which calls the number a variance in one place; the
        default is a standard deviation.
    """
    if output_axis not in (0, -1):
        raise ValueError(f"{caller()}: output_axis has to be 0 or -1, got {output_axis!r}.")

    def of_leaf(leaf):
        shape = jnp.shape(leaf) if is_array(leaf) else ()
        if len(shape) > 1:
            shape = shape[1:] if output_axis == 0 else shape[:-1]
        return RELATIVE_SIGMA0 / math.sqrt(max(1, math.prod(shape)))

    return jax.tree.map(of_leaf, params)


def draw_anchor(
    params: PyTree,
    key: PRNGKeyArray,
    sigma0: PyTree | None = None,
    mask: PyTree = True,
    metric_spread: ArrayLike = 0.0,
    hashed: bool = False,
) -> tuple[PyTree, PyTree]:
    r"""Draw the anchor $\theta_0$ and the deviation $\xi = D - 1$ of the metric from 1.

    The draw of a leaf depends on the key and on its place among the floating-point arrays, not on
    the mask, nor on the other leaves; half precision gets the draw of float32, rounded. Both are
    pytrees as `params`, with None where nothing is drawn; $\xi$ is None throughout if its spread is
    the number 0. $\xi$ is kept in place of $D$ since $1 + \xi$ rounds $\xi$ to multiples of 1e-7 in
    float32.

    The arguments and the errors are those of `remove_symmetry`, but for one. With `hashed`, the
    anchor has the uniform law of standard deviation $\sigma_0$, and all numbers come from
    `symlib.syre`. Theorems 4 to 6 ask of the law that it has a density and its variance.
    """
    if sigma0 is None:
        sigma0 = default_sigma0(params)
    metric_spread = nonnegative("metric_spread", metric_spread, below=1.0)
    selected = _selected(params, mask)
    sigmas = _broadcast("sigma0", sigma0, params)
    anchor_key, metric_key = jax.random.split(key)

    def anchor(place, leaf, sigma):
        leaf_key = jax.random.fold_in(anchor_key, place)
        sample = hashed_uniform if hashed else jax.random.normal
        dtype = at_least_single(leaf.dtype)
        sigma = jnp.asarray(nonnegative("sigma0", sigma), dtype)
        return (sigma * sample(leaf_key, leaf.shape, dtype)).astype(leaf.dtype)

    def deviation(place, leaf, _):
        leaf_key, dtype = jax.random.fold_in(metric_key, place), at_least_single(leaf.dtype)
        if hashed:
            uniform = hashed_uniform(leaf_key, leaf.shape, dtype) / math.sqrt(3)
        else:
            uniform = jax.random.uniform(leaf_key, leaf.shape, dtype, minval=-1)
        return (jnp.asarray(metric_spread, dtype) * uniform).astype(leaf.dtype)

    def draw(of_leaf):
        drawn = [s and of_leaf(*s, sigma) for s, sigma in zip(selected, sigmas, strict=True)]
        return jax.tree.structure(params).unflatten(drawn)

    isotropic = isinstance(metric_spread, float) and metric_spread == 0
    return draw(anchor), draw((lambda *_: None) if isotropic else deviation)


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


def is_array(leaf) -> bool:
    """Say whether a leaf is an array, of jax or numpy: a Python number is no parameter."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def array_leaves(params: PyTree) -> PyTree:
    """Return the floating-point arrays of `params` as jax's, with None for all other leaves."""
    arrays = jax.tree_util.tree_map_with_path(_floating_or_none, params)
    if not jax.tree.leaves(arrays):
        raise ValueError(f"{caller()}: params has no floating-point array.")
    return arrays


def _is_none(node):
    return node is None


def _selected(params, mask):
    """Return, for each leaf, (place among the floating-point ones, array), or None if left out."""
    flags = _broadcast("mask", mask, params)
    selected, count = [], 0
    for (path, leaf), flag in zip(jax.tree_util.tree_leaves_with_path(params), flags, strict=True):
        if not isinstance(flag, bool | np.bool_):
            raise ValueError(f"{caller()}: mask has to hold True or False, got {flag!r}.")
        array = _floating_or_none(path, leaf, flag)
        selected.append((count, array) if flag and array is not None else None)
        count += array is not None
    if not any(selected):
        raise ValueError(f"{caller()}: params has no array to bias, or mask leaves none.")
    return selected


def _floating_or_none(path, leaf, wanted=True):
    """Return a floating-point array as jax's, and None for any other leaf; complex is refused."""
    if not is_array(leaf) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return None
    if isinstance(leaf, jax.core.Tracer) and leaf.aval.weak_type and wanted:
        raise ValueError(
            f"{caller()}: under a transformation of JAX params{jax.tree_util.keystr(path)} "
            "may be a "
            "Python number, which has to be left alone, or an array. Keep numbers out of what is "
            "transformed, as equinox.filter_jit does, and give arrays a dtype."
        )
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        if not wanted:
            return None
        raise ValueError(
            f"{caller()}: params{jax.tree_util.keystr(path)} has to be a floating-point array, got "
            f"{leaf.dtype}. Split it into its real and imaginary part."
        )
    return jnp.asarray(leaf)


def _broadcast(name, prefix, params):
    """Return the entry of `prefix` for each leaf of `params`."""
    try:
        return jax.tree.leaves(jax.tree.broadcast(prefix, params))
    except ValueError as error:
        raise ValueError(
            f"syre: {name} has to match params or its upper levels: {error}"
        ) from error
