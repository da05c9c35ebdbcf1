"""Posterior collapse of a beta-VAE (Ziyin, Xu & Chuang 2024, Figs. 6 and 7, C.4).

On MNIST in place of Fashion-MNIST, for which set "data" to "fashion_mnist", and with three passes
on batches of 64. Encoder and decoder have two layers with SiLU units between, 200 hidden units and
200 latent variables. Only the encoder has a decay. gamma stands for gamma ||theta||^2: the paper's
1000 is our 1000, or 500 if it means a gradient gamma theta. The prior of the latent variables is
N(0, .01).

The paper leaves the loss, the variance of the encoder, the optimizer and sigma_0 open. We take

- the squared error ||x - f(z)||^2, summed over pixels, plus beta times the divergence from the
  prior: with beta = 2 s^2 this is the evidence bound of a Gaussian decoder of variance s^2;
- a free variance for each latent variable, the same for all images, as in the linear model, and
  without decay: a decay would tie it to a value of its own. It starts at the prior's;
- Adam with coupled decay, whose step size falls to 0 along a cosine.

All methods are the update gradient + 2 gamma (phi - anchor) and share start, batches and noise:

- "plain": gamma 0; "weight decay": anchor 0; "L2 Init": the anchor is the start;
- "syre S": a random anchor of standard deviation S / sqrt(fan-in), where .01 is the paper's
  default, and the start theta + theta_0.

beta is swept at the 1000 of Fig. 7, gamma at one beta; "syre 1.0, gamma 0" is
what the moved start does alone, the left side of Fig. 7. On 1000 test images: the rank of the
encoder's mean, eigenvalues of the covariance above 1e-6 as in Fig. 6, and above 1 % of the prior
variance, which counts the directions that carry more than noise. On 5000: the squared error at a
drawn z, the divergence and the objective without the decay. Of the first seed, at one beta: some
test images and what the decoder makes of their means, a hexadecimal digit a pixel.

Needs MNIST: it is downloaded on first use, see symlib.data.load.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from symcourse.experiments._training import (
    draw_batches,
    flat_images,
    linear,
    pull,
    short,
    short_mean_error,
    start_and_anchor,
    train,
    uniform_layer,
)
from symlib.syre import covariance_spectrum, effective_rank, thresholded_rank

SETTINGS = {
    "seed": 2024,
    "data": "mnist",
    "hidden": 200,
    "latent": 200,
    "prior_variance": 0.01,
    "seeds": 5,
    "steps": 2814,  # three passes
    "batch_size": 64,
    "step_size": 3e-3,
    "sweep_beta": {
        "beta": [10.0, 5.0, 20.0, 2.0, 1.0],
        "gamma": {
            "0": ["plain"],
            "1000": ["weight decay", "syre 0.01", "syre 0.1", "syre 1.0", "L2 Init"],
        },
    },
    "sweep_gamma": {
        "beta": 10.0,
        "gamma": [0.1, 10.0, 500.0, 1000.0],
        "methods": ["weight decay", "syre 0.01", "syre 1.0", "L2 Init"],
    },
    "pictures": {"beta": 10.0, "images": [0, 1, 2, 3, 4], "gamma": [0.0, 1000.0]},
    "threshold": 1e-6,
    "active_share": 0.01,  # of the prior variance
    "rank_batch": 1000,
    "evaluated": 5000,
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = (
    "beta 10, seed 0",
    {"data": "digits", "hidden": 12, "latent": 5, "steps": 60, "rank_batch": 200}
    | {"sweep_beta": {"beta": [10.0], "gamma": {"0": ["plain"], "1000": ["syre 1.0"]}}}
    | {"sweep_gamma": {"beta": 10.0, "gamma": [0.1], "methods": ["weight decay", "L2 Init"]}}
    | {"pictures": {"beta": 10.0, "images": [0], "gamma": [0.0, 1000.0]}},
)


def cases(settings):
    """Return one case for each seed and beta."""
    return [
        (f"beta {beta:g}, seed {seed}", {"beta": beta, "seed": seed})
        for seed in range(settings["seeds"])
        for beta in settings["sweep_beta"]["beta"]
    ]


def run_case(settings, case, key):
    """Return, for each method and gamma, losses and ranks after training."""
    images, _, test, _ = flat_images(settings["data"])
    test = test[: settings["evaluated"]]
    # Of the seed alone: all cases of a seed share start, anchor, batches and noise.
    key = jax.random.fold_in(jax.random.key(settings["seed"]), case["seed"])
    start_key, anchor_key, batch_key, noise_key, test_key = jax.random.split(key, 5)
    start = _network(start_key, images.shape[1], settings)
    batches = draw_batches(batch_key, len(images), settings)
    pictures = settings["pictures"]
    chosen = test[jnp.array(pictures["images"])]
    draws = (case["beta"], case["seed"]) == (pictures["beta"], 0)
    found = {}
    for method, gamma in _runs(settings, case["beta"]):
        params, anchor = _begin(start, anchor_key, method)
        strengths = jnp.float32(gamma), jnp.float32(case["beta"])
        params = _train(settings, params, anchor, *strengths, images, batches, noise_key)
        values = _evaluate(settings, params, anchor, strengths[1], test, test_key)
        entry = {name: short(value) for name, value in values.items()}
        if draws and gamma in pictures["gamma"]:
            shown = _two_layers(params["decoder"], _two_layers(params["encoder"], chosen))
            entry["reconstructions"] = _text(shown)
            if not found:
                entry["images"] = _text(chosen)
        found[f"{method}, gamma {gamma:g}"] = entry
    return found


def _text(images):
    """Return each image as a text of 784 hexadecimal digits, 0 to f for 0 to 1."""
    levels = np.round(15 * np.clip(np.asarray(images), 0, 1)).astype(int)
    return ["".join(f"{level:x}" for level in image) for image in levels]


def _runs(settings, beta):
    """Return the method and the gamma of each run."""
    runs = [
        (method, float(gamma))
        for gamma, methods in settings["sweep_beta"]["gamma"].items()
        for method in methods
    ]
    sweep = settings["sweep_gamma"]
    if beta == sweep["beta"]:
        runs += [("syre 1.0", 0.0)]
        runs += [(method, gamma) for gamma in sweep["gamma"] for method in sweep["methods"]]
    return list(dict.fromkeys(runs))


def _begin(start, key, method):
    """Return the parameters at the start and the anchor of the encoder."""
    encoder, anchor = start_and_anchor(start["encoder"], key, method)
    return {**start, "encoder": encoder}, anchor


def _network(key, pixels, settings):
    hidden, latent = settings["hidden"], settings["latent"]
    keys = jax.random.split(key, 4)
    return {
        "encoder": [uniform_layer(keys[0], pixels, hidden), uniform_layer(keys[1], hidden, latent)],
        "decoder": [uniform_layer(keys[2], latent, hidden), uniform_layer(keys[3], hidden, pixels)],
        "log_variance": jnp.full(latent, math.log(settings["prior_variance"])),
    }


def _two_layers(layers, x):
    first, second = layers
    return linear(second, jax.nn.silu(linear(first, x)))


def _terms(params, x, key, prior_variance):
    """Return the squared error at a drawn z and the divergence from the prior, both averaged."""
    mean, log_variance = _two_layers(params["encoder"], x), params["log_variance"]
    variance = jnp.exp(log_variance)
    z = mean + jnp.sqrt(variance) * jax.random.normal(key, mean.shape)
    error = jnp.sum((_two_layers(params["decoder"], z) - x) ** 2, axis=1)
    ratio = (mean**2 + variance) / prior_variance
    divergence = (ratio - 1 - log_variance + math.log(prior_variance)) / 2
    return jnp.mean(error), jnp.mean(jnp.sum(divergence, axis=1))


@eqx.filter_jit
def _train(settings, params, anchor, gamma, beta, images, batches, key):
    def loss(params, places, key):
        error, divergence = _terms(params, images[places], key, settings["prior_variance"])
        return error + beta * divergence

    def decay(gradient, params):
        pulled = pull(gradient["encoder"], params["encoder"], anchor, gamma)
        return {**gradient, "encoder": pulled}

    falling = optax.cosine_decay_schedule(settings["step_size"], len(batches))
    optimizer = optax.chain(optax.stateless(decay), optax.adam(falling))
    return train(loss, optimizer, params, batches, jax.random.split(key, len(batches)))


@eqx.filter_jit
def _evaluate(settings, params, anchor, beta, test, key):
    error, divergence = _terms(params, test, key, settings["prior_variance"])
    few = test[: settings["rank_batch"]]
    means = _two_layers(params["encoder"], few)
    spectrum = covariance_spectrum(means)
    active = settings["active_share"] * settings["prior_variance"]
    offset = jax.tree.map(jnp.subtract, params["encoder"], anchor)
    return {
        "reconstruction": error,
        "divergence": divergence,
        "objective": error + beta * divergence,
        "rank": jnp.sum(spectrum > settings["threshold"]),
        "active_rank": jnp.sum(spectrum > active),
        # What the anchor alone gives, without training.
        "anchor_rank": thresholded_rank(_two_layers(anchor, few), settings["threshold"]),
        "effective_rank": effective_rank(means),
        "mean_variance": jnp.sum(spectrum),
        "relative_distance_to_anchor": optax.tree.norm(offset) / optax.tree.norm(params["encoder"]),
    }


def summarise(settings, results):
    """Return, for each beta, method and gamma, means and standard errors over the seeds."""
    values = {}
    for group in dict.fromkeys(name.split(",")[0] for name in results):
        runs = [result for name, result in results.items() if name.startswith(f"{group},")]
        values[group] = {
            run: {
                name: short_mean_error([found[run][name] for found in runs])
                for name in runs[0][run]
                if name not in ("images", "reconstructions")
            }
            for run in runs[0]
        }
    return values
