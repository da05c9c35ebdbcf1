"""Known wrong answers of exercise page 09, each with words of the hint that it should get."""


def uniform(formula, turn="rotation(30.0)"):
    return f"def mix(z):\n    U = {turn}\n    return {formula}"


def laplace(formula, u="jnp.where(z < 0, jnp.exp(z) / 2, 1 - jnp.exp(-z) / 2)", turn=30.0):
    return f"""
def mix_laplace(z):
    u = {u}
    u = ndtr(rotation({turn}) @ ndtri(u))
    back = jnp.where(u < 0.5, jnp.log(2 * u), -jnp.log(2 * (1 - u)))
    return {formula}
"""


def stretch(formula):
    return f"""
def stretch(z, moved):
    before, after = jnp.sum(jnp.abs(z)), jnp.sum(jnp.abs(moved))
    return {formula}
"""


def velocity(result, H="jnp.exp(2 * (log_q(z) - log_p(z))) / 5"):
    return f"""
def velocity(z):
    H = lambda z: {H}
    d1, d2 = jax.grad(H)(z)
    p = jnp.exp(log_p(z))
    return {result}
"""


def rule(condition, pairs="range(i)"):
    return f"""
def free_directions(eigenvalues, blocks):
    block_of = {{i: n for n, block in enumerate(blocks) for i in block}}
    size, count = len(eigenvalues), 0
    for i in range(size):
        for j in {pairs}:
            block = block_of[i] == block_of[j]
            value = eigenvalues[i] == eigenvalues[j]
            count += {condition}
    return count
"""


FLOW = "jnp.array([-d2, d1]) / p"

WRONG = {
    "q1_gap": [
        ("gap = np.log(1.8)", "twice the gap"),
        ("gap = np.log2(1.8) / 2", "counts in bits"),
        ("gap = np.log10(1.8) / 2", "with base 10"),
        ("gap = -0.2939", "cannot win"),
        ("gap = 0.5108", "What does the prior add"),
        ("gap = 0.0589", "enter with their products"),
        ("gap = 1.498", "Which term is before it"),
        ("gap = 1.792", "What is subtracted"),
        ("gap = 0.9", "the ratio itself"),
        ("gap = 0.25", "its four entries"),
        ("gap = jnp.nan", "is nan"),
        ("gap = jnp.array([[6, 4], [4, 6]])", "has to be one number"),
    ],
    "q1_turn": [
        ("turn = np.pi / 4", "looks like radians"),
        ("turn = 0", "Is K diagonal"),
        ("turn = 90", "exchanges the latents"),
        ("turn = 26.57", "a column's direction"),
        ("turn = 63.43", "the direction of a column"),
        ("turn = 30", "only stretched"),
    ],
    "q1_distance": [
        ("distance = 20.56", "this is 2 phi"),
        ("distance = 0.1794", "looks like radians"),
        ("distance = 79.72", "Which one is nearer"),
        ("distance = 16.5", "right for a sine"),
        ("distance = 8.35", "not added"),
        ("distance = 28.15", "the squares of the lengths"),
        ("distance = 5.31", "a factor 2 is missing"),
        ("distance = 30", "do not halve"),
        ("distance = 60", "phi is one of the latents"),
        ("distance = 15", "its first eigenvector"),
    ],
    "q1_largest": [
        ("largest = 36.87", "this is 2 phi"),
        ("largest = 0.3217", "looks like radians"),
        ("largest = 71.57", "the tangent"),
        ("largest = 45", "columns of the same length"),
        ("largest = 10.28", "the answer for 60 degrees"),
        ("largest = 0", "orthogonal columns"),
        ("largest = 19.47", "cos largest in size"),
    ],
    "q2_uniform": [
        (uniform("z"), "nothing has changed"),
        (uniform("ndtr(U.T @ ndtri(z))"), "turns the other way"),
        (uniform("ndtr(U @ ndtri(z))", "rotation(jnp.pi / 6)"), "takes degrees"),
        (uniform("U @ ndtri(z)"), "still normal numbers"),
        (uniform("ndtri(z)"), "before they are turned"),
        (uniform("U @ z - 1"), "is not between 0 and 1"),
        (uniform("ndtr(U @ z)"), "which function does each step"),
        (uniform("ndtri(U @ ndtr(z) + 1)"), "contains NaN"),
        (uniform("jnp.sum(z)"), "has to have shape (2,)"),
        ("def mix(z):\n    ndtr(rotation(30.0) @ ndtri(z))", "is a `return` missing"),
    ],
    "q2_laplace": [
        (laplace("z"), "nothing has changed"),
        (laplace("u"), "inverse of F is still to come"),
        (laplace("rotation(30.0) @ z"), "turns z itself"),
        (laplace("-jnp.log(1 - u)"), "for exponential latents"),
        (laplace("back[::-1]"), "have changed places"),
        (laplace("back", turn=-30.0), "turns the other way"),
        (laplace("back", turn="jnp.pi / 6"), "takes degrees"),
        (laplace("jnp.abs(back)"), "a sign is wrong"),
        (laplace("back - 0.01 * jnp.sign(back)"), "goes to"),
        (laplace("1.2 * back"), "then the inverse of F"),
        (laplace("back", u="jnp.exp(z) - 1"), "contains NaN"),
    ],
    "q2_stretch": [
        (stretch("jnp.exp(before - after)"), "this is the inverse"),
        (stretch("after - before"), "this is the logarithm."),
        (stretch("before - after"), "the logarithm of the inverse"),
        (stretch("1.0"), "areas are kept"),
        (stretch("jnp.exp((moved @ moved - z @ z) / 2)"), "for Gaussian latents"),
        (stretch("jnp.exp(jnp.sum(moved) - jnp.sum(z))"), "for positive entries only"),
        (stretch("jnp.exp((after - before) / 2)"), "not cancel"),
        (stretch("after / before"), "how does its density change"),
        (stretch("jnp.exp(jnp.abs(moved) - jnp.abs(z))"), "has to be one number"),
    ],
    "q3_power": [
        ("power_limit = 1 / 3", "What about z_2"),
        ("power_limit = 0.5", "in the exponent of q only"),
        ("power_limit = 0", "Which power of q beats it"),
        ("power_limit = 2", "Where does the square of z_2 cancel"),
        ("power_limit = -1", "both squares"),
    ],
    "q3_prior": [
        ("def velocity(z):\n    return jnp.zeros(2)", "the velocity is zero"),
        (velocity("jnp.array([-d2, d1])"), "keeps areas"),
        (velocity("jnp.array([-d2, d1]) * p"), "on the wrong side"),
        (velocity("jnp.array([d1, d2]) / p"), "Has p v the form"),
        (velocity("jnp.array([d2, d1]) / p * jnp.nan"), "contains NaN"),
        ("def velocity(z):\n    -z", "is a `return` missing"),
    ],
    "q3_posterior": [
        ("def velocity(z):\n    return 0 * z", "the velocity is zero"),
        ("def velocity(z):\n    return jnp.array([-z[1], z[0]])", "moves along circles"),
        (velocity(FLOW, "jnp.exp(log_q(z))"), "along the level lines of q."),
        (velocity("jnp.array([d1, d2]) / p"), "straight across"),
        (velocity(FLOW, "log_q(z) + log_p(z)"), "leaves the level line"),
        (velocity("d1"), "has to have shape (2,)"),
    ],
    "q3_tame": [
        ("def velocity(z):\n    return 0 * z", "the velocity is zero"),
        (velocity(FLOW, "jnp.exp(log_q(z) - log_p(z)) / 5"), "far out the speed"),
        (velocity(FLOW, "jnp.exp(2 * (log_q(z) - log_p(z))) / 5000"), "a larger constant"),
        (velocity(FLOW, "100 * jnp.exp(2 * (log_q(z) - log_p(z)))"), "a smaller constant"),
    ],
    "q4_counts": [
        ("counts = np.array([[0, 3], [1, 4]])", "three directions in all"),
        ("counts = np.array([[1, 1], [1, 1]])", "leave the gap at zero"),
        ("counts = np.array([[0, 2], [1, 1]])", "stays in a block"),
        ("counts = np.array([[0, 1], [0, 1]])", "leaves K as it is"),
        ("counts = np.array([[0, 1], [1, 2]])", "really two different directions"),
        ("counts = np.array([[0, 1], [1, 0]])", "one by one"),
        ("counts = [0, 1, 1, 1]", "has to have shape (2, 2)"),
    ],
    "q4_rule": [
        (rule("block"), "in different blocks are not counted"),
        (rule("value"), "within a block are not counted"),
        (rule("block + value"), "counts once"),
        (rule("block and value"), "share one of the two"),
        (
            rule("block or value", "[k for k in range(size) if k != i]"),
            "each pair is counted twice.",
        ),
        (rule("block or value", "range(size)"), "and each coordinate with itself"),
        (rule("block or value", "range(i + 1)"), "is no pair"),
        (rule("not (block or value)"), "that are not free"),
        (
            rule("block") + "\n_pairs = free_directions\n"
            "free_directions = lambda e, b: _pairs(e, b) + len(e) - len(set(e))",
            "how many pairs do four",
        ),
        (rule("block or value", "range(min(i, 2))"), "right for three latents"),
        (rule("True"), "leave the gap at zero"),
        ("def free_directions(eigenvalues, blocks):\n    len(blocks)", "is a `return` missing"),
    ],
}
