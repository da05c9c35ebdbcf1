r"""GRAE: the beta-VAE objective with the posterior's covariance optimised away.

The best covariance of the expanded objective of `symlib.autoencoders` is $\Sigma = K^{-1}$ with
$K = I + C / \beta$, and what remains is deterministic (Kumar & Poole 2020):

$$-\log p(x | m) + \tfrac\beta2 \|m\|^2 + \tfrac\beta2 \log |K|.$$

The last term regularizes the decoder. Its bound by the diagonal of $K$ is what a mean-field
posterior leaves; the difference is a penalty on columns of the Jacobian that are not orthogonal.
All objectives are losses to minimise, in nats, for one point.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from symlib._checks import caller, entries, full_precision, positive, positive_integer, refuse_if
from symlib.autoencoders.beta_vae import (
    Decoder,
    check_decoder,
    columns_and_weights,
    curvature,
    flat,
    output_and_columns,
    scalar_loss,
)
from symlib.autoencoders.observation import GAUSSIAN, Observation


def optimal_precision(curvature: Float[Array, "..."], beta: ArrayLike) -> Float[Array, "d d"]:
    r"""Return $K = I + C / \beta$, the precision of the best Gaussian posterior.

    Args:
        curvature: $C$, shape (d, d), symmetric, as `curvature` returns it.
        beta: The weight of the divergence, above 0.

    Raises:
        ValueError: `beta` is not positive, or the matrix is not square or in half precision.
        RuntimeError: A traced `beta` is not positive, $C$ holds NaN or infinity, is not symmetric,
            or $K$ is not positive definite: then the objective falls without bound as the
            covariance grows, and there is no best one.

    References:
        Kumar & Poole (2020), eqs. 9 and 11.
    """
    return _precision_and_cholesky(curvature, beta)[0]


def optimal_covariance(curvature: Float[Array, "..."], beta: ArrayLike) -> Float[Array, "d d"]:
    r"""Return $\Sigma = K^{-1}$, the covariance of the best Gaussian posterior.

    The arguments and the errors are those of `optimal_precision`. The columns are solved for with
    the Cholesky factor of $K$.
    """
    K, factor = _precision_and_cholesky(curvature, beta)
    return cho_solve((factor, True), jnp.eye(len(K), dtype=K.dtype))


def deterministic(
    decoder: Decoder,
    x: Float[Array, "..."],
    mean: Float[Array, "..."],
    beta: ArrayLike,
    observation: Observation = GAUSSIAN,
    hessian: str = "gauss-newton",
) -> Float[Array, ""]:
    r"""Return the expanded loss at the best covariance.

    $-\log p(x | m) + \frac\beta2 \|m\|^2 + \frac\beta2 \log |K|$: eq. 10 with the full Hessian,
    eq. 12 with $J^\top H J$. Another covariance costs
    $\frac\beta2 [tr(K \Sigma) - \log |K \Sigma| - d]$ more: see `symlib.autoencoders.taylor`.

    Args:
        decoder: Function of a latent vector, shape (d,).
        x: The observation, of the shape of the decoder's output.
        mean: $m$, shape (d,).
        beta: The weight of the divergence, above 0.
        observation: `GAUSSIAN` or `BERNOULLI` of `symlib.autoencoders`.
        hessian: "gauss-newton", and then this is `grae`, or "full".

    Raises:
        ValueError: As in `symlib.autoencoders.curvature`, or `beta` is not positive.
        RuntimeError: As in `optimal_precision`.

    References:
        Kumar & Poole (2020), eqs. 10 and 12.
    """
    beta = positive("beta", beta)
    C = curvature(decoder, x, mean, observation, hessian)
    _, factor = _precision_and_cholesky(C, beta)
    # The squares of the factor's diagonal, less 1: for a large beta these are small, and K itself
    # has rounded them to the digits of 1.
    pivots = jnp.diagonal(C) / beta - jnp.sum(jnp.tril(factor, -1) ** 2, axis=1)
    log_determinant = jnp.sum(jnp.log1p(pivots))
    loss = scalar_loss(observation, x, decoder(mean))
    return loss + 0.5 * beta * (jnp.sum(mean**2) + log_determinant)


def grae(
    decoder: Decoder,
    x: Float[Array, "..."],
    mean: Float[Array, "..."],
    beta: ArrayLike,
    observation: Observation = GAUSSIAN,
) -> Float[Array, ""]:
    r"""Return the objective of the Gaussian regularized autoencoder: `deterministic` without $g''$.

    $-\log p(x | m) + \frac\beta2 \|m\|^2 + \frac\beta2 \log |I + J^\top H J / \beta|$. For a linear
    decoder and Gaussian observations the minimum over the means is $\beta$ times the negative log
    likelihood of probabilistic PCA with noise variance $\beta$, less
    $\frac{\beta D}2 \log(2 \pi \beta)$. The arguments and the errors are those of `deterministic`.

    References:
        Kumar & Poole (2020), eq. 13 for Gaussian observations, eq. 12 for others.
    """
    return deterministic(decoder, x, mean, beta, observation, "gauss-newton")


def grae_bound(
    decoder: Decoder,
    x: Float[Array, "..."],
    mean: Float[Array, "..."],
    beta: ArrayLike,
    observation: Observation = GAUSSIAN,
) -> Float[Array, ""]:
    r"""Return the GRAE loss with $\log |K|$ replaced by its bound $\sum_i \log K_{ii}$ (eq. 14).

    This is the Taylor loss at the best diagonal covariance, $\Sigma_{ii} = 1 / K_{ii}$: an upper
    bound of `grae`, with equality if the columns of the decoder's Jacobian, weighted with
    the observations' curvature, are orthogonal. The arguments and the errors are those of
    `curvature`.

    References:
        Kumar & Poole (2020), eq. 14.
    """
    beta = positive("beta", beta)
    check_decoder(decoder, x, mean)
    basis = jnp.eye(len(mean), dtype=mean.dtype)
    output, columns, weights = columns_and_weights(decoder, x, mean, observation, basis)
    penalty = jnp.sum(jnp.log1p(jnp.sum(columns**2 * weights, axis=1) / beta))
    loss = scalar_loss(observation, x, output)
    return loss + 0.5 * beta * (jnp.sum(mean**2) + penalty)


def grae_bound_sampled(
    key: PRNGKeyArray,
    decoder: Decoder,
    x: Float[Array, "..."],
    mean: Float[Array, "..."],
    beta: ArrayLike,
    observation: Observation = GAUSSIAN,
    num_columns: int = 1,
    probabilities: Float[Array, "..."] | None = None,
) -> Float[Array, ""]:
    r"""Estimate the loss of `grae_bound` from some columns of the Jacobian.

    $\frac1k \sum_j p(c_j)^{-1} \log K_{c_j c_j}$ for k indices drawn from p with replacement:
    unbiased, at a cost of k forward derivatives in place of d.

    Args:
        key: Random key of the indices.
        decoder: As in `curvature`, and so are `x`, `mean` and `observation`.
        beta: The weight of the divergence, above 0.
        num_columns: k.
        probabilities: p, shape (d,), positive, with sum 1; uniform by default.

    Raises:
        ValueError: As in `grae_bound`; `num_columns` is below 1, or p has another shape, is not
            positive or does not sum to 1, by more than .001.
        RuntimeError: As in `grae_bound`; a traced p is not positive or does not sum to 1.

    References:
        Kumar & Poole (2020), section 5.3, which takes k = 1 and the uniform law.
    """
    beta = positive("beta", beta)
    num_columns = positive_integer("num_columns", num_columns)
    check_decoder(decoder, x, mean)
    size = len(mean)
    if probabilities is None:
        indices = jax.random.randint(key, (num_columns,), 0, size)
        weights = jnp.full(num_columns, size, mean.dtype)
    else:
        if probabilities.shape != (size,):
            raise ValueError(
                f"{caller()}: probabilities has to have shape ({size},), got {probabilities.shape}."
            )
        probabilities = entries(
            "probabilities",
            probabilities,
            lambda p: (p > 0) & (abs(p.sum() - 1) < 1e-3),
            "positive, with sum 1",
        )
        # `choice` draws from p over its sum, so that the weights need the same.
        probabilities = jnp.asarray(probabilities / probabilities.sum(), mean.dtype)
        indices = jax.random.choice(key, size, (num_columns,), p=probabilities)
        weights = 1 / probabilities[indices]
    directions = jax.nn.one_hot(indices, size, dtype=mean.dtype)
    output, columns, curvatures = columns_and_weights(decoder, x, mean, observation, directions)
    squares = jnp.sum(columns**2 * curvatures, axis=1)
    penalty = jnp.mean(weights * jnp.log1p(squares / beta))
    loss = scalar_loss(observation, x, output)
    return loss + 0.5 * beta * (jnp.sum(mean**2) + penalty)


def orthogonality_penalty(
    key: PRNGKeyArray, decoder: Decoder, mean: Float[Array, "..."], num_pairs: int = 1
) -> Float[Array, ""]:
    r"""Return the mean of $\cos^2$ of the angle between two columns of the Jacobian.

    The pairs i < j are drawn uniformly; each costs two forward derivatives. The mean over all pairs
    is 0 for orthogonal columns, and at most 1. A column of zeros counts as orthogonal.

    Args:
        key: Random key of the pairs.
        decoder: Function of a latent vector, shape (d,) with d of at least 2.
        mean: Where the Jacobian is taken, shape (d,).
        num_pairs: Number of pairs.

    Raises:
        ValueError: There is one latent only, or as in `curvature`.

    References:
        Kumar & Poole (2020), section 5.3, below eq. 14.
    """
    num_pairs = positive_integer("num_pairs", num_pairs)
    check_decoder(decoder, None, mean)
    size = len(mean)
    if size < 2:
        raise ValueError(f"{caller()}: a pair needs 2 latents or more, got 1.")

    def of_pair(key):
        first, second = jax.random.choice(key, size, (2,), replace=False)
        directions = jax.nn.one_hot(jnp.stack([first, second]), size, dtype=mean.dtype)
        columns = flat(output_and_columns(decoder, mean, directions)[1])
        # The cosine does not depend on the scale, which may be held constant in its derivatives;
        # squares of the columns themselves vanish in float32 from a size of 1e-23 on.
        scale = jax.lax.stop_gradient(jnp.max(jnp.abs(columns), axis=1, keepdims=True))
        left, right = columns / jnp.where(scale == 0, 1, scale)
        norms = jnp.sum(left**2) * jnp.sum(right**2)
        return jnp.sum(left * right) ** 2 / jnp.where(norms == 0, 1, norms)

    return jnp.mean(jax.vmap(of_pair)(jax.random.split(key, num_pairs)))


def _precision_and_cholesky(curvature, beta):
    beta = positive("beta", beta)
    if curvature.ndim != 2 or curvature.shape[0] != curvature.shape[1]:
        raise ValueError(f"{caller()}: expected a square matrix, got shape {curvature.shape}.")
    full_precision("the curvature", curvature)
    K = jnp.eye(len(curvature), dtype=curvature.dtype) + curvature / beta
    factor = jnp.linalg.cholesky(K)  # NaN if K is not positive definite
    size = jnp.max(jnp.abs(curvature))
    # Twice differentiated networks are symmetric to about 1e-5 in float32; a triangular factor
    # given in place of C is not at all.
    skewed = jnp.max(jnp.abs(curvature - curvature.T)) > 1e-2 * size
    diagonal = jnp.diagonal(K)
    # What the columns before leave of each diagonal entry. Rounding in K is eps of the entry, so
    # below 300 eps the rest is wrong by a third of a per cent or more: latents are redundant.
    rest = jnp.diagonal(factor) ** 2 / diagonal
    lost_digits = jnp.min(rest) < 300 * jnp.finfo(K.dtype).eps
    messages = [
        f"{caller()}: the curvature holds NaN or infinity; look at the decoder's output and "
        "derivatives there.",
        f"{caller()}: the curvature has to be a symmetric matrix.",
        f"{caller()}: I + C / beta is not positive definite, so that there is no best covariance. "
        "Take a larger beta, or hessian='gauss-newton'. With that, latents are redundant to the "
        "last digit: take a larger beta, or float64.",
        f"{caller()}: latents are redundant, so that I + C / beta is too ill-conditioned for its "
        "precision. Take a larger beta, or float64.",
    ]
    lost = ~(jnp.max(diagonal) < jnp.inf) | ~(size < jnp.inf)
    failed = jnp.isnan(factor).any()
    index = jnp.where(lost, 0, jnp.where(skewed, 1, jnp.where(failed, 2, 3)))
    wrong = lost | skewed | failed | lost_digits
    if isinstance(wrong, jax.core.Tracer):
        return K, eqx.branched_error_if(factor, wrong, index, messages)
    return K, refuse_if(factor, wrong, messages[int(index)])
