"""Write tests/data/bessel_gold.json: values of log 0F1 by sampling, on spectra used nowhere else.

Run as `python -m benchmarks.experiments._bessel_gold`; it takes a few minutes.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from symlib.langevin import log_hyp0f1_gibbs

SEED = 2016
SWEEPS = {5: 30000, 7: 15000, 10: 8000, 15: 4000, 20: 3000, 40: 700}
PATH = Path(__file__).parents[2] / "tests" / "data" / "bessel_gold.json"


def spectra(k, draws):
    """Return three spectra whose shapes and sizes are drawn."""
    rank = int(draws.integers(1, k))
    two_levels = np.where(np.arange(k) < rank, 1.0, draws.uniform(0, 0.3))
    return {
        "two levels": two_levels * k * draws.uniform(0.5, 3),
        "normal": np.abs(draws.normal(size=k)) * k * draws.uniform(0.3, 1.5),
        "log-uniform": np.exp(draws.uniform(np.log(0.1), np.log(4), size=k)) * k,
    }


def main():
    """Sample all cases and write the file."""
    jax.config.update("jax_enable_x64", True)
    draws, cases = np.random.default_rng(SEED), []
    for k, num_sweeps in SWEEPS.items():
        for name, sigma in spectra(k, draws).items():
            sigma = np.round(sigma, 3)
            key = jax.random.fold_in(jax.random.key(SEED), len(cases))
            value, error = log_hyp0f1_gibbs(key, jnp.asarray(sigma), num_sweeps)
            case = {"name": f"{name}, k={k}", "num_sweeps": num_sweeps, "sigma": sigma.tolist()}
            case |= {"value": round(float(value), 4), "standard_error": round(float(error), 4)}
            cases.append(case)
            print(case["name"], case["value"], case["standard_error"], flush=True)
    lines = ",\n".join("  " + json.dumps(case) for case in cases)
    PATH.write_text(f'{{"seed": {SEED}, "cases": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
