r"""The scalar factorization model $r = uv + e$: MAP, mean field and exact answers.

$u, v \sim N(0, 1)$, $e \sim N(0, \tau)$, and only $r$ is seen ($\tau$ is `noise_variance`).
The joint density does not change under $(u, v) \to (-u, -v)$, so the posterior has two modes.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from symlib._checks import caller, entries, finite, full_precision

# Trapezoid nodes on the half line for `scalar_exact`, and the range over which the
# error stated there was measured. At |r| = 100 the posterior's ridge has a standard deviation
# of .05 in the variable of integration, about three steps: rounding, not the step, sets the error.
_NODES = 512
_LARGEST_R = 100.0
_NOISES = 1e-3, 1e3


class ScalarPosterior(NamedTuple):
    r"""A Gaussian approximation $q^*$ of $p(u, v | r)$ and what follows from it."""

    mean: Float[Array, "2"]  # m = (m_u, m_v)
    variance: Float[Array, "2"]  # s = (s_u, s_v)
    predictive_mean: Float[Array, ""]  # E[uv] = m_u m_v
    elbo: Float[Array, ""]  # bound on log p(r), all constants included


class ScalarExact(NamedTuple):
    """The exact answers of Bayes' rule."""

    log_evidence: Float[Array, ""]  # log p(r)
    predictive_mean: Float[Array, ""]  # E[uv | r]


def scalar_log_joint(
    z: Float[Array, "2"], r: Real[ArrayLike, ""], noise_variance: Real[ArrayLike, ""] = 1.0
) -> Float[Array, ""]:
    r"""Return $\log p(r, u, v) = \log N(r; uv, \tau) + \log N(u; 0, 1) + \log N(v; 0, 1)$.

    Args:
        z: The pair $(u, v)$, shape (2,).
        r: The observation, finite.
        noise_variance: Variance $\tau > 0$ of $e$, not its standard deviation.

    Raises:
        ValueError: An argument is not as stated, or in half precision.
    """
    if jnp.shape(z) != (2,):
        raise ValueError(f"z must be the pair (u, v) of shape (2,), got shape {jnp.shape(z)}")
    r, noise_variance = check_scalars(r, noise_variance)
    full_precision("z", jnp.empty((), jnp.result_type(z, float)))
    u, v = z[0], z[1]
    log_variance = jnp.log(noise_variance) + math.log(2 * math.pi)
    log_likelihood = -0.5 * ((r - u * v) ** 2 / noise_variance + log_variance)
    return log_likelihood - 0.5 * (u**2 + v**2) - jnp.log(2 * jnp.pi)


def scalar_map_estimate(
    r: Real[ArrayLike, ""], noise_variance: Real[ArrayLike, ""] = 1.0
) -> Float[Array, ""]:
    r"""Return the product $uv$ at the posterior's mode, $\mathrm{sign}(r)\max(|r| - \tau, 0)$.

    At a fixed product $w$ the prior leaves $|w|$, so $w$ minimises $(r - w)^2 / 2\tau + |w|$
    (Nakajima et al. 2013, the MAP solution at $L = M = 1$).

    Args:
        r: The observation, finite.
        noise_variance: Variance $\tau > 0$ of the noise.

    Raises:
        ValueError: An argument is not as stated, or in half precision.
    """
    r, noise_variance = check_scalars(r, noise_variance)
    return jnp.sign(r) * jnp.maximum(jnp.abs(r) - noise_variance, 0)


def scalar_mean_field(
    r: Real[ArrayLike, ""], noise_variance: Real[ArrayLike, ""] = 1.0
) -> ScalarPosterior:
    r"""Return the best factorized posterior $q(u) q(v)$, in closed form.

    The best factors are Gaussian. The variance of each is $s = \tau / \max(|r|, r_*)$, with the
    threshold $r_* = (\tau + \sqrt{\tau^2 + 4\tau})/2$. Above it the means have the product

    $$m_u m_v = \mathrm{sign}(r)\,\big(|r| - \tau - \tau / |r|\big),$$

    below it they are zero (Nakajima et al. 2013, the analytic solution at $L = M = 1$). Of the two
    equivalent optima the one with $m_u \ge 0$ is returned. The arguments and the errors are those
    of `scalar_map_estimate`.
    """
    r, noise_variance = check_scalars(r, noise_variance)
    size = jnp.abs(r)
    # Two roots: the square of the noise overflows in float32 from 2e19 on.
    threshold = (noise_variance + jnp.sqrt(noise_variance) * jnp.sqrt(noise_variance + 4)) / 2
    variance = noise_variance / jnp.maximum(size, threshold)
    product = jnp.where(size > threshold, size - noise_variance - noise_variance / size, 0)
    product = jnp.maximum(product, 0)  # rounding just above the threshold
    bound = mean_field_bound(size, noise_variance, product, variance)
    return scalar_posterior(r, product, variance, bound)


def scalar_exact(r: Real[ArrayLike, ""], noise_variance: Real[ArrayLike, ""] = 1.0) -> ScalarExact:
    r"""Compute $\log p(r)$ and $E[uv | r]$ by quadrature over $u$, with $v$ integrated out.

    $$p(r) = \int N(u; 0, 1)\, N(r; 0, \tau + u^2)\, du, \qquad
      E[uv | r] = r\, E\Big[\frac{u^2}{\tau + u^2} \Big| r\Big].$$

    The errors of $\log p$ relative to $1 + |\log p|$, and of the predictive mean relative to
    $1 + |r|$, are below 1e-14 in float64 and 1e-6 in float32.

    Args:
        r: The observation, $|r| \le 100$.
        noise_variance: Variance $\tau$ of the noise, from .001 to 1000.

    Raises:
        ValueError: An argument is outside the stated range, not finite, or in half precision.

    Example:
        >>> exact = scalar_exact(1.5)
        >>> round(float(exact.log_evidence), 3), round(float(exact.predictive_mean), 3)
        (-1.92, 0.535)
    """
    r, noise_variance = check_scalars(r, noise_variance)
    r, noise_variance = check_range(r, noise_variance, _LARGEST_R, _NOISES)
    # Beyond u^2 = 2(|r| + 40) the integrand is below e^-40 of its peak, which is at least e^-|r|.
    # With u = sqrt(tau) sinh x it falls doubly exponentially: the trapezoid rule suits it.
    largest = jnp.arcsinh(jnp.sqrt(2 * (jnp.abs(r) + 40) / noise_variance))
    x = largest * jnp.linspace(0, 1, _NODES, dtype=r.dtype)
    log_integrand = -0.5 * (
        noise_variance * jnp.sinh(x) ** 2 + (r / jnp.cosh(x)) ** 2 / noise_variance
    )
    # An even integrand: twice the half line, where the two end nodes count half.
    log_integrand = log_integrand.at[jnp.array([0, -1])].add(-jnp.log(2.0))
    log_step = jnp.log(2 * largest / (_NODES - 1))
    log_evidence = jax.nn.logsumexp(log_integrand) + log_step - jnp.log(2 * jnp.pi)
    weights = jax.nn.softmax(log_integrand)
    return ScalarExact(log_evidence, r * jnp.sum(weights * jnp.tanh(x) ** 2))


def check_scalars(r, noise_variance):
    """Return both as finite scalars of one precision, the variance positive."""
    dtype = jnp.result_type(r, noise_variance, float)
    full_precision("r or noise_variance", jnp.empty((), dtype))
    r, noise_variance = jnp.asarray(r, dtype), jnp.asarray(noise_variance, dtype)
    if r.shape or noise_variance.shape:
        raise ValueError(
            f"{caller()}: r and noise_variance have to be scalars, got shapes "
            f"{r.shape} and {noise_variance.shape}; use jax.vmap for more."
        )
    return finite("r", r), entries(
        "noise_variance",
        noise_variance,
        lambda variance: (variance > 0) & (variance < math.inf),
        "positive and finite",
    )


def check_range(r, noise_variance, largest, noises):
    """Return both; |r| is at most `largest`, the noise within the pair `noises`."""
    r = entries("|r|", r, lambda r: abs(r) <= largest, f"at most {largest:g}")
    # The ends are numbers of the type of the noise: .001 in float32 is not .001.
    least, most = (np.asarray(end, noise_variance.dtype) for end in noises)
    return r, entries(
        "noise_variance",
        noise_variance,
        lambda variance: (variance >= least) & (variance <= most),
        f"from {noises[0]:g} to {noises[1]:g}",
    )


def root_of_positive(number):
    """Return the root of a number of at least 0; at 0 its derivative is taken to be 0, not NaN."""
    return jnp.where(number > 0, jnp.sqrt(jnp.where(number > 0, number, 1)), 0 * number)


def mean_field_bound(size, noise_variance, product, variance):
    r"""Return $E_{q^*} \log p + H(q^*)$ at $m_u = m_v$, $m_u m_v$ = product, $s_u = s_v$.

    $E(r - uv)^2 = (r - m^2)^2 + s(2m^2 + s)$; the $\log 2\pi$ of prior and entropy cancel.
    """
    squared_error = (size - product) ** 2 + variance * (2 * product + variance)
    log_variance = jnp.log(noise_variance) + math.log(2 * math.pi)
    log_likelihood = -squared_error / noise_variance - log_variance
    return 0.5 * log_likelihood - (product + variance) + 1 + jnp.log(variance)


def scalar_posterior(r, product, variance, bound):
    """Return the posterior with $|m_u m_v|$ = product and the sign of r in $m_v$."""
    sign = jnp.where(r < 0, -1, 1).astype(r.dtype)
    size = root_of_positive(product)
    return ScalarPosterior(
        mean=jnp.stack([size, sign * size]),
        variance=jnp.stack([variance, variance]),
        predictive_mean=sign * product,
        elbo=bound,
    )
