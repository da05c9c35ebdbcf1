"""Checks of what `fit` is given, each mistake with its own sentence."""

import inspect

import equinox as eqx
import jax

from symlib._checks import caller
from symlib.inference._ascent import optimizer_of, split
from symlib.inference._outcome import FitState


def require_functions(objective, initialize, optimizer, callback):
    """Refuse what a user is likeliest to pass by mistake."""
    if not callable(initialize):
        raise ValueError(
            f"{caller()}: initialize has to be a function key -> posterior, got a "
            f"{type(initialize).__name__}; to start there, pass lambda key: posterior."
        )
    if not _takes(initialize, 1):
        raise ValueError(
            f"{caller()}: initialize has to take one argument, the random key: key -> posterior."
        )
    if optimizer is not None and not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        call = f"; call it, {optimizer.__name__}(0.1)" if inspect.isfunction(optimizer) else ""
        raise ValueError(
            f"{caller()}: optimizer has to be an optax optimiser, got a "
            f"{type(optimizer).__name__}{call}."
        )
    if callback is not None and not _takes(callback, 2):
        raise ValueError(
            f"{caller()}: callback has to be a function (steps done, mean objectives of the "
            "restarts)."
        )
    if not _takes(objective, 2):
        raise ValueError(
            f"{caller()}: objective has to be a function (posterior, key) -> scalar. Of a log "
            "joint density make one by lambda q, key: elbo(key, log_joint, q, num_samples=16)[0]."
        )


def _takes(function, count):
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C have none
        return True
    except TypeError:  # no function
        return False
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def checked_state(state, key, initialize, restarts, settings):
    if not isinstance(state, FitState):
        raise ValueError(
            f"{caller()}: state has to be that of a result, result.state, got "
            f"{type(state).__name__}."
        )
    counts = {len(leaf) for leaf in jax.tree.leaves(state.posteriors) if eqx.is_array(leaf)}
    if counts != {restarts}:
        raise ValueError(f"{caller()}: state holds {counts.pop()} restarts, not {restarts}.")
    one = jax.tree.map(lambda leaf: leaf[0] if eqx.is_array(leaf) else leaf, state.posteriors)
    start = eqx.filter_eval_shape(initialize, key)
    found, asked = (
        [leaf.shape for leaf in jax.tree.leaves(t) if hasattr(leaf, "shape")] for t in (one, start)
    )
    if found != asked:
        raise ValueError(
            f"{caller()}: state is that of another problem: its arrays have shapes {found}, those "
            f"of initialize {asked}."
        )
    parameters, _ = split(one)
    wanted = eqx.filter_eval_shape(optimizer_of(*settings).init, parameters)
    if jax.tree.structure(wanted) != jax.tree.structure(state.optimizer_state):
        raise ValueError(f"{caller()}: state is that of another optimiser; name the same one.")
    return state.posteriors, state.optimizer_state
