"""Tests of the experiments on beta-VAEs and GRAE: their measures beside closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import sqrtm

from symcourse.experiments import k5_objectives_over_beta as k5
from symcourse.experiments import k6_training_by_grae as k6
from symcourse.experiments import load_result
from symcourse.experiments._training import draw_batches
from symlib.autoencoders import GAUSSIAN, curvature, grae, grae_bound, optimal_covariance, taylor

PIXELS, LATENTS, BETA = 9, 4, 0.3


def network(block=1, activation=jax.nn.elu, output=jax.nn.sigmoid, seed=0):
    return k5.Autoencoder(jax.random.key(seed), PIXELS, LATENTS, block, 8, activation, output)


def gaussian(seed, size=5):
    """Return a mean and a covariance."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(size, 2 * size))
    return random.normal(size=size), rows @ rows.T


# The Frechet distance


def test_frechet_distance_of_a_gaussian_with_itself_and_when_shifted():
    mean, covariance = gaussian(0)
    shift = np.array([1.0, -2.0, 0.5, 0.0, 3.0])
    assert_allclose(k6.frechet_distance((mean, covariance), (mean, covariance)), 0, atol=1e-10)
    shifted = k6.frechet_distance((mean, covariance), (mean + shift, covariance))
    assert_allclose(shifted, shift @ shift, rtol=1e-10)


def test_frechet_distance_of_commuting_covariances():
    vectors = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    a, b = np.array([4.0, 0.0, 1.0]), np.array([1.0, 9.0, 0.25])
    first, second = ((np.zeros(3), vectors * values @ vectors.T) for values in (a, b))
    expected = np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    assert_allclose(k6.frechet_distance(first, second), expected, rtol=1e-7)


def test_frechet_distance_by_another_root():
    first, second = gaussian(2), gaussian(3)
    root = sqrtm(first[1] @ second[1]).real
    expected = np.sum((first[0] - second[0]) ** 2) + np.trace(first[1] + second[1] - 2 * root)
    assert_allclose(k6.frechet_distance(first, second), expected, rtol=1e-8)
    assert_allclose(k6.frechet_distance(second, first), expected, rtol=1e-8)


def test_pixels_survive_as_digits():
    image = np.random.default_rng(4).uniform(size=(3, 3))
    image[0, :2] = 0, 1
    text = k6.digits(image)
    assert text[:4] == "0099"
    found = np.array([int(text[i : i + 2]) for i in range(0, len(text), 2)]) / 99
    assert_allclose(found, image.ravel(), atol=0.5 / 99 + 1e-9)


# Blocks


def blocks_of(block, seed=5):
    """Return squared cosines that vanish between blocks, and a permutation of the latents."""
    random = np.random.default_rng(seed)
    numbers = random.uniform(0.1, 1, size=(6, 6))
    numbers = (numbers + numbers.T) / 2
    return numbers * np.asarray(k5.block_mask(6, block)), numbers


@pytest.mark.parametrize("block", [2, 3])
def test_shares_of_matrices_made_by_hand(block):
    blocks, dense = blocks_of(block)
    assert k5.share_outside(blocks, block) == 0
    assert k5.share_outside(dense - blocks, block) == pytest.approx(1)
    order = [0, 3, 1, 4, 2, 5]  # no latent stays with its block
    mixed = blocks[order][:, order]
    assert k5.share_outside(mixed, block) > 0.5
    # A thousand groupings of six latents hold all 10 or 15 of them.
    assert k5.least_random_share(mixed, block, 1000, 0) == 0


@pytest.mark.parametrize("block", [2, 3])
def test_share_of_random_groupings_has_a_known_mean(block):
    _, dense = blocks_of(block)
    random = np.random.default_rng(6)
    orders = [random.permutation(6) for _ in range(4000)]
    mean = np.mean([k5.share_outside(dense[order][:, order], block) for order in orders])
    assert_allclose(mean, (6 - block) / 5, atol=0.003)


def test_squared_cosines():
    J = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    expected = [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 0]]  # a column of zeros has no angle
    assert_allclose(k5.squared_cosines(jnp.asarray(J.T @ J)), expected, atol=1e-6)


# Losses and measures


@pytest.mark.parametrize("block", [1, 2])
def test_gap_formula_is_the_measured_difference(x64, block):
    @eqx.filter_jit
    def measure(networks, x):
        mean, scale = networks.posterior(x)
        expanded = taylor(networks.decoder, x, mean, scale, BETA)
        gram = curvature(networks.decoder, x, mean)
        best = jnp.linalg.cholesky(optimal_covariance(gram, BETA))
        formulas = [k5.gap_formula(gram, L, BETA) for L in (k5.cholesky_factor(scale), best)]
        return expanded - grae(networks.decoder, x, mean, BETA), formulas

    measured, (formula, at_best) = measure(network(block), jnp.linspace(0, 1, PIXELS))
    assert formula > 1e-4
    assert_allclose(formula, measured, rtol=1e-9)
    assert_allclose(at_best, 0, atol=1e-12)


def test_posterior_has_the_blocks_it_promises():
    mean, factor = network(2).posterior(jnp.ones(PIXELS))
    assert mean.shape == (LATENTS,) and factor.shape == (LATENTS, LATENTS)
    factor = np.asarray(factor)
    assert (factor[np.asarray(k5.block_mask(LATENTS, 2)) == 0] == 0).all()
    assert factor[1, 0] != 0 and factor[3, 2] != 0 and (np.diag(factor) > 0).all()
    assert (factor[[0, 2], [1, 3]] == 0).all()


def linear_at_its_best(block):
    """Return a linear model whose posterior is the best one of its blocks for every image."""
    networks = network(block, jax.nn.identity, jax.nn.identity)
    J = np.eye(PIXELS)
    for layer in reversed(networks.decoder.layers):
        J = J @ np.asarray(layer.weight, float)
    K = np.asarray(k5.block_mask(LATENTS, block)) * (np.eye(LATENTS) + J.T @ J / BETA)
    L = np.linalg.cholesky(np.linalg.inv(K))
    pieces = [L[i : i + block, i : i + block] for i in range(0, LATENTS, block)]
    free = [piece - np.diag(np.diag(piece)) + np.diag(np.log(np.diag(piece))) for piece in pieces]
    last = networks.encoder.layers[-1]
    weight, bias = np.array(last.weight), np.array(last.bias)
    weight[LATENTS:], bias[LATENTS:] = 0, np.ravel(free)
    return eqx.tree_at(
        lambda n: (n.encoder.layers[-1].weight, n.encoder.layers[-1].bias),
        networks,
        (jnp.asarray(weight), jnp.asarray(bias)),
    )


def test_a_linear_model_meets_every_condition():
    networks = linear_at_its_best(2)
    X = jax.random.uniform(jax.random.key(2), (12, PIXELS))
    beta, key = jnp.float32(BETA), jax.random.key(3)
    found, parts = k5._evaluate(networks, X, beta, key, 400)
    found = {name: float(jnp.mean(value)) for name, value in found.items()}
    assert found["precision_error"] < 1e-4
    assert found["metric_error"] < 1e-3
    assert_allclose(found["metric_scale"], 1, atol=1e-3)
    assert found["metric_error_whole"] > 0.02  # the rest of J^T J
    assert_allclose(found["gap"], found["gap_formula"], atol=1e-4)
    assert found["grae"] < found["taylor"] < found["bound"]
    error = np.sqrt(parts["draws"].var() / parts["draws"].size)
    assert abs(found["beta_vae_less_taylor"]) < 5 * error
    assert np.max(k5._averaged_error(networks, X, beta, key, 3)) < 1e-4
    away = eqx.tree_at(lambda n: n.encoder.layers[-1].bias, networks, replace_fn=lambda b: b + 0.3)
    assert np.min(k5._averaged_error(away, X, beta, key, 3)) > 0.05


def test_linear_models_have_no_neglected_term():
    networks = linear_at_its_best(1)
    X = jax.random.uniform(jax.random.key(2), (3, PIXELS))
    settings = {"hessian_points": 3, "hessian_draws": 2}
    found = k5._with_hessians(settings, networks, X, BETA, jax.random.key(3))
    assert found["curvature_error"] < 1e-12
    assert found["taylor_full_less_taylor"] == pytest.approx(0, abs=1e-12)
    assert found["gap_error"] < 1e-12
    assert found["indefinite"] == 0 and found["least_eigenvalue"] > 1


@pytest.mark.parametrize("method", sorted(k6.OBJECTIVES))
def test_losses_of_a_batch_have_the_right_mean(method):
    exact = method in ("bound", "GRAE")

    @eqx.filter_jit
    def found_and_expected(networks, x):
        X = jnp.tile(x, (8 if exact else 40_000, 1))  # draws of one loss
        decoder, (mean, scale) = networks.decoder, networks.posterior(x)
        plain = GAUSSIAN.loss(decoder(mean), x) + 0.5 * BETA * jnp.sum(mean**2)
        gram = curvature(decoder, x, mean)
        cosines = jnp.sum(jnp.tril(k5.squared_cosines(gram), -1))  # of the six pairs
        expected = {
            "beta-VAE": lambda: taylor(decoder, x, mean, scale, BETA, hessian="full"),
            "GRAE": lambda: grae(decoder, x, mean, BETA),
            "Jacobian norm": lambda: plain + 0.5 * jnp.trace(gram),
            "sampled + orthogonality": lambda: (
                grae_bound(decoder, x, mean, BETA) + 0.5 * BETA * cosines
            ),
        }.get(method, lambda: grae_bound(decoder, x, mean, BETA))
        return k6.OBJECTIVES[method](
            networks, X, jax.random.key(7), BETA
        ) - plain, expected() - plain

    found, expected = found_and_expected(network(), jnp.linspace(0, 1, PIXELS))
    # Draws leave errors of 1 percent and less, the Taylor expansion one of that size.
    assert_allclose(found, expected, rtol=1e-4 if exact else 0.02)


@pytest.mark.parametrize("block", [1, 4])
def test_controls_are_grouped_by_other_sizes(block):
    squares = np.eye(4)
    squares[0, 1] = squares[1, 0] = 0.5
    squares[1, 2] = squares[2, 1] = 0.25
    found = k5._shares({"control_blocks": [2, 3]}, squares, block)
    assert found["share_outside_2"] == pytest.approx(1 / 3)
    assert found["share_outside_3"] == 0
    assert found["cosine_between" if block == 1 else "cosine_within"] == pytest.approx(1.5 / 12)


def test_every_image_comes_once_a_pass():
    batches = draw_batches(jax.random.key(0), 10, {"steps": 6, "batch_size": 5})
    for start in (0, 2, 4):
        assert sorted(np.ravel(batches[start : start + 2])) == list(range(10))


# Whole runs, small ones that are stored: test_experiments runs them again


def test_the_small_run_of_k5_obeys_the_laws():
    found = load_result("K5")["small"]["result"]
    for name in ("precision", "gram"):
        matrix = np.array([row.split() for row in found["matrices"][0][name]], float)
        assert matrix.shape == (4, 4)
        assert_allclose(matrix, matrix.T, rtol=0.02, atol=1e-5)
    assert abs(found["grae"] + found["gap"] - found["taylor"]) < 0.01
    assert found["grae"] <= found["bound"]
    assert found["gap_error"] < 1e-12
    assert found["curvature_error"] > 1e-3  # neither elu nor the sigmoid is linear


def test_the_small_run_of_k6_obeys_the_laws():
    (image,) = load_result("K6")["small"]["result"]["images"]
    assert len(image) == 2 * 784 and image.isdigit()
    found = load_result("K6")["small"]["result"]
    assert min(found[f"frechet_{kind}"] for kind in ("prior", "fitted", "reconstruction")) > 0
    # The covariance that it lacks is chosen so that the expanded loss is the bound.
    assert_allclose(found["loss_beta_vae"], found["loss_bound"], rtol=0.02)
    assert found["loss_grae"] <= found["loss_bound"]


def test_averages_are_over_the_seeds_of_one_group():
    cases = {"a, seed 0": {"x": 1.0, "images": ["0"]}, "a, seed 1": {"x": 2.0}, "b": {"x": 4.0}}
    assert k5.average(cases) == {"a": {"x": [1.5, 0.5]}, "b": {"x": [4.0, None]}}
