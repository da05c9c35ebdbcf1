"""Known wrong answers of exercise page 08, each with words of the hint that it should get."""


def variance(result):
    return f"def unit_variance(s, C):\n    return {result}"


def growth(result):
    return f"def growth(s, layers):\n    return {result}"


def learned(result):
    return f"def learned(W, A, W0):\n    return {result}"


def table(going=(83, 86, 75, 47, 41), fresh=(83, 75, 70, 82, 74)):
    return f"accuracies = np.array({[list(going), list(fresh)]}, float).T"


def lost(small=(94, 93, 10, 9), large=(87, 73, 10, 9)):
    return f"lost = np.array({[list(small), list(large)]}, float)"


RANK = "thresholded_rank(test_images[:200] @ W.T)"

WRONG = {
    "q1_unit_variance": [
        (variance("s / len(C) * jnp.trace(C)"), "s is a standard deviation"),
        (variance("s**2 * jnp.trace(C)"), "where is the number of inputs"),
        (variance("s**2 / 64 * jnp.trace(C)"), "Here C has another size"),
        (variance("s**2 / len(C) * C.sum()"), "have mean zero"),
        (variance("s**2 / len(C) * jnp.linalg.det(C)"), "this is a determinant"),
        (variance("s**2 / len(C) * jnp.linalg.norm(C)"), "where it should be"),
        (variance("s**2 / len(C) * C"), "has to be one number"),
        ("def unit_variance(s, C):\n    s**2 * jnp.trace(C)", "is a `return` missing"),
    ],
    "q1_mean_eigenvalues": [
        ("mean_eigenvalues = [7.3e-6, 7.3e-4]", "comes first"),
        ("mean_eigenvalues = [4.7e-2, 4.7e-4]", "have the variance s^2 / 64"),
        ("mean_eigenvalues = [2.35e-2, 2.35e-4]", "the sum of the 32 eigenvalues"),
        ("mean_eigenvalues = [2.29e-5, 2.29e-7]", "has 32 of these variances"),
        ("mean_eigenvalues = [7.3e-3, 7.3e-4]", "enters with its square"),
        ("mean_eigenvalues = [1e-4, 1e-4]", "Insert tr C"),
        ("mean_eigenvalues = [jnp.nan, 7.3e-6]", "contains NaN"),
        ("mean_eigenvalues = 7.3e-4", "has to have shape (2,)"),
    ],
    "q1_critical_scale": [
        ("critical_scale = 64e-4 / 4.7", "the square of s"),
        ("critical_scale = (1e-4 / 4.7)**0.5", "have the variance s^2 / 64"),
        ("critical_scale = (2e-4 / 4.7)**0.5", "Take their mean"),
        ("critical_scale = 1.0", "Solve s^2"),
    ],
    "q2_first_task": [
        (table(fresh=(70, 75, 70, 82, 74)), "before anything was learned"),
        (table(going=(14, 86, 75, 47, 41), fresh=(14, 75, 70, 82, 74)), "all 130 steps"),
        ("accuracies = np.full((5, 2), 0.8)", "percent are asked for"),
        ("accuracies = np.full((2, 5), 80.0)", "has to have shape (5, 2)"),
    ],
    "q2_restart": [
        (table(going=(83, 75, 70, 82, 74), fresh=(83, 86, 75, 47, 41)), "in the first column"),
        (table(fresh=(83, 15, 12, 9, 11)), "does it begin at `start`"),
        (table(fresh=(83, 15, 12, 9, 110)), "between 0 and 100"),
    ],
    "q2_going_on": [
        (table(going=(83, 12, 15, 9, 11)), "Is it trained on each task"),
        (table(going=(83, 75, 70, 82, 74)), "from where the task before has left it"),
        (table(going=(83, 91, 94, 95, 95), fresh=(83, 77, 74, 77, 77)), "its own order"),
        (table(going=(82, 90, 77, 7, 9), fresh=(82, 71, 76, 79, 83)), "Is this one seed"),
    ],
    "q3_growth": [
        (growth("s * layers"), "Do their factors add up"),
        (growth("s ** (layers - 1)"), "one matrix is missing"),
        (growth("s"), "only one matrix"),
        (growth("layers ** s"), "What is relu(s t)"),
        ("def growth(s, layers):\n    s ** layers", "returned nothing"),
    ],
    "q3_usual_anchor": [
        (lost((87, 73, 10, 9), (94, 93, 10, 9)), "belongs in the first row"),
        (lost((94, 93, 10, 9), (94, 93, 10, 9)), "both rows are equal"),
        (lost((94, 94, 94, 94), (88, 88, 88, 88)), "hardly changes with s"),
        (lost((60, 50, 10, 9), (50, 40, 10, 9)), "one number for each seed"),
        ("lost = np.zeros((4, 2))", "has to have shape (2, 4)"),
    ],
    "q3_which_suffers": [
        (lost(large=(87, 86.9, 10, 9)), "which row should lose more"),
        (lost(large=(87, 84, 10, 9)), "Is its gamma 0.03"),
    ],
    "q3_too_large": [
        (lost((94, 93, 92, 91), (87, 76, 75, 74)), "Is it the anchor that has this scale"),
        ("lost = None", "has no value yet"),
    ],
    "q4_nothing_built": [
        (learned(RANK), "is this what the anchor lends"),
        (learned("W - A"), "has to be one number"),
        (learned("jnp.sum((W - A)**2) / jnp.sum((W - A)**2)"), "is nan"),
        (learned("jnp.log(jnp.sum((W - A)**2))"), "is -inf"),
    ],
    "q4_start": [
        (learned("jnp.linalg.norm(W - A) / jnp.linalg.norm(A)"), "untrained start gets"),
    ],
    "q4_decay_alone": [
        (
            learned("jnp.linalg.norm(W - A) * jnp.linalg.norm(W - W0)"),
            "lies along W0 - A",
        ),
    ],
    "q4_rounding": [
        (learned("0.0"), "is it zero always"),
        (
            learned("jnp.linalg.matrix_rank(W - A)"),
            "count directions and forget their size",
        ),
    ],
}
