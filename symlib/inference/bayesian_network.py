r"""Bayesian neural networks: likelihoods, and the evidence bound estimated from minibatches.

A network is any function of its parameters $\omega$ and one input. The posterior over $\omega$ is
approximated by a Gaussian with independent entries (mean field), which `symlib.inference.fit`
trains, and may be symmetrized: then `log_ratio` adds a term of `symlib.posteriors`.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PRNGKeyArray, PyTree

from symlib._checks import caller, full_precision, positive, positive_integer, refuse_if, scalar
from symlib.groups import Group
from symlib.groups.reflection import require_invariance
from symlib.posteriors import Gaussian


def gaussian_log_likelihood(
    prediction: Float[Array, "..."], target: Float[Array, "..."], noise_variance: float
) -> Float[Array, ""]:
    r"""Return $\log \mathcal{N}(y; f, \sigma^2 I)$ in nats for one target $y$.

    Args:
        prediction: The output $f$ of the network.
        target: $y$, of the same shape.
        noise_variance: $\sigma^2 > 0$, a number.

    Raises:
        ValueError: The shapes differ, or $\sigma^2$ is not positive and finite.
        RuntimeError: The latter, under a transformation of JAX.
    """
    noise_variance = positive("noise_variance", noise_variance)
    if jnp.shape(prediction) != jnp.shape(target):
        raise ValueError(
            f"{caller()}: prediction and target have to have the same shape, got "
            f"{jnp.shape(prediction)} and {jnp.shape(target)}."
        )
    prediction = full_precision("prediction", prediction)
    deviation = jnp.sqrt(jnp.asarray(noise_variance, prediction.dtype))
    deviation = refuse_if(
        deviation,
        ~((deviation > 0) & jnp.isfinite(deviation)),
        f"{caller()}: noise_variance is beyond the range of {prediction.dtype}.",
    )
    squares = ((target - prediction) / deviation) ** 2
    return -0.5 * jnp.sum(squares + 2 * jnp.log(deviation) + math.log(2 * math.pi))


def categorical_log_likelihood(
    logits: Float[Array, " classes"], label: Integer[Array, ""]
) -> Float[Array, ""]:
    r"""Return $\log \mathrm{softmax}(f)_y$ in nats for one label $y$ from 0 to the last class.

    Raises:
        ValueError: `logits` is no vector in float32 or float64, or the label no integer.
        RuntimeError: The label is no class. JAX would take the nearest one without a word.
    """
    logits = full_precision("logits", logits)
    label = jnp.asarray(label)
    if logits.ndim != 1 or label.ndim or not jnp.issubdtype(label.dtype, jnp.integer):
        raise ValueError(
            f"{caller()}: expected a vector of logits and one integer label, got "
            f"shapes {logits.shape} and {label.shape} and a label of type {label.dtype}."
        )
    label = label.astype(int)  # the number of classes may be beyond a small integer
    message = f"{caller()}: the label has to be from 0 to {len(logits) - 1}."
    label = refuse_if(label, (label < 0) | (label >= len(logits)), message)
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
    group: Group | None = None,
    check_invariance: bool = True,
) -> Float[Array, ""]:
    r"""Estimate the evidence lower bound from one draw of the parameters and some of the data.

    $$\frac{N}{B} \sum_{n \in \text{batch}} \log p(y_n \mid x_n, \omega) - KL[q \| p]
    + \text{log\_ratio}(\omega), \qquad \omega \sim q,$$

    with the divergence of the two Gaussians in closed form. Without the last term its mean is the
    bound of mean field. With a term whose mean is at most $KL[q \| q^G]$ it is a bound of the
    symmetrized posterior, provided that prior and likelihood do not change under the group. So the
    term comes with its group, and each call, also one inside `fit`, compares the prior and a
    sixteenth of the batch before and after one random element: see
    `symlib.groups.require_invariance`. The estimate is unbiased and reparameterized.

    Args:
        key: Random key, for the batch, the draw and the term.
        base: The approximation $q$.
        prior: The prior $p$, over the same parameters.
        log_likelihood: Function (parameters, input, target) -> scalar for one pair.
        inputs: All inputs, (N, ...).
        targets: All targets, (N, ...).
        batch_size: B, drawn from the N pairs with replacement; N takes all of them once.
        log_ratio: Function (key, base, parameters) -> scalar. The sign of each function of
            `symlib.posteriors` is the right one.
        group: The group of the term, needed with one.
        check_invariance: Whether to compare.

    Raises:
        ValueError: Inputs and targets differ in number, `batch_size` is not 1, ..., N, a function
            does not return a scalar, there is a term without a group, or prior or likelihood
            change under it.
        RuntimeError: A value is NaN or infinite; under a transformation, prior or likelihood
            change under the group.
    """
    if log_ratio is not None and group is None:
        raise ValueError(
            f"{caller()}: log_ratio needs its group, as group=HiddenPermutation(5), since prior "
            "and likelihood have to be invariant under it."
        )
    count = len(inputs)
    batch_size = positive_integer("batch_size", batch_size)
    if len(targets) != count or batch_size > count:
        raise ValueError(
            f"{caller()}: got {count} inputs, {len(targets)} targets and batch_size "
            f"{batch_size}; the first two have to agree and the third to be at most as large."
        )
    batch_key, draw_key, ratio_key = jax.random.split(key, 3)
    if batch_size < count:
        rows = jax.random.randint(batch_key, (batch_size,), 0, count)
        inputs, targets = inputs[rows], targets[rows]
    parameters = base.sample(draw_key)

    def likelihood(parameters, x, y):
        return scalar("log_likelihood", log_likelihood(parameters, x, y))

    terms = jax.vmap(likelihood, (None, 0, 0))(parameters, inputs, targets)
    divergence = scalar("kl of the base", base.kl(prior))
    value = jnp.mean(terms) * count - divergence
    if log_ratio is not None:
        value += scalar("log_ratio", log_ratio(ratio_key, base, parameters))
        if check_invariance:
            few = slice(max(1, batch_size // 16))

            def model(parameters):
                rows = jax.vmap(likelihood, (None, 0, 0))(parameters, inputs[few], targets[few])
                return jnp.append(rows, prior.log_prob(parameters))

            # Beyond the keys above.
            check_key = jax.random.fold_in(key, 3)
            points = jax.tree.map(lambda leaf: leaf[None], parameters)
            value = require_invariance(model, group, points, check_key, value)
    message = f"{caller()}: log_likelihood or log_ratio gave NaN or infinity."
    return refuse_if(value, ~jnp.isfinite(value), message)
