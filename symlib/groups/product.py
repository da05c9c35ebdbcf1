"""Direct products of groups."""

import math

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from symlib._checks import caller, floating_leaves, split_parts
from symlib.groups.group import Group, check_listable, listed


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
        check_listable(self)
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

    def check_point(self, z):
        parts, join = split_parts(floating_leaves("z", z), len(self.groups))
        return join([group.check_point(p) for group, p in zip(self.groups, parts, strict=True)])
