"""Known wrong answers of exercise page 06, each with words of the hint that it should get."""


def perms(two="1 + e**2", three="1 + 3 * e**2 + 2 * e**3"):
    return f"def perm2(e):\n    return {two}\n\ndef perm3(e):\n    return {three}\n"


GAIN = """
def gain_term(A):
    d = len(A)
    sums = jnp.array([sum(A[i, g[i]] for i in range(d)) for g in permutations(range(d))])
    ratio = jnp.trace(A) - jax.nn.logsumexp(sums) + math.log(math.factorial(d))
"""
DIRECT = """
def gain_term(A):
    q = jnp.exp(A)
    total = sum(math.prod(q[i, g[i]] for i in range(len(A))) for g in permutations(range(len(A))))
    mean = total / math.factorial(len(A))
"""
LAYERS = """
def layer_terms(mean, z):
    base = DiagonalGaussian(mean, jax.tree.map(lambda m: jnp.full(m.shape, VARIANCE), mean))
    one = permutation_log_ratio(unit_log_densities(base, z, 0))
    two = permutation_log_ratio(unit_log_densities(base, z, 1))
    both = base.log_prob(z) - Symmetrized(base, HiddenPermutation(3, 3)).log_prob(z)
"""


def layers(result, variance="0.64"):
    return f"{LAYERS.replace('VARIANCE', variance)}    return {result}\n"


def returns(name, value):
    return f"def {name}:\n    return {value}"


WRONG = {
    "q1_permanents": [
        (perms("1 - e**2", "1 - 3 * e**2 + 2 * e**3"), "this is a determinant"),
        (perms("math.log(1 + e**2)"), "returns a logarithm"),
        (perms("1 + 2 * e"), "Write out the two"),
        (perms(three="1 + 3 * e**2"), "S_3 has six elements"),
        (perms(three="1 + 3 * e + 2 * e**2"), "how many factors e has it"),
        (perms(three="1 + 5 * e**3"), "count the things that it moves"),
        ("def perm2(e):\n    1 + e**2", "is a `return` missing"),
    ],
    "q1_limits": [
        ("limits = jnp.zeros(2)", "there is a d! in front"),
        ("limits = jnp.log(jnp.array([2.0, 3.0]))", "log d counts the units"),
        ("limits = [2, 6]", "a log is missing"),
        ("limits = [1.0, 2.0]", "What is left of d! / perm"),
        ("limits = math.log(6)", "has to have shape (2,)"),
    ],
    "q1_with_replacement": [
        ("with_replacement = math.log(6)", "log 6 is the gain"),
        ("with_replacement = math.log(3)", "log 3 is the cap"),
        (
            "with_replacement = math.log(3) - 5 / 36 * math.log(2) - math.log(3) / 36",
            "may be the first or the second",
        ),
        ("with_replacement = math.log(9 / 4)", "the mean of a logarithm"),
        ("with_replacement = 0.5", "with which probability is B"),
        ("with_replacement = math.nan", "is nan"),
    ],
    "q1_without_replacement": [
        ("without_replacement = 0.876", "this is the bound with replacement"),
        ("without_replacement = math.log(6)", "take all six elements"),
        ("without_replacement = math.log(2)", "How many of the three"),
    ],
    "q2_gain_term": [
        (GAIN, "is a `return` missing"),
        (GAIN + "    return -ratio", "the sign is wrong"),
        (GAIN + "    return ratio - math.lgamma(d + 1)", "where is the d!"),
        (GAIN + "    return jnp.exp(ratio)", "the quotient of the densities"),
        (
            DIRECT + "    return jnp.exp(jnp.trace(A)) - mean",
            "the difference of the densities",
        ),
        (
            "def gain_term(A):\n    return permutation_log_ratio(jnp.exp(A))",
            "are logarithms already",
        ),
        (
            "def gain_term(A):\n    return jnp.trace(A) - jnp.log(jnp.linalg.det(A)**2)",
            "where it should be",
        ),
    ],
    "q2_small_densities": [
        (
            DIRECT + "    return jnp.trace(A) - jnp.log(mean)",
            "it is no finite number",
        ),
        (GAIN + "    return ratio - math.log(math.factorial(d))", "near -2000 it is"),
    ],
    "q2_two_layers": [
        (layers("-jnp.stack([one, two, both])"), "log q comes first"),
        (layers("jnp.stack([two, one, both])"), "have changed places"),
        (layers("jnp.stack([both, one, two])"), "the order asked for"),
        (layers("jnp.stack([one, two, one + two])"), "Do the two layers share"),
        (layers("jnp.stack([one, two, both])", "0.8"), "Is the standard deviation 0.8"),
        (layers("one + two"), "has to have shape (3,)"),
        (layers("jnp.stack([one, one, both])"), "repeats the first. Which layer"),
    ],
    "q2_averages": [
        ("gains = jnp.array([3.0, 3.0, 5.9])", "more than log 6"),
        ("gains = -jnp.array([1.19, 0.44, 1.55])", "below zero"),
        ("gains = jnp.array([1.19, 0.44, 1.1])", "cannot gain less"),
        ("gains = jnp.log(jnp.array([6, 6, 36]))", "these are the caps"),
        ("gains = jnp.array([1.19, 0.44, 1.63])", "exactly the sum"),
        ("gains = jnp.array([1.6, 0.8, 2.0])", "Are the draws from the base"),
        ("gains = jnp.array([1.19, 0.44])", "has to have shape (3,)"),
        ("gains = jnp.array([1.19, 0.44, jnp.nan])", "contains NaN"),
    ],
    "q3_missing": [
        (returns("missing(K, N)", "(1 / N) ** K"), "all K elements are the identity"),
        (returns("missing(K, N)", "1 - (1 - 1 / N) ** K"), "the identity is among them"),
        (returns("missing(K, N)", "(1 - 1 / N) ** (K - 1)"), "The upper bound has K"),
        (returns("missing(K, N)", "max(0, 1 - K / N)"), "with replacement"),
        (returns("missing(K, N)", "1 - 1 / N"), "how do independent draws combine"),
        ("def missing(K, N):\n    (1 - 1 / N) ** K", "returned nothing"),
    ],
    "q3_paid": [
        (returns("paid(m, c)", "-(m[0] - m[1])**2 / c"), "which density is on top"),
        (returns("paid(m, c)", "(m[0] - m[1])**2 / (2 * c)"), "moves both weights"),
        (returns("paid(m, c)", "(m[0] - m[1])**2 / c**2"), "c is the variance"),
        (returns("paid(m, c)", "abs(m[0] - m[1]) / c"), "enters with its square"),
        (returns("paid(m, c)", "2 * (m[0] - m[1])**2 / c"), "Write the KL divergence"),
        (returns("paid(m, c)", "(m - m[::-1])**2 / c"), "has to be one number"),
    ],
    "q3_excess": [
        ("excess = -jnp.array([700.0, 3000.0, 9000.0])", "subtract the evidence from it"),
        ("excess = jnp.array([-3.0, -2.0, -1.0])", "below the evidence"),
        ("excess = jnp.array([700.0, 3000.0, 2000.0])", "should still grow"),
        ("excess = jnp.array([1.0, 2.0, 3.0])", "Is the step size 0.02"),
        ("excess = 9000.0", "has to have shape (3,)"),
    ],
    "q3_deviation": [
        ("deviation = 0.0", "that are not zero"),
        ("deviation = 0.016", "lowers the step size to zero"),
        ("deviation = -9.0", "Is this a logarithm"),
        ("deviation = 0.1", "is the start"),
        ("deviation = 0.05", "What does the term pay for"),
        ("deviation = 1e-8", "is this the variance"),
    ],
}
