"""Groups without a uniform law: scalings and translations."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from symlib._checks import (
    array_shape,
    caller,
    floating_leaves,
    positive_integer,
    real_element,
    refuse_if,
    split_parts,
)
from symlib.groups.group import Group, InfiniteGroup


def _no_uniform_law(group: Group, remedy: str) -> ValueError:
    return ValueError(
        f"{caller()}: {group} is not compact, so there is no uniform law to sample from: {remedy}, "
        "or choose the elements yourself."
    )


class Scaling(InfiniteGroup):
    r"""The positive numbers with $a \cdot (u, v) = (a u, v / a)$, which keep the product $u v$.

    The point `z` is a pair of arrays. The group is not compact: the exchange of scale between
    two factors, or between two layers of a ReLU network, has no uniform law.
    """

    def identity(self) -> Float[Array, ""]:
        return jnp.ones(())

    def sample(self, key: PRNGKeyArray):
        raise _no_uniform_law(self, "fix the scale by a convention such as |u| = |v|")

    def act(self, g, z):
        g = self._check_element(g)
        (u, v), join = split_parts(self.check_point(z), 2)
        # In half precision the scale itself might be 0 or infinite.
        u = jax.tree.map(lambda leaf: (leaf * g).astype(leaf.dtype), u)
        v = jax.tree.map(lambda leaf: (leaf / g).astype(leaf.dtype), v)
        return join([u, v])

    def inverse(self, g):
        return self._check_element(1 / self._check_element(g))

    def compose(self, g, h):
        # The product can overflow, and is then no element.
        return self._check_element(self._check_element(g) * self._check_element(h))

    def _check_element(self, g):
        g = real_element("a scale", g, ())
        wrong = ~((g > 0) & jnp.isfinite(g))
        return refuse_if(g, wrong, f"{caller()}: a scale has to be positive and finite.")

    def check_point(self, z):
        z = floating_leaves("z", z)
        split_parts(z, 2)
        return z


class Translation(InfiniteGroup):
    r"""The vectors $t \in \mathbb{R}^d$ with $t \cdot z = z + t$. The group is not compact.

    Args:
        dim: Length d of the vectors `z` and `t`.
    """

    dim: int = eqx.field(static=True)

    def __check_init__(self):
        positive_integer("dim", self.dim)

    def identity(self) -> Float[Array, " dim"]:
        return jnp.zeros(self.dim)

    def sample(self, key: PRNGKeyArray):
        raise _no_uniform_law(self, "fix the origin by a convention such as mean(z) = 0")

    def act(self, g, z):
        g, z = self._check_element(g), self.check_point(z)
        return z + g.astype(z.dtype)

    def inverse(self, g):
        return -self._check_element(g)

    def compose(self, g, h):
        return self._check_element(self._check_element(g) + self._check_element(h))

    def _check_element(self, g):
        g = real_element("a shift", g, (self.dim,))
        return refuse_if(g, ~jnp.isfinite(g).all(), f"{caller()}: a shift has to be finite.")

    def check_point(self, z):
        return array_shape("z", floating_leaves("z", z), (self.dim,))
