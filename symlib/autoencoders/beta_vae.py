"""The beta-VAE objective for one observation, and its expansion around the posterior's mean.

The objectives are losses to minimise, in nats, for one point: batch them with `vmap`. A decoder is
any function of a latent vector that returns the parameters of the observations, of the shape of x.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from symlib._checks import caller, entries, full_precision, positive, positive_integer, refuse_if
from symlib.autoencoders._decoder import (
    Decoder,
    check_decoder,
    columns_and_weights,
    refuse_collectives,
    scalar_loss,
)
from symlib.autoencoders.observation import GAUSSIAN, Observation

_HESSIANS = ("gauss-newton", "full")


def beta_vae(
    key: PRNGKeyArray,
    decoder: Decoder,
    x: Float[Array, "..."],
    mean: Float[Array, "..."],
    scale: Float[Array, "..."],
    beta: ArrayLike,
    observation: Observation = GAUSSIAN,
    num_samples: int = 1,
) -> Float[Array, ""]:
    r"""Estimate the beta-VAE loss $E_q[-\log p(x | z)] + \beta KL[q \| N(0, I)]$.

    See Kumar & Poole 2020, eq. 2. Unbiased and reparameterized, $z = m + L \epsilon$; the
    divergence is exact.

    Args:
        decoder: Function of a latent vector, shape (d,).
        x: The observation, finite, and in [0, 1] for `BERNOULLI`.
        mean: $m$, shape (d,), in float32 or float64, as the decoder's output.
        scale: Standard deviations, shape (d,), for a mean-field posterior; or the lower Cholesky
            factor $L$ of the covariance, shape (d, d), of which only the lower triangle is read.
        beta: The weight of the divergence, above 0.
        observation: `GAUSSIAN` or `BERNOULLI` of `symlib.autoencoders`, or one with a scalar loss.
        num_samples: Number of draws, at least 1.

    Raises:
        ValueError: An argument is not as stated, or a standard deviation not positive.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x, mean, scale = jnp.ones(3), jnp.zeros(2), jnp.ones(2)  # the prior: no divergence
        >>> float(beta_vae(jax.random.key(0), lambda z: jnp.zeros(3), x, mean, scale, beta=1.0))
        1.5
    """
    num_samples = positive_integer("num_samples", num_samples)
    beta = positive("beta", beta)
    x, mean, scale = map(jnp.asarray, (x, mean, scale))
    check_decoder(decoder, x, mean)
    divergence = kl_to_prior(mean, scale)
    noise = jax.random.normal(key, (num_samples, len(mean)), mean.dtype)
    offsets = noise * scale if jnp.ndim(scale) == 1 else noise @ jnp.tril(scale).T
    losses = jax.vmap(lambda offset: scalar_loss(observation, decoder(mean + offset), x))(offsets)
    return jnp.mean(losses) + beta * divergence


def kl_to_prior(mean: Float[Array, "..."], scale: Float[Array, "..."]) -> Float[Array, ""]:
    r"""Return $KL[N(m, \Sigma) \| N(0, I)]$ in nats.

    $\frac12 (\|m\|^2 + \|L\|_F^2 - d) - \sum_i \log L_{ii}$, with $\Sigma = L L^\top$. The
    arguments and the errors are those of `beta_vae`.
    """
    mean, scale = jnp.asarray(mean), jnp.asarray(scale)
    size = mean.shape[0] if mean.ndim == 1 else None
    if size is None or scale.shape not in ((size,), (size, size)):
        raise ValueError(
            f"{caller()}: expected a mean (d,) and a scale (d,) or (d, d), got "
            f"{mean.shape} and {scale.shape}."
        )
    full_precision("mean or scale", (mean, scale))
    diagonal = entries(
        "the diagonal of the scale",
        scale if scale.ndim == 1 else jnp.diagonal(scale),
        lambda numbers: numbers > 0,
        "positive",
    )
    squares = jnp.sum(scale**2 if scale.ndim == 1 else jnp.tril(scale) ** 2)
    return 0.5 * (jnp.sum(mean**2) + squares - size) - jnp.sum(jnp.log(diagonal))


def block_scale(parameters: Float[Array, "blocks size size"]) -> Float[Array, "d d"]:
    """Return a lower Cholesky factor with blocks on its diagonal, from free numbers.

    The lower triangles are taken over, their diagonals exponentiated. One block is the full factor.

    Args:
        parameters: Any numbers, shape (blocks, size, size). d is blocks times size.
    """
    # Only the diagonal is exponentiated: times 0, an infinite exponential beside it would be NaN.
    diagonal = jnp.exp(jnp.diagonal(parameters, axis1=1, axis2=2))
    eye = jnp.eye(parameters.shape[-1], dtype=parameters.dtype)
    lower = jnp.tril(parameters, -1) + diagonal[:, None] * eye
    return jax.scipy.linalg.block_diag(*lower)


def curvature(
    decoder: Decoder,
    x: Float[Array, "..."],
    mean: Float[Array, "..."],
    observation: Observation = GAUSSIAN,
    hessian: str = "gauss-newton",
) -> Float[Array, "d d"]:
    r"""Return $C = -\nabla_z^2 \log p(x | z)$ at the mean of the posterior.

    "full" gives the Hessian (Kumar & Poole 2020, eq. 5), which need not be positive semidefinite;
    "gauss-newton" $J^\top H J$ (Kumar & Poole 2020, eq. 6), with the decoder's Jacobian and the
    observation's curvature: never indefinite, and the same for a piecewise-linear decoder away from
    its kinks.

    Args:
        decoder: Function of a latent vector, shape (d,), that does not average over a batch, as
            batch normalisation does in training.
        x: The observation, of the shape of the decoder's output, in the range of its law.
        mean: $m$, shape (d,), in float32 or float64, as the decoder's output.
        observation: `GAUSSIAN` or `BERNOULLI` of `symlib.autoencoders`, or one with a curvature
        that
            is finite and at least 0.
        hessian: "gauss-newton" or "full".

    Raises:
        ValueError: An argument is not as stated.
    """
    x, mean = jnp.asarray(x), jnp.asarray(mean)
    C = curvature_matrix(decoder, x, mean, observation, hessian)
    # The curvature of a squared error does not depend on x.
    return refuse_if(C, ~jnp.all(jnp.isfinite(x)), f"{caller()}: x has to be finite.")


def curvature_matrix(decoder, x, mean, observation, hessian):
    """Return the curvature; that x is finite is left to the loss beside it."""
    check_decoder(decoder, x, mean)
    refuse_collectives(decoder, mean)
    if hessian not in _HESSIANS:
        raise ValueError(f"{caller()}: hessian has to be one of {_HESSIANS}, got {hessian!r}.")
    if hessian == "full":
        return jax.hessian(lambda z: scalar_loss(observation, decoder(z), x))(mean)
    directions = jnp.eye(len(mean), dtype=mean.dtype)
    columns, weights = columns_and_weights(decoder, x, mean, observation, directions)[1:]
    # Not with the root of H on both sides: at H = 0 the root has no derivative, and a saturated
    # sigmoid gets there in float32 at a logit of 88.
    return (columns * weights) @ columns.T


def taylor(
    decoder: Decoder,
    x: Float[Array, "..."],
    mean: Float[Array, "..."],
    scale: Float[Array, "..."],
    beta: ArrayLike,
    observation: Observation = GAUSSIAN,
    hessian: str = "gauss-newton",
) -> Float[Array, ""]:
    r"""Return the beta-VAE loss with the decoder expanded to second order around the mean.

    $-\log p(x | m) + \frac12 tr(C \Sigma) + \beta KL[q \| N(0, I)]$ (Kumar & Poole 2020, eqs. 4
    and 7, with the full Hessian and with $J^\top H J$). The arguments and the errors are those of
    `beta_vae` and `curvature`.
    """
    beta = positive("beta", beta)
    x, mean, scale = map(jnp.asarray, (x, mean, scale))
    C = curvature_matrix(decoder, x, mean, observation, hessian)
    divergence = kl_to_prior(mean, scale)
    factor = jnp.diag(scale) if scale.ndim == 1 else jnp.tril(scale)
    spread = 0.5 * jnp.sum(factor * (C @ factor))  # tr(C L L^T) / 2
    return scalar_loss(observation, decoder(mean), x) + spread + beta * divergence
