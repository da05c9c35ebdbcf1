"""Known wrong answers of exercise page 03, each with words of the hint that it should get."""


def coefficients(first=1 / 2, second=-1 / 4, third=1 / 6):
    return f"coefficients = jnp.array([{first}, {second}, {third}])"


def function(signature, formula):
    return f"def {signature}:\n    return {formula}"


def bound(square="s**2 + 2 * c**2", entropy="+ jnp.log(s**2 - c**2) / 2", prior="- s", constant=1):
    return function(
        "correlated_bound(r, s, c)",
        f"-(r**2 - 2 * r * c + {square}) / 2 {prior} {entropy} + {constant}"
        " - jnp.log(2 * jnp.pi) / 2",
    )


GRID = """
side = jnp.linspace(-6, 6, 121)
grid = jnp.stack(jnp.meshgrid(side, side), axis=-1).reshape(-1, 2)
log_joints = jax.vmap(mixture_log_joint)(grid)
total = jax.nn.logsumexp(log_joints)
area = (side[1] - side[0]) ** 2
log_evidence = total + jnp.log(area)
"""
EQUATIONS = """
def log_joint(z):
    return scalar_log_joint(z, r)

key = jax.random.key(2)
draws = jax.vmap(four.sample)(jax.random.split(key, 2000))
"""
MISSED = bound() + "\ndef correlated_prediction(r):\n    "
BEST = (
    MISSED
    + """low, high = 0.0, 1.0
    for _ in range(50):
        k = (low + high) / 2
        s = (-1 + (1 + 4 / (1 - k**2)) ** 0.5) / 2
        low, high = (k, high) if 2 * k * s + k * (1 + s) < r else (low, k)
    return """
)

WRONG = {
    "q1_first_order": [
        (coefficients(first=1), "the mean of y only"),
        (coefficients(first=0), "What are mean and variance"),
        (coefficients(first=-0.5), "Which terms are of order a?"),
        ("coefficients = jnp.array([0.5, -0.25])", "has to have shape (3,)"),
        (coefficients(first="jnp.nan"), "contains NaN"),
    ],
    "q1_second_order": [
        (coefficients(second=-1 / 2), "c_2 comes from y^2 only"),
        (coefficients(second=-3 / 4), "look at the sign of y^4"),
        (coefficients(second=1 / 4), "its sign is wrong"),
        (coefficients(second=-5 / 12), "not the square of its variance"),
        (coefficients(second=1), "Collect the terms of order a^2"),
    ],
    "q1_third_order": [
        (coefficients(third=1 / 2), "c_3 comes from y^4 only"),
        (coefficients(third=-1 / 3), "c_3 comes from y^6 only"),
        (coefficients(third=5 / 6), "look at the sign of y^6"),
        (coefficients(third=0), "at small a"),
    ],
    "q1_tail": [
        (function("tail(a)", "jnp.log(2) - kl(a)"), "log 2 - KL itself"),
        (
            function("tail(a)", "jnp.log(2) - jnp.sqrt(jnp.pi / 2 / a) * jnp.exp(-a / 2)"),
            "this approaches KL",
        ),
        (function("tail(a)", "jnp.exp(-a / 2) / jnp.sqrt(2 * jnp.pi * a)"), "the factor pi"),
        (function("tail(a)", "jnp.exp(-a / 2) / jnp.sqrt(a)"), "a constant factor is not"),
        (function("tail(a)", "jnp.exp(-a / 2)"), "the decay with a"),
        (function("tail(a)", "0.0 * a"), "is positive, and this is not"),
        ("def tail(a):\n    jnp.exp(-a / 2)", "is a `return` missing"),
    ],
    "q2_evidence": [
        (GRID + "log_evidence = jnp.exp(log_evidence)", "it is positive"),
        (GRID + "log_evidence += jnp.log(2)", "it is larger by log 2"),
        (
            GRID + "log_evidence = jax.nn.logsumexp(jnp.where(grid[:, 0] < grid[:, 1], log_joints,"
            " -jnp.inf)) + jnp.log(area)",
            "it is smaller by log 2",
        ),
        (GRID + "log_evidence = total", "an integral only with cells"),
        (GRID + "log_evidence = total + 2 * jnp.log(area)", "have its cells the right area"),
    ],
    "q2_bounds": [
        ("bounds = jnp.array([-32.25, -32.58])", "come second"),
        ("bounds = jnp.array([0.37, 0.03])", "Are these the gaps"),
        ("bounds = jnp.array([-32.58, -31.89])", "is above the log evidence"),
        ("bounds = jnp.array([-32.3, -32.25])", "is too large"),
        ("bounds = jnp.array([-32.8, -32.25])", "More steps"),
        ("bounds = jnp.array([-32.58, -32.4])", "fit it, too"),
        ("bounds = jnp.array([-32.58, -32.25, -32.21])", "has to have shape (2,)"),
    ],
    "q2_distances": [
        ("distances = jnp.array([0.5, 0.85, 0.0])", "without the absolute value"),
        ("distances = jnp.array([0.5, 0.85, 1.2])", "Weights that sum to one"),
        ("distances = jnp.array([0.85, 0.85, 0.85])", "can it be that exact"),
        ("distances = jnp.array([0.0, 0.85, 0.85])", "the distance of two means"),
        ("distances = jnp.array([0.7, 0.85, 0.85])", "Has the fit converged"),
        ("distances = jnp.array([0.5, 0.5, 0.85])", "the second is that of mean field"),
        ("distances = jnp.array([0.5, 0.7, 0.85])", "the symmetrized one is 0.700"),
    ],
    "q2_change": [
        ("change = 0.35", "the difference of two fits"),
        ("change = 0.1", "what does the chapter say"),
    ],
    "q3_change": [
        (function("sign_change(u, v, r)", "2 * r * u * v"), "the sign:"),
        (function("sign_change(u, v, r)", "-r * u * v"), "half of it"),
        (function("sign_change(u, v, r)", "-4 * r * u * v"), "twice too much"),
        (function("sign_change(u, v, r)", "0.0"), "has this symmetry"),
        (function("sign_change(u, v, r)", "-2 * r * u"), "Which terms of the log joint"),
        ("def sign_change(u, v, r):\n    -2 * r * u * v", "is a `return` missing"),
    ],
    "q3_equation_4": [
        (
            EQUATIONS
            + "equation_4 = jax.vmap(lambda z: log_joint(z) - four.log_prob(z))(draws).mean()",
            "this is equation 1",
        ),
        (
            EQUATIONS + "two = Symmetrized(base, SignFlip(2))\n"
            "equation_4, _ = elbo(key, log_joint, two, 20_000)",
            "with two copies",
        ),
        (EQUATIONS + "equation_4 = scalar_exact(r).log_evidence", "are there enough draws"),
        (
            "equation_4 = elbo(jax.random.key(2), lambda z: scalar_log_joint(z, r), four, 20, "
            "check_invariance=False)",
            "has to be one number",
        ),
    ],
    "q3_equation_1": [
        (
            EQUATIONS
            + "equation_1, _ = elbo(key, log_joint, four, 20_000, check_invariance=False)",
            "this is equation 4",
        ),
        (
            EQUATIONS
            + "equation_1 = jax.vmap(lambda z: log_joint(z) - base.log_prob(z))(draws).mean()",
            "far above the evidence",
        ),
        (EQUATIONS + "equation_1 = jax.vmap(log_joint)(draws).mean()", "Take the mean of log p"),
    ],
    "q3_excess": [
        (function("excess(r, u, v)", "2 * r * u * v"), "flip one sign only"),
        (function("excess(r, u, v)", "r * u * v / 2"), "what share of its elements"),
        (function("excess(r, u, v)", "-r * u * v"), "the sign:"),
        (function("excess(r, u, v)", "jnp.log(2)"), "average your `sign_change`"),
    ],
    "q4_bound": [
        (bound(square="s**2 + c**2"), "c^2 appears twice"),
        (bound(square="s**2"), "when u and v are correlated"),
        (bound(entropy="+ jnp.log(s**2 - c**2)"), "half the log of the determinant"),
        (bound(entropy="- jnp.log(s**2 - c**2) / 2"), "the sign of the entropy"),
        (bound(prior="- s / 2"), "both u and v"),
        (bound(prior=""), "is missing"),
        (bound(constant=0), "it misses a constant"),
        (bound(square="s**2 - 2 * c**2"), "one by one"),
    ],
    "q4_prediction": [
        (MISSED + "return 0.0", "is no product of means"),
        (MISSED + "return -0.2 * r", "the same sign more often"),
        (MISSED + "return r", "over both s and c"),
        (BEST + "k", "this is the correlation"),
        (BEST + "s", "this is the variance"),
        (MISSED + "return scalar_exact(r).predictive_mean", "this is Bayes' answer"),
        (
            bound(square="s**2 + c**2") + "\ndef correlated_prediction(r):\n    return 0.3 * r",
            "Mend that first",
        ),
    ],
}
