"""Sign flips and permutations."""

import math
from itertools import permutations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from symlib._checks import array_shape, floating_leaves, has_axis, real_element, refuse_if
from symlib.groups.group import Group, check_listable


class Signs(Group):
    """A group of two elements, the signs +1 and -1."""

    @property
    def order(self) -> int:
        return 2

    def identity(self) -> Float[Array, ""]:
        return jnp.ones(())

    def sample(self, key: PRNGKeyArray) -> Float[Array, ""]:
        return jax.random.rademacher(key, (), dtype=float)

    def elements(self) -> Float[Array, "2"]:
        return jnp.array([1.0, -1.0])

    def inverse(self, g):
        return self._check_element(g)

    def compose(self, g, h):
        return self._check_element(g) * self._check_element(h)

    def _check_element(self, g):
        g = real_element("a sign", g, ())
        return refuse_if(g, jnp.abs(g) != 1, f"{self}: a sign has to be +1 or -1.")


class SignFlip(Signs):
    r"""The two elements $g \in \{+1, -1\}$ with $g \cdot z = g z$ (Moore 2016, section 3.1).

    One sign serves the whole vector. For independent signs of `n` coordinates take
    `Product(*[SignFlip(1)] * n)`.

    >>> import jax.numpy as jnp
    >>> from symlib import SignFlip
    >>> print(SignFlip(2).act(-1.0, jnp.array([1.5, -2.0])))
    [-1.5  2. ]

    Args:
        dim: Number of entries of `z`, which is any array or pytree with that many in total.
    """

    dim: int = eqx.field(static=True)

    def act(self, g, z):
        g, z = self._check_element(g), self._check_point(z)
        return jax.tree.map(lambda leaf: leaf * g.astype(leaf.dtype), z)

    def _check_point(self, z):
        z = floating_leaves("z", z)
        size = sum(leaf.size for leaf in jax.tree.leaves(z))
        if size != self.dim:
            raise ValueError(f"{self}: z has to have {self.dim} entries in total, got {size}.")
        return z


class Permutation(Group):
    r"""The symmetric group $S_n$, which relabels: $(g \cdot z)_{g(i)} = z_i$.

    An element is the integer array `(g[0], ..., g[n - 1])`; $(g h)(i) = g(h(i))$. It acts on the
    leading axis of every leaf of `z`. There are $n!$ elements, and `elements()` lists them up to
    n = 8.

    Args:
        n: Number of things permuted.
    """

    n: int = eqx.field(static=True)

    @property
    def order(self) -> int:
        return math.factorial(self.n)

    def identity(self) -> Int[Array, " n"]:
        return jnp.arange(self.n)

    def sample(self, key: PRNGKeyArray) -> Int[Array, " n"]:
        return jax.random.permutation(key, self.n)

    def elements(self) -> Int[Array, "order n"]:
        check_listable(self)
        return jnp.array(list(permutations(range(self.n))))

    def act(self, g, z):
        origin = self.inverse(g)
        return jax.tree.map(lambda leaf: leaf[origin], self._check_point(z))

    def inverse(self, g):
        return jnp.argsort(self._check_element(g))

    def compose(self, g, h):
        return self._check_element(g)[self._check_element(h)]

    def _check_element(self, g):
        g = array_shape("a permutation", g, (self.n,))
        if not jnp.issubdtype(g.dtype, jnp.integer):
            raise ValueError(f"{self}: a permutation has to hold integers, got {g.dtype}.")
        wrong = jnp.any(jnp.sort(g) != jnp.arange(self.n))
        return refuse_if(g, wrong, f"{self}: g is not a permutation of 0, ..., {self.n - 1}.")

    def _check_point(self, z):
        return has_axis(floating_leaves("z", z), 0, self.n)
