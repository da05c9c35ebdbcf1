"""Collapse of a VAE, of SimCLR and over permuted tasks on 8 x 8 digits: chapter 8's small trials.

Small versions of Figures 6 and 7, Table 1 and Figure 9 of Ziyin, Xu & Chuang (2024). Sizes and
steps are below. gamma stands for gamma ||phi - anchor||^2; "syre S" has a random anchor of
standard deviation S / sqrt(fan-in), where .01 is the paper's default. In all cases the start is
the usual one, without the anchor. All methods of a case share starts, batches and draws.

- "vae": 16 latents of prior variance .01, two SiLU layers each way, decay on the encoder only.
  "held" means gamma = 100. The encoder's means are judged at two thresholds, and the first images
  of the first seed are kept with their reconstructions at the mean.
- "simclr": two hidden layers and a linear last one, 32 units each; copies are shifted by up to a
  pixel and get noise; decay on the last layer only. A ridge regression judges the features.
- "tasks": ten orders of the pixels in a row, a network with three hidden layers of 32 units. The
  other cases of tasks have no decay, and change one thing: step size, length or depth.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from symcourse.experiments._training import make_step, short
from symlib.data import load
from symlib.syre import (
    anchored_decay,
    covariance_spectrum,
    decay_to_initial,
    default_sigma0,
    draw_anchor,
    thresholded_rank,
)

NO_DECAY = {"methods": ["no decay"]}
SETTINGS = {
    "seed": 8,
    "seeds": 5,
    "batch": 32,
    "shown": 8,  # images whose reconstructions are kept
    "vae": {
        "steps": 400,
        "betas": [0.1, 1.0, 3.0],
        "methods": {  # gamma, and the scale of the anchor
            "plain": [0.0, 0.0],
            "weight decay": [1.0, 0.0],
            "syre 0.01": [1.0, 0.01],
            "syre 1": [1.0, 1.0],
            "syre 0.01, held": [100.0, 0.01],
            "syre 1, held": [100.0, 1.0],
        },
    },
    "simclr": {
        "steps": 240,
        "images": 48,
        "noise": 0.2,
        "temperature": 0.5,
        "methods": {
            "plain": [0.0, 0.0],
            "weight decay": [0.1, 0.0],
            "syre 0.01": [0.1, 0.01],
            "syre 0.1": [0.1, 0.1],
            "syre 1": [0.1, 1.0],
        },
    },
    "tasks": {
        "count": 10,
        "steps": 110,
        "step_size": 0.05,
        "momentum": 0.9,
        "gamma": 0.01,
        "widths": [64, 32, 32, 32, 10],
        "methods": ["no decay", "weight decay", "syre 0.01", "syre 0.1", "syre 1", "L2 Init"],
    },
    "tasks, smaller step": {**NO_DECAY, "step_size": 0.02},
    "tasks, longer": {**NO_DECAY, "steps": 350},
    "tasks, one hidden layer": {**NO_DECAY, "widths": [64, 50, 10]},
}
# A case of a few seconds, which a test runs again: its name, and what it changes in the settings.
SMALL = (
    "tasks, one hidden layer",
    {"seeds": 2, "tasks, one hidden layer": {**NO_DECAY, "widths": [64, 8, 10], "steps": 10}},
)


def cases(settings):
    """Return one case for each experiment."""
    names = [name for name, value in settings.items() if isinstance(value, dict)]
    return [(name, {"name": name}) for name in names]


def run_case(settings, case, key):
    """Return what was measured, for each method and seed."""
    name = case["name"]
    with jax.enable_x64(True):
        if name == "vae":
            return _vae(settings, **settings["vae"])
        if name == "simclr":
            return _simclr(settings, **settings["simclr"])
        return _tasks(settings, **(settings["tasks"] | settings[name]))


def _digits():
    """Return images and labels for training, then for testing, an image as a row of 64."""
    data = load("digits")
    images = (jnp.asarray(x.reshape(len(x), -1), float) for x in data[::2])
    return [*zip(images, map(jnp.asarray, data[1::2]), strict=True)]


def _networks(widths, seed, seeds):
    """Return networks for all seeds, lists of layers (W, b), uniform in +-1 / sqrt(fan-in)."""
    random = np.random.default_rng(seed)

    def draw(inputs, *shape):
        return random.uniform(-(inputs**-0.5), inputs**-0.5, (seeds, *shape))

    return [(draw(n, m, n), draw(n, m)) for n, m in zip(widths[:-1], widths[1:], strict=True)]


def _relu(layers, x):
    """Return the features before the last layer, and the outputs."""
    for W, b in layers[:-1]:
        x = jax.nn.relu(x @ W.T + b)
    return x, x @ layers[-1][0].T + layers[-1][1]


def _silu(layers, x):
    (W, b), (V, c) = layers
    return jax.nn.silu(x @ W.T + b) @ V.T + c


def _decay(params, gamma, scale, key, mask):
    sigma0 = jax.tree.map(lambda sigma: scale / 0.01 * sigma, default_sigma0(params))
    return anchored_decay(key, gamma=gamma, sigma0=sigma0, mask=mask)


def _batched(run, by_case, by_seed):
    return jax.jit(jax.vmap(jax.vmap(run, by_seed), by_case))


def _listed(tree):
    """Return arrays as nested lists of numbers of four digits."""
    return jax.tree.map(
        lambda array: np.vectorize(short, otypes=[float])(np.asarray(array, float)).tolist(), tree
    )


def _vae(settings, steps, betas, methods):
    (images, _), (test, _) = _digits()
    seeds = settings["seeds"]
    start = {
        "encoder": _networks([64, 32, 16], 4, seeds),
        "decoder": _networks([16, 32, 64], 5, seeds),
        "log_v": np.full((seeds, 16), np.log(0.01)),
    }

    def terms(params, x, noise):
        mean, log_v = _silu(params["encoder"], x), params["log_v"]
        z = mean + jnp.exp(log_v / 2) * noise
        error = jnp.sum((_silu(params["decoder"], z) - x) ** 2, axis=1)
        ratio = (mean**2 + jnp.exp(log_v)) / 0.01
        divergence = (ratio - 1 - log_v + jnp.log(0.01)).sum(axis=1) / 2
        return error.mean(), divergence.mean()

    def one(params, gamma, scale, beta, key, places, noise):
        mask = {"encoder": True, "decoder": False, "log_v": False}
        schedule = optax.linear_schedule(5e-3, 0.0, steps // 2, steps // 2)
        method = optax.chain(_decay(params, gamma, scale, key, mask), optax.adam(schedule))

        def loss(params, places, noise):
            error, divergence = terms(params, images[places], noise)
            return error + beta * divergence

        carry = params, method.init(params)
        return jax.lax.scan(make_step(loss, method), carry, (places, noise))[0][0]

    table = [(m, b) for m in methods for b in betas]
    swept = np.array([(*methods[m], b) for m, b in table]).T
    random = np.random.default_rng(6)
    places = random.integers(0, len(images), (seeds, steps, settings["batch"]))
    noise = random.normal(size=(seeds, steps, settings["batch"], 16))
    keys = jax.random.split(jax.random.key(8), seeds)
    by_case, by_seed = (None, 0, 0, 0, None, None, None), (0, None, None, None, 0, 0, 0)
    fitted = _batched(one, by_case, by_seed)(start, *swept, keys, places, noise)

    x, drawn = test[:200], random.normal(size=(200, 16))

    def measure(params):
        means = _silu(params["encoder"], x)
        spectrum, shown = covariance_spectrum(means), means[: settings["shown"]]
        return {
            **dict(zip(("error", "divergence"), terms(params, x, drawn), strict=True)),
            "rank": jnp.sum(spectrum > 1e-6),
            "active": jnp.sum(spectrum > 1e-4),  # 1 % of the prior variance
            "reconstructed": _silu(params["decoder"], shown),
        }

    found = _batched(measure, (0,), (0,))(fitted)
    found["reconstructed"] = found["reconstructed"][:, 0]  # of one seed
    rows = {
        f"{m}, beta {b}": _listed(jax.tree.map(lambda array, i=i: array[i], found))
        for i, (m, b) in enumerate(table)
    }
    nothing = float(((x - images.mean(axis=0)) ** 2).sum(axis=1).mean())
    return {
        "rows": rows,
        "mean_image_error": short(nothing),
        "images": _listed(x[: settings["shown"]]),
    }


def _simclr(settings, steps, images, noise, temperature, methods):
    (x, y), (test_x, test_y) = _digits()
    seeds, size = settings["seeds"], images
    padded = np.pad(np.asarray(x).reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    shifted = jnp.asarray(
        [padded[:, i : i + 8, j : j + 8].reshape(-1, 64) for i in range(3) for j in range(3)]
    )
    random = np.random.default_rng(3)
    chosen = jnp.asarray(random.integers(0, len(x), (seeds, steps, size)))
    shifts = jnp.asarray(random.integers(0, 9, (seeds, steps, 2, size)))
    added = jnp.asarray(noise * random.normal(size=(50, 2, size, 64)))

    def loss(layers, step, image, shift):
        copies = shifted[shift, image] + added[step % 50]
        z = _relu(layers, copies.reshape(2 * size, 64))[1]
        z = z / jnp.linalg.norm(z, axis=1, keepdims=True)
        similar = z @ z.T / temperature - 1e9 * jnp.eye(2 * size)  # not with itself
        partner = jnp.roll(jnp.arange(2 * size), size)
        return optax.softmax_cross_entropy_with_integer_labels(similar, partner).mean()

    def one(params, gamma, scale, key, *batches):
        decay = _decay(params, gamma, scale, key, [False, False, True])
        method = optax.chain(decay, optax.adam(2e-3))
        carry = params, method.init(params)
        return jax.lax.scan(make_step(loss, method), carry, batches)[0][0]

    start = _networks([64, 32, 32, 32], 7, seeds)
    keys = jax.random.split(jax.random.key(8), seeds)
    by_case, by_seed = (None, 0, 0, None, None, None, None), (0, None, None, 0, None, 0, 0)
    trained = _batched(one, by_case, by_seed)(
        start, *np.array(list(methods.values())).T, keys, jnp.arange(steps), chosen, shifts
    )

    def probe(seen, unseen):
        """Return the test accuracy of ridge regression (percent)."""
        centre, spread = seen.mean(axis=0), seen.std()
        seen, unseen = ((f - centre) / spread for f in (seen, unseen))
        gram = seen.T @ seen / len(seen) + 1e-3 * jnp.eye(32)
        weights = jnp.linalg.solve(gram, seen.T @ (jax.nn.one_hot(y, 10) - 0.1))
        return 100 * jnp.mean(jnp.argmax(unseen @ weights, axis=1) == test_y)

    def measure(layers):
        seen, unseen = _relu(layers, x), _relu(layers, test_x)
        z = unseen[1] / jnp.linalg.norm(unseen[1], axis=1, keepdims=True)
        return {
            "penultimate": probe(seen[0], unseen[0]),
            "last": probe(seen[1], unseen[1]),
            "low_rankness": 100 * jnp.mean(covariance_spectrum(z[:200]) < 1e-5),
        }

    found = _batched(measure, (0,), (0,))(trained)
    return {
        m: _listed(jax.tree.map(lambda array, i=i: array[i], found)) for i, m in enumerate(methods)
    }


def _tasks(settings, count, steps, step_size, momentum, gamma, widths, methods):
    (images, labels), (test, test_labels) = _digits()
    seeds = settings["seeds"]
    start = _networks(widths, 2, seeds)
    zero = jax.tree.map(np.zeros_like, start)
    sigma0 = default_sigma0(jax.tree.map(lambda leaf: leaf[0], start))
    unit = jax.tree.map(
        lambda leaf: 100 * np.asarray(leaf), draw_anchor(start, jax.random.key(3), sigma0)[0]
    )

    def anchor(method):
        if method.startswith("syre"):
            return jax.tree.map(lambda leaf: float(method.split()[1]) * leaf, unit)
        return start if method == "L2 Init" else zero

    anchors = jax.tree.map(lambda *leaves: np.stack(leaves), *map(anchor, methods))
    gammas = jnp.array([0.0 if m == "no decay" else gamma for m in methods])
    random = np.random.default_rng(5)
    orders = [np.arange(64)] + [random.permutation(64) for _ in range(count - 1)]
    places = jnp.asarray(random.integers(0, len(images), (seeds, count, steps, settings["batch"])))

    def one(params, anchor, gamma, places):
        method = optax.chain(decay_to_initial(gamma), optax.sgd(step_size, momentum))

        def task(carry, task):
            order, places = task

            def loss(layers, places):
                scores = _relu(layers, images[places][:, order])[1]
                return optax.softmax_cross_entropy_with_integer_labels(
                    scores, labels[places]
                ).mean()

            carry, _ = jax.lax.scan(make_step(loss, method), carry, (places,))
            layers, x = carry[0], test[:, order]
            last, scores = _relu(layers, x)
            return carry, {
                "accuracy": 100 * jnp.mean(jnp.argmax(scores, axis=1) == test_labels),
                "rank": thresholded_rank(x[:200] @ layers[0][0].T),
                "silent": 100 * jnp.mean(~jnp.any(last > 0, axis=0)),  # of the last hidden layer
            }

        carry = params, method.init(anchor)  # the state is the anchor
        return jax.lax.scan(task, carry, (jnp.asarray(orders), places))[1]

    found = _batched(one, (None, 0, 0, None), (0, 0, None, 0))(start, anchors, gammas, places)
    return {  # name, seed, task
        m: _listed(jax.tree.map(lambda array, i=i: array[i], found)) for i, m in enumerate(methods)
    }


def summarise(settings, results):
    """Return the results as they are: means are taken on the pages."""
    return {}
