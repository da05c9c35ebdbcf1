"""Checks of exercise page 09: a gap by hand, mixing without stretching, a flow, blocks."""

from statistics import NormalDist

import numpy as np

from symcourse.classroom.answers import require, require_right_or_unknown

MEAN, VARIANCES = np.array([0.5, -0.3]), np.array([0.25, 0.5])  # of the posterior in question 3


def q1_gap(answers, random):
    gap, tolerance = answers.number("gap"), 0.005  # two digits are enough
    require_right_or_unknown(
        gap,
        np.log(1.8) / 2,
        tolerance,
        (np.log(1.8), "this is twice the gap: the formula has a factor in front."),
        (np.log2(1.8) / 2, "this counts in bits. Nats need the natural logarithm."),
        (np.log10(1.8) / 2, "this is the logarithm with base 10. Nats need the natural one."),
        (np.log(25 / 9) / 2, "this is right for K = A^T A. What does the prior add?"),
        (np.log(9 / 8) / 2, "this is right for K = I + A. The columns enter with their products."),
        (np.log(20) / 2, "this is half of log |K| alone. Which term is before it?"),
        (np.log(36) / 2, "this is half the sum of log K_ii. What is subtracted?"),
        (0.9, "this is half the ratio itself. What about its logarithm?"),
    )
    require(gap > 0, "it is negative, but the best diagonal posterior cannot win. What lacks what?")
    require(
        abs(gap - np.log(1.8) / 2) < tolerance,
        f"it is {gap:.4f}. Write K with its four entries, then the formula of the gap.",
    )


def q1_turn(answers, random):
    turn = answers.number("turn")
    require_right_or_unknown(
        turn,
        45,
        0.1,
        (np.pi / 4, "this looks like radians: degrees are asked for."),
        (0, "at 0 the gap is that of the first part. Is K diagonal?"),
        (90, "a turn by 90 degrees exchanges the latents, up to a sign, and K keeps K_12."),
        (np.degrees(np.arctan(2)), "this is the direction of a column. Which vectors does K keep?"),
        (np.degrees(np.arctan(0.5)), "this is a column's direction. Which vectors does K keep?"),
    )
    require(
        abs(turn % 90 - 45) < 0.1,
        f"it is {turn:g}. Along which two directions is K only stretched?",
    )


def q1_distance(answers, random):
    distance, tolerance = answers.number("distance"), 0.1
    double = np.degrees(np.arctan(3 / 8))
    right = double / 2
    require_right_or_unknown(
        distance,
        right,
        tolerance,
        (double, "this is 2 phi."),
        (np.radians(right), "this looks like radians: degrees are asked for."),
        (90 - right, "this is the angle to the other of the two axes. Which one is nearer?"),
        (
            np.degrees(np.arctan(6 * 3**0.5 / 2 / 8)) / 2,
            "this is right for a sine. Which of the two belongs to a product of two columns?",
        ),
        (np.degrees(np.arctan(3 / 10)) / 2, "the squared lengths are subtracted, not added."),
        (np.degrees(np.arctan(3 / 2)) / 2, "subtract the squares of the lengths."),
        (np.degrees(np.arctan(3 / 16)) / 2, "a factor 2 is missing in tan 2 phi."),
        (30, "the axes do not halve the angle of the columns: these have different lengths."),
        (60, "this is the angle of the columns in the data, and phi is one of the latents."),
    )
    require(
        abs(distance - right) < tolerance,
        f"it is {distance:.2f}. Write W^T W: in which direction is its first eigenvector?",
    )


def q1_largest(answers, random):
    largest, right, tolerance = answers.number("largest"), np.degrees(np.arctan(1 / 3)), 0.1
    require_right_or_unknown(
        largest,
        right,
        tolerance,
        (2 * right, "this is 2 phi."),
        (np.radians(right), "this looks like radians: degrees are asked for."),
        (90 - right, "is b / a or a / b the tangent?"),
        (45, "45 degrees need columns of the same length."),
        (np.degrees(np.arctan(3 / 8)) / 2, "this is the answer for 60 degrees. Vary the angle."),
        (0, "this is the least of them, for orthogonal columns."),
    )
    require(
        abs(largest - right) < tolerance,
        f"it is {largest:.2f}. For which angle of the columns is cos largest in size?",
    )


NORMAL = NormalDist()


def _each(function, z):
    return np.array([function(float(entry)) for entry in z])


def _turned(u, degrees=30.0):
    """Return what becomes of two uniform numbers."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return _each(NORMAL.cdf, np.array([[c, -s], [s, c]]) @ _each(NORMAL.inv_cdf, u))


def _laplace(z):
    return np.where(z < 0, np.exp(-np.abs(z)) / 2, 1 - np.exp(-np.abs(z)) / 2)


def _from_laplace(u):
    return -np.sign(u - 0.5) * np.log(1 - 2 * np.abs(u - 0.5))


def q2_uniform(answers, random):
    for _ in range(3):
        z = random.uniform(0.55, 0.95, 2)
        z[int(random.integers(2))] = random.uniform(0.05, 0.45)
        found = answers.called_array("mix", (2,), z)
        normal = _each(NORMAL.inv_cdf, z)
        turned = _each(NORMAL.inv_cdf, _turned(z))
        require_right_or_unknown(
            found,
            _turned(z),
            1e-6,
            (z, "nothing has changed."),
            (_turned(z, -30.0), "this turns the other way: U z is a matrix times a vector."),
            (_turned(z, np.pi / 6), "`rotation` takes degrees."),
            (turned, "these are still normal numbers. How do they get back into (0, 1)?"),
            (normal, "these are the normal numbers, before they are turned."),
        )
        require((0 < found) & (found < 1), f"{np.round(found, 3)} is not between 0 and 1.")
        require(
            np.allclose(found, _turned(z), atol=1e-6),
            f"{np.round(z, 3)} goes to {np.round(found, 3)}. From uniform to normal, a turn, and "
            "back: which function does each step?",
        )


def q2_laplace(answers, random):
    for _ in range(3):
        z = random.uniform(0.2, 2, 2) * random.permutation([1, -1])
        found = answers.called_array("mix_laplace", (2,), z)
        uniform = _turned(_laplace(z))
        right = _from_laplace(uniform)
        turned = np.array([[3**0.5, -1], [1, 3**0.5]]) @ z / 2
        require_right_or_unknown(
            found,
            right,
            1e-6,
            (z, "nothing has changed."),
            (uniform, "these are uniform numbers. The inverse of F is still to come."),
            (turned, "this turns z itself, and a turned Laplace law is no Laplace law."),
            (-np.log(1 - uniform), "this is the inverse for exponential latents."),
            (right[::-1], "the two entries have changed places."),
            (_from_laplace(_turned(_laplace(z), -30.0)), "this turns the other way."),
            (_from_laplace(_turned(_laplace(z), np.pi / 6)), "`rotation` takes degrees."),
        )
        require(
            not np.allclose(np.abs(found), np.abs(right), atol=1e-6)
            or np.allclose(found, right, atol=1e-6),
            "a sign is wrong. Is the right case of F taken for z < 0, and of its inverse for "
            "u < 1/2?",
        )
        require(
            np.allclose(found, right, atol=1e-6),
            f"{np.round(z, 3)} goes to {np.round(found, 3)}. Take F, then `mix`, then the inverse "
            "of F.",
        )


def q2_stretch(answers, random):
    for _ in range(3):
        z = random.uniform(0.2, 2, 2) * random.permutation([1, -1])
        moved = z * random.uniform(1.3, 1.8, 2)
        found = answers.called_number("stretch", z, moved)
        log = np.sum(np.abs(moved)) - np.sum(np.abs(z))
        require_right_or_unknown(
            found,
            np.exp(log),
            1e-6,
            (np.exp(-log), "this is the inverse. Is an area stretched where the density falls?"),
            (log, "this is the logarithm."),
            (-log, "this is the logarithm of the inverse."),
            (
                1,
                "this says that areas are kept. Does the Laplace density have the same value "
                "everywhere?",
            ),
            (np.exp((moved @ moved - z @ z) / 2), "this is right for Gaussian latents."),
            (np.exp(np.sum(moved) - np.sum(z)), "this is right for positive entries only."),
            (np.exp(log / 2), "do the factors 1/2 of the densities not cancel?"),
        )
        require(
            np.isclose(found, np.exp(log)),
            f"it is {found:.4f} where it should be {np.exp(log):.4f}. The prior is kept: how does "
            "its density change from z to r(z)?",
        )


def q3_power(answers, random):
    power = answers.number("power_limit")
    require_right_or_unknown(
        power,
        1,
        1e-3,
        (1 / 3, "this is enough in the direction of z_1. What about z_2?"),
        (0.5, "is there c in the exponent of q only? p is divided by more than once."),
        (0, "p in the denominator grows far out. Which power of q beats it?"),
        (2, "a smaller power does, too. Where does the square of z_2 cancel?"),
    )
    require(
        abs(power - 1) < 1e-3,
        f"it is {power:g}. Write the exponent of f^c / p: for which c do both squares of z have "
        "negative factors?",
    )


def _slope_of_log_ratio(z):
    return z - (z - MEAN) / VARIANCES


# Where the ratio q / p is largest. The flow stands still there, so points keep away from it.
TOP = MEAN / (1 - VARIANCES)


def _points(random, count):
    angles = random.uniform(0, 2 * np.pi, count)
    radii = random.uniform(0.4, 0.9, count)
    return TOP + (radii * np.stack([np.cos(angles), np.sin(angles)])).T


def _velocity(answers, z):
    return answers.called_array("velocity", (2,), z)


def q3_prior(answers, random):
    step = 1e-3  # central differences: their error is of the order of its square
    for z in _points(random, 2):
        v = _velocity(answers, z)
        speed = np.linalg.norm(v)
        require(speed > 0, "the velocity is zero. So nothing mixes.")
        divergence = 0.0
        for axis in step * np.eye(2):
            change = _velocity(answers, z + axis) - _velocity(answers, z - axis)
            divergence += change @ axis / (2 * step**2)
        lift = -v @ z  # v times the slope of log p
        small = 1e-3 * speed  # the slopes that should cancel are of the size of the speed
        require(
            not abs(divergence) < small or abs(lift) < small,
            "div v = 0, so this flow keeps areas. Which density should be kept?",
        )
        require(
            not abs(divergence - lift) < small or abs(lift) < small,
            "p stands on the wrong side: solve p v = (-d_2 H, d_1 H) for v.",
        )
        require(
            abs(divergence + lift) < small,
            f"div(p v) / p is {divergence + lift:.3f} at {np.round(z, 2)}, and it should be 0. Has "
            "p v the form (-d_2 H, d_1 H)?",
        )


def q3_posterior(answers, random):
    for z in _points(random, 4):
        v = _velocity(answers, z)
        speed = np.linalg.norm(v)
        require(speed > 0, "the velocity is zero. So nothing mixes.")
        slope = _slope_of_log_ratio(z)
        small = 1e-4 * speed
        require(
            not abs(v @ z) < small,
            "this flow moves along circles, the level lines of p. So it keeps p, and not q.",
        )
        require(
            not abs(v @ ((z - MEAN) / VARIANCES)) < small,
            "this flow moves along the level lines of q. Which lines keep p and q together?",
        )
        across = v @ slope / np.linalg.norm(slope) / speed
        require(
            abs(across) < 0.999,
            "the flow runs straight across the level lines of q / p. Which entry of the slope "
            "belongs where?",
        )
        require(
            abs(across) < 1e-3,
            f"at {np.round(z, 2)} the flow leaves the level line of q / p: the cosine of its angle "
            f"with the slope is {across:.3f}.",
        )


def q3_tame(answers, random):
    # Enough points that the largest speed hardly depends on the seed.
    near = max(np.linalg.norm(_velocity(answers, z)) for z in _points(random, 12))
    require(near > 0, "the velocity is zero. So nothing mixes.")
    far = max(
        np.linalg.norm(_velocity(answers, 25 * np.array(direction)))
        for direction in ((1, 0.1), (-1, 0.1), (0.1, 1), (0.1, -1))
    )
    require(
        far < near,
        f"far out the speed is {far:.1g}, larger than in the middle, {near:.1g}. Which power of f "
        "stays below p?",
    )
    require(
        near > 0.05,
        f"the speed is at most {near:.2g}: this hardly mixes. Take a larger constant.",
    )
    require(
        near < 14,
        f"the speed is {near:.2g}: 200 steps are too few for it. Take a smaller constant.",
    )


def q4_counts(answers, random):
    counts = answers.array("counts", (2, 2))
    require((0 <= counts) & (counts <= 3), "three latents have three directions in all.")
    (neither, blocks), (equal, both) = counts
    require(
        neither == 0,
        "all eigenvalues different, diagonal family: does a small turn of two coordinates leave "
        "the gap at zero?",
    )
    require(blocks == 1, "all eigenvalues different, with a pair: which turn stays in a block?")
    require(equal == 1, "(2, 2, 5), diagonal family: which turn leaves K as it is?")
    require(both != 2, "(2, 2, 5) with the pair: are these really two different directions?")
    require(both == 1, "(2, 2, 5) with the pair: look at the three turns one by one.")


def _count(eigenvalues, blocks, free):
    block = {i: n for n, members in enumerate(blocks) for i in members}
    size = len(eigenvalues)
    return sum(
        free(block[i] == block[j], eigenvalues[i] == eigenvalues[j])
        for i in range(size)
        for j in range(i)
    )


def _right_for_three(answers):
    """Return whether the rule agrees with the four cases of `counts`."""
    cases = [([2.0, 3.0, 5.0], 0, 1), ([2.0, 2.0, 5.0], 1, 1)]
    return all(
        answers.called_number("free_directions", eigenvalues, blocks) == right
        for eigenvalues, *counts in cases
        for blocks, right in zip(([[0], [1], [2]], [[0, 1], [2]]), counts, strict=True)
    )


def q4_rule(answers, random):
    few = _right_for_three(answers)
    for _ in range(4):
        size = int(random.integers(8, 10))
        order = random.permutation(size).tolist()
        # With these sizes no two of the rules below count the same.
        blocks = [order[:3], order[3:5], order[5:]]
        eigenvalues = random.uniform(1.5, 9, size).tolist()
        for i in (1, 3, 5):  # of these and order[0] one pair lies within a block
            eigenvalues[order[i]] = eigenvalues[order[0]]
        found = answers.called_number("free_directions", eigenvalues, blocks)
        block = _count(eigenvalues, blocks, lambda block, value: block)
        value = _count(eigenvalues, blocks, lambda block, value: value)
        both = _count(eigenvalues, blocks, lambda block, value: block and value)
        right = block + value - both
        require(
            not few or found == right,
            f"it is right for three latents. For {size} in blocks of {[len(b) for b in blocks]}, "
            f"four of them with equal eigenvalues, it is {found:g} and should be {right}. Does it "
            "look at all pairs?",
        )
        require_right_or_unknown(
            found,
            right,
            0,
            (block, "equal eigenvalues in different blocks are not counted."),
            (value, "turns within a block are not counted."),
            (block + value, "a pair that shares a block and an eigenvalue counts once."),
            (both, "it is enough for a pair to share one of the two."),
            (block + 3, "how many pairs do four equal eigenvalues make?"),
            (2 * right, "each pair is counted twice."),
            (2 * right + size, "each pair is counted twice, and each coordinate with itself."),
            (right + size, "a coordinate with itself is no pair."),
            (size * (size - 1) / 2 - right, "this counts the directions that are not free."),
        )
        require(
            found == right,
            f"for {size} latents in blocks of {[len(b) for b in blocks]}, with four equal "
            f"eigenvalues, it is {found:g} where it should be {right}. For which pairs i, j does a "
            "small turn leave the gap at zero?",
        )
