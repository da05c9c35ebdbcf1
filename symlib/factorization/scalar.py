r"""The scalar factorization model $r = uv + e$: MAP, mean field, symmetrized and exact answers.

$u, v \sim N(0, 1)$, $e \sim N(0, \tau)$, and only $r$ is seen ($\tau$ is `noise_variance`).
The joint density does not change under $(u, v) \to (-u, -v)$, so the posterior has two modes.
It is the smallest model in which the answer of an approximation can be held against Bayes.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from symlib._checks import caller, entries, finite, full_precision
from symlib.posteriors import DiagonalGaussian, kl_sign_flip

# Trapezoid nodes on the half line for `scalar_exact`, and the range over which the
# error stated there was measured. At |r| = 100 the posterior's ridge has a standard deviation
# of .05 in the variable of integration, about three steps: rounding, not the step, sets the error.
_NODES = 512
_LARGEST_R = 100.0
_SMALLEST_NOISE, _LARGEST_NOISE = 1e-3, 1e3

# The range of `scalar_symmetrized`. In float32 its bound was right up to r^2 / tau = 1e18, where
# the two modes are 1e9 deviations apart, and off by 7 nats at 1e20.
_LARGEST_R_SYMMETRIZED = 1e4
_SMALLEST_NOISE_SYMMETRIZED, _LARGEST_NOISE_SYMMETRIZED = 1e-6, 1e6


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
        z: The pair $(u, v)$.
        r: The observation.
        noise_variance: Variance $\tau > 0$ of $e$, not its standard deviation.

    Raises:
        ValueError: `z` does not have shape (2,); `noise_variance` is not positive and finite, `r`
            is not finite, or a number is in half precision.
        RuntimeError: A traced value is such.
    """
    if jnp.shape(z) != (2,):
        raise ValueError(f"z must be the pair (u, v) of shape (2,), got shape {jnp.shape(z)}")
    r, noise_variance = _checked(r, noise_variance)
    full_precision("z", jnp.empty((), jnp.result_type(z, float)))
    u, v = z[0], z[1]
    log_variance = jnp.log(noise_variance) + math.log(2 * math.pi)
    log_likelihood = -0.5 * ((r - u * v) ** 2 / noise_variance + log_variance)
    return log_likelihood - 0.5 * (u**2 + v**2) - jnp.log(2 * jnp.pi)


def scalar_map_estimate(
    r: Real[ArrayLike, ""], noise_variance: Real[ArrayLike, ""] = 1.0
) -> Float[Array, ""]:
    r"""Return the product $uv$ at the posterior's mode, $\mathrm{sign}(r)\max(|r| - \tau, 0)$.

    The mode minimises $(r - uv)^2 / 2\tau + (u^2 + v^2)/2$. For a fixed product $w = uv$ the
    second term is at least $|w|$, with equality at $|u| = |v|$. So $w$ minimises
    $(r - w)^2 / 2\tau + |w|$: soft thresholding.

    Args:
        r: The observation.
        noise_variance: Variance $\tau > 0$ of the noise.

    Raises:
        ValueError: `noise_variance` is not positive and finite, `r` is not finite, or one of them
            is in half precision.
        RuntimeError: A traced value is such.

    References:
        Nakajima et al. (2013), the MAP solution at $L = M = 1$.
    """
    r, noise_variance = _checked(r, noise_variance)
    return jnp.sign(r) * jnp.maximum(jnp.abs(r) - noise_variance, 0)


def scalar_mean_field(
    r: Real[ArrayLike, ""], noise_variance: Real[ArrayLike, ""] = 1.0
) -> ScalarPosterior:
    r"""Return the best factorized posterior $q(u) q(v)$, in closed form.

    The best factors are Gaussian. With the other factor fixed,

    $$s_u = \frac{\tau}{\tau + m_v^2 + s_v}, \qquad m_u = \frac{s_u\, r\, m_v}{\tau},$$

    and the same with $u$ and $v$ exchanged. If the means are not zero, the two equations for them
    give $s_u s_v = \tau^2 / r^2$ and $m_u^2 / m_v^2 = s_u / s_v$; put into the equations for the
    variances, these leave only $s_u = s_v = \tau / |r|$, hence

    $$m_u m_v = \mathrm{sign}(r)\,\big(|r| - \tau - \tau / |r|\big).$$

    This needs $|r|$ above the threshold $r_* = (\tau + \sqrt{\tau^2 + 4\tau})/2$. Below it
    the means are zero and $s = \tau / r_*$; above it zero is a saddle. In one line:
    $s = \tau / \max(|r|, r_*)$. At $\tau = 1$, $r_*$ is the golden ratio.

    Of the two equivalent optima the one with $m_u \ge 0$ is returned.

    Args:
        r: The observation.
        noise_variance: Variance $\tau > 0$ of the noise.

    Raises:
        ValueError: `noise_variance` is not positive and finite, `r` is not finite, or one of them
            is in half precision.
        RuntimeError: A traced value is such.

    References:
        Nakajima et al. (2013), the analytic solution at $L = M = 1$.
    """
    r, noise_variance = _checked(r, noise_variance)
    size = jnp.abs(r)
    # Two roots: the square of the noise overflows in float32 from 2e19 on.
    threshold = (noise_variance + jnp.sqrt(noise_variance) * jnp.sqrt(noise_variance + 4)) / 2
    variance = noise_variance / jnp.maximum(size, threshold)
    product = jnp.where(size > threshold, size - noise_variance - noise_variance / size, 0)
    product = jnp.maximum(product, 0)  # rounding just above the threshold
    bound = _mean_field_bound(size, noise_variance, product, variance)
    return _result(r, product, variance, bound)


def scalar_symmetrized(
    r: Real[ArrayLike, ""], noise_variance: Real[ArrayLike, ""] = 1.0
) -> ScalarPosterior:
    r"""Return the Gaussian $q^* = N(m, \mathrm{diag}(s))$ whose sign-flip mixture fits best.

    It maximises $L = E_{q^*}[\log p(r, u, v)] + H(q^*) + KL[q^* \| \tilde q]$ over both means and
    both variances. Two facts reduce this to one unknown.

    1. The optimum has $|m_u| = |m_v|$ and $s_u = s_v$. The first term of $L$ needs only
       $A = E u^2$, $B = E v^2$ and $C = E uv$; the rest is the entropy of $\tilde q$. For given
       $A, B, C$ that entropy rises with $|\Sigma|$, because
       $1 - 2(1 + a) KL'(a) \ge 0$: $2 KL'(a)$ is the least squared error of guessing a sign
       seen in Gaussian noise, and guessing linearly already reaches $1 / (1 + a)$. So
       $m_u^2 / A = m_v^2 / B$; then $A = B$, as $A + B$ is smallest for a given $AB$.
    2. With $\rho = |C| / A$ the best $A$ solves $A^2 + (\tau - |r|\rho) A = \tau$.

    What is left is a function of $b = m_u / \sqrt{s_u}$, $\rho = b^2 / (1 + b^2)$, that rises and
    then falls (checked numerically over all $b$). Its slope is bisected over
    $0 \le b^2 \le 2 |r| A(1) / \tau$. There is no threshold: $m_u m_v = 0$ only at $r = 0$.

    For $|r| \le 50$ and $.01 \le \tau \le 100$ the bound is within 1e-11 of $1 + |L|$ of the best
    that searches over all four parameters find in float64, 1e-6 in float32. Derivatives in `r` and
    `noise_variance` come from the implicit function theorem; they do not exist at $r = 0$,
    where $b$ grows like $\sqrt{|r|}$, and are NaN there.

    Args:
        r: The observation, $|r| \le 10^4$.
        noise_variance: Variance $\tau$ of the noise, from 1e-6 to 1e6.

    Returns:
        $q^*$ with $m_u \ge 0$, the predictive mean of $\tilde q$ and the bound, Moore's eq. 5.

    Raises:
        ValueError: `noise_variance` is not positive and finite, `r` is not finite, or one of them
            is in half precision.
        RuntimeError: A traced value is such.

    References:
        Moore (2016), section 3.1. The reduction to one unknown is ours.
    """
    r, noise_variance = _checked(r, noise_variance)
    r, noise_variance = _in_range(
        r,
        noise_variance,
        _LARGEST_R_SYMMETRIZED,
        (_SMALLEST_NOISE_SYMMETRIZED, _LARGEST_NOISE_SYMMETRIZED),
    )
    product, variance, bound = _symmetrized_optimum(jnp.abs(r), noise_variance)
    return _result(r, product, variance, bound)


def scalar_exact(r: Real[ArrayLike, ""], noise_variance: Real[ArrayLike, ""] = 1.0) -> ScalarExact:
    r"""Compute $\log p(r)$ and $E[uv | r]$ by quadrature over $u$, with $v$ integrated out.

    $$p(r) = \int N(u; 0, 1)\, N(r; 0, \tau + u^2)\, du, \qquad
      E[uv | r] = r\, E\Big[\frac{u^2}{\tau + u^2} \Big| r\Big].$$

    With $u = \sqrt\tau \sinh x$ the integrand is
    $\exp(-\tau \sinh^2(x) / 2 - r^2 / (2 \tau \cosh^2 x)) / 2\pi$: smooth, even, and falling
    doubly exponentially, so the trapezoid rule converges exponentially.

    Against 25-digit arithmetic, for $|r| \le 100$ and $.001 \le \tau \le 1000$, the errors of
    $\log p$ relative to $1 + |\log p|$, and of the predictive mean relative to $1 + |r|$, are below
    1e-14 in float64 and 1e-6 in float32.

    Args:
        r: The observation, $|r| \le 100$.
        noise_variance: Variance $\tau$ of the noise, from .001 to 1000.

    Raises:
        ValueError: An argument is outside the stated range, not finite, or in half precision.
        RuntimeError: A traced value is such.

    Example:
        >>> exact = scalar_exact(1.5)
        >>> round(float(exact.log_evidence), 3), round(float(exact.predictive_mean), 3)
        (-1.92, 0.535)
    """
    r, noise_variance = _checked(r, noise_variance)
    r, noise_variance = _in_range(r, noise_variance, _LARGEST_R, (_SMALLEST_NOISE, _LARGEST_NOISE))
    # Beyond u^2 = 2(|r| + 40) the integrand is below e^-40 of its peak, which is at least e^-|r|.
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


def _checked(r, noise_variance):
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


def _in_range(r, noise_variance, largest, noises):
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


def _mean_field_bound(size, noise_variance, product, variance):
    r"""Return $E_{q^*} \log p + H(q^*)$ at $m_u = m_v$, $m_u m_v$ = product, $s_u = s_v$.

    $E(r - uv)^2 = (r - m^2)^2 + s(2m^2 + s)$; the $\log 2\pi$ of prior and entropy cancel.
    """
    squared_error = (size - product) ** 2 + variance * (2 * product + variance)
    log_variance = jnp.log(noise_variance) + math.log(2 * math.pi)
    log_likelihood = -squared_error / noise_variance - log_variance
    return 0.5 * log_likelihood - (product + variance) + 1 + jnp.log(variance)


def _second_moment(slope, noise_variance):
    r"""Return the positive root of $A^2 - dA = \tau$ ($d$ is the slope), without cancellation."""
    half_width = jnp.sqrt(slope**2 + 4 * noise_variance)
    return jnp.where(
        slope > 0, (half_width + slope) / 2, 2 * noise_variance / (half_width + jnp.abs(slope))
    )


@jax.jit  # or every call outside jit would compile the loop again
def _symmetrized_optimum(size, noise_variance):
    """Return $m_u m_v$, the variance and the bound for $r$ = size, see `scalar_symmetrized`."""

    def moments(ratio):
        correlation = ratio**2 / (1 + ratio**2)
        second_moment = _second_moment(size * correlation - noise_variance, noise_variance)
        return correlation * second_moment, second_moment / (1 + ratio**2)

    def bound(ratio):
        base = DiagonalGaussian(jnp.stack([ratio, ratio]), jnp.ones(2, ratio.dtype))
        return _mean_field_bound(size, noise_variance, *moments(ratio)) + kl_sign_flip(base)

    # Fact 1 gives b^2 <= 2 |r| A / tau at the optimum, and A grows with the correlation.
    largest_moment = _second_moment(size - noise_variance, noise_variance)
    upper = jnp.sqrt(2 * size * largest_moment / noise_variance)
    ratio = _root_of_falling(jax.grad(bound), upper)
    return *moments(ratio), bound(ratio)


def _root_of_falling(slope, upper):
    """Find the point of [0, upper] where `slope` turns from positive to negative."""

    def bisect(function, upper):
        def halve(_, interval):
            low, high = interval
            middle = (low + high) / 2
            rising = function(middle) > 0
            return jnp.where(rising, middle, low), jnp.where(rising, high, middle)

        # A few halvings beyond the mantissa, so that rounding sets the error.
        steps = jnp.finfo(upper.dtype).nmant + 4
        low, high = jax.lax.fori_loop(0, steps, halve, (jnp.zeros_like(upper), upper))
        return (low + high) / 2

    # Derivatives by the implicit function theorem; those of the bisection would be wrong.
    return jax.lax.custom_root(slope, upper, bisect, lambda g, y: y / g(jnp.ones_like(y)))


def _result(r, product, variance, bound):
    sign = jnp.where(r < 0, -1, 1).astype(r.dtype)
    size = root_of_positive(product)
    return ScalarPosterior(
        mean=jnp.stack([size, sign * size]),
        variance=jnp.stack([variance, variance]),
        predictive_mean=sign * product,
        elbo=bound,
    )
