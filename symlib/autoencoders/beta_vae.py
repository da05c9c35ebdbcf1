r"""The beta-VAE objective for one observation, and its expansion around the posterior's mean.

A beta-VAE maximises $E_q[\log p(x | z)] - \beta KL[q(z | x) \| N(0, I)]$ with
$q = N(m, \Sigma)$. To second order around $m$ the expectation needs the curvature
$C = -\nabla_z^2 \log p(x | z)$ only (Kumar & Poole 2020, section 4).

The objectives are losses to minimise, in nats, for one point: batch them with `vmap`. A decoder is
any function of a latent vector that returns the parameters of the observations, an array of the
shape of x. The curvature is the full Hessian, or $J^\top H J$ with the Jacobian $J$ of the decoder
and the observations' own curvature $H$ (Gauss-Newton): the same for a piecewise-linear decoder away
from its kinks, and never indefinite.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from symlib._checks import caller, entries, full_precision, positive, positive_integer, refuse_if
from symlib.autoencoders.observation import BERNOULLI, GAUSSIAN, Observation

Decoder = Callable[[Float[Array, " d"]], Float[Array, "..."]]

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

    The expectation is estimated from reparameterized draws, $z = m + L \epsilon$; the divergence is
    exact. The estimate is unbiased.

    Args:
        key: Random key.
        decoder: Function of a latent vector, shape (d,).
        x: The observation.
        mean: $m$, shape (d,).
        scale: Standard deviations, shape (d,), for a mean-field posterior; or the lower Cholesky
            factor $L$ of the covariance, shape (d, d): full, or with blocks on its diagonal. Only
            the lower triangle is read.
        beta: The weight of the divergence, above 0.
        observation: `GAUSSIAN` or `BERNOULLI` of `symlib.autoencoders`.
        num_samples: Number of draws.

    Raises:
        ValueError: A shape is wrong, the decoder does not return floating-point numbers, `mean` or
            its output is in half precision, the observation's loss is no scalar, or `num_samples`
            is below 1; `beta` or a number on the diagonal of the scale is not positive; the data
            are not finite, or not in [0, 1] for `BERNOULLI`.
        RuntimeError: A traced `beta`, scale or x is such.

    References:
        Kumar & Poole (2020), eq. 2.
    """
    num_samples = positive_integer("num_samples", num_samples)
    beta = positive("beta", beta)
    check_decoder(decoder, x, mean)
    divergence = kl_to_prior(mean, scale)
    noise = jax.random.normal(key, (num_samples, len(mean)), mean.dtype)
    offsets = noise * scale if jnp.ndim(scale) == 1 else noise @ jnp.tril(scale).T
    losses = jax.vmap(lambda offset: scalar_loss(observation, x, decoder(mean + offset)))(offsets)
    return jnp.mean(losses) + beta * divergence


def kl_to_prior(mean: Float[Array, "..."], scale: Float[Array, "..."]) -> Float[Array, ""]:
    r"""Return $KL[N(m, \Sigma) \| N(0, I)]$ in nats.

    $\frac12 (\|m\|^2 + \|L\|_F^2 - d) - \sum_i \log L_{ii}$, with $\Sigma = L L^\top$.

    Args:
        mean: $m$, shape (d,).
        scale: Standard deviations (d,) or the lower Cholesky factor $L$ (d, d).

    Raises:
        ValueError: The shapes do not match, the numbers are in half precision, or one on the
            diagonal of the scale is not positive.
        RuntimeError: A number on the diagonal of a traced scale is not positive.
    """
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
    r"""Return a lower Cholesky factor with blocks on its diagonal, from free numbers.

    In each block the lower triangle is taken over and the diagonal exponentiated, so that any
    numbers give a covariance. One block is the full covariance.

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

    "gauss-newton" gives $J^\top H J$ (eq. 6), by d forward derivatives of the decoder; "full" the
    Hessian of eq. 5, which need not be positive semidefinite.

    Args:
        decoder: Function of a latent vector, shape (d,).
        x: The observation, of the shape of the decoder's output.
        mean: $m$, shape (d,).
        observation: `GAUSSIAN` or `BERNOULLI` of `symlib.autoencoders`.
        hessian: "gauss-newton" or "full".

    Raises:
        ValueError: A shape is wrong, the decoder does not return floating-point numbers, `mean` or
            its output is in half precision, `hessian` is unknown, or the observation refuses x.
        RuntimeError: The observation refuses a traced x; or, for an observation of your own, its
            curvature is negative, infinite or NaN.

    References:
        Kumar & Poole (2020), eqs. 5 and 6.
    """
    check_decoder(decoder, x, mean)
    if hessian not in _HESSIANS:
        raise ValueError(f"{caller()}: hessian has to be one of {_HESSIANS}, got {hessian!r}.")
    if hessian == "full":
        return jax.hessian(lambda z: scalar_loss(observation, x, decoder(z)))(mean)
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

    $-\log p(x | m) + \frac12 tr(C \Sigma) + \beta KL[q \| N(0, I)]$: eq. 4 with the full Hessian,
    eq. 7 with $J^\top H J$, the default here as in `deterministic`. The arguments and
    the errors are those of `beta_vae` and `curvature`.

    References:
        Kumar & Poole (2020), eqs. 4 and 7.
    """
    beta = positive("beta", beta)
    C = curvature(decoder, x, mean, observation, hessian)
    divergence = kl_to_prior(mean, scale)
    factor = jnp.diag(scale) if scale.ndim == 1 else jnp.tril(scale)
    spread = 0.5 * jnp.sum(factor * (C @ factor))  # tr(C L L^T) / 2
    return scalar_loss(observation, x, decoder(mean)) + spread + beta * divergence


def columns_and_weights(decoder, x, mean, observation, directions):
    """Return the output, J^T with a flattened column of J in each row, and the diagonal of H."""
    output, columns = output_and_columns(decoder, mean, directions)
    weights = jnp.asarray(observation.curvature(x, output))
    if weights.shape not in ((), output.shape):
        raise ValueError(
            f"{caller()}: the observation's curvature has to have the shape of the decoder's "
            "output, "
            f"{output.shape}, got {weights.shape}."
        )
    if observation not in (GAUSSIAN, BERNOULLI):  # of which it is known
        weights = refuse_if(
            weights,
            ~((weights >= 0) & (weights < jnp.inf)),
            f"{caller()}: the observation's curvature is negative, infinite or NaN.",
        )
    return output, flat(columns), weights.ravel()


def scalar_loss(observation, x, output):
    """Return the loss, which has to be a scalar: a mean over pixels would pass unnoticed."""
    value = observation.loss(x, output)
    if jnp.shape(value) != ():
        raise ValueError(
            f"{caller()}: loss has to return a scalar, the sum over the entries of x, got shape "
            f"{jnp.shape(value)}."
        )
    return value


def output_and_columns(decoder, mean, directions):
    """Return the decoder's output and its derivatives in the directions, by forward mode."""
    if len(directions) == 1:  # one pass for both
        output, column = jax.jvp(decoder, (mean,), (directions[0],))
        return output, column[None]
    output, forward = jax.linearize(decoder, mean)
    return output, jax.vmap(forward)(directions)


def flat(columns):
    return columns.reshape(len(columns), -1)


def check_decoder(decoder, x, mean):
    if mean.ndim != 1 or not jnp.issubdtype(mean.dtype, jnp.floating):
        raise ValueError(f"{caller()}: mean has to be a vector, got {mean.dtype} {mean.shape}.")
    full_precision("mean", mean)
    try:
        output = jax.eval_shape(decoder, mean)
    except TypeError as error:
        raise ValueError(
            f"{caller()}: the decoder failed on a latent vector of length {len(mean)}: {error}"
        ) from error
    if not hasattr(output, "dtype") or not jnp.issubdtype(output.dtype, jnp.floating):
        raise ValueError(
            f"{caller()}: the decoder has to return an array of floating-point numbers to be "
            f"differentiable, got {output}."
        )
    full_precision("the decoder's output", jnp.empty((), output.dtype))
    if x is not None and x.shape != output.shape:
        raise ValueError(
            f"{caller()}: the decoder returns shape {output.shape} and x has shape {x.shape}."
        )
