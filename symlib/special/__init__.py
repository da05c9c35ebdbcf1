"""Special functions: Bessel functions of a matrix, permanents, the matrix Langevin law."""

from symlib.special.bessel import (
    log_hyp0f1,
    log_hyp0f1_scaled,
    singular_values,
)
from symlib.special.langevin import (
    langevin_mean,
    log_hyp0f1_gibbs,
    matrix_langevin_sample,
)
from symlib.special.permanent import (
    log_permanent,
    permutation_log_ratio,
)

__all__ = [
    "langevin_mean",
    "log_hyp0f1",
    "log_hyp0f1_gibbs",
    "log_hyp0f1_scaled",
    "log_permanent",
    "matrix_langevin_sample",
    "permutation_log_ratio",
    "singular_values",
]
