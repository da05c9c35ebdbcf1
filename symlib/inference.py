r"""Variational inference: estimates of the evidence lower bound, and an optimiser for it.

For an approximation $q$ the bound is $L(q) = E_q[\log p(x, z) - \log q(z)] \le \log p(x)$
(Moore 2016, eq. 1). If $p$ does not change under a group, the bound of the symmetrized $\tilde q$
needs draws from the base $q^*$ only (eq. 4), and exceeds the bound of $q^*$ by
$KL[q^* \| \tilde q] \ge 0$ (eq. 5).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from symlib._checks import positive_integer
from symlib.posteriors import Gaussian, Symmetrized

_FORMS = ("density", "entropy", "divergence")


def elbo(
    key: PRNGKeyArray,
    log_joint: Callable[[PyTree], Float[Array, ""]],
    posterior: Gaussian | Symmetrized,
    num_samples: int,
    form: str = "density",
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""Estimate the evidence lower bound by Monte Carlo, in nats.

    The forms differ in what is known in closed form, hence in their noise:

    - "density": $E[\log p - \log q]$ for a Gaussian (eq. 1),
      $E_{q^*}[\log p - \log \tilde q]$ for a symmetrized posterior (eq. 4);
    - "entropy": $E_q[\log p] + H(q)$ (eq. 2), for a Gaussian;
    - "divergence": $E_{q^*}[\log p] + H(q^*) + KL[q^* \| \tilde q]$ (eq. 5), for a symmetrized
      posterior, the divergence estimated from the same draws.

    All are unbiased and reparameterized. For a symmetrized posterior they assume that `log_joint`
    is invariant under the group, which is not checked here: see `symlib.symmetry`.

    Args:
        key: Random key. The same key gives all forms the same draws of the base.
        log_joint: Log joint density $z \mapsto \log p(x, z)$ of one point.
        posterior: The approximation.
        num_samples: Number of draws, at least 2.
        form: "density", "entropy" or "divergence".

    Returns:
        The estimate and its standard error.

    Raises:
        ValueError: The form is unknown or does not fit the posterior, `num_samples` is below 2,
            or `log_joint` does not return a scalar.
        RuntimeError: A term is NaN or infinite.

    References:
        Moore (2016), eqs. 1, 2, 4 and 5.
    """
    num_samples = positive_integer("elbo", "num_samples", num_samples)
    if num_samples < 2:
        raise ValueError("elbo: a standard error needs num_samples of at least 2, got 1.")
    if form not in _FORMS:
        raise ValueError(f"elbo: form has to be one of {_FORMS}, got {form!r}.")
    symmetrized = isinstance(posterior, Symmetrized)
    if form == "entropy" and symmetrized:
        raise ValueError(
            "elbo: form 'entropy' needs a closed-form entropy, which a symmetrized posterior "
            "lacks; use 'density' or 'divergence', or pass posterior.base."
        )
    if form == "divergence" and not symmetrized:
        raise ValueError(
            "elbo: form 'divergence' is for a Symmetrized posterior, got "
            f"{type(posterior).__name__}; use 'density' or 'entropy'."
        )
    base = posterior.base if symmetrized else posterior

    def term(sample_key):
        z = base.sample(sample_key)
        log_p = log_joint(z)
        if jnp.shape(log_p) != ():
            raise ValueError(f"elbo: log_joint has to return a scalar, got {jnp.shape(log_p)}.")
        if form == "density":
            return log_p - posterior.log_prob(z)
        if form == "entropy":
            return log_p + base.entropy()
        return log_p + base.entropy() + (base.log_prob(z) - posterior.log_prob(z))

    terms = jax.vmap(term)(jax.random.split(key, num_samples))
    terms = eqx.error_if(terms, ~jnp.isfinite(terms), "elbo: log_joint gave NaN or infinity.")
    return jnp.mean(terms), jnp.std(terms, ddof=1) / math.sqrt(num_samples)


class FitResult(NamedTuple):
    """What `fit` returns: the best restart first, then all of them."""

    posterior: eqx.Module  # the restart with the largest value
    value: Float[Array, ""]  # its mean objective over the last tenth of the steps
    trace: Float[Array, "restarts steps"]  # objective before each step
    posteriors: eqx.Module  # all restarts, stacked on a leading axis of each array
    values: Float[Array, " restarts"]


def fit(
    key: PRNGKeyArray,
    objective: Callable[[eqx.Module, PRNGKeyArray], Float[Array, ""]],
    initialize: Callable[[PRNGKeyArray], eqx.Module],
    *,
    steps: int,
    learning_rate: float = 0.05,
    optimizer: optax.GradientTransformation | None = None,
    restarts: int = 1,
) -> FitResult:
    r"""Maximise an objective over all floating-point arrays of a module, from several starts.

    Each restart has its own start and its own noise. The restarts are compared by the mean of the
    objective over the last tenth of their steps, since a single value is noisy.

    Args:
        key: Random key.
        objective: Function (posterior, key) -> scalar to maximise, exact or an unbiased estimate.
            Every step brings a new key.
        initialize: Function key -> posterior, the start of one restart.
        steps: Number of optimiser steps.
        learning_rate: Initial step size of the default optimiser, Adam with cosine decay to 0
            over `steps`. Unused if `optimizer` is given.
        optimizer: An optax optimiser (it descends; the sign is handled here).
        restarts: Number of starts, run side by side.

    Raises:
        ValueError: `steps` or `restarts` is below 1, the objective does not return a scalar, or
            the start holds nothing to train.
        RuntimeError: The objective, or a parameter at the end, is NaN or infinite.
    """
    steps = positive_integer("fit", "steps", steps)
    restarts = positive_integer("fit", "restarts", restarts)
    keys = jax.random.split(key, restarts)
    posteriors, trace = _ascend(keys, objective, initialize, steps, learning_rate, optimizer)
    values = jnp.mean(trace[:, -max(1, steps // 10) :], axis=1)
    best = jnp.argmax(values)
    posterior = jax.tree.map(lambda leaf: leaf[best] if eqx.is_array(leaf) else leaf, posteriors)
    return FitResult(posterior, values[best], trace, posteriors, values)


@eqx.filter_jit  # at module level, so that a second fit of the same functions compiles nothing
def _ascend(keys, objective, initialize, steps, learning_rate, optimizer):
    """Run all restarts of `fit`: the modules at the end, and the traces."""
    if optimizer is None:
        optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def ascend(key):
        start_key, noise_key = jax.random.split(key)
        parameters, rest = eqx.partition(initialize(start_key), eqx.is_inexact_array)
        if not jax.tree.leaves(parameters):
            raise ValueError("fit: initialize has to return floating-point arrays to train.")

        def loss(parameters, step_key):
            value = objective(eqx.combine(parameters, rest), step_key)
            if jnp.shape(value) != ():
                raise ValueError(f"fit: objective has to return a scalar, got {jnp.shape(value)}.")
            return -value

        def step(carry, step_key):
            parameters, state = carry
            value, gradient = jax.value_and_grad(loss)(parameters, step_key)
            updates, state = optimizer.update(gradient, state, parameters)
            return (optax.apply_updates(parameters, updates), state), -value

        carry = parameters, optimizer.init(parameters)
        (parameters, _), trace = jax.lax.scan(step, carry, jax.random.split(noise_key, steps))
        return eqx.combine(parameters, rest), trace

    posteriors, trace = eqx.filter_vmap(ascend)(keys)
    parameters = jax.tree.leaves(eqx.filter(posteriors, eqx.is_inexact_array))
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in (trace, *parameters)]).all()
    message = "fit: the objective, or its gradient, became NaN or infinite."
    return posteriors, eqx.error_if(trace, ~finite, message)
