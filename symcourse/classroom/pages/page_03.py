"""Checks of exercise page 03: limits of the divergence, a mixture, a wrong group, correlation."""

from statistics import NormalDist

import numpy as np

from symcourse.classroom.answers import require, require_none_of
from symlib.factorization import scalar_exact

LOG_TWO_PI = np.log(2 * np.pi)


def q1_first_order(answers, random):
    first = answers.array("coefficients", (3,))[0]
    require_none_of(
        first,
        (1, "c_1 is the mean of y only: log cosh y begins with y^2, and E[y^2] is not a^2."),
        (0, "c_1 would be zero if E[y^2] were 2a. What are mean and variance of y?"),
    )
    require(np.isclose(first, 1 / 2), f"c_1 is {first:g}. Which terms are of order a?")


def q1_second_order(answers, random):
    second = answers.array("coefficients", (3,))[1]
    require_none_of(
        second,
        (-1 / 2, "Your c_2 comes from y^2 only: E[y^4] contains a^2, too."),
        (-3 / 4, "Your c_2: look at the sign of y^4 in log cosh y."),
        (1 / 4, "Your c_2: its sign is wrong. E[y^2] is more than the variance of y."),
        (-5 / 12, "Your c_2: the fourth moment of a Gaussian is not the square of its variance."),
    )
    require(
        np.isclose(second, -1 / 4),
        f"c_2 is {second:g}. Collect the terms of order a^2 in E[y^2] and in E[y^4].",
    )


def q1_third_order(answers, random):
    third = answers.array("coefficients", (3,))[2]
    require_none_of(
        third,
        (1 / 2, "c_3 comes from y^4 only: E[y^6] begins with a^3."),
        (-1 / 3, "c_3 comes from y^6 only: E[y^4] has a term a^3, since y has the mean a."),
        (5 / 6, "c_3: look at the sign of y^6 in log cosh y."),
    )
    require(
        np.isclose(third, 1 / 6, rtol=0.02),
        f"c_3 is {third:g}. Collect a^3, and test it: (KL - c_1 a - c_2 a^2) / a^3 at small a.",
    )


def _missing(a):
    """Return log 2 - KL(a), by a sum over the density of y."""
    y = a + np.sqrt(a) * np.linspace(-12, 12, 4001)
    weight = np.exp(-((y - a) ** 2) / (2 * a))
    return (np.logaddexp(0, -2 * y) * weight).sum() / weight.sum()


def q1_tail(answers, random):
    ratios = []
    for a in random.uniform(8, 20, 2):
        found, right = answers.called_number("tail", a), np.sqrt(np.pi / (2 * a)) * np.exp(-a / 2)
        require(
            not np.isclose(found, _missing(a)),
            "this is log 2 - KL itself. A simple function that it approaches is asked for.",
        )
        require(
            not np.isclose(found, np.log(2) - right, rtol=1e-5),
            "this approaches KL. What is missing from log 2 is asked for.",
        )
        ratios.append(found / right)
    require(
        not np.allclose(ratios, 1 / np.pi),
        "the factor pi of the integral is missing: where does it stand?",
    )
    require(
        min(ratios) > 0,
        "log 2 - KL is positive, and this is not.",
    )
    require(
        np.allclose(ratios, 1, rtol=2e-3) or not np.isclose(*ratios),
        "the dependence on a is right, but a constant factor is not.",
    )
    require(
        np.allclose(ratios, 1, rtol=2e-3),
        "the decay with a is not right. Put y = 0 into the density of y, but keep the factor e^y.",
    )


DATA = np.array([NormalDist().inv_cdf((i + 0.5) / 10) for i in range(10)])
DATA = np.concatenate([DATA - 0.4, DATA + 0.4])
SIDE = np.linspace(-6, 6, 121)
CELL = (SIDE[1] - SIDE[0]) ** 2


def _mixture():
    """Return the log joint of the mixture and |mu_1 - mu_2| on a grid."""
    each = -((DATA - SIDE[:, None]) ** 2) / 2 - LOG_TWO_PI / 2
    prior = -(SIDE**2) / 18 - (LOG_TWO_PI + np.log(9)) / 2
    log_likelihood = (np.logaddexp(each[:, None], each) - np.log(2)).sum(axis=2)
    return log_likelihood + prior[:, None] + prior, np.abs(SIDE[:, None] - SIDE)


def _exact():
    """Return the log evidence of the mixture and the exact mean of |mu_1 - mu_2|."""
    log_joint, apart = _mixture()
    weights = np.exp(log_joint - log_joint.max())
    evidence = np.log(weights.sum() * CELL) + log_joint.max()
    return evidence, (apart * weights).sum() / weights.sum()


def _fitted(half_distance, log_variance):
    """Return bound and E|mu_1 - mu_2| of a mixture of two mirrored Gaussians."""
    log_joint, apart = _mixture()
    ones = [
        -((SIDE - m) ** 2) / (2 * np.exp(log_variance)) - (LOG_TWO_PI + log_variance) / 2
        for m in (half_distance, -half_distance)
    ]
    log_q = ones[0][:, None] + ones[1]
    log_q = np.logaddexp(log_q, log_q.T) - np.log(2)
    weights = np.exp(log_q) * CELL
    return (weights * (log_joint - log_q)).sum(), (weights * apart).sum()


# The optima: found once with a quasi-Newton method on these sums, from several starts. A bound
# is flat at its optimum, so two digits are enough.
MEAN_FIELD, SYMMETRIZED = (0.0, -1.61), (0.41, -1.95)


def q2_evidence(answers, random):
    found, (evidence, _) = answers.number("log_evidence"), _exact()
    require(found < 0, "it is positive: the log of the evidence of twenty points is asked for.")
    require(
        abs(found - evidence - np.log(2)) > 0.01,
        "it is larger by log 2: the grid already counts both orders of the means.",
    )
    require(
        abs(found - evidence + np.log(2)) > 0.1,
        "it is smaller by log 2. Does the grid cover both mu_1 < mu_2 and mu_1 > mu_2?",
    )
    require(
        found - evidence < 1, f"it is {found:.2f}: too large. A sum is an integral only with cells."
    )
    require(
        abs(found - evidence) < 0.01,
        f"it is {found:.2f}. Does the grid hold all the mass, and have its cells the right area?",
    )


def q2_bounds(answers, random):
    plain, tilde = answers.array("bounds", (2,))
    evidence, _ = _exact()
    require(
        max(plain, tilde) < 0,
        f"the log evidence is {evidence:.1f}, so its bounds are negative. Are these the gaps?",
    )
    require(plain < tilde, "the symmetrized bound should come second, and be the larger one.")
    require(
        tilde < evidence,
        f"the second is above the log evidence, {evidence:.2f}: no bound. Was the KL added, or the "
        "log of the number of copies?",
    )
    # Draws instead of sums, and an optimiser's noise, change a bound by a few hundredths.
    gap = _fitted(*MEAN_FIELD)[0] - plain
    require(
        gap > -0.04,
        "mean field's bound is too large. Both log p and log q need all their constants.",
    )
    require(gap < 0.04, f"mean field's bound misses its best by {gap:.2f}. More steps?")
    gap = _fitted(*SYMMETRIZED)[0] - tilde
    require(gap < 0.04, f"the symmetrized bound misses its best by {gap:.2f}: fit it, too.")


def q2_distances(answers, random):
    found, (_, exact) = answers.array("distances", (3,)), _exact()
    plain, tilde = _fitted(*MEAN_FIELD)[1], _fitted(*SYMMETRIZED)[1]
    require(
        found[2] > 0.01,
        "the exact mean of mu_1 - mu_2 without the absolute value is zero by symmetry.",
    )
    require(
        abs(found[2] - exact) < 0.004,  # a sum has no noise, and two digits are enough
        f"the third, the exact one, is {found[2]:.3f}. Weights that sum to one?",
    )
    require(
        abs(found[0] - exact) > 0.05,
        "the first should be mean field's. It puts both means at one place: can it be that exact?",
    )
    require(
        found[0] > 0.05,
        "the first is the distance of two means. The mean of the distance is asked for.",
    )
    # The fits are noisy: their means and variances change by a few hundredths.
    require(abs(found[0] - plain) < 0.04, f"mean field's is {found[0]:.3f}. Has the fit converged?")
    require(
        abs(found[1] - plain) > 0.04,
        "the second is that of mean field: which base belongs to the symmetrized fit?",
    )
    require(abs(found[1] - tilde) < 0.04, f"the symmetrized one is {found[1]:.3f}: converged?")


def q2_change(answers, random):
    change = answers.number("change")
    require(
        abs(abs(change) - 0.35) > 0.04,
        "this is the difference of two fits. Here the base of mean field stays as it is.",
    )
    require(
        abs(change) < 1e-9,
        f"it is {change:g}. Is |mu_1 - mu_2| invariant, and what does the chapter say then?",
    )


R, MEAN, VARIANCE = 3.0, 1.29, 0.33  # of question 3


def q3_change(answers, random):
    for _ in range(2):
        u, v, r = random.uniform(0.5, 2, 3) * random.choice([-1, 1], 3)
        found = answers.called_number("sign_change", u, v, r)
        require_none_of(
            found,
            (2 * r * u * v, "the sign: it should be the new value minus the old one."),
            (-r * u * v, "half of it. Expand both squares and subtract."),
            (-4 * r * u * v, "twice too much: the square in the density has the factor one half."),
            (0, "zero would mean that the model has this symmetry."),
        )
        require(
            np.isclose(found, -2 * r * u * v),
            f"at u = {u:.2f}, v = {v:.2f}, r = {r:.2f} it is {found:.3f}. Which terms of the log "
            "joint change?",
        )


def _equation_four(copies):
    """Return the mean under the base of log p - log q~, for 2 copies or for 4."""
    log_joint = (
        -((R - MEAN**2) ** 2 + 2 * MEAN**2 * VARIANCE + VARIANCE**2) / 2
        - (MEAN**2 + VARIANCE)
        - 1.5 * LOG_TWO_PI
    )
    entropy = 1 + LOG_TWO_PI + np.log(VARIANCE)
    # Independent signs of independent coordinates: their divergences add.
    flips = {2: [2 * MEAN**2 / VARIANCE], 4: [MEAN**2 / VARIANCE] * 2}[copies]
    return log_joint + entropy + sum(np.log(2) - _missing(a) for a in flips)


def q3_equation_4(answers, random):
    found, right = answers.number("equation_4"), _equation_four(4)
    require(
        abs(found - right + R * MEAN**2) > 0.5,
        "this is equation 1: equation 4 takes its draws from the base.",
    )
    require(
        abs(found - _equation_four(2)) > 0.05,
        "this is the bound of the sign flip with two copies. Take `four`.",
    )
    require(
        abs(found - right) < 0.05,  # ten standard errors of 20 000 draws
        f"it is {found:.3f}. Is r = 3, is the posterior `four`, and are there enough draws?",
    )


def q3_equation_1(answers, random):
    found, four = answers.number("equation_1"), _equation_four(4)
    right = four - R * MEAN**2
    require(
        abs(found - four) > 0.05, "this is equation 4: equation 1 takes its draws from q~ itself."
    )
    require(
        found < four,
        "this is far above the evidence. Which density stands in the term, and is it that of the "
        "law that the draws come from?",
    )
    require(
        abs(found - right) < 0.3,  # six standard errors of 20 000 draws
        f"it is {found:.2f}. Take the mean of log p - log q~ at draws of `four.sample`.",
    )


def q3_excess(answers, random):
    for _ in range(2):
        r, u, v = random.uniform(0.5, 2, 3) * random.choice([-1, 1], 3)
        found = answers.called_number("excess", r, u, v)
        require_none_of(
            found,
            (2 * r * u * v, "how many of the four elements flip one sign only?"),
            (r * u * v / 2, "the mean over the group: what share of its elements changes log p?"),
            (-r * u * v, "the sign: it should be equation 4 minus equation 1."),
        )
        require(
            np.isclose(found, r * u * v),
            f"at r = {r:.2f} and means {u:.2f}, {v:.2f} it is {found:.3f}. log q~ is the same in "
            "both; average your `sign_change` over group and base.",
        )


def _bound(r, s, c, product_variance=2, determinant=0.5, prior=1.0):
    """Return the bound of a correlated Gaussian; the last three are where mistakes are made."""
    squared_error = r**2 - 2 * r * c + s**2 + product_variance * c**2
    log_density = -squared_error / 2 - prior * s - 1.5 * LOG_TWO_PI
    return log_density + 1 + LOG_TWO_PI + determinant * np.log(s**2 - c**2)


def q4_bound(answers, random):
    points = []
    for _ in range(2):
        r, s = random.uniform(0.5, 2, 2)
        points.append((r, s, random.uniform(0.4, 0.8) * s * random.choice([-1, 1])))
    found = np.array([answers.called_number("correlated_bound", *point) for point in points])
    right = np.array([_bound(*point) for point in points])
    for mistake, hint in (
        ({"product_variance": 1}, "E[u^2 v^2] of two correlated Gaussians: c^2 appears twice."),
        ({"product_variance": 0}, "E[u^2 v^2] is not E[u^2] E[v^2] when u and v are correlated."),
        ({"determinant": 1}, "the entropy holds half the log of the determinant."),
        ({"determinant": -0.5}, "the sign of the entropy: a wider Gaussian has more."),
        ({"prior": 0.5}, "both u and v have a prior."),
        ({"prior": 0.0}, "the prior of u and v is missing."),
    ):
        misses = found - [_bound(*point, **mistake) for point in points]
        # Constants may be wrong as well.
        require(not np.isclose(*misses), hint)
    misses = found - right
    require(
        not np.isclose(*misses) or np.isclose(misses[0], 0),
        f"it misses a constant: it is {misses[0]:+.3f} off. Prior, likelihood and entropy have "
        "logs of 2 pi, and the entropy has more.",
    )
    r, s, c = points[0]
    require(
        np.allclose(found, right),
        f"at r = {r:.2f}, s = {s:.2f}, c = {c:.2f} it is {found[0]:.3f}. Take likelihood, prior "
        "and entropy one by one.",
    )


def _best_member(r):
    """Return the optimal s and c: both slopes are zero."""
    low, high = 0.0, 1.0
    for _ in range(40):
        ratio = (low + high) / 2
        s = (np.sqrt(1 + 4 / (1 - ratio**2)) - 1) / 2
        low, high = (ratio, high) if 2 * ratio * s + ratio * (1 + s) < r else (low, ratio)
    return s, ratio * s


def q4_prediction(answers, random):
    observed = random.uniform([0.5, 1.8], [1.2, 3])
    found = np.array([answers.called_number("correlated_prediction", r) for r in observed])
    s, c = np.transpose([_best_member(r) for r in observed])
    if np.abs(found - c).max() < 0.011:
        return
    point = (1.1, 0.8, 0.3)
    require(
        np.isclose(answers.called_number("correlated_bound", *point), _bound(*point), atol=1e-3),
        "`correlated_bound` is not right yet, and its maximum lies elsewhere. Mend that first.",
    )
    bayes = np.array([float(scalar_exact(r).predictive_mean) for r in observed])
    # Two at once: by chance one of these numbers may lie near another.
    for mistake, hint in (
        (0 * c, "it predicts zero. The mean of uv is no product of means."),
        (bayes, "this is Bayes' answer, not that of the best correlated Gaussian."),
        (c / s, "this is the correlation, and not yet E[uv]."),
        (s, "this is the variance of u."),
    ):
        require(np.abs(found - mistake).max() > 0.005, hint)
    at = f"at r = {observed[0]:.2f} and {observed[1]:.2f} it is {np.round(found, 3)}"
    require(found > 0, f"{at}: u and v should have the same sign more often than not.")
    require(
        np.abs(found - c) < 0.011,
        f"{at}. Is the maximum over both s and c, and is |c| < s on the whole grid?",
    )
