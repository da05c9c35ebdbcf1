"""Groups that act on parameters, reflections, and tests of invariance."""

from symlib.groups.finite import FiniteGroup, Permutation, SignFlip
from symlib.groups.group import MAX_ELEMENTS, Group
from symlib.groups.hidden_units import (
    HiddenPermutation,
    hidden_widths,
    unit_log_densities,
    unit_rows,
)
from symlib.groups.invariance import invariance_error
from symlib.groups.noncompact import Scaling, Translation
from symlib.groups.orthogonal import Orthogonal
from symlib.groups.product import Product
from symlib.groups.reflection import Reflection, is_symmetric
from symlib.groups.rotations import (
    printed_log_ratio,
    rotation_log_mixture,
    rotation_log_ratio,
    rotation_log_ratio_bound,
    stack_rows,
)

__all__ = [
    "FiniteGroup",
    "Group",
    "HiddenPermutation",
    "MAX_ELEMENTS",
    "Orthogonal",
    "Permutation",
    "Product",
    "Reflection",
    "Scaling",
    "SignFlip",
    "Translation",
    "hidden_widths",
    "invariance_error",
    "is_symmetric",
    "printed_log_ratio",
    "rotation_log_mixture",
    "rotation_log_ratio",
    "rotation_log_ratio_bound",
    "stack_rows",
    "unit_log_densities",
    "unit_rows",
]
