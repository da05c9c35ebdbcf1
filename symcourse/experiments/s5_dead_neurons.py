"""Dead neurons in reparametrized regression (Ziyin, Xu & Chuang 2024, Fig. 3, right).

The model is (u * w)^T x with u, w, x in R^200, trained on the squared error by SGD, one example at
a time. The point u_i = w_i = 0 is the mirror of a sign flip; a neuron near it is dead. The paper
states the model, the size, and W-fix's fraction .3 and "variance kappa = .01". It states neither
the data, the start, the step size, the decay, sigma_0, nor the size below which a neuron is dead.

So each is varied, one at a time, from a centre: labels of 20 inputs with noise 1, a start of .1,
steps of .02, and gamma = .01 for gamma ||theta||^2, which is .02 as the paper counts. Noise and
step are large on purpose: gradient noise that is proportional to the weights shrinks them without
any decay. "W-fix" has the paper's variance, a standard deviation of .1; "W-fix sd 0.01" reads kappa
as a standard deviation. Syre starts at theta + theta_0.

A neuron counts as dead where max(|u_i|, |w_i|) is below a threshold; the count at the end is kept
for thresholds from 1e-8 to 1.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from symcourse.experiments._training import make_step, mean_error
from symlib.syre import anchored_decay, decay_to_initial, draw_anchor, fix_weights

SETTINGS = {
    "seed": 2024,
    "size": 200,
    "examples": 1000,
    "noise": 1.0,
    "relevant": 20,  # inputs that the labels depend on
    "start": 0.1,
    "seeds": 10,
    "steps": 20_000,
    "stops": 40,
    "learning_rate": 0.02,
    "gamma": 0.01,
    "fraction": 0.3,
    # The centre, then one change of it at a time.
    "variants": {
        "sparse": {},
        "dense": {"relevant": 200},
        "noise 0": {"noise": 0.0},
        "noise 0.3": {"noise": 0.3},
        "step 0.005": {"learning_rate": 0.005, "steps": 80_000},  # the same total step
        "step 0.005, 20000 steps": {"learning_rate": 0.005},
        "gamma 0.001": {"gamma": 0.001},
        "gamma 0.005": {"gamma": 0.005},  # the paper's .01, if it means gamma ||theta||^2 / 2
        "gamma 0.1": {"gamma": 0.1},
        "start 0.01": {"start": 0.01},
        "start 0.5": {"start": 0.5},
        "100000 steps": {"steps": 100_000},
        "100 examples": {"examples": 100},
    },
    "methods": ["plain", "weight decay", "W-fix", "W-fix sd 0.01", "syre 0.01", "syre 0.1"],
    "more_methods": ["W-fix and decay", "W-fix sd 0.01 and decay", "L2 Init"]
    + ["syre 0.003", "syre 0.03", "syre 0.3", "syre 1.0"],
    "with_more": ["sparse", "dense"],
    # Along the run, and at the end.
    "thresholds": [1e-3, 1e-2, 1e-4, 1e-5],
    "end_thresholds": [float(f"{10**exponent:.3g}") for exponent in np.arange(-8, 0.01, 0.25)],
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = (
    "sparse, W-fix and decay",
    {"size": 12, "examples": 30, "relevant": 3, "seeds": 2, "steps": 200, "stops": 2}
    | {"end_thresholds": [1e-3, 1e-2, 1e-1]},
)


def cases(settings):
    """Return one case for each variant and method: the centre first, then one change at a time."""
    return [
        (f"{variant}, {method}", {"variant": variant, "method": method})
        for variant in settings["variants"]
        for method in settings["methods"]
        + (settings["more_methods"] if variant in settings["with_more"] else [])
    ]


def run_case(settings, case, key):
    """Return, for each seed, counts of dead neurons and the excess error along the run."""
    settings = settings | settings["variants"][case["variant"]]
    keys = jax.random.split(jax.random.key(settings["seed"]), settings["seeds"])
    # The keys do not depend on the case: all methods share data, starts and batches.
    run = functools.partial(_run, settings, method=case["method"])
    sizes, error, free = jax.jit(jax.vmap(run))(keys)
    sizes = np.asarray(sizes)  # seeds, stops + 1, neurons
    if not np.isfinite(sizes).all():
        return {"diverged": int((~np.isfinite(sizes[:, -1])).any(axis=1).sum())}
    return {
        "dead": [(sizes < c).sum(axis=2).tolist() for c in settings["thresholds"]],
        "dead_at_end": [
            (sizes[:, -1] < c).sum(axis=1).tolist() for c in settings["end_thresholds"]
        ],
        "excess_error": [[float(f"{e:.5g}") for e in path] for path in np.asarray(error)],
        "never_frozen": np.asarray(free).tolist(),
    }


def _run(settings, key, method):
    size, count = settings["size"], settings["examples"]
    inputs_key, teacher_key, noise_key, start_key, method_key, steps_key = jax.random.split(key, 6)
    inputs = jax.random.normal(inputs_key, (count, size))
    relevant = settings["relevant"]
    target = jax.random.normal(teacher_key, (size,)) / math.sqrt(relevant)
    target = jnp.where(jnp.arange(size) < relevant, target, 0)
    labels = inputs @ target + settings["noise"] * jax.random.normal(noise_key, (count,))
    start = tuple(settings["start"] * jax.random.normal(start_key, (2, size)))
    params, transformation = _method(settings, start, method, method_key)

    def loss(params, i):
        return (inputs[i] @ (params[0] * params[1]) - labels[i]) ** 2

    step = make_step(loss, transformation)

    def measure(params):
        u, w = params
        return jnp.maximum(jnp.abs(u), jnp.abs(w)), jnp.sum((u * w - target) ** 2)

    def block(carry, places):
        return jax.lax.scan(step, carry, (places,))[0], measure(carry[0])

    stops = settings["stops"]
    places = jax.random.randint(steps_key, (stops, settings["steps"] // stops), 0, count)
    carry, path = jax.lax.scan(block, (params, transformation.init(params)), places)
    sizes, error = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), path, measure(carry[0]))
    never_frozen = jnp.sum((params[0] == start[0]) & (params[1] == start[1]))
    return sizes, error, never_frozen


def _method(settings, start, method, key):
    """Return the start and the optimizer of a method."""
    gamma, optimizer = settings["gamma"], optax.sgd(settings["learning_rate"])
    if method.startswith("W-fix"):
        sigma = 0.01 if "sd 0.01" in method else 0.1
        params, hold = fix_weights(start, key, settings["fraction"], sigma)
        parts = [optax.add_decayed_weights(2 * gamma)] if "decay" in method else []
        return params, optax.chain(*parts, optimizer, hold)
    if method.startswith("syre"):
        sigma = float(method.split()[1]) / math.sqrt(settings["size"])
        moved = jax.tree.map(jnp.add, start, draw_anchor(start, key, sigma)[0])
        return moved, optax.chain(anchored_decay(key, gamma=gamma, sigma0=sigma), optimizer)
    decays = {
        "plain": optax.identity(),
        "weight decay": optax.add_decayed_weights(2 * gamma),
        "L2 Init": decay_to_initial(gamma),
    }
    return start, optax.chain(decays[method], optimizer)


def summarise(settings, results):
    """Return, for each case, means and standard errors over the seeds."""
    stops = settings["stops"]
    values = {"steps": [settings["steps"] // stops * i for i in range(stops + 1)], "rows": {}}
    for name, result in results.items():
        if "diverged" in result:
            values["rows"][name] = result
            continue
        values["rows"][name] = {
            "dead": [_named(one) for one in result["dead"]],
            "dead_at_end": _named(np.transpose(result["dead_at_end"])),
            "excess_error": _named(result["excess_error"]),
            "never_frozen": float(np.mean(result["never_frozen"])),
        }
    return values


def _named(samples):
    mean, error = mean_error(samples)
    return {"mean": mean, "error": error}
