"""Checks of exercise page 07: push and distance, anchors of some weights, bad anchors, a limit."""

import numpy as np

from symcourse.classroom.answers import Wrong, require


def q1_push(answers, random):
    push = answers.number("push_norm")

    def near(value):
        return abs(push / value - 1) < 0.01

    norm = 0.0005**0.5
    require(
        not near(0.2 * norm),
        "this is gamma times the distance to the anchor. What is the derivative of a square?",
    )
    require(
        not near(0.2 * norm**2) and not near(0.4 * norm**2),
        "the distance to the anchor enters with its square: this is the decay, not its gradient.",
    )
    require(push > 0, "it is a norm, so it is positive.")
    require(
        not near(0.4 * 0.03),
        "the two entries are added. The norm is the root of the sum of their squares.",
    )
    require(
        near(0.4 * norm),
        f"it is {push:.5f}. What does the loss itself add at the origin, and what the decay?",
    )


def q1_end(answers, random):
    end = answers.array("end", (2,))

    def near(along, across):
        return np.abs(end - [along + across, along - across]).max() < 2e-4

    require(not near(0.005, 0.015), "this is the anchor. The loss has a curvature, too.")
    require(
        not near(0.005 * 4 / 7, 0.06),
        "the curvatures have changed places: along (1, 1) it is -0.3.",
    )
    require(
        not near(-0.01, 0.006),
        "with gamma (H + gamma)^-1 the decay has the curvature gamma. What is its second "
        "derivative?",
    )
    require(not near(-0.005 * 4 / 3, -0.06), "the curvatures are subtracted. Do they not add up?")
    require(
        not np.allclose(end, [0.02, 0.06 / 7], atol=2e-4),
        "these are the parts along (1, 1) and (1, -1). The point (u, v) is asked for.",
    )
    require(
        not near(0.02, -0.06 / 7) and not near(-0.02, 0.06 / 7),
        "a part has the wrong sign: the anchor is 0.005 (1, 1) + 0.015 (1, -1).",
    )
    require(
        near(0.02, 0.06 / 7),
        f"it is ({end[0]:.4f}, {end[1]:.4f}). Split the anchor along (1, 1) and (1, -1). By which "
        "factor is each part enlarged?",
    )


def q1_critical(answers, random):
    gamma = answers.number("critical_gamma")
    require(abs(gamma - 0.3) > 1e-3, "the second derivative of gamma |phi|^2 is not gamma.")
    require(gamma >= 0, "a negative decay pushes out itself. Which curvature is the smaller one?")
    require(abs(gamma - 0.6) > 1e-3, "2 gamma is added to each curvature, not gamma / 2.")
    require(
        abs(gamma - 0.15) < 1e-3,
        f"it is {gamma:g}. When is the smaller curvature of the sum zero?",
    )


def q2_push(answers, random):
    for kinds in ([1.0, 1, 1], [0.0, 0, 1], [1.0, 1, 0]):
        theta, gamma = random.normal(size=6), float(random.uniform(0.1, 0.4))
        kinds, gap = np.array(kinds), theta[:3] - theta[3:]
        right = 2 * gamma * np.linalg.norm(kinds * gap) / 2**0.5
        value = answers.called_number("push", theta, gamma, kinds)
        require(
            kinds.all() or not np.isclose(value, 2 * gamma * np.linalg.norm(gap) / 2**0.5),
            "where `kinds` is 0 there is neither anchor nor decay.",
        )
        require(
            not np.isclose(value, right / 2),
            "half of it is there. What is the derivative of a square?",
        )
        require(
            not np.isclose(value, right * 2**0.5),
            "this is the norm of the difference of the two gradients. How long is the part of "
            "(g_1, g_2) that the exchange turns around?",
        )
        require(
            not np.isclose(value, right / 2**0.5),
            "half the difference belongs to each unit: count both of them in the norm.",
        )
        require(
            not np.isclose(value, 2 * gamma * np.linalg.norm(np.tile(kinds, 2) * theta)),
            "this is the whole gradient of the decay. The exchange leaves a part of it alone.",
        )
        require(
            np.isclose(value, right),
            f"it is {value:.4f} where it should be {right:.4f}, for kinds {kinds}. Write P, "
            "which takes (1, -1) to itself and (1, 1) to zero.",
        )


def q2_factor(answers, random):
    factor = answers.number("factor")
    require(
        abs(factor - 3**0.5) > 0.01,
        "this is the quotient of the roots of the mean squares. Means of a norm are not those.",
    )
    require(factor != 3, "the squares have this quotient. The push is a norm.")
    require(abs(factor - 0.5) > 0.01, "the larger push is to be divided by the smaller one.")
    require(
        abs(factor - 2) < 0.01,
        f"it is {factor:g}. With how many degrees of freedom do the two norms have chi laws, and "
        "what are the means of these?",
    )


def q2_measured(answers, random):
    pushes = answers.array("mean_push", (2,))
    right = np.sqrt([8 / np.pi, 2 / np.pi])  # 2 gamma sigma_0 times the mean of chi_3 and chi_1

    def near(values):
        # The laws have standard deviations below 0.7: more than three errors of 1000 anchors.
        return (np.abs(pushes - values) < 0.08).all()

    require(not near(right[::-1]), "the push with an anchor everywhere comes first.")
    require(
        not near(right * 2**0.5),
        "both are too large by the square root of two: how long is the part of (g_1, g_2) that the "
        "exchange turns around?",
    )
    require(not near(np.sqrt([3, 1])), "these are roots of mean squares. Take the mean of norms.")
    require(
        not near(right / 2),
        "both are half as large as they should be. Is gamma 0.5, and the derivative 2 gamma?",
    )
    require(
        near(right),
        f"they are {pushes[0]:.2f} and {pushes[1]:.2f}. Is the gradient taken at the twins minus "
        "the anchor, with sigma_0 = 1?",
    )


def _long_enough(answers, name):
    anchor = answers.array(name, (6,))
    require(
        np.linalg.norm(anchor) >= 1 - 1e-9,
        f"it has the norm {np.linalg.norm(anchor):.2g}, and at least 1 is asked for.",
    )
    return anchor[:3], anchor[3:]


def q3_equal_anchor(answers, random):
    first, second = _long_enough(answers, "equal_anchor")
    require(
        not np.allclose(first, -second),
        "the second unit is minus the first. That is fixed by another symmetry; the exchange moves "
        "it.",
    )
    require(
        np.abs(first - second).max() < 1e-9,
        "the exchange moves this anchor, so that the twins are pushed apart.",
    )


def q3_kept(answers, random):
    kept = answers.value("kept")
    if not isinstance(kept, dict):
        raise Wrong("`kept` has to be a dictionary.")
    names = ("swap", "flip one", "flip both", "swap and flip")
    empty = [name for name in names if not isinstance(kept.get(name), bool)]
    require(not empty, f"neither True nor False is given for {', '.join(empty)}.")
    require(kept["swap"], "the exchange is kept: your anchor has equal units.")
    wrong = [name for name in names[1:] if kept[name]]
    require(
        not wrong,
        f"you say that {', '.join(wrong)} leaves the loss as it is. The decay stays only if the "
        "anchor does: where does the reflection take it?",
    )


def q3_half_anchor(answers, random):
    first, second = _long_enough(answers, "half_anchor")
    require(not np.allclose(first, second), "the units are equal: this does not part the twins.")
    require(
        np.abs(second).max() > 1e-9,
        "the second unit is zero: this keeps the sign flip of the second, and not of the first.",
    )
    require(
        np.abs(first).max() < 1e-9,
        "the sign flip moves this anchor. Which three numbers are equal to minus themselves?",
    )


def q4_limit(answers, random):
    b, start = random.normal(size=(2, 5))
    before = answers.called_number("limit_term", start, b)
    for _ in range(3):
        phi = random.normal(size=5)
        change = answers.called_number("limit_term", phi, b) - before
        right = -2 * b @ (phi - start)
        require(not np.isclose(change, -right), "the sign is wrong: the anchor attracts.")
        require(not np.isclose(change, right / 2), "the mixed term of a square has a factor.")
        square = phi @ phi - start @ start
        require(
            not np.isclose(change, square + right) and not np.isclose(change, square),
            "a square of phi is left. Which factor does |phi|^2 have, and where does it go?",
        )
        require(
            not np.isclose(change, 0),
            "the term does not depend on phi. Which part of the square does?",
        )
        require(
            np.isclose(change, right),
            f"between two points it changes by {change:.4f} where it should be {right:.4f}. "
            "Expand the square and insert theta_0 = b / gamma.",
        )


def q4_push(answers, random):
    for rank in (1, 2, 3):
        Q = np.linalg.qr(random.normal(size=(5, 5)))[0][:, :rank]
        P, b = Q @ Q.T, random.normal(size=5)
        value, right = answers.called_number("limit_push", P, b), 2 * np.linalg.norm(P @ b)
        require(not np.isclose(value, right / 2), "what is the gradient of the linear term?")
        require(
            not np.isclose(value, 2 * np.linalg.norm(b)),
            "this is the whole gradient. Only its part across the mirror pushes out.",
        )
        require(not np.isclose(value, right**2), "this is the square of the norm.")
        require(
            not np.isclose(value, 2 * np.linalg.norm(b - P @ b)),
            "this is the part along the mirror: P projects across it.",
        )
        require(
            np.isclose(value, right),
            f"it is {value:.4f} where it should be {right:.4f}, for P of rank {rank}.",
        )
