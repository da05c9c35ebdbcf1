"""Variational matrix factorization by stochastic gradients, symmetrized over O(k) or not.

The bound is Moore's eq. 5, of which only the divergence is sampled, from one draw a step.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, Real

from symlib._checks import array_shape, caller, entries, finite, full_precision, positive_integer
from symlib.factorization.ratings import Ratings, check_noise, check_ratings, predict
from symlib.factorization.variational_bound import EntriesBound, RatingsBound, final_bound
from symlib.inference import fit
from symlib.posteriors import DiagonalGaussian, Gaussian, IsotropicGaussian

# The standard deviation e^-2 of the author's own start. The means start as draws from the prior.
_START_VARIANCE = math.exp(-4)


class VariationalFit(NamedTuple):
    r"""A Gaussian $q^*$ and what follows from it, or from its mixture over all rotations."""

    base: Gaussian  # q*, over the pair (U, V)
    bound: Float[Array, ""]  # bound on log p(R), all constants included
    bound_error: Float[Array, ""]  # its standard error; 0 without symmetrization
    prediction: Float[Array, "..."]  # E[U V^T / sqrt(k)], the same under q* and its mixture
    trace: Float[Array, " steps"]  # objective before each step, as noisy as one draw


def fit_matrix(
    key: PRNGKeyArray,
    ratings: Ratings,
    num_traits: int,
    *,
    symmetrize: bool = True,
    covariance: str = "isotropic",
    steps: int = 1000,
    learning_rate: float = 0.05,
    num_samples: int = 500,
) -> VariationalFit:
    r"""Fit a Gaussian $q^*$ over $(U, V)$, or its mixture over all rotations, by gradient ascent.

    $E_{q^*} \log p(R, U, V) + H(q^*) + KL[q^* \| \tilde q]$ (Moore 2016, section 4 and Appendix A,
    with the errors of the divergence mended). The divergence, and so the bound, is exact up to
    k = 3 for "isotropic"; above, the error is that of `symlib.special.log_hyp0f1`. For "diagonal"
    it is a lower bound, `symlib.groups.rotation_log_ratio_bound`. The default steps leave .1 nats
    at n = m = 40, k = 20, and .8 for "diagonal", whose gradient has more noise.

    A row or column without any observed rating is predicted to be zero: exactly for mean field, up
    to the noise of the gradient for the mixture. With "diagonal" it also keeps its prior variance.

    Args:
        ratings: $R$ with its noise and what is observed.
        num_traits: Number k of traits.
        symmetrize: Maximise the bound of the mixture, rather than that of $q^*$ (mean field).
        covariance: "isotropic", one variance for all entries, or "diagonal", one for each.
        steps: Number of steps of Adam, whose learning rate decays to 0.
        learning_rate: The learning rate at the start.
        num_samples: Number of draws for the divergence in the final bound, at least 2.

    Raises:
        ValueError: A number is below its least value, or `covariance` is unknown.
        RuntimeError: The ascent diverged.

    Example:
        >>> ratings = Ratings(jnp.eye(3), noise_variance=0.5)
        >>> fit_matrix(jax.random.key(0), ratings, num_traits=2, steps=10).prediction.shape
        (3, 3)
    """
    check_ratings(ratings)
    start = _Start(*ratings.shape, num_traits, covariance, ratings.values.dtype)
    objective = RatingsBound(symmetrize, ratings)
    base, bound, error, trace = _fit(key, objective, start, steps, learning_rate, num_samples)
    return VariationalFit(base, bound, error, predict(base.mean), trace)


def fit_matrix_entries(
    key: PRNGKeyArray,
    rows: Int[Array, " N"],
    columns: Int[Array, " N"],
    values: Float[Array, " N"],
    num_rows: int,
    num_columns: int,
    num_traits: int,
    noise_variance: Real[ArrayLike, ""] = 1.0,
    *,
    batch_size: int,
    steps: int,
    symmetrize: bool = True,
    covariance: str = "isotropic",
    learning_rate: float = 0.05,
    num_samples: int = 500,
) -> VariationalFit:
    r"""Fit as `fit_matrix` does, from a list of entries, of which each step sees a few.

    Batches are drawn uniformly with replacement: the objective stays unbiased. The final bound uses
    all entries, and `prediction` holds theirs. No array of n times m entries is made. Entries
    listed twice count twice.

    Args:
        rows: Row of each entry, from 0 to n - 1.
        columns: Column of each entry, from 0 to m - 1.
        values: Rating of each entry, finite.
        num_rows: Number n of rows of $R$.
        num_columns: Number m of columns of $R$.
        num_traits: Number k of traits.
        noise_variance: Variance $\tau > 0$ of the noise.
        batch_size: Number of entries a step.
        steps: Number of steps; this and the others are as in `fit_matrix`.

    Raises:
        ValueError: An argument is not as stated, or shapes do not fit.
        RuntimeError: The ascent diverged.
    """
    values = full_precision("values", values)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{caller()}: values has to have shape (N,), got {values.shape}.")
    start = _Start(num_rows, num_columns, num_traits, covariance, values.dtype)
    rows = _indices("rows", rows, values.shape, num_rows)
    columns = _indices("columns", columns, values.shape, num_columns)
    values = finite("values", values)
    noise_variance = check_noise(noise_variance, values.dtype)
    batch_size = positive_integer("batch_size", batch_size)
    objective = EntriesBound(symmetrize, rows, columns, values, noise_variance, batch_size)
    base, bound, error, trace = _fit(key, objective, start, steps, learning_rate, num_samples)
    U, V = base.mean
    prediction = jnp.sum(U[rows] * V[columns], axis=1) / math.sqrt(num_traits)
    return VariationalFit(base, bound, error, prediction, trace)


class _Start(eqx.Module):
    """The start of a fit, key -> Gaussian. A module, so that equal fits compile once."""

    shapes: tuple[tuple[int, int], tuple[int, int]] = eqx.field(static=True)
    covariance: str = eqx.field(static=True)
    dtype: jnp.dtype = eqx.field(static=True)

    def __init__(self, num_rows, num_columns, num_traits, covariance, dtype):
        k = positive_integer("num_traits", num_traits)
        n = positive_integer("num_rows", num_rows)
        m = positive_integer("num_columns", num_columns)
        if covariance not in ("isotropic", "diagonal"):
            raise ValueError(
                f'{caller()}: covariance has to be "isotropic" or "diagonal", got {covariance!r}.'
            )
        self.shapes, self.covariance, self.dtype = ((n, k), (m, k)), covariance, dtype

    def __call__(self, key):
        keys = jax.random.split(key)
        mean = tuple(map(lambda k, s: jax.random.normal(k, s, self.dtype), keys, self.shapes))
        if self.covariance == "isotropic":
            return IsotropicGaussian(mean, _START_VARIANCE)
        return DiagonalGaussian(mean, tuple(jnp.full_like(leaf, _START_VARIANCE) for leaf in mean))


def _fit(key, objective, start, steps, learning_rate, num_samples):
    num_samples = positive_integer("num_samples", num_samples)
    if num_samples < 2:
        raise ValueError(f"{caller()}: a standard error needs num_samples of at least 2, got 1.")
    fit_key, divergence_key = jax.random.split(key)
    found = fit(fit_key, objective, start, steps=steps, learning_rate=learning_rate)
    bound, error = final_bound(objective, found.posterior, divergence_key, num_samples)
    return found.posterior, bound, error, found.trace[0]


def _indices(name, indices, shape, count):
    indices = array_shape(name, indices, shape)
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise ValueError(f"{caller()}: {name} has to hold integers, got {indices.dtype}.")
    # Out of range, indexing would silently take the last entry.
    return entries(name, indices, lambda i: (i >= 0) & (i < count), f"from 0 to {count - 1}")
