"""Groups that act on parameters, reflections, and tests of invariance."""

from symlib.groups.group import (
    MAX_ELEMENTS,
    Group,
    Orthogonal,
    Permutation,
    Product,
    Scaling,
    SignFlip,
    Translation,
)
from symlib.groups.hidden_units import (
    HiddenPermutation,
    hidden_widths,
    unit_log_densities,
    unit_rows,
)
from symlib.groups.reflection import (
    Reflection,
    invariance_error,
    is_symmetric,
    reflection_invariance_error,
)

__all__ = [
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
    "reflection_invariance_error",
    "unit_log_densities",
    "unit_rows",
]
