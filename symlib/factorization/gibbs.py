"""Blocked Gibbs sampling of the matrix factorization model: what exact Bayes predicts.

The rows of $U$ are independent Gaussians given $V$ and $R$, and those of $V$ given $U$ and $R$: a
whole factor is redrawn at a time.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, Real

from symlib._checks import positive_integer
from symlib.factorization.ratings import Factors, Ratings, check_ratings

# Batches of sweeps, whose means give the standard error.
_BATCHES = 20

# Triangular matrices up to this size are inverted at once, see `_inverse_of_lower`.
_LARGEST_SOLVE = 24


class GibbsResult(NamedTuple):
    """Averages over the draws of a Gibbs sampler."""

    prediction: Float[Array, "n m"]  # E[U V^T / sqrt(k) | R]
    prediction_error: Float[Array, "n m"]  # its Monte Carlo standard error, entry by entry
    factors: Factors  # the last draw (U, V)


class RowLaw(NamedTuple):
    """The Gaussian law of the rows of one factor, given the other and the ratings."""

    mean: Float[Array, "n k"]
    spread: Float[Array, "*n k k"]  # S, with S S^T the covariance: of all rows, or of each
    log_integral: Float[Array, ""]  # see `row_law`

    def sample(self, key: PRNGKeyArray) -> Float[Array, "n k"]:
        """Draw all rows."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + _apply(self.spread, noise)


def matrix_gibbs(
    key: PRNGKeyArray,
    ratings: Ratings,
    num_traits: int,
    num_sweeps: int = 500,
    num_burn_in: int = 100,
) -> GibbsResult:
    r"""Estimate the exact posterior mean $E[UV^T / \sqrt k\,|\,R]$, with a standard error.

    The sampler of Salakhutdinov and Mnih (2008), with fixed hyperparameters. A sweep draws $U$
    given $V$, then $V$ given $U$, and adds the mean of $E[U | V, R]\, V^T / \sqrt k$ and
    $U\, E[V | U, R]^T / \sqrt k$ to the average. The first $V$ comes from the prior.

    The standard error, of 20 batches of sweeps, is right to 5 % for $\tau$ of .01 and more. With
    less noise the sampler moves slowly along $(aU, V / a)$: at $\tau = 10^{-4}$ it is half of the
    truth until `num_burn_in` is 1000.

    Args:
        ratings: $R$ with its noise and what is observed.
        num_traits: Number k of traits.
        num_sweeps: Sweeps to average over, rounded up to a multiple of 20.
        num_burn_in: Sweeps before those.

    Raises:
        ValueError: A number is below 1.
    """
    numbers = {"num_traits": num_traits, "num_sweeps": num_sweeps, "num_burn_in": num_burn_in}
    num_traits, num_sweeps, num_burn_in = (positive_integer(*item) for item in numbers.items())
    check_ratings(ratings)
    batch = -(-num_sweeps // _BATCHES)
    data = ratings.values, 1 / ratings.noise_variance, ratings.observed
    return _run(key, *data, num_traits, num_burn_in, batch)


def row_law(
    factor: Float[Array, "m k"],
    ratings: Float[Array, "n m"],
    precision: Real[ArrayLike, ""],
    observed: Bool[Array, "n m"] | None = None,
) -> RowLaw:
    r"""Return the law of the rows of $U$ given $V$, for noise of precision $\lambda = 1 / \tau$.

    With $W = V / \sqrt k$ and the sum over what is observed in row i, that row has

    $$\mathrm{precision}\ P_i = I + \lambda \sum_j W_j W_j^T, \qquad
      \mathrm{mean}\ P_i^{-1} \lambda \sum_j R_{ij} W_j,$$

    and `log_integral` is $\log p(R | V)$, with $U$ integrated out, up to terms without $V$:

    $$\log E_{U \sim N(0, I)} \exp\Big(-\frac\lambda2 \sum_{ij} (R_{ij} - U_i^T W_j)^2\Big)
      + \frac\lambda2 \sum_{ij} R_{ij}^2.$$

    The law of $V$ given $U$ is the same function of $U$ and $R^T$. Nothing is checked here.

    Args:
        factor: $V$, the factor that is given.
        ratings: $R$, zero where not observed.
        precision: $\lambda \ge 0$; at zero the law is the prior.
        observed: True where a rating is seen; None if all are: one covariance serves all rows.
    """
    scaled = factor / factor.shape[1] ** 0.5
    if observed is None:
        gram = scaled.T @ scaled
    else:
        gram = jnp.einsum("ij,ja,jb->iab", observed.astype(scaled.dtype), scaled, scaled)
    identity = jnp.eye(factor.shape[1], dtype=scaled.dtype)
    cholesky = jnp.linalg.cholesky(identity + precision * gram)
    inverse = _inverse_of_lower(cholesky)
    spread = jnp.swapaxes(inverse, -1, -2)
    whitened = _apply(inverse, precision * (ratings @ scaled))
    log_scale = jnp.sum(jnp.log(jnp.diagonal(inverse, axis1=-2, axis2=-1)))
    if observed is None:
        log_scale = ratings.shape[0] * log_scale
    return RowLaw(_apply(spread, whitened), spread, 0.5 * jnp.sum(whitened**2) + log_scale)


def _inverse_of_lower(matrix):
    """Invert lower triangular matrices, large ones by halves.

    LAPACK's triangular solve starts threads from about a thousand right-hand entries on, which wait
    for each other a thousand times longer than they work where cores are shared. Both halves go
    into one call: two calls at a time can wait for each other forever (jaxlib 0.10, two cores).
    """
    size = matrix.shape[-1]
    if size <= _LARGEST_SOLVE:
        identity = jnp.broadcast_to(jnp.eye(size, dtype=matrix.dtype), matrix.shape)
        return jax.lax.linalg.triangular_solve(matrix, identity, left_side=True, lower=True)
    half = (size + 1) // 2
    first, last = matrix[..., :half, :half], matrix[..., -half:, -half:]  # may share one row
    first, last = _inverse_of_lower(jnp.stack([first, last]))
    shared = 2 * half - size
    last = last[..., shared:, shared:]
    corner = -last @ matrix[..., half:, :half] @ first
    above = jnp.zeros_like(jnp.swapaxes(corner, -1, -2))
    rows = jnp.concatenate([first, above], -1), jnp.concatenate([corner, last], -1)
    return jnp.concatenate(rows, -2)


def _apply(matrix, rows):
    """Multiply each row, as a vector, by the matrix, or by its own one."""
    return rows @ matrix.T if matrix.ndim == 2 else jnp.einsum("iab,ib->ia", matrix, rows)


@functools.partial(jax.jit, static_argnames=("num_traits", "num_burn_in", "batch"))
def _run(key, ratings, precision, observed, num_traits, num_burn_in, batch):
    transposed = None if observed is None else observed.T

    def sweep(carry, key):
        (_, V), total = carry
        row_key, column_key = jax.random.split(key)
        rows = row_law(V, ratings, precision, observed)
        U = rows.sample(row_key)
        columns = row_law(U, ratings.T, precision, transposed)
        total += rows.mean @ V.T + U @ columns.mean.T
        return ((U, columns.sample(column_key)), total), None

    def sweeps(factors, key, number):
        start = factors, jnp.zeros_like(ratings)
        (factors, total), _ = jax.lax.scan(sweep, start, jax.random.split(key, number))
        return factors, total / (2 * number * num_traits**0.5)

    start_key, burn_in_key, key = jax.random.split(key, 3)
    U = jnp.zeros((ratings.shape[0], num_traits), ratings.dtype)  # redrawn before it is used
    V = jax.random.normal(start_key, (ratings.shape[1], num_traits), ratings.dtype)
    factors, _ = sweeps((U, V), burn_in_key, num_burn_in)
    factors, means = jax.lax.scan(
        lambda factors, key: sweeps(factors, key, batch), factors, jax.random.split(key, _BATCHES)
    )
    error = jnp.std(means, axis=0, ddof=1) / _BATCHES**0.5
    return GibbsResult(jnp.mean(means, axis=0), error, factors)
