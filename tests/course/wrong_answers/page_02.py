"""Known wrong answers of exercise page 02, each with words of the hint that it should get."""


def threshold(formula):
    return f"def threshold(t):\n    return {formula}"


def damped(s_u, m_u, s_v, m_v):
    return f"""
def damped_sweep(state, r, omega):
    a, b, c, d = m_u, s_u, m_v, s_v = state
    s_u = {s_u}
    m_u = {m_u}
    s_v = {s_v}
    m_v = {m_v}
    return np.array([m_u, s_u, m_v, s_v])
"""


def count(
    enough="np.abs(new - state).max() <= 1e-10", start="np.ones(4)", omega="omega", most=9999
):
    return f"""{damped(*RIGHT)}
def sweeps_needed(r, omega):
    state, omega = {start}, {omega}
    for count in range(1, {most}):
        new = damped_sweep(state, r, omega)
        if {enough}:
            break
        state = new
    return count
"""


def shifted(m_u, m_v, s_v="1 / (1 + m_u**2 + s_u)"):
    return f"""
def shifted_sweep(state, r, delta):
    m_u, s_u, m_v, s_v = state
    s_u = 1 / (1 + m_v**2 + s_v)
    m_u = {m_u}
    s_v = {s_v}
    m_v = {m_v}
    return m_u, s_u, m_v, s_v
"""


def factor(formula):
    return f"def mean_factor(r):\n    phi = (1 + 5**0.5) / 2\n    return {formula}"


def own(formula):
    return f"def own_prediction(r):\n    return {formula}"


RIGHT = (
    "(1 - omega) * b + omega / (1 + m_v**2 + s_v)",
    "(1 - omega) * a + omega * s_u * r * m_v",
    "(1 - omega) * d + omega / (1 + m_u**2 + s_u)",
    "(1 - omega) * c + omega * s_v * r * m_u",
)

WRONG = {
    "q1_threshold": [
        (threshold("t"), "MAP's threshold"),
        (threshold("(1 + 5**0.5) / 2"), "belongs to noise variance 1"),
        (threshold("t * (1 + 5**0.5) / 2"), "scaled golden ratio is not"),
        (threshold("(t - (t**2 + 4 * t) ** 0.5) / 2"), "has two roots"),
        (threshold("(t**2 + (t**4 + 4 * t**2) ** 0.5) / 2"), "squared once too often"),
        (threshold("(1 + (1 + 4 * t) ** 0.5) / 2"), "when does a small mean grow"),
        ("def threshold(t):\n    t", "is a `return` missing"),
        (threshold("float('nan')"), "is nan"),
    ],
    "q1_noise": [
        ("noise_for_one = 1", "the threshold is the golden ratio"),
        ("noise_for_one = 0.5**0.5", "this is the standard deviation"),
        ("noise_for_one = 0.618033988749895", "not proportional"),
        ("noise_for_one = 2", "Put r = 1"),
    ],
    "q1_power": [
        ("power = -1/2", "the power of the variance"),
        ("power = 1", "look at the sign"),
        ("power = -2", "did not depend on the noise"),
        ("power = 0", "vanish equally fast"),
        ("power = 2", "Which terms of the equation"),
    ],
    "q2_ends": [
        ("ends = 1.29099 * np.array([[1, 1], [-1, -1], [-1, -1]])", "exactly zero"),
        ("ends = 1.29099 * np.array([[0, 0], [1, -1], [-1, -1]])", "opposite signs"),
        ("ends = 1.29099 * np.array([[0, 0], [-1, -1], [1, 1]])", "change their signs"),
        ("ends = 1.29099 * np.array([[0, 0], [1, 1], [-1, -1]])", "the second row"),
        ("ends = 2**0.5 * np.array([[0, 0], [-1, -1], [-1, -1]])", "MAP's answer"),
        ("ends = 1.25 * np.array([[0, 0], [-1, -1], [-1, -1]])", "is the run long enough"),
        ("ends = 1.29099 * np.array([[0, -1, -1], [0, -1, -1]])", "has to have shape (3, 2)"),
    ],
    "q2_damped": [
        ("def damped_sweep(state, r, omega):\n    return state", "comes back"),
        ("def damped_sweep(state, r, omega):\n    return sweep(state, r)", "omega is not used"),
        (
            "def damped_sweep(state, r, omega):\n"
            "    return (1 - omega) * state + omega * sweep(state, r)",
            "a whole undamped sweep",
        ),
        (
            damped(*(line.replace("omega", "(1 - omega)") for line in RIGHT)),
            "have changed places",
        ),
        (
            damped(
                RIGHT[0],
                RIGHT[1].replace("s_u", "b"),
                RIGHT[2].replace("m_u", "a").replace("s_u", "b"),
                RIGHT[3].replace("s_v", "d").replace("m_u", "a"),
            ),
            "all updates read the old state",
        ),
        (damped("1 / (1 + m_v**2 + s_v)", *RIGHT[1:]), "the first of the four"),
        (damped(*RIGHT).replace("[m_u, s_u, m_v, s_v]", "[m_u, m_v, s_u, s_v]"), "the order"),
        (damped(RIGHT[0], "s_u * r * m_v", *RIGHT[2:]), "look at the update of m_u"),
        (damped(*RIGHT[:2], RIGHT[2].replace("m_u**2", "m_v**2"), RIGHT[3]), "update of s_v read"),
        (damped(*RIGHT[:3], RIGHT[3].replace("r", "1")), "update of m_v read"),
    ],
    "q2_count": [
        (count(omega="1.0"), "is omega used"),
        (count(omega="1.5 - omega"), "be the faster one"),
        (count("np.abs(new - state).max() <= 1e-5"), "Is the bound 1e-10, for"),
        (count(most=150), "go on long enough"),
        (count("np.abs(new - state)[[0, 2]].max() <= 1e-10"), "hold for all four numbers"),
        (count("np.abs(new - state).sum() <= 1e-11"), "the largest change of one sweep"),
        (count(start="np.array([1e-6, 1, 1e-6, 1])"), "Do all four numbers start at 1"),
        (
            count() + "\ndef damped_sweep(state, r, omega):\n"
            "    return (1 - omega) * state + omega * sweep(state, r)",
            "Mend that first",
        ),
        ("def sweeps_needed(r, omega):\n    return np.arange(3)", "has to be one number"),
    ],
    "q2_factor": [
        (factor("r / phi"), "How many are in a sweep"),
        (factor("r**2"), "the variances are missing"),
        (factor("(phi / r) ** 2"), "upside down"),
        (factor("(r * phi) ** 2"), "Follow m_v"),
    ],
    "q3_sweep": [
        ("def shifted_sweep(state, r, delta):\n    return state", "comes back"),
        (
            "def shifted_sweep(state, r, delta):\n    return sweep(state, r)",
            "delta is not used",
        ),
        (shifted("s_u * (r * m_v - delta)", "s_v * (r * m_u - delta)"), "the sign of delta"),
        (shifted("s_u * r * m_v + delta", "s_v * r * m_u + delta"), "delta is added to the mean"),
        (shifted("s_u * (r * m_v + delta)", "s_v * r * m_u"), "Does the update of m_v read them"),
        (shifted("s_u * r * m_v", "s_v * (r * m_u + delta)"), "look at the update of m_u"),
        (
            shifted(
                "s_u * (r * m_v + delta)",
                "s_v * (r * m_u + delta)",
                "1 / (1 + (m_u - delta) ** 2 + s_u)",
            ),
            "Does the update of s_v",
        ),
    ],
    "q3_split": [
        ("split = 1.62", "the threshold of the symmetric model"),
        ("split = 0.0", "up to this r"),
        ("split = 1.9", "too early"),
        ("split = 2.2", "too late"),
    ],
    "q3_share": [
        ("share = 0.0", "Did the run use delta"),
        ("share = 3.225", "upside down"),
        ("share = 0.169", "not yet divided"),
        ("share = 0.16931 / scalar_exact(1.5).predictive_mean", "has to move as well"),
        ("share = 0.9", "Compare both predictions"),
    ],
    "q4_reversed": [
        ("reversed_prediction = scalar_exact(4.0).predictive_mean", "Bayes' answer"),
        ("reversed_prediction = scalar_mean_field(4.0).predictive_mean", "of the other divergence"),
        ("reversed_prediction = 1.0", "as a sum"),
    ],
    "q4_own": [
        (own("-0.3 * r"), "the sign is wrong"),
        (own("scalar_exact(r).predictive_mean"), "this is the exact answer"),
        (own("scalar_map_estimate(r)"), "at r = 0.10 it predicts zero"),
        (own("r"), "no shrinkage"),
        (own("0.06"), "at r = 0.10 it predicts 0.060."),
        (own("0.9 * r"), "at r = 0.10 it predicts 0.090."),
        (own("0.3 * r"), "a fixed share of r"),
        (own("r - 0.08"), "at r = 0.80 it predicts 0.720."),
    ],
}
