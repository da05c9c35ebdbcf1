"""Known wrong answers of exercise page 04, each with words of the hint that it should get."""


def function(signature, formula):
    return f"def {signature}:\n    return {formula}"


def limit(root="/ 2", cross="(k - r) / 2", volume="- areas(k - r + 1, k)", total="jnp.sum(sigma)"):
    return f"""
def areas(low, high):
    half = np.arange(low, high + 1) / 2
    return np.sum(np.log(2) + half * np.log(np.pi) - special.gammaln(half))


def limit(sigma, k):
    sigma = np.asarray(sigma)
    r = len(sigma)
    i, j = np.triu_indices(r, 1)
    pairs = np.sum(np.log(2 * np.pi / (sigma[i] + sigma[j])))
    return {total} + pairs {root} + {cross} * np.sum(np.log(2 * np.pi / sigma)) {volume}
"""


def correction(formula):
    return f"""
def correction(sigma):
    u = np.asarray(sigma) / 2
    y = u / (np.sqrt(1 + u**2) + 1)
    i, j = np.triu_indices(4, 1)
    return {formula}
"""


RANK = [
    (limit(volume=""), "the volume is missing"),
    (limit(root="", cross="(k - r)"), "a Gaussian integral is a root"),
    (limit(volume="+ areas(k - r + 1, k)"), "below, not above"),
    (limit(total="0 * jnp.sum(sigma)"), "misses the limit by"),
]
LOWER = [
    (limit(cross="0"), "i <= r < j are missing"),
    (limit(volume="- areas(1, r)"), "the unit sphere of which space"),
    (limit(volume="- areas(1, k)"), "the volume of all of O(k)"),
]

WRONG = {
    "q1_trace": [
        ("trace_variance = 1 / 20", "the variance of one entry"),
        ("trace_variance = 20", "each entry variance 1"),
        ("trace_variance = 0.0", "Its variance is not"),
        ("trace_variance = 0.5", "one by one"),
        ("trace_variance = jnp.nan", "is nan"),
    ],
    "q1_fourth": [
        (function("fourth_order(a, b)", "(a**4 + 6 * a**2 * b**2 + b**4) / 64"), "mean of I_0"),
        (function("fourth_order(a, b)", "(a**2 - b**2) ** 2 / 64"), "the sign"),
        (
            function(
                "fourth_order(a, b)",
                "(a**4 + 6 * a**2 * b**2 + b**4) / 64 - (a**2 + b**2) ** 2 / 16",
            ),
            "half the square",
        ),
        (
            function("fourth_order(a, b)", "(a**2 + b**2) / 4 - (a**2 - b**2) ** 2 / 64"),
            "still contains the second order",
        ),
        (function("fourth_order(a, b)", "-(a**4 + b**4) / 64"), "should vanish"),
        ("def fourth_order(a, b):\n    -(a**2 - b**2) ** 2 / 64", "is a `return` missing"),
        ("def fourth_order(s):\n    return -(s[0]**2 - s[1]**2) ** 2 / 64", "with an error"),
    ],
    "q1_constant": [
        ("constant = -1e-4", "is positive for small t"),
        ("constant = (F([0.1, 0.05]) - 0.1**2 * 1.25 / 4) / 0.1**6", "an order is left in it"),
        ("constant = 1.41e-4", "not yet the limit"),
        ("constant = 1e-5", "only rounding is left"),
    ],
    "q2_moving": [
        (function("moving(k, r)", "k * (k - 1) // 2"), "these are all pairs"),
        (function("moving(k, r)", "r * (r - 1) // 2"), "moves column i"),
        (function("moving(k, r)", "r * (k - r)"), "among the first r are missing"),
        (function("moving(k, r)", "r * k"), "has no diagonal"),
        (function("moving(k, r)", "r * (k - 1)"), "are counted twice"),
        (function("moving(k, r)", "r"), "make r vectors orthonormal"),
    ],
    "q2_full_rank": [
        (limit(volume=""), "the volume is missing"),
        (limit(root=""), "a Gaussian integral is a root"),
        (limit(volume="+ areas(k - r + 1, k)"), "below, not above"),
        (limit(total="0 * jnp.sum(sigma)"), "misses the limit by"),
        (limit(total="0.1 + jnp.sum(sigma)"), "or an approximation?"),
        (limit(total="sigma"), "has to be one number"),
    ],
    "q2_rank_one": RANK + LOWER,
    "q2_between": RANK + LOWER,
    "q2_error": [
        ("error_at_half = 5.565", "the sign"),
        ("error_at_half = -0.7157", "the error at r = 5"),
        ("error_at_half = -54.62", "the error at r = 20"),
        ("error_at_half = -4.0", "is sigma large enough"),
    ],
    "q3_terms": [
        ("kl_terms = jnp.array([-18.3, -19.9, -6.2])", "tr B - F(B) is asked for"),
        ("kl_terms = jnp.array([18.3, 6.2, 19.9])", "in another order"),
        ("kl_terms = jnp.array([11.4, 12.95, 6.2])", "at c = 0.01"),
        ("kl_terms = jnp.array([19.83, 21.42, 7.74])", "made of the draws X"),
        ("kl_terms = jnp.array([18.3, 18.3, 6.2])", "with laplace it is 18.30"),
        ("kl_terms = jnp.array([18.3, 19.9, 19.9])", "with moore it is 19.90"),
        ("kl_terms = jnp.array([18.3, 19.9])", "has to have shape (3,)"),
    ],
    "q3_bounds": [
        ("bounds = jnp.array([-1.59, 12.1])", "the signs are wrong"),
        ("bounds = jnp.array([-12.1, 1.59])", "in the other order"),
        ("bounds = jnp.array([19.9, 6.2])", "these are KL terms"),
        ("bounds = jnp.array([0.0, 0.0])", "what changes when only"),
    ],
    "q3_growth": [
        (function("growth(k, factor)", "k * (k - 1) / 2 * np.log(factor)"), "is a root"),
        (function("growth(k, factor)", "-k * (k - 1) / 4 * np.log(factor)"), "the sign"),
        (function("growth(k, factor)", "1.5 * np.log(factor)"), "holds for k = 3"),
        (function("growth(k, factor)", "k**2 / 4 * np.log(factor)"), "pairs of different"),
        (function("growth(k, factor)", "k * (k - 1) / 4 * factor"), "inside a log"),
        (function("growth(k, factor)", "np.log(factor)"), "Put sigma / c"),
    ],
    "q4_zero": [
        (correction("2.69638"), "the constant of infinity"),
        (correction("0.1"), "exact there"),
        ("def correction(sigma):\n    sigma.sum()", "is a `return` missing"),
    ],
    "q4_infinity": [
        (correction("0.0"), "vanishes at infinity"),
        (correction("-2.69638 * np.mean((y[i] * y[j]) ** 8)"), "too large or too small"),
        (correction("1.5 * np.mean((y[i] * y[j]) ** 8)"), "asymptotic minus laplace"),
        (correction("0.01 * np.sum(u)"), "asymptotic minus laplace, at four"),
    ],
    "q4_order": [
        (correction("2.69638 * y[0] ** 8"), "with another order"),
        (correction("y"), "has to be one number"),
    ],
    "q4_error": [
        (correction("0.0"), "the correction is zero"),
        (correction("2.69638 * np.mean((y[i] * y[j]) ** 0.1)"), "at the right size"),
        (correction("2.69638 * np.prod(y)"), "an eighth is asked"),
    ],
}
