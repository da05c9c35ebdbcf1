r"""Moore's bound of matrix factorization: the objectives of `symlib.factorization.fit_matrix`."""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from symlib.factorization.joint import expected_log_joint
from symlib.factorization.ratings import Ratings
from symlib.groups import rotation_log_ratio, rotation_log_ratio_bound, stack_rows
from symlib.groups.rotations import langevin_weights

# Draws of the final divergence that are held in memory at a time.
_BATCH = 50


class Bound(eqx.Module):
    """An unbiased estimate of the bound, (posterior, key) -> scalar."""

    symmetrize: bool = eqx.field(static=True)

    @abc.abstractmethod
    def expected_log_joint(self, posterior, key):
        r"""Return an unbiased estimate of $E_{q^*} \log p$, or without a key the exact value."""

    def __call__(self, posterior, key):
        data_key, divergence_key = jax.random.split(key)
        value = self.expected_log_joint(posterior, data_key) + posterior.entropy()
        if not self.symmetrize:
            return value
        return value + _divergence(*_essentials(posterior), divergence_key)


class RatingsBound(Bound):
    """The bound from a matrix of ratings."""

    ratings: Ratings

    def expected_log_joint(self, posterior, key):
        return expected_log_joint(posterior, self.ratings)


class EntriesBound(Bound):
    """The bound from a list of entries, of which each step sees a batch."""

    rows: Int[Array, " N"]
    columns: Int[Array, " N"]
    values: Float[Array, " N"]
    noise_variance: Float[Array, ""]
    batch_size: int = eqx.field(static=True)

    def expected_log_joint(self, posterior, key):
        N = self.values.shape[0]
        if key is None:
            i, j, r = self.rows, self.columns, self.values
        else:
            batch = jax.random.randint(key, (self.batch_size,), 0, N)
            i, j, r = self.rows[batch], self.columns[batch], self.values[batch]
        (U, V), k = posterior.mean, posterior.mean[0].shape[1]
        C, D = posterior.variances()
        u, v, c, d = U[i], V[j], C[i], D[j]
        errors = (r - jnp.sum(u * v, axis=1) / math.sqrt(k)) ** 2
        errors += jnp.sum((u**2 + c) * d + c * v**2, axis=1) / k
        log_variance = jnp.log(2 * jnp.pi * self.noise_variance)
        log_likelihood = -0.5 * N * (jnp.mean(errors) / self.noise_variance + log_variance)
        moments = sum(jnp.sum(leaf) for leaf in (U**2, V**2, C, D))
        return log_likelihood - 0.5 * (moments + (U.size + V.size) * math.log(2 * math.pi))


def _essentials(posterior):
    """Return the means and variances that the divergence depends on.

    For one variance: with Q an orthonormal basis of the columns of M, $M^T X = (Q^T M)^T (Q^T X)$,
    where $Q^T X$ is a (k, k) Gaussian of mean $Q^T M$. Q may be held constant in the gradient: what
    that leaves out has mean zero and would only add variance.
    """
    M = stack_rows(posterior.mean)
    variance = posterior.row_variances()
    if variance is None:
        return M, stack_rows(posterior.variances())
    fixed = jax.lax.stop_gradient(M)
    squares, rotation = jnp.linalg.eigh(fixed.T @ fixed)
    # Directions that are zero to rounding are left out: they add nothing to the divergence.
    smallest = 10 * M.shape[1] * jnp.finfo(M.dtype).eps * squares[-1]
    kept = squares > smallest
    scale = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, squares, 1)), 0)
    return (fixed @ rotation * scale).T @ M, variance


def _divergence(M, variance, key):
    r"""Return an unbiased estimate of $KL[q^* \| \tilde q]$, or of a lower bound of it."""
    X = M + jnp.sqrt(variance) * jax.random.normal(key, M.shape, M.dtype)
    if variance.ndim == 0:
        return rotation_log_ratio(X, M, variance)
    return rotation_log_ratio_bound(X, langevin_weights(M, variance))


@eqx.filter_jit
def final_bound(objective, posterior, key, num_samples):
    """Return the bound and its standard error, the divergence from `num_samples` draws."""
    value = objective.expected_log_joint(posterior, None) + posterior.entropy()
    if not objective.symmetrize:
        return value, jnp.zeros_like(value)
    keys = jax.random.split(key, num_samples)
    M, variance = _essentials(posterior)
    draws = jax.lax.map(lambda key: _divergence(M, variance, key), keys, batch_size=_BATCH)
    return value + jnp.mean(draws), jnp.std(draws, ddof=1) / math.sqrt(num_samples)
