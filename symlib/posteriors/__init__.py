"""Approximate posteriors: Gaussians, their mixtures over a group, and bounds."""

from symlib.posteriors.gaussian import DiagonalGaussian, Gaussian, IsotropicGaussian
from symlib.posteriors.permutation_bounds import (
    block_log_ratio,
    sampled_log_ratio,
    sampled_log_ratio_upper,
    unit_blocks,
)
from symlib.posteriors.rotation_bounds import rotation_kl_annealed, rotation_kl_bound
from symlib.posteriors.sign_flip import kl_sign_flip
from symlib.posteriors.symmetrized import Symmetrized

__all__ = [
    "DiagonalGaussian",
    "Gaussian",
    "IsotropicGaussian",
    "Symmetrized",
    "block_log_ratio",
    "kl_sign_flip",
    "rotation_kl_annealed",
    "rotation_kl_bound",
    "sampled_log_ratio",
    "sampled_log_ratio_upper",
    "unit_blocks",
]
