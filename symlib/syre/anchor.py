"""Draw the anchor of syre: how large it is, and which parameters get one."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, PRNGKeyArray, PyTree

from symlib._checks import at_least_single, caller, nonnegative
from symlib.syre.hashing import hashed_uniform

# "At least an order of magnitude smaller than the standard initialization" (appendix C.1).
RELATIVE_SIGMA0 = 0.01


def default_sigma0(params: PyTree, output_axis: int | None = None) -> PyTree:
    r"""Return $\sigma_0 = 0.01 / \sqrt{\text{fan-in}}$, a standard deviation, for each leaf.

    The fan-in of an array of two axes or more is the product of all of them but the output's. A
    vector counts its own length, a number 1. Ziyin, Xu & Chuang 2024, appendix C.1, call it a
    variance in one place.

    Args:
        params: The parameters.
        output_axis: Where the weights have their outputs: 0 in equinox, (out, in, ...); -1 in flax,
            (..., in, out). By default a leaf called "kernel" is flax's, and the outputs of all
            others come first. Give -1 for matrices of your own that are used as `x @ w`.

    Raises:
        ValueError: `output_axis` is neither 0 nor -1.
    """
    if output_axis not in (None, 0, -1):
        raise ValueError(f"{caller()}: output_axis has to be 0 or -1, got {output_axis!r}.")

    def of_leaf(path, leaf):
        shape = jnp.shape(leaf) if is_array(leaf) else ()
        last = output_axis == -1 or (output_axis is None and _is_kernel(path))
        if len(shape) > 1:
            shape = shape[:-1] if last else shape[1:]
        return RELATIVE_SIGMA0 / math.sqrt(max(1, math.prod(shape)))

    return jax.tree_util.tree_map_with_path(of_leaf, params)


def draw_anchor(
    params: PyTree,
    key: PRNGKeyArray,
    sigma0: PyTree | Callable[[PyTree], PyTree] | None = None,
    mask: PyTree | Callable[[PyTree], PyTree] = True,
    metric_spread: ArrayLike = 0.0,
    hashed: bool = False,
) -> tuple[PyTree, PyTree]:
    r"""Draw the anchor $\theta_0$ and the deviation $\xi = D - 1$ of the metric from 1.

    The draw of a leaf depends on the key and on its place among the floating-point arrays, not on
    the mask. Both are pytrees as `params`, with None where nothing is drawn; $\xi$ is None
    throughout if its spread is the number 0. $\xi$ is kept since $1 + \xi$ rounds it in float32.

    The other arguments and the errors are those of `remove_symmetry`. With `hashed`, all numbers
    come from `hashed_uniform`, and the anchor has a uniform law of the same standard deviation,
    which is as good for theorems 4 to 6.
    """
    if sigma0 is None:
        sigma0 = default_sigma0(params)
    metric_spread = nonnegative("metric_spread", metric_spread, below=1.0)
    selected = _selected(params, mask)
    sigmas = _for_each_leaf("sigma0", sigma0, params)
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


def is_array(leaf) -> bool:
    """Say whether a leaf is an array, of jax or numpy: a Python number is no parameter."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def array_leaves(params: PyTree) -> PyTree:
    """Return the floating-point arrays of `params` as jax's, with None for all other leaves."""
    arrays = jax.tree_util.tree_map_with_path(_floating_or_none, params)
    if not jax.tree.leaves(arrays):
        raise ValueError(f"{caller()}: params has no floating-point array.")
    return arrays


def _selected(params, mask):
    """Return, for each leaf, (place among the floating-point ones, array), or None if left out."""
    flags = _for_each_leaf("mask", mask, params)
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


def _is_kernel(path) -> bool:
    """Say whether a leaf lies in what flax calls a kernel, a key of a dict or an attribute."""
    names = (getattr(entry, "key", getattr(entry, "name", None)) for entry in path)
    return "kernel" in names


def _for_each_leaf(name, given, params):
    """Return the entry for each leaf of `params`, of a prefix or of a function, as in optax.

    A function sees arrays alone, with None for the rest.
    """
    parts = jax.tree.leaves(given)
    # A network of True and False can be called as well, and is no function.
    if not (callable(given) and parts and all(map(callable, parts))):
        return _broadcast(name, given, params)
    leaves, treedef = jax.tree.flatten(params)
    arrays = [
        leaf if is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact) else None
        for leaf in leaves
    ]
    tree = treedef.unflatten(arrays)
    found = iter(_broadcast(name, given(tree), tree))
    return [False if array is None else next(found) for array in arrays]


def _broadcast(name, prefix, params):
    """Return the entry of `prefix` for each leaf of `params`."""
    try:
        return jax.tree.leaves(jax.tree.broadcast(prefix, params))
    except ValueError as error:
        raise ValueError(
            f"{caller()}: {name} has to match params or its upper levels: {error}"
        ) from error
