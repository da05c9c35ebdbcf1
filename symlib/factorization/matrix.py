r"""The matrix factorization model $R = UV^T/\sqrt k + E$: its density and two closed forms.

$U$ (n, k) and $V$ (m, k) have independent standard normal entries, those of $E$ (n, m) have
variance $\tau$ (`noise_variance`), and only the ratings $R$ are seen, or some of them. The joint
density does not change under $(U, V) \to (UT, VT)$ with $T$ in O(k). At n = m = k = 1 this is
the model of `symlib.factorization`.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, Real

from symlib._checks import array_shape, caller, entries, finite, full_precision, positive_integer
from symlib.factorization.scalar import root_of_positive
from symlib.posteriors import DiagonalGaussian, Gaussian

_LOG_2PI = math.log(2 * math.pi)

Factors = tuple[Float[Array, "n k"], Float[Array, "m k"]]


class MatrixRatings(NamedTuple):
    """A draw from the model."""

    U: Float[Array, "n k"]
    V: Float[Array, "m k"]
    truth: Float[Array, "n m"]  # U V^T / sqrt(k)
    ratings: Float[Array, "n m"]  # truth + noise


class MatrixFit(NamedTuple):
    r"""What an approximation says of the noise-free ratings."""

    prediction: Float[Array, "n m"]  # E[U V^T / sqrt(k)]; for MAP its value at the mode
    singular_values: Float[Array, " k"]  # of the prediction, descending, zeros appended if k > n, m
    objective: Float[Array, ""]  # bound on log p(R); for MAP the log joint density at the mode


def generate_ratings(
    key: PRNGKeyArray,
    num_rows: int,
    num_columns: int,
    num_traits: int,
    noise_variance: Real[ArrayLike, ""] = 1.0,
) -> MatrixRatings:
    r"""Draw $U$, $V$ and $R$ from the model.

    Args:
        key: Random key.
        num_rows: Number n of rows of $R$ (users).
        num_columns: Number m of columns of $R$ (items).
        num_traits: Number k of columns of $U$ and $V$.
        noise_variance: Variance $\tau > 0$ of the noise, not its standard deviation.

    Raises:
        ValueError: A size is not an integer of at least 1, or `noise_variance` not positive and
            finite.
        RuntimeError: A traced `noise_variance` is not positive and finite.
    """
    sizes = {"num_rows": num_rows, "num_columns": num_columns, "num_traits": num_traits}
    n, m, k = (positive_integer(*item) for item in sizes.items())
    row_key, column_key, noise_key = jax.random.split(key, 3)
    U, V = jax.random.normal(row_key, (n, k)), jax.random.normal(column_key, (m, k))
    truth = predict((U, V))
    noise_variance = check_noise(noise_variance, truth.dtype)
    noise = jnp.sqrt(noise_variance) * jax.random.normal(noise_key, (n, m))
    return MatrixRatings(U, V, truth, truth + noise)


def predict(factors: Factors) -> Float[Array, "n m"]:
    r"""Return $UV^T / \sqrt k$.

    Args:
        factors: The pair $(U, V)$ of shapes (n, k) and (m, k).

    Raises:
        ValueError: `factors` is no such pair.
    """
    U, V = check_factors(factors)
    return U @ V.T / math.sqrt(U.shape[1])


def matrix_log_joint(
    factors: Factors,
    ratings: Float[Array, "n m"],
    noise_variance: Real[ArrayLike, ""] = 1.0,
    observed: Bool[Array, "n m"] | None = None,
) -> Float[Array, ""]:
    r"""Return $\log p(R, U, V)$ in nats, normalised, with the unobserved ratings integrated out.

    $$\sum_{(i, j)\ \mathrm{observed}} \log N\big(R_{ij}; (UV^T)_{ij} / \sqrt k, \tau\big)
      + \sum_{il} \log N(U_{il}; 0, 1) + \sum_{jl} \log N(V_{jl}; 0, 1).$$

    Args:
        factors: The pair $(U, V)$ of shapes (n, k) and (m, k).
        ratings: $R$; entries that are not observed may hold anything, NaN included.
        noise_variance: Variance $\tau > 0$ of the noise.
        observed: True where a rating is seen; None if all are.

    Raises:
        ValueError: Shapes do not fit, `ratings` is not float32 or float64 or `observed` not
            boolean, an observed rating is not finite, or `noise_variance` not positive and finite.
        RuntimeError: Of traced ratings or noise, a number is such.
    """
    ratings, noise_variance, observed = check_ratings(ratings, noise_variance, observed)
    U, V = check_factors(factors, ratings.shape)
    errors = jnp.where(observed, (ratings - predict((U, V))) ** 2, 0)
    prior = -0.5 * (jnp.sum(U**2) + jnp.sum(V**2) + (U.size + V.size) * _LOG_2PI)
    return _log_likelihood(jnp.sum(errors), noise_variance, observed) + prior


def expected_log_joint(
    posterior: Gaussian,
    ratings: Float[Array, "n m"],
    noise_variance: Real[ArrayLike, ""] = 1.0,
    observed: Bool[Array, "n m"] | None = None,
) -> Float[Array, ""]:
    r"""Return $E_q \log p(R, U, V)$ in nats, in closed form, for independent Gaussian entries.

    With means $M, N$ and variances $C, D$ of $U$ and $V$ (squares are elementwise),

    $$E (R - UV^T/\sqrt k)^2 = (R - MN^T/\sqrt k)^2
      + \big[(M^2 + C) D^T + C (N^2)^T\big] / k.$$

    Args:
        posterior: A Gaussian over the pair $(U, V)$.
        ratings: $R$; entries that are not observed may hold anything, NaN included.
        noise_variance: Variance $\tau > 0$ of the noise.
        observed: True where a rating is seen; None if all are.

    Raises:
        ValueError: As for `matrix_log_joint`.
        RuntimeError: As for `matrix_log_joint`.
    """
    ratings, noise_variance, observed = check_ratings(ratings, noise_variance, observed)
    check_factors(posterior.mean, ratings.shape)
    posterior._require_gaussian()
    return unchecked_expected_log_joint(posterior, ratings, noise_variance, observed)


def matrix_map(
    ratings: Float[Array, "n m"],
    num_traits: int,
    noise_variance: Real[ArrayLike, ""] = 1.0,
) -> MatrixFit:
    r"""Return the posterior's mode, in closed form, for fully observed ratings.

    For a given $W = UV^T/\sqrt k$ the penalty $(\|U\|^2 + \|V\|^2)/2$ is at least $\sqrt k$ times
    the sum of the singular values of $W$. So those of $R$ are soft thresholded,
    $\hat\gamma_h = \max(\gamma_h - \tau\sqrt k, 0)$, and all but the first k set to zero. If the
    singular values k and k + 1 are equal, there are several modes, of which this is one.
    Derivatives of the prediction are NaN where two singular values are equal.

    Args:
        ratings: $R$, all observed.
        num_traits: Number k of traits.
        noise_variance: Variance $\tau > 0$ of the noise.

    Raises:
        ValueError: `ratings` is no matrix of float32 or float64, a rating is not finite,
            `num_traits` is below 1, or `noise_variance` not positive and finite.
        RuntimeError: Of traced ratings or noise, a number is such.

    References:
        Nakajima et al. (2013), the MAP solution.
    """
    ratings, noise_variance, observed = check_ratings(ratings, noise_variance)
    k = positive_integer("num_traits", num_traits)
    n, m = ratings.shape
    left, gamma, right = _svd(ratings, k)
    shrunk = jnp.maximum(gamma - noise_variance * math.sqrt(k), 0)
    prediction = (left * shrunk) @ right
    errors = jnp.sum((ratings - prediction) ** 2)
    prior = -math.sqrt(k) * jnp.sum(shrunk) - 0.5 * (n + m) * k * _LOG_2PI
    objective = _log_likelihood(errors, noise_variance, observed) + prior
    return MatrixFit(prediction, shrunk, objective)


def mean_field_threshold(
    num_rows: int,
    num_columns: int,
    num_traits: int,
    noise_variance: Real[ArrayLike, ""] = 1.0,
) -> Float[Array, ""]:
    r"""Return the singular value of $R$ up to which mean field predicts zero,

    $$\underline\gamma = \sqrt{\tau \big(t + \sqrt{t^2 - nm}\big)}, \qquad
      t = \frac{n + m + k\tau}{2}.$$

    Args:
        num_rows: Number n of rows of $R$.
        num_columns: Number m of columns of $R$.
        num_traits: Number k of traits.
        noise_variance: Variance $\tau > 0$ of the noise.

    Raises:
        ValueError: A size is not an integer of at least 1, or `noise_variance` not positive and
            finite.
        RuntimeError: A traced `noise_variance` is not positive and finite.

    References:
        Nakajima et al. (2013), theorem 1 with $c_a c_b = k^{-1/2}$.
    """
    sizes = {"num_rows": num_rows, "num_columns": num_columns, "num_traits": num_traits}
    n, m, k = (positive_integer(*item) for item in sizes.items())
    dtype = jnp.result_type(noise_variance, float)
    return _threshold(n, m, k, check_noise(noise_variance, dtype))


def matrix_mean_field(
    ratings: Float[Array, "n m"],
    num_traits: int,
    noise_variance: Real[ArrayLike, ""] = 1.0,
) -> MatrixFit:
    r"""Return the best $q(U) q(V)$, in closed form, for fully observed ratings.

    In the basis of the singular vectors of $R$ the traits separate. Trait h, with the singular
    value $\gamma_h$, has means along the singular vectors, of lengths $\mu_u, \mu_v$, and variances
    $s_u, s_v$ in all directions. With $\gamma = \max(\gamma_h, \underline\gamma)$ these are

    $$\sqrt{s_u s_v} = \frac{\tau \sqrt k}{\gamma}, \qquad
      \delta = \sqrt{s_u / s_v} = \mu_u / \mu_v, \qquad
      \delta - \frac1\delta = \frac{n - m}{\gamma \sqrt k},$$

    and the singular value of the prediction is

    $$\hat\gamma_h = \frac{\mu_u \mu_v}{\sqrt k} = \Big(\gamma - \frac{\tau (n + m)}{2 \gamma}
      - \frac{\tau \sqrt k}{2} \big(\delta + 1 / \delta\big)\Big)_+,$$

    zero up to `mean_field_threshold` $\underline\gamma$. Ties of singular values are as in
    `matrix_map`. `objective` is the evidence lower bound of
    `mean_field_posterior`, all constants included.

    Args:
        ratings: $R$, all observed.
        num_traits: Number k of traits.
        noise_variance: Variance $\tau > 0$ of the noise.

    Raises:
        ValueError: `ratings` is no matrix of float32 or float64, a rating is not finite,
            `num_traits` is below 1, or `noise_variance` not positive and finite.
        RuntimeError: Of traced ratings or noise, a number is such.

    References:
        Nakajima et al. (2013), theorems 1 and 2; the bound is evaluated here.
    """
    ratings, noise_variance, observed = check_ratings(ratings, noise_variance)
    k = positive_integer("num_traits", num_traits)
    n, m = ratings.shape
    left, gamma, right = _svd(ratings, k)
    shrunk, s, delta = _mean_field_traits(gamma, n, m, k, noise_variance)
    prediction = (left * shrunk) @ right
    # Second moments of a trait: E|u|^2 = delta * row_moment, E|v|^2 = column_moment / delta.
    product = math.sqrt(k) * shrunk
    row_moment, column_moment = product + n * s, product + m * s
    errors = jnp.sum(ratings**2) + jnp.sum(row_moment * column_moment / k - 2 * gamma * shrunk)
    prior = -0.5 * jnp.sum(delta * row_moment + column_moment / delta)
    # The log(2 pi) of prior and entropy cancel.
    entropy = 0.5 * jnp.sum((n + m) * (1 + jnp.log(s)) + (n - m) * jnp.log(delta))
    objective = _log_likelihood(errors, noise_variance, observed) + prior + entropy
    return MatrixFit(prediction, shrunk, objective)


def mean_field_posterior(
    ratings: Float[Array, "n m"],
    num_traits: int,
    noise_variance: Real[ArrayLike, ""] = 1.0,
) -> DiagonalGaussian:
    r"""Return the $q(U) q(V)$ of `matrix_mean_field` as a Gaussian over the pair $(U, V)$.

    The best of all $q(U) q(V)$ can be rotated so that all its entries are independent; this one
    is. Rotations $(UT, VT)$ of it are as good, and have correlated traits in each row.

    Args:
        ratings: $R$, all observed.
        num_traits: Number k of traits.
        noise_variance: Variance $\tau > 0$ of the noise.

    Raises:
        ValueError: `ratings` is no matrix of float32 or float64, a rating is not finite,
            `num_traits` is below 1, or `noise_variance` not positive and finite.
        RuntimeError: Of traced ratings or noise, a number is such.
    """
    ratings, noise_variance, _ = check_ratings(ratings, noise_variance)
    k = positive_integer("num_traits", num_traits)
    n, m = ratings.shape
    left, gamma, right = _svd(ratings, k)
    shrunk, s, delta = _mean_field_traits(gamma, n, m, k, noise_variance)
    size = root_of_positive(math.sqrt(k) * shrunk)
    mean = left * size * jnp.sqrt(delta), right.T * size / jnp.sqrt(delta)
    variance = jnp.broadcast_to(s * delta, (n, k)), jnp.broadcast_to(s / delta, (m, k))
    return DiagonalGaussian(mean, variance)


def unchecked_expected_log_joint(posterior, ratings, noise_variance, observed):
    """Return `expected_log_joint` of arguments that `check_ratings` has returned: for loops."""
    (M, N), variance = posterior.mean, posterior.variance
    k = M.shape[1]
    weights = observed.astype(ratings.dtype)
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
    errors = jnp.sum((ratings - weights * predict((M, N))) ** 2) + spread / k
    prior = -0.5 * (moments + (M.size + N.size) * _LOG_2PI)
    return _log_likelihood(errors, noise_variance, observed) + prior


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


def check_ratings(ratings, noise_variance, observed=None):
    """Return the ratings, zero where not observed, the noise variance, and the boolean mask."""
    ratings = full_precision("ratings", ratings)
    if ratings.ndim != 2 or ratings.size == 0:
        raise ValueError(f"{caller()}: ratings has to have shape (n, m), got {ratings.shape}.")
    if observed is None:
        observed = jnp.ones(ratings.shape, bool)
    observed = array_shape("observed", observed, ratings.shape)
    if observed.dtype != bool:
        raise ValueError(f"{caller()}: observed has to be boolean, got {observed.dtype}.")
    # Replaced, not weighted by 0: 0 * NaN is NaN.
    ratings = finite("an observed rating", jnp.where(observed, ratings, 0))
    return ratings, check_noise(noise_variance, ratings.dtype), observed


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


def _log_likelihood(errors, noise_variance, observed):
    """Return the Gaussian log likelihood from the sum of squared errors of all ratings."""
    count = jnp.sum(observed, dtype=errors.dtype)
    return -0.5 * (errors / noise_variance + count * (jnp.log(noise_variance) + _LOG_2PI))


def _svd(ratings, k):
    """Return the first k singular triples, zeros appended where k exceeds n or m."""
    left, gamma, right = jnp.linalg.svd(ratings, full_matrices=False)
    rank = min(k, gamma.shape[0])
    fill = (0, k - rank)
    return (
        jnp.pad(left[:, :rank], ((0, 0), fill)),
        jnp.pad(gamma[:rank], fill),
        jnp.pad(right[:rank], (fill, (0, 0))),
    )


def _threshold(n, m, k, noise_variance):
    noise = k * noise_variance
    t = (n + m + noise) / 2
    # t^2 - n m, without the cancellation where there is little noise and n = m; its root as a
    # product where both parts hold the noise, whose square overflows in float32 from 2e19 on.
    root = jnp.hypot((n - m) / 2, jnp.sqrt(noise) * jnp.sqrt((n + m) / 2 + noise / 4))
    return jnp.sqrt(noise_variance) * jnp.sqrt(t + root)


def _mean_field_traits(gamma, n, m, k, noise_variance):
    """Return the predicted singular values, sqrt(s_u s_v) and sqrt(s_u / s_v) of all traits."""
    threshold = _threshold(n, m, k, noise_variance)
    size = jnp.maximum(gamma, threshold)
    skew = (n - m) / (2 * size * math.sqrt(k))
    root = jnp.sqrt(1 + skew**2)
    # The root of delta - 1/delta = 2 skew, without cancellation for n < m.
    delta = jnp.where(skew > 0, root + skew, 1 / (root - skew))
    shrunk = size - noise_variance * ((n + m) / (2 * size) + math.sqrt(k) * root)
    shrunk = jnp.where(gamma > threshold, jnp.maximum(shrunk, 0), 0)  # rounding at the threshold
    return shrunk, noise_variance * math.sqrt(k) / size, delta
