"""Time one step of symmetrized inference beside one of mean field, in matrix factorization.

All steps are Adam's, of the same isotropic Gaussian, in float32, many in one compiled scan. The
variants are timed in turn, so that other load hits all alike; ratios within one run are what to
read. "sampled" estimates the whole bound from one reparameterized draw, "closed" knows all but the
divergence of symmetrization in closed form, as `symlib.factorization.fit_matrix` does. The
symmetrized sampled step uses the draw that the mean-field one has anyway. NumPyro's steps have the
same model and the same guide.
"""

import math
import os
import platform
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from symcourse.experiments._training import make_step
from symlib.factorization import expected_log_joint, generate_ratings, matrix_log_joint, predict
from symlib.groups import rotation_log_ratio, stack_rows
from symlib.posteriors import IsotropicGaussian

SETTINGS = {
    "seed": 11,
    "num_traits": 20,
    "noise_variance": 4.0,
    "learning_rate": 0.01,
    # n = m, and the number of steps in one timed call: about a second.
    "sizes": {"40": 1000, "1000": 40},
    "repeats": 9,
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = "n = m = 5", {"num_traits": 2, "sizes": {"5": 2}, "repeats": 1}
START_VARIANCE = math.exp(-4)
PLAIN = {"sampled": "mean field, sampled", "closed": "mean field, closed"}


def cases(settings):
    """Return one case for each size."""
    return [(f"n = m = {size}", {"size": int(size)}) for size in settings["sizes"]]


def run_case(settings, case, key):
    """Return the seconds a step of every variant, the median of the repeats."""
    size, steps = case["size"], settings["sizes"][str(case["size"])]
    data_key, start_key, run_key = jax.random.split(key, 3)
    data = generate_ratings(
        data_key, size, size, settings["num_traits"], settings["noise_variance"]
    )
    ratings = data.ratings
    row_key, column_key = jax.random.split(start_key)
    shape = (size, settings["num_traits"])
    mean = jax.random.normal(row_key, shape), jax.random.normal(column_key, shape)
    runs = _ours(settings, ratings, mean, steps) | _numpyro(settings, ratings, mean, steps)
    keys = jax.random.split(run_key, steps)
    compiled = {name: jax.jit(run).lower(keys).compile() for name, run in runs.items()}
    seconds = {name: [] for name in compiled}
    for _ in range(settings["repeats"]):
        for name, run in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(run(keys))
            seconds[name].append((time.perf_counter() - start) / steps)
    return {name: float(np.median(times)) for name, times in seconds.items()}


def summarise(settings, results):
    """Return ratios: symmetrized to plain, and NumPyro's steps to ours."""
    values = {"cores": os.cpu_count(), "processor": platform.machine()}
    for name, seconds in results.items():
        values[name] = {
            "symmetrized_to_plain": {
                kind: seconds[f"symmetrized, {kind}"] / seconds[plain]
                for kind, plain in PLAIN.items()
            },
            "numpyro_to_ours": {
                kind: seconds[f"NumPyro, {kind}"] / seconds[f"{kind}, sampled"]
                for kind in ("mean field", "symmetrized")
            },
            "closed_to_sampled": seconds["mean field, closed"] / seconds["mean field, sampled"],
            "milliseconds": {kind: 1e3 * value for kind, value in seconds.items()},
        }
    return values


def _ours(settings, ratings, mean, steps):
    def sampled(q, key):
        X = q.sample(key)
        return matrix_log_joint(X, ratings) + q.entropy(), X

    def closed(q, key):
        return expected_log_joint(q, ratings) + q.entropy(), None

    def symmetrized(form):
        def objective(q, key):
            bound, X = form(q, key)
            X = q.sample(key) if X is None else X
            return bound + rotation_log_ratio(stack_rows(X), stack_rows(q.mean), q.variance)

        return objective

    def plain(form):
        return lambda q, key: form(q, key)[0]

    optimizer = optax.adam(settings["learning_rate"])

    def scan(objective):
        def run(keys):
            step = make_step(lambda q, key: -objective(q, key), optimizer)
            q = IsotropicGaussian(mean, START_VARIANCE)
            return jax.lax.scan(step, (q, optimizer.init(q)), (keys,))

        return run

    return {
        "mean field, sampled": scan(plain(sampled)),
        "symmetrized, sampled": scan(symmetrized(sampled)),
        "mean field, closed": scan(plain(closed)),
        "symmetrized, closed": scan(symmetrized(closed)),
    }


def _numpyro(settings, ratings, mean, steps):
    try:
        import numpyro
        import numpyro.distributions as dist
        from numpyro.infer import SVI, Trace_ELBO
    except ImportError as error:
        raise ImportError("This experiment needs NumPyro: pip install numpyro") from error
    scale = math.sqrt(settings["noise_variance"])

    def parameters():
        U, V = numpyro.param("U_mean", mean[0]), numpyro.param("V_mean", mean[1])
        return U, V, jnp.exp(numpyro.param("log_variance", jnp.log(START_VARIANCE)))

    def guide():
        U, V, variance = parameters()
        for name, location in (("U", U), ("V", V)):
            numpyro.sample(name, dist.Normal(location, jnp.sqrt(variance)).to_event(2))

    def model(symmetrized):
        X = tuple(
            numpyro.sample(name, dist.Normal(jnp.zeros_like(location), 1.0).to_event(2))
            for name, location in zip("UV", mean, strict=True)
        )
        numpyro.sample("R", dist.Normal(predict(X), scale).to_event(2), obs=ratings.values)
        if symmetrized:
            # log q* - log q~ turns the guide's density into that of its mixture.
            U, V, variance = parameters()
            ratio = rotation_log_ratio(stack_rows(X), jnp.concatenate([U, V]), variance)
            numpyro.factor("symmetrization", ratio)

    runs = {}
    for name, symmetrized in (("mean field", False), ("symmetrized", True)):
        optimizer = numpyro.optim.Adam(settings["learning_rate"])
        svi = SVI(lambda s=symmetrized: model(s), guide, optimizer, Trace_ELBO())
        state = svi.init(jax.random.key(0))
        # NumPyro keeps its own key in the state; `keys` sets the number of steps.
        runs[f"NumPyro, {name}"] = lambda keys, svi=svi, state=state: jax.lax.scan(
            lambda state, _: svi.update(state), state, keys
        )
    return runs
