"""A beta-VAE on MNIST beside its Taylor loss and GRAE (Kumar & Poole 2020, Figures 2, 3 and 7).

Each run minimises the beta-VAE loss with one sample and a posterior whose covariance has blocks of
size b, by Cholesky factors from the encoder. On 5000 test images, trained network:

- Figure 3: the beta-VAE loss, its Taylor loss (eq. 7), GRAE (eq. 13), the bound (eq. 14), and the
  gap formula beside the measured difference of (7) and (13). With the full Hessian (eq. 4) on fewer
  images, in float64; there also how far J^T J is from the Hessian (eq. 6) and whether the best
  covariance of eq. 9 exists.
- Eq. 11: the distance of Sigma^-1 from K = I + J^T J / beta in the blocks. For any decoder, not
  expanded, the best Sigma^-1 is I + C / beta in the blocks with the full Hessian's C averaged over
  the posterior: that distance is measured, too. Section 5.2: beta (Sigma^-1 - I) beside J^T J.
- Figures 2 and 7: squared cosines of columns of J, in blocks and between them. Of their sum,
  "share_outside" is the part between blocks. Other groupings of the same latents have the mean
  (d - b) / (d - 1), and the smallest of 1000 random ones is given. Full covariances and untrained
  networks, which know of no blocks, are grouped by 2 and by 3 as controls.
- Error E13: the relu beside the elu, the sigmoid output beside the linear one.

What the paper leaves open, and we choose: batches of 64, Adam at .001 falling to 0 along a cosine,
the test images (a fixed random half). Figure 7's matrices with blocks of 3 and d = 8 or 20 are left
out: 3 does not divide d, and the paper does not say what it did with the rest.

Smaller than the paper: two hidden layers of 200 units in encoder and decoder for five convolutional
ones, 3000 steps for 20,000 (3.2 passes over the images); two runs of each kind. There is no batch
normalisation: in training it would make the output for one latent depend on the others of the
batch, so that the Jacobian of one point's decoder is not defined; with fixed averages, in use, it
is another function.

Needs MNIST: it is downloaded on first use, see symlib.data.load. With two busy cores a training can
stop for good in XLA's thread pool: killed and started again, the command goes on after the finished
cases. On one core (taskset -c 0) we did not see it.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve

from symcourse.experiments._training import (
    draw_batches,
    flat_images,
    short,
    short_mean_error,
    train_networks,
)
from symlib.autoencoders import (
    GAUSSIAN,
    beta_vae,
    block_scale,
    curvature,
    grae,
    grae_bound,
    kl_to_prior,
    optimal_precision,
    taylor,
)

SETTINGS = {
    "seed": 2020,
    "data": "mnist",
    "seeds": 2,
    "hidden": 200,
    "steps": 3000,
    "batch_size": 64,
    "step_size": 1e-3,
    "sweep": {"latents": 12, "block": [1, 2, 3], "beta": [0.05, 0.1, 0.2, 0.4, 0.6, 1.0]},
    "others": [  # network, latents, block, beta
        ["elu sigmoid", 12, 12, 0.2],
        ["elu sigmoid", 12, 12, 1.0],
        ["elu sigmoid", 8, 2, 0.2],
        ["relu sigmoid", 12, 1, 0.05],
        ["relu sigmoid", 12, 1, 0.4],
        ["elu linear", 12, 1, 0.4],
        ["relu linear", 12, 1, 0.4],
        ["untrained", 12, 1, 0.4],
    ],
    "figure": [[8, 2, 0.2], [12, 2, 0.6], [12, 3, 0.4]],  # latents, block, beta
    "figure_points": 3,
    "evaluated": 5000,
    "draws": 8,
    "hessian_points": 300,
    "hessian_draws": 32,
    "averaged_points": 32,
    "averaged_draws": 64,
    "groupings": 1000,
    "control_blocks": [2, 3],
    "active": 0.01,  # variance of a mean, of the prior's
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = (
    "elu sigmoid, d 4, b 2, beta 0.4, seed 0",
    {"data": "digits", "hidden": 8, "steps": 40, "draws": 2, "evaluated": 20, "groupings": 10}
    | {"sweep": {"latents": 4, "block": [2], "beta": [0.4]}, "figure": [[4, 2, 0.4]]}
    | {"hessian_points": 4, "hessian_draws": 2, "averaged_points": 2, "averaged_draws": 2}
    | {"figure_points": 1},
)

ACTIVATIONS = {"elu": jax.nn.elu, "relu": jax.nn.relu}
OUTPUTS = {"sigmoid": jax.nn.sigmoid, "linear": jax.nn.identity}


class Autoencoder(eqx.Module):
    """An encoder with the numbers of a block-diagonal Cholesky factor, and a decoder."""

    encoder: eqx.nn.MLP
    decoder: eqx.nn.MLP
    block: int = eqx.field(static=True)

    def __init__(self, key, pixels, latents, block, hidden, activation, output):
        keys = jax.random.split(key)
        layers = {"width_size": hidden, "depth": 2, "activation": activation}
        self.encoder = eqx.nn.MLP(pixels, latents * (1 + block), **layers, key=keys[0])
        self.decoder = eqx.nn.MLP(latents, pixels, **layers, final_activation=output, key=keys[1])
        self.block = block

    def posterior(self, x):
        """Return the mean and the scale: standard deviations or a Cholesky factor."""
        mean, free = jnp.split(self.encoder(x), [self.decoder.in_size])
        if self.block == 1:
            return mean, jnp.exp(free)
        return mean, block_scale(free.reshape(-1, self.block, self.block))


def cases(settings):
    """Return one case for each network, number of latents, block size, beta and seed."""
    sweep = settings["sweep"]
    kinds = [
        ["elu sigmoid", sweep["latents"], block, beta]
        for block in sweep["block"]
        for beta in sweep["beta"]
    ] + settings["others"]
    return [
        (
            f"{network}, d {latents}, b {block}, beta {beta:g}, seed {seed}",
            {"network": network, "latents": latents, "block": block, "beta": beta, "seed": seed},
        )
        for seed in range(settings["seeds"])
        for network, latents, block, beta in kinds
    ]


def run_case(settings, case, key):
    """Return the measures of one trained network."""
    images, test = shuffled_images(settings)
    test = test[: settings["evaluated"]]
    keys = jax.random.split(key, 6)
    trained = case["network"] != "untrained"
    activation, output = case["network"].split() if trained else ("elu", "sigmoid")
    layers = settings["hidden"], ACTIVATIONS[activation], OUTPUTS[output]
    networks = Autoencoder(keys[0], images.shape[1], case["latents"], case["block"], *layers)
    beta = jnp.float32(case["beta"])
    if trained:
        batches = draw_batches(keys[1], len(images), settings)
        networks = train_networks(
            beta_vae_loss, networks, beta, images, batches, keys[2], settings["step_size"]
        )
    found, parts = _evaluate(networks, test, beta, keys[3], settings["draws"])
    found = {name: float(jnp.mean(value)) for name, value in found.items()}
    spread = parts["draws"].var(axis=1, ddof=1).mean() / parts["draws"].size
    found["draw_error"] = math.sqrt(spread)
    found["active"] = int(jnp.sum(jnp.var(parts["means"], axis=0) > settings["active"]))
    found |= _shares(settings, np.asarray(parts["squares"]).mean(axis=0), case["block"])
    found |= _with_hessians(settings, networks, test, case["beta"], keys[4])
    few = test[: settings["averaged_points"]]
    found["precision_error_averaged"] = float(
        jnp.mean(_averaged_error(networks, few, beta, keys[5], settings["averaged_draws"]))
    )
    found = {name: short(value) for name, value in found.items()}
    wanted = [case["latents"], case["block"], case["beta"]]
    if case["network"] == "elu sigmoid" and case["seed"] == 0 and wanted in settings["figure"]:
        first = range(settings["figure_points"])
        found["matrices"] = [
            {name: _rows(parts[name][point]) for name in ("precision", "gram")} for point in first
        ]
    return found


def shuffled_images(settings):
    """Return the training images and, in a fixed random order, the test images, flattened."""
    images, _, test, _ = flat_images(settings["data"])
    # The first half of MNIST's test images is easier than the second.
    return images, test[np.random.default_rng(settings["seed"]).permutation(len(test))]


def beta_vae_loss(networks, X, key, beta):
    """Return the mean loss of a batch, one draw for each image."""

    def of_point(key, x):
        mean, scale = networks.posterior(x)
        return beta_vae(key, networks.decoder, x, mean, scale, beta)

    return jnp.mean(jax.vmap(of_point)(jax.random.split(key, len(X)), X))


@eqx.filter_jit
def _evaluate(networks, X, beta, key, num_draws):
    """Return numbers and arrays for each image."""
    decoder, block = networks.decoder, networks.block

    def of_point(inputs):
        key, x = inputs
        mean, scale = networks.posterior(x)
        draws = jax.vmap(lambda key: beta_vae(key, decoder, x, mean, scale, beta))(
            jax.random.split(key, num_draws)
        )
        gram = curvature(decoder, x, mean)  # J^T J
        factor = cholesky_factor(scale)
        precision = cho_solve((factor, True), jnp.eye(len(mean)))
        blocks = block_mask(len(mean), block)
        metric = beta * (precision - jnp.eye(len(mean)))
        expanded, closed = taylor(decoder, x, mean, scale, beta), grae(decoder, x, mean, beta)
        numbers = {
            "beta_vae": jnp.mean(draws),
            "taylor": expanded,
            "grae": closed,
            "bound": grae_bound(decoder, x, mean, beta),
            "reconstruction": GAUSSIAN.loss(decoder(mean), x),
            "divergence": kl_to_prior(mean, scale),
            "beta_vae_less_taylor": jnp.mean(draws) - expanded,
            "gap": expanded - closed,
            "gap_formula": gap_formula(gram, factor, beta),
            "precision_error": distance(precision, blocks * optimal_precision(gram, beta)),
            "metric_error": distance(metric, blocks * gram),
            "metric_error_whole": distance(metric, gram),
            "metric_scale": jnp.sum(metric * gram) / jnp.sum(blocks * gram**2),
        }
        parts = {"draws": draws, "means": mean, "squares": squared_cosines(gram)}
        return numbers, parts | {"precision": precision, "gram": gram}

    keys = jax.random.split(key, len(X))
    return jax.lax.map(of_point, (keys, X), batch_size=min(250, len(X)))


def _with_hessians(settings, networks, test, beta, key):
    """Return the measures that need the full Hessian, in float64, means over fewer images."""
    few = np.asarray(test[: settings["hessian_points"]], np.float64)
    with jax.enable_x64(True):
        double = jax.tree.map(
            lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf, networks
        )
        found = _of_hessians(
            double, jnp.asarray(few), jnp.float64(beta), key, settings["hessian_draws"]
        )
        found = {name: np.asarray(value) for name, value in found.items()}
    least, gap_error = found.pop("least_eigenvalue"), found.pop("gap_error")
    return {name: value.mean() for name, value in found.items()} | {
        "gap_error": gap_error.max(),
        "least_eigenvalue": least.min(),
        "indefinite": np.mean(least <= 0),
    }


@eqx.filter_jit
def _of_hessians(networks, X, beta, key, num_draws):
    decoder = networks.decoder

    def of_point(inputs):
        key, x = inputs
        mean, scale = networks.posterior(x)
        C, gram = curvature(decoder, x, mean, hessian="full"), curvature(decoder, x, mean)
        first = taylor(decoder, x, mean, scale, beta)
        full = taylor(decoder, x, mean, scale, beta, hessian="full")
        formula = gap_formula(gram, cholesky_factor(scale), beta)
        loss = beta_vae(key, decoder, x, mean, scale, beta, num_samples=num_draws)
        return {
            "taylor_full_less_taylor": full - first,
            "beta_vae_less_taylor_full": loss - full,
            "curvature_error": distance(gram, C),
            "least_eigenvalue": jnp.linalg.eigvalsh(jnp.eye(len(mean)) + C / beta)[0],
            "gap_error": jnp.abs(first - grae(decoder, x, mean, beta) - formula),
        }

    keys = jax.random.split(key, len(X))
    return jax.lax.map(of_point, (keys, X), batch_size=min(100, len(X)))


@eqx.filter_jit
def _averaged_error(networks, X, beta, key, num_draws):
    """Return the distance of Sigma^-1 from the exact condition of the best one, in its blocks."""
    decoder = networks.decoder

    def of_point(inputs):
        key, x = inputs
        mean, scale = networks.posterior(x)
        factor = cholesky_factor(scale)
        draws = mean + jax.random.normal(key, (num_draws, len(mean))) @ factor.T
        averaged = jnp.mean(
            jax.vmap(lambda z: curvature(decoder, x, z, hessian="full"))(draws), axis=0
        )
        best = jnp.eye(len(mean)) + averaged / beta
        precision = cho_solve((factor, True), jnp.eye(len(mean)))
        return distance(precision, block_mask(len(mean), networks.block) * best)

    return jax.lax.map(of_point, (jax.random.split(key, len(X)), X))


def cholesky_factor(scale):
    """Return the lower factor of the covariance."""
    return jnp.diag(scale) if scale.ndim == 1 else scale


def gap_formula(gram, factor, beta):
    """Return beta / 2 [tr(K S) - log |K S| - d], with K = I + gram / beta and S = L L^T."""
    K = optimal_precision(gram, beta)
    logs = jnp.linalg.slogdet(K)[1] + 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))
    return 0.5 * beta * (jnp.sum(factor * (K @ factor)) - logs - len(K))


def distance(found, expected):
    """Return the relative distance of two matrices, in the Frobenius norm."""
    return jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected)


def block_mask(latents, block):
    """Return a matrix that is 1 in the blocks of the diagonal and 0 elsewhere."""
    places = jnp.arange(latents) // block
    return jnp.where(places[:, None] == places, 1.0, 0.0)


def squared_cosines(gram):
    """Return the squared cosines of the angles between columns of J, from J^T J."""
    squares = jnp.diagonal(gram)
    norms = jnp.outer(squares, squares)
    return jnp.where(norms > 0, gram**2 / jnp.where(norms > 0, norms, 1), 0)


def share_outside(squares, block):
    """Return the part of the sum off the diagonal that lies between blocks."""
    squares = np.asarray(squares) * (1 - np.eye(len(squares)))
    return float(squares[np.asarray(block_mask(len(squares), block)) == 0].sum() / squares.sum())


def least_random_share(squares, block, count, seed):
    """Return the smallest share between blocks of random groupings of the latents."""
    random = np.random.default_rng(seed)
    orders = [random.permutation(len(squares)) for _ in range(count)]
    return min(share_outside(squares[order][:, order], block) for order in orders)


def _shares(settings, squares, block):
    """Return the mean squared cosines in blocks and between them, and their shares."""
    latents, found = len(squares), {}
    inside = np.asarray(block_mask(latents, block)) == 1
    if block > 1:
        found["cosine_within"] = squares[inside & ~np.eye(latents, dtype=bool)].mean()
    if block < latents:
        found["cosine_between"] = squares[~inside].mean()
    if 1 < block < latents:
        found["share_outside"] = share_outside(squares, block)
        found["share_random"] = (latents - block) / (latents - 1)
        found["share_random_least"] = least_random_share(
            squares, block, settings["groupings"], settings["seed"]
        )
    else:
        for size in settings["control_blocks"]:
            found[f"share_outside_{size}"] = share_outside(squares, size)
    return found


def _rows(matrix):
    """Return a string for each row, which keeps the file small."""
    return [" ".join(f"{value:.3g}" for value in row) for row in np.asarray(matrix, float)]


def summarise(settings, results):
    """Return, for each kind of run, means and standard errors over the seeds."""
    return average(results)


def average(results):
    """Return, for cases that differ in the seed, [mean, standard error] of each number."""
    values = {}
    for group in dict.fromkeys(name.rsplit(", seed ", 1)[0] for name in results):
        runs = [found for name, found in results.items() if name.rsplit(", seed ", 1)[0] == group]
        values[group] = {
            name: short_mean_error([run[name] for run in runs])
            for name, value in runs[0].items()
            if isinstance(value, float)
        }
    return values
