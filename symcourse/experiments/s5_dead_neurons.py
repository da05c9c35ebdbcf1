"""Dead neurons in reparametrized regression (Ziyin, Xu & Chuang 2024, Fig. 3, right).

The model is (u * w)^T x with u, w, x in R^200, trained on the squared error by SGD, one example at
a time. The point u_i = w_i = 0 is the mirror of a sign flip; a neuron near it is dead. The paper
states the model, the size, and W-fix's fraction .3 and size .01, and shows a collapse. It does not
state the data, the start, the step size or the decay: ours are below. The label noise and the step
size are large on purpose, since gradient noise that is proportional to the weights is what shrinks
them without any decay.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from symcourse.experiments._training import make_step, mean_error
from symlib.syre import anchored_decay, decay_to_initial, fix_weights

SETTINGS = {
    "seed": 2024,
    "size": 200,
    "examples": 1000,
    "noise": 1.0,
    "relevant": {"sparse": 20, "dense": 200},  # inputs that the labels depend on
    "start": 0.1,
    "seeds": 10,
    "steps": 20_000,
    "stops": 40,
    "learning_rate": 0.02,
    "gamma": 0.01,
    "fraction": 0.3,
    "frozen_sigma": 0.01,
    "relative_sigma0s": [0.01, 0.1, 1.0],  # times 1 / sqrt(200); the first is the default
    "thresholds": [1e-3, 1e-2],
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = (
    "sparse, W-fix and decay",
    {"size": 12, "examples": 30, "relevant": {"sparse": 3}, "seeds": 2, "steps": 200, "stops": 2},
)


def cases(settings):
    """Return one case for each kind of teacher and method."""
    methods = ["plain", "weight decay", "W-fix", "W-fix and decay", "L2 Init"]
    methods += [f"syre {sigma}" for sigma in settings["relative_sigma0s"]]
    return [
        (f"{teacher}, {method}", {"teacher": teacher, "method": method})
        for teacher in settings["relevant"]
        for method in methods
    ]


def run_case(settings, case, key):
    """Return, for each seed, counts of dead neurons and the excess error along the run."""
    keys = jax.random.split(jax.random.key(settings["seed"]), settings["seeds"])
    with jax.enable_x64(True):
        # The keys do not depend on the case: all methods share data, starts and batches.
        run = functools.partial(_run, settings, **case)
        dead, error, free = jax.jit(jax.vmap(run))(keys)
    return {
        "dead": [np.asarray(dead[:, :, i]).tolist() for i in range(len(settings["thresholds"]))],
        "excess_error": np.round(np.asarray(error), 6).tolist(),
        "never_frozen": np.asarray(free).tolist(),
    }


def _run(settings, key, teacher, method):
    size, count = settings["size"], settings["examples"]
    inputs_key, teacher_key, noise_key, start_key, method_key, steps_key = jax.random.split(key, 6)
    inputs = jax.random.normal(inputs_key, (count, size))
    relevant = settings["relevant"][teacher]
    target = jax.random.normal(teacher_key, (size,)) / math.sqrt(relevant)
    target = jnp.where(jnp.arange(size) < relevant, target, 0)
    labels = inputs @ target + settings["noise"] * jax.random.normal(noise_key, (count,))
    params = tuple(settings["start"] * jax.random.normal(start_key, (2, size)))
    start = params
    gamma, optimizer = settings["gamma"], optax.sgd(settings["learning_rate"])
    parts = [optimizer]
    if method in ("weight decay", "W-fix and decay"):
        parts.insert(0, optax.add_decayed_weights(2 * gamma))
    elif method == "L2 Init":
        parts.insert(0, decay_to_initial(gamma))
    elif method.startswith("syre"):
        sigma = float(method.split()[1]) / math.sqrt(size)
        parts.insert(0, anchored_decay(method_key, gamma=gamma, sigma0=sigma))
    if method.startswith("W-fix"):
        params, hold = fix_weights(
            params, method_key, settings["fraction"], settings["frozen_sigma"]
        )
        parts.append(hold)
    optimizer = optax.chain(*parts)

    def loss(params, key):
        i = jax.random.randint(key, (), 0, count)
        return (inputs[i] @ (params[0] * params[1]) - labels[i]) ** 2

    step = make_step(loss, optimizer)

    def measure(params):
        u, w = params
        larger = jnp.maximum(jnp.abs(u), jnp.abs(w))
        dead = jnp.stack([jnp.sum(larger < c) for c in settings["thresholds"]])
        return dead, jnp.sum((u * w - target) ** 2)

    def block(carry, keys):
        return jax.lax.scan(step, carry, (keys,))[0], measure(carry[0])

    stops = settings["stops"]
    keys = jax.random.split(steps_key, (stops, settings["steps"] // stops))
    carry, path = jax.lax.scan(block, (params, optimizer.init(params)), keys)
    dead, error = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), path, measure(carry[0]))
    never_frozen = jnp.sum((params[0] == start[0]) & (params[1] == start[1]))
    return dead, error, never_frozen


def summarise(settings, results):
    """Return, for each case, means and standard errors over the seeds along the run."""
    stops = settings["stops"]
    values = {"steps": [settings["steps"] // stops * i for i in range(stops + 1)], "rows": {}}
    for name, result in results.items():
        values["rows"][name] = {
            "dead": [_named(one) for one in result["dead"]],
            "excess_error": _named(result["excess_error"]),
            "never_frozen": float(np.mean(result["never_frozen"])),
        }
    return values


def _named(samples):
    return dict(zip(("mean", "error"), mean_error(samples), strict=True))
