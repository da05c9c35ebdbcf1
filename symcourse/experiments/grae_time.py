"""Time one training step of GRAE beside one of a beta-VAE (Kumar & Poole 2020).

Encoder and decoder have two hidden layers of 400 ELU units, the observations 784 entries, the
batches 64 (random ones: the time does not depend on them), Adam in float32. A beta-VAE step draws
one sample and has a diagonal covariance. The variants are timed in turn, so that other load hits
all alike; ratios within one run are what to read.

- "beta-VAE": one reparameterized sample;
- "bound, sampled": equation 14 with one column of the Jacobian for each observation;
- "bound, sampled on a quarter": the same with a column for every fourth observation, whose
  penalty then counts four times: unbiased as well;
- "bound": equation 14 with all columns;
- "GRAE": equation 13, all columns and the determinant.
"""

import os
import platform
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from symcourse.experiments._training import make_step
from symlib.autoencoders import GAUSSIAN, beta_vae, grae, grae_bound, grae_bound_sampled

SETTINGS = {
    "seed": 6,
    "observed": 784,
    "width": 400,
    "hidden_layers": 2,
    "batch_size": 64,
    "beta": 0.5,
    "latents": [8, 32, 128],
    "steps": {"8": 20, "32": 8, "128": 2},
    "repeats": 9,
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = (
    "d = 2",
    {
        "observed": 5,
        "width": 4,
        "hidden_layers": 0,
        "batch_size": 4,
        "latents": [2],
        "steps": {"2": 2},
        "repeats": 1,
    },
)


def cases(settings):
    """Return one case for each number of latents."""
    return [(f"d = {latents}", {"latents": latents}) for latents in settings["latents"]]


def run_case(settings, case, key):
    """Return the milliseconds a step of every variant, the median of the repeats."""
    latents, steps = case["latents"], settings["steps"][str(case["latents"])]
    keys = jax.random.split(key, 4)
    sizes = settings["width"], settings["hidden_layers"], jax.nn.elu
    # The beta-VAE's encoder has a second output for the logarithms of the standard deviations.
    encoder = eqx.nn.MLP(settings["observed"], 2 * latents, *sizes, key=keys[0])
    decoder = eqx.nn.MLP(latents, settings["observed"], *sizes, key=keys[1])
    params, static = eqx.partition((encoder, decoder), eqx.is_inexact_array)
    X = jax.random.normal(keys[2], (settings["batch_size"], settings["observed"]))
    optimizer, compiled, carries = optax.adam(1e-3), {}, {}
    for name, objective in _objectives(settings["beta"]).items():

        def loss(params, X, key, objective=objective):
            return objective(eqx.combine(params, static), X, key)

        step = jax.jit(make_step(loss, optimizer), donate_argnums=0)
        carries[name] = jax.tree.map(jnp.copy, (params, optimizer.init(params)))
        compiled[name] = step.lower(carries[name], (X, keys[3])).compile()
    seconds = {name: [] for name in compiled}
    for _ in range(settings["repeats"]):
        for name, step in compiled.items():
            start = time.perf_counter()
            for step_key in jax.random.split(keys[3], steps):
                carries[name], _ = step(carries[name], (X, step_key))
            jax.block_until_ready(carries[name])
            seconds[name].append((time.perf_counter() - start) / steps)
    return {name: 1e3 * float(np.median(times)) for name, times in seconds.items()}


def summarise(settings, results):
    """Return the ratios of the times to that of a beta-VAE step."""
    values = {"cores": os.cpu_count(), "processor": platform.machine()}
    for name, found in results.items():
        values[name] = {kind: time / found["beta-VAE"] for kind, time in found.items()}
    return values


def _objectives(beta):
    def of_point(function):
        def loss(networks, X, key):
            encoder, decoder = networks
            keys = jax.random.split(key, len(X))
            return jnp.mean(jax.vmap(lambda k, x: function(k, encoder(x), decoder, x))(keys, X))

        return loss

    def split(code):
        mean, log_scale = jnp.split(code, 2)
        return mean, jnp.exp(log_scale)

    def vae(key, code, decoder, x):
        mean, scale = split(code)
        return beta_vae(key, decoder, x, mean, scale, beta)

    def sampled(key, code, decoder, x):
        return grae_bound_sampled(key, decoder, x, split(code)[0], beta)

    def on_a_quarter(networks, X, key):
        encoder, decoder = networks
        means = jax.vmap(lambda x: split(encoder(x))[0])(X)
        plain = jax.vmap(lambda x, m: GAUSSIAN.loss(decoder(m), x) + 0.5 * beta * jnp.sum(m**2))
        quarter = len(X) // 4
        keys = jax.random.split(key, quarter)
        full = jax.vmap(lambda k, x, m: grae_bound_sampled(k, decoder, x, m, beta))
        # The first quarter's loss holds the whole loss; its penalty is the difference.
        first, rest = plain(X[:quarter], means[:quarter]), plain(X[quarter:], means[quarter:])
        penalty = jnp.mean(full(keys, X[:quarter], means[:quarter]) - first)
        return (jnp.sum(first) + jnp.sum(rest)) / len(X) + penalty

    return {
        "beta-VAE": of_point(vae),
        "bound, sampled": of_point(sampled),
        "bound, sampled on a quarter": on_a_quarter,
        "bound": of_point(lambda _, code, decoder, x: grae_bound(decoder, x, split(code)[0], beta)),
        "GRAE": of_point(lambda _, code, decoder, x: grae(decoder, x, split(code)[0], beta)),
    }
