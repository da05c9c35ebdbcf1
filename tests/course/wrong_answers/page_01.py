"""Known wrong answers of exercise page 01, each with words of the hint that it should get."""

ROWS = """
table = {name: {"sign": name in SIGN, "order": name in ORDER, "scale": name in SCALE}
         for name in ("tanh", "relu", "softplus", "sine", "cube")}
"""
ALL = '("tanh", "relu", "softplus", "sine", "cube")'


def table(sign='("tanh", "sine", "cube")', order=ALL, scale='("relu",)'):
    return f"SIGN, ORDER, SCALE = {sign}, {order}, {scale}\n{ROWS}"


WRONG = {
    "q1_stabiliser": [
        ("stabiliser_size = 6", "The two twos can change places"),
        ("stabiliser_size = 2", "The three ones can change places"),
        ("stabiliser_size = 10", "10 is the size of the orbit"),
        ("stabiliser_size = 5", "it is 5: the orders"),
        ("stabiliser_size = 120", "equal entries"),
        ("stabiliser_size = jnp.arange(12)", "has to be one number"),
        ("stabiliser_size = float('nan')", "is nan"),
    ],
    "q1_orbit": [
        ("orbit_size = 120", "many of them lead to the same point"),
        ("orbit_size = 12", "leave z where it is"),
        ("orbit_size = 20", "times that of the stabiliser"),
    ],
    "q1_arrangements": [
        ("arrangements = 720", "treats the twins as different"),
        ("arrangements = 15", "how large is the stabiliser"),
    ],
    "q2_flip": [
        ("def flip_second(theta):\n    theta.at[3:].multiply(-1)", "is a `return` missing"),
        ("def flip_second(theta):\n    return theta", "comes back as it went in"),
        ("def flip_second(theta):\n    return -theta", "belong to the first unit"),
        (
            "def flip_second(theta):\n    return theta * jnp.array([1, 1, 1, -1, 1, -1])",
            "keeps its sign",
        ),
        ("def flip_second(theta):\n    return theta.at[5].multiply(-1)", "only the outgoing"),
        ("def flip_second(theta):\n    return theta.at[3:5].multiply(-1)", "all three numbers"),
        ("def flip_second(t):\n    return theta.at[3:].multiply(-1)", "not its argument"),
        ("def flip_second(theta):\n    return -theta['w']", "stopped with an error"),
        ("def flip_second(theta):\n    return theta.reshape(2, 3)", "has to have shape (6,)"),
        ("flip_second = 3", "it is no function"),
    ],
    "q2_rank": [
        ("rank = 6", "the number of parameters"),
        ("rank = 1", "not one parameter"),
        ("rank = 2", "How many coordinates"),
    ],
    "q2_symmetric_point": [
        ("theta0 = theta", "is theta itself"),
        ("theta0 = jnp.zeros(6)", "zero is a symmetric point"),
        ("theta0 = theta.at[:3].set(0)", "moves this point"),
        ("theta0 = theta.at[0].set(0).at[3:].set(0)", "a nearer one exists"),
    ],
    "q3_sign": [
        ("table = [True] * 15", "has to be a dictionary"),
        ("table = {'tanh': {'sign': True}}", "no row for relu"),
        (table(sign=ALL), "the relu network stays"),
        (table(sign='("tanh", "sine")'), "the cube network changes"),
    ],
    "q3_order": [(table(order='("tanh",)'), "does the order of a sum matter")],
    "q3_scale": [
        (table(scale='("relu", "cube")'), "divided by s only"),
        (table(scale='("relu", "softplus")'), "the softplus network stays"),
    ],
    "q3_forgotten": [
        ("def forgot(unit):\n    return unit", "nothing has changed"),
        ("def forgot(unit):\n    return unit * jnp.array([2, 2, .5])", "does not notice it"),
        ("def forgot(unit):\n    return unit * jnp.array([2, 1, 1])", "exactly one of"),
        ("def forgot(unit):\n    return unit * jnp.array([2, 1, 3])", "have to move as in"),
        ("def forgot(unit):\n    return unit * jnp.array([-2, -2, 1])", "changed its sign"),
        ("def forgot(unit):\n    return unit * jnp.array([2, 2, 0])", "stays as it is"),
    ],
}
