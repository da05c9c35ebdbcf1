r"""Groups that act on parameters.

A model has a parameter symmetry when its density does not change under a group $G$ of
transformations, $p(x, z) = p(x, g \cdot z)$ for every $g \in G$ (Moore 2016, section 3). Here a
group is an object without parameters of its own. It draws, inverts and composes its elements and
lets them act on `z`, an array or a pytree of arrays. Everything is written for one point and one
element; `jax.vmap` makes batches.
"""

import math
from abc import abstractmethod
from itertools import permutations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from symlib._checks import (
    array_shape,
    caller,
    floating_leaves,
    has_axis,
    positive_integer,
    real_element,
    refuse_if,
    split_parts,
)

# All elements of a group are stacked at once. 2**16 admits the 16 signs of 16 coordinates and the
# 8! = 40320 permutations of 8 things; beyond it memory runs out before anything is learnt.
MAX_ELEMENTS = 2**16


class Group(eqx.Module):
    r"""Describe a group $G$ and its left action $(g, z) \mapsto g \cdot z$.

    The laws are $(g h) \cdot z = g \cdot (h \cdot z)$, $e \cdot z = z$ and
    $g^{-1} \cdot (g \cdot z) = z$. An action has to preserve volume, as every affine action of a
    compact group does: the densities of `symlib.posteriors` have no Jacobian factor. `act`,
    `inverse` and `compose` check what they are given and raise ValueError for a wrong shape and a
    runtime error (`equinox.error_if`) for values that are no element of the group.

    The library calls these methods and no others, so a subclass that overrides one is taken at its
    word. Where it has a closed form for a group, as for `Orthogonal`, the form serves objects of
    that class itself: a subclass goes the general way.

    The result of `act` has the dtypes of `z`. A group has no array leaves, so an optimiser that
    trains a module holding a group leaves the group alone.
    """

    def __check_init__(self):
        for name, size in vars(self).items():
            if name in ("dim", "n", "k"):  # the sizes; a group of your own may have other fields
                positive_integer(name, size)

    @abstractmethod
    def act(self, g: PyTree, z: PyTree) -> PyTree:
        r"""Apply an element to a point, $g \cdot z$.

        Args:
            g: An element of the group.
            z: A point, of the shape the group asks for, with floating-point leaves.

        Raises:
            ValueError: A shape or dtype is wrong.
            RuntimeError: `g` is not an element.
        """

    @abstractmethod
    def inverse(self, g: PyTree) -> PyTree:
        r"""Return $g^{-1}$. Raises as `act` does."""

    @abstractmethod
    def compose(self, g: PyTree, h: PyTree) -> PyTree:
        r"""Return $g h$, the element that applies `h` first. Raises as `act` does."""

    @property
    @abstractmethod
    def order(self) -> int | float:
        """The number of elements, `math.inf` for an infinite group."""

    @abstractmethod
    def identity(self) -> PyTree:
        """Return the element that moves nothing."""

    @abstractmethod
    def sample(self, key: PRNGKeyArray) -> PyTree:
        """Draw an element from the uniform (Haar) law.

        Raises:
            ValueError: The group is not compact, so there is no uniform law.
        """

    @abstractmethod
    def elements(self) -> PyTree:
        """Return all elements, stacked on a leading axis of each leaf, the identity first.

        Raises:
            ValueError: The group is infinite or has more than 65536 elements.
        """

    # Raises, and returns what it was given with arrays as leaves. `act` calls it, and so does a
    # closed form, which moves no point.
    def _check_point(self, z: PyTree) -> PyTree:
        return floating_leaves("z", z)


def listed(group: Group) -> PyTree:
    """Return `group.elements()`, of which there have to be as many as the order says.

    Raises:
        ValueError: The number differs from the order, or the group is too large to list.
    """
    _check_listable(group)
    elements = group.elements()
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(elements)}
    if lengths != {(group.order,)}:
        found = ", ".join(str(*length) for length in sorted(lengths)) or "no"
        raise ValueError(f"{group}: order is {group.order}, but elements() gives {found} of them.")
    return elements


def identity_first(group: Group) -> PyTree:
    """Return all elements of the group, of which the first has to be the identity."""
    elements = listed(group)
    equal = jax.tree.map(lambda leaf, e: jnp.all(leaf[0] == e), elements, group.identity())
    wrong = ~jnp.stack(jax.tree.leaves(equal)).all()
    message = f"{caller()}: the first of the elements of {group} has to be its identity."
    return jax.tree.map(lambda leaf: refuse_if(leaf, wrong, message), elements)


def _check_listable(group: Group) -> None:
    if group.order > MAX_ELEMENTS:
        # The order itself can have thousands of digits.
        count = "infinitely many" if group.order == math.inf else f"more than {MAX_ELEMENTS}"
        raise ValueError(
            f"{group} has {count} elements, too many to list: "
            "take a few of them instead, from sample(key) if the group is compact."
        )


def _no_uniform_law(group: Group, remedy: str) -> ValueError:
    return ValueError(
        f"{group} is not compact, so there is no uniform law to sample from: {remedy}, or choose "
        "the elements yourself."
    )


class _InfiniteGroup(Group):
    @property
    def order(self) -> float:
        return math.inf

    def elements(self):
        _check_listable(self)


class SignFlip(Group):
    r"""The two elements $g \in \{+1, -1\}$ with $g \cdot z = g z$ (Moore 2016, section 3.1).

    One sign serves the whole vector. For independent signs of `n` coordinates take
    `Product(*[SignFlip(1)] * n)`.

    Args:
        dim: Number of entries of `z`, which is any array or pytree with that many in total.
    """

    dim: int = eqx.field(static=True)

    @property
    def order(self) -> int:
        return 2

    def identity(self) -> Float[Array, ""]:
        return jnp.ones(())

    def sample(self, key: PRNGKeyArray) -> Float[Array, ""]:
        return jax.random.rademacher(key, (), dtype=float)

    def elements(self) -> Float[Array, "2"]:
        return jnp.array([1.0, -1.0])

    def act(self, g, z):
        g, z = self._check_element(g), self._check_point(z)
        return jax.tree.map(lambda leaf: leaf * g.astype(leaf.dtype), z)

    def inverse(self, g):
        return self._check_element(g)

    def compose(self, g, h):
        return self._check_element(g) * self._check_element(h)

    def _check_element(self, g):
        g = real_element("a sign", g, ())
        return refuse_if(g, jnp.abs(g) != 1, f"{self}: a sign has to be +1 or -1.")

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
        _check_listable(self)
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


class Orthogonal(_InfiniteGroup):
    r"""The orthogonal group $O(k) = \{T : T^\top T = I\}$, rotations and reflections.

    It acts on the last axis, $X \mapsto X T^\top$, of every leaf of `z`, so that a pair
    $(U, V)$ of factors keeps its product $U V^\top$ (Moore 2016, section 3.2; the paper writes
    $X T$, which is the action of the inverse).

    An array counts as an element when $T^\top T$ differs from $I$ by at most the square root of
    the machine precision of its dtype (3.5e-4 in float32, 1.5e-8 in float64). In half precision
    four times the machine precision are allowed (.031 in bfloat16, .0039 in float16).

    Args:
        k: Size of the matrices.
    """

    k: int = eqx.field(static=True)

    def identity(self) -> Float[Array, "k k"]:
        return jnp.eye(self.k)

    def sample(self, key: PRNGKeyArray) -> Float[Array, "k k"]:
        """Draw from the Haar law: the Q factor of a Gaussian matrix (Mezzadri 2007, section 5)."""
        q, r = jnp.linalg.qr(jax.random.normal(key, (self.k, self.k)))
        # QR is unique only once R has a positive diagonal; without this the law is not uniform.
        return q * jnp.where(jnp.diagonal(r) < 0, -1, 1)

    def act(self, g, z):
        g, z = self._check_element(g), self._check_point(z)
        return jax.tree.map(lambda leaf: _product(leaf, g.T.astype(leaf.dtype)), z)

    def inverse(self, g):
        return self._check_element(g).T

    def compose(self, g, h):
        return _product(self._check_element(g), self._check_element(h))

    def _check_element(self, g):
        g = floating_leaves("T", array_shape("T", g, (self.k, self.k)))
        # Rounding in a product of matrices grows slowly; sqrt(eps) leaves it room and still
        # notices any real error. In half precision rounding the entries alone costs up to eps.
        exact = g.astype(jnp.promote_types(g.dtype, jnp.float32))
        tolerance = max(math.sqrt(jnp.finfo(exact.dtype).eps), 4 * float(jnp.finfo(g.dtype).eps))
        error = jnp.max(jnp.abs(_product(exact.T, exact) - jnp.eye(self.k, dtype=exact.dtype)))
        return refuse_if(g, ~(error <= tolerance), f"{self}: T is not orthogonal.")

    def _check_point(self, z):
        return has_axis(floating_leaves("z", z), -1, self.k)


def _product(left, right):
    # Accelerators round the factors of a float32 product to ten bits unless told otherwise.
    return jnp.matmul(left, right, precision="highest")


class Scaling(_InfiniteGroup):
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
        (u, v), join = split_parts(self._check_point(z), 2)
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
        return refuse_if(g, wrong, f"{self}: a scale has to be positive and finite.")

    def _check_point(self, z):
        z = floating_leaves("z", z)
        split_parts(z, 2)
        return z


class Translation(_InfiniteGroup):
    r"""The vectors $t \in \mathbb{R}^d$ with $t \cdot z = z + t$. The group is not compact.

    Args:
        dim: Length d of the vectors `z` and `t`.
    """

    dim: int = eqx.field(static=True)

    def identity(self) -> Float[Array, " dim"]:
        return jnp.zeros(self.dim)

    def sample(self, key: PRNGKeyArray):
        raise _no_uniform_law(self, "fix the origin by a convention such as mean(z) = 0")

    def act(self, g, z):
        g, z = self._check_element(g), self._check_point(z)
        return z + g.astype(z.dtype)

    def inverse(self, g):
        return -self._check_element(g)

    def compose(self, g, h):
        return self._check_element(self._check_element(g) + self._check_element(h))

    def _check_element(self, g):
        g = real_element("a shift", g, (self.dim,))
        return refuse_if(g, ~jnp.isfinite(g).all(), f"{self}: a shift has to be finite.")

    def _check_point(self, z):
        return array_shape("z", floating_leaves("z", z), (self.dim,))


class Product(Group):
    r"""The direct product $G_1 \times \dots \times G_m$, which acts part by part.

    An element is a tuple with one element a group. The point `z` is a tuple or list with one part
    a group, or an array whose leading axis has one entry a group. The order is the product of the
    orders.

    Args:
        *groups: The factors, at least one.
    """

    groups: tuple[Group, ...]

    def __init__(self, *groups: Group):
        if not groups or not all(isinstance(group, Group) for group in groups):
            raise ValueError(f"{caller()}: expected one group or more, got {groups}.")
        self.groups = groups

    @property
    def order(self) -> int | float:
        orders = [group.order for group in self.groups]
        # The order of a large group is beyond the floats, so it cannot be multiplied by infinity.
        return math.inf if math.inf in orders else math.prod(orders)

    def identity(self) -> tuple:
        return tuple(group.identity() for group in self.groups)

    def sample(self, key: PRNGKeyArray) -> tuple:
        keys = jax.random.split(key, len(self.groups))
        return tuple(group.sample(k) for group, k in zip(self.groups, keys, strict=True))

    def elements(self) -> tuple:
        _check_listable(self)
        rows = np.unravel_index(np.arange(self.order), [group.order for group in self.groups])
        return tuple(
            jax.tree.map(lambda leaf, row=row: leaf[row], listed(group))
            for group, row in zip(self.groups, rows, strict=True)
        )

    def act(self, g, z):
        parts, join = split_parts(floating_leaves("z", z), len(self.groups))
        elements = self._split(g)
        return join(
            [G.act(h, part) for G, h, part in zip(self.groups, elements, parts, strict=True)]
        )

    def inverse(self, g):
        return tuple(group.inverse(h) for group, h in zip(self.groups, self._split(g), strict=True))

    def compose(self, g, h):
        triples = zip(self.groups, self._split(g), self._split(h), strict=True)
        return tuple(group.compose(a, b) for group, a, b in triples)

    def _split(self, g):
        return split_parts(g, len(self.groups))[0]

    def _check_point(self, z):
        parts, join = split_parts(floating_leaves("z", z), len(self.groups))
        return join([group._check_point(p) for group, p in zip(self.groups, parts, strict=True)])
