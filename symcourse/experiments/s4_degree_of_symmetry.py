"""Degree of symmetry against objective for five ways to train (Ziyin, Xu & Chuang 2024, Fig. 2).

Gradient descent on f(w) = (w^T w)^2 - w^T B w in 1000 dimensions from a standard Gaussian start,
with B = G + G^T ("unstructured") or diagonal ("structured"), both of standard Gaussian numbers.

In coordinates along the eigenvectors of B the loss is diagonal. So is the Gaussian law of the start
and of syre's anchor in any basis: all methods but W-fix and dropout run there. W-fix, which freezes
coordinates of w, runs along the eigenvectors of the block of B that is left free. Dropout needs a
product with B in every step.

The paper states the step size, the thresholds and the ranges of the parameters. It states neither
the number of steps, nor the variance of the start, nor syre's sigma_0, nor the size of W-fix's
frozen values: see the settings. Of sigma_0 it says elsewhere that a tenth of the start or less
works best: 3 / sqrt(d) from a start of variance 1, .1 / sqrt(d) from one of variance 1 / d. gamma
stands for gamma |w - anchor|^2; if the paper means a gradient gamma w, its gamma is twice ours, so
that the sweep starts at half of its smallest.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from symcourse.experiments._training import mean_error
from symlib.syre import degree_of_symmetry, draw_anchor, drop_weights, fix_weights

SETTINGS = {
    "seed": 2024,
    "size": 1000,
    "thresholds": {"unstructured": 1e-3, "structured": 1e-1},
    "seeds": 10,
    "steps": 100_000,
    "learning_rate": 1e-4,
    "gammas": [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0],
    # Times 1 / sqrt(1000): the paper's default, 0.01, and larger ones.
    "relative_sigma0s": [0.01, 0.1, 0.3, 1.0, 3.0, 10.0],
    "fractions": [0.001, 0.003, 0.01, 0.03, 0.1],
    "frozen_sigmas": [0.01, 0.1, 1.0],  # .1 is the "variance .01" of another figure
    "dropout_seeds": 5,
    "dropout_rates": [0.01, 0.03, 0.1, 0.3, 0.6],
    # At rate 0.6 dropout diverges from the start of the others; half of it does for all rates.
    "dropout_start": 0.5,
    # Standard deviation of the start. Dropout has its own.
    "starts": {"": 1.0, "small start": 1 / math.sqrt(1000)},
    # Plain gradient descent, looked at on its way.
    "stops": [500, 1000, 2000, 3000, 5000, 10_000, 20_000, 50_000, 100_000],
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = (
    "unstructured, syre",
    {"size": 6, "seeds": 2, "steps": 300, "learning_rate": 0.01, "gammas": [0.5, 5.0]}
    | {"relative_sigma0s": [0.1, 3.0]},
)

REACHED = [50, 100, 200, 300, 500, 700, 800, 900, 950, 990, 1000]
METHODS = ["syre", "W-fix", "plain", "weight decay", "dropout"]


def cases(settings):
    """Return one case for each start, spectrum and method."""
    return [
        (
            ", ".join(part for part in (spectrum, method, name) if part),
            {"spectrum": spectrum, "method": method, "start": start},
        )
        for name, start in settings["starts"].items()
        for spectrum in settings["thresholds"]
        for method in (METHODS if not name else METHODS[:-1])
    ]


def run_case(settings, case, key):
    """Return objective and degree of symmetry of each seed, in rows that name the parameters."""
    method = {
        "plain": _plain,
        "weight decay": _weight_decay,
        "syre": _syre,
        "W-fix": _fixed,
        "dropout": _dropout,
    }[case["method"]]
    with jax.enable_x64(True):
        rows = method(settings | {"start": case["start"]}, case["spectrum"], key)
    return [
        parameters
        | {"objective": np.ravel(objective).tolist(), "degree": np.ravel(degree).tolist()}
        for parameters, (objective, degree) in rows
    ]


def problem(settings, spectrum, seed):
    """Return B, its eigenvalues (ascending), its eigenvectors as rows, and a start."""
    return _problem(spectrum, settings["size"], settings["seed"], seed)


@functools.cache
def _problem(spectrum, size, *seeds):
    random = np.random.default_rng(seeds)
    if spectrum == "structured":
        values = random.normal(size=size)
        order = np.argsort(values)
        return np.diag(values), values[order], np.eye(size)[order], random.normal(size=size)
    gaussian = random.normal(size=(size, size))
    matrix = gaussian + gaussian.T
    values, columns = np.linalg.eigh(matrix)
    return matrix, values, columns.T, random.normal(size=size)


def _all_seeds(settings, spectrum):
    """Return the eigenvalues and the starts along the eigenvectors, shape (seeds, size)."""
    problems = [problem(settings, spectrum, seed) for seed in range(settings["seeds"])]
    values = jnp.stack([values for _, values, _, _ in problems])
    return values, settings["start"] * jnp.stack([rows @ start for _, _, rows, start in problems])


@functools.partial(jax.jit, static_argnames=("steps", "rate"))
def descend(values, start, anchor, gamma, linear=0.0, outside=0.0, *, steps, rate):
    """Follow (y.y + outside)^2 - sum(values y^2) - 2 linear.y + gamma |y - anchor|^2 down."""

    def step(y, _):
        square = jnp.sum(y * y) + outside
        gradient = 4 * square * y - 2 * values * y - 2 * linear + 2 * gamma * (y - anchor)
        return y - rate * gradient, None

    return jax.lax.scan(step, start, length=steps)[0]


def _measure(values, y, threshold):
    square = jnp.sum(y * y)
    return square**2 - jnp.sum(values * y * y), jnp.sum(jnp.abs(y) < threshold)


def _plain(settings, spectrum, key):
    values, y = _all_seeds(settings, spectrum)
    rows, before = [], 0
    for stop in settings["stops"]:
        run = functools.partial(descend, steps=stop - before, rate=settings["learning_rate"])
        y, before = jax.vmap(run, (0, 0, None, None))(values, y, 0.0, 0.0), stop
        measured = jax.vmap(_measure, (0, 0, None))(values, y, settings["thresholds"][spectrum])
        rows.append(({"steps": stop}, measured))
    return rows


def _weight_decay(settings, spectrum, key):
    return _decay(settings, spectrum, key, [0.0])


def _syre(settings, spectrum, key):
    return _decay(settings, spectrum, key, settings["relative_sigma0s"])


def _decay(settings, spectrum, key, sigmas):
    """Decay towards an anchor, for each sigma_0 (0 is weight decay) and gamma."""
    values, start = _all_seeds(settings, spectrum)
    keys = jax.random.split(key, len(start))
    unit = jax.vmap(lambda key, y: draw_anchor(y, key, 1.0)[0])(keys, start)
    run = functools.partial(
        descend, steps=settings["steps"], rate=settings["learning_rate"], linear=0.0, outside=0.0
    )
    rows = []
    for sigma in sigmas:
        anchor = sigma / math.sqrt(settings["size"]) * unit
        over_seeds = jax.vmap(run, (0, 0, 0, None))
        gammas = jnp.array(settings["gammas"])
        ends = jax.vmap(over_seeds, (None, None, None, 0))(values, start, anchor, gammas)
        for gamma, y in zip(settings["gammas"], ends, strict=True):
            measured = jax.vmap(_measure, (0, 0, None))(values, y, settings["thresholds"][spectrum])
            parameters = {"gamma": gamma, "relative_sigma0": sigma}
            limit = [_limit(*one, gamma) for one in zip(values, anchor, strict=True)]
            rows.append((parameters | {"limit": limit}, measured))
    return rows


def _limit(values, anchor, gamma):
    r"""Return the objective at the global minimum of f(y) + gamma |y - anchor|^2.

    There y = gamma anchor / (mu - values), where mu = gamma + 2 |y|^2 is the one root of
    |y|^2 = (mu - gamma) / 2 above the largest value and gamma.
    """
    values, anchor = np.asarray(values), np.asarray(anchor)
    if not anchor.any():
        square = max(0.0, (values[-1] - gamma) / 2)
        return float(square**2 - values[-1] * square)
    low, high = max(values[-1], gamma), max(values[-1], gamma) + 1.0
    y = functools.partial(_stationary, values, anchor, gamma)
    while np.sum(y(high) ** 2) > (high - gamma) / 2:
        high += high - low
    for _ in range(200):
        middle = (low + high) / 2
        if np.sum(y(middle) ** 2) > (middle - gamma) / 2:
            low = middle
        else:
            high = middle
    y = y(high)
    return float(np.sum(y**2) ** 2 - np.sum(values * y**2))


def _stationary(values, anchor, gamma, mu):
    return gamma * anchor / (mu - values)


def _fixed(settings, spectrum, key):
    rows = []
    for sigma in settings["frozen_sigmas"]:
        for fraction in settings["fractions"]:
            measured = [
                _fix_one(settings, spectrum, seed, jax.random.fold_in(key, seed), fraction, sigma)
                for seed in range(settings["seeds"])
            ]
            rows.append(({"fraction": fraction, "sigma": sigma}, zip(*measured, strict=True)))
    return rows


def _fix_one(settings, spectrum, seed, key, fraction, sigma):
    matrix, _, directions, start = problem(settings, spectrum, seed)
    start = settings["start"] * start
    w = np.array(fix_weights(jnp.asarray(start), key, fraction, sigma)[0])
    free = w == start
    values, columns = np.linalg.eigh(matrix[np.ix_(free, free)])
    linear = columns.T @ matrix[np.ix_(free, ~free)] @ w[~free]
    y = descend(
        values,
        columns.T @ w[free],
        0.0,
        0.0,
        linear,
        np.sum(w[~free] ** 2),
        steps=settings["steps"],
        rate=settings["learning_rate"],
    )
    w[free] = columns @ np.asarray(y)
    return _objective_and_degree(settings, spectrum, matrix, directions, w)


def _objective_and_degree(settings, spectrum, matrix, directions, w):
    degree = degree_of_symmetry(directions, w, settings["thresholds"][spectrum])
    return float((w @ w) ** 2 - w @ matrix @ w), int(degree)


def _dropout(settings, spectrum, key):
    rates = settings["dropout_rates"]
    measured = []
    for seed in range(min(settings["dropout_seeds"], settings["seeds"])):
        matrix, _, directions, start = problem(settings, spectrum, seed)
        diagonal = spectrum == "structured"
        ends = _drop(
            jnp.asarray(np.diag(matrix) if diagonal else matrix, jnp.float32),
            jnp.asarray(settings["dropout_start"] * start, jnp.float32),
            jnp.asarray(rates, jnp.float32),
            jax.random.fold_in(key, seed),
            settings["steps"],
            settings["learning_rate"],
        )
        ends = np.asarray(ends, float)
        measured.append(
            [_objective_and_degree(settings, spectrum, matrix, directions, w) for w in ends]
        )
    by_rate = zip(*measured, strict=True)
    return [
        ({"rate": rate}, zip(*seeds, strict=True))
        for rate, seeds in zip(rates, by_rate, strict=True)
    ]


@functools.partial(jax.jit, static_argnames=("steps", "learning_rate"))
def _drop(matrix, start, rates, key, steps, learning_rate):
    """Run gradient descent with dropped weights at every rate; `matrix` may be its diagonal."""

    def step(w, key):
        dropped, back = jax.vjp(lambda w: jax.vmap(drop_weights, (0, None, 0))(w, key, rates), w)
        product = dropped * matrix if matrix.ndim == 1 else dropped @ matrix
        square = jnp.sum(dropped**2, axis=1, keepdims=True)
        (gradient,) = back(4 * square * dropped - 2 * product)
        return w - learning_rate * gradient, None

    w = jnp.broadcast_to(start, (len(rates), len(start)))
    return jax.lax.scan(step, w, jax.random.split(key, steps))[0]


def frontier(values, threshold):
    """Return the smallest objective for each degree of symmetry 0, ..., d - 1.

    The best m directions off their mirrors are those of the m largest eigenvalues, all but the
    first at the threshold; the first takes what is left of the best |w|^2, or of m threshold^2 if
    that is more. All others are zero.
    """
    descending = np.sort(np.asarray(values))[::-1]
    count = np.arange(1, len(descending) + 1)
    square = np.maximum(descending[0] / 2, count * threshold**2)
    rest = np.cumsum(descending) - descending[0]
    first = square - (count - 1) * threshold**2
    objective = square**2 - descending[0] * first - threshold**2 * rest
    return objective[::-1]


def summarise(settings, results):
    """Return, for each case, rows of parameters with means and standard errors over the seeds.

    `excess` is the objective above the smallest one there is, that of the same seed. `best` and
    `limit` are means. `frontier` has the smallest mean excess for some degrees of symmetry, and
    `reach`, for each case, the smallest mean excess of its points of at most that degree, or None.
    """
    values = {"best": {}, "frontier": {}, "rows": {}, "reach": {"degree": REACHED}}
    degrees = [*range(0, settings["size"], 25), 990, 995, settings["size"] - 1]
    best = {}
    for spectrum, threshold in settings["thresholds"].items():
        spectra = [problem(settings, spectrum, seed)[1] for seed in range(settings["seeds"])]
        best[spectrum] = np.array([-(one[-1] ** 2) / 4 for one in spectra])
        values["best"][spectrum] = float(best[spectrum].mean())
        excess = np.mean([frontier(one, threshold) for one in spectra], axis=0)
        excess -= best[spectrum].mean()
        values["frontier"][spectrum] = {
            "degree": degrees,
            "excess": [float(excess[degree]) for degree in degrees],
        }
    for name, rows in results.items():
        values["rows"][name] = [_summary(row, best[name.split(",")[0]]) for row in rows]
        points = [(row["degree"][0], row["excess"][0]) for row in values["rows"][name]]
        values["reach"][name] = [
            min((excess for degree, excess in points if degree <= most), default=None)
            for most in REACHED
        ]
    return values


def _summary(row, best):
    measured = ("objective", "degree", "limit")
    summary = {key: value for key, value in row.items() if key not in measured}
    objective = np.array(row["objective"])
    summary["excess"] = mean_error(objective - best[: len(objective)])
    summary["objective"] = mean_error(objective)
    summary["degree"] = mean_error(row["degree"])
    if "limit" in row:
        summary["limit"] = float(np.mean(row["limit"]))
    return summary
