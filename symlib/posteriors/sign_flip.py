r"""What symmetrizing over one sign flip adds to a bound, by quadrature."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from symlib.posteriors.gaussian import Gaussian


def kl_sign_flip(base: Gaussian) -> Float[Array, ""]:
    r"""Return $KL[q^* \| \tilde q]$ in nats for one sign flip of a whole Gaussian vector.

    For the mixture of Moore (2016, section 3.1) the log ratio depends on $z$ only through
    $y = m^\top \Sigma^{-1} z$, which has the law $\mathcal{N}(a, a)$ with
    $a = m^\top \Sigma^{-1} m$. Hence

    $$KL = E_{y \sim \mathcal{N}(a, a)} [\log 2 - \log(1 + e^{-2 y})],$$

    which rises from 0 at $a = 0$, with slope $1/2$, to $\log 2$ at infinity. For all $a$
    the quadrature errs by less than 1e-15 in float64 and 5e-7 in float32, the derivative
    with respect to $a$ by less than 1e-14 and 5e-7 (measured against 30 digits). Derivatives of
    any order exist, also at $a = 0$.

    Args:
        base: A Gaussian.

    Raises:
        ValueError: The base is a subclass with another law.
    """
    base._require_gaussian()
    mean, log_variance = base._flat()
    # From 100 standard deviations on the result is log 2 to exp(-5000), so the cut changes nothing;
    # without it the square could overflow.
    ratio = jnp.clip(mean * jnp.exp(-0.5 * log_variance), -100, 100)
    a = jnp.sum(ratio**2)
    return _gaussian_expectation(lambda y: math.log(2) - jax.nn.softplus(-2 * y), a)


# Trapezoidal rule for y = a + sqrt(a) x. log(1 + exp(-2 y)) is analytic for |Im y| < pi / 2, so a
# step h in x errs by exp(-pi^2 / (h sqrt(a))), times exp(-a / 2) for the weight at y = 0. At its
# worst a this is exp(-1.5 (pi^2 / h)^(2/3)): 2e-16 at h = 1/12. Cutting at |x| = 9 leaves 2e-19.
_NODES = np.arange(-9 * 12, 9 * 12 + 1) / 12
_WEIGHTS = np.exp(-0.5 * _NODES**2) / np.sum(np.exp(-0.5 * _NODES**2))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _gaussian_expectation(f, a):
    r"""Return $E[f(y)]$ for $y \sim \mathcal{N}(a, a)$."""
    values = jax.vmap(f)(a + jnp.sqrt(a) * jnp.asarray(_NODES, a.dtype))
    return jnp.dot(jnp.asarray(_WEIGHTS, a.dtype), values)


@_gaussian_expectation.defjvp
def _gaussian_expectation_jvp(f, primals, tangents):
    # d/da E[f] = E[f' + f''/2], the heat equation. Differentiating the rule itself would meet the
    # infinite slope of sqrt(a) at a = 0.
    (a,), (da,) = primals, tangents
    slope = jax.grad(f)
    curvature = jax.grad(slope)
    derivative = _gaussian_expectation(lambda y: slope(y) + 0.5 * curvature(y), a)
    return _gaussian_expectation(f, a), derivative * da
