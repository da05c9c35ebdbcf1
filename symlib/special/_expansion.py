"""Expansions of log 0F1 for large k and for large sigma, for `symlib.special.log_hyp0f1`.

They take one checked spectrum, of shape (k,). The formulas stand in its docstring. What is scaled
is the value minus the sum of sigma.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Nodes, uniform in log(tau), of `_entropy`. The nearest poles are pi/2 from the real line: the
# step is .24 for equal sigma and .46 where they differ by a factor of 1e6, which leaves an error
# of e^-21; at a factor of 1e12 it is .65, and e^-15.
_ENTROPY_NODES = 72
_NEWTON_STEPS = 25
# Where y, below, lies between these two, the two forms of the expansion are joined. Both are
# within .002 of the exact value of equal sigma there; further out the strong one is off by .1 and
# more for unequal ones.
_JOIN = 0.6, 1.4


def asymptotic(sigma: Float[Array, " k"], scaled: bool = False) -> Float[Array, ""]:
    """Return the leading order for all sigma to infinity."""
    k = sigma.shape[0]
    i, j = _pairs(k)
    constant = k * (k - 1) / 4 * math.log(2 * math.pi) - _log_volume(k)
    leading = 0 if scaled else jnp.sum(sigma)
    return leading - jnp.sum(jnp.log(sigma[i] + sigma[j])) / 2 + constant


def expansion(sigma: Float[Array, " k"], scaled: bool = False) -> Float[Array, ""]:
    """Return the first two orders in 1/k, corrected by most of the third.

    The weak form holds far above the edge of the phases, the strong one anywhere but there.
    """
    k = sigma.shape[0]
    # A sigma below 1/2 makes the gap negative by itself, and y with it.
    safe = jnp.where(sigma > 0.5, sigma, 0.5)
    gap = 1 - jnp.sum(1 / safe) / 2
    y = 16 ** (1 / 3) * _scale(safe) * gap
    # A form that has no weight is evaluated elsewhere: its derivatives have to be finite.
    strong = _strong(jnp.where(y < _JOIN[1], sigma, k / 2), scaled)
    weak = _weak(jnp.where(y > _JOIN[0], sigma, 2 * k), scaled)
    t = jnp.clip((y - _JOIN[0]) / (_JOIN[1] - _JOIN[0]), 0, 1)
    share = t**4 * (35 - t * (84 - t * (70 - t * 20)))
    return (1 - share) * strong + share * weak


def _strong(sigma, scaled):
    r"""Return the expansion around the root c, which also holds somewhat above the edge.

    The two orders are too large by a function of $y \approx (\sigma - k/2)(16/k)^{1/3}$. For large
    k and equal $\sigma_i$ it is minus the log of the Tracy-Widom law for beta = 4 at -y (Baik and
    Rains); its logarithm is `_EDGE`.
    """
    k = sigma.shape[0]
    i, j = _pairs(k)
    c = _saddle(sigma)
    s = jnp.sqrt(c + sigma**2)
    # All terms relative to sigma = 0, where c = k^2/4 and s_i = k/2: nothing cancels there.
    shift = c - k**2 / 4
    excess = shift / (s + k / 2) + sigma * (sigma / (s + k / 2))
    # Scaled: s - sigma, where large ones differ in their last digits.
    leading = jnp.sum(c / (s + sigma) - k / 2 if scaled else excess)
    leading = leading - jnp.sum(jnp.log1p((excess[i] + excess[j]) / k)) / 2 - shift / 2
    kappa = _kappa(s)
    # 2 sigma / k for equal sigma, from below bounded by .2: there the correction is below 1e-7,
    # and the root would have no derivative at 0.
    square = jnp.sum(sigma / s * (sigma / s) / s) / 2
    ratio = (square**4 + 0.2**8) ** (1 / 8)
    y = (16 / kappa) ** (1 / 3) * kappa / 2 * (ratio - 1)
    w = 1 + y**2
    terms = jnp.stack([jnp.ones_like(y), y, w**0.5, w**0.75, y * w**0.25, jnp.log(w)])
    powers = kappa ** (-jnp.arange(4, dtype=s.dtype) / 3)
    edge = jnp.exp(powers @ jnp.asarray(_EDGE, s.dtype) @ terms)
    # Near 0 it is made to vanish like sigma^4, so that the second derivatives there are right.
    edge = edge * -jnp.expm1(-((10 * square) ** 2))
    entropy = _entropy(s, jnp.zeros((), s.dtype)) - k * (math.log(2) - 1) / 2
    return leading + entropy - edge - _aligned(k, kappa)


# Rows for powers of kappa^(-1/3), columns for the functions of y in `_strong`. Fitted by least
# squares to exact values and slopes of equal sigma, k from 1 to 50 and y from -2.6 to 2.2: within
# 2e-4 of them from k = 2 on.
_EDGE = np.array(
    [
        [-6.1535, 1.8868, 1.1699, -1.5304, 0.7635, 0.2896],
        [1.3703, 3.469, -0.6807, 2.4392, -3.4346, -1.6908],
        [3.1743, -3.0987, -5.4464, 0.6801, 1.9669, 2.9375],
        [1.8704, -6.1992, 5.4984, -7.7002, 7.8396, 0.7636],
    ]
)


def _weak(sigma, scaled):
    r"""Return the expansion with c = 0, for sum 1/sigma well below 2.

    The two orders are too large by two logs, which make the value exact at infinity, and by
    functions of $y = (16/P)^{1/3} e(0)$, $P = \sum \sigma_i^{-3}$.
    """
    k = sigma.shape[0]
    i, j = _pairs(k)
    rest = jnp.sum(1 / sigma) / 2  # kept beside the gap, which rounds to 1
    gap = 1 - rest
    leading = -(k**2) * 3 / 8 if scaled else jnp.sum(sigma) - k**2 * 3 / 8
    leading = leading - jnp.sum(jnp.log((sigma[i] + sigma[j]) / k)) / 2
    y = 16 ** (1 / 3) * _scale(sigma) * gap
    kappa = _kappa(sigma)
    # k for equal sigma.
    effective = kappa * rest**1.5
    powers = effective ** (-jnp.arange(3, dtype=sigma.dtype) / 3)
    fall = jnp.exp(-y)
    terms = jnp.stack([fall, y * fall, jnp.sqrt(y) * fall, (1 + y**2) ** -1.5])
    third = powers @ jnp.asarray(_TAIL, sigma.dtype) @ terms
    third = third + _TAIL_LIMIT + jnp.log1p(y**2) / 32 - jnp.log1p(jnp.sqrt(gap)) / 2
    entropy = _entropy(sigma, gap) - k * (math.log(2) - 1) / 2
    return leading + entropy - third - _aligned(k, kappa)


# Rows for powers of k^(-1/3), columns for the functions of y in `_weak`. Fitted in the same way for
# y above .5: within .004 from k = 2 on. log(1 + sqrt(e(0))) / 2 was read off the same values.
_TAIL = np.array(
    [
        [-0.8075, 0.2965, -0.9717, 0.4295],
        [0.459, -0.5331, 1.5894, -0.7214],
        [-0.1336, -0.1443, -0.211, 0.2094],
    ]
)
_TAIL_LIMIT = 35 / 48 * math.log(2) + 0.1654211437004509 / 2  # -zeta'(-1) = .165


@jax.custom_jvp
def _saddle(sigma):
    """Return c: the root of sum (c + sigma^2)^(-1/2) = 2 above -min sigma^2."""
    k = sigma.shape[0]
    squares = sigma**2
    # n values of at most sigma_(n) alone give c >= n^2/4 - sigma_(n)^2.
    counts = jnp.arange(1, k + 1, dtype=sigma.dtype)
    lower = jnp.max(counts**2 / 4 - jnp.sort(squares))

    # (sum (c + sigma^2)^(-1/2))^-2 is concave in c: Newton's method climbs to the root.
    def step(_, c):
        roots = jnp.sqrt(c + squares)
        g = jnp.sum(1 / roots)
        return jnp.maximum(c + (g / 2 - 1) * (g / 2 + 1) * g / jnp.sum(roots**-3), lower)

    return jax.lax.fori_loop(0, _NEWTON_STEPS, step, lower)


@_saddle.defjvp
def _saddle_jvp(primals, tangents):
    """Differentiate the equation, by a rule that can be differentiated again."""
    (sigma,), (tangent,) = primals, tangents
    c = _saddle(sigma)
    cubes = (c + sigma**2) ** -1.5
    return c, -2 * jnp.sum(sigma * cubes * tangent) / jnp.sum(cubes)


def _entropy(s, gap):
    r"""Return $\frac1\pi \int_0^\infty e \log e\, d\tau$ by the trapezoid rule in $\log\tau$.

    Here gap = e(0). There is a closed form in the zeros of e, without derivatives at equal s.
    """
    k = s.shape[0]
    logs = jnp.log(s)
    # The value depends on the ends by less than rounding: they carry no derivative.
    ends = jax.lax.stop_gradient(logs)
    low, high = jnp.min(ends) - 10, jnp.max(ends) + 7
    step = (high - low) / (_ENTROPY_NODES - 1)
    nodes = (low + step * jnp.arange(_ENTROPY_NODES, dtype=s.dtype))[:, None]
    # 1 - e and e, each without cancellation where it is small; no power of s or tau overflows.
    rest = jnp.sum(jax.nn.sigmoid(2 * (logs - nodes)) / s, axis=1) / 2
    e = gap + jnp.sum(jax.nn.sigmoid(2 * (nodes - logs)) / s, axis=1) / 2
    near = rest < 0.5
    log_e = jnp.where(near, jnp.log1p(-jnp.where(near, rest, 0.5)), jnp.log(jnp.where(near, 1, e)))
    # With 1 - e, whose integral is k pi/4, added, the integrand falls like tau^-4. Below the first
    # node it is constant: the nodes left out there are a geometric series.
    terms = (e * log_e + rest) * jnp.exp(nodes[:, 0])
    total = jnp.sum(terms) + terms[0] / jnp.expm1(step)
    return total * step / jnp.pi - k / 4


def _aligned(k, kappa):
    r"""Return the part of the third order that depends on how many directions are aligned.

    $\kappa$ is the effective number of those that are not. At infinity the two orders are off by
    $C_k = \log(k)/24 + $ constant $ + O(1/k)$; $C_k - C_\kappa$ is left in between.
    """
    log2 = math.log(2)
    bend = k * (math.log(k) / 24 + log2 / 48 + _TAIL_LIMIT - log2 / 2 - _offset(k))
    return math.log(k) / 24 - jnp.log(kappa) / 24 + bend * (1 / kappa - 1 / k)


def _scale(s):
    """Return (sum s^-3)^(-1/3), without overflow."""
    smallest = jax.lax.stop_gradient(jnp.min(s))  # a unit: the value does not depend on it
    return smallest * jnp.sum((smallest / s) ** 3) ** (-1 / 3)


def _kappa(s):
    return math.sqrt(8) * _scale(s) ** 1.5


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
