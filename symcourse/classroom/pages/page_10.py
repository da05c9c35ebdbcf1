"""Checks of exercise page 10: two columns, the gap, no best covariance, laws for columns."""

import numpy as np

from symcourse.classroom.answers import require, require_right_or_unknown


def q1_difference(answers, random):
    for _ in range(3):
        alpha, t = random.uniform(0.3, 1.2), random.uniform(1.3, 2)
        found = answers.called_number("difference", alpha, t)

        def term(cosine, square):
            return -np.log(1 - (square * cosine / (1 + square)) ** 2) / 2

        cosine, right = np.cos(alpha), term(np.cos(alpha), t**2)
        require_right_or_unknown(
            found,
            right,
            1e-6,
            (-right, "this is equation 13 less equation 14."),
            (2 * right, "this is twice the difference: beta / 2 = 1/2."),
            (-np.log(np.sin(alpha)), "this is the limit of long columns. What does I in K add?"),
            (term(cosine, 1.0), "this is right for the length 1 only."),
            (term(cosine, t), "do the lengths enter K, or their squares?"),
            (term(np.sin(alpha), t**2), "which of sine and cosine belongs to a scalar product?"),
            (term(np.cos(np.radians(alpha)), t**2), "alpha is in radians already."),
            (
                -np.log(1 - t**2 * cosine / (1 + t**2)) / 2,
                "the entry K_12 enters the determinant with its square.",
            ),
            (np.log(1 + t**2), "this is the penalty of equation 14 alone."),
            (0, "for columns that are not orthogonal there is a difference."),
        )
        require(
            np.isclose(found, right, rtol=1e-5),
            f"for the angle {alpha:.2f} and the length {t:.2f} it is {found:.4f} where it should "
            f"be {right:.4f}. Write K with its four entries.",
        )


def q1_limit(answers, random):
    limit, tolerance = answers.number("limit"), 0.005
    require_right_or_unknown(
        limit,
        np.log(2),
        tolerance,
        (-np.log(2), "the difference is never negative."),
        (2 * np.log(2), "this is twice the limit."),
        (np.log(2) / 2, "this is half the limit: 1 - cos^2 is a square."),
        (np.log10(2), "this is the logarithm with base 10."),
        (-np.log(3 / 4) / 2, "this is right with a sine inside: 1 - cos^2 is what is left."),
        (-np.log(1 - 3 / 16) / 2, "this is the difference for the length 1."),
        (0, "for long columns I does not matter in K, but the angle does."),
    )
    require(
        abs(limit - np.log(2)) < tolerance,
        f"it is {limit:.4f}. What does K_12 / K_11 tend to?",
    )


def q1_growth(answers, random):
    growth = answers.number("growth")
    require_right_or_unknown(
        growth,
        1,
        1e-3,
        (2, "does the root, the factor 1/2, stand before the logarithm of t^2?"),
        (0.5, "1 - u^2 falls like 1 / t^2, not like 1 / t."),
        (4, "1 - (t^2 / (1 + t^2))^2 falls like a lower power of t. Expand it."),
        (0, "this says that it stays bounded. Put large lengths into `both`."),
        (-1, "does it grow or fall?"),
        (-0.5 * np.log(2), "this is the constant beside k log t."),
    )
    require(
        abs(growth - 1) < 1e-3,
        f"it is {growth:g}. What is left of 1 - (t^2 / (1 + t^2))^2 for large t?",
    )


def _excess(ratio):
    return np.trace(ratio) - np.linalg.slogdet(ratio)[1] - len(ratio)


def _positive(random, size, scale):
    """Return a positive definite matrix with eigenvalues above 1.5 times the scale."""
    root = random.normal(size=(size, size))
    return scale * (1.5 * np.eye(size) + root @ root.T)


def q2_costs(answers, random):
    costs = answers.array("costs", (2,))
    right = np.array([1 - np.log(2), np.log(2) - 0.5]) / 2
    require_right_or_unknown(
        costs,
        right,
        0.005,  # two digits are enough
        (
            right[::-1],
            "these have changed places: the larger variance comes first, and the "
            "posterior stands first in the divergence.",
        ),
        (2 * right, "both are twice too large: beta / 2 = 1/2."),
        ([1 - np.log(2) / 2, 0.25 + np.log(2) / 2], "d = 1 is not subtracted."),
        ([(1 + np.log(2)) / 2, -(0.5 + np.log(2)) / 2], "the sign of the logarithm is wrong."),
    )
    require(costs >= 0, "a cost is negative, but any variance except the best one costs more.")
    require(
        np.abs(costs - right) < 0.005,
        f"they are {costs[0]:.4f} and {costs[1]:.4f}. Put K Sigma = 2 and then 1/2 into the gap.",
    )


def q2_gap(answers, random):
    for size in (2, 3):
        Sigma, K = _positive(random, size, 0.2), _positive(random, size, 1.0)
        beta = random.uniform(0.3, 0.7)
        found = answers.called_number("gap", Sigma, K, beta)
        ratio = K @ Sigma
        right, log = beta / 2 * _excess(ratio), np.linalg.slogdet(ratio)[1]
        require_right_or_unknown(
            found,
            right,
            1e-6,
            (right / beta, "this is the divergence. What stands before it?"),
            (2 * right, "this is twice the gap."),
            (right + beta / 2 * size, "d is not subtracted, so it is not zero at the best one."),
            (right + beta / 2 * (size - 3), "this is right for three latents only."),
            (right + beta * log, "the sign of the logarithm is wrong."),
            (beta / 2 * _excess(np.linalg.inv(ratio)), "this is the other order."),
            (beta / 2 * (np.trace(ratio) - size), "the log determinant is missing."),
            (
                beta / 2 * _excess(np.linalg.solve(K, Sigma)),
                "this is the divergence from N(0, K). Is K a covariance or a precision?",
            ),
            (
                beta / 2 * (np.trace(ratio) - np.exp(log) - size),
                "the determinant enters with its logarithm.",
            ),
        )
        require(
            np.isclose(found, right, rtol=1e-5),
            f"for {size} latents it is {found:.4f} where it should be {right:.4f}. Is K Sigma the "
            "matrix product?",
        )


def q2_printed(answers, random):
    for size in (1, 2, 3):
        K, beta = _positive(random, size, 1.0), random.uniform(0.3, 0.7)
        found = answers.called_number("printed", K, beta)
        ratio = 2 * np.eye(size) - np.linalg.inv(K)
        right = beta / 2 * _excess(ratio)
        require_right_or_unknown(
            found,
            right,
            1e-6,
            (0, "so it is with K Sigma. Does I + J^T J Sigma / beta become I?"),
            (right / beta, "the factor beta is missing."),
            (2 * right, "this is twice of it."),
            (right + beta / 2 * size, "d is not subtracted."),
            (right + beta / 2 * (size - 3), "this is right for three latents only."),
            (beta / 2 * size * (1 - np.log(2)), "J^T J / beta is K - I, not K."),
            (beta / 2 * _excess(np.eye(size) + K), "this is I + K. Is the covariance put in?"),
            (beta / 2 * _excess(K), "this is K itself: the covariance is not put in."),
            (
                beta / 2 * _excess(np.eye(size) + (K - np.eye(size)) @ K),
                "the best covariance is the inverse of K.",
            ),
        )
        require(
            np.isclose(found, right, rtol=1e-5),
            f"for {size} latents it is {found:.4f} where it should be {right:.4f}. Write the "
            "matrix with K and I only.",
        )


def q3_curvature(answers, random):
    found = answers.array("curvatures", (2,))
    require_right_or_unknown(
        found,
        [-0.5, 0.5],
        1e-3,
        ([0, 0], "this is Gauss-Newton: J = 0 there. The full Hessian has a second term."),
        ([0.5, -0.5], "the signs are exchanged. For which x does a larger logit help?"),
        ([-1, 0], "the loss falls by x for each unit of the logit. What does log(1 + e^o) add?"),
        ([0.25, 0.25], "p(1 - p) is the curvature in the logit, and J is its factor."),
        ([-0.25, 0.75], "p(1 - p) enters with J squared, and J = 0 there."),
    )
    require(
        np.abs(found - [-0.5, 0.5]) < 1e-3,
        f"they are {found[0]:g} and {found[1]:g}. Differentiate log(1 + e^o) - x o twice in z, "
        "with o = z^2 / 2.",
    )


def q3_smallest_beta(answers, random):
    beta = answers.number("smallest_beta")
    require(beta > 0, "K is positive for large beta. Where does it become zero?")
    require_right_or_unknown(
        beta,
        0.5,
        1e-3,
        (1, "this is right for the curvature -1, as for the parabola of the chapter."),
        (2, "this is 1 / beta. Where does 1 + C / beta become zero?"),
        (0.25, "does C / beta hold the square of C?"),
    )
    require(abs(beta - 0.5) < 1e-3, f"it is {beta:g}. When is K = 1 + C / beta positive?")


def q3_variance(answers, random):
    for x in (1.0, 0.0):
        beta = random.uniform(0.6, 0.9)
        C = 0.5 - x
        found, right = answers.called_number("best_variance", x, beta), beta / (beta + C)
        require_right_or_unknown(
            found,
            right,
            1e-6,
            (1 / right, "this is K, the precision."),
            (right**0.5, "this is the standard deviation."),
            (1 / (beta + C), "C is divided by beta, the 1 is not."),
            (1 / (1 + C), "where is beta?"),
            (1 / (1 + C * beta), "is C multiplied by beta, or divided?"),
            (
                beta / (beta - C),
                f"for x = {x:g} it is the answer for the other x. Does x come in, with its sign?",
            ),
            (1, "this is the best one where C = 0."),
        )
        require(
            np.isclose(found, right, rtol=1e-5),
            f"for x = {x:g} and beta = {beta:.2f} it is {found:.4f} where it should be "
            f"{right:.4f}.",
        )


def q3_width(answers, random):
    width = answers.number("width")
    require(width > 0, "a standard deviation is positive.")
    loss = np.log(2) - width**2 / 4 + 0.4 * ((width**2 - 1) / 2 - np.log(width))
    require(width >= 1, f"a narrow posterior costs: the expanded loss is {loss:.3g} there.")
    require(
        loss < -100,
        f"the expanded loss is {loss:.3g} there. Which term of it wins for large widths?",
    )


def q3_newton(answers, random):
    variance = answers.number("newton_variance")
    require_right_or_unknown(
        variance,
        1,
        1e-3,
        (0, "a variance of 0 costs infinitely much. What is K if C = 0?"),
        (2, "the best one for the full curvature depends on beta. Which C has Gauss-Newton?"),
        (0.8, "p(1 - p) has the factor J squared."),
        (0.5, "this is a probability. Which C has Gauss-Newton at m = 0?"),
    )
    require(abs(variance - 1) < 1e-3, f"it is {variance:g}. What is J at m = 0, and then K?")


def _law(random, size):
    weights = random.uniform(0.5, 2, size)
    return weights / weights.sum()


def q4_best_law(answers, random):
    for size in (2, 4):
        K = _positive(random, size, 1.0)
        found = answers.called_array("best_law", (size,), K)
        diagonal = np.diag(K)
        logs = np.log(diagonal)
        require(not np.allclose(found, logs), "these are right up to a factor: what is their sum?")
        require(
            abs(found.sum() - 1) < 1e-6,
            f"probabilities have the sum 1, and these have {found.sum():.3f}.",
        )
        require(found > 0, "a probability is not positive.")
        require_right_or_unknown(
            found,
            logs / logs.sum(),
            1e-6,
            (1 / size, "this is the uniform law."),
            (diagonal / diagonal.sum(), "K_cc enters the estimate with its logarithm."),
            (
                (diagonal - 1) / (diagonal - 1).sum(),
                "these are the squared lengths of the columns. What does the estimate hold?",
            ),
            (
                (1 / logs) / (1 / logs).sum(),
                "this is the wrong way round: a large a_c needs a large p_c.",
            ),
            (logs**2 / (logs**2).sum(), "the squares belong to the variance. When is a / p fixed?"),
        )
        require(
            np.allclose(found, logs / logs.sum(), atol=1e-6),
            f"with this law the estimates differ between columns: a / p is "
            f"{np.round(logs / found, 2)}.",
        )


def q4_variance(answers, random):
    for size in (2, 4):
        K, p, beta = _positive(random, size, 1.0), _law(random, size), random.uniform(0.3, 0.7)
        found = answers.called_number("variance", K, p, beta)
        a = np.log(np.diag(K))
        second, mean = np.sum(a**2 / p), np.sum(a)
        bare = second - mean**2
        right = (beta / 2) ** 2 * bare
        require_right_or_unknown(
            found,
            right,
            1e-7,
            (bare, "how does the factor beta / 2 change a variance?"),
            (beta / 2 * bare, "a factor enters a variance with its square."),
            (beta**2 * bare, "the factor before a / p is beta / 2."),
            (right**0.5, "this is the standard deviation."),
            ((beta / 2) ** 2 * second, "this is the second moment. What is subtracted?"),
            (
                (beta / 2) ** 2 * (np.sum(p * a**2) - np.sum(p * a) ** 2),
                "this is the variance of a. The estimate is a / p.",
            ),
            (
                (beta / 2) ** 2 * np.var(a / p),
                "the columns are weighted alike here, and they are drawn with p.",
            ),
        )
        exact = np.isclose(found, right, rtol=1e-5)
        require(
            exact or not np.isclose(found, right, rtol=0.02),
            "it is near, as a mean over draws would be. Add up the columns, each with its p.",
        )
        require(
            exact,
            f"for {size} latents it is {found:.4f} where it should be {right:.4f}. With which "
            "probability does the estimate take which value?",
        )
