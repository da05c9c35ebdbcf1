"""Checks of exercise page 06: permanents, gains of one and two layers, an upper bound."""

import math
from itertools import permutations

import numpy as np

from symcourse.classroom.answers import require

CAP = math.log(3)
FAR = CAP - 10 / 36 * math.log(2) - CAP / 36  # the sampled bound of three units far apart
SHAPES = ((3, 2), (3, 3), (1, 3))


def q1_permanents(answers, random):
    for e in random.uniform(0.2, 0.8, size=3):
        two, three = (answers.called_number(name, float(e)) for name in ("perm2", "perm3"))
        require(
            not np.isclose(two, 1 - e**2) and not np.isclose(three, 1 - 3 * e**2 + 2 * e**3),
            "this is a determinant. In a permanent every permutation counts with a plus.",
        )
        require(
            not np.isclose(two, math.log(1 + e**2)),
            "`perm2` returns a logarithm. The permanent itself is asked for.",
        )
        require(
            np.isclose(two, 1 + e**2),
            f"`perm2` gives {two:.4g} at e = {e:.4g}. Write out the two permutations.",
        )
        require(
            not np.isclose(three, 1 + 3 * e**2),
            "`perm3` has the identity and the exchanges of two things. S_3 has six elements.",
        )
        require(
            not np.isclose(three, 1 + 3 * e + 2 * e**2),
            "`perm3`: an exchange of two things moves two of them, so how many factors e has it?",
        )
        require(
            np.isclose(three, 1 + 3 * e**2 + 2 * e**3),
            f"`perm3` gives {three:.4g} at e = {e:.4g}. For each of the six permutations, count "
            "the things that it moves.",
        )


def q1_limits(answers, random):
    limits = answers.array("limits", (2,))
    require(
        not np.allclose(limits, 0),
        "for e = 0 the permanent is 1. But there is a d! in front of it.",
    )
    require(
        not np.allclose(limits, np.log([2, 3]), atol=2e-3),
        "log d counts the units. How many copies do d units have?",
    )
    require(not np.allclose(limits, [2, 6]), "these are the numbers of copies: a log is missing.")
    require(
        np.allclose(limits, np.log([2, 6]), atol=2e-3),
        f"they are {limits[0]:.3f} and {limits[1]:.3f}, with d = 2 first. What is left of d! / "
        "perm at e = 0?",
    )


def q1_with_replacement(answers, random):
    bound = answers.number("with_replacement")

    def near(value):
        return abs(bound - value) < 2e-3  # three decimals are asked for

    require(not near(math.log(6)), "log 6 is the gain I. The bound has only K = 3 elements.")
    require(
        not near(CAP),
        "log 3 is the cap. It is not reached in a draw that meets the identity again.",
    )
    require(
        not near(CAP - 5 / 36 * math.log(2) - CAP / 36),
        "exactly one identity among two elements: it may be the first or the second.",
    )
    require(
        not near(math.log(3 / (1 + 1 / 3))),
        "this is the logarithm of a mean. The bound is the mean of a logarithm.",
    )
    require(
        near(FAR),
        f"it is {bound:.3f}. A term is log 3 - log(1 + B), B the number of identities among the "
        "two: with which probability is B = 0, 1, 2?",
    )


def q1_without_replacement(answers, random):
    bound = answers.number("without_replacement")
    require(abs(bound - FAR) > 2e-3, "this is the bound with replacement.")
    require(abs(bound - math.log(6)) > 2e-3, "log 6 is I: it would take all six elements.")
    require(
        abs(bound - CAP) < 2e-3,
        f"it is {bound:.3f}. How many of the three elements give a term that is not zero?",
    )


def _log_mean_exp(values):
    top = np.max(values, axis=0)
    return top + np.log(np.mean(np.exp(values - top), axis=0))


def _gain(A):
    """Return log q - log q^G by a sum over all permutations."""
    units = np.arange(len(A))
    orders = permutations(range(len(A)))
    return np.trace(A) - _log_mean_exp(np.array([A[units, list(g)].sum() for g in orders]))


def q2_gain_term(answers, random):
    for d in (3, 4):
        A = random.normal(size=(d, d)) - 2 + 2 * np.eye(d)
        value, right = answers.called_number("gain_term", A), _gain(A)
        copies = math.lgamma(d + 1)
        require(not np.isclose(value, -right), "the sign is wrong: this is log q^G - log q.")
        require(
            not np.isclose(value, right - copies),
            "the mean over the copies is asked for, not their sum: where is the d!?",
        )
        require(
            not np.isclose(value, math.exp(right)),
            "this is the quotient of the densities. Its logarithm is asked for.",
        )
        require(
            not np.isclose(value, np.exp(np.trace(A)) - np.exp(np.trace(A) - right)),
            "this is the difference of the densities, not of their logarithms.",
        )
        require(
            not np.isclose(value, _gain(np.exp(A))),
            "the entries of A are logarithms already: a product of densities is a sum of entries.",
        )
        require(
            np.isclose(value, right),
            f"for {d} units it is {value:.4f} where it should be {right:.4f}.",
        )


def q2_small_densities(answers, random):
    A = random.normal(size=(3, 3)) - 2000
    value = answers.call("gain_term", A)
    finite = isinstance(value, float) and math.isfinite(value)
    require(
        finite,
        "with entries near -2000 it is no finite number: all the densities are zero to the "
        "computer. Take the largest term out of the sum first, or let logsumexp do it.",
    )
    require(np.isclose(value, _gain(A)), f"with entries near -2000 it is {value:.4f}.")


def _layer_terms(mean, z):
    """Return the terms of both layers and of all 36 elements, by listing them.

    The matrices of z may have a leading axis of draws.
    """

    def log_density(W1, W2, W3):
        parts = zip((W1, W2, W3), mean, strict=True)
        return sum(-((W - m) ** 2).sum((-2, -1)) / (2 * 0.64) for W, m in parts)

    orders = [list(g) for g in permutations(range(3))]
    W1, W2, W3 = z
    values = np.array(
        [
            [log_density(W1[..., g, :], W2[..., h, :][..., g], W3[..., h]) for h in orders]
            for g in orders
        ]
    )  # the identity first, in both layers
    return np.array(
        [
            values[0, 0] - _log_mean_exp(values[:, 0]),
            values[0, 0] - _log_mean_exp(values[0]),
            values[0, 0] - _log_mean_exp(values.reshape(36, *values.shape[2:])),
        ]
    )


def q2_two_layers(answers, random):
    mean = [random.normal(size=shape) / 2 for shape in SHAPES]  # near copies overlap
    z = [m + 0.8 * random.normal(size=m.shape) for m in mean]
    terms, right = answers.called_array("layer_terms", (3,), mean, z), _layer_terms(mean, z)
    require(not np.allclose(terms, -right), "the sign is wrong: log q comes first.")
    require(not np.allclose(terms, right[[1, 0, 2]]), "the two layers have changed places.")
    for order in ([2, 0, 1], [2, 1, 0], [0, 2, 1], [1, 2, 0]):
        require(not np.allclose(terms, right[order]), "the order asked for is I_1, I_2, I.")
    good = np.isclose(terms, right)
    require(
        not np.allclose(terms[:2], right[0]),
        "the second term repeats the first. Which layer does `unit_log_densities` look at?",
    )
    require(
        not (good[:2].all() and np.isclose(terms[2], right[0] + right[1])),
        "the third term is the sum of the two others. Do the two layers share no weights?",
    )
    entry = np.argmin(good)
    require(
        good.all(),
        f"entry {entry} is {terms[entry]:.4f} where it should be {right[entry]:.4f}. Is the "
        "standard deviation 0.8, and does a unit take its outgoing weights along?",
    )


def q2_averages(answers, random):
    gains = answers.array("gains", (3,))
    require(
        (gains <= np.log([6, 6, 36]) + 1e-9).all(),
        f"the gains are {np.round(gains, 2)}, more than log 6, log 6, log 36 allow.",
    )
    require(
        not np.allclose(gains, np.log([6, 6, 36]), atol=0.01),
        "these are the caps. They are reached only where no two copies overlap.",
    )
    require((gains >= 0).all(), "a gain below zero: it is a KL divergence.")
    require(gains[2] >= max(gains[:2]), "all 36 elements cannot gain less than one layer's six.")
    require(
        abs(gains[2] - gains[0] - gains[1]) > 1e-9,
        "the third gain is exactly the sum of the others. Average its own terms.",
    )
    state = np.random.default_rng(2)
    mean = [state.normal(size=shape) / 2 for shape in SHAPES]  # `deep_mean` of the page
    z = [m + 0.8 * random.normal(size=(4000, *m.shape)) for m in mean]
    right = _layer_terms(mean, z).mean(axis=1)
    # A term has a standard deviation near 1: this is four errors of a mean over 1000 draws.
    require(
        (abs(gains - right) < 0.13).all(),
        f"the gains are {np.round(gains, 2)}. Are the draws from the base, with mean `deep_mean` "
        "and standard deviation 0.8, and are there enough of them?",
    )


def q3_missing(answers, random):
    for _ in range(3):
        K, N = int(random.integers(3, 10)), int(random.integers(10, 25))
        share = answers.called_number("missing", K, N)
        require(
            not np.isclose(share, (1 / N) ** K),
            "this is the probability that all K elements are the identity.",
        )
        require(
            not np.isclose(share, 1 - (1 - 1 / N) ** K),
            "this is the probability that the identity is among them.",
        )
        require(
            not np.isclose(share, (1 - 1 / N) ** (K - 1)),
            "this has K - 1 random elements, as the lower bound. The upper bound has K.",
        )
        require(not np.isclose(share, 1 - K / N), "the elements are drawn with replacement.")
        require(
            np.isclose(share, (1 - 1 / N) ** K),
            f"it is {share:.4f} for K = {K} and N = {N}. What is it for K = 1, and how do "
            "independent draws combine?",
        )


def q3_paid(answers, random):
    for _ in range(3):
        m, c = random.uniform([0.5, -1.5], [1.5, -0.5]), float(random.uniform(0.3, 0.8))
        gap = m[0] - m[1]
        value = answers.called_number("paid", m, c)
        require(value >= 0, "it is below zero. It is a KL divergence: which density is on top?")
        require(
            not np.isclose(value, gap**2 / (2 * c)),
            "half of it is there: the exchange moves both weights, not one.",
        )
        require(
            not np.isclose(value, gap**2 / c**2),
            "it is divided by the square of the variance: c is the variance.",
        )
        require(
            not np.isclose(value, abs(gap) / c) and not np.isclose(value, abs(gap) / c**0.5),
            "the distance enters with its square, as in the logarithm of a Gaussian.",
        )
        require(
            np.isclose(value, gap**2 / c),
            f"it is {value:.3f} for m = {np.round(m, 2)}, c = {c:.2f}. Write the KL divergence of "
            "N(m, c I) from N(m', c I), m' the exchanged mean.",
        )


def q3_excess(answers, random):
    excess = answers.array("excess", (3,))
    require(
        not (excess < -100).all() or not (np.diff(excess) < 0).all(),
        "the objective is above the evidence: subtract the evidence from it, not it from the "
        "evidence.",
    )
    require(
        (excess > 0).all(),
        f"it is {np.round(excess)}: an objective below the evidence. Is each the mean of a "
        "hundred steps, and was it the upper bound, with the identity left to chance?",
    )
    require(
        (np.diff(excess) > 0).all(),
        "the objective should still grow from one stretch to the next.",
    )
    require(
        excess[0] > 100,
        f"the first is {excess[0]:.0f} nats. Is the step size 0.02, and is it the upper bound?",
    )


def q3_deviation(answers, random):
    deviation = answers.number("deviation")
    require(deviation != 0, "it is 0. Give two digits that are not zero.")
    require(deviation > 0, "a standard deviation is positive. Is this a logarithm?")
    require(abs(deviation - 0.1) > 1e-9, "0.1 is the start. What is it after training?")
    require(
        not 0.01 <= deviation < 0.03,
        f"it is {deviation:.3g}, as with the default of `fit`, which lowers the step size to zero. "
        "Pass optimizer=optax.adam(0.02).",
    )
    require(
        deviation < 0.01,
        f"it is {deviation:.3g}, which is not much smaller than at the start. What does the term "
        "pay for?",
    )
    require(
        deviation > 2e-6,
        f"it is {deviation:.1e}: is this the variance? Its root is asked for.",
    )
