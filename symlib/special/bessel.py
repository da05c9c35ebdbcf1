r"""The mean of $e^{\mathrm{tr}(A T^T)}$ over O(k): a Bessel function of a matrix.

It is ${}_0F_1(k/2; A A^T / 4)$, a function of the singular values $\sigma$ of $A$.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import i0e, i1e
from jaxtyping import Array, Float

from symlib._checks import at_least_single, caller, floating_leaves, refuse_if
from symlib.special._expansion import asymptotic, expansion
from symlib.special._saddlepoint import laplace, moore, saddlepoint

# The range that is tested in float32 and float64, in which no intermediate number overflows.
LARGEST = 1e9
# The largest k at which the calibrated formula was compared with exact values.
LARGEST_K = 50
# Nodes, uniform in log(v / (2 - v)), of the integral for k = 3. Its poles in that variable are at
# least pi/2 from the real line, so a step of .36 leaves an error of e^-27; the range of +-44
# resolves sigma up to 1e9 to 1e-9.
_LOGIT = np.linspace(-44.0, 44.0, 245)


def log_hyp0f1(sigma: Float[Array, " k"], method: str = "calibrated") -> Float[Array, ""]:
    r"""Return $\log {}_0F_1(k/2; A A^T / 4) = \log E_{T \sim O(k)}\, e^{\mathrm{tr}(A T^T)}$.

    The methods, with errors in nats (approximation minus truth):

    - `"calibrated"`, the default: `"exact"` up to k = 3, and above that the expansion below.
    - `"exact"`, k up to 3 only: $\log\cosh\sigma$, $\log \frac12 [I_0(\sigma_1 + \sigma_2) +
      I_0(\sigma_1 - \sigma_2)]$, and for k = 3 a one-dimensional integral by the trapezoid rule.
    - `"laplace"`, Butler and Wood (2003), their product over $i \le j$. Good at low rank; else it
      misses a term of order $k^2$: up to -55 at k = 20.
    - `"moore"`, Moore (2016, eq. 7) as printed, with the product over all (i, j). It diverges
      for large $\sigma$ and is here to show that.
    - `"saddlepoint"`, second order, Kume, Preston and Wood (2013). Good if all $\sigma_i$ are
      large (+0.02 at k = 20, $\sigma_i = 1000$), poor for small (+18 at $\sigma_i = 8$).
    - `"asymptotic"`, all $\sigma_i \to \infty$: $\sum_i \sigma_i + \frac12 \sum_{i<j}
      \log\frac{2\pi}{\sigma_i + \sigma_j} - \sum_{j=1}^k \log\frac{2\pi^{j/2}}{\Gamma(j/2)}$.
      Infinite if two $\sigma_i$ are zero.

    The expansion solves Muirhead's equations (1982, theorem 7.5.6) for $\sigma$ of order k. Up to a
    constant, the terms of order $k^2$ (Brezin and Gross 1980) and k (ours) are

    $$\sum_i s_i - \frac12 \sum_{i<j} \log(s_i + s_j) - \frac c2
      + \frac1\pi \int_0^\infty e \log e \, d\tau, \qquad s_i = \sqrt{c + \sigma_i^2}, \quad
      e(\tau) = 1 - \frac12 \sum_i \frac{s_i}{\tau^2 + s_i^2},$$

    where $c$ solves $\sum_i 1/s_i = 2$ if $\sum_i 1/\sigma_i > 2$; else c = 0. Terms fitted at
    equal $\sigma_i$ remove most of the rest; the value is exact at $\sigma = 0$ and at infinity.

    Largest errors found of `"calibrated"`: below 1e-9 of $1 + |\log {}_0F_1|$ up to k = 3; .006 for
    equal values, k up to 50; .07 for any spectrum at k up to 20, .3 at k = 40 (chapter 4, M6).
    Slopes, which lie between 0 and 1, were off by at most .007.

    Derivatives are those of the formula: two of them anywhere, also at ties and zeros, but for
    `"asymptotic"` at two zeros. Half precision is computed in float32 and rounded.

    Args:
        sigma: The singular values $\sigma_i$, shape (k,), in any order, from 0 to 1e9; k at most 50
            for `"calibrated"`.
        method: One of the names above.

    Raises:
        ValueError: An argument is not as stated, or the value beyond the range of a half precision.

    Example:
        >>> round(float(log_hyp0f1(jnp.array([1.0, 2.0]))), 4)
        1.1228
    """
    return _evaluate(_METHODS, sigma, method)


def log_hyp0f1_scaled(sigma: Float[Array, " k"], method: str = "calibrated") -> Float[Array, ""]:
    r"""Return $\log {}_0F_1(k/2; A A^T / 4) - \sum_i \sigma_i$, at most 0.

    `log_hyp0f1` without its largest term, as `jax.scipy.special.i0e` is I_0: it grows as the
    logarithms of $\sigma$ only, so that large $\sigma$ cost no digits. The methods `"laplace"`,
    `"moore"` and `"saddlepoint"` are subtracted and lose them.

    Args and errors as in `log_hyp0f1`.
    """
    return _evaluate(_SCALED, sigma, method)


def _evaluate(methods, sigma, method):
    sigma = floating_leaves("sigma", sigma)
    if sigma.ndim != 1 or sigma.shape[0] == 0:
        raise ValueError(
            f"{caller()}: sigma has to have shape (k,) with k at least 1, got {sigma.shape}; "
            "use jax.vmap for more than one spectrum."
        )
    if method not in methods:
        raise ValueError(f"{caller()}: method has to be one of {list(methods)}, got {method!r}.")
    if method == "calibrated" and sigma.shape[0] > LARGEST_K:
        raise ValueError(
            f'{caller()}: "calibrated" was measured for k up to {LARGEST_K}, got '
            f"k = {sigma.shape[0]}."
        )
    # In float16 the bound itself would be infinite, and infinity would pass.
    sigma, dtype = sigma.astype(at_least_single(sigma.dtype)), sigma.dtype
    bad = ~((sigma >= 0) & (sigma <= LARGEST))
    message = f"{caller()}: singular values have to be finite, >= 0 and at most 1e9."
    value = methods[method](refuse_if(sigma, bad, message))
    if value.dtype != dtype:
        message = f"{caller()}: the value is beyond the range of {dtype}; use float32."
        value = refuse_if(value, jnp.abs(value) > float(jnp.finfo(dtype).max), message)
    return value.astype(dtype)


def singular_values(matrix: Float[Array, "n k"]) -> Float[Array, " k"]:
    r"""Return the singular values of `matrix`, descending, with gradients that are always finite.

    With $A = U\,\mathrm{diag}(\sigma)\,V^T$ one has $d\sigma_i = u_i^T\, dA\, v_i$ (Moore 2016,
    Listing 1). At equal singular values, and at zero, it is a subgradient: right for symmetric
    functions of $\sigma$ that are even in each entry, such as `log_hyp0f1`. Half precision is
    computed in float32 and rounded.

    Args:
        matrix: The matrix $A$, finite, shape (n, k) with n at least k.

    Raises:
        ValueError: `matrix` is no such matrix, or a second derivative is asked for where two
            singular values, or one and zero, are closer than the root of rounding times the
            largest.
    """
    matrix = floating_leaves("matrix", matrix)
    if matrix.ndim != 2 or not matrix.shape[0] >= matrix.shape[1] >= 1:
        raise ValueError(
            f"{caller()}: matrix has to have shape (n, k), n >= k >= 1, got {matrix.shape}."
        )
    matrix = refuse_if(matrix, ~jnp.isfinite(matrix), f"{caller()}: entries not finite.")
    return _singular_values(matrix.astype(at_least_single(matrix.dtype))).astype(matrix.dtype)


@jax.custom_jvp
def _singular_values(matrix):
    return _frames(matrix)[1]


@_singular_values.defjvp
def _singular_values_jvp(primals, tangents):
    (matrix,), (tangent,) = primals, tangents
    left, sigma, right = _frames(matrix)
    return sigma, jnp.einsum("nk,nm,km->k", left, tangent, right)


@jax.custom_jvp
def _frames(matrix):
    return _svd(matrix)


@_frames.defjvp
def _frames_jvp(primals, tangents):
    """Differentiate the singular vectors, for second derivatives of the values alone."""
    (matrix,), (tangent,) = primals, tangents
    sigma = jnp.linalg.svd(matrix, compute_uv=False)
    gaps = sigma - jnp.append(sigma[1:], 0)
    # Rounding in a derivative of a singular vector grows as the inverse of the gap.
    bad = jnp.min(gaps) <= jnp.finfo(matrix.dtype).eps ** 0.5 * sigma[0]
    message = (
        f"{caller()}: second derivatives need distinct singular values above zero; these "
        "hold a tie or a zero."
    )
    matrix = refuse_if(matrix, bad, message)
    return jax.jvp(_svd, (matrix,), (tangent,))


def _svd(matrix):
    return tuple(jnp.linalg.svd(matrix, full_matrices=False))


def _exact_scaled(sigma):
    k = sigma.shape[0]
    if k == 1:
        return jax.nn.softplus(-2 * sigma[0]) - math.log(2)
    # Each formula is symmetric and analytic in sigma >= 0. So sorting, which keeps the exponents
    # negative, leaves the derivatives right at ties too: those of any order of the entries.
    if k == 2:
        second, first = jnp.sort(sigma)
        total, gap = first + second, first - second
        return jnp.log((_i0e(total) + jnp.exp(gap - total) * _i0e(gap)) / 2)
    if k == 3:
        # c(s) = int_{-1}^1 I_0[(s_1 - s_2)(1 - u)/2] I_0[(s_1 + s_2)(1 + u)/2] e^{s_3 u} du / 2
        # for rotations; c(-s_3) adds the reflections. With s_3 the smallest and v = 1 - u the
        # exponents below are all <= 0.
        third, second, first = jnp.sort(sigma)
        logit = jnp.asarray(_LOGIT, sigma.dtype)
        v, w = 2 * jax.nn.sigmoid(logit), 2 * jax.nn.sigmoid(-logit)
        weights = v * w / 4 * float(_LOGIT[1] - _LOGIT[0])
        weights = weights * _i0e((first - second) * v / 2) * _i0e((first + second) * w / 2)
        rotations = jnp.exp(-(second + third) * v)
        reflections = jnp.exp(-2 * third - (second - third) * v)
        return jnp.log(jnp.sum(weights * (rotations + reflections)) / 2)
    raise ValueError(
        f'{caller()}: "exact" needs k up to 3, got k = {k}; symlib.special.log_hyp0f1_gibbs '
        "estimates it for any k."
    )


def _exact(sigma):
    return jnp.sum(sigma) + _exact_scaled(sigma)


@jax.custom_jvp
def _i0e(x):
    """Return exp(-x) I_0(x) for x >= 0, with one-sided derivatives at 0, which jax has as 0."""
    return i0e(x)


@_i0e.defjvp
def _i0e_jvp(primals, tangents):
    (x,), (tangent,) = primals, tangents
    return _i0e(x), (_i1e(x) - _i0e(x)) * tangent


@jax.custom_jvp
def _i1e(x):
    """Return exp(-x) I_1(x) for x >= 0."""
    return i1e(x)


@_i1e.defjvp
def _i1e_jvp(primals, tangents):
    (x,), (tangent,) = primals, tangents
    # I_1(x) / x, by its series near 0, where the quotient loses the digits of its derivatives.
    near = x < 1
    small, large = jnp.where(near, x, 0), jnp.where(near, 1, x)
    series = sum(
        (small**2 / 4) ** n / float(2 * math.factorial(n) * math.factorial(n + 1)) for n in range(9)
    )
    ratio = jnp.where(near, jnp.exp(-small) * series, _i1e(large) / large)
    return _i1e(x), (_i0e(x) - ratio - _i1e(x)) * tangent


def _calibrated(sigma):
    return _exact(sigma) if sigma.shape[0] <= 3 else expansion(sigma)


def _calibrated_scaled(sigma):
    return _exact_scaled(sigma) if sigma.shape[0] <= 3 else expansion(sigma, scaled=True)


def _subtracted(method):
    return lambda sigma: method(sigma) - jnp.sum(sigma)


_METHODS = {
    "calibrated": _calibrated,
    "exact": _exact,
    "laplace": laplace,
    "moore": moore,
    "saddlepoint": saddlepoint,
    "asymptotic": asymptotic,
}
_SCALED = {
    "calibrated": _calibrated_scaled,
    "exact": _exact_scaled,
    "laplace": _subtracted(laplace),
    "moore": _subtracted(moore),
    "saddlepoint": _subtracted(saddlepoint),
    "asymptotic": functools.partial(asymptotic, scaled=True),
}
