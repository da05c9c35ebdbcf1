"""A photograph with holes: matrix factorization of data that no model made.

Blocks of a grey photograph of a Chinese temple are hidden at random and predicted with twenty
traits. The noise variance of each method is chosen by nine tenths of the seen blocks against one
tenth. Three draws of the holes; the pictures of the first are stored.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_sample_image

from symlib.factorization import (
    Ratings,
    fit_matrix,
    map_ascent,
    matrix_gibbs,
    mean_field_ascent,
)

SETTINGS = {
    "seed": 1,
    "block": 8,
    "hidden_shares": [0.4, 0.75],
    "masks": 3,
    "noise_variances": [0.03, 0.1, 0.3],
    "num_traits": 20,
    "steps": 1000,
    "ascent_steps": 150,
    "sweeps": 200,
    "methods": ["exact Bayes", "MAP", "mean field", "symmetrized", "isotropic mean field"]
    + ["symmetrized, elementwise"],
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = (
    "40% hidden, mask 1",
    {"block": 53, "noise_variances": [0.03, 0.3], "num_traits": 2, "steps": 20}
    | {"ascent_steps": 10, "sweeps": 20, "methods": ["mean field", "symmetrized"]},
)
DARKEST, LIGHTEST = -2.5, 2.5  # standard deviations; the grey levels between are stored


def cases(settings):
    """Return one case for each share of hidden blocks and draw of the holes."""
    return [
        (f"{share:.0%} hidden, mask {mask}", {"share": share, "mask": mask})
        for share in settings["hidden_shares"]
        for mask in range(settings["masks"])
    ]


@functools.cache
def _methods(k, steps, ascent_steps, sweeps):
    """Return the methods, compiled once for all cases: (key, ratings) -> prediction."""
    fit = functools.partial(fit_matrix, num_traits=k, steps=steps, num_samples=2)
    methods = {
        "exact Bayes": lambda key, R: matrix_gibbs(key, R, k, num_sweeps=sweeps).prediction,
        "MAP": lambda key, R: map_ascent(key, R, k, steps=ascent_steps)[0].prediction,
        "mean field": lambda key, R: mean_field_ascent(key, R, k, steps=ascent_steps)[0].prediction,
        "isotropic mean field": lambda key, R: fit(key, R, symmetrize=False).prediction,
        "symmetrized": lambda key, R: fit(key, R).prediction,
        "symmetrized, elementwise": lambda key, R: fit(key, R, covariance="diagonal").prediction,
    }
    return {name: jax.jit(method) for name, method in methods.items()}


def photograph(block):
    """Return the photograph in blocks, float of shape (424 / block, 640 / block)."""
    photo = load_sample_image("china.jpg").mean(axis=2)[:424]
    rows, columns = (size // block for size in photo.shape)
    photo = photo[: rows * block, : columns * block].reshape(rows, block, columns, block)
    return photo.mean(axis=(1, 3))


def holes(settings, share, mask, shape):
    """Return two masks: which blocks are hidden, and which of the others check the noise."""
    key = jax.random.fold_in(jax.random.key(settings["seed"]), mask)
    hidden_key, check_key = jax.random.split(key)
    hidden = np.asarray(jax.random.uniform(hidden_key, shape) < share)
    check = np.asarray(jax.random.bernoulli(check_key, 0.1, shape)) & ~hidden
    return hidden, check


def run_case(settings, case, key):
    """Return the errors on hidden blocks of every method, and what it keeps of its traits."""
    with jax.enable_x64(True):
        photo = photograph(settings["block"])
        hidden, check = holes(settings, case["share"], case["mask"], photo.shape)
        seen = ~hidden & ~check
        scaled = (photo - photo[seen].mean()) / photo[seen].std()
        spectrum = np.linalg.svd(scaled, compute_uv=False)
        found = {
            "spectrum": [float(f"{value:.4g}") for value in spectrum[: settings["num_traits"]]]
        }
        if case["mask"] == 0:
            found["photograph"] = _grey(scaled)
            found["hidden"] = "".join(str(int(one)) for one in hidden.ravel())
        numbers = (settings[name] for name in ("num_traits", "steps", "ascent_steps", "sweeps"))
        methods = _methods(*numbers)
        for name in settings["methods"]:
            predictions = [
                np.asarray(
                    methods[name](key, Ratings(jnp.asarray(scaled), noise, jnp.asarray(seen)))
                )
                for noise in settings["noise_variances"]
            ]
            check_errors, hidden_errors = (
                [float(np.sqrt(np.mean((one - scaled)[mask] ** 2))) for one in predictions]
                for mask in (check, hidden)
            )
            best = int(np.argmin(check_errors))
            values = np.linalg.svd(predictions[best], compute_uv=False)
            found[name] = {
                "check": check_errors,
                "hidden": hidden_errors,
                "noise_variance": settings["noise_variances"][best],
                "error": hidden_errors[best],
                "singular_values": [float(f"{v:.4g}") for v in values[: settings["num_traits"]]],
            }
            if case["mask"] == 0:
                found[name]["picture"] = _grey(predictions[best])
        return found


def _grey(image):
    """Return an image as text: a level from 00 to ff for each block, row after row."""
    levels = (np.clip(image, DARKEST, LIGHTEST) - DARKEST) / (LIGHTEST - DARKEST)
    return np.round(255 * levels).astype(np.uint8).tobytes().hex()


def summarise(settings, results):
    """Return, for each share and method, the error on hidden blocks for every draw of the holes."""
    values = {"error": {}, "kept": {}}
    for share in settings["hidden_shares"]:
        start = f"{share:.0%} hidden"
        runs = [result for name, result in results.items() if name.startswith(start)]
        methods = [name for name, one in runs[0].items() if isinstance(one, dict)]
        values["error"][f"{share:.0%}"] = {
            name: [run[name]["error"] for run in runs] for name in methods
        }
        values["kept"][f"{share:.0%}"] = {
            name: [int(np.sum(np.array(run[name]["singular_values"]) > 0.1)) for run in runs]
            for name in methods
        }
    return values
