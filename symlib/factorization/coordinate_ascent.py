"""Coordinate ascent for matrix factorization: mean field and MAP, also with missing ratings.

With $U$ or $V$ fixed each row of the other meets a linear regression with a standard normal prior,
which is solved exactly. So no step can lower the objective.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from symlib._checks import positive_integer
from symlib.factorization.closed_forms import MatrixFit
from symlib.factorization.ratings import Ratings, check_ratings


def mean_field_ascent(
    key: PRNGKeyArray,
    ratings: Ratings,
    num_traits: int,
    steps: int = 500,
) -> tuple[MatrixFit, Float[Array, " steps"]]:
    r"""Fit the best $q(U) q(V)$ by coordinate ascent.

    The factors are Gaussian with independent rows. With $q(V)$ fixed, row i of $U$ has

    $$S_i = \Big(I + \frac1{k\tau} \sum_{j\ \mathrm{observed}} E[v_j v_j^T]\Big)^{-1}, \qquad
      m_i = \frac{S_i}{\sqrt k\,\tau} \sum_{j\ \mathrm{observed}} R_{ij} E[v_j],$$

    and the same with $U$ and $V$ exchanged (Nakajima et al. 2013, section 2.2). A row or column
    without any observed rating keeps its prior, and zero is predicted for it.

    Args:
        key: Random key, for the means of $V$ at the start.
        ratings: $R$ with its noise and what is observed.
        num_traits: Number k of traits.
        steps: Number of sweeps, each an update of $U$ and one of $V$.

    Returns:
        The fit, whose objective is the bound on $\log p(R)$, and the bound after each sweep.

    Raises:
        ValueError: `num_traits` or `steps` is below 1.
    """
    return _checked_ascent(key, ratings, num_traits, steps, mode=False)


def map_ascent(
    key: PRNGKeyArray,
    ratings: Ratings,
    num_traits: int,
    steps: int = 500,
) -> tuple[MatrixFit, Float[Array, " steps"]]:
    r"""Search for the posterior's mode by alternating ridge regressions.

    The updates are the means of `mean_field_ascent` with $E[v_j v_j^T]$ replaced by $v_j v_j^T$.
    With missing ratings the objective may have other maxima than the mode. The arguments and the
    errors are those of `mean_field_ascent`.

    Returns:
        The fit, whose objective is $\log p(R, U, V)$, and that value after each sweep.
    """
    return _checked_ascent(key, ratings, num_traits, steps, mode=True)


def _checked_ascent(key, ratings, num_traits, steps, mode):
    check_ratings(ratings)
    k = positive_integer("num_traits", num_traits)
    steps = positive_integer("steps", steps)
    return _ascend(key, ratings, k, steps, mode)


@partial(jax.jit, static_argnums=(2, 3, 4))  # a second call of the same sizes compiles nothing
def _ascend(key, ratings, k, steps, mode):
    r"""Run the sweeps. `mode`: rows are points, with covariance 0; the bound loses its entropy."""
    (n, m), values, noise_variance = ratings.shape, ratings.values, ratings.noise_variance
    weights = ratings.weights

    def regress(values, weights, mean, covariance, _):
        """Return means, covariances and their log determinants for the rows of one factor."""
        second = covariance + mean[:, :, None] * mean[:, None, :]
        precision = weights @ second.reshape(-1, k * k) / (k * noise_variance)
        # Its eigenvalues are at least 1: no row is singular.
        eye = jnp.eye(k, dtype=mean.dtype)
        root = jnp.linalg.cholesky(eye + precision.reshape(-1, k, k))
        root = jax.lax.linalg.triangular_solve(root, jnp.broadcast_to(eye, root.shape), lower=True)
        inverse = root.mT @ root
        mean = jnp.einsum("iab,ib->ia", inverse, values @ mean) / (math.sqrt(k) * noise_variance)
        log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(root, axis1=1, axis2=2)))
        return mean, 0 * inverse if mode else inverse, log_det

    def objective(rows, columns):
        (M, S, log_det_S), (N, T, log_det_T) = rows, columns
        # tr(S T) + m^T T m + n^T S n, the variance of u^T v.
        spread = S.reshape(n, -1) @ (T + N[:, :, None] * N[:, None, :]).reshape(m, -1).T
        spread += (M[:, :, None] * M[:, None, :]).reshape(n, -1) @ T.reshape(m, -1).T
        errors = weights * ((values - M @ N.T / math.sqrt(k)) ** 2 + spread / k)
        value = -0.5 * jnp.sum(errors) / noise_variance
        value -= 0.5 * jnp.sum(weights) * jnp.log(2 * jnp.pi * noise_variance)
        moments = jnp.sum(M**2) + jnp.sum(N**2)
        if mode:
            return value - 0.5 * (moments + (M.size + N.size) * math.log(2 * math.pi))
        moments += jnp.einsum("iaa->", S) + jnp.einsum("jaa->", T)
        # The log(2 pi) of prior and entropy cancel.
        return value + 0.5 * (log_det_S + log_det_T + M.size + N.size - moments)

    def sweep(state, _):
        _, columns = state
        rows = regress(values, weights, *columns)
        columns = regress(values.T, weights.T, *rows)
        return (rows, columns), objective(rows, columns)

    def point(mean):
        return mean, jnp.zeros((*mean.shape, k), mean.dtype), jnp.zeros((), mean.dtype)

    start = jax.random.normal(key, (m, k), values.dtype)
    state = point(jnp.zeros((n, k), values.dtype)), point(start)
    (rows, columns), trace = jax.lax.scan(sweep, state, length=steps)
    prediction = rows[0] @ columns[0].T / math.sqrt(k)
    found = jnp.linalg.svd(prediction, compute_uv=False)[:k]
    singular_values = jnp.pad(found, (0, k - found.shape[0]))
    return MatrixFit(prediction, singular_values, trace[-1]), trace
