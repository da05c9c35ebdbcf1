"""Fitting: evidence bounds and an optimiser, Bayesian neural networks, and NUTS."""

from symlib.inference._outcome import FitResult, FitState
from symlib.inference.bayesian_network import (
    categorical_log_likelihood,
    gaussian_log_likelihood,
    minibatch_elbo,
)
from symlib.inference.bounds import elbo
from symlib.inference.fit import fit
from symlib.inference.nuts import (
    NutsDraws,
    nuts,
)

__all__ = [
    "FitResult",
    "FitState",
    "NutsDraws",
    "categorical_log_likelihood",
    "elbo",
    "fit",
    "gaussian_log_likelihood",
    "minibatch_elbo",
    "nuts",
]
