r"""Measure symmetries of functions: group actions, and reflections in parameter space.

A function has the symmetry of a group when $f(g \cdot z) = f(z)$ for every element. The smallest
case, one reflection, is already enough to trap gradient descent: at a symmetric point the
gradient has no component across the mirror (Ziyin, Xu & Chuang 2024, Proposition 3).
"""

import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, PyTree

from symlib._checks import caller, floating_leaves, positive_integer, refuse_if
from symlib.groups.group import Group, identity_first


def invariance_error(
    f: Callable[[PyTree], PyTree],
    group: Group,
    z: PyTree,
    key: PRNGKeyArray,
    num_elements: int = 16,
    elements: PyTree | None = None,
) -> Float[Array, ""]:
    r"""Return $\max_g |f(g \cdot z) - f(z)|$ over drawn or given elements.

    A value far above rounding proves that $f$ lacks the symmetry. A value at rounding is evidence
    for it, not proof: it speaks of this point and these elements. Compare it with the size
    of $f(z)$.

    Args:
        f: Function of a point; an array or a pytree of arrays comes back.
        group: The group.
        z: The point.
        key: Key for the draws, unused if `elements` is given.
        num_elements: Number of elements drawn uniformly.
        elements: Elements to try, stacked on a leading axis of each leaf. A non-compact group
            has no uniform law and needs them.

    Raises:
        ValueError: `num_elements` is below 1, or the group is not compact and `elements` is
            missing.
    """
    if elements is None:
        positive_integer("num_elements", num_elements)
        try:
            elements = jax.vmap(group.sample)(jax.random.split(key, num_elements))
        except ValueError as error:
            raise ValueError(
                f"{error} For invariance_error, pass the elements to try as `elements`."
            ) from error
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


class Reflection(eqx.Module):
    r"""The reflection $\theta \mapsto \theta - 2(P\theta - \theta')$ across a subspace.

    $P$ is an orthogonal projection, $P = P^\top = P^2$, and $\theta' = P\theta'$ its centre.
    The mirror is the set of $\theta$ with $P\theta = \theta'$: the symmetric points. With
    $\theta = \delta + \theta'$ this is $\delta \mapsto (I - 2P)\delta$, Definition 1.

    The conditions on $P$ and $\theta'$ have to hold to the square root of the machine precision,
    relative to the largest entry: rounding in a product stays well below that, a wrong matrix
    well above.

    Args:
        projection: $P$, shape (d, d).
        center: $\theta'$, shape (d,), or 0.

    Raises:
        ValueError: A shape is wrong.
        RuntimeError: $P$ is not a projection, or $P\theta' \ne \theta'$.

    References:
        Ziyin, Xu & Chuang (2024), Definition 1.
    """

    projection: Float[Array, "d d"]
    center: Float[Array, " d"]

    def __init__(self, projection: ArrayLike, center: ArrayLike = 0.0):
        projection = jnp.asarray(projection)
        # At least float32, also for a point in half precision.
        dtype = jnp.promote_types(jnp.result_type(projection, float), jnp.float32)
        projection = projection.astype(dtype)
        if projection.ndim != 2 or projection.shape[0] != projection.shape[1]:
            raise ValueError(
                f"{caller()}: the projection has to be a square matrix, got {projection.shape}."
            )
        size = projection.shape[0]
        center = jnp.asarray(center, dtype)
        if center.shape not in ((), (size,)):
            raise ValueError(
                f"{caller()}: the center has to have shape ({size},) or be a number, "
                f"got {center.shape}."
            )
        center = jnp.broadcast_to(center, (size,))
        tolerance = math.sqrt(jnp.finfo(dtype).eps)
        asymmetry = jnp.max(jnp.abs(projection - projection.T))
        square = jnp.matmul(projection, projection, precision="highest")
        excess = jnp.max(jnp.abs(square - projection))
        # Written so that NaN counts as wrong.
        projection = refuse_if(
            projection,
            ~((asymmetry <= tolerance) & (excess <= tolerance)),
            f"{caller()}: the projection has to be symmetric and idempotent, P = P^T = P P.",
        )
        off_range = jnp.max(jnp.abs(jnp.matmul(projection, center, precision="highest") - center))
        self.projection = projection
        self.center = refuse_if(
            center,
            ~(off_range <= tolerance * jnp.maximum(1, jnp.max(jnp.abs(center)))),
            f"{caller()}: the center has to lie in the range of P, P center = center.",
        )

    @classmethod
    def swap(cls, size: int, first: Sequence[int], second: Sequence[int]) -> "Reflection":
        r"""Return the exchange of two blocks of coordinates, such as two neurons.

        $P = \frac12 \sum_k (e_{i_k} - e_{j_k})(e_{i_k} - e_{j_k})^\top$ projects on what the blocks
        do not share; the symmetric points have both blocks equal.

        Args:
            size: Number of parameters d.
            first: Positions $i_1, i_2, \dots$ of the first block.
            second: Positions $j_1, j_2, \dots$ of the second, in the matching order.

        Raises:
            ValueError: Blocks of different lengths, overlapping, empty or out of range.
        """
        first, second = list(first), list(second)
        if len(first) != len(second):
            raise ValueError(
                f"{caller()}: the blocks have to match, got {len(first)} and {len(second)} "
                "positions."
            )
        _distinct_positions("Reflection.swap", size, first + second)
        difference = jnp.eye(size)[jnp.array(first)] - jnp.eye(size)[jnp.array(second)]
        return cls(difference.T @ difference / 2)

    @classmethod
    def sign_flip(cls, size: int, positions: Sequence[int]) -> "Reflection":
        r"""Return the change of sign of some coordinates; $P$ is the identity on them.

        Args:
            size: Number of parameters d.
            positions: Coordinates that change sign.

        Raises:
            ValueError: Positions repeated, missing or out of range.
        """
        _distinct_positions("Reflection.sign_flip", size, list(positions))
        return cls(jnp.diag(jnp.zeros(size).at[jnp.array(list(positions))].set(1)))

    @property
    def rank(self) -> Float[Array, ""]:
        """The rank of $P$, its trace: the number of dimensions a symmetric start loses."""
        return jnp.trace(self.projection)

    def act(self, theta: Float[Array, " d"]) -> Float[Array, " d"]:
        r"""Reflect, $\theta - 2(P\theta - \theta')$."""
        return theta - 2 * self._offset(theta)

    def symmetric_point(self, theta: Float[Array, " d"]) -> Float[Array, " d"]:
        r"""Return the nearest point of the mirror, $\theta - (P\theta - \theta')$."""
        return theta - self._offset(theta)

    def distance(self, theta: Float[Array, " d"]) -> Float[Array, ""]:
        r"""Return the distance to the mirror, $\|P\theta - \theta'\|$.

        At a symmetric point, where it has a kink, its gradient is 0.
        """
        offset = self._offset(theta, keep_dtype=False)
        # Scaled, since squares of large entries overflow; any constant gives the same norm.
        scale = jax.lax.stop_gradient(jnp.max(jnp.abs(offset)))
        off = scale > 0
        scale = jnp.where(scale == 0, 1, scale)  # NaN stays
        squares = jnp.sum((offset / scale) ** 2)
        norm = jnp.where(off, jnp.sqrt(jnp.where(off, squares, 1)), squares)
        return (scale * norm).astype(theta.dtype)

    def _offset(self, theta, keep_dtype=True):
        if jnp.shape(theta) != self.center.shape:
            raise ValueError(
                f"{caller()}: theta has to have shape {self.center.shape}, got {jnp.shape(theta)}."
            )
        floating_leaves("theta", theta)
        product = jnp.matmul(self.projection, theta, precision="highest")
        return (product - self.center).astype(theta.dtype if keep_dtype else product.dtype)


def is_symmetric(
    reflection: Reflection, theta: Float[Array, " d"], tolerance: float
) -> Bool[Array, ""]:
    r"""Say whether $\theta$ is a symmetric point, $\|P\theta - \theta'\| \le$ `tolerance`.

    Args:
        reflection: The reflection.
        theta: The parameters.
        tolerance: In the units of `theta`; rounding alone leaves about machine precision times
            the norm of `theta`.

    Raises:
        ValueError: `tolerance` is negative or NaN; `theta` has the wrong shape or holds integers.
        RuntimeError: `theta` holds NaN or infinity.
    """
    if not tolerance >= 0:
        raise ValueError(f"{caller()}: tolerance has to be at least 0, got {tolerance}.")
    distance = reflection.distance(theta)
    distance = refuse_if(distance, jnp.isnan(distance), f"{caller()}: theta holds NaN or infinity.")
    return distance <= tolerance


def reflection_invariance_error(
    f: Callable[[Float[Array, " d"]], PyTree], reflection: Reflection, theta: Float[Array, " d"]
) -> Float[Array, ""]:
    r"""Return the largest entry of $|f(R\theta) - f(\theta)|$ for the reflection $R$.

    Args:
        f: Function of the flat parameter vector, a loss or the outputs of a model.
        reflection: The reflection.
        theta: The parameters.
    """
    return _largest_difference(f(reflection.act(theta)), f(theta))


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


def _distinct_positions(name: str, size: int, positions: list[int]) -> None:
    positive_integer("size", size)
    if not positions or len(set(positions)) < len(positions):
        raise ValueError(f"{name}: positions have to be distinct and not empty, got {positions}.")
    if not all(0 <= position < size for position in positions):
        raise ValueError(f"{name}: positions have to be from 0 to {size - 1}, got {positions}.")
