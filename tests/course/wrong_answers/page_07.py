"""Known wrong answers of exercise page 07, each with words of the hint that it should get."""


def push(result):
    return f"""
def push(theta_0, gamma, kinds):
    gap = theta_0[:3] - theta_0[3:]
    norm = jnp.linalg.norm
    return {result}
"""


def limit(result):
    return f"def limit_term(phi, b):\n    return {result}"


def limit_push(result):
    return f"def limit_push(P, b):\n    return {result}"


def kept(swap=True, one=False, both=False, mixed=False):
    return f"kept = {dict(zip(NAMES, (swap, one, both, mixed), strict=True))}"


NAMES = ("swap", "flip one", "flip both", "swap and flip")

WRONG = {
    "q1_push": [
        ("push_norm = 0.2 * 0.0005**0.5", "gamma times the distance"),
        ("push_norm = 0.4 * 0.0005", "enters with its square"),
        ("push_norm = -0.4 * 0.0005**0.5", "so it is positive"),
        ("push_norm = 0.012", "the root of the sum of their squares"),
        ("push_norm = 0.3", "What does the loss itself add"),
        ("push_norm = jax.grad(anchored)(jnp.zeros(2), 0.2)", "has to be one number"),
        ("push_norm = jnp.nan", "is nan"),
    ],
    "q1_end": [
        ("end = theta_0", "this is the anchor"),
        ("end = jnp.array([0.02 / 7 + 0.06, 0.02 / 7 - 0.06])", "have changed places"),
        ("end = jnp.array([-0.004, -0.016])", "What is its second derivative"),
        ("end = jnp.array([-0.02 / 3 - 0.06, -0.02 / 3 + 0.06])", "Do they not add up"),
        ("end = jnp.array([0.02, 0.06 / 7])", "these are the parts along"),
        ("end = jnp.zeros(2)", "Split the anchor along"),
        ("end = 0.0285", "has to have shape (2,)"),
    ],
    "q1_critical": [
        ("critical_gamma = 0.3", "is not gamma"),
        ("critical_gamma = -0.15", "Which curvature is the smaller one"),
        ("critical_gamma = 0.6", "not gamma / 2"),
        ("critical_gamma = 0", "When is the smaller curvature"),
    ],
    "q2_push": [
        (push("2 * gamma * norm(gap) / 2**0.5"), "neither anchor nor decay"),
        (push("gamma * norm(kinds * gap) / 2**0.5"), "the derivative of a square"),
        (push("2 * gamma * norm(kinds * gap)"), "the difference of the two gradients"),
        (push("gamma * norm(kinds * gap)"), "count both of them"),
        (push("2 * gamma * norm(jnp.tile(kinds, 2) * theta_0)"), "leaves a part of it alone"),
        (push("2 * gamma * norm(kinds * gap)**2"), "which takes (1, -1) to itself"),
        (push("2 * gamma * kinds * gap"), "has to be one number"),
        ("def push(theta_0, gamma, kinds):\n    2 * gamma", "is a `return` missing"),
    ],
    "q2_factor": [
        ("factor = 3**0.5", "the roots of the mean squares"),
        ("factor = 3", "The push is a norm"),
        ("factor = 1 / 2", "divided by the smaller one"),
        ("factor = 6**0.5", "how many degrees of freedom"),
    ],
    "q2_measured": [
        ("mean_push = [0.8, 1.6]", "everywhere comes first"),
        ("mean_push = [2.26, 1.13]", "too large by the square root"),
        ("mean_push = [3**0.5, 1.0]", "Take the mean of norms"),
        ("mean_push = [0.8, 0.4]", "half as large"),
        ("mean_push = [1.6, 1.6]", "at the twins minus the anchor"),
        ("mean_push = 1.6", "has to have shape (2,)"),
    ],
    "q3_equal_anchor": [
        ("equal_anchor = jnp.zeros(6)", "at least 1 is asked for"),
        ("equal_anchor = jnp.array([1, 2, 3, -1, -2, -3.0])", "second unit is minus the first"),
        ("equal_anchor = jnp.arange(6.0)", "pushed apart"),
        ("equal_anchor = jnp.ones(3)", "has to have shape (6,)"),
    ],
    "q3_kept": [
        ("kept = True", "has to be a dictionary"),
        ("kept = {'swap': True}", "given for flip one, flip both"),
        (kept(swap=False), "has equal units"),
        (kept(both=True), "you say that flip both leaves"),
        (kept(one=True, both=True, mixed=True), "you say that flip one, flip both, swap and flip"),
    ],
    "q3_half_anchor": [
        ("half_anchor = jnp.zeros(6)", "it has the norm 0"),
        ("half_anchor = jnp.ones(6)", "the units are equal"),
        ("half_anchor = jnp.array([1.0, 1, 1, 0, 0, 0])", "the second unit is zero"),
        ("half_anchor = jnp.arange(6.0)", "minus themselves"),
    ],
    "q4_limit": [
        (limit("2 * b @ phi"), "the anchor attracts"),
        (limit("-b @ phi"), "has a factor"),
        (limit("phi @ phi - 2 * b @ phi"), "a square of phi is left"),
        (limit("b @ b"), "does not depend on phi"),
        (limit("(phi - b) @ (phi - b) * 3"), "insert theta_0"),
        (limit("-2 * b * phi"), "has to be one number"),
    ],
    "q4_push": [
        (limit_push("jnp.linalg.norm(P @ b)"), "the gradient of the linear term"),
        (limit_push("2 * jnp.linalg.norm(b)"), "the whole gradient"),
        (limit_push("4 * b @ P @ b"), "the square of the norm"),
        (limit_push("2 * jnp.linalg.norm(b - P @ b)"), "the part along the mirror"),
        (limit_push("0.0"), "where it should be"),
    ],
}
