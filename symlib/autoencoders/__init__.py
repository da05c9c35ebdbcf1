"""Autoencoders: the beta-VAE, its expansion, GRAE, and the geometry of the latent space."""

from symlib.autoencoders.beta_vae import (
    beta_vae,
    block_scale,
    curvature,
    kl_to_prior,
    scalar_loss,
    taylor,
)
from symlib.autoencoders.covariance import (
    optimal_covariance,
    optimal_precision,
)
from symlib.autoencoders.geometry import (
    curve_length,
    geodesic,
    metric,
)
from symlib.autoencoders.grae import (
    deterministic,
    grae,
    grae_bound,
    grae_bound_sampled,
    orthogonality_penalty,
)
from symlib.autoencoders.observation import (
    BERNOULLI,
    GAUSSIAN,
    Observation,
)

__all__ = [
    "BERNOULLI",
    "GAUSSIAN",
    "Observation",
    "beta_vae",
    "block_scale",
    "curvature",
    "curve_length",
    "deterministic",
    "geodesic",
    "grae",
    "grae_bound",
    "grae_bound_sampled",
    "kl_to_prior",
    "metric",
    "optimal_covariance",
    "optimal_precision",
    "orthogonality_penalty",
    "scalar_loss",
    "taylor",
]
