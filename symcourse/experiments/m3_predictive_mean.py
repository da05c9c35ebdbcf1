"""Figure 3 of Moore (2016) by stochastic inference: predictive means over r, ten starts each.

The chapter on symmetrized posteriors knows the optimum of the scalar model to 1e-10. This
experiment finds it as one would in a model without such luck: from draws, by Adam, from random
starts, for the mean-field and the symmetrized posterior.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from symlib.factorization import (
    scalar_exact,
    scalar_log_joint,
    scalar_mean_field,
    scalar_symmetrized,
)
from symlib.groups import SignFlip
from symlib.inference import elbo, fit
from symlib.posteriors import DiagonalGaussian, Symmetrized

SETTINGS = {
    "seed": 3,
    "r": [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0],
    "starts": 10,
    "steps": 4000,
    "learning_rate": 0.05,
    "draws": 32,  # a step
    "final_draws": 20000,  # for the bound at the end
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = "r=2.0", {"r": [2.0], "starts": 2, "steps": 300, "final_draws": 1000}


def cases(settings):
    """Return one case for each observed r."""
    return [(f"r={r:.1f}", {"r": r}) for r in settings["r"]]


def run_case(settings, case, key):
    """Fit both posteriors from every start; return products of means and bounds."""
    log_joint = functools.partial(scalar_log_joint, r=case["r"])
    fit_key, bound_key = jax.random.split(key)

    def objective(posterior, step_key):
        return elbo(step_key, log_joint, posterior, settings["draws"])[0]

    def mean_field(start_key):
        # Half a prior standard deviation from the origin: at the origin itself the gradient of
        # the mean is zero for every r.
        return DiagonalGaussian(0.5 * jax.random.normal(start_key, (2,)), jnp.ones(2))

    def symmetrized(start_key):
        return Symmetrized(mean_field(start_key), SignFlip(2))

    results = {}
    for name, initialize in (("mean_field", mean_field), ("symmetrized", symmetrized)):
        fits = fit(
            fit_key,
            objective,
            initialize,
            steps=settings["steps"],
            learning_rate=settings["learning_rate"],
            restarts=settings["starts"],
        ).posteriors
        base = fits.base if name == "symmetrized" else fits
        keys = jax.random.split(bound_key, settings["starts"])
        # One program: step by step, its hundred operations take longer to compile than to run.
        final = eqx.filter_vmap(
            lambda key, posterior: elbo(key, log_joint, posterior, settings["final_draws"])
        )
        bounds, errors = eqx.filter_jit(final)(keys, fits)
        results[name] = {
            "products": np.prod(base.mean, axis=1).tolist(),
            "bounds": bounds.tolist(),
            "bound_errors": errors.tolist(),
        }
    return results


def summarise(settings, results):
    """Return means and spreads over the starts, and the largest errors against the optimum."""
    r = jnp.asarray(settings["r"])
    optimum = {
        "mean_field": jax.vmap(scalar_mean_field)(r),
        "symmetrized": jax.vmap(scalar_symmetrized)(r),
    }
    exact = jax.vmap(scalar_exact)(r)
    values = {"r": settings["r"], "exact": np.asarray(exact.predictive_mean).tolist()}
    for name, best in optimum.items():
        products = np.array([result[name]["products"] for result in results.values()])
        bounds = np.array([result[name]["bounds"] for result in results.values()])
        errors = np.array([result[name]["bound_errors"] for result in results.values()])
        difference = products - np.asarray(best.predictive_mean)[:, None]
        bound_difference = bounds - np.asarray(best.elbo)[:, None]
        values[name] = {
            "mean": products.mean(axis=1).tolist(),
            "spread": products.std(axis=1, ddof=1).tolist(),
            "bound": bounds.mean(axis=1).tolist(),
            "largest_error": float(np.abs(difference).max()),
            "largest_error_of_mean": float(np.abs(difference.mean(axis=1)).max()),
            "largest_bound_error": float(np.abs(bound_difference).max()),
            "largest_bound_z": float(np.abs(bound_difference / errors).max()),
        }
    return values
