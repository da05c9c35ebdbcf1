"""Known wrong answers of exercise page 10, each with words of the hint that it should get."""


def difference(formula):
    return f"""
def difference(alpha, length):
    c, square = jnp.cos(alpha), length**2
    term = lambda c, square: -0.5 * jnp.log(1 - (square * c / (1 + square)) ** 2)
    return {formula}
"""


def gap(formula, ratio="K @ Sigma"):
    return f"""
def gap(Sigma, K, beta):
    ratio = {ratio}
    trace, log, d = jnp.trace(ratio), jnp.linalg.slogdet(ratio)[1], len(K)
    return {formula}
"""


def printed(formula, ratio="2 * jnp.eye(len(K)) - jnp.linalg.inv(K)"):
    return f"""
def printed(K, beta):
    ratio = {ratio}
    trace, log, d = jnp.trace(ratio), jnp.linalg.slogdet(ratio)[1], len(K)
    return {formula}
"""


def best_variance(formula):
    return f"def best_variance(x, beta):\n    C = 0.5 - x\n    return {formula}"


def law(weights):
    return f"""
def best_law(K):
    a = jnp.log(jnp.diag(K))
    weights = {weights}
    return weights / weights.sum()
"""


def variance(formula):
    return f"""
def variance(K, p, beta):
    a = jnp.log(jnp.diag(K))
    second, mean = jnp.sum(a**2 / p), jnp.sum(a)
    return {formula}
"""


GAP = "beta / 2 * (trace - log - d)"

WRONG = {
    "q1_difference": [
        (difference("-term(c, square)"), "13 less equation 14"),
        (difference("2 * term(c, square)"), "twice the difference"),
        (difference("-jnp.log(jnp.sin(alpha))"), "the limit of long columns"),
        (difference("term(c, 1.0)"), "for the length 1 only"),
        (difference("term(c, length)"), "or their squares"),
        (difference("term(jnp.sin(alpha), square)"), "a scalar product"),
        (difference("term(jnp.cos(jnp.radians(alpha)), square)"), "in radians already"),
        (difference("-0.5 * jnp.log(1 - square * c / (1 + square))"), "with its square"),
        (difference("jnp.log(1 + square)"), "equation 14 alone"),
        (difference("0.0"), "there is a difference"),
        (difference("term(c, square) + 1"), "its four entries"),
        (difference("jnp.nan"), "is nan"),
        (difference("jnp.array([c, square])"), "has to be one number"),
        ("def difference(alpha, length):\n    jnp.log(2)", "is a `return` missing"),
    ],
    "q1_limit": [
        ("limit = -np.log(2)", "never negative"),
        ("limit = 1.386", "this is twice the limit"),
        ("limit = 0.3466", "half the limit"),
        ("limit = 0.301", "base 10"),
        ("limit = 0.1438", "with a sine inside"),
        ("limit = 0.1038", "for the length 1"),
        ("limit = 0", "but the angle does"),
        ("limit = np.inf", "is inf"),
        ("limit = 0.55", "tend to"),
    ],
    "q1_growth": [
        ("growth = 2", "does the root"),
        ("growth = 0.5", "not like 1 / t."),
        ("growth = 4", "a lower power of t"),
        ("growth = 0", "stays bounded"),
        ("growth = -1", "does it grow or fall"),
        ("growth = -0.5 * np.log(2)", "the constant beside"),
        ("growth = 3", "What is left of"),
    ],
    "q2_costs": [
        ("costs = [0.0966, 0.1534]", "have changed places"),
        ("costs = [0.3069, 0.1931]", "twice too large"),
        ("costs = [0.6534, 0.5966]", "is not subtracted"),
        ("costs = [0.8466, -0.5966]", "the sign of the logarithm"),
        ("costs = [0.1534, -0.0966]", "a cost is negative"),
        ("costs = [0.5, 0.25]", "Put K Sigma = 2"),
        ("costs = 0.1534", "has to have shape (2,)"),
    ],
    "q2_gap": [
        (gap("(trace - log - d) / 2"), "What stands before it"),
        (gap("beta * (trace - log - d)"), "this is twice the gap"),
        (gap("beta / 2 * (trace - log)"), "d is not subtracted"),
        (gap("beta / 2 * (trace + log - d)"), "the sign of the logarithm"),
        (gap(GAP, "jnp.linalg.inv(K @ Sigma)"), "the other order"),
        (gap("beta / 2 * (trace - d)"), "the log determinant is missing"),
        (gap(GAP, "jnp.linalg.inv(K) @ Sigma"), "a covariance or a precision"),
        (gap("beta / 2 * (trace - jnp.linalg.det(ratio) - d)"), "with its logarithm"),
        (gap("beta / 2 * (trace - log - 3)"), "right for three latents only"),
        (gap("beta / 2 * (trace - log - 2)"), "where it should be"),
        (gap("ratio"), "has to be one number"),
    ],
    "q2_printed": [
        (printed("0.0"), "become I"),
        (printed("(trace - log - d) / 2"), "the factor beta is missing"),
        (printed("beta * (trace - log - d)"), "this is twice of it"),
        (printed("beta / 2 * (trace - log)"), "d is not subtracted"),
        (printed(GAP, "2 * jnp.eye(len(K))"), "is K - I, not K"),
        (printed("beta / 2 * (trace - log - 3)"), "right for three latents only"),
        (printed(GAP, "jnp.eye(len(K)) + K"), "this is I + K"),
        (printed(GAP, "K"), "this is K itself"),
        (printed(GAP, "jnp.eye(len(K)) + (K - jnp.eye(len(K))) @ K"), "the inverse of K"),
        (printed(GAP, "jnp.eye(len(K)) + jnp.linalg.inv(K)"), "with K and I only"),
    ],
    "q3_curvature": [
        ("curvatures = jnp.zeros(2)", "this is Gauss-Newton"),
        ("curvatures = [0.5, -0.5]", "the signs are exchanged"),
        ("curvatures = [-1, 0]", "for each unit of the logit"),
        ("curvatures = [0.25, 0.25]", "J is its factor"),
        ("curvatures = [-0.25, 0.75]", "with J squared"),
        ("curvatures = [1, 1]", "twice in z"),
        ("curvatures = -0.5", "has to have shape (2,)"),
    ],
    "q3_smallest_beta": [
        ("smallest_beta = -0.5", "positive for large beta"),
        ("smallest_beta = 1", "the parabola of the chapter"),
        ("smallest_beta = 2", "this is 1 / beta"),
        ("smallest_beta = 0.25", "the square of C"),
        ("smallest_beta = 0.4", "1 + C / beta positive"),
    ],
    "q3_variance": [
        (best_variance("1 + C / beta"), "the precision"),
        (best_variance("(1 + C / beta) ** -0.5"), "the standard deviation"),
        (best_variance("1 / (beta + C)"), "the 1 is not"),
        (best_variance("1 / (1 + C)"), "where is beta"),
        (best_variance("1 / (1 + C * beta)"), "or divided"),
        (best_variance("1 / (1 - C / beta)"), "the answer for the other x"),
        (best_variance("1.0"), "where C = 0"),
        (best_variance("beta"), "where it should be"),
        ("def best_variance(x, beta):\n    1 + (0.5 - x) / beta", "is a `return` missing"),
    ],
    "q3_width": [
        ("width = -50", "is positive"),
        ("width = 0.01", "a narrow posterior costs"),
        ("width = 10", "wins for large widths"),
        ("width = np.inf", "is inf"),
    ],
    "q3_newton": [
        ("newton_variance = 0", "costs infinitely much"),
        ("newton_variance = 2", "depends on beta"),
        ("newton_variance = 0.8", "the factor J squared"),
        ("newton_variance = 0.5", "this is a probability"),
        ("newton_variance = -4", "and then K"),
    ],
    "q4_best_law": [
        ("def best_law(K):\n    return jnp.log(jnp.diag(K))", "what is their sum"),
        ("def best_law(K):\n    return jnp.diag(K)", "have the sum 1"),
        (law("jnp.ones(len(K))"), "the uniform law"),
        (law("jnp.diag(K)"), "with its logarithm"),
        (law("jnp.diag(K) - 1"), "the squared lengths of the columns"),
        (law("1 / a"), "the wrong way round"),
        (law("a**2"), "belong to the variance"),
        (law("a**0.5"), "the estimates differ between columns"),
        (law("jnp.where(a == a.max(), -a, a)"), "is not positive"),
        (law("jnp.log(K)"), "has to have shape (2,)"),
    ],
    "q4_variance": [
        (variance("second - mean**2"), "how does the factor"),
        (variance("beta / 2 * (second - mean**2)"), "with its square"),
        (variance("beta**2 * (second - mean**2)"), "before a / p is beta / 2"),
        (variance("beta / 2 * (second - mean**2) ** 0.5"), "the standard deviation"),
        (variance("(beta / 2) ** 2 * second"), "the second moment"),
        (variance("(beta / 2) ** 2 * (p @ a**2 - (p @ a) ** 2)"), "the variance of a."),
        (variance("(beta / 2) ** 2 * jnp.var(a / p)"), "weighted alike"),
        (variance("(beta / 2) ** 2 * (second - mean**2) * 1.01"), "as a mean over draws"),
        (variance("0.0"), "take which value"),
        (variance("(beta / 2) ** 2 * a**2 / p"), "has to be one number"),
    ],
}
