"""What `fit` returns: the best restart, those that failed and why, and which came to rest."""

import warnings
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from symlib._checks import caller, refuse_if
from symlib.inference._ascent import without


class FitState(NamedTuple):
    """Where a fit stands, all that `fit` needs to go on."""

    posteriors: eqx.Module  # all restarts, stacked on a leading axis of each array
    optimizer_state: PyTree  # likewise
    steps: int  # done so far


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
    converged: Bool[np.ndarray, " restarts"] | None  # None without a tolerance
    state: FitState  # to go on from


def result(posteriors, optimizer_state, trace, codes, reasons, window, converged, done):
    """Mark the restarts that failed, and choose the best of the others."""
    failed = jnp.any(codes > 0, axis=1)
    if isinstance(failed, jax.core.Tracer):
        message = (
            f"{caller()}: in all restarts the objective or a parameter became NaN or infinite."
        )
        trace = refuse_if(trace, failed.all(), message)
    else:
        report(np.asarray(codes), reasons)
    values = jnp.mean(trace[:, -window:], axis=1)
    values = jnp.where(failed, -jnp.inf, values)
    posteriors = jax.tree.map(lambda leaf: without(leaf, failed), posteriors)
    best = jnp.argmax(values)
    posterior = jax.tree.map(lambda leaf: leaf[best] if eqx.is_array(leaf) else leaf, posteriors)
    state = FitState(posteriors, optimizer_state, done + trace.shape[1])
    value = values[best]
    return FitResult(posterior, value, trace, posteriors, values, failed, converged, state)


def at_rest(trace, window, tolerance):
    """Say of each restart whether its last two windows differ by at most the tolerance."""
    if trace.shape[1] < 2 * window:
        return np.zeros(len(trace), bool)
    pair = np.asarray(trace[:, -2 * window :], float).reshape(-1, 2, window)
    before, last = np.mean(pair, axis=2).T
    error = np.sqrt(np.sum(np.var(pair, axis=2, ddof=1), axis=1) / window)
    return abs(last - before) + 2 * error <= tolerance


# What became NaN or infinite first in a step, by its code; 4 is an error raised inside.
_LOST = {1: "the objective", 2: "the gradient of the objective", 3: "a parameter"}


def report(codes, errors):
    """Warn of the restarts that failed; raise if none is left."""
    failed = np.flatnonzero(codes.any(axis=1))
    if not failed.size:
        return
    restart = failed[0]
    step = np.flatnonzero(codes[restart])[0]
    code = codes[restart, step]
    reason = errors[restart] if code == 4 else f"{_LOST[code]} became NaN or infinite."
    if failed.size < len(codes):
        left_out = ", ".join(map(str, failed))
        message = (
            f"{caller()}: left out of {len(codes)} restarts: {left_out}. Restart {restart} failed"
        )
        warnings.warn(f"{message} at step {step}: {reason}", RuntimeWarning, stacklevel=4)
        return
    owner = caller()
    if len(codes) > 1:
        owner = f"{owner}: all {len(codes)} restarts failed, restart 0"
    raise RuntimeError(f"{owner}: at step {step}, {reason}")
