"""The sign-flip mixture that fits the posterior of the scalar factorization model best."""

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Real

from symlib.factorization.scalar import (
    ScalarPosterior,
    check_range,
    check_scalars,
    mean_field_bound,
    scalar_posterior,
)
from symlib.posteriors import DiagonalGaussian, kl_sign_flip

# The range of `scalar_symmetrized`. In float32 its bound was right up to r^2 / tau = 1e18, where
# the two modes are 1e9 deviations apart, and off by 7 nats at 1e20.
_LARGEST_R = 1e4
_NOISES = 1e-6, 1e6


def scalar_symmetrized(
    r: Real[ArrayLike, ""], noise_variance: Real[ArrayLike, ""] = 1.0
) -> ScalarPosterior:
    r"""Return the $q^* = N(m, \mathrm{diag}(s))$ whose sign-flip mixture $\tilde q$ fits best.

    It maximises $L = E_{q^*}[\log p(r, u, v)] + H(q^*) + KL[q^* \| \tilde q]$ (Moore 2016,
    section 3.1). There is no threshold: $m_u m_v = 0$ only at $r = 0$. The optimum has

    1. $|m_u| = |m_v|$ and $s_u = s_v$. The first term of $L$ needs only $A = E u^2$, $B = E v^2$
       and $C = E uv$. For given ones the rest rises with $|\Sigma|$, as $2 KL'(a) \le 1/(1 + a)$:
       the least squared error of guessing a sign seen in noise, and that of a linear guess. So
       $m_u^2 / A = m_v^2 / B$, and $A = B$.
    2. With $\rho = |C| / A$ it solves $A^2 + (\tau - |r|\rho) A = \tau$. What is left is a function
       of $b = m_u / \sqrt{s_u}$, $\rho = b^2 / (1 + b^2)$, whose slope is bisected.

    For $|r| \le 50$ and $.01 \le \tau \le 100$ the bound is within 1e-11 of $1 + |L|$ of the best
    found by searches, 1e-6 in float32. Derivatives in `r` and `noise_variance` do not exist at
    $r = 0$, where $b$ grows like $\sqrt{|r|}$, and are NaN there. Of $\pm m$, $m_u \ge 0$.

    Args:
        r: The observation, $|r| \le 10^4$.
        noise_variance: Variance $\tau$ of the noise, from 1e-6 to 1e6.

    Raises:
        ValueError: An argument is outside the stated range, not finite, or in half precision.
    """
    r, noise_variance = check_scalars(r, noise_variance)
    r, noise_variance = check_range(r, noise_variance, _LARGEST_R, _NOISES)
    product, variance, bound = _symmetrized_optimum(jnp.abs(r), noise_variance)
    return scalar_posterior(r, product, variance, bound)


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
        return mean_field_bound(size, noise_variance, *moments(ratio)) + kl_sign_flip(base)

    # Fact 1 gives b^2 <= 2 |r| A / tau at the optimum, and A grows with the correlation.
    largest_moment = _second_moment(size - noise_variance, noise_variance)
    upper = jnp.sqrt(2 * size * largest_moment / noise_variance)
    # The bound rises and then falls, as was checked numerically over all b.
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
