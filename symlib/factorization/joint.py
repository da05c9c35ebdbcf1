r"""The joint density of the matrix factorization model, at a point and averaged over a Gaussian.

It does not change under $(U, V) \to (UT, VT)$ with $T$ in O(k).
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from symlib.factorization.ratings import Factors, Ratings, check_factors, check_ratings, predict
from symlib.posteriors import Gaussian

_LOG_2PI = math.log(2 * math.pi)


def matrix_log_joint(
    factors: Factors,
    ratings: Ratings,
) -> Float[Array, ""]:
    r"""Return $\log p(R, U, V)$ in nats, normalised, with the unobserved ratings integrated out.

    $$\sum_{(i, j)\ \mathrm{observed}} \log N\big(R_{ij}; (UV^T)_{ij} / \sqrt k, \tau\big)
      + \sum_{il} \log N(U_{il}; 0, 1) + \sum_{jl} \log N(V_{jl}; 0, 1).$$

    Args:
        factors: The pair $(U, V)$ of shapes (n, k) and (m, k).
        ratings: $R$ with its noise and what is observed.

    Raises:
        ValueError: `factors` is no pair that fits the ratings.
    """
    check_ratings(ratings)
    U, V = check_factors(factors, ratings.shape)
    errors = jnp.sum((ratings.values - predict((U, V))) ** 2, where=ratings.observed)
    prior = -0.5 * (jnp.sum(U**2) + jnp.sum(V**2) + (U.size + V.size) * _LOG_2PI)
    return ratings.log_likelihood(errors) + prior


def expected_log_joint(
    posterior: Gaussian,
    ratings: Ratings,
) -> Float[Array, ""]:
    r"""Return $E_q \log p(R, U, V)$ in nats, in closed form, for independent Gaussian entries.

    With means $M, N$ and variances $C, D$ of $U$ and $V$ (squares are elementwise),

    $$E (R - UV^T/\sqrt k)^2 = (R - MN^T/\sqrt k)^2
      + \big[(M^2 + C) D^T + C (N^2)^T\big] / k.$$

    Args:
        posterior: A Gaussian over the pair $(U, V)$.
        ratings: $R$ with its noise and what is observed.

    Raises:
        ValueError: `posterior` is not over a pair that fits the ratings.
    """
    check_ratings(ratings)
    check_factors(posterior.mean, ratings.shape)
    posterior._require_gaussian()
    (M, N), variance = posterior.mean, posterior.variance
    k = M.shape[1]
    weights = ratings.weights
    # The variances of the observed u.v, summed without an array of n times m of them.
    if isinstance(variance, tuple):
        C, D = variance
        spread = jnp.sum((weights.T @ (M**2 + C)) * D) + jnp.sum((weights.T @ C) * N**2)
        moments = sum(jnp.sum(leaf) for leaf in (M**2, N**2, C, D))
    else:
        rows, columns = jnp.sum(M**2, axis=1), jnp.sum(N**2, axis=1)
        spread = variance * (
            jnp.sum(rows * jnp.sum(weights, axis=1))
            + jnp.sum(columns * jnp.sum(weights, axis=0))
            + k * variance * jnp.sum(weights)
        )
        moments = jnp.sum(rows) + jnp.sum(columns) + (M.size + N.size) * variance
    errors = jnp.sum((ratings.values - weights * predict((M, N))) ** 2) + spread / k
    prior = -0.5 * (moments + (M.size + N.size) * _LOG_2PI)
    return ratings.log_likelihood(errors) + prior
