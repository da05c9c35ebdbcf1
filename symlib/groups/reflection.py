r"""Reflections in parameter space, and the distance to their mirrors.

One reflection is already enough to trap gradient descent: at a symmetric point the gradient has no
component across the mirror (Ziyin, Xu & Chuang 2024, Proposition 3).
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from symlib._checks import caller, floating_leaves, positive_integer, refuse_if
from symlib.groups.finite import Signs


class Reflection(Signs):
    r"""The reflection $\theta \mapsto \theta - 2(P\theta - \theta')$ across a subspace.

    $P$ is an orthogonal projection, $P = P^\top = P^2$, and $\theta' = P\theta'$ its centre.
    The mirror is the set of $\theta$ with $P\theta = \theta'$: the symmetric points. With
    $\theta = \delta + \theta'$ this is $\delta \mapsto (I - 2P)\delta$, Definition 1.

    The conditions on $P$ and $\theta'$ have to hold to the square root of the machine precision,
    relative to the largest entry: rounding in a product stays well below that, a wrong matrix
    well above.

    It is a group of two elements, the signs +1 for the identity and -1 for the reflection.

    Args:
        projection: $P$, shape (d, d).
        center: $\theta'$, shape (d,), or 0.

    Raises:
        ValueError: A shape is wrong, $P$ is no projection, or $P\theta' \ne \theta'$.
        RuntimeError: A traced value is such.

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
        _distinct_positions(size, first + second)
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
        _distinct_positions(size, list(positions))
        return cls(jnp.diag(jnp.zeros(size).at[jnp.array(list(positions))].set(1)))

    @property
    def rank(self) -> Float[Array, ""]:
        """The rank of $P$, its trace: the number of dimensions a symmetric start loses."""
        return jnp.trace(self.projection)

    def __repr__(self) -> str:
        return f"Reflection(dim={self.center.size})"

    def act(self, g, z):
        g, z = self._check_element(g), self.check_point(z)
        return z - (1 - g).astype(z.dtype) * self._offset(z)

    def reflect(self, theta: Float[Array, " d"]) -> Float[Array, " d"]:
        r"""Return the mirror image, $\theta - 2(P\theta - \theta')$."""
        theta = self.check_point(theta)
        return theta - 2 * self._offset(theta)

    def symmetric_point(self, theta: Float[Array, " d"]) -> Float[Array, " d"]:
        r"""Return the nearest point of the mirror, $\theta - (P\theta - \theta')$."""
        theta = self.check_point(theta)
        return theta - self._offset(theta)

    def distance(self, theta: Float[Array, " d"]) -> Float[Array, ""]:
        r"""Return the distance to the mirror, $\|P\theta - \theta'\|$.

        At a symmetric point, where it has a kink, its gradient is 0.
        """
        theta = self.check_point(theta)
        offset = self._offset(theta, keep_dtype=False)
        # Scaled, since squares of large entries overflow; any constant gives the same norm.
        scale = jax.lax.stop_gradient(jnp.max(jnp.abs(offset)))
        off = scale > 0
        scale = jnp.where(scale == 0, 1, scale)  # NaN stays
        squares = jnp.sum((offset / scale) ** 2)
        norm = jnp.where(off, jnp.sqrt(jnp.where(off, squares, 1)), squares)
        return (scale * norm).astype(theta.dtype)

    def check_point(self, z):
        if np.shape(z) != self.center.shape:  # of a list, too
            raise ValueError(
                f"{caller()}: theta has to have shape {self.center.shape}, got {np.shape(z)}."
            )
        return floating_leaves("theta", jnp.asarray(z))

    def _offset(self, theta, keep_dtype=True):
        # The mirror is given, not trained: a fit of a posterior that holds it leaves it alone.
        projection, center = jax.lax.stop_gradient((self.projection, self.center))
        product = jnp.matmul(projection, theta, precision="highest")
        return (product - center).astype(theta.dtype if keep_dtype else product.dtype)


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
        ValueError: `tolerance` is negative or NaN; `theta` has the wrong shape or holds integers,
            NaN or infinity.
        RuntimeError: A traced value is such.
    """
    if not tolerance >= 0:
        raise ValueError(f"{caller()}: tolerance has to be at least 0, got {tolerance}.")
    distance = reflection.distance(theta)
    distance = refuse_if(distance, jnp.isnan(distance), f"{caller()}: theta holds NaN or infinity.")
    return distance <= tolerance


def _distinct_positions(size: int, positions: list[int]) -> None:
    positive_integer("size", size)
    if not positions or len(set(positions)) < len(positions):
        raise ValueError(
            f"{caller()}: positions have to be distinct and not empty, got {positions}."
        )
    if not all(0 <= position < size for position in positions):
        raise ValueError(f"{caller()}: positions have to be from 0 to {size - 1}, got {positions}.")
