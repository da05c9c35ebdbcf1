"""Time every method of `log_hyp0f1`, Gibbs sampling and a zonal series side by side.

Seconds depend on the machine and on what else runs on it; ratios within one run are what to read.
All functions of this project are compiled before they are timed, and in float64.

The zonal series is summed by pyhypergeomatrix, Koev and Edelman's algorithm in Python. It has no
gradient, so its gradient is taken as k + 1 values. It pins an old NumPy and has a licence of its
own (GPL-3), so it is no part of the environment: `pip install --no-deps pyhypergeomatrix==0.1.0`.
"""

import functools
import os
import platform
import time

import jax
import jax.numpy as jnp
import numpy as np

from symlib.special import log_hyp0f1, log_hyp0f1_gibbs

SETTINGS = {
    "seed": 8,
    "k": [2, 4, 8, 20],
    "methods": ["calibrated", "laplace", "moore", "saddlepoint", "asymptotic"],
    "spectra": 200,  # in one call, by vmap
    "repeats": 31,
    "sweeps": 1000,
    "zonal_k": [3, 4, 5, 6],
    "zonal_ratios": [0.5, 1.0],  # the largest sigma, divided by k
    # Where the formula is exact, the series is asked for this error.
    "least_error": 1e-9,
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = (
    "methods, k=2",
    {"methods": ["calibrated", "laplace"], "spectra": 5, "repeats": 1, "sweeps": 20},
)


def cases(settings):
    """Return one case for each k of the methods, and for each k and size of the series."""
    methods = [(f"methods, k={k}", {"k": k}) for k in settings["k"]]
    zonal = [
        (f"zonal series, k={k}, sigma/k={ratio}", {"k": k, "ratio": ratio})
        for k in settings["zonal_k"]
        for ratio in settings["zonal_ratios"]
    ]
    return methods + zonal


def run_case(settings, case, key):
    """Return seconds for a spectrum, values and gradients."""
    with jax.enable_x64(True):
        if "ratio" in case:
            return _time_zonal(settings, case["k"], case["ratio"])
        return _time_methods(settings, case["k"], key)


def _time_methods(settings, k, key):
    spectra = jax.random.uniform(key, (settings["spectra"], k), maxval=2.0 * k)
    seconds = {}
    for method in settings["methods"]:
        function = functools.partial(log_hyp0f1, method=method)
        value, gradient = (
            jax.jit(jax.vmap(function)),
            jax.jit(jax.vmap(jax.value_and_grad(function))),
        )
        seconds[method] = {
            "value": _median(settings, value, spectra) / len(spectra),
            "value_and_gradient": _median(settings, gradient, spectra) / len(spectra),
        }
    sampler = functools.partial(log_hyp0f1_gibbs, num_sweeps=settings["sweeps"])
    _, error = sampler(key, spectra[0])
    seconds["gibbs"] = {
        "value": _median(settings | {"repeats": 3}, sampler, key, spectra[0]),
        "standard_error": float(error),
    }
    return seconds


def _time_zonal(settings, k, ratio):
    sigma = np.linspace(0.2, 1, k) * ratio * k
    value, gradient = jax.jit(log_hyp0f1), jax.jit(jax.value_and_grad(log_hyp0f1))
    found = float(value(jnp.asarray(sigma)))
    # Terms are positive, so the series rises to its limit: stop where it has stopped rising.
    sums, allowed = [_zonal(sigma, 1), _zonal(sigma, 2)], settings["least_error"]
    while sums[-1] - sums[-2] > allowed / 100:
        sums.append(_zonal(sigma, len(sums) + 1))
        allowed = max(settings["least_error"], abs(found - sums[-1]))
    degree = 1 + next(m for m, total in enumerate(sums) if abs(total - sums[-1]) <= allowed)

    batch = jnp.asarray(sigma) * jnp.linspace(0.9, 1, settings["spectra"])[:, None]
    return {
        "error": found - sums[-1],
        "error_allowed": allowed,
        "degree": degree,
        "zonal": {
            "value": _median(settings | {"repeats": 3}, _zonal, sigma, degree),
            "value_and_gradient": _median(
                settings | {"repeats": 3}, _zonal_gradient, sigma, degree
            ),
        },
        "calibrated_alone": {
            "value": _median(settings, value, batch[0]),
            "value_and_gradient": _median(settings, gradient, batch[0]),
        },
        "calibrated": {
            "value": _median(settings, jax.jit(jax.vmap(value)), batch) / len(batch),
            "value_and_gradient": _median(settings, jax.jit(jax.vmap(gradient)), batch)
            / len(batch),
        },
    }


def _zonal(sigma, degree):
    try:
        from pyhypergeomatrix.hypergeomat import hypergeomPQ
    except ImportError as error:
        raise ImportError(
            "The zonal series needs a package outside the environment: "
            "pip install --no-deps pyhypergeomatrix==0.1.0"
        ) from error
    return float(np.log(hypergeomPQ(degree, [], [len(sigma) / 2], sigma**2 / 4, 2)))


def _zonal_gradient(sigma, degree):
    value, step = _zonal(sigma, degree), 1e-5
    steps = step * np.eye(len(sigma))
    return value, [(_zonal(sigma + forward, degree) - value) / step for forward in steps]


def _median(settings, function, *arguments):
    """Return the median of the seconds of a call, after one that compiles."""
    jax.block_until_ready(function(*arguments))
    seconds = []
    for _ in range(settings["repeats"]):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def summarise(settings, results):
    """Return seconds, and ratios to the calibrated formula at the same k, in one batch."""
    methods, zonal = {}, {}
    for name, case in results.items():
        base = case["calibrated"]
        if "zonal" in case:
            zonal[name.removeprefix("zonal series, ")] = {
                "degree": case["degree"],
                "error": case["error"],
                "seconds": case["zonal"],
                "ratio": _ratio(case["zonal"], base),
                "ratio_one_at_a_time": _ratio(case["zonal"], case["calibrated_alone"]),
            }
        else:
            methods[name.removeprefix("methods, ")] = {
                method: {"seconds": seconds, "ratio": _ratio(seconds, base)}
                for method, seconds in case.items()
            }
    return {
        "methods": methods,
        "zonal": zonal,
        "machine": {
            "cores": os.cpu_count(),
            "architecture": platform.machine(),
            "system": platform.system(),
            "device": jax.devices()[0].platform,
        },
    }


def _ratio(seconds, base):
    return {what: seconds[what] / base[what] for what in base if what in seconds}
