"""Known wrong answers of exercise page 05, each with words of the hint that it should get."""


def sign(result):
    return f"""
def sign_correction(x, m, c):
    y, log, cosh = m @ x / c, jnp.log, jnp.cosh
    return {result}
"""


def edge(result):
    return f"def edge(n, k, tau):\n    return {result}"


def log_mean(result, first="B[1, 0] - B[0, 1]", second="B[0, 1] + B[1, 0]"):
    return f"""
def log_mean(B):
    rotations = jnp.hypot(B[0, 0] + B[1, 1], {first})
    reflections = jnp.hypot(B[0, 0] - B[1, 1], {second})
    x = jnp.stack([rotations, reflections])
    logs = x + jnp.log(i0e(x))
    return {result}
"""


RIGHT = "jax.nn.logsumexp(logs) - jnp.log(2)"


def slip(result):
    return log_mean(RIGHT) + f"\ndef slip(B):\n    A = (B + B.T) / 2\n    return {result}"


def misfit(result, tail="jnp.sum(gamma[len(a):]**2)"):
    return f"""
def misfit(gamma, a):
    k, tail = len(a), {tail}
    return {result}
"""


def law(mean="jnp.diag(2 * a**2 / c)", deviation="jnp.sqrt(2 * a**2 / c)[:, None]"):
    return f"""
def law_of_B(a, c):
    mean = {mean}
    return jnp.stack([mean, jnp.broadcast_to({deviation}, mean.shape)])
"""


WRONG = {
    "q1_correction": [
        (sign("log(cosh(y))"), "this is F"),
        (sign("log(cosh(y)) - y"), "F(B) - tr B"),
        (sign("y - log(2 * cosh(y))"), "not of their sum"),
        (sign("m @ x - log(cosh(m @ x))"), "the variance c is missing"),
        (sign("y / c - log(cosh(y / c))"), "c is the variance, not its root"),
        (sign("abs(y) - log(cosh(y))"), "only F forgets the sign"),
        (sign("y - cosh(y)"), "What is the mean of e^(B t)"),
        ("def sign_correction(x, m, c):\n    m @ x / c", "is a `return` missing"),
    ],
    "q1_edge": [
        (edge("(tau * k**0.5 - (k * tau**2 + 4 * n * tau)**0.5) / 2"), "another root"),
        (edge("tau * k**0.5"), "the threshold of MAP"),
        (edge("(tau * n)**0.5"), "the term tau sqrt(k) is missing"),
        (edge("tau * k**0.5 + (k * tau**2 + 4 * n * tau)**0.5"), "twice too large"),
        (edge("(tau * k + (k**2 * tau**2 + 4 * n * tau)**0.5) / 2"), "has the root of k"),
        (edge("(tau * k**0.5 + (k * tau**2 + n * tau)**0.5) / 2"), "should be zero"),
        (edge("jnp.array([1.0, 2.0])"), "has to be one number"),
    ],
    "q1_estimates": [
        (
            "estimates = mean_field_threshold(80, 20, 20, 4.0) * jnp.array([1.1, 1.01, 1.001])",
            "the singular values of R",
        ),
        ("estimates = [0.035, 0.348, 3.408]", "the opposite order"),
        (
            "estimates = mean_field_threshold(80, 20, 20, 4.0) * jnp.array([1.1, 1.01, 1.001])"
            " - 4 * 20**0.5",
            "what MAP predicts",
        ),
        ("estimates = jnp.zeros(3)", "the prediction is not zero"),
        ("estimates = [5.0, 4.0, 3.9]", "where n is not m"),
        ("estimates = [3.408, 0.348, jnp.nan]", "contains NaN"),
        ("estimates = 3.408", "has to have shape (3,)"),
    ],
    "q2_two_traits": [
        (log_mean("logs[0]"), "O(2) has reflections"),
        (log_mean("logs[1]"), "The rotations are missing"),
        (log_mean("jax.nn.logsumexp(logs)"), "half of their sum"),
        (log_mean(f"jnp.exp({RIGHT})"), "Its log is asked for"),
        (log_mean("logs.mean()"), "the mean of two logarithms"),
        (log_mean(f"jnp.trace(B) - ({RIGHT})"), "F alone is asked for"),
        (log_mean(RIGHT, "B[0, 1] + B[1, 0]", "B[1, 0] - B[0, 1]"), "To which?"),
        (log_mean("x.sum()"), "Write tr(B T^T)"),
        (log_mean("logs"), "has to be one number"),
    ],
    "q2_large_matrix": [
        (
            log_mean("jnp.log(jnp.mean(jnp.i0(x)))"),
            "it is no finite number",
        ),
        (log_mean("x.max() - jnp.log(2)"), "near 2000 it is"),
    ],
    "q2_slip": [
        (slip("jnp.trace(B) - log_mean(A)"), "for a symmetric B"),
        (slip("log_mean(A) - log_mean(B)"), "The correction is tr B - F"),
        (slip("2 * (log_mean(B) - log_mean(A))"), "Subtract the two corrections"),
        (slip("None"), "is a `return` missing"),
    ],
    "q3_misfit": [
        (misfit("jnp.sum((gamma[:k] - a**2 / k**0.5)**2)"), "are missing: nothing fits them"),
        (misfit("jnp.sum((gamma[:k] - a**2)**2) + tail"), "the division by the root of k"),
        (misfit("jnp.sum((gamma[:k] - a)**2) + tail"), "the singular value of the product"),
        (
            misfit("(jnp.sum((gamma[:k] - a**2 / k**0.5)**2) + tail)**0.5"),
            "the square of the norm",
        ),
        (misfit("jnp.sum((gamma[:k] - a**2 / k)**2) + tail"), "Multiply R"),
        (misfit("gamma - a[0]"), "has to be one number"),
    ],
    "q3_law": [
        (law("jnp.diag(a**2 / c)"), "both add to M^T M"),
        (law("jnp.diag(2 * a**2)"), "divided by c"),
        (law("jnp.zeros((len(a), len(a)))"), "the entries of M^T M"),
        (law(deviation="jnp.sqrt(2 * a**2 / c)[None]"), "are transposed"),
        (law(deviation="(2 * a**2 / c)[:, None]"), "these are variances"),
        (law(deviation="jnp.sqrt(2 * a**2)[:, None]"), "has the variance c"),
        (law(deviation="jnp.diag(jnp.sqrt(2 * a**2 / c))"), "the noise of X is everywhere"),
        (law(deviation="jnp.sqrt(2 * a[:, None] * a / c)"), "Which variance has a sum"),
        (law(deviation="jnp.sqrt(2 * a**2 / c)[:, None] + jnp.eye(len(a))"), "the deviation of B["),
        ("def law_of_B(a, c):\n    return 2 * a**2 / c", "has to have shape (2, 2, 2)"),
    ],
    "q3_best": [
        ("best = jnp.array([3.0, 2.35, -0.85])", "Is this its logarithm"),
        ("best = jnp.array([20.6, 18.1, 0.427])", "as large as the singular values of R"),
        ("best = jnp.array([3.0, 2.35, 0.653])", "the square of the last"),
        ("best = jnp.array([3.0, 2.35, 0.38])", "c = 0.380 seems too small"),
        ("best = jnp.array([3.2, 2.35, 0.427])", "a_1 = 3.200 seems too large"),
        ("best = jnp.array([2.886, 2.207, 0.438])", "Is the correction in the objective"),
        ("best = jnp.array([3.0, 2.35])", "has to have shape (3,)"),
    ],
    "q4_paper": [
        ("excess = [[-0.11, -0.14, -0.22], [0.23, 0.21, 0.14]]", "the share 1 is first"),
        ("excess = [[-0.05, 0.01, 0.0], [-0.11, -0.14, -0.22]]", "not only evaluated"),
        ("excess = [[-1.1, -1.8, -3.7], [-1.4, -2.1, -4.1]]", "had each fit its 600 steps"),
        ("excess = [[2.0, 3.0, 4.0], [-0.11, -0.14, -0.22]]", "that of the same r"),
        ("excess = jnp.zeros((3, 2))", "has to have shape (2, 3)"),
    ],
    "q4_right": [
        ("excess = [[0.23, 0.21, 0.14], [0.23, 0.21, 0.14]]", "is not above the evidence"),
        ("excess = [[0.23, 0.21, 0.14], [-2.0, -0.14, -0.22]]", "a poor one"),
    ],
}
