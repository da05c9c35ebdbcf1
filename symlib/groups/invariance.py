r"""Tell whether a function has the symmetry of a group, $f(g \cdot z) = f(z)$."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from symlib._checks import caller, positive_integer, refuse_if
from symlib.groups.group import Group, identity_first, listed


def invariance_error(
    f: Callable[[PyTree], PyTree],
    group: Group,
    z: PyTree,
    key: PRNGKeyArray | None = None,
    num_elements: int = 16,
    elements: PyTree | None = None,
) -> Float[Array, ""]:
    r"""Return $\max_g |f(g \cdot z) - f(z)|$ over all, drawn or given elements.

    A value far above rounding proves that $f$ lacks the symmetry. A value at rounding is evidence
    for it, not proof: it speaks of this point and these elements. Compare it with the size
    of $f(z)$.

    >>> import jax.numpy as jnp
    >>> from symlib import SignFlip, invariance_error
    >>> point = jnp.array([1.0, 2.0])
    >>> print(invariance_error(jnp.prod, SignFlip(2), point))
    0.0
    >>> print(invariance_error(jnp.sum, SignFlip(2), point))
    6.0

    Args:
        f: Function of a point; an array or a pytree of arrays comes back.
        group: The group.
        z: The point.
        key: Key for the draws, needed if the group has more than `num_elements` elements.
        num_elements: Number of elements drawn uniformly; all are tried if there are no more.
        elements: Elements to try, stacked on a leading axis of each leaf. A non-compact group
            has no uniform law and needs them.

    Raises:
        ValueError: `num_elements` is below 1, or the group is not compact and `elements` is
            missing, or larger than `num_elements` and `key` is.
    """
    if elements is None:
        num_elements = positive_integer("num_elements", num_elements)
        if group.order <= num_elements:
            elements = listed(group)
    if elements is None:
        try:
            jax.eval_shape(group.sample, jax.random.key(0))
        except ValueError as error:
            raise ValueError(f"{error} Pass them as `elements`.") from error
        if key is None:
            raise ValueError(f"{caller()}: {group} needs a key, from which to draw elements.")
        elements = jax.vmap(group.sample)(jax.random.split(key, num_elements))
    reference = f(z)
    errors = jax.vmap(lambda g: _largest_difference(f(group.act(g, z)), reference))(elements)
    return jnp.max(errors)


def require_invariance(
    f: Callable[[PyTree], Float[Array, "..."]],
    group: Group,
    points: PyTree,
    key: PRNGKeyArray,
    value: Float[Array, "..."],
) -> Float[Array, "..."]:
    r"""Return `value`, or raise if $f(g \cdot z)$ differs from $f(z)$ at one of some points.

    Each point is moved by one random element, which is not the identity if the group has at most
    64 elements: one sign flip that the model lacks is then found at the first point. Other groups
    can pass by chance, which a few calls make unlikely.

    Two values agree if they differ by at most the square root of the machine precision, relative
    to the larger of them and of 1 (3.5e-4 in float32), or by eight times what a change of z by
    four roundings does. A smaller violation passes: .35 nats at a log density of 1000. A model
    that computes in half precision inside can be refused wrongly.

    Args:
        f: Function of one point; a real number or an array of them, compared one by one.
        group: A compact group.
        points: Points, stacked on a leading axis of each leaf.
        key: Key for the elements.
        value: What comes back.

    Raises:
        ValueError: The values are known and differ; the message names the group and both values.
        RuntimeError: They differ, under a transformation of JAX.
    """
    points = jax.lax.stop_gradient(points)
    count = len(jax.tree.leaves(points)[0])
    if 1 < group.order <= 64:
        rows = jax.random.randint(key, (count,), 1, group.order)
        elements = jax.tree.map(lambda leaf: leaf[rows], identity_first(group))
    else:
        elements = jax.vmap(group.sample)(jax.random.split(key, count))

    kinds = [leaf.dtype for leaf in jax.tree.leaves(points)]
    step = 4 * max(float(jnp.finfo(kind).eps) for kind in kinds)

    def both(g, z):
        nudged = jax.tree.map(lambda leaf: leaf * (1 + step), z)
        return f(group.act(g, z)), f(z), f(nudged)

    # An accelerator rounds the factors of a product in float32 to ten bits, differently before and
    # after a move, unless told otherwise.
    with jax.default_matmul_precision("highest"):
        moved, still, nudged = jax.lax.stop_gradient(jax.vmap(both)(elements, points))
    kinds = (moved.dtype, *kinds)
    eps = max(float(jnp.finfo(jnp.promote_types(kind, jnp.float16)).eps) for kind in kinds)
    scale = jnp.maximum(1, jnp.maximum(jnp.abs(moved), jnp.abs(still)))
    # What a change of the last digits of z does: data of 2000 with a noise of .03 lose as much.
    rounding = jnp.where(jnp.isfinite(nudged), 8 * jnp.abs(nudged - still), 0)
    # NaN and infinity of the model itself are the caller's to report.
    wrong = jnp.isfinite(still) & ~(jnp.abs(moved - still) <= math.sqrt(eps) * scale + rounding)
    message = (
        f"{caller()}: the model changes under {group}, so that this is no bound of its evidence"
    )
    remedy = "Name a group that it has, or pass check_invariance=False to see the number."
    if isinstance(wrong, jax.core.Tracer):
        return refuse_if(value, wrong.any(), f"{message}. {remedy}")
    if wrong.any():
        worst = jnp.argmax(jnp.where(wrong, jnp.nan_to_num(jnp.abs(moved - still)), -1))
        raise ValueError(
            f"{message}: {still.ravel()[worst]:.6g} became {moved.ravel()[worst]:.6g}. {remedy}"
        )
    return value


def _largest_difference(left: PyTree, right: PyTree) -> Float[Array, ""]:
    def largest(a, b):
        # Integers without a sign would wrap around at 0, and booleans cannot be subtracted.
        kind = jnp.result_type(jnp.asarray(a).dtype, float)
        difference = jnp.abs(jnp.asarray(a, kind) - jnp.asarray(b, kind))
        if not jnp.issubdtype(jnp.result_type(a), jnp.inexact):
            # Large integers may be equal as floats.
            difference = jnp.where(a != b, jnp.maximum(difference, 1), 0)
        return jnp.max(difference)

    differences = jax.tree.map(largest, left, right)
    return jnp.max(jnp.stack(jax.tree.leaves(differences)))
