r"""Bayesian neural networks: likelihoods, and the evidence bound estimated from minibatches.

A network is any function of its parameters $\omega$ and one input. The posterior over $\omega$ is
approximated by a Gaussian with independent entries (mean field), which `symlib.inference.fit`
trains, and may be symmetrized: then `log_ratio` adds a term of `symlib.permutation_bounds`.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from symlib._checks import positive_integer
from symlib.posteriors import Gaussian


def gaussian_log_likelihood(
    prediction: Float[Array, "..."], target: Float[Array, "..."], noise_variance: float
) -> Float[Array, ""]:
    r"""Return $\log \mathcal{N}(y; f, \sigma^2 I)$ in nats for one target $y$.

    Args:
        prediction: The output $f$ of the network.
        target: $y$, of the same shape.
        noise_variance: $\sigma^2 > 0$.

    Raises:
        ValueError: The shapes differ.
    """
    if prediction.shape != target.shape:
        raise ValueError(
            f"gaussian_log_likelihood: prediction and target have to have the same shape, got "
            f"{prediction.shape} and {target.shape}."
        )
    squares = (target - prediction) ** 2 / noise_variance
    return -0.5 * jnp.sum(squares + jnp.log(2 * math.pi * noise_variance))


def categorical_log_likelihood(
    logits: Float[Array, " classes"], label: Int[Array, ""]
) -> Float[Array, ""]:
    r"""Return $\log \mathrm{softmax}(f)_y$ in nats for one label $y$ from 0 to the last class."""
    return jax.nn.log_softmax(logits)[label]


def minibatch_elbo(
    key: PRNGKeyArray,
    base: Gaussian,
    prior: Gaussian,
    log_likelihood: Callable[[PyTree, Array, Array], Float[Array, ""]],
    inputs: Array,
    targets: Array,
    batch_size: int,
    log_ratio: Callable[[PRNGKeyArray, Gaussian, PyTree], Float[Array, ""]] | None = None,
) -> Float[Array, ""]:
    r"""Estimate the evidence lower bound from one draw of the parameters and some of the data.

    $$\frac{N}{B} \sum_{n \in \text{batch}} \log p(y_n \mid x_n, \omega) - KL[q \| p]
    + \text{log\_ratio}(\omega), \qquad \omega \sim q,$$

    with the divergence of the two Gaussians in closed form. Without the last term its mean is the
    bound of mean field. With a term whose mean is at most $KL[q \| q^G]$ it is a bound of the
    symmetrized posterior, provided that prior and likelihood do not change under the group. The
    estimate is unbiased and reparameterized.

    Args:
        key: Random key, for the batch, the draw and the term.
        base: The approximation $q$.
        prior: The prior $p$, over the same parameters.
        log_likelihood: Function (parameters, input, target) -> scalar for one pair.
        inputs: All inputs, (N, ...).
        targets: All targets, (N, ...).
        batch_size: B, drawn from the N pairs with replacement; N takes all of them once.
        log_ratio: Function (key, base, parameters) -> scalar. The sign of each function of
            `symlib.permutation_bounds` is the right one.

    Raises:
        ValueError: Inputs and targets differ in number, or `batch_size` is not 1, ..., N.
    """
    count = len(inputs)
    batch_size = positive_integer("minibatch_elbo", "batch_size", batch_size)
    if len(targets) != count or batch_size > count:
        raise ValueError(
            f"minibatch_elbo: got {count} inputs, {len(targets)} targets and batch_size "
            f"{batch_size}; the first two have to agree and the third to be at most as large."
        )
    batch_key, draw_key, ratio_key = jax.random.split(key, 3)
    if batch_size < count:
        rows = jax.random.randint(batch_key, (batch_size,), 0, count)
        inputs, targets = inputs[rows], targets[rows]
    parameters = base.sample(draw_key)
    terms = jax.vmap(log_likelihood, (None, 0, 0))(parameters, inputs, targets)
    value = jnp.mean(terms) * count - base.kl(prior)
    return value if log_ratio is None else value + log_ratio(ratio_key, base, parameters)
