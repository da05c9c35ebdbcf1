r"""The matrix factorization model $R = UV^T/\sqrt k + E$: its ratings, drawn or given.

$U$ (n, k) and $V$ (m, k) have independent standard normal entries, those of $E$ (n, m) have
variance $\tau$ (`noise_variance`).
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, Real

from symlib._checks import array_shape, caller, entries, finite, full_precision, positive_integer

Factors = tuple[Float[Array, "n k"], Float[Array, "m k"]]


class Ratings(eqx.Module):
    r"""Ratings $R$, what is known of their noise, and which of them are seen.

    They are checked once, here. It is a pytree, so it passes through `jax.jit` and `jax.vmap`.

    Args:
        values: $R$ of shape (n, m), float32 or float64; entries that are not observed may hold
            anything, NaN included, and are replaced by 0.
        noise_variance: Variance $\tau > 0$ of the noise, not its standard deviation.
        observed: True where a rating is seen; None if all are, which some functions turn into
            much less work.

    Raises:
        ValueError: An argument is not as stated, or an observed rating not finite.
    """

    values: Float[Array, "n m"]  # zero where not observed
    noise_variance: Float[Array, ""]
    observed: Bool[Array, "n m"] | None

    def __init__(
        self,
        values: Float[Array, "n m"],
        noise_variance: Real[ArrayLike, ""] = 1.0,
        observed: Bool[Array, "n m"] | None = None,
    ):
        values = full_precision("values", values)
        if not isinstance(values, jax.Array) or values.ndim != 2 or values.size == 0:
            found = getattr(values, "shape", type(values).__name__)
            raise ValueError(f"{caller()}: values has to have shape (n, m), got {found}.")
        if observed is not None:
            observed = array_shape("observed", observed, values.shape)
            if observed.dtype != bool:
                raise ValueError(f"{caller()}: observed has to be boolean, got {observed.dtype}.")
            # Replaced, not weighted by 0: 0 * NaN is NaN.
            values = jnp.where(observed, values, 0)
        self.values = finite("an observed rating", values)
        self.noise_variance = check_noise(noise_variance, values.dtype)
        self.observed = observed

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n, m)."""
        return self.values.shape

    @property
    def weights(self) -> Float[Array, "n m"]:
        """Return 1 where a rating is observed and 0 elsewhere."""
        if self.observed is None:
            return jnp.ones_like(self.values)
        return self.observed.astype(self.values.dtype)

    @property
    def count(self) -> Float[Array, ""]:
        """Return the number of observed ratings."""
        return jnp.sum(self.weights)

    def log_likelihood(self, squared_errors: Float[Array, ""]) -> Float[Array, ""]:
        """Return the Gaussian log likelihood, from the sum over all observed squared errors."""
        log_variance = jnp.log(self.noise_variance) + math.log(2 * math.pi)
        return -0.5 * (squared_errors / self.noise_variance + self.count * log_variance)


class GeneratedRatings(NamedTuple):
    """A draw from the model."""

    ratings: Ratings  # all observed: truth + noise
    factors: Factors  # the pair (U, V)
    truth: Float[Array, "n m"]  # U V^T / sqrt(k)


def generate_ratings(
    key: PRNGKeyArray,
    num_rows: int,
    num_columns: int,
    num_traits: int,
    noise_variance: Real[ArrayLike, ""] = 1.0,
) -> GeneratedRatings:
    r"""Draw $U$, $V$ and $R$ from the model.

    Args:
        num_rows: Number n of rows of $R$ (users).
        num_columns: Number m of columns of $R$ (items).
        num_traits: Number k of columns of $U$ and $V$.
        noise_variance: Variance $\tau > 0$ of the noise, not its standard deviation.

    Raises:
        ValueError: A size is no integer of at least 1, or the noise not positive and finite.
    """
    sizes = {"num_rows": num_rows, "num_columns": num_columns, "num_traits": num_traits}
    n, m, k = (positive_integer(*item) for item in sizes.items())
    row_key, column_key, noise_key = jax.random.split(key, 3)
    U, V = jax.random.normal(row_key, (n, k)), jax.random.normal(column_key, (m, k))
    truth = predict((U, V))
    noise_variance = check_noise(noise_variance, truth.dtype)
    noise = jnp.sqrt(noise_variance) * jax.random.normal(noise_key, (n, m))
    return GeneratedRatings(Ratings(truth + noise, noise_variance), (U, V), truth)


def predict(factors: Factors) -> Float[Array, "n m"]:
    r"""Return $UV^T / \sqrt k$ of a pair of shapes (n, k) and (m, k); others raise a ValueError."""
    U, V = check_factors(factors)
    return U @ V.T / math.sqrt(U.shape[1])


def check_noise(noise_variance, dtype) -> Float[Array, ""]:
    """Return `noise_variance` as a scalar of `dtype`, checked to be positive and finite."""
    noise_variance = array_shape("noise_variance", noise_variance, ())
    if jnp.issubdtype(noise_variance.dtype, jnp.complexfloating):
        raise ValueError(f"{caller()}: noise_variance has to be real, got {noise_variance.dtype}.")
    full_precision("noise_variance", jnp.empty((), dtype))
    return entries(
        "noise_variance",
        noise_variance.astype(dtype),
        lambda variance: (variance > 0) & (variance < math.inf),
        "positive and finite",
    )


def check_ratings(ratings, complete: str | None = None) -> Ratings:
    """Return the ratings, checked to be `Ratings`; `complete` names what serves if some miss."""
    if not isinstance(ratings, Ratings):
        raise ValueError(
            f"{caller()}: ratings has to be Ratings(values, noise_variance, observed), "
            f"got {type(ratings).__name__}."
        )
    if complete and ratings.observed is not None:
        raise ValueError(f"{caller()}: needs all ratings observed; with some missing, {complete}.")
    return ratings


def check_factors(factors, shape=None) -> Factors:
    """Return the pair (U, V), checked to fit each other and ratings of `shape`."""
    factors = full_precision("factors", factors)
    if not isinstance(factors, tuple) or len(factors) != 2:
        raise ValueError(f"{caller()}: factors has to be the pair (U, V), got {type(factors)}.")
    shapes = tuple(leaf.shape for leaf in factors)
    fits = all(len(each) == 2 for each in shapes) and shapes[0][1] == shapes[1][1] > 0
    if fits and shape is not None:
        fits = (shapes[0][0], shapes[1][0]) == shape
    if not fits:
        rows, columns = shape or ("n", "m")
        raise ValueError(
            f"{caller()}: U and V have to have shapes ({rows}, k) and ({columns}, k), got "
            f"{shapes[0]} and {shapes[1]}."
        )
    return factors
