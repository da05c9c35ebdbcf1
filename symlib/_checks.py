"""Static checks of arguments, shared by the modules: each raises a ValueError in one sentence."""

import math
import operator
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def positive_integer(owner: object, name: str, value) -> int:
    """Return `value` as an int of at least 1."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{owner}: {name} has to be an integer of at least 1, got {value!r}.")
    return number


def floating_leaves(owner: object, name: str, tree: PyTree) -> PyTree:
    """Return `tree` with arrays as leaves, of which there is at least one, all floating point."""
    if any(callable(leaf) for leaf in jax.tree.leaves(tree)):  # the activation of a network
        raise ValueError(
            f"{owner}: {name} holds functions beside its arrays; pass the arrays alone, "
            "equinox.filter(network, equinox.is_inexact_array)."
        )
    tree = jax.tree.map(jnp.asarray, tree)
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(tree)]
    if not dtypes or not all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes):
        found = ", ".join(map(str, dtypes)) or "no array"
        raise ValueError(f"{owner}: {name} has to hold floating-point arrays, got {found}.")
    return tree


def at_least_single(dtype) -> jnp.dtype:
    """Return float32 for half precision, and float32 and float64 as they are."""
    return jnp.promote_types(dtype, jnp.float32)


def full_precision(owner: object, name: str, tree: PyTree) -> PyTree:
    """Return `tree` as `floating_leaves` does; half precision is refused as well.

    Sums of log densities in half precision are wrong in the second digit, and an optimiser's
    steps vanish in the rounding of its parameters.
    """
    tree = floating_leaves(owner, name, tree)
    for leaf in jax.tree.leaves(tree):
        if jnp.finfo(leaf.dtype).bits < 32:
            raise ValueError(
                f"{owner}: {name} has to be float32 or float64, got {leaf.dtype}; keep it in "
                "float32 and cast it where your model needs half precision."
            )
    return tree


def real_element(owner: object, name: str, value, shape: tuple[int, ...]) -> jax.Array:
    """Return `value` as a real floating-point array, which has to have `shape`."""
    array = array_shape(owner, name, value, shape)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"{owner}: {name} has to be real, got {array.dtype}.")
    return array.astype(jnp.result_type(array, float))  # small integers would overflow


def scalar(owner: object, name: str, value) -> jax.Array:
    """Return `value`, what a function gave for one point, which has to be one real number."""
    shape, dtype = jnp.shape(value), jnp.result_type(value)
    if shape != () or jnp.issubdtype(dtype, jnp.complexfloating):
        found = f"shape {shape}" if shape else dtype
        raise ValueError(f"{owner}: {name} has to return a scalar, got {found}.")
    return jnp.asarray(value)


def mean_and_error(owner: object, terms: jax.Array, message: str) -> tuple[jax.Array, jax.Array]:
    """Return the mean of independent terms, all finite, and its standard error."""
    terms = eqx.error_if(terms, ~jnp.isfinite(terms), f"{owner}: {message}")
    variance = jnp.var(terms, ddof=1) / len(terms)
    # The square root has no slope at 0, where all terms are equal: 0 stands for it.
    positive = variance > 0
    error = jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0)
    return jnp.mean(terms), error


def no_derivative(owner: object, remedy: str, tree: PyTree) -> PyTree:
    """Return `tree`, whose derivatives raise a ValueError that names the remedy."""

    @jax.custom_jvp
    def same(tree):
        return tree

    @same.defjvp
    def refuse(primals, tangents):
        raise ValueError(f"{owner} has no derivative: {remedy}, or take it out of the gradient.")

    return same(tree)


def array_shape(owner: object, name: str, value, shape: tuple[int, ...]) -> jax.Array:
    """Return `value` as an array, which has to have `shape`."""
    array = jnp.asarray(value)
    if array.shape != shape:
        raise ValueError(f"{owner}: {name} has to have shape {shape}, got {array.shape}.")
    return array


def has_axis(owner: object, tree: PyTree, axis: int, length: int) -> PyTree:
    """Return `tree`, whose leaves have to have `length` entries along `axis`, 0 or -1."""
    for leaf in jax.tree.leaves(tree):
        if leaf.ndim == 0 or leaf.shape[axis] != length:
            which = "last" if axis else "first"
            raise ValueError(
                f"{owner}: the {which} axis of z has to have length {length}, got {leaf.shape}."
            )
    return tree


def split_parts(owner: object, tree: PyTree, count: int) -> tuple[list, Callable[[list], PyTree]]:
    """Return the `count` parts of a tuple, list or array, and the function that joins them."""
    if isinstance(tree, tuple | list):
        parts = list(tree)
        join = jax.tree.structure(tree, is_leaf=lambda part: part is not tree).unflatten
    elif isinstance(tree, jax.Array | np.ndarray) and tree.ndim > 0:
        parts, join = list(tree), jnp.stack
    else:
        raise ValueError(
            f"{owner}: expected a tuple, list or array of {count} parts, got {tree!r}."
        )
    if len(parts) != count:
        raise ValueError(f"{owner}: expected {count} parts, got {len(parts)}.")
    return parts, join


def nonnegative(owner: object, name: str, value, below: float = math.inf):
    """Return `value`, a float or a traced scalar, which has to be in [0, below)."""
    wanted = "at least 0 and finite" if below == math.inf else f"at least 0 and below {below}"
    message = f"{owner}: {name} has to be {wanted}"
    if isinstance(value, jax.core.Tracer):
        if value.shape != ():
            raise ValueError(f"{message}, got an array of shape {value.shape}.")
        return eqx.error_if(value, ~((value >= 0) & (value < below)), f"{message}.")
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < below:
        raise ValueError(f"{message}, got {value!r}.")
    return number


def positive(owner: object, name: str, value):
    """Return `value`, a float or a traced scalar, which has to be above 0 and finite."""
    value = nonnegative(owner, name, value)
    message = f"{owner}: {name} has to be above 0, and not below 1.2e-38"
    if isinstance(value, float):
        if value < np.finfo(np.float32).tiny:  # it would become 0 in float32
            raise ValueError(f"{message}, got {value}.")
        return value
    return eqx.error_if(value, value == 0, f"{message}.")


def entries(owner: object, name: str, value, holds: Callable, wanted: str):
    """Return the array `value`, of whose entries `holds` has to be True; of NaN no comparison is.

    What is known raises a ValueError with the first wrong entry, what is traced a RuntimeError.
    """
    message = f"{owner}: {name} has to be {wanted}"
    if isinstance(value, jax.core.Tracer):
        return eqx.error_if(value, ~holds(value), f"{message}.")
    known = np.asarray(value)
    wrong = known[~np.asarray(holds(known))]
    if wrong.size:
        raise ValueError(f"{message}, got {wrong.flat[0]}.")
    return value


def finite(owner: object, name: str, value):
    """Return the array `value`, whose entries have to be finite."""
    return entries(owner, name, value, lambda array: abs(array) < math.inf, "finite")
