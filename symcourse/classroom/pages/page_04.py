"""Checks of exercise page 04: the fourth order, limits, a broken bound, a correction for k = 4."""

import math

import numpy as np

from symcourse.classroom.answers import require, require_none_of


def q1_trace(answers, random):
    variance = answers.number("trace_variance")
    require_none_of(
        variance,
        (1 / 20, "this is the variance of one entry. How many does the trace add?"),
        (20, "this gives each entry variance 1: what do the squares in a row sum to?"),
        (0, "the mean of the trace is zero. Its variance is not."),
    )
    require(np.isclose(variance, 1), f"it is {variance:g}. Take the terms E[T_ii T_jj] one by one.")


def q1_fourth(answers, random):
    for _ in range(2):
        a, b = random.uniform(0.5, 2, 2) * [1, 2]
        found = answers.called_number("fourth_order", a, b)
        mean = (a**4 + 6 * a**2 * b**2 + b**4) / 64
        right = -((a**2 - b**2) ** 2) / 64
        require_none_of(
            found,
            (mean, "this is the fourth order of the mean of I_0. The log of it is asked for."),
            (-right, "the sign: does the log take off more or less than the mean holds?"),
            (mean - (a**2 + b**2) ** 2 / 16, "log(1 + x) = x - x^2 / 2 + ...: half the square."),
            (right + (a**2 + b**2) / 4, "this still contains the second order."),
        )
        require(
            np.isclose(found, right),
            f"at ({a:.2f}, {b:.2f}) it is {found:.4f}. With equal values the fourth order should "
            "vanish, and at (s, 0) it is that of log I_0(s) and its twin.",
        )


def _sixth_order():
    """Return the sixth order of F at (1, 1/2), from the series of I_0 up to x^6."""
    squares = np.array([1.5, 0.5]) ** 2
    second, fourth, sixth = (np.mean(squares**n) / d for n, d in ((1, 4), (2, 64), (3, 2304)))
    return sixth - second * fourth + second**3 / 3


def q1_constant(answers, random):
    constant, right = answers.number("constant"), _sixth_order()
    require(
        abs(constant) < 1e-3,
        f"it is {constant:.3g}. Does it stay the same when t is halved? If it grows, an order is "
        "left in it.",
    )
    require(constant > 0, "what is left after both orders is positive for small t.")
    require(constant < 1.03 * right, f"it is {constant:.3g}: not yet the limit. Take a smaller t.")
    require(
        constant > 0.97 * right,
        f"it is {constant:.3g}: too small. Below some t only rounding is left; or is the power of "
        "t another one?",
    )


def q2_moving(answers, random):
    k = int(random.choice([13, 15, 17]))  # odd, and r small, so that no two mistakes coincide
    for r in random.choice(np.arange(4, k // 2), 2, replace=False):
        found = answers.called_number("moving", k, int(r))
        require_none_of(
            found,
            (
                k * (k - 1) / 2,
                "these are all pairs. Which of them leave the first r columns alone?",
            ),
            (r * (r - 1) / 2, "a pair i <= r < j moves column i, too."),
            (r * (k - r), "the pairs among the first r are missing."),
            (r * k, "a skew matrix has no diagonal, and S_ij and S_ji are one number."),
            (r * (r - 1) + r * (k - r), "the pairs among the first r are counted twice."),
        )
        require(
            found == r * (r - 1) / 2 + r * (k - r),
            f"at k = {k}, r = {r} it is {found:g}. It is k r numbers less the conditions that make "
            "r vectors orthonormal.",
        )


def _log_area(j):
    """Return the log of the area of the unit sphere in R^j."""
    return math.log(2) + j / 2 * math.log(math.pi) - math.lgamma(j / 2)


def _limit(sigma, k):
    """Return the four parts of the limit: sum, pairs, pairs with zeros, areas."""
    r = len(sigma)
    i, j = np.triu_indices(r, 1)
    return np.array(
        [
            sigma.sum(),
            np.log(2 * np.pi / (sigma[i] + sigma[j])).sum() / 2,
            (k - r) / 2 * np.log(2 * np.pi / sigma).sum(),
            -sum(_log_area(j) for j in range(k - r + 1, k + 1)),
        ]
    )


def _check_limit(answers, random, k, r):
    sigma = random.uniform(100, 200, r)
    parts = _limit(sigma, k)
    found, right = answers.called_number("limit", sigma, k), parts.sum()
    at = f"at k = {k}, r = {r}"
    first = sum(_log_area(j) for j in range(1, r + 1))
    whole = sum(_log_area(j) for j in range(1, k + 1))
    for miss, hint in (
        (-2 * parts[3], "the volume stands below, not above."),
        (-parts[3], "the volume is missing."),
        (parts[1] + parts[2], "a Gaussian integral is a root: half of the log."),
        (-parts[2], "the pairs i <= r < j are missing from the Gaussian integral."),
        (-parts[3] - first, "the first column lies on the unit sphere of which space?"),
        (-parts[3] - whole, "this is the volume of all of O(k). Only r columns are fixed."),
    ):
        require(abs(miss) < 1e-3 or abs(found - right - miss) > 1e-3, f"{at}: {hint}")
    miss = found - right
    require(
        abs(miss) < 1e-3 or abs(miss) > 0.3,
        f"{at} it is {miss:+.2g} off. Is this F, or an approximation? The limit is asked for.",
    )
    require(
        abs(miss) < 1e-3,
        f"{at} it misses the limit by {miss:+.2g}. Sum, Gaussian integral and volume: "
        "which one is it?",
    )


def q2_full_rank(answers, random):
    k = int(random.integers(3, 8))
    _check_limit(answers, random, k, k)


def q2_rank_one(answers, random):
    _check_limit(answers, random, int(random.integers(5, 15)), 1)


def q2_between(answers, random):
    k = int(random.integers(8, 15))
    _check_limit(answers, random, k, int(random.integers(2, k - 2)))


def _laplace(sigma, k, printed=False):
    """Return the Laplace approximation; printed: with the product over all pairs."""
    u = 2 * sigma / k
    y = u / (np.sqrt(1 + u**2) + 1)
    i, j = np.triu_indices(len(sigma))
    weights = np.where((i < j) & printed, 2, 1)
    product = weights @ np.log1p(-((y[i] * y[j]) ** 2))
    return np.sum(sigma * y + k / 2 * np.log1p(-(y**2))) - product / 2


def _laplace_error(k, r, printed=False):
    sigma = np.full(r, 1e6)
    return _laplace(sigma, k, printed) - _limit(sigma, k).sum()


def q2_error(answers, random):
    error = answers.number("error_at_half")
    right = _laplace_error(20, 10)
    require_none_of(
        error, (_laplace_error(20, 10, True), "this is the error of the printed product.")
    )
    require(abs(error + right) > 0.05, "the sign: it should be Laplace minus limit.")
    for r in (5, 20):
        require(abs(error - _laplace_error(20, r)) > 0.05, f"this is the error at r = {r}.")
    require(
        abs(error - right) < 0.05,
        f"it is {error:.2f}. Are ten zero in the one and left out in the other, and is sigma "
        "large enough?",
    )


M = np.array([[1, 0, 2], [0, 1, -1], [1, 1, 0], [2, -1, 0], [0, 1, 1], [-1, 0, 1]])
SQUARES = np.linalg.eigvalsh(M.T @ M)
# For small c the mean of tr B - sum s_i tends to -1/2 for each of the three pairs. The mean over
# 200 draws has a standard error of 0.09.
OFFSET, NOISE = -1.5, 0.4


def q3_terms(answers, random):
    terms = answers.array("kl_terms", (3,))
    sigma = SQUARES / 1e-4
    right = (
        OFFSET
        + sigma.sum()
        - np.array([_limit(sigma, 3).sum(), _laplace(sigma, 3), _laplace(sigma, 3, printed=True)])
    )
    require(not np.allclose(terms, -right, atol=NOISE), "the sign: tr B - F(B) is asked for.")
    require(
        np.max(np.abs(np.sort(terms) - np.sort(right))) > NOISE
        or np.allclose(terms, right, atol=NOISE),
        "these are the three numbers, in another order: exact, laplace, moore.",
    )
    require(
        abs(terms[0] - right[0] + 1.5 * np.log(100)) > NOISE,
        "this is the KL term at c = 0.01. Take c = 0.0001.",
    )
    require(
        not np.allclose(terms, right - OFFSET, atol=NOISE),
        "each is too large by 3/2. Is B made of the draws X and not of M, is tr B its trace, and "
        "are these its own singular values, not those of its symmetric part?",
    )
    for name, found, value in zip(("exact", "laplace", "moore"), terms, right, strict=True):
        require(
            abs(found - value) < NOISE,
            f"with {name} it is {found:.2f}. It is the mean of tr B - F over the draws of B, "
            "with F of their singular values.",
        )


def q3_bounds(answers, random):
    bounds = answers.array("bounds", (2,))
    sigma = SQUARES / 1e-4
    exact = _limit(sigma, 3).sum()
    right = np.array([exact - _laplace(sigma, 3), exact - _laplace(sigma, 3, printed=True)])
    require(
        not np.allclose(bounds, -right, atol=NOISE),
        "the signs are wrong: the first mean of the bound is minus the exact KL term.",
    )
    require(not np.allclose(bounds[::-1], right, atol=NOISE), "in the other order: first laplace.")
    require(
        np.all(bounds < 5),
        "these are KL terms. The first mean of the bound, the exact one, has to be added.",
    )
    require(
        np.allclose(bounds, right, atol=NOISE / 2),  # with the same draws most noise cancels
        f"they are {bounds[0]:+.2f} and {bounds[1]:+.2f}. With the exact F the bound is 0: what "
        "changes when only the KL term changes?",
    )


def q3_growth(answers, random):
    for _ in range(2):
        k, factor = int(random.integers(4, 12)), random.uniform(2, 50)
        found = answers.called_number("growth", k, factor)
        log = np.log(factor)
        require_none_of(
            found,
            (k * (k - 1) / 2 * log, "twice too much: the Gaussian integral is a root."),
            (-k * (k - 1) / 4 * log, "the sign: F stays behind the sum of the singular values."),
            (1.5 * log, "this holds for k = 3. How many pairs are there for other k?"),
            (k**2 / 4 * log, "pairs of different indices: k of the k^2 are none."),
            (k * (k - 1) / 4 * factor, "c enters through singular values inside a log."),
        )
        require(
            np.isclose(found, k * (k - 1) / 4 * log),
            f"at k = {k}, factor {factor:.2f} it is {found:.3f}. Put sigma / c into the limit of "
            "the lesson.",
        )


HADAMARD = np.array([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]])


def _four(spectra):
    """Return F at k = 4 by sums over three angles; 12 nodes leave an error below 1e-4."""
    x, w = np.polynomial.legendre.leggauss(12)
    angle = (x + 1) * np.pi / 4
    a, b, c = np.meshgrid(angle, angle, angle, indexing="ij")
    weight = np.einsum("a,b,c->abc", w * np.sin(2 * angle), w, w).ravel()
    squares = (
        np.stack(
            [
                np.cos(a) * np.cos(b),
                np.cos(a) * np.sin(b),
                np.sin(a) * np.cos(c),
                np.sin(a) * np.sin(c),
            ]
        ).reshape(4, -1)
        ** 2
    )
    # 2 I_1(r) / r is the mean of e^{r x} under the density sqrt(1 - x^2): Chebyshev nodes.
    nodes = np.arange(1, 301) * np.pi / 301
    at = np.linspace(0, 170, 2001)
    table = np.log(np.exp(at[:, None] * (np.cos(nodes) - 1)) @ np.sin(nodes) ** 2)
    table -= table[0]
    values = []
    for sigma in spectra:
        total, top = 0.0, sigma.sum()
        for last in (1, -1):
            r = np.sqrt((HADAMARD @ (sigma * [1, 1, 1, last])) ** 2 @ squares)
            total += weight @ np.exp(np.interp(r, at, table) + r - top)
        values.append(top + np.log(total / weight.sum() / 2))
    return np.array(values)


def q4_zero(answers, random):
    value = answers.called_number("correction", np.zeros(4))
    require(
        abs(value - _at_infinity()) > 0.01,
        "at zero it is the constant of infinity: Laplace is right at zero.",
    )
    require(abs(value) < 1e-6, f"at sigma = 0 it is {value:.3g}, and Laplace is exact there.")


def _at_infinity():
    return -_laplace_error(4, 4)


def q4_infinity(answers, random):
    sigma = 1e5 * random.uniform(1, 3, 4)
    value, right = answers.called_number("correction", sigma), _at_infinity()
    require(abs(value) > 0.01, "it vanishes at infinity, where Laplace misses a constant.")
    require(abs(value + right) > 0.01, "the sign: is Laplace too large or too small?")
    require(
        abs(value - right) < 0.02,
        f"at {sigma.max():.0f} it is {value:.3f}. Compare with asymptotic minus laplace, at four "
        "large values.",
    )


def q4_order(answers, random):
    for _ in range(3):
        sigma = random.uniform(0.5, 8, 4)
        values = [
            answers.called_number("correction", s) for s in (sigma, random.permutation(sigma))
        ]
        require(
            np.isclose(*values, rtol=1e-4, atol=1e-6),
            f"with another order of the same values it changes from {values[0]:.4f} to "
            f"{values[1]:.4f}.",
        )


def q4_error(answers, random):
    spectra = random.uniform(0, 1, (16, 4)) * np.geomspace(3, 40, 16)[:, None]
    laplace = np.array([_laplace(sigma, 4) for sigma in spectra]) - _four(spectra)
    added = np.array([answers.called_number("correction", sigma) for sigma in spectra])
    own = laplace + added
    worst = int(np.argmax(np.abs(own)))
    at = f"largest error {own[worst]:+.2f} at {np.round(spectra[worst], 1)}"
    size, before = np.sqrt(np.mean(own**2)), np.sqrt(np.mean(laplace**2))
    require(not np.allclose(added, 0), "the correction is zero.")
    require(
        size < before,
        f"the root mean square error grows from {before:.2f} to {size:.2f} nats; {at}. Does it "
        "reach its constant at the right size of sigma?",
    )
    require(
        size < before / 8,
        f"the root mean square error falls from {before:.2f} to {size:.2f} nats, and an eighth is "
        f"asked for; {at}.",
    )
