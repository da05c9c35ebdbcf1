"""How many traits? The symmetrized bound and the true evidence over k, for data of five traits.

For each number of traits k, up to the size of the matrix: log p(R) by annealing with its standard
error, the bounds of mean field and of the symmetrized posterior, the paper's printed formula at the
base that maximises it, and the error of each prediction against the ratings without noise.
"""

import jax
import jax.numpy as jnp
import numpy as np

from symcourse.experiments.m7_matrix_evidence import fit_printed, printed_bound
from symlib.factorization import (
    fit_matrix,
    generate_ratings,
    log_evidence,
    matrix_map_estimate,
    matrix_mean_field,
)

SETTINGS = {
    "seed": 9,
    "size": 40,
    "true_traits": 5,
    "noise_variance": 1.0,
    "data_sets": 3,
    "traits": [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30, 40],
    "steps": 1000,
    "temperatures": 2000,
    "chains": 20,
    "final_draws": 200,
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = (
    "k = 2",
    {"size": 6, "true_traits": 1, "data_sets": 1, "steps": 50}
    | {"temperatures": 100, "chains": 4, "final_draws": 20},
)


def cases(settings):
    """Return one case for each number of traits."""
    return [(f"k = {k}", {"num_traits": k}) for k in settings["traits"]]


def run_case(settings, case, key):
    """Return, for each data set, bounds with standard errors and root mean square errors."""
    with jax.enable_x64(True):
        keys = jax.random.split(key, settings["data_sets"])
        return [_one(settings, case["num_traits"], i, key) for i, key in enumerate(keys)]


def _one(settings, k, index, key):
    size, tau = settings["size"], settings["noise_variance"]
    # The same data for every k.
    data_key = jax.random.fold_in(jax.random.key(settings["seed"]), index)
    data = generate_ratings(data_key, size, size, settings["true_traits"], tau)
    evidence_key, fit_key, printed_key, draw_key = jax.random.split(key, 4)
    annealing = settings["temperatures"], settings["chains"]
    symmetrized = fit_matrix(fit_key, data.ratings, k, steps=settings["steps"])
    isotropic = fit_matrix(fit_key, data.ratings, k, symmetrize=False, steps=settings["steps"])
    mean_field = matrix_mean_field(data.ratings, k)
    listing = settings | {"num_traits": k}
    printed = fit_printed(listing, printed_key, data.ratings)
    bounds = {
        "log_evidence": log_evidence(evidence_key, data.ratings, k, *annealing),
        "symmetrized": (symmetrized.bound, symmetrized.bound_error),
        "isotropic_mean_field": (isotropic.bound, isotropic.bound_error),
        "mean_field": (mean_field.objective, 0.0),
        "printed": printed_bound(listing, draw_key, printed, data.ratings),
    }
    predictions = {
        "symmetrized": symmetrized.prediction,
        "mean_field": mean_field.prediction,
        "map": matrix_map_estimate(data.ratings, k).prediction,
    }
    return {
        "bounds": {name: [float(value), float(error)] for name, (value, error) in bounds.items()},
        "rmse": {
            name: float(jnp.sqrt(jnp.mean((prediction - data.truth) ** 2)))
            for name, prediction in predictions.items()
        },
    }


def summarise(settings, results):
    """Return arrays over (data set, k), and the best k by each bound."""
    runs = list(results.values())
    values = {"traits": settings["traits"], "bounds": {}, "errors": {}, "best": {}, "rmse": {}}
    for name in runs[0][0]["bounds"]:
        table = np.array([[one["bounds"][name] for one in run] for run in runs])
        values["bounds"][name] = table[:, :, 0].T.tolist()
        values["errors"][name] = table[:, :, 1].T.tolist()
        best = np.argmax(table[:, :, 0], axis=0)
        values["best"][name] = [settings["traits"][i] for i in best]
    for name in runs[0][0]["rmse"]:
        values["rmse"][name] = np.array(
            [[one["rmse"][name] for one in run] for run in runs]
        ).T.tolist()
    return values
