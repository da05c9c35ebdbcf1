"""Checks of exercise page 02: thresholds, coordinate ascent, a shifted prior, other divergences."""

import numpy as np

from symcourse.classroom.answers import require, require_none_of
from symlib.factorization import scalar_exact

PHI = (1 + 5**0.5) / 2
ORDER = ((1, "s_u"), (0, "m_u"), (3, "s_v"), (2, "m_v"))  # in which a sweep updates a state


def _same_state(found, right, words):
    """Require a state; say which of its numbers, in the order of the updates, is the first off."""
    for i, name in ORDER:
        require(np.isclose(found[i], right[i]), f"{words}: {name} is {found[i]:.4f}. {LINES[name]}")


LINES = {
    "s_u": "Look at its update, the first of the four.",
    "m_u": "s_u is right, so look at the update of m_u.",
    "s_v": "s_u and m_u are right. Does the update of s_v read them?",
    "m_v": "The three before it are right. Does the update of m_v read them?",
}


def _sweep(state, r, omega=1.0, delta=0.0):
    m_u, s_u, m_v, s_v = state
    s_u = (1 - omega) * s_u + omega / (1 + m_v**2 + s_v)
    m_u = (1 - omega) * m_u + omega * s_u * (r * m_v + delta)
    s_v = (1 - omega) * s_v + omega / (1 + m_u**2 + s_u)
    m_v = (1 - omega) * m_v + omega * s_v * (r * m_u + delta)
    return np.array([m_u, s_u, m_v, s_v])


def _at_once(state, r, omega):
    """The mistake of reading old values only."""
    m_u, s_u, m_v, s_v = state
    s = 1 / (1 + m_v**2 + s_v), 1 / (1 + m_u**2 + s_u)
    update = np.array([s_u * r * m_v, s[0], s_v * r * m_u, s[1]])
    return (1 - omega) * state + omega * update


def _random_state(random):
    m_u, m_v = random.uniform(0.5, 2, 2) * random.choice([-1, 1], 2)
    s_u, s_v = random.uniform(0.3, 0.9, 2)
    return np.array([m_u, s_u, m_v, s_v])


def q1_threshold(answers, random):
    for noise in (random.uniform(0.2, 0.7), random.uniform(1.5, 4)):
        r = answers.called_number("threshold", noise)
        root = np.sqrt(noise**2 + 4 * noise)
        scaled = "at noise variance 1 this is right, but a scaled golden ratio is not enough."
        require_none_of(
            r,
            (noise, "this is MAP's threshold."),
            (PHI, "the golden ratio belongs to noise variance 1."),
            (PHI * noise, scaled),
            (PHI * np.sqrt(noise), scaled),
            ((noise - root) / 2, "this is negative: a quadratic equation has two roots."),
            (
                (noise**2 + np.sqrt(noise**4 + 4 * noise**2)) / 2,
                "the argument is squared once too often: it is already the variance.",
            ),
        )
        right = (noise + root) / 2
        side = "more than zero a little below" if r > right else "zero a little above"
        require(
            np.isclose(r, right),
            f"at noise variance {noise:.2f} it is {r:.3f}, but mean field predicts {side} that. "
            "Which s belongs to zero means, and when does a small mean grow?",
        )


def q1_noise(answers, random):
    noise = answers.number("noise_for_one")
    require_none_of(
        noise,
        (1, "at noise variance 1 the threshold is the golden ratio."),
        (np.sqrt(0.5), "this is the standard deviation: the variance is asked for."),
        (1 / PHI, "the threshold is not proportional to the noise variance."),
    )
    require(np.isclose(noise, 0.5), f"you gave {noise:g}. Put r = 1 into the equation for r.")


def q1_power(answers, random):
    power = answers.number("power")
    require_none_of(
        power,
        (-0.5, "this is the power of the variance."),
        (1, "look at the sign: does the ratio grow or fall when the noise becomes small?"),
        (-2, "this would be right if the threshold itself did not depend on the noise."),
        (0, "this says that both thresholds vanish equally fast."),
    )
    require(
        np.isclose(power, -1),
        f"it is {power:g}. Which terms of the equation for the threshold matter at small noise?",
    )


def q2_ends(answers, random):
    ends = answers.array("ends", (3, 2))
    require(
        np.allclose(ends[0], 0),
        "the first row: from means that are exactly zero, what is the first update of a mean?",
    )
    product = ends[1:].prod(axis=1)
    require(
        product > 0,
        "a row of ends has two means of opposite signs; at r = 3 > 0 no run ends there.",
    )
    require(ends[2] < 0, "the third row: why should negative means change their signs?")
    require(ends[1] < 0, "the second row: which starting mean does the first line read?")
    require(
        not np.allclose(product, 2),
        "the product of the means is that of the highest point, r - 1: MAP's answer.",
    )
    m = np.sqrt(3 - 1 - 1 / 3)
    require(  # a run that is stopped at a change of 1e-4 still passes
        np.allclose(np.abs(ends[1:]), m, atol=1e-3),
        f"the last row is {np.round(ends[2], 3)}: is the run long enough, and is r = 3?",
    )


def q2_damped(answers, random):
    for _ in range(2):
        state, r, omega = _random_state(random), random.uniform(1, 4), random.uniform(0.2, 0.4)
        found = answers.called_array("damped_sweep", (4,), state, r, omega)
        full = _sweep(state, r)
        require_none_of(
            found,
            (state, "the state comes back as it went in."),
            (full, "this is the undamped sweep: omega is not used."),
            (_sweep(state, r, 1 - omega), "omega and 1 - omega have changed places."),
            (
                (1 - omega) * state + omega * full,
                "this averages the old state and a whole undamped sweep. Each single update should "
                "be damped, before the next one reads it.",
            ),
            (
                _sweep(state, r, omega)[[0, 2, 1, 3]],
                "the order: a state is (m_u, s_u, m_v, s_v).",
            ),
            (
                _at_once(state, r, omega),
                "all updates read the old state. Each should read what those before it wrote.",
            ),
        )
        right = _sweep(state, r, omega)
        _same_state(found, right, f"from {np.round(state, 2)}, r = {r:.2f}, omega = {omega:.2f}")


def _count(r, omega):
    state = np.ones(4)
    for count in range(1, 10_000):
        new = _sweep(state, r, omega)
        if np.abs(new - state).max() <= 1e-10:
            return count
        state = new


def q2_count(answers, random):
    r = random.uniform(2.2, 3.5)
    cases = {
        (r, 1.0): "Is the bound 1e-10, for the largest change, and do all four start at 1?",
        (r, 0.5): "Is the bound 1e-10?",
        (r, 0.2): "Do you go on long enough?",
        # Here the variances are the last to come to rest, above the means.
        (0.3, 1.0): "Does the bound hold for all four numbers?",
    }
    found = {case: answers.called_number("sweeps_needed", *case) for case in cases}
    undamped, damped = found[r, 1.0], found[r, 0.5]
    require(undamped != damped, "the same count with and without damping: is omega used?")
    require(undamped < damped, "a damped run makes smaller steps: can it be the faster one?")
    for case, count in found.items():
        # One more or less is a matter of counting the last sweep.
        right = _count(*case)
        require(
            abs(count - right) <= 1 or _damped_sweep_is_right(answers),
            "it counts the sweeps of `damped_sweep`, which is not right yet. Mend that first.",
        )
        little = f"at r = {case[0]:.2f}, omega = {case[1]} it is {count:g}, too"
        require(count >= right - 1, f"{little} few. {cases[case]}")
        require(
            count <= right + 1,
            f"{little} many. Do all four numbers start at 1, and is the largest change of one "
            "sweep compared with the bound?",
        )


def _damped_sweep_is_right(answers):
    state = np.array([1.0, 0.6, -0.5, 0.8])
    found = answers.called_array("damped_sweep", (4,), state, 2.5, 0.3)
    return np.allclose(found, _sweep(state, 2.5, 0.3), atol=1e-4)


def q2_factor(answers, random):
    for r in random.uniform(0.5, 1.5, 2):
        factor = answers.called_number("mean_factor", r)
        require_none_of(
            factor,
            (r / PHI, "this is one update of a mean. How many are in a sweep?"),
            (r**2, "the variances are missing: they multiply the mean in each update."),
            ((PHI / r) ** 2, "upside down: should a mean grow or shrink below the threshold?"),
        )
        require(
            np.isclose(factor, (r / PHI) ** 2),
            f"at r = {r:.2f} it is {factor:.3f}. Follow m_v through m_u and back to m_v.",
        )


def q3_sweep(answers, random):
    for _ in range(2):
        state, r = _random_state(random), random.uniform(1, 4)
        delta = random.uniform(0.3, 1)
        found = answers.called_array("shifted_sweep", (4,), state, r, delta)
        right, plain = _sweep(state, r, delta=delta), _sweep(state, r)
        m_u = plain[0] + delta
        s_v = 1 / (1 + m_u**2 + plain[1])
        require_none_of(
            found,
            (state, "the state comes back as it went in."),
            (plain, "delta is not used: this is the sweep for prior mean zero."),
            (_sweep(state, r, delta=-delta), "the sign of delta: it should pull the means to it."),
            (
                [m_u, plain[1], s_v * r * m_u + delta, s_v],
                "delta is added to the mean. In the exponent it stands beside r m_v: what "
                "multiplies both?",
            ),
        )
        _same_state(found, right, f"from {np.round(state, 2)}, r = {r:.2f}, delta = {delta:.2f}")


def q3_split(answers, random):
    split = answers.number("split")
    require(
        not 1.6 <= split <= 1.65,
        "this is the threshold of the symmetric model. Compare the two ends at delta = 0.1.",
    )
    require(split > 0, "up to this r both runs should end at the same place.")
    require(split > 1.98, f"it is {split:g}: too early. Have both runs come to rest?")
    require(
        split < 2.0,
        f"it is {split:g}: too late. Does the other run start at (-2, -2)? From small negative "
        "means delta pulls it to the other side.",
    )


def _shifted(delta):
    """Return what mean field and Bayes predict at r = 1.5, for this prior mean."""
    state = np.array([2, 0.5, 2, 0.5])
    for _ in range(300):
        state = _sweep(state, 1.5, delta=delta)
    u = np.linspace(-7, 7, 141)
    product, prior = np.outer(u, u), (u - delta) ** 2
    weight = np.exp(-((1.5 - product) ** 2 + prior + prior[:, None]) / 2)
    return state[0] * state[2], (product * weight).sum() / weight.sum()


def q3_share(answers, random):
    share = answers.number("share")
    mean_field, bayes = _shifted(0.1)
    require(share != 0, "at delta = 0 it would be zero. Did the run use delta?")
    require(
        abs(share * mean_field / bayes - 1) > 0.01,
        "upside down: mean field should stand in the numerator.",
    )
    require(
        abs(share - mean_field) > 0.005, "this is mean field's prediction itself, not yet divided."
    )
    symmetric = mean_field / float(scalar_exact(1.5).predictive_mean)
    require(
        abs(share - symmetric) > 0.0005,
        "the exact answer is that of the symmetric model: its prior has to move as well.",
    )
    require(  # two digits are enough
        abs(share - mean_field / bayes) < 0.0051,
        f"it is {share:.3f}. Compare both predictions at r = 1.5 with your curves.",
    )


def q4_reversed(answers, random):
    found = answers.number("reversed_prediction")
    bayes = float(scalar_exact(4.0).predictive_mean)
    require(
        abs(found - bayes) > 0.02,
        "this is Bayes' answer. q is independent: it multiplies the mean of u and the mean of v.",
    )
    require(
        abs(found - (4 - 1 - 1 / 4)) > 0.01,
        "this is mean field's answer, of the other divergence.",
    )
    require(
        abs(found) < 1e-6,
        f"it is {found:g}. Write the divergence as a sum: which density is the best q_u?",
    )


def q4_own(answers, random):
    # MAP predicts zero at 0.8, and a constant that suits larger r is far off at 0.1.
    for r in (0.1, 0.8, *random.uniform(0.5, 1.5, 2)):
        own = answers.called_number("own_prediction", r)
        bayes = float(scalar_exact(r).predictive_mean)
        require(abs(own) > 1e-6, f"at r = {r:.2f} it predicts zero, as mean field does.")
        require(own > 0, f"at r = {r:.2f} it predicts {own:.3f}: the sign is wrong.")
        require(
            abs(own - bayes) > 1e-5 * bayes,
            "this is the exact answer. An approximation is asked for, one that costs less.",
        )
        require(own < r, f"at r = {r:.2f} it predicts {own:.3f}: no shrinkage, but Bayes shrinks.")
        require(
            abs(own - bayes) < 0.9 * bayes,
            f"at r = {r:.2f} it predicts {own:.3f}. Bayes predicts {bayes:.3f}: mean field's zero "
            "is hardly worse.",
        )
    first, last = (answers.called_number("own_prediction", r) / r for r in (0.2, 1.4))
    require(
        abs(first - last) > 1e-6 or first == 0,
        "this is a fixed share of r. From which divergence or family does the share come?",
    )
