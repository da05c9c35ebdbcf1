r"""Errors of every method of `log_hyp0f1` on spectra drawn for this experiment alone.

The calibrated formula has a part joined by hand, made with other spectra in view. Here it meets
five shapes of spectrum in four ranges of size, for each k up to 20 and for k = 40. The formula was
fitted to this draw. It was changed once after it, at the edge of the phases: its numbers were
fitted to exact values of equal spectra, but where its two forms are joined was chosen with this
draw in view (a join further out was off by .26). Run as
a program, this module then wrote the new errors beside the stored truth, which was not sampled
again.

The truth is an integral over the group for k up to 4 and a determinant for equal values at any k.
For other shapes above k = 4 it is the expansion at infinity for the largest size, and Gibbs
sampling for the rest, which comes with a standard error. One case with equal values for each k
is sampled as well, to check the sampler.

An error is the approximation minus the truth, in nats. The question is whether the calibrated
formula stays within 0.02 k nats.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from symcourse.experiments._bessel_oracles import at_infinity, equal, four, one, three, two
from symlib.special import log_hyp0f1, log_hyp0f1_gibbs

SETTINGS = {
    "seed": 70206,
    "bar": 0.02,  # nats for each unit of k
    "k": [*range(1, 21), 40],
    "methods": ["calibrated", "laplace", "moore", "saddlepoint", "asymptotic"],
    # Ranges of the largest singular value divided by k, and how many of each shape are drawn.
    "sizes": {
        "small": [0.05, 0.5, 1],
        "middle": [0.5, 3.0, 2],
        "large": [3.0, 20.0, 1],
        "huge": [200.0, 1000.0, 1],
    },
    "shapes": ["equal", "spread", "dominant", "half zero", "random"],
    "nodes": 32,  # of the sampler's integral, whose error is then about .001 at k = 20
    # Sweeps at each node, times k; a quarter of it at the small size.
    "sweeps_times_k": 60000,
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = "k=3 spread, middle 1", {"k": [3]}


def spectrum(shape, k, draws):
    """Return a spectrum of this shape with largest entry 1."""
    if shape == "equal":
        return np.ones(k)
    if shape == "spread":
        return np.linspace(1, draws.uniform(0.02, 0.3), k)
    if shape == "dominant":
        return np.r_[1, np.full(k - 1, draws.uniform(0.05, 0.2))]
    if shape == "half zero":
        large = np.sort(draws.uniform(0.6, 1, size=k - k // 2))[::-1]
        return np.r_[large / large[0], np.zeros(k // 2)]
    values = np.sort(draws.uniform(size=k))[::-1]
    return values / values[0]


def cases(settings):
    """Return one case for each k, shape, size and draw, and those that check the sampler."""
    found = []
    for k in settings["k"]:
        draws = np.random.default_rng([settings["seed"], k])
        for shape in settings["shapes"] if k > 1 else ["equal"]:
            for size, (low, high, count) in settings["sizes"].items():
                for number in range(1, count + 1):
                    sigma = spectrum(shape, k, draws)
                    sigma = sigma * k * np.exp(draws.uniform(np.log(low), np.log(high)))
                    case = {"sigma": [float(f"{s:.5g}") for s in sigma], "size": size}
                    found.append((f"k={k} {shape}, {size} {number}", case | {"truth": "gibbs"}))
                    if k <= 4:
                        found[-1][1]["truth"] = "group"
                    elif shape == "equal":
                        found[-1][1]["truth"] = "determinant"
                    elif size == "huge":
                        found[-1][1]["truth"] = "infinity"
        if k > 4:
            ratio = np.exp(draws.uniform(np.log(0.3), np.log(5)))
            case = {"sigma": [float(f"{ratio * k:.5g}")] * k, "size": "middle", "truth": "sampler"}
            found.append((f"k={k} equal, sampled", case))
    return found


def run_case(settings, case, key):
    """Return the truth, its standard error and the error of each method."""
    sigma, k = case["sigma"], len(case["sigma"])
    record = {"k": k, "size": case["size"], "oracle": case["truth"], "sigma": sigma}
    with jax.enable_x64(True):
        found = np.asarray(_approximations(jnp.asarray(sigma), tuple(settings["methods"])))
        truth, error = _truth(settings, case, key)
    if case["truth"] == "sampler":
        return record | {
            "value": truth,
            "standard_error": error,
            "difference": truth - equal(k, sigma[0]),
        }
    errors = {
        method: float(f"{value - truth:.5g}") if np.isfinite(value) else None
        for method, value in zip(settings["methods"], found, strict=True)
    }
    return record | {"value": truth, "standard_error": error, "errors": errors}


def _truth(settings, case, key):
    sigma, k = case["sigma"], len(case["sigma"])
    if case["truth"] == "determinant":
        return equal(k, sigma[0]), 0.0
    if case["truth"] == "infinity":
        return at_infinity(sigma), 0.0
    if case["truth"] == "group":
        if k == 4:
            # Eighty nodes resolve the integrand up to 30 k.
            return (four(sigma, 80) if max(sigma) < 120 else at_infinity(sigma)), 0.0
        return (one, two, three)[k - 1](sigma), 0.0
    sweeps = settings["sweeps_times_k"] / k / (4 if case["size"] == "small" else 1)
    value, error = log_hyp0f1_gibbs(key, jnp.asarray(sigma), round(sweeps), settings["nodes"])
    return float(value), float(error)


@functools.partial(jax.jit, static_argnums=1)
def _approximations(sigma, methods):
    return jnp.stack([log_hyp0f1(sigma, method) for method in methods])


def summarise(settings, results):
    """Return the worst errors by k, size and method, and how far the calibrated ones are.

    `worst[method][k][size]` is the signed error that is largest in absolute value where it is
    finite, None if there is no such case. `calibrated[k]` has the worst error over all sizes with
    its standard error and its case, and `share_of_bar`: the largest of |error| + 2 standard
    errors, divided by bar k.
    """
    judged = {name: r for name, r in results.items() if r["oracle"] != "sampler"}
    sampled = [r for r in results.values() if r["oracle"] == "sampler"]
    worst = {
        method: {
            str(k): {
                size: _largest(
                    [
                        r["errors"][method]
                        for r in judged.values()
                        if r["k"] == k and r["size"] == size
                    ]
                )
                for size in settings["sizes"]
            }
            for k in settings["k"]
        }
        for method in settings["methods"]
    }
    calibrated, shapes = {}, {}
    for k in settings["k"]:
        mine = {name: r for name, r in judged.items() if r["k"] == k}
        name = max(mine, key=lambda name: abs(mine[name]["errors"]["calibrated"]))
        bounds = [abs(r["errors"]["calibrated"]) + 2 * r["standard_error"] for r in mine.values()]
        exact = [r["errors"]["calibrated"] for r in mine.values() if r["standard_error"] == 0]
        calibrated[str(k)] = {
            "worst": mine[name]["errors"]["calibrated"],
            "standard_error": mine[name]["standard_error"],
            "case": name,
            "worst_without_sampling": _largest(exact),
            "largest_standard_error": max(r["standard_error"] for r in mine.values()),
            "share_of_bar": max(bounds) / (settings["bar"] * k),
        }
    for shape in settings["shapes"]:
        relative = [
            r["errors"]["calibrated"] / r["k"]
            for name, r in judged.items()
            if name.split(" ", 1)[1].startswith(shape)
        ]
        shapes[shape] = _largest(relative)
    scores = np.array([r["difference"] / r["standard_error"] for r in sampled])
    return {
        "bar": settings["bar"],
        "number_of_spectra": len(judged),
        "worst": worst,
        "calibrated": calibrated,
        "calibrated_by_shape_over_k": shapes,
        "within_bar": all(row["share_of_bar"] < 1 for row in calibrated.values()),
        "sampler": {
            "largest_z": float(np.abs(scores).max()),
            "root_mean_square_z": float(np.sqrt(np.mean(scores**2))),
            "number": len(scores),
        },
    }


def _largest(values):
    """Return the value that is largest in absolute value, of those that are not None."""
    return max((value for value in values if value is not None), key=abs, default=None)


def refresh(outcome):
    """Return the stored outcome with the errors of the methods as they are now."""
    methods = tuple(outcome["settings"]["methods"])
    for record in outcome["cases"].values():
        if record["oracle"] != "sampler":
            with jax.enable_x64(True):
                found = np.asarray(_approximations(jnp.asarray(record["sigma"]), methods))
            record["errors"] = {
                method: float(f"{value - record['value']:.5g}") if np.isfinite(value) else None
                for method, value in zip(methods, found, strict=True)
            }
    return outcome | {"values": summarise(outcome["settings"], outcome["cases"])}


if __name__ == "__main__":
    path = Path(__file__).parent / "results" / "M6.json"
    outcome = refresh(json.loads(path.read_text("utf-8")))
    path.write_text(json.dumps(outcome, allow_nan=False, indent=2) + "\n", "utf-8")
