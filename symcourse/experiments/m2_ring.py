"""The ring of Moore's Figure 2: the symmetrized fit with n = m = 1 and two traits, over r.

R is r / sqrt(2) with noise variance 1/2, so that r is the product of two vectors and noise of
variance 1. Stored are the means of u and v and the variance of the base.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from symlib.factorization import Ratings, fit_matrix

SETTINGS = {
    "seed": 0,
    "r": [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0],
    "steps": 2500,
    "learning_rate": 0.02,
    "final_draws": 1000,
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = "r = 2.0", {"r": [2.0], "steps": 50, "final_draws": 20}


def cases(settings):
    """Return one case for each r."""
    return [(f"r = {r:.1f}", {"r": r}) for r in settings["r"]]


@functools.cache
def _fit(steps, learning_rate, final_draws):
    """Return the fit, compiled once for all cases."""

    @jax.jit
    def fit_one(key, r):
        ratings = Ratings(r[None, None] / jnp.sqrt(2), 0.5)
        return fit_matrix(
            key,
            ratings,
            2,
            steps=steps,
            learning_rate=learning_rate,
            num_samples=final_draws,
        )

    return fit_one


def run_case(settings, case, key):
    """Return the base, its bound, and the predicted product."""
    with jax.enable_x64(True):
        fit_one = _fit(*(settings[name] for name in ("steps", "learning_rate", "final_draws")))
        found = fit_one(jax.random.key(settings["seed"]), jnp.asarray(case["r"]))
        return {
            "u": np.asarray(found.base.mean[0][0]).tolist(),
            "v": np.asarray(found.base.mean[1][0]).tolist(),
            "variance": float(found.base.variance),
            "bound": float(found.bound),
            "product": float(found.prediction[0, 0]) * 2**0.5,
        }


def summarise(settings, results):
    """Return lists over r."""
    runs = list(results.values())
    return {"r": settings["r"]} | {name: [run[name] for run in runs] for name in runs[0]}
