"""Rotations and reflections of a latent space."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from symlib._checks import (
    array_shape,
    caller,
    floating_leaves,
    has_axis,
    like,
    positive_integer,
    refuse_if,
)
from symlib.groups._told import told
from symlib.groups.group import InfiniteGroup
from symlib.groups.rotations import rotation_log_mixture, rotation_log_ratio, stack_rows


class Orthogonal(InfiniteGroup):
    r"""The orthogonal group $O(k) = \{T : T^\top T = I\}$, rotations and reflections.

    It acts on the last axis, $X \mapsto X T^\top$, of every leaf of `z`, so that a pair
    $(U, V)$ of factors keeps its product $U V^\top$ (Moore 2016, section 3.2; the paper writes
    $X T$, which is the action of the inverse).

    An array counts as an element when $T^\top T$ differs from $I$ by at most the square root of
    the machine precision of its dtype (3.5e-4 in float32, 1.5e-8 in float64). In half precision
    four times the machine precision are allowed (.031 in bfloat16, .0039 in float16).

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from symlib import Orthogonal
    >>> U, V = jnp.ones((3, 2)), jnp.ones((4, 2))
    >>> group = Orthogonal(2)
    >>> turned, also = group.act(group.sample(jax.random.key(0)), (U, V))
    >>> bool(jnp.allclose(turned @ also.T, U @ V.T))
    True

    Args:
        k: Size of the matrices.
    """

    k: int = eqx.field(static=True)

    def __check_init__(self):
        positive_integer("k", self.k)

    def identity(self) -> Float[Array, "k k"]:
        return jnp.eye(self.k)

    def sample(self, key: PRNGKeyArray) -> Float[Array, "k k"]:
        """Draw from the Haar law: the Q factor of a Gaussian matrix (Mezzadri 2007, section 5)."""
        q, r = jnp.linalg.qr(jax.random.normal(key, (self.k, self.k)))
        # QR is unique only once R has a positive diagonal; without this the law is not uniform.
        return q * jnp.where(jnp.diagonal(r) < 0, -1, 1)

    def act(self, g, z):
        g, z = self._check_element(g), self.check_point(z)
        return jax.tree.map(lambda leaf: _product(leaf, g.T.astype(leaf.dtype)), z)

    def inverse(self, g):
        return self._check_element(g).T

    def compose(self, g, h):
        return _product(self._check_element(g), self._check_element(h))

    def log_ratio(self, base, z):
        r"""Return $\log q^*(z) - \log\tilde q(z)$ in nats: a Bessel function of a matrix.

        For a Gaussian with one variance for each row of the leaves of `z`. Exact up to k = 3;
        above, the error is that of `symlib.special.log_hyp0f1`.

        Raises:
            ValueError: `z` has a wrong shape, or the base says no `row_variances()`: there is no
                closed form.
            RuntimeError: A traced value is such.
        """
        if not self.acts_as(Orthogonal):
            return super().log_ratio(base, z)
        return rotation_log_ratio(*self._rows(base, z))

    def log_mixture(self, base, z):
        r"""Return $\log\tilde q(z)$ in nats, also far from the base: see `rotation_log_mixture`.

        Raises as `log_ratio` does.
        """
        if not self.acts_as(Orthogonal):
            return super().log_mixture(base, z)
        return rotation_log_mixture(*self._rows(base, z))

    def _rows(self, base, z):
        """Return the point, the mean and the variances of the base, as matrices of rows."""
        variances = told(base, "row_variances")
        if variances is None:
            raise ValueError(
                f"{caller()}: no closed form for the infinite group {self} and a "
                f"{type(base).__name__}. Orthogonal(k) has one with an IsotropicGaussian; for "
                "a DiagonalGaussian symlib.posteriors.rotation_kl_bound bounds the divergence."
            )
        z = like("z", self.check_point(z), base.mean)
        return stack_rows(z), stack_rows(base.mean), variances

    def _check_element(self, g):
        g = floating_leaves("T", array_shape("T", g, (self.k, self.k)))
        # Rounding in a product of matrices grows slowly; sqrt(eps) leaves it room and still
        # notices any real error. In half precision rounding the entries alone costs up to eps.
        exact = g.astype(jnp.promote_types(g.dtype, jnp.float32))
        tolerance = max(math.sqrt(jnp.finfo(exact.dtype).eps), 4 * float(jnp.finfo(g.dtype).eps))
        error = jnp.max(jnp.abs(_product(exact.T, exact) - jnp.eye(self.k, dtype=exact.dtype)))
        return refuse_if(g, ~(error <= tolerance), f"{caller()}: T is not orthogonal.")

    def check_point(self, z):
        return has_axis(floating_leaves("z", z), -1, self.k)


def _product(left, right):
    # Accelerators round the factors of a float32 product to ten bits unless told otherwise.
    return jnp.matmul(left, right, precision="highest")
