"""The evidence at the setting of Moore's Figure 4: bounds, the printed "bound", and the truth.

For matrices of 40 by 40 ratings with 20 traits and noise of standard deviation 2, annealing
forwards and backwards encloses log p(R). Beside it stand the bounds of mean field and of the
symmetrized posterior, and what the paper's formula gives in their place: at the same base, and at
the base that maximises it.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from symlib.factorization import (
    expected_log_joint,
    fit_matrix,
    generate_ratings,
    log_evidence,
    log_evidence_upper,
    matrix_mean_field,
)
from symlib.groups import printed_log_ratio, stack_rows
from symlib.inference import fit
from symlib.posteriors import IsotropicGaussian

SETTINGS = {
    "seed": 4,
    "matrices": 6,
    "size": 40,
    "num_traits": 20,
    "noise_variance": 4.0,
    "steps": 1000,
    "temperatures": 3000,
    "chains": 20,
    "final_draws": 500,
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = (
    "matrix 0",
    {"size": 6, "num_traits": 2, "steps": 50, "temperatures": 100, "chains": 4, "final_draws": 20},
)


def cases(settings):
    """Return one case for each matrix."""
    return [(f"matrix {index}", {"index": index}) for index in range(settings["matrices"])]


def run_case(settings, case, key):
    """Return values and standard errors of all quantities, in nats."""
    with jax.enable_x64(True):
        k, tau = settings["num_traits"], settings["noise_variance"]
        data_key, *keys = jax.random.split(key, 6)
        data = generate_ratings(data_key, settings["size"], settings["size"], k, tau)
        annealing = settings["temperatures"], settings["chains"]
        mended = fit_matrix(
            keys[2],
            data.ratings,
            k,
            steps=settings["steps"],
            num_samples=settings["final_draws"],
        )
        plain = fit_matrix(keys[2], data.ratings, k, symmetrize=False, steps=settings["steps"])
        printed = fit_printed(settings, keys[3], data.ratings)
        evaluate = functools.partial(printed_bound, settings, keys[4], ratings=data.ratings)
        found = {
            "log_evidence": log_evidence(keys[0], data.ratings, k, *annealing),
            "log_evidence_upper": log_evidence_upper(
                keys[1], data.factors, data.ratings, *annealing
            ),
            "symmetrized": (mended.bound, mended.bound_error),
            "isotropic_mean_field": (plain.bound, plain.bound_error),
            "mean_field": (matrix_mean_field(data.ratings, k).objective, 0.0),
            "printed": evaluate(base=printed),
            "printed_same_base": evaluate(base=mended.base),
            "printed_matrix_same_base": evaluate(base=mended.base, method="calibrated"),
        }
        return {name: [float(value), float(error)] for name, (value, error) in found.items()}


def printed_bound(settings, key, base, ratings, method="moore"):
    """Return what Moore's Listing 1 takes for a bound, and its standard error."""

    def draw(key):
        return printed_log_ratio(
            stack_rows(base.sample(key)), stack_rows(base.mean), base.variance, method
        )

    draws = jax.lax.map(draw, jax.random.split(key, settings["final_draws"]), batch_size=50)
    value = expected_log_joint(base, ratings) + base.entropy()
    return value + jnp.mean(draws), jnp.std(draws, ddof=1) / math.sqrt(len(draws))


def summarise(settings, results):
    """Return the excess of every quantity over the evidence, in nats, for each matrix.

    The evidence is the mean of the two annealed values, and their difference is beside it.
    """
    table = {
        name: np.array([result[name] for result in results.values()])
        for name in next(iter(results.values()))
    }
    lower, upper = table.pop("log_evidence"), table.pop("log_evidence_upper")
    middle = (lower[:, 0] + upper[:, 0]) / 2
    values = {
        "log_evidence": middle.tolist(),
        "sandwich": {
            "difference": (upper[:, 0] - lower[:, 0]).tolist(),
            "error": np.hypot(lower[:, 1], upper[:, 1]).tolist(),
        },
    }
    for name, rows in table.items():
        excess = rows[:, 0] - middle
        values[name] = {
            "excess": excess.tolist(),
            "mean": float(excess.mean()),
            "standard_error": float(excess.std(ddof=1) / math.sqrt(len(excess))),
            "largest_bound_error": float(rows[:, 1].max()),
        }
    return values


def fit_printed(settings, key, ratings):
    """Return the base that maximises the printed formula."""
    k = settings["num_traits"]

    def initialize(key):
        row_key, column_key = jax.random.split(key)
        n, m = ratings.shape
        mean = jax.random.normal(row_key, (n, k)), jax.random.normal(column_key, (m, k))
        return IsotropicGaussian(mean, math.exp(-4))

    def objective(base, key):
        value = expected_log_joint(base, ratings) + base.entropy()
        X, M = stack_rows(base.sample(key)), stack_rows(base.mean)
        return value + printed_log_ratio(X, M, base.variance)

    return fit(key, objective, initialize, steps=settings["steps"]).posterior
