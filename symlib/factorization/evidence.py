r"""The evidence $\log p(R)$ of the matrix factorization model, from below and from above.

Annealed importance sampling lets the precision $\lambda$ of the noise grow from 0, the prior, to
$1 / \tau$. Run backwards from an exact draw of the posterior it bounds from the other side.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from symlib._checks import caller, positive_integer
from symlib.factorization.gibbs import row_law
from symlib.factorization.ratings import Factors, Ratings, check_factors, check_ratings

# Steps at the posterior by which backward chains, that start at one draw, come apart.
_PARTING = 200


def log_evidence(
    key: PRNGKeyArray,
    ratings: Ratings,
    num_traits: int,
    num_temperatures: int = 2000,
    num_chains: int = 20,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""Estimate $\log p(R)$ in nats by annealing, with a standard error: a stochastic lower bound.

    Let $Z_\lambda(V) = E_{U \sim N(0, I)} \exp(-\frac\lambda2 \|R - UV^T/\sqrt k\|^2)$, known in
    closed form (`row_law`). In annealed importance sampling (Neal 2001) a chain starts at
    $V \sim N(0, I)$. Each step multiplies its weight by $Z_{\lambda'}(V) / Z_\lambda(V)$ and draws
    the other factor from its law given $V$ at $\lambda'$, which takes the place of $V$ (and $R^T$
    that of $R$). The weights at the end have the mean $E\,w = (2 \pi \tau)^{nm/2} p(R)$.

    The value is the logarithm of the average weight. Its expectation is below $\log p(R)$, by about
    half the squared standard error, which is the delta method's. Trust both below .2, else raise
    `num_temperatures`: where few chains carry the weight, values spread half as much again as it
    says. In float32 rounding adds some 1e-6 of $\|R\|^2 / \tau$.

    Args:
        ratings: $R$ with its noise and what is observed.
        num_traits: Number k of traits.
        num_temperatures: Number of steps.
        num_chains: Number of independent chains, at least 2.

    Raises:
        ValueError: A number is below 1 (2 for `num_chains`).
    """
    k = positive_integer("num_traits", num_traits)
    *data, constant = _checked(ratings)
    numbers = _numbers(num_temperatures, num_chains)
    value, error = _anneal(key, None, *data, k, *numbers)
    return constant + value, error


def log_evidence_upper(
    key: PRNGKeyArray,
    factors: Factors,
    ratings: Ratings,
    num_temperatures: int = 2000,
    num_chains: int = 20,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""Estimate $\log p(R)$ by backward annealing, with a standard error: a stochastic upper bound.

    The chains of `log_evidence` run from $1 / \tau$ to 0. Minus the logarithm of the average of the
    inverse weights is above $\log p(R)$ in expectation over data and chains, if they start at an
    exact draw from the posterior: for ratings drawn from the model, the factors they were made of.
    From any other start it is no bound (Grosse, Ghahramani and Adams 2015).

    All chains start at the one draw and part by 200 steps at the posterior itself. What they still
    share after these is not in the standard error.

    Args:
        factors: The pair $(U, V)$ that the ratings were made of.
        ratings: As in `log_evidence`, and so are the two numbers.

    Raises:
        ValueError: As for `log_evidence`, or `factors` is not a pair that fits the ratings.
    """
    *data, constant = _checked(ratings)
    V = check_factors(factors, data[0].shape)[1].astype(data[0].dtype)
    numbers = _numbers(num_temperatures, num_chains)
    value, error = _anneal(key, V, *data, V.shape[1], *numbers)
    return constant - value, error


def _checked(ratings):
    """Return ratings, precision, mask or None, and what the weights leave out of log p(R)."""
    check_ratings(ratings)
    constant = ratings.log_likelihood(jnp.sum(ratings.values**2))
    return ratings.values, 1 / ratings.noise_variance, ratings.observed, constant


def _numbers(num_temperatures, num_chains):
    num_temperatures = positive_integer("num_temperatures", num_temperatures)
    if positive_integer("num_chains", num_chains) < 2:
        raise ValueError(f"{caller()}: a standard error needs num_chains of at least 2, got 1.")
    return num_temperatures, num_chains


@functools.partial(jax.jit, static_argnames=("num_traits", "num_temperatures", "num_chains"))
def _anneal(key, V, ratings, precision, observed, num_traits, num_temperatures, num_chains):
    """Return the log of the average weight of chains from the prior, or back to it from V."""
    n, m = ratings.shape
    # The precision at which the ratings begin to show the traits. Beyond it the posterior narrows,
    # and the steps become equal in the logarithm.
    scale = num_traits / (n * m) ** 0.5
    # Steps come in pairs, since the factors take turns.
    x = jnp.linspace(0, 1, 2 * -(-num_temperatures // 2) + 1, dtype=ratings.dtype)
    stretch = jnp.log1p(precision / scale)
    path = precision * jnp.expm1(stretch * x) / jnp.expm1(stretch)
    start_key, key = jax.random.split(key)
    if V is None:
        V = jax.random.normal(start_key, (num_chains, m, num_traits), ratings.dtype)
    else:
        V = jnp.broadcast_to(V, (num_chains, m, num_traits))
        path = jnp.concatenate([jnp.full(_PARTING, precision), path[::-1]])
    transposed = None if observed is None else observed.T

    def half(key, factor, ratings, old, new, observed):
        # Both laws in one call: two at a time can wait for each other forever, as in row_law.
        law = jax.vmap(lambda precision: row_law(factor, ratings, precision, observed))
        law = law(jnp.stack([old, new]))
        after = jax.tree.map(lambda leaf: leaf[1], law)
        return after.sample(key), after.log_integral - law.log_integral[0]

    def pair(carry, inputs):
        V, log_weight = carry
        key, old, middle, new = inputs
        row_key, column_key = jax.random.split(key)
        U, rows = half(row_key, V, ratings, old, middle, observed)
        V, columns = half(column_key, U, ratings.T, middle, new, transposed)
        return (V, log_weight + rows + columns), None

    def chain(key, V):
        keys = jax.random.split(key, path.shape[0] // 2)
        inputs = keys, path[:-2:2], path[1:-1:2], path[2::2]
        (_, log_weight), _ = jax.lax.scan(pair, (V, jnp.zeros((), V.dtype)), inputs)
        return log_weight

    log_weights = jax.vmap(chain)(jax.random.split(key, num_chains), V)
    share = num_chains * jax.nn.softmax(log_weights)  # weights over their average
    error = jnp.std(share, ddof=1) / num_chains**0.5
    return jax.nn.logsumexp(log_weights) - math.log(num_chains), error
