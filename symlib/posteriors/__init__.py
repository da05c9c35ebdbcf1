"""Approximate posteriors: Gaussians, their mixtures over a group, and bounds."""

from symlib.posteriors.permutation_bounds import (
    block_log_ratio,
    sampled_log_ratio,
    sampled_log_ratio_upper,
    unit_blocks,
)
from symlib.posteriors.rotation_bounds import (
    rotation_kl_annealed,
    rotation_kl_bound,
    rotation_kl_haar,
)
from symlib.posteriors.rotations import (
    printed_log_ratio,
    rotation_log_ratio,
    rotation_log_ratio_bound,
    stack_rows,
)
from symlib.posteriors.symmetrized import (
    DiagonalGaussian,
    Gaussian,
    IsotropicGaussian,
    Symmetrized,
    kl_sign_flip,
)

__all__ = [
    "DiagonalGaussian",
    "Gaussian",
    "IsotropicGaussian",
    "Symmetrized",
    "block_log_ratio",
    "kl_sign_flip",
    "printed_log_ratio",
    "rotation_kl_annealed",
    "rotation_kl_bound",
    "rotation_kl_haar",
    "rotation_log_ratio",
    "rotation_log_ratio_bound",
    "sampled_log_ratio",
    "sampled_log_ratio_upper",
    "stack_rows",
    "unit_blocks",
]
