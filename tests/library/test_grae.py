"""Tests of symlib.autoencoders against closed forms, optimisers and each other."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose
from scipy import optimize, stats

from symlib.autoencoders import (
    BERNOULLI,
    GAUSSIAN,
    beta_vae,
    block_scale,
    curvature,
    deterministic,
    grae,
    grae_bound,
    grae_bound_sampled,
    kl_to_prior,
    metric,
    optimal_covariance,
    optimal_precision,
    orthogonality_penalty,
    taylor,
)

D, LATENTS = 6, 3


def problem(dtype, seed=0):
    """Return a decoder's weights, an observation, a mean and a Cholesky factor."""
    keys = jax.random.split(jax.random.key(seed), 4)
    weights = (
        jax.random.normal(keys[0], (5, LATENTS), dtype),
        jax.random.normal(keys[1], (D, 5), dtype),
    )
    x = jnp.asarray([1, 0, 1, 1, 0, 0], dtype)
    mean = jax.random.normal(keys[2], (LATENTS,), dtype)
    scale = block_scale(0.3 * jax.random.normal(keys[3], (1, LATENTS, LATENTS), dtype))
    return weights, x, mean, scale


def network(weights, activation=jnp.tanh):
    return lambda z: weights[1] @ activation(weights[0] @ z)


def linear(weights):
    return lambda z: weights[1] @ weights[0] @ z


def test_the_divergence_is_that_of_two_gaussians(dtype, tolerance):
    _, _, mean, scale = problem(dtype)
    covariance = np.float64(scale @ scale.T)
    expected = 0.5 * (
        np.trace(covariance)
        + np.sum(np.float64(mean) ** 2)
        - LATENTS
        - np.linalg.slogdet(covariance)[1]
    )
    assert_allclose(kl_to_prior(mean, scale), expected, rtol=tolerance(dtype))
    deviations = jnp.array([0.5, 1.0, 2.0], dtype)
    assert_allclose(
        kl_to_prior(mean, deviations),
        kl_to_prior(mean, jnp.diag(deviations)),
        rtol=tolerance(dtype),
    )
    noise = jnp.triu(jnp.full((LATENTS, LATENTS), jnp.nan, dtype), 1)  # is not read
    assert kl_to_prior(mean, scale + noise) == kl_to_prior(mean, scale)
    assert kl_to_prior(jnp.zeros(LATENTS, dtype), jnp.ones(LATENTS, dtype)) == 0


def test_block_scales_are_cholesky_factors_with_blocks(dtype):
    parameters = jax.random.normal(jax.random.key(1), (2, 2, 2), dtype)
    scale = block_scale(parameters)
    assert scale.shape == (4, 4) and scale.dtype == dtype
    assert (jnp.diagonal(scale) > 0).all()
    assert (scale[2:, :2] == 0).all() and (jnp.triu(scale, 1) == 0).all()
    assert scale[1, 0] == parameters[0, 1, 0] and scale[3, 2] == parameters[1, 1, 0]


@pytest.mark.parametrize("form", ["mean field", "full"])
def test_the_sampled_loss_is_unbiased(x64, form):
    weights, x, mean, scale = problem(jnp.float64)
    scale = jnp.diagonal(scale) if form == "mean field" else scale
    exact = taylor(linear(weights), x, mean, scale, 0.7)  # exact for a linear decoder
    values = jax.vmap(
        lambda key: beta_vae(key, linear(weights), x, mean, scale, 0.7, num_samples=2)
    )(jax.random.split(jax.random.key(2), 4000))
    assert abs(values.mean() - exact) < 5 * values.std() / len(values) ** 0.5
    assert values.std() > 0.1


@pytest.mark.parametrize("observation", [GAUSSIAN, BERNOULLI], ids=["Gaussian", "Bernoulli"])
def test_observations_know_their_law_and_their_curvature(dtype, tolerance, observation):
    _, x, _, _ = problem(dtype)
    output = jnp.linspace(-3, 3, D, dtype=dtype)
    if observation is GAUSSIAN:
        log_density = stats.norm.logpdf(x, output).sum() + 0.5 * D * math.log(2 * math.pi)
    else:
        log_density = stats.bernoulli.logpmf(x, 1 / (1 + np.exp(-np.float64(output)))).sum()
    assert_allclose(observation.loss(output, x), -log_density, rtol=tolerance(dtype))
    hessian = jax.hessian(lambda o: observation.loss(o, x))(output)
    expected = jnp.diag(observation.curvature(output, x))
    assert_allclose(hessian, expected, atol=tolerance(dtype))
    far = observation.loss(1000 * output, x)
    assert jnp.isfinite(far)


@pytest.mark.parametrize("observation", [GAUSSIAN, BERNOULLI], ids=["Gaussian", "Bernoulli"])
def test_gauss_newton_is_exact_for_relu_only(x64, observation):
    weights, x, mean, _ = problem(jnp.float64)

    def difference(decoder):
        full = curvature(decoder, x, mean, observation, "full")
        return jnp.abs(full - curvature(decoder, x, mean, observation)).max()

    assert difference(network(weights, jax.nn.relu)) < 1e-12
    assert difference(network(weights, jax.nn.elu)) > 0.01
    assert difference(network(weights)) > 0.01
    relu = network(weights, jax.nn.relu)
    assert difference(lambda z: jax.nn.sigmoid(relu(z))) > 0.01  # a sigmoid output: error E13


@pytest.mark.parametrize("observation", [GAUSSIAN, BERNOULLI], ids=["Gaussian", "Bernoulli"])
def test_the_optimal_covariance_is_where_an_optimiser_goes(x64, observation):
    weights, x, mean, _ = problem(jnp.float64)
    decoder, beta = network(weights), 0.5

    @jax.jit
    def loss(parameters):
        scale = block_scale(parameters.reshape(1, LATENTS, LATENTS))
        return taylor(decoder, x, mean, scale, beta, observation)

    start = np.zeros(LATENTS**2)
    found = optimize.minimize(loss, start, jac=jax.jit(jax.grad(loss)), tol=1e-12)
    scale = block_scale(jnp.asarray(found.x).reshape(1, LATENTS, LATENTS))
    C = curvature(decoder, x, mean, observation)
    assert_allclose(scale @ scale.T, optimal_covariance(C, beta), atol=1e-6)
    assert_allclose(optimal_precision(C, beta) @ optimal_covariance(C, beta), np.eye(3), atol=1e-12)
    assert_allclose(loss(found.x), grae(decoder, x, mean, beta, observation), atol=1e-10)


@pytest.mark.parametrize(("hessian", "beta"), [("gauss-newton", 0.3), ("full", 20.0)])
def test_the_gap_between_taylor_and_the_best_covariance(x64, hessian, beta):
    weights, x, mean, scale = problem(jnp.float64)
    decoder = network(weights)
    K = np.eye(LATENTS) + np.asarray(curvature(decoder, x, mean, GAUSSIAN, hessian)) / beta
    product = K @ np.asarray(scale @ scale.T)
    gap = beta / 2 * (np.trace(product) - np.linalg.slogdet(product)[1] - LATENTS)
    found = taylor(decoder, x, mean, scale, beta, hessian=hessian)
    best = deterministic(decoder, x, mean, beta, hessian=hessian)
    assert_allclose(found - best, gap, atol=1e-10)
    assert gap > 0.05


@pytest.mark.parametrize("observation", [GAUSSIAN, BERNOULLI], ids=["Gaussian", "Bernoulli"])
def test_the_bound_is_the_mean_field_optimum(dtype, tolerance, observation):
    weights, x, mean, _ = problem(dtype)
    decoder, beta, bound = network(weights), 0.5, 20 * tolerance(dtype)
    upper = grae_bound(decoder, x, mean, beta, observation)
    assert upper.dtype == dtype
    assert upper > grae(decoder, x, mean, beta, observation) + 0.01
    K = optimal_precision(curvature(decoder, x, mean, observation), beta)
    best = taylor(decoder, x, mean, jnp.diagonal(K) ** -0.5, beta, observation)
    assert_allclose(upper, best, rtol=bound)


def test_the_bound_is_tight_for_orthogonal_columns(x64):
    frame = np.linalg.qr(np.random.default_rng(0).normal(size=(D, LATENTS)))[0]
    columns = jnp.asarray(frame * [1.0, 2.0, 0.0])
    x, mean = jnp.ones(D), jnp.ones(LATENTS)

    def decoder(z):
        return columns @ z

    assert_allclose(grae_bound(decoder, x, mean, 0.3), grae(decoder, x, mean, 0.3), rtol=1e-12)
    keys = jax.random.split(jax.random.key(0), 10)
    penalties = jax.vmap(lambda key: orthogonality_penalty(key, decoder, mean))(keys)
    assert_allclose(penalties, 0, atol=1e-12)


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("num_columns", [1, 2])
def test_the_sampled_bound_is_unbiased(x64, num_columns, uniform):
    weights, x, mean, _ = problem(jnp.float64)
    probabilities = None if uniform else jnp.array([0.2, 0.5, 0.3])

    def estimate(key):
        return grae_bound_sampled(
            key, network(weights), x, mean, 0.5, BERNOULLI, num_columns, probabilities
        )

    values = jax.vmap(estimate)(jax.random.split(jax.random.key(3), 4000))
    exact = grae_bound(network(weights), x, mean, 0.5, BERNOULLI)
    assert abs(values.mean() - exact) < 5 * values.std() / len(values) ** 0.5
    assert len(np.unique(np.round(values, 9))) == (LATENTS if num_columns == 1 else 6)


def test_the_orthogonality_penalty_is_a_squared_cosine(x64):
    matrix = jnp.array([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])

    def decoder(z):
        return matrix @ z

    value = orthogonality_penalty(jax.random.key(0), decoder, jnp.zeros(2), num_pairs=3)
    assert_allclose(value, 0.5, rtol=1e-12)
    weights, _, mean, _ = problem(jnp.float64)
    jacobian = jax.jacobian(network(weights))(mean)
    unit = jacobian / jnp.linalg.norm(jacobian, axis=0)
    squares = (unit.T @ unit)[np.triu_indices(LATENTS, 1)] ** 2
    values = jax.vmap(lambda key: orthogonality_penalty(key, network(weights), mean))(
        jax.random.split(jax.random.key(1), 100)
    )
    assert_allclose(np.unique(np.round(values, 9)), np.sort(np.round(squares, 9)), atol=1e-9)


@pytest.mark.parametrize("beta", [0.1, 0.6, 2.0])
def test_a_linear_decoder_is_probabilistic_pca(x64, beta):
    rng = np.random.default_rng(4)
    X = rng.normal(size=(200, 4)) @ np.diag([2.0, 1.2, 0.7, 0.3])
    X = jnp.asarray(X - X.mean(0))
    moments = np.linalg.eigvalsh(X.T @ X / len(X))[::-1]

    @jax.jit
    def loss(flat):  # the means are optimal in closed form: ridge regression
        W = flat.reshape(4, 3)
        means = jnp.linalg.solve(W.T @ W + beta * jnp.eye(3), W.T @ X.T).T
        return jnp.mean(jax.vmap(lambda x, m: grae(lambda z: W @ z, x, m, beta))(X, means))

    W = rng.normal(size=(4, 3))
    C = W @ W.T + beta * np.eye(4)
    likelihood = stats.multivariate_normal(np.zeros(4), C).logpdf(X).mean()
    constant = beta * 4 / 2 * math.log(2 * math.pi * beta)
    assert_allclose(loss(W.ravel()), -beta * likelihood - constant, rtol=1e-10)

    found = optimize.minimize(loss, W.ravel(), jac=jax.jit(jax.grad(loss)), tol=1e-11)
    squared = np.linalg.svd(found.x.reshape(4, 3), compute_uv=False) ** 2
    expected = np.maximum(moments[:3] - beta, 0)
    assert_allclose(squared, expected, atol=1e-4 if (expected == 0).any() else 1e-6)
    filled = np.concatenate([np.maximum(moments[:3], beta), [beta]])
    best = 0.5 * np.sum(np.log(2 * math.pi * filled) + moments / filled)
    assert_allclose(found.fun, beta * best - constant, atol=1e-6)


def test_the_objectives_train_a_network_in_a_batch():
    weights, _, _, _ = problem(jnp.float32)
    keys = jax.random.split(jax.random.key(5), 3)
    X = jax.random.normal(keys[0], (32, D))
    encoder = 0.1 * jax.random.normal(keys[1], (LATENTS, D))

    @jax.jit
    @jax.value_and_grad
    def loss(parameters, key):
        weights, encoder = parameters
        each = jax.random.split(key, len(X))
        return jnp.mean(
            jax.vmap(lambda key, x: grae_bound_sampled(key, network(weights), x, encoder @ x, 0.3))(
                each, X
            )
        )

    optimizer = optax.adam(0.05)
    parameters, values = (weights, encoder), []
    state = optimizer.init(parameters)
    for key in jax.random.split(keys[2], 60):
        value, gradient = loss(parameters, key)
        updates, state = optimizer.update(gradient, state)
        parameters = optax.apply_updates(parameters, updates)
        values.append(value)
    assert np.mean(values[-10:]) < 0.7 * np.mean(values[:5])


def test_a_covariance_that_does_not_exist_is_named(x64):
    def decoder(z):
        return z**2 / 2

    x, mean = jnp.array([3.0]), jnp.array([0.0])
    assert deterministic(decoder, x, mean, 4.0, hessian="full") < 5
    with pytest.raises(ValueError, match="not positive definite, so that there is no best"):
        jax.block_until_ready(deterministic(decoder, x, mean, 2.0, hessian="full"))
    assert jnp.isfinite(grae(decoder, x, mean, 2.0))
    with pytest.raises(ValueError, match="diagonal of the scale has to be positive"):
        kl_to_prior(mean, jnp.array([-1.0]))
    with pytest.raises(RuntimeError, match="diagonal of the scale has to be positive"):
        jax.block_until_ready(eqx.filter_jit(kl_to_prior)(mean, jnp.array([-1.0])))
    with pytest.raises(RuntimeError, match="beta has to be above 0"):
        jax.block_until_ready(eqx.filter_jit(grae)(decoder, x, mean, jnp.asarray(0.0)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": 0.0}, "beta has to be above 0"),
        ({"beta": -1.0}, "beta has to be at least 0"),
        ({"mean": jnp.ones(2)}, "failed on a latent vector of length 2"),
        ({"mean": jnp.ones((1, LATENTS))}, "mean has to be a vector"),
        ({"x": jnp.ones(D + 1)}, r"returns shape \(6,\) and x has shape \(7,\)"),
        ({"decoder": lambda z: jnp.argsort(z)}, "floating-point numbers to be differentiable"),
        ({"decoder": lambda z: (z, z)}, "floating-point numbers to be differentiable"),
    ],
)
@pytest.mark.parametrize("objective", ["vae", "taylor", "deterministic", "bound", "sampled"])
def test_wrong_input_is_named(objective, change, message):
    weights, x, mean, scale = problem(jnp.float32)
    key = jax.random.key(0)
    given = {"decoder": network(weights), "x": x, "mean": mean, "beta": 1.0, **change}
    calls = {
        "vae": lambda: beta_vae(key, scale=scale, **given),
        "taylor": lambda: taylor(scale=scale, **given),
        "deterministic": lambda: deterministic(**given),
        "bound": lambda: grae_bound(**given),
        "sampled": lambda: grae_bound_sampled(key, **given),
    }
    with pytest.raises(ValueError, match=message):
        calls[objective]()


def test_other_mistakes_are_named():
    weights, x, mean, scale = problem(jnp.float32)
    decoder, key = network(weights), jax.random.key(0)
    wrong = [
        (lambda: curvature(decoder, x, mean, hessian="exact"), "hessian has to be one of"),
        (lambda: kl_to_prior(mean, scale[:2]), r"got \(3,\) and \(2, 3\)"),
        (lambda: beta_vae(key, decoder, x, mean, scale, 1.0, num_samples=0), "num_samples"),
        (lambda: optimal_precision(jnp.ones((2, 3)), 1.0), "square matrix"),
        (lambda: optimal_covariance(jnp.eye(2), 0.0), "beta has to be above 0"),
        (lambda: grae_bound_sampled(key, decoder, x, mean, 1.0, num_columns=0), "num_columns"),
        (
            lambda: grae_bound_sampled(key, decoder, x, mean, 1.0, probabilities=jnp.ones(2)),
            r"probabilities has to have shape \(3,\)",
        ),
        (lambda: orthogonality_penalty(key, lambda z: z, jnp.ones(1)), "2 latents or more"),
        (lambda: orthogonality_penalty(key, decoder, mean, 0), "num_pairs"),
    ]
    for call, message in wrong:
        with pytest.raises(ValueError, match=message):
            call()


def test_a_decoder_that_averages_over_the_batch_is_refused(dtype):
    weights, x, mean, _ = problem(dtype)

    def normed(z):
        output = weights[1] @ weights[0] @ z
        return output - jax.lax.pmean(output, "batch")

    x, mean = jnp.stack([x, x]), jnp.stack([mean, -mean])
    inner = jax.jit(normed)
    calls = [
        lambda x, z: curvature(normed, x, z),
        lambda x, z: curvature(inner, x, z, hessian="full"),
        lambda x, z: grae_bound(inner, x, z, 0.7),
        lambda x, z: metric(normed, z),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="the decoder averages over a batch"):
            jax.vmap(call, axis_name="batch")(x, mean)

    def sampled(x, z):  # takes no derivative in z
        return beta_vae(jax.random.key(0), normed, x, z, jnp.ones_like(z), 0.7)

    assert jnp.isfinite(jax.vmap(sampled, axis_name="batch")(x, mean)).all()
