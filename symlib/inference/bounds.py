r"""Variational inference: estimates of the evidence lower bound, and an optimiser for it.

For an approximation $q$ the bound is $L(q) = E_q[\log p(x, z) - \log q(z)] \le \log p(x)$
(Moore 2016, eq. 1). If $p$ does not change under a group, the bound of the symmetrized $\tilde q$
needs draws from the base $q^*$ only (eq. 4), and exceeds the bound of $q^*$ by
$KL[q^* \| \tilde q] \ge 0$ (eq. 5).
"""

import re
import warnings
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from symlib._checks import (
    caller,
    full_precision,
    mean_and_error,
    positive,
    positive_integer,
    refuse_if,
    scalar,
)
from symlib.groups.reflection import require_invariance
from symlib.posteriors import Gaussian, Symmetrized

_FORMS = ("density", "entropy", "divergence")


def elbo(
    key: PRNGKeyArray,
    log_joint: Callable[[PyTree], Float[Array, ""]],
    posterior: Gaussian | Symmetrized,
    num_samples: int,
    form: str = "density",
    check_invariance: bool = True,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""Estimate the evidence lower bound by Monte Carlo, in nats.

    The forms differ in what is known in closed form, hence in their noise:

    - "density": $E[\log p - \log q]$ for a Gaussian (eq. 1),
      $E_{q^*}[\log p - \log \tilde q]$ for a symmetrized posterior (eq. 4);
    - "entropy": $E_q[\log p] + H(q)$ (eq. 2), for a Gaussian;
    - "divergence": $E_{q^*}[\log p] + H(q^*) + KL[q^* \| \tilde q]$ (eq. 5), for a symmetrized
      posterior, the divergence estimated from the same draws.

    All are unbiased and reparameterized.

    For a symmetrized posterior they are bounds only if `log_joint` is invariant under the group.
    So each call, also one inside `fit`, moves a few of its draws by random elements, one for every
    16 draws up to four, and compares `log_joint` before and after: see
    `symlib.groups.require_invariance`. It costs three evaluations of the model for each of them.

    Args:
        key: Random key. The same key gives all forms the same draws of the base.
        log_joint: Log joint density $z \mapsto \log p(x, z)$ of one point.
        posterior: The approximation.
        num_samples: Number of draws, at least 2.
        form: "density", "entropy" or "divergence".
        check_invariance: Whether to do so.

    Returns:
        The estimate and its standard error.

    Raises:
        ValueError: The form is unknown or does not fit the posterior, `num_samples` is below 2,
            `log_joint`, `log_prob` or `entropy` does not return a scalar, or `log_joint` is not
            invariant under the group.
        RuntimeError: A term is NaN or infinite; under a transformation, `log_joint` is not
            invariant.

    References:
        Moore (2016), eqs. 1, 2, 4 and 5.
    """
    num_samples = positive_integer("num_samples", num_samples)
    if num_samples < 2:
        raise ValueError(f"{caller()}: a standard error needs num_samples of at least 2, got 1.")
    if form not in _FORMS:
        raise ValueError(f"{caller()}: form has to be one of {_FORMS}, got {form!r}.")
    symmetrized = isinstance(posterior, Symmetrized)
    if form == "entropy" and symmetrized:
        raise ValueError(
            f"{caller()}: form 'entropy' needs a closed-form entropy, which a symmetrized "
            "posterior "
            "lacks; use 'density' or 'divergence', or pass posterior.base."
        )
    if form == "divergence" and not symmetrized:
        raise ValueError(
            f"{caller()}: form 'divergence' is for a Symmetrized posterior, got "
            f"{type(posterior).__name__}; use 'density' or 'entropy'."
        )
    base = posterior.base if symmetrized else posterior

    def log_density(z):
        return scalar("log_joint", log_joint(z))

    def term(z):
        log_p = log_density(z)
        if form == "density":
            return log_p - scalar("log_prob of the posterior", posterior.log_prob(z))
        entropy = scalar("entropy of the posterior", base.entropy())
        if form == "entropy":
            return log_p + entropy
        log_q = scalar("log_prob of the base", base.log_prob(z))
        return log_p + entropy + (log_q - posterior.log_prob(z))

    draws = jax.vmap(base.sample)(jax.random.split(key, num_samples))
    terms = jax.vmap(term)(draws)
    if symmetrized and check_invariance:
        few = jax.tree.map(lambda leaf: leaf[: max(1, min(4, num_samples // 16))], draws)
        # The number is beyond those of the keys of the draws.
        check_key = jax.random.fold_in(key, num_samples)
        terms = require_invariance(log_density, posterior.group, few, check_key, terms)
    return mean_and_error(terms, "log_joint gave NaN or infinity.")


class FitResult(NamedTuple):
    """What `fit` returns: the best restart first, then all of them.

    A restart fails when its objective, or a parameter after a step, is NaN or infinite. It is never
    the best one: its value is minus infinity and its parameters are NaN.
    """

    posterior: eqx.Module  # the restart with the largest value
    value: Float[Array, ""]  # its mean objective over the last tenth of the steps
    trace: Float[Array, "restarts steps"]  # objective before each step
    posteriors: eqx.Module  # all restarts, stacked on a leading axis of each array
    values: Float[Array, " restarts"]
    failed: Bool[Array, " restarts"]


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
    objective over the last tenth of their steps, since a single value is noisy. A restart that
    fails is marked, left out of the comparison and told of in a warning.

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
            the start holds nothing to train, or something in half precision.
        RuntimeError: All restarts failed. The message names one of them, the step, and what became
            NaN or infinite or the error that the objective raised.
    """
    steps = positive_integer("steps", steps)
    restarts = positive_integer("restarts", restarts)
    if optimizer is None:
        learning_rate = positive("learning_rate", learning_rate)
    keys = jax.random.split(key, restarts)
    problem = objective, initialize, steps, learning_rate, optimizer
    try:
        posteriors, trace, codes = _ascend(keys, *problem)
        errors = {}
    except eqx.EquinoxRuntimeError:  # from the objective or a module, in one of the restarts
        posteriors, trace, codes, errors = _one_by_one(keys, *problem)
    failed = jnp.any(codes > 0, axis=1)
    if isinstance(failed, jax.core.Tracer):
        message = (
            f"{caller()}: in all restarts the objective or a parameter became NaN or infinite."
        )
        trace = refuse_if(trace, failed.all(), message)
    else:
        _report(np.asarray(codes), errors)
    values = jnp.mean(trace[:, -max(1, steps // 10) :], axis=1)
    values = jnp.where(failed, -jnp.inf, values)
    posteriors = jax.tree.map(lambda leaf: _without(leaf, failed), posteriors)
    best = jnp.argmax(values)
    posterior = jax.tree.map(lambda leaf: leaf[best] if eqx.is_array(leaf) else leaf, posteriors)
    return FitResult(posterior, values[best], trace, posteriors, values, failed)


# What became NaN or infinite first in a step, by its code; 4 is an error raised inside.
_LOST = {1: "the objective", 2: "the gradient of the objective", 3: "a parameter"}


def _report(codes, errors):
    """Warn of the restarts that failed; raise if none is left."""
    failed = np.flatnonzero(codes.any(axis=1))
    if not failed.size:
        return
    restart = failed[0]
    step = np.flatnonzero(codes[restart])[0]
    reason = errors.get(restart) or f"{_LOST[codes[restart, step]]} became NaN or infinite."
    if failed.size < len(codes):
        left_out = ", ".join(map(str, failed))
        message = (
            f"{caller()}: left out of {len(codes)} restarts: {left_out}. Restart {restart} failed"
        )
        warnings.warn(f"{message} at step {step}: {reason}", RuntimeWarning, stacklevel=3)
        return
    owner = caller()
    if len(codes) > 1:
        owner = f"{owner}: all {len(codes)} restarts failed, restart 0"
    raise RuntimeError(f"{owner}: at step {step}, {reason}")


def _without(leaf, failed):
    """Return an array of all restarts with NaN in those that failed."""
    if not eqx.is_inexact_array(leaf):
        return leaf
    return jnp.where(failed.reshape(-1, *[1] * (leaf.ndim - 1)), jnp.nan, leaf)


@eqx.filter_jit  # at module level, so that a second fit of the same functions compiles nothing
def _ascend(keys, objective, initialize, steps, learning_rate, optimizer):
    """Run all restarts of `fit`: the modules at the end, the traces and the codes of _LOST."""

    def ascend(key):
        rest, carry, step_keys = _begin(key, initialize, steps, learning_rate, optimizer)

        def step(carry, step_key):
            return _step(rest, carry, step_key, objective, steps, learning_rate, optimizer)

        (parameters, _), (trace, codes) = jax.lax.scan(step, carry, step_keys)
        return eqx.combine(parameters, rest), trace, codes

    return eqx.filter_vmap(ascend)(keys)


def _begin(key, initialize, steps, learning_rate, optimizer):
    """Return what is not trained, the parameters and optimiser state, and a key for each step."""
    start_key, noise_key = jax.random.split(key)
    parameters, rest = eqx.partition(initialize(start_key), eqx.is_inexact_array)
    if not jax.tree.leaves(parameters):
        raise ValueError(f"{caller()}: initialize has to return floating-point arrays to train.")
    full_precision("the start", parameters)
    state = _optimizer(steps, learning_rate, optimizer).init(parameters)
    return rest, (parameters, state), jax.random.split(noise_key, steps)


def _step(rest, carry, key, objective, steps, learning_rate, optimizer):
    """Return parameters and state after a step, the objective before it, and a code of _LOST."""
    parameters, state = carry

    def loss(parameters):
        return -scalar("objective", objective(eqx.combine(parameters, rest), key))

    value, gradient = jax.value_and_grad(loss)(parameters)
    optimizer = _optimizer(steps, learning_rate, optimizer)
    updates, state = optimizer.update(gradient, state, parameters)
    parameters = optax.apply_updates(parameters, updates)
    cause = jnp.where(_all_finite(gradient), 3, 2)
    code = jnp.where(jnp.isfinite(value), jnp.where(_all_finite(parameters), 0, cause), 1)
    return (parameters, state), (-value, code.astype(jnp.int8))


def _optimizer(steps, learning_rate, optimizer):
    if optimizer is None:
        return optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    return optimizer


def _all_finite(tree):
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _sentence(error):
    """Return the message of an error of `equinox.error_if` without the advice around it."""
    found = re.search(r"RuntimeError: (.*?)\n\s*\n-{5}", str(error), re.DOTALL)
    return found[1] if found else str(error).strip()


def _one_by_one(keys, objective, initialize, steps, learning_rate, optimizer):
    """Run the restarts of `fit` in turn, since one of them raised an error and ended them all."""
    settings = steps, learning_rate, optimizer
    begin, step = eqx.filter_jit(_begin), eqx.filter_jit(_step)
    found, errors = {}, {}
    codes = np.zeros((len(keys), steps), np.int8)
    for index, key in enumerate(keys):
        try:
            found[index] = _ascend(key[None], objective, initialize, *settings)
            codes[index] = found[index][2][0]
            continue
        except eqx.EquinoxRuntimeError as error:
            errors[index] = _sentence(error)
        # Once more by single steps, to learn which one it is.
        done = 0
        try:
            rest, carry, step_keys = begin(key, initialize, *settings)
            for step_key in step_keys[:-1]:
                carry, _ = step(rest, carry, step_key, objective, *settings)
                done += 1
        except eqx.EquinoxRuntimeError:
            pass
        codes[index, done] = 4
    if not found:
        _report(codes, errors)
    # A restart without a result borrows that of another, which `fit` then replaces by NaN.
    some = next(iter(found.values()))
    results = [found.get(index, some)[:2] for index in range(len(keys))]
    posteriors, trace = jax.tree.map(
        lambda *leaves: jnp.concatenate(leaves) if eqx.is_array(leaves[0]) else leaves[0], *results
    )
    lost = jnp.asarray([index in errors for index in range(len(keys))])
    return posteriors, _without(trace, lost), jnp.asarray(codes), errors
