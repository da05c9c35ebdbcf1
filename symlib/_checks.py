"""Checks of arguments, shared by all modules: each raises a ValueError in one sentence.

It begins with the name of the function that the user called, see `caller`.
"""

import math
import operator
import sys
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

# Between a function of ours and its caller may stand their frames, which say nothing to a user.
_BETWEEN = ("jax", "equinox", "jaxtyping", "beartype", "optax", "contextlib", "functools")


def caller() -> str:
    """Return the name of the function of symlib that was called from outside, by a user's code.

    Read from the stack, so that no function has to hand its name down.
    """
    name = "symlib"
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "").split(".")[0]
        if module == "symlib":
            name = _name(frame)
        elif module not in _BETWEEN and not frame.f_code.co_filename.startswith("<@beartype"):
            break
        frame = frame.f_back
    return name


def _name(frame) -> str:
    method = frame.f_code.co_name
    name = frame.f_code.co_qualname.split(".<locals>")[0]
    if "." not in name or "self" not in frame.f_locals:
        return name
    owner = type(frame.f_locals["self"]).__name__
    return owner if method.startswith("__") else f"{owner}.{method}"


def refuse_if(value, wrong, message: str):
    """Return `value`; raise if any of `wrong`.

    What is known raises a ValueError now, what is traced a runtime error when it is run.
    """
    if isinstance(wrong, jax.core.Tracer):
        return eqx.error_if(value, wrong, message)
    if np.any(wrong):
        raise ValueError(message)
    return value


def positive_integer(name: str, value) -> int:
    """Return `value` as an int of at least 1."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{caller()}: {name} has to be an integer of at least 1, got {value!r}.")
    return number


def floating_leaves(name: str, tree: PyTree) -> PyTree:
    """Return `tree` with arrays as leaves, of which there is at least one, all floating point."""
    if any(callable(leaf) for leaf in jax.tree.leaves(tree)):  # the activation of a network
        raise ValueError(
            f"{caller()}: {name} holds functions beside its arrays; pass the arrays alone, "
            "equinox.filter(network, equinox.is_inexact_array)."
        )
    tree = jax.tree.map(jnp.asarray, tree)
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(tree)]
    if not dtypes or not all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes):
        found = ", ".join(map(str, dtypes)) or "no array"
        raise ValueError(f"{caller()}: {name} has to hold floating-point arrays, got {found}.")
    return tree


def at_least_single(dtype) -> jnp.dtype:
    """Return float32 for half precision, and float32 and float64 as they are."""
    return jnp.promote_types(dtype, jnp.float32)


def like(name: str, tree: PyTree, target: PyTree) -> PyTree:
    """Return `tree` as floating-point arrays, which have to have the shapes of `target`."""
    tree = floating_leaves(name, tree)
    shapes, expected = (jax.tree.map(jnp.shape, t) for t in (tree, target))
    if shapes != expected:
        raise ValueError(f"{caller()}: {name} has to have shape {expected}, got {shapes}.")
    return tree


def full_precision(name: str, tree: PyTree) -> PyTree:
    """Return `tree` as `floating_leaves` does; half precision is refused as well.

    In it sums of log densities are wrong in the second digit, and an optimiser's steps vanish.
    """
    tree = floating_leaves(name, tree)
    for leaf in jax.tree.leaves(tree):
        if jnp.finfo(leaf.dtype).bits < 32:
            raise ValueError(
                f"{caller()}: {name} has to be float32 or float64, got {leaf.dtype}; keep it in "
                "float32 and cast it where your model needs half precision."
            )
    return tree


def real_element(name: str, value, shape: tuple[int, ...]) -> jax.Array:
    """Return `value` as a real floating-point array, which has to have `shape`."""
    array = array_shape(name, value, shape)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"{caller()}: {name} has to be real, got {array.dtype}.")
    return array.astype(jnp.result_type(array, float))  # small integers would overflow


def scalar(name: str, value) -> jax.Array:
    """Return `value`, what a function gave for one point, which has to be one real number."""
    shape, dtype = jnp.shape(value), jnp.result_type(value)
    if shape != () or jnp.issubdtype(dtype, jnp.complexfloating):
        found = f"shape {shape}" if shape else dtype
        raise ValueError(f"{caller()}: {name} has to return a scalar, got {found}.")
    return jnp.asarray(value)


def with_methods(name: str, value, *methods: str):
    """Return `value`, which has to have these methods."""
    missing = [method for method in methods if not callable(getattr(value, method, None))]
    if missing:
        raise ValueError(
            f"{caller()}: {name} has to have {' and '.join(f'{m}()' for m in methods)}; a "
            f"{type(value).__name__} lacks {' and '.join(f'{m}()' for m in missing)}."
        )
    return value


def mean_and_error(terms: jax.Array, message: str) -> tuple[jax.Array, jax.Array]:
    """Return the mean of independent terms, all finite, and its standard error."""
    terms = refuse_if(terms, ~jnp.isfinite(terms), f"{caller()}: {message}")
    variance = jnp.var(terms, ddof=1) / len(terms)
    # The square root has no slope at 0, where all terms are equal: 0 stands for it.
    positive = variance > 0
    error = jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0)
    return jnp.mean(terms), error


def no_derivative(remedy: str, tree: PyTree) -> PyTree:
    """Return `tree`, whose derivatives raise a ValueError that names the remedy."""

    name = caller()  # a derivative may be taken when the call is over

    @jax.custom_jvp
    def same(tree):
        return tree

    @same.defjvp
    def refuse(primals, tangents):
        raise ValueError(f"{name} has no derivative: {remedy}, or take it out of the gradient.")

    return same(tree)


def array_shape(name: str, value, shape: tuple[int, ...]) -> jax.Array:
    """Return `value` as an array, which has to have `shape`."""
    array = jnp.asarray(value)
    if array.shape != shape:
        raise ValueError(f"{caller()}: {name} has to have shape {shape}, got {array.shape}.")
    return array


def has_axis(tree: PyTree, axis: int, length: int) -> PyTree:
    """Return `tree`, whose leaves have to have `length` entries along `axis`, 0 or -1."""
    for leaf in jax.tree.leaves(tree):
        if leaf.ndim == 0 or leaf.shape[axis] != length:
            which = "last" if axis else "first"
            raise ValueError(
                f"{caller()}: the {which} axis of z has to have length {length}, got {leaf.shape}."
            )
    return tree


def split_parts(tree: PyTree, count: int) -> tuple[list, Callable[[list], PyTree]]:
    """Return the `count` parts of a tuple, list or array, and the function that joins them."""
    if isinstance(tree, tuple | list):
        parts = list(tree)
        join = jax.tree.structure(tree, is_leaf=lambda part: part is not tree).unflatten
    elif isinstance(tree, jax.Array | np.ndarray) and tree.ndim > 0:
        parts, join = list(tree), jnp.stack
    else:
        raise ValueError(
            f"{caller()}: expected a tuple, list or array of {count} parts, got {tree!r}."
        )
    if len(parts) != count:
        raise ValueError(f"{caller()}: expected {count} parts, got {len(parts)}.")
    return parts, join


def nonnegative(name: str, value, below: float = math.inf):
    """Return `value`, a float or a traced scalar, which has to be in [0, below)."""
    wanted = "at least 0 and finite" if below == math.inf else f"at least 0 and below {below}"
    message = f"{caller()}: {name} has to be {wanted}"
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


def positive(name: str, value):
    """Return `value`, a float or a traced scalar, which has to be above 0 and finite."""
    value = nonnegative(name, value)
    message = f"{caller()}: {name} has to be above 0, and not below 1.2e-38"
    if isinstance(value, float):
        if value < np.finfo(np.float32).tiny:  # it would become 0 in float32
            raise ValueError(f"{message}, got {value}.")
        return value
    return eqx.error_if(value, value == 0, f"{message}.")


def entries(name: str, value, holds: Callable, wanted: str):
    """Return the array `value`, of whose entries `holds` has to be True; of NaN no comparison is.

    What is known raises a ValueError with the first wrong entry, what is traced a RuntimeError.
    """
    message = f"{caller()}: {name} has to be {wanted}"
    if isinstance(value, jax.core.Tracer):
        return eqx.error_if(value, ~holds(value), f"{message}.")
    known = np.asarray(value)
    wrong = known[~np.asarray(holds(known))]
    if wrong.size:
        raise ValueError(f"{message}, got {wrong.flat[0]}.")
    return value


def finite(name: str, value):
    """Return the array `value`, whose entries have to be finite."""
    return entries(name, value, lambda array: abs(array) < math.inf, "finite")
