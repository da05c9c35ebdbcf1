"""Eighty matrices of ratings: what six methods keep of twenty traits, and how well they predict.

n = m = 40, k = 20 and noise of standard deviation 2, the setting of Moore's Figure 4; one matrix
under ten sizes of noise; and three matrices of five traits (those of experiment M9), fitted with
the right number of traits and with twenty.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from symlib.factorization import (
    Ratings,
    fit_matrix,
    generate_ratings,
    matrix_gibbs,
    matrix_map_estimate,
    matrix_mean_field,
)

SETTINGS = {
    "seed": 7,
    "size": 40,
    "num_traits": 20,
    "noise_sd": 2.0,
    "tens": 8,
    "matrices_in_ten": 10,
    "noise_sds": [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0],
    "noise_seed": 20,
    "five_seed": 9,
    "five_matrices": 3,
    "five_noise_variance": 1.0,
    "shown": 21,  # singular values that are stored: the traits, and one more
    "shown_of_noise": 30,
    "steps": 400,
    "sweeps": 400,
    "methods": ["exact Bayes", "MAP", "mean field", "symmetrized", "isotropic mean field"]
    + ["symmetrized, elementwise"],
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = (
    "ten 0",
    {"size": 5, "num_traits": 2, "tens": 1, "matrices_in_ten": 2, "shown": 4, "steps": 20}
    | {"sweeps": 20, "methods": ["MAP", "mean field", "symmetrized"]},
)
MAIN = ("exact Bayes", "MAP", "mean field", "symmetrized")


def cases(settings):
    """Return one case for every ten matrices, one for the sizes of noise, two for five traits."""
    tens = [(f"ten {index}", {"ten": index}) for index in range(settings["tens"])]
    return [
        *tens,
        ("noise", {}),
        ("five traits, k = 5", {"k": 5}),
        ("five traits, k = 20", {"k": 20}),
    ]


@functools.cache
def _methods(k, steps, sweeps):
    """Return the methods, compiled once for all cases: (keys, ratings) -> results."""
    fit = functools.partial(fit_matrix, num_traits=k, steps=steps, num_samples=2)
    methods = {
        "exact Bayes": lambda key, R: matrix_gibbs(key, R, k, num_sweeps=sweeps),
        "MAP": lambda key, R: matrix_map_estimate(R, k),
        "mean field": lambda key, R: matrix_mean_field(R, k),
        "isotropic mean field": lambda key, R: fit(key, R, symmetrize=False),
        "symmetrized": lambda key, R: fit(key, R),
        "symmetrized, elementwise": lambda key, R: fit(key, R, covariance="diagonal"),
    }
    return {name: jax.jit(jax.vmap(method)) for name, method in methods.items()}


def run_case(settings, case, key):
    """Return singular values of the predictions and their root mean square errors."""
    with jax.enable_x64(True):
        if "ten" in case:
            return _ten(settings, case["ten"])
        return _five(settings, case["k"]) if "k" in case else _noise(settings)


def _draw(settings, keys, k, noise_variance):
    size = settings["size"]
    return jax.vmap(lambda key: generate_ratings(key, size, size, k, noise_variance))(keys)


def _summary(shown, predictions, truth):
    values = np.linalg.svd(predictions, compute_uv=False)[:, :shown]
    errors = np.sqrt(np.mean((np.asarray(predictions) - truth) ** 2, axis=(1, 2)))
    return {"singular_values": _short(values), "rmse": _short(errors, 6)}


def _short(array, digits=4):
    """Return nested lists of numbers with so many significant digits."""
    if np.ndim(array):
        return [_short(part, digits) for part in array]
    return float(f"{array:.{digits}g}")


def _ten(settings, index):
    count, k = settings["matrices_in_ten"], settings["num_traits"]
    total = settings["tens"] * count
    part = slice(index * count, (index + 1) * count)
    data_keys = jax.random.split(jax.random.key(settings["seed"]), total)[part]
    keys = jax.random.split(jax.random.key(settings["seed"] + 1), total)[part]
    data = _draw(settings, data_keys, k, settings["noise_sd"] ** 2)
    methods = _methods(k, settings["steps"], settings["sweeps"])
    found = {
        name: _summary(settings["shown"], method(keys, data.ratings).prediction, data.truth)
        for name, method in methods.items()
        if name in settings["methods"]
    }
    zero = np.sqrt(np.mean(np.square(data.truth), axis=(1, 2)))
    return found | {"zero": {"rmse": _short(zero, 6)}}


def _noise(settings):
    """Add the same noise in ten sizes to one matrix."""
    k, sds = settings["num_traits"], jnp.asarray(settings["noise_sds"])
    data_key, noise_variance = jax.random.key(settings["noise_seed"]), settings["noise_sd"] ** 2
    first = generate_ratings(data_key, settings["size"], settings["size"], k, noise_variance)
    truth = first.truth
    noise = (first.ratings.values - truth) / settings["noise_sd"]
    ratings = jax.vmap(lambda sd: Ratings(truth + sd * noise, sd**2))(sds)
    keys = jax.random.split(jax.random.key(2), len(sds))
    methods = _methods(k, settings["steps"], settings["sweeps"])
    shown = settings["noise_sds"].index(settings["noise_sd"])
    found = {}
    for name in MAIN:
        predictions = np.asarray(methods[name](keys, ratings).prediction)
        found[name] = _summary(settings["shown_of_noise"], predictions, np.asarray(truth))
        if name in ("exact Bayes", "symmetrized"):  # the others are in closed form
            found[name]["prediction"] = _short(predictions[shown], 3)
    return found


def _five(settings, k):
    """Fit matrices of five traits with k."""
    keys = [
        jax.random.fold_in(jax.random.key(settings["five_seed"]), index)
        for index in range(settings["five_matrices"])
    ]
    data = _draw(settings, jnp.stack(keys), 5, settings["five_noise_variance"])
    fit_keys = jax.random.split(jax.random.key(2), len(keys))
    methods = _methods(k, settings["steps"], settings["sweeps"])
    return {
        name: _summary(
            settings["shown"], methods[name](fit_keys, data.ratings).prediction, data.truth
        )
        for name in MAIN
    }


def summarise(settings, results):
    """Return the errors of all matrices, for each method; the singular values lie in the cases."""
    tens = [result for name, result in results.items() if name.startswith("ten")]
    return {"rmse": {name: [e for ten in tens for e in ten[name]["rmse"]] for name in tens[0]}}
