"""Checks of exercise page 01: orbits, the sign flip of one unit, a table of symmetries."""

import numpy as np

from symcourse.classroom.answers import Wrong, require


def q1_stabiliser(answers, random):
    size = answers.number("stabiliser_size")
    require(size != 6, "6 counts the orders of the ones. The two twos can change places, too.")
    require(size != 2, "2 counts the orders of the twos. The three ones can change places, too.")
    require(size != 10, "10 is the size of the orbit. Have the two changed places?")
    require(
        size not in (5, 8),
        f"it is {size:g}: the orders of the ones and those of the twos combine freely. "
        "Multiply the two numbers of orders.",
    )
    require(size == 12, f"it is {size:g}. In how many ways can equal entries change places?")


def q1_orbit(answers, random):
    size = answers.number("orbit_size")
    require(size != 120, "120 permutations act, but many of them lead to the same point.")
    require(size != 12, "12 elements leave z where it is. Have the two changed places?")
    require(
        size == 10,
        f"it is {size:g}. The size of the orbit times that of the stabiliser is 5!, the size of "
        "the group.",
    )


def q1_arrangements(answers, random):
    count = answers.number("arrangements")
    require(
        count != 720, "720 = 6! treats the twins as different. What does their exchange change?"
    )
    require(count == 360, f"it is {count:g}. It is again an orbit: how large is the stabiliser?")


def q2_flip(answers, random):
    for _ in range(3):
        theta = random.normal(size=6)
        moved = answers.called_array("flip_second", (6,), theta)
        own = np.asarray(answers.value("theta")) * [1, 1, 1, -1, -1, -1]
        require(not np.allclose(moved, own), "this flips the notebook's `theta`, not its argument.")
        first_stays = np.allclose(moved[:3], theta[:3])
        signs = [np.isclose(moved[3:], sign * theta[3:]) for sign in (1, -1)]
        require(not (first_stays and signs[0].all()), "the vector comes back as it went in.")
        require(first_stays, "the first three entries belong to the first unit: they have to stay.")
        w, b, a = signs[1]
        require(
            not (w and a and not b),
            "the bias b of the second unit keeps its sign, so that its tanh does not change sign.",
        )
        require(
            not (a and not w and not b),
            "only the outgoing weight a changes sign: then the output of the network changes. What "
            "has to change inside the tanh?",
        )
        require(w and b and a, "all three numbers of the second unit have to change sign.")


def q2_rank(answers, random):
    rank = answers.number("rank")
    require(rank != 6, "6 is the number of parameters. P projects on the part that changes sign.")
    require(rank != 1, "one unit is flipped, but that is not one parameter.")
    require(rank == 3, f"it is {rank:g}. How many coordinates change sign?")


def q2_symmetric_point(answers, random):
    theta, point = answers.array("theta", (6,)), answers.array("theta0", (6,))
    require(not np.allclose(point, theta), "theta0 is theta itself, which the flip moves.")
    require(
        not np.allclose(point, 0),
        "zero is a symmetric point, but a nearer one keeps the first unit.",
    )
    require(np.allclose(point[3:], 0), "the flip of the second unit moves this point.")
    require(
        np.allclose(point[:3], theta[:3]),
        "the flip leaves this point where it is, but a nearer one exists: change as little of "
        "theta as you can.",
    )


ACTIVATIONS = ("tanh", "relu", "softplus", "sine", "cube")


def _column(answers, move, expected, hints):
    """Check one column of the table: the activations for which a move changes nothing."""
    table = answers.value("table")
    if not isinstance(table, dict):
        raise Wrong("`table` has to be a dictionary: a row for each activation.")
    missing = [name for name in ACTIVATIONS if not isinstance(table.get(name), dict)]
    require(not missing, f"`table` has no row for {', '.join(missing)}.")
    empty = [name for name in ACTIVATIONS if not isinstance(table[name].get(move), bool)]
    require(not empty, f"neither True nor False is given for {', '.join(empty)}.")
    found = {name for name in ACTIVATIONS if table[name][move]}
    for name in ACTIVATIONS:
        if (name in found) != (name in expected):
            said = "stays" if name in found else "changes"
            raise Wrong(f"the table says that the {name} network {said}. {hints[name]}")


def q3_sign(answers, random):
    odd = "Is this function odd, f(-t) = -f(t)?"
    _column(answers, "sign", {"tanh", "sine", "cube"}, dict.fromkeys(ACTIVATIONS, odd))


def q3_order(answers, random):
    hint = "The output is a sum over the units: does the order of a sum matter?"
    _column(answers, "order", set(ACTIVATIONS), dict.fromkeys(ACTIVATIONS, hint))


def q3_scale(answers, random):
    hints = dict.fromkeys(ACTIVATIONS, "Is f(s t) = s f(t) for every s > 0?")
    hints["cube"] = "(s t)^3 = s^3 t^3, while a is divided by s only."
    _column(answers, "scale", {"relu"}, hints)


def q3_forgotten(answers, random):
    for _ in range(3):
        unit = random.normal(size=3)
        moved = answers.called_array("forgot", (3,), unit)
        ratio = moved / unit
        require((ratio != 0).all(), "a number has become zero. Forgotten, it stays as it is.")
        require((ratio > 0).all(), "a number has changed its sign: s is positive.")
        stays = np.isclose(ratio, 1)
        require(not stays.all(), "nothing has changed: scale two of the three numbers.")
        w, b, a = ratio
        require(
            not (np.isclose(w, b) and np.isclose(w * a, 1)),
            "this is the whole scaling (s w, s b, a / s): the ReLU network does not notice it.",
        )
        require(stays.sum() == 1, "exactly one of the three numbers should be forgotten.")
        kept = int(np.argmax(stays))
        good = (np.isclose(b * a, 1), np.isclose(w * a, 1), np.isclose(w, b))[kept]
        require(good, "the two other numbers have to move as in the scaling (s w, s b, a / s).")
