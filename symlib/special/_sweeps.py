r"""Sweeps of Gibbs sampling over O(k), for `symlib.special`.

They take one checked spectrum, shape (k,), and sample $T \propto e^{\sum_i \sigma_i T_{ii}}$.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

# Batches of sweeps, whose means give a standard error, and those before them that are discarded.
BATCHES = 20
_DISCARDED = 5


@functools.partial(jax.jit, static_argnames="signs")
def batch_means(
    key: PRNGKeyArray,
    sigma: Float[Array, " k"],
    start: Float[Array, "k k"],
    batch: int | Int[Array, ""],
    signs: bool,
) -> Float[Array, "batches k"]:
    """Return means of the diagonal of T over batches of sweeps, less the control variates."""
    k = sigma.shape[0]
    keys = jax.random.split(key, _DISCARDED + BATCHES)
    _, seen = jax.lax.scan(lambda T, key: run(key, sigma, T, batch, signs), start, keys)
    means, products = (values[_DISCARDED:] for values in seen)
    mean = jnp.mean(means, axis=0)
    covariance = jnp.mean(products, axis=0) - jnp.outer(mean, mean)
    with_diagonal, among = covariance[k:, :k], covariance[k:, k:]
    # A sign that is all but never redrawn has a rare, large control: its mean over the sweeps
    # says nothing, but its variance over them is far below that of sum sigma_i T_ii, and the
    # ridge leaves it out. The second ridge is for rounding.
    ridge = 1e-3 * (sigma @ covariance[:k, :k] @ sigma) + 1e-6 * jnp.diagonal(among)
    ridge = jnp.maximum(ridge, jnp.finfo(sigma.dtype).tiny)
    coefficients = jnp.linalg.solve(among + jnp.diag(ridge), with_diagonal)
    return means[:, :k] - means[:, k:] @ coefficients


def run(
    key: PRNGKeyArray,
    sigma: Float[Array, " k"],
    T: Float[Array, "k k"],
    num_sweeps: int | Int[Array, ""],
    signs: bool,
) -> tuple[Float[Array, "k k"], tuple[Float[Array, " p"], Float[Array, "p p"]]]:
    """Return T after the sweeps, and over them the means of `_observe` and of its products."""

    def step(i, carry):
        T, total, products = carry
        T = _sweep(jax.random.fold_in(key, i), sigma, T, signs)
        seen = _observe(sigma, T, signs)
        return T, total + seen, products + jnp.outer(seen, seen)

    size = sigma.shape[0] + 2 + signs
    carry = T, jnp.zeros(size, sigma.dtype), jnp.zeros((size, size), sigma.dtype)
    T, total, products = jax.lax.fori_loop(0, num_sweeps, step, carry)
    return T, (total / num_sweeps, products / num_sweeps)


def _observe(sigma, T, signs):
    """Return the diagonal of T and the control variates."""
    k, diagonal = sigma.shape[0], jnp.diagonal(T)
    parts = sigma - jnp.einsum("ij,j,ji->i", T, sigma, T) - (k - 1) * diagonal
    controls = [jnp.sum(parts), sigma @ parts]
    if signs:
        controls.append(jnp.sum(sigma * diagonal * (1 - jnp.tanh(sigma * diagonal))))
    return jnp.concatenate([diagonal, jnp.stack(controls)])


def _sweep(key, sigma, T, signs):
    """Redraw the rotation of each pair of rows, and before that the sign of each row if `signs`.

    The determinant of T changes by the signs only.
    """
    k = sigma.shape[0]
    sign_key, pair_key = jax.random.split(key)
    if signs:
        # The sign s of row i has probability proportional to exp(s sigma_i T_ii).
        keep = jax.nn.sigmoid(2 * sigma * jnp.diagonal(T))
        T = jnp.where(jax.random.bernoulli(sign_key, keep), 1, -1)[:, None] * T
    if k == 1:
        return T
    rounds = jnp.asarray(_schedule(k))

    def one_round(T, inputs):
        key, (i, j) = inputs
        # tr(S T) after rotating rows i and j by theta is a cos(theta) + b sin(theta) + const:
        # theta is von Mises around atan2(b, a).
        a = sigma[i] * T[i, i] + sigma[j] * T[j, j]
        b = sigma[i] * T[j, i] - sigma[j] * T[i, j]
        theta = _von_mises_step(key, a, b)[:, None]
        cos, sin = jnp.cos(theta), jnp.sin(theta)
        rotated = cos * T[i] + sin * T[j], cos * T[j] - sin * T[i]
        return T.at[i].set(rotated[0]).at[j].set(rotated[1]), None

    T, _ = jax.lax.scan(one_round, T, (jax.random.split(pair_key, len(rounds)), rounds))
    # One step of Newton and Schulz keeps rounding from adding up over the sweeps.
    return 1.5 * T - 0.5 * (T @ T.T) @ T


def _von_mises_step(key, a, b):
    """Move theta from 0, leaving the density exp(a cos(theta) + b sin(theta)) invariant.

    An independent proposal from a wrapped Cauchy law about the mode, of the width that suits Best
    and Fisher's rejection sampler, is accepted or not: there is no loop, and no bias.
    """
    mode, concentration = jnp.arctan2(b, a), jnp.hypot(a, b)
    width = 1 / (1 + 4 * concentration)  # of tan(half the angle), squared
    cauchy_key, accept_key = jax.random.split(key)
    new = jnp.sqrt(width) * jax.random.cauchy(cauchy_key, a.shape, a.dtype)
    new = 2 * jnp.arctan(new)

    def log_ratio(angle):  # of the density to the proposal's
        sine = jnp.sin(angle / 2) ** 2
        return -2 * concentration * sine + jnp.log(width * (1 - sine) + sine)

    # Drawn below 1, so that its logarithm is finite or -inf, never NaN.
    uniform = jax.random.uniform(accept_key, a.shape, a.dtype)
    accept = jnp.log(uniform) < log_ratio(new) - log_ratio(-mode)
    return jnp.where(accept, mode + new, 0)


@functools.cache
def _schedule(k):
    """Return all pairs of rows in rounds of disjoint ones, as in a round-robin tournament."""
    players = list(range(k + k % 2))
    rounds = []
    for _ in range(len(players) - 1):
        half = len(players) // 2
        pairs = zip(players[:half], reversed(players[half:]), strict=True)
        rounds.append([pair for pair in pairs if max(pair) < k])
        players = [players[0], players[-1], *players[1:-1]]
    return np.array(rounds).transpose(0, 2, 1)
