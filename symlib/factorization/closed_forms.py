r"""MAP and mean field of the matrix factorization model in closed form, for all ratings observed.

Both shrink the singular values of the ratings and keep their singular vectors.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from symlib._checks import caller, positive_integer, refuse_if
from symlib.factorization.ratings import Ratings, check_noise, check_ratings
from symlib.factorization.scalar import root_of_positive
from symlib.posteriors import DiagonalGaussian

_LOG_2PI = math.log(2 * math.pi)


class MatrixFit(NamedTuple):
    r"""What an approximation says of the noise-free ratings."""

    prediction: Float[Array, "n m"]  # E[U V^T / sqrt(k)]; for MAP its value at the mode
    singular_values: Float[Array, " k"]  # of the prediction, descending, zeros appended if k > n, m
    objective: Float[Array, ""]  # bound on log p(R); for MAP the log joint density at the mode


def matrix_map_estimate(
    ratings: Ratings,
    num_traits: int,
) -> MatrixFit:
    r"""Return the posterior's mode, in closed form, for fully observed ratings.

    The first k singular values of $R$ are soft thresholded,
    $\hat\gamma_h = \max(\gamma_h - \tau\sqrt k, 0)$ (Nakajima et al. 2013, the MAP solution). If
    the values k and k + 1 are equal, this is one of several modes. Derivatives in the ratings are
    refused where two singular values are closer than the root of the rounding error times the
    largest, or the least is so close to zero and n is not m.

    Args:
        ratings: $R$ with its noise, all observed.
        num_traits: Number k of traits.

    Raises:
        ValueError: Not all ratings are observed, or `num_traits` is below 1.
    """
    values, noise_variance = _complete(ratings, "map_ascent searches for the mode")
    k = positive_integer("num_traits", num_traits)
    n, m = ratings.shape
    left, gamma, right = _svd(values, k)
    shrunk = jnp.maximum(gamma - noise_variance * math.sqrt(k), 0)
    prediction = (left * shrunk) @ right
    errors = jnp.sum((values - prediction) ** 2)
    prior = -math.sqrt(k) * jnp.sum(shrunk) - 0.5 * (n + m) * k * _LOG_2PI
    objective = ratings.log_likelihood(errors) + prior
    return MatrixFit(prediction, shrunk, objective)


def mean_field_threshold(
    num_rows: int,
    num_columns: int,
    num_traits: int,
    noise_variance: Real[ArrayLike, ""] = 1.0,
) -> Float[Array, ""]:
    r"""Return the singular value of $R$ up to which mean field predicts zero,

    $$\underline\gamma = \sqrt{\tau \big(t + \sqrt{t^2 - nm}\big)}, \qquad
      t = \frac{n + m + k\tau}{2}$$

    (Nakajima et al. 2013, theorem 1 with $c_a c_b = k^{-1/2}$).

    Args:
        num_rows: Number n of rows of $R$.
        num_columns: Number m of columns of $R$.
        num_traits: Number k of traits.
        noise_variance: Variance $\tau > 0$ of the noise.

    Raises:
        ValueError: A size is no integer of at least 1, or the noise not positive and finite.
    """
    sizes = {"num_rows": num_rows, "num_columns": num_columns, "num_traits": num_traits}
    n, m, k = (positive_integer(*item) for item in sizes.items())
    dtype = jnp.result_type(noise_variance, float)
    return _threshold(n, m, k, check_noise(noise_variance, dtype))


def matrix_mean_field(
    ratings: Ratings,
    num_traits: int,
) -> MatrixFit:
    r"""Return the best $q(U) q(V)$, in closed form, for fully observed ratings.

    Trait h, with the singular value $\gamma_h$ of $R$, has means along the singular vectors, of
    lengths $\mu_u, \mu_v$, and variances $s_u, s_v$ in all directions (Nakajima et al. 2013,
    theorems 1 and 2). With $\gamma = \max(\gamma_h, \underline\gamma)$,

    $$\sqrt{s_u s_v} = \frac{\tau \sqrt k}{\gamma}, \qquad
      \delta = \sqrt{s_u / s_v} = \mu_u / \mu_v, \qquad
      \delta - \frac1\delta = \frac{n - m}{\gamma \sqrt k},$$

    and the singular value of the prediction is zero up to `mean_field_threshold`
    $\underline\gamma$,

    $$\hat\gamma_h = \frac{\mu_u \mu_v}{\sqrt k} = \Big(\gamma - \frac{\tau (n + m)}{2 \gamma}
      - \frac{\tau \sqrt k}{2} \big(\delta + 1 / \delta\big)\Big)_+.$$

    `objective` is the evidence lower bound of `mean_field_posterior`, all constants included. The
    arguments, ties of singular values and the errors are as in `matrix_map_estimate`.

    Example:
        >>> ratings = Ratings(jnp.diag(jnp.array([6.0, 1.0])), noise_variance=0.5)
        >>> fit = matrix_mean_field(ratings, num_traits=2)  # it keeps one trait
        >>> print(jnp.round(fit.singular_values, 2))
        [5.13 0.  ]
    """
    values, noise_variance = _complete(ratings, "mean_field_ascent fits")
    k = positive_integer("num_traits", num_traits)
    n, m = ratings.shape
    left, gamma, right = _svd(values, k)
    shrunk, s, delta = _mean_field_traits(gamma, n, m, k, noise_variance)
    prediction = (left * shrunk) @ right
    # Second moments of a trait: E|u|^2 = delta * row_moment, E|v|^2 = column_moment / delta.
    product = math.sqrt(k) * shrunk
    row_moment, column_moment = product + n * s, product + m * s
    errors = jnp.sum(values**2) + jnp.sum(row_moment * column_moment / k - 2 * gamma * shrunk)
    prior = -0.5 * jnp.sum(delta * row_moment + column_moment / delta)
    # The log(2 pi) of prior and entropy cancel.
    entropy = 0.5 * jnp.sum((n + m) * (1 + jnp.log(s)) + (n - m) * jnp.log(delta))
    objective = ratings.log_likelihood(errors) + prior + entropy
    return MatrixFit(prediction, shrunk, objective)


def mean_field_posterior(
    ratings: Ratings,
    num_traits: int,
) -> DiagonalGaussian:
    """Return the $q(U) q(V)$ of `matrix_mean_field` as a Gaussian over the pair $(U, V)$.

    All its entries are independent. Rotations $(UT, VT)$ of it are as good, and have correlated
    traits in each row. The arguments and the errors are those of `matrix_mean_field`.
    """
    values, noise_variance = _complete(ratings, "fit_matrix fits a Gaussian")
    k = positive_integer("num_traits", num_traits)
    n, m = ratings.shape
    left, gamma, right = _svd(values, k)
    shrunk, s, delta = _mean_field_traits(gamma, n, m, k, noise_variance)
    size = root_of_positive(math.sqrt(k) * shrunk)
    mean = left * size * jnp.sqrt(delta), right.T * size / jnp.sqrt(delta)
    variance = jnp.broadcast_to(s * delta, (n, k)), jnp.broadcast_to(s / delta, (m, k))
    return DiagonalGaussian(mean, variance)


def _complete(ratings, remedy):
    """Return values and noise variance of ratings that are all observed."""
    check_ratings(ratings, complete=remedy)
    return ratings.values, ratings.noise_variance


def _svd(ratings, k):
    """Return the first k singular triples, zeros appended where k exceeds n or m."""
    left, gamma, right = _triples(ratings)
    rank = min(k, gamma.shape[0])
    fill = (0, k - rank)
    return (
        jnp.pad(left[:, :rank], ((0, 0), fill)),
        jnp.pad(gamma[:rank], fill),
        jnp.pad(right[:rank], (fill, (0, 0))),
    )


@jax.custom_jvp
def _triples(values):
    return tuple(jnp.linalg.svd(values, full_matrices=False))


@_triples.defjvp
def _triples_jvp(primals, tangents):
    gamma = jnp.linalg.svd(primals[0], compute_uv=False)
    n, m = primals[0].shape
    # Of a matrix that is not square the derivative needs singular values above zero as well.
    gaps = gamma - jnp.append(gamma[1:], -gamma[0] if n == m else 0)
    # Rounding in a derivative of a singular vector grows as the inverse of the gap.
    bad = jnp.min(gaps) <= jnp.finfo(gamma.dtype).eps ** 0.5 * gamma[0]
    message = (
        f"{caller()}: derivatives in the ratings need distinct singular values (and, unless n = m, "
        "above zero); these hold a tie or a zero."
    )
    values = refuse_if(primals[0], bad, message)
    return jax.jvp(lambda v: tuple(jnp.linalg.svd(v, full_matrices=False)), (values,), tangents)


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
