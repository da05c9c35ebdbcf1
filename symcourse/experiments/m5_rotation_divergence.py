"""The divergence of a Gaussian from its mixture over rotations: right, printed, and bounded.

For two traits a sum over 720 elements of O(2) is exact to rounding. Beside it stand the Bessel
function with the right matrix, the symmetrized matrix of Moore's Listing 1, Laplace's method, and,
with a variance for each entry, a bound, annealing and an average over random rotations. For twenty
traits there is no such sum. Last, a small matrix is fitted whole and from minibatches.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from symlib.factorization import Ratings, fit_matrix, fit_matrix_entries, generate_ratings
from symlib.groups import Orthogonal, printed_log_ratio, rotation_log_ratio
from symlib.posteriors import (
    DiagonalGaussian,
    IsotropicGaussian,
    rotation_kl_annealed,
    rotation_kl_bound,
)

SETTINGS = {
    "seed": 5,
    "draws": 4000,
    "shown": 200,  # draws that are stored
    "many_traits": 20,
    "many_rows": 80,
    "many_draws": 20,
    "annealing_steps": 16,
    "random_rotations": 64,
    "importance_draws": 1000,
    "steps": 1000,
    "minibatch_steps": 3000,
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = "two traits", {"draws": 20, "shown": 2}
STATEMENTS = {
    "right": rotation_log_ratio,
    "symmetrized A": functools.partial(printed_log_ratio, method="calibrated"),
    "Laplace": functools.partial(rotation_log_ratio, method="laplace"),
    "Listing 1": printed_log_ratio,
}


def cases(settings):
    """Return the cases by name."""
    kinds = _two, _many, _elementwise, _minibatches
    names = "two traits", "many traits", "elementwise variances", "minibatches"
    return [(name, {"kind": kind}) for name, kind in zip(names, kinds, strict=True)]


def run_case(settings, case, key):
    """Return divergences in nats."""
    with jax.enable_x64(True):
        return case["kind"](settings)


def _keys(settings):
    m_key, x_key, s_key = jax.random.split(jax.random.key(settings["seed"]), 3)
    return m_key, x_key, s_key, jax.random.split(x_key, settings["draws"])


def _circle():
    """Return rotations by 360 angles and as many reflections, the identity first."""
    phi = jnp.arange(360) * 2 * jnp.pi / 360
    cos, sin = jnp.cos(phi), jnp.sin(phi)
    turns = jnp.stack([cos, -sin, sin, cos], axis=-1).reshape(-1, 2, 2)
    return jnp.concatenate([turns, turns * jnp.array([1.0, -1.0])])


def _direct(X, M, S):
    """Return log q* - log q~ by the sum over the circle."""
    log_q = -0.5 * jnp.sum((X @ _circle().swapaxes(1, 2) - M) ** 2 / S, (1, 2))
    return log_q[0] - logsumexp(log_q) + jnp.log(len(log_q))


def _over(function, *arrays):
    return np.asarray(jax.jit(jax.vmap(function))(*arrays))


def _two(settings):
    m_key, _, _, keys = _keys(settings)
    M, c = 2 * jax.random.normal(m_key, (6, 2)), 0.5
    X = jax.vmap(IsotropicGaussian(M, c).sample)(keys)
    direct = _over(lambda X: _direct(X, M, c), X)
    found = {"direct": float(direct.mean())}
    for name in ("right", "symmetrized A", "Laplace"):
        values = _over(lambda X, f=STATEMENTS[name]: f(X, M, c), X)
        found[name] = {
            "mean": float(values.mean()),
            "least_excess": float((values - direct).min()),
            "largest_excess": float((values - direct).max()),
            "draws": [float(f"{value:.5g}") for value in values[: settings["shown"]]],
        }
    return found


def _many(settings):
    m_key, _, _, keys = _keys(settings)
    k = settings["many_traits"]
    M = jax.random.normal(m_key, (settings["many_rows"], k))
    X = jax.vmap(IsotropicGaussian(M, 0.1).sample)(keys[: settings["many_draws"]])
    return {
        name: float(_over(lambda X, f=STATEMENTS[name]: f(X, M, 0.1), X).mean())
        for name in ("right", "symmetrized A", "Listing 1")
    }


def _elementwise(settings):
    m_key, x_key, s_key, keys = _keys(settings)
    M = 2 * jax.random.normal(m_key, (6, 2))
    S = 0.5 * jnp.exp(2 * jax.random.normal(s_key, (6, 2)))
    base = DiagonalGaussian(M, S)
    X = jax.vmap(base.sample)(keys)
    count, draws = settings["importance_draws"], settings["draws"]
    T = jax.vmap(jax.vmap(Orthogonal(2).sample))(
        jax.random.split(jax.random.key(6), (count, settings["random_rotations"]))
    )

    def averaged(X, T):
        log_q = -0.5 * jnp.sum((X @ T - M) ** 2 / S, axis=(1, 2))
        return -0.5 * jnp.sum((X - M) ** 2 / S) - logsumexp(log_q) + jnp.log(len(T))

    exact = _over(lambda X: _direct(X, M, S), X)
    return {
        "exact": float(exact.mean()),
        "exact_error": float(exact.std() / draws**0.5),
        "bound": float(rotation_kl_bound(x_key, base, draws)[0]),
        "annealed": float(rotation_kl_annealed(x_key, base, draws, settings["annealing_steps"])[0]),
        "importance": float(_over(averaged, X[:count], T).mean()),
        "exact_of_these": float(exact[:count].mean()),
    }


def _minibatches(settings):
    table = generate_ratings(jax.random.key(12), 20, 15, 2, 0.5).ratings.values
    seen = jax.random.bernoulli(jax.random.key(13), 0.7, table.shape)
    rows, columns = jnp.nonzero(seen)
    whole = fit_matrix(jax.random.key(1), Ratings(table, 0.5, seen), 2, steps=settings["steps"])
    part = fit_matrix_entries(
        jax.random.key(2),
        rows,
        columns,
        table[rows, columns],
        20,
        15,
        2,
        0.5,
        batch_size=20,
        steps=settings["minibatch_steps"],
    )
    return {"entries": len(rows), "whole": float(whole.bound), "minibatches": float(part.bound)}


def summarise(settings, results):
    """Return the cases as they are."""
    return results
