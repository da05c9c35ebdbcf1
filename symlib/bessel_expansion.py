"""Expansions of log 0F1 for large k and for large sigma, for `symlib.bessel.log_hyp0f1`.

They take one checked spectrum, of shape (k,). The formulas stand in its docstring.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Nodes, uniform in log(tau), of `_entropy`: the step is at most .45 for sigma up to 1e6, and with
# the nearest poles pi/2 from the real line an error of e^-22 is left.
_ENTROPY_NODES = 96
_NEWTON_STEPS = 20


def asymptotic(sigma: Float[Array, " k"]) -> Float[Array, ""]:
    """Return the leading order for all sigma to infinity."""
    k = sigma.shape[0]
    i, j = _pairs(k)
    constant = k * (k - 1) / 4 * math.log(2 * math.pi) - _log_volume(k)
    return jnp.sum(sigma) - jnp.sum(jnp.log(sigma[i] + sigma[j])) / 2 + constant


def expansion(sigma: Float[Array, " k"]) -> Float[Array, ""]:
    """Return the first two orders in 1/k, corrected by most of the third."""
    k = sigma.shape[0]
    i, j = _pairs(k)
    c = _saddle(sigma)
    s = jnp.sqrt(c + sigma**2)
    # All terms relative to sigma = 0, where c = k^2/4 and s_i = k/2: nothing cancels there.
    shift = c - k**2 / 4
    excess = (shift + sigma**2) / (s + k / 2)
    leading = jnp.sum(excess) - jnp.sum(jnp.log1p((excess[i] + excess[j]) / k)) / 2 - shift / 2
    # e(0): zero where c > 0. Elsewhere rounding may take it below 0, but its derivative is kept.
    gap = jnp.where(c > 0, 0, 1 - jnp.sum(1 / s) / 2)
    gap = gap - jax.lax.stop_gradient(jnp.minimum(gap, 0))
    entropy = _entropy(s, gap) - k * (math.log(2) - 1) / 2
    return leading + entropy - _third_order(k, s, c, gap)


def _saddle(sigma):
    """Return c: the root of sum (c + sigma^2)^(-1/2) = 2, or 0 if that is below."""
    k = sigma.shape[0]
    fixed = jax.lax.stop_gradient(sigma)
    squares = fixed**2
    # n values of at most sigma_(n) alone give c >= n^2/4 - sigma_(n)^2. If no bound is positive,
    # all sigma are at least 1/2.
    counts = jnp.arange(1, k + 1, dtype=sigma.dtype)
    bound = jnp.max(counts**2 / 4 - jnp.sort(squares))
    lower = jnp.maximum(bound, 0)

    # (sum (c + sigma^2)^(-1/2))^-2 is concave in c: Newton's method climbs to the root.
    def step(_, c):
        roots = jnp.sqrt(c + squares)
        g = jnp.sum(1 / roots)
        return jnp.maximum(c + (g / 2 - 1) * (g / 2 + 1) * g / jnp.sum(roots**-3), lower)

    c = jax.lax.fori_loop(0, _NEWTON_STEPS, step, lower)
    # One more step, of Newton for the sum itself, carries the derivative of c.
    strong = c > 0
    c = jnp.where(strong, c, 0)
    roots = jnp.sqrt(c + sigma**2)
    slope = jax.lax.stop_gradient(jnp.sum(roots**-3)) / 2
    moved = c + (jnp.sum(1 / roots) - 2) / slope
    return jnp.where(strong, c + (moved - jax.lax.stop_gradient(moved)), 0)


def _entropy(s, gap):
    r"""Return $\frac1\pi \int_0^\infty e \log e\, d\tau$ by the trapezoid rule in $\log\tau$.

    In closed form, with $\zeta_i \ge 0$ such that $e = \prod (\tau^2 + \zeta_i^2) /
    \prod (\tau^2 + s_i^2)$, it is $\sum_i (\zeta_i - s_i) - \frac12 \sum_{ij}
    \log\frac{s_j + \zeta_i}{s_j + s_i}$; but $\zeta$ has no derivatives at equal s.
    """
    k = s.shape[0]
    low, high = -21.0, jnp.log(jax.lax.stop_gradient(jnp.max(s))) + 7
    nodes = jnp.linspace(0, 1, _ENTROPY_NODES, dtype=s.dtype)
    tau = jnp.exp(low + (high - low) * nodes)[:, None]
    # 1 - e and e, each without cancellation where it is small.
    rest = jnp.sum(s / (tau**2 + s**2), axis=1) / 2
    e = gap + jnp.sum(tau**2 / (s * (tau**2 + s**2)), axis=1) / 2
    log_e = jnp.where(rest < 0.5, jnp.log1p(-jnp.minimum(rest, 0.5)), jnp.log(e))
    # With 1 - e, whose integral is k pi/4, added, the integrand falls like tau^-4.
    step = (high - low) / (_ENTROPY_NODES - 1)
    return jnp.sum((e * log_e + rest) * tau[:, 0]) * step / jnp.pi - k / 4


def _third_order(k, s, c, gap):
    r"""Return what the first two orders are too large by: terms of order 1 and log k.

    Three parts, each known in a limit and joined by hand:

    - Around $\sum 1/\sigma_i = 2$ the two orders have a kink. The true function crosses over
      as minus the log of the Tracy-Widom law for beta = 4, at $x = c (P^2/4)^{1/3}$ for c > 0 and
      $-(16/P)^{1/3} e(0)$ for c = 0, with $P = \sum s_i^{-3}$ (for equal $\sigma_i$ this is Baik
      and Rains' theorem). `crossover` is that law without its two leading orders, to .004.
    - The effective number of directions not yet aligned, $\kappa = (8/P)^{1/2}$: k at the origin,
      m if m values are zero and the others large. The offset at infinity for size k is
      $C_k = \log(k)/24 + $ constant $ + O(1/k)$, and $C_k - C_\kappa$ is left in between.
    - For c = 0 and equal $\sigma_i$, $\log(1 + \sqrt{e(0)})/2$: read off exact values.
    """
    log2 = math.log(2)
    tail = 35 / 48 * log2 + 0.1654211437004509 / 2  # -zeta'(-1) = .165
    offset = _offset(k)
    bend = k * (math.log(k) / 24 + log2 / 48 + tail - log2 / 2 - offset)

    cubes = jnp.sum(s**-3)
    kappa = jnp.sqrt(8 / cubes)
    y = jax.nn.relu(jnp.cbrt(16 / cubes) * (gap - c * cubes / 4))  # -x where x < 0
    crossover = -jnp.expm1(-0.43 * y**1.5) * (tail + jnp.log1p(y**2) / 32)
    aligned = math.log(k) / 24 - jnp.log(kappa) / 24 + bend * (1 / kappa - 1 / k)
    root = jnp.sqrt(jnp.where(gap > 0, gap, 1))
    weak = jnp.where(gap > 0, -jnp.expm1(-(y**2) / 4) * jnp.log1p(root) / 2, 0)
    return crossover + aligned - weak


@functools.cache
def _offset(k):
    """Return the two orders minus the truth at infinity: 0.30 at k = 4, 0.38 at k = 20."""
    # Both without the terms in sigma; at infinity the integral leaves -k/4.
    origin = 3 * k**2 / 8 - k * (k - 1) / 4 * math.log(k) + k * (math.log(2) - 1) / 2 + k / 4
    return _log_volume(k) - k * (k - 1) / 4 * math.log(2 * math.pi) - origin


def _log_volume(k):
    """Return the log of the volume of O(k), of which its two parts have half each."""
    half = np.arange(1, k + 1) / 2
    return float(np.sum(np.log(2) + half * np.log(np.pi)) - sum(map(math.lgamma, half)))


def _pairs(k):
    return np.triu_indices(k, 1)
