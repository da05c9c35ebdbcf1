r"""Values of log 0F1(k/2; diag(sigma^2) / 4) that use none of the formulas of `symlib.special`.

For k = 1 to 4 they are integrals over the group, for equal values determinants, for large values
an expansion. All but `at_infinity` are correct to ten digits, `four` as far as it says.
"""

import math

import mpmath as mp
import numpy as np
from scipy import integrate, special


def one(sigma):
    """Return log 0F1 for k = 1: a mean over two signs."""
    return float(np.logaddexp(sigma[0], -sigma[0]) - np.log(2))


def two(sigma):
    """Return log 0F1 for k = 2 by adaptive quadrature over the angle."""
    logs = []
    for r in (sigma[0] + sigma[1], abs(sigma[0] - sigma[1])):
        mean = _peaked(lambda angle, r=r: np.exp(r * (np.cos(angle) - 1)), np.pi, max(r, 1) ** -0.5)
        logs.append(r + np.log(mean / np.pi))
    return float(np.logaddexp(*logs) - np.log(2))


def three(sigma):
    """Return log 0F1 for k = 3 by adaptive quadrature: c(s_3) for rotations, c(-s_3) for the rest.

    c(s) is the integral over u from -1 to 1 of I_0[(s_1 - s_2)(1 - u)/2] I_0[(s_1 + s_2)(1 + u)/2]
    e^{s u} / 2; here with 1 - u as the variable, and relative to e^{s_1 + s_2 + s_3}.
    """
    first, second, third = sorted(sigma, reverse=True)
    total = 0.0
    for s in (third, -third):

        def integrand(v, s=s):
            low, high = (first - second) * v / 2, (first + second) * (2 - v) / 2
            exponent = low + high + s * (1 - v) - (first + second + third)
            return special.i0e(low) * special.i0e(high) * np.exp(exponent) / 4

        total += _peaked(integrand, 2, 1 / max(second + third, 1))
    return float(first + second + third + np.log(total))


def four(sigma, nodes=40):
    """Return log 0F1 for k = 4: a rotation is x -> p x q, p and q uniform unit quaternions.

    tr(S T) is then sum_a lambda_a p_a q_a with lambda = H sigma, and the mean over q is
    2 I_1(r) / r with r = |lambda p|. For sigma up to 120, 80 nodes are enough.
    """
    hadamard = np.array([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]])
    x, w = np.polynomial.legendre.leggauss(nodes)
    angle, w = (x + 1) * np.pi / 4, w * np.pi / 4
    a, b, c = np.meshgrid(angle, angle, angle, indexing="ij")
    weight = np.einsum("a,b,c->abc", w * np.cos(angle) * np.sin(angle), w, w)
    p = np.stack(
        [np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a) * np.cos(c), np.sin(a) * np.sin(c)]
    )
    total, largest = 0.0, np.sum(sigma)
    for last in (1, -1):
        frequencies = hadamard @ (np.asarray(sigma) * [1, 1, 1, last])
        r = np.sqrt(np.einsum("a,abcd->bcd", frequencies**2, p**2))
        mean = 2 * special.i1e(r) / r * np.exp(r - largest)
        total += np.sum(weight * mean) / np.sum(weight) / 2
    return float(np.log(total) + largest)


def equal(k, sigma):
    """Return log 0F1 for k equal values: means over SO(k) and the rest are determinants."""
    # The determinants lose up to about k^2/10 log10(1 + sigma/k) digits.
    mp.mp.dps = 60 + int(k**2 / 8 * math.log10(1 + sigma / k))
    bessel = [mp.besseli(j, 2 * mp.mpf(sigma)) for j in range(k + 3)]

    def determinant(n, sign, shift):
        rows = [
            [bessel[abs(i - j)] + sign * bessel[i + j + shift] for j in range(n)] for i in range(n)
        ]
        return mp.det(mp.matrix(rows)) if n else mp.mpf(1)

    if k % 2:
        parts = [mp.exp(s * sigma) * determinant(k // 2, -s, 1) for s in (1, -1)]
    else:
        parts = [determinant(k // 2, 1, 0) / 2, determinant(k // 2 - 1, -1, 2)]
    return float(mp.log(sum(parts) / 2))


def at_infinity(sigma):
    r"""Return log 0F1 for m large values and k - m zeros, up to terms of order 1/sigma^2.

    The mean of $e^{tr(S T^T)}$ is a Gaussian integral over the tangent space of the m-frames at
    the identity, divided by their volume; the order 1/sigma follows from Muirhead's equations.
    """
    sigma = np.asarray(sigma)
    k, sigma = len(sigma), sigma[sigma > 0]
    m = len(sigma)
    i, j = np.triu_indices(m, 1)
    sums = sigma[i] + sigma[j]
    sizes = np.arange(k - m + 1, k + 1) / 2
    log_volume = np.sum(np.log(2) + sizes * np.log(np.pi) - special.gammaln(sizes))
    value = np.sum(sigma) - log_volume + (len(i) + m * (k - m)) * np.log(2 * np.pi) / 2
    value -= np.sum(np.log(sums)) / 2 + (k - m) * np.sum(np.log(sigma)) / 2
    following = np.sum(1 / sums) / 8 - (k - m) * (k - m - 2) * np.sum(1 / sigma) / 8
    return float(value + following)


def _peaked(function, end, width):
    """Return the integral from 0 to `end` of a function that falls off from 0 over `width`."""
    ends = [0, *(x for x in width * np.array([2.0, 6, 20, 60]) if x < end), end]
    pieces = zip(ends[:-1], ends[1:], strict=True)
    return sum(integrate.quad(function, a, b, epsabs=0, epsrel=1e-12)[0] for a, b in pieces)
