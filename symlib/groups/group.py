r"""Groups that act on parameters.

A model has a parameter symmetry when its density does not change under a group $G$ of
transformations, $p(x, z) = p(x, g \cdot z)$ for every $g \in G$ (Moore 2016, section 3). Here a
group is an object without parameters of its own. It draws, inverts and composes its elements and
lets them act on `z`, an array or a pytree of arrays. Everything is written for one point and one
element; `jax.vmap` makes batches.
"""

import math
from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from symlib._checks import caller, floating_leaves, refuse_if, scalar

# All elements of a group are stacked at once. 2**16 admits the 16 signs of 16 coordinates and the
# 8! = 40320 permutations of 8 things; beyond it memory runs out before anything is learnt.
MAX_ELEMENTS = 2**16

_BOUND = "symlib.posteriors.sampled_log_ratio bounds the divergence for any compact group"
# What the rounding of a difference may be, relative to it or absolute in nats.
_ROUNDING = 1e-3


class Group(eqx.Module):
    r"""Describe a group $G$ and its left action $(g, z) \mapsto g \cdot z$.

    The laws are $(g h) \cdot z = g \cdot (h \cdot z)$, $e \cdot z = z$ and
    $g^{-1} \cdot (g \cdot z) = z$. An action has to preserve volume, as every affine action of a
    compact group does: the densities of `symlib.posteriors` have no Jacobian factor. `act`,
    `inverse` and `compose` check what they are given, shapes and values.

    A group of your own has `act`, `inverse`, `compose`, `identity`, `sample`, `order` and
    `elements`, and may have a `log_ratio`, `log_mixture` and `check_point`; a finite one needs
    less, see `FiniteGroup`. The library calls these methods and no others, so what you override is
    what it computes with. A closed form here, as that of `Orthogonal`, serves the action of its
    class: a subclass that overrides one of these methods gets the sum.

    The result of `act` has the dtypes of `z`. A group has no array leaves, or as `Reflection` none
    with a gradient: training a module that holds a group leaves the group alone.
    """

    @abstractmethod
    def act(self, g: PyTree, z: PyTree) -> PyTree:
        r"""Apply an element to a point, $g \cdot z$.

        Args:
            g: An element of the group.
            z: A point, of the shape the group asks for, with floating-point leaves.

        Raises:
            ValueError: A shape or dtype is wrong, or `g` is no element.
            RuntimeError: A traced `g` is none.
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

    def log_ratio(self, base: eqx.Module, z: PyTree) -> Float[Array, ""]:
        r"""Return $\log q^*(z) - \log\tilde q(z)$, of a base density and its mixture, in nats.

        $\tilde q(z) = \frac1{|G|} \sum_g q^*(g^{-1} \cdot z)$, a sum over all elements. A group
        that knows a closed form overrides this method.

        Args:
            base: Base density $q^*$, with `log_prob(z)`. Closed forms rest on its `mean`,
                `variances()` and `row_variances()`: a base of your own that has these methods says
                that it is a Gaussian with independent entries. It is held to that at its mean.
            z: A point.

        Raises:
            ValueError: The group has too many elements to list and no closed form for this base,
                `z` has a wrong shape, or `log_prob` of the base returns no scalar.
        """
        return _log_prob(base, z) - log_sum(self, base, z)

    def log_mixture(self, base: eqx.Module, z: PyTree) -> Float[Array, ""]:
        r"""Return $\log\tilde q(z)$, the log density of the mixture, in nats.

        The sum over all elements, or $\log q^*(z)$ minus `log_ratio` for a group that overrides
        that alone. Where $z$ is far from the base and near one of its images both are large and
        cancel: the difference is refused where its rounding exceeds .001 of it and .001 nats. A
        group that has a better way overrides this method as well.

        Args as in `log_ratio`.

        Raises:
            ValueError: As `log_ratio`, or the digits cancel.
            RuntimeError: A traced value is such.
        """
        if type(self).log_ratio is Group.log_ratio:
            return log_sum(self, base, z)
        return difference(_log_prob(base, z), self.log_ratio(base, z))

    def check_point(self, z: PyTree) -> PyTree:
        """Return a point with arrays as leaves, or raise if the group does not act on it.

        `act` calls it, and so do closed forms, which move no point.

        Raises:
            ValueError: A shape or dtype is wrong.
        """
        return floating_leaves("z", z)

    def acts_as(self, group: type) -> bool:
        """Tell whether the closed forms of the class `group` are this one's: it is that class, or
        a subclass that overrides none of the methods.
        """
        names = (
            "act",
            "inverse",
            "compose",
            "identity",
            "sample",
            "order",
            "elements",
            "check_point",
            "log_ratio",
            "log_mixture",
        )
        return all(getattr(type(self), name) is getattr(group, name) for name in names)


def difference(log_prob, log_ratio):
    """Return `log_prob - log_ratio`, or raise if the digits cancel."""
    value = log_prob - log_ratio
    error = jnp.abs(log_prob) * jnp.finfo(value.dtype).eps
    lost = jnp.isfinite(value) & (error > _ROUNDING * jnp.maximum(1, jnp.abs(value)))
    message = (
        f"{caller()}: log_prob of the base and the log ratio cancel, far from the base, and "
        f"{value.dtype} has too few digits for their difference."
    )
    return refuse_if(value, lost, message)


def _log_prob(base, z):
    return scalar("log_prob of the base", base.log_prob(z))


def log_sum(group, base, z):
    """Return the log density of the mixture by the sum over all elements."""
    if group.order == math.inf:
        raise ValueError(
            f"{caller()}: no closed form for the infinite group {group} and a "
            f"{type(base).__name__}; {_BOUND}."
        )
    if group.order > MAX_ELEMENTS:
        raise ValueError(
            f"{caller()}: {group} has more than {MAX_ELEMENTS} elements, too many for the "
            f"exact sum; {_BOUND}."
        )

    def log_component(g):  # the inverses of all elements are all elements
        return _log_prob(base, group.act(g, z))

    return logsumexp(jax.vmap(log_component)(listed(group))) - math.log(group.order)


def listed(group: Group) -> PyTree:
    """Return `group.elements()`, of which there have to be as many as the order says.

    Raises:
        ValueError: The number differs from the order, or the group is too large to list.
    """
    check_listable(group)
    elements = group.elements()
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(elements)}
    if lengths != {(group.order,)}:
        found = ", ".join(str(*length) for length in sorted(lengths)) or "no"
        raise ValueError(
            f"{caller()}: {group}: order is {group.order}, but elements() gives {found} of them."
        )
    return elements


def identity_first(group: Group) -> PyTree:
    """Return all elements of the group, of which the first has to be the identity."""
    elements = listed(group)
    equal = jax.tree.map(lambda leaf, e: jnp.all(leaf[0] == e), elements, group.identity())
    wrong = ~jnp.stack(jax.tree.leaves(equal)).all()
    message = f"{caller()}: the first of the elements of {group} has to be its identity."
    return jax.tree.map(lambda leaf: refuse_if(leaf, wrong, message), elements)


def check_listable(group: Group) -> None:
    if group.order > MAX_ELEMENTS:
        # The order itself can have thousands of digits.
        count = "infinitely many" if group.order == math.inf else f"more than {MAX_ELEMENTS}"
        raise ValueError(
            f"{caller()}: {group} has {count} elements, too many to list: "
            "take a few of them instead, from sample(key) if the group is compact."
        )


class InfiniteGroup(Group):
    """A group that cannot be listed."""

    @property
    def order(self) -> float:
        return math.inf

    def elements(self):
        check_listable(self)
