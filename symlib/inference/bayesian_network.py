r"""Bayesian neural networks: likelihoods, and the evidence bound estimated from minibatches.

A network is any function of its parameters $\omega$ and one input.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PRNGKeyArray, PyTree

from symlib._checks import (
    caller,
    finite,
    full_precision,
    mean_and_error,
    positive,
    positive_integer,
    refuse_if,
    scalar,
    with_methods,
)
from symlib.groups.invariance import require_invariance


def gaussian_log_likelihood(
    prediction: Float[Array, "..."], target: Float[Array, "..."], noise_variance: float
) -> Float[Array, ""]:
    r"""Return $\log \mathcal{N}(y; f, \sigma^2 I)$ in nats for one target $y$.

    Args:
        prediction: The output $f$ of the network.
        target: $y$, finite, of the same shape.
        noise_variance: $\sigma^2 > 0$, a number.

    Raises:
        ValueError: The shapes differ, or an argument is not as stated.
    """
    noise_variance = positive("noise_variance", noise_variance)
    if jnp.shape(prediction) != jnp.shape(target):
        raise ValueError(
            f"{caller()}: prediction and target have to have the same shape, got "
            f"{jnp.shape(prediction)} and {jnp.shape(target)}."
        )
    prediction = full_precision("prediction", prediction)
    target = finite("target", target)
    deviation = jnp.sqrt(jnp.asarray(noise_variance, prediction.dtype))
    deviation = refuse_if(
        deviation,
        ~((deviation > 0) & jnp.isfinite(deviation)),
        f"{caller()}: noise_variance is beyond the range of {prediction.dtype}.",
    )
    squares = ((target - prediction) / deviation) ** 2
    return -0.5 * jnp.sum(squares + 2 * jnp.log(deviation) + math.log(2 * math.pi))


def categorical_log_likelihood(
    prediction: Float[Array, " classes"], target: Integer[Array, ""]
) -> Float[Array, ""]:
    r"""Return $\log \mathrm{softmax}(f)_y$ in nats for one label $y$.

    Args:
        prediction: The logits $f$, one for each class, in float32 or float64.
        target: The label $y$, an integer from 0 to the last class.

    Raises:
        ValueError: `prediction` is no such vector, or the label no integer or no class.
    """
    logits = full_precision("prediction", prediction)
    label = jnp.asarray(target)
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
    log_likelihood: Callable[[PyTree, Array, Array], Float[Array, ""]],
    prior: eqx.Module,
    posterior: eqx.Module,
    inputs: Array,
    targets: Array,
    batch_size: int,
    num_samples: int = 1,
    check_invariance: bool = True,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""Estimate the evidence lower bound from a few draws of the parameters and some of the data.

    $$\frac{N}{B} \sum_{n \in \text{batch}} \log p(y_n \mid x_n, \omega) - KL[q^* \| p]
    + \log q^*(\omega) - \log \tilde q(\omega), \qquad \omega \sim q^*,$$

    averaged over draws, each with its own batch, with the divergence of the two Gaussians in closed
    form. The last two terms are absent for a Gaussian posterior, mean field. For a symmetrized one
    they are exact or, with a `log_ratio` of its own, a bound: if its mean is at most
    $KL[q^* \| \tilde q]$, the estimate is one of a lower bound. The estimate is unbiased and
    reparameterized.

    For a symmetrized posterior it is a bound only if prior and likelihood are invariant under the
    group. So each call, also one inside `fit`, compares the prior and a sixteenth of the batch
    before and after one random element.

    >>> import jax, jax.numpy as jnp
    >>> from symlib.inference import gaussian_log_likelihood, minibatch_elbo
    >>> from symlib.posteriors import IsotropicGaussian
    >>> def log_likelihood(slope, x, y):
    ...     return gaussian_log_likelihood(slope * x, y, noise_variance=1.0)
    >>> x = jnp.linspace(-1, 1, 100)
    >>> prior, q = IsotropicGaussian(jnp.zeros(()), 1.0), IsotropicGaussian(jnp.ones(()), 0.01)
    >>> value, error = minibatch_elbo(
    ...     jax.random.key(0), log_likelihood, prior, q, x, x, batch_size=10, num_samples=100
    ... )
    >>> print(value.round(), error.round(1))
    -94.0 0.0

    Args:
        key: Random key, for batches and draws. The third of `jax.random.split(key, 3)` is not used:
            a `log_ratio` that samples may take it.
        log_likelihood: Function (parameters, input, target) -> scalar for one pair.
        prior: The prior $p$, over the same parameters, with `log_prob`.
        posterior: The approximation, a Gaussian $q^*$ or its mixture $\tilde q$; or one of your
            own with a `base` that has `sample` and `kl(prior)`, a `group` and a `log_ratio`.
        inputs: All inputs, (N, ...).
        targets: All targets, (N, ...).
        batch_size: B, drawn from the N pairs with replacement; N takes all of them once.
        num_samples: Number of draws; one is enough for a gradient.
        check_invariance: Whether to compare.

    Returns:
        The estimate and its standard error, as `elbo` does. One draw says nothing about its error:
        it is infinite then.

    Raises:
        ValueError: Inputs and targets differ in number, `batch_size` is not 1, ..., N, a function
            does not return a scalar, inputs or targets hold NaN, a term is NaN or infinite, or
            prior or likelihood change under the group.
        RuntimeError: A traced value is such; of traced data only the batch is looked at.
    """
    inputs, targets = jnp.asarray(inputs), jnp.asarray(targets)
    count = len(inputs)
    batch_size = positive_integer("batch_size", batch_size)
    num_samples = positive_integer("num_samples", num_samples)
    if len(targets) != count or batch_size > count:
        raise ValueError(
            f"{caller()}: got {count} inputs, {len(targets)} targets and batch_size "
            f"{batch_size}; the first two have to agree and the third to be at most as large."
        )
    group = getattr(posterior, "group", None)
    base = getattr(posterior, "base", posterior)
    with_methods("the base of the posterior", base, "sample", "kl")
    with_methods("the prior", prior, "log_prob")
    with_methods("the posterior", posterior, "log_ratio")
    # Known data are looked at as a whole, once while JAX traces; traced data batch by batch.
    inputs, targets = (
        data if isinstance(data, jax.core.Tracer) else _without_nan(name, data, data)
        for name, data in (("inputs", inputs), ("targets", targets))
    )

    def likelihood(parameters, x, y):
        return scalar("log_likelihood", log_likelihood(parameters, x, y))

    def term(key):
        batch_key, draw_key, _ = jax.random.split(key, 3)
        x, y = inputs, targets
        if batch_size < count:
            rows = jax.random.randint(batch_key, (batch_size,), 0, count)
            x, y = x[rows], y[rows]
        parameters = base.sample(draw_key)
        terms = jax.vmap(likelihood, (None, 0, 0))(parameters, x, y)
        value = jnp.mean(terms) * count - scalar("kl of the base", base.kl(prior))
        for name, data, rows in (("inputs", inputs, x), ("targets", targets, y)):
            if isinstance(data, jax.core.Tracer):
                value = _without_nan(name, rows, value)
        value += posterior.log_ratio(parameters)
        if group is None or not check_invariance:
            return value
        few = slice(max(1, batch_size // 16))

        def model(parameters):
            rows = jax.vmap(likelihood, (None, 0, 0))(parameters, x[few], y[few])
            return jnp.append(rows, prior.log_prob(parameters))

        check_key = jax.random.fold_in(key, 3)  # beyond the keys above
        points = jax.tree.map(lambda leaf: leaf[None], parameters)
        return require_invariance(model, group, points, check_key, value)

    message = "log_likelihood or the log ratio gave NaN or infinity."
    if num_samples == 1:
        value = term(key)
        value = refuse_if(value, ~jnp.isfinite(value), f"{caller()}: {message}")
        return value, jnp.full_like(value, jnp.inf)
    return mean_and_error(jax.vmap(term)(jax.random.split(key, num_samples)), message)


def _without_nan(name, data, value):
    """Return `value`, which carries the check: JAX leaves out one on data that nothing uses."""
    if not jnp.issubdtype(jnp.result_type(data), jnp.inexact):
        return value
    return refuse_if(value, jnp.isnan(data).any(), f"{caller()}: {name} has to be without NaN.")
