"""Sign flips and permutations."""

import math
from itertools import permutations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from symlib._checks import (
    array_shape,
    caller,
    floating_leaves,
    has_axis,
    positive_integer,
    real_element,
    refuse_if,
)
from symlib.groups.group import Group, check_listable, listed


class FiniteGroup(Group):
    """A group of your own by two methods: a list of its elements, and how they act.

    >>> import jax.numpy as jnp
    >>> from symlib import IsotropicGaussian, Symmetrized
    >>> from symlib.groups import FiniteGroup
    >>> class Shifts(FiniteGroup):
    ...     n: int
    ...
    ...     def elements(self):
    ...         return jnp.arange(self.n)
    ...
    ...     def act(self, g, z):
    ...         return jnp.roll(z, g)
    >>> base = IsotropicGaussian(jnp.array([3.0, 0.0, 0.0]), 1.0)
    >>> posterior = Symmetrized(base, Shifts(3))
    >>> print(posterior.log_prob(jnp.array([0.0, 3.0, 0.0])).round(2))
    -3.86

    `elements()` returns all of them, stacked on a leading axis of each leaf, the identity first.
    The list has to be a group: with two elements it has their product. `act(g, z)` has to preserve
    volume. The uniform law and the mixture follow. Define `inverse(g)` too for the sampled bounds
    of `symlib.posteriors`, and `compose(g, h)` where you call it; nothing else does.
    """

    @property
    def order(self) -> int:
        leaves = jax.tree.leaves(jax.eval_shape(self.elements))
        if not leaves or not leaves[0].shape:
            raise ValueError(
                f"{caller()}: elements() of {self} has to stack them on a leading axis."
            )
        return leaves[0].shape[0]

    def identity(self) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[0], listed(self))

    def sample(self, key: PRNGKeyArray) -> PyTree:
        row = jax.random.randint(key, (), 0, self.order)
        return jax.tree.map(lambda leaf: leaf[row], listed(self))

    def inverse(self, g):
        raise ValueError(f"{caller()}: {self} has no method inverse(g); define it.")

    def compose(self, g, h):
        raise ValueError(f"{caller()}: {self} has no method compose(g, h); define it.")


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
        return refuse_if(g, jnp.abs(g) != 1, f"{caller()}: a sign has to be +1 or -1.")


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

    def __check_init__(self):
        positive_integer("dim", self.dim)

    def act(self, g, z):
        g, z = self._check_element(g), self.check_point(z)
        return jax.tree.map(lambda leaf: leaf * g.astype(leaf.dtype), z)

    def check_point(self, z):
        z = floating_leaves("z", z)
        size = sum(leaf.size for leaf in jax.tree.leaves(z))
        if size != self.dim:
            raise ValueError(f"{caller()}: z has to have {self.dim} entries in total, got {size}.")
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

    def __check_init__(self):
        positive_integer("n", self.n)

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
        return jax.tree.map(lambda leaf: leaf[origin], self.check_point(z))

    def inverse(self, g):
        return jnp.argsort(self._check_element(g))

    def compose(self, g, h):
        return self._check_element(g)[self._check_element(h)]

    def _check_element(self, g):
        g = array_shape("a permutation", g, (self.n,))
        if not jnp.issubdtype(g.dtype, jnp.integer):
            raise ValueError(f"{caller()}: a permutation has to hold integers, got {g.dtype}.")
        wrong = jnp.any(jnp.sort(g) != jnp.arange(self.n))
        return refuse_if(g, wrong, f"{caller()}: g is not a permutation of 0, ..., {self.n - 1}.")

    def check_point(self, z):
        return has_axis(floating_leaves("z", z), 0, self.n)
