r"""GRAE: the beta-VAE objective with the posterior's covariance optimised away.

With $K = I + C / \beta$ a deterministic loss remains, in nats, for one point (Kumar & Poole 2020).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from symlib._checks import caller, entries, positive, positive_integer
from symlib.autoencoders._decoder import (
    Decoder,
    check_decoder,
    columns_and_weights,
    flat,
    output_and_columns,
    refuse_collectives,
    scalar_loss,
)
from symlib.autoencoders.beta_vae import curvature_matrix
from symlib.autoencoders.covariance import precision_and_cholesky
from symlib.autoencoders.observation import GAUSSIAN, Observation


def deterministic(
    decoder: Decoder,
    x: Float[Array, "..."],
    mean: Float[Array, "..."],
    beta: ArrayLike,
    observation: Observation = GAUSSIAN,
    hessian: str = "gauss-newton",
) -> Float[Array, ""]:
    r"""Return the expanded loss at the best covariance (Kumar & Poole 2020, eqs. 10 and 12).

    $-\log p(x | m) + \frac\beta2 \|m\|^2 + \frac\beta2 \log |K|$, with the full Hessian and with
    $J^\top H J$. Another covariance (`taylor`) costs
    $\frac\beta2 [tr(K \Sigma) - \log |K \Sigma| - d]$ more.

    Args:
        decoder: As in `curvature`, and so are `x`, `mean` and `observation`.
        beta: The weight of the divergence, above 0.
        hessian: "gauss-newton", and then this is `grae`, or "full".

    Raises:
        ValueError: As in `curvature` and `optimal_precision`.
    """
    beta = positive("beta", beta)
    x, mean = jnp.asarray(x), jnp.asarray(mean)
    C = curvature_matrix(decoder, x, mean, observation, hessian)
    _, factor = precision_and_cholesky(C, beta)
    # The squares of the factor's diagonal, less 1: for a large beta these are small, and K itself
    # has rounded them to the digits of 1.
    pivots = jnp.diagonal(C) / beta - jnp.sum(jnp.tril(factor, -1) ** 2, axis=1)
    log_determinant = jnp.sum(jnp.log1p(pivots))
    loss = scalar_loss(observation, decoder(mean), x)
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
    $\frac{\beta D}2 \log(2 \pi \beta)$. See Kumar & Poole 2020, eq. 13 for Gaussian observations,
    eq. 12 for others. The arguments and the errors are those of `deterministic`.

    Example:
        >>> import jax.numpy as jnp
        >>> weights = jnp.array([[1.0], [1.0], [1.0]])
        >>> loss = grae(lambda z: weights @ z, jnp.ones(3), jnp.zeros(1), beta=1.0)
        >>> round(float(loss), 3)  # 3 / 2 + log(1 + 3) / 2
        2.193
    """
    return deterministic(decoder, x, mean, beta, observation, "gauss-newton")


def grae_bound(
    decoder: Decoder,
    x: Float[Array, "..."],
    mean: Float[Array, "..."],
    beta: ArrayLike,
    observation: Observation = GAUSSIAN,
) -> Float[Array, ""]:
    r"""Return the GRAE loss with $\log |K|$ replaced by its bound $\sum_i \log K_{ii}$.

    Kumar & Poole 2020, eq. 14: the Taylor loss at the best diagonal covariance, $\Sigma_{ii} = 1 /
    K_{ii}$: at least `grae`, and equal to it if the columns of $H^{1/2} J$ are orthogonal. The
    arguments and the errors are those of `grae`.
    """
    beta = positive("beta", beta)
    x, mean = jnp.asarray(x), jnp.asarray(mean)
    check_decoder(decoder, x, mean)
    refuse_collectives(decoder, mean)
    basis = jnp.eye(len(mean), dtype=mean.dtype)
    output, columns, weights = columns_and_weights(decoder, x, mean, observation, basis)
    penalty = jnp.sum(jnp.log1p(jnp.sum(columns**2 * weights, axis=1) / beta))
    loss = scalar_loss(observation, output, x)
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
    unbiased, at a cost of k forward derivatives in place of d. Kumar & Poole 2020, section 5.3,
    take k = 1 and the uniform law.

    Args:
        decoder: As in `curvature`, and so are `x`, `mean` and `observation`.
        beta: The weight of the divergence, above 0.
        num_columns: k, at least 1.
        probabilities: p, shape (d,), positive, with sum 1 to .001; uniform by default.

    Raises:
        ValueError: As in `grae_bound`, or an argument is not as stated.
    """
    beta = positive("beta", beta)
    num_columns = positive_integer("num_columns", num_columns)
    x, mean = jnp.asarray(x), jnp.asarray(mean)
    check_decoder(decoder, x, mean)
    refuse_collectives(decoder, mean)
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
    loss = scalar_loss(observation, output, x)
    return loss + 0.5 * beta * (jnp.sum(mean**2) + penalty)


def orthogonality_penalty(
    key: PRNGKeyArray, decoder: Decoder, mean: Float[Array, "..."], num_pairs: int = 1
) -> Float[Array, ""]:
    r"""Return the mean of $\cos^2$ of the angle between two columns of the Jacobian.

    The pairs are drawn uniformly. The mean is 0 for orthogonal columns, and at most 1; a column of
    zeros counts as orthogonal (Kumar & Poole 2020, section 5.3, below eq. 14).

    Args:
        decoder: As in `curvature`, with d of at least 2.
        mean: Where the Jacobian is taken, shape (d,).
        num_pairs: Number of pairs, each of two forward derivatives.

    Raises:
        ValueError: As in `curvature`, or an argument is not as stated.
    """
    num_pairs = positive_integer("num_pairs", num_pairs)
    check_decoder(decoder, None, mean)
    refuse_collectives(decoder, mean)
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
