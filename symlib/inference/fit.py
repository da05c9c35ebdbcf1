r"""An optimiser for evidence bounds: several starts side by side, compiled as one program."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from symlib._checks import caller, positive, positive_integer
from symlib.inference._arguments import checked_state, require_functions
from symlib.inference._ascent import begin, by_restart, chunk, step_keys, whole
from symlib.inference._outcome import FitResult, FitState, at_rest, result


def fit(
    key: PRNGKeyArray,
    objective: Callable[[eqx.Module, PRNGKeyArray], Float[Array, ""]],
    initialize: Callable[[PRNGKeyArray], eqx.Module],
    *,
    steps: int,
    learning_rate: float | Callable = 0.05,
    optimizer: optax.GradientTransformation | None = None,
    restarts: int = 1,
    state: FitState | None = None,
    tolerance: float | None = None,
    callback: Callable[[int, np.ndarray], None] | None = None,
    progress: bool = False,
) -> FitResult:
    r"""Maximise an objective over all floating-point arrays of a module, from several starts.

    Each restart has its own start and its own noise. The restarts are compared by the mean of the
    objective over the last tenth of their steps, since a single value is noisy. A restart that
    fails is marked, left out of the comparison and told of in a warning.

    **Minibatches**: every step brings a new key, from which the objective draws its batch, as
    `minibatch_elbo` does: `rows = jax.random.randint(key, (100,), 0, len(data))`.

    **Convergence**: a restart has converged when the means of its objective over the last tenth of
    `steps` and over the tenth before differ by at most `tolerance`, two standard errors of the
    difference included. So noise never passes for rest: with a noisy objective a small tolerance is
    not met. Where the learning rate has decayed to 0 the flag says that the run came to rest, and
    not that it is at an optimum.

    **Compile time**: all steps run as one program, compiled at the first call, which takes longer
    than the steps of a small model. A later call reuses it if it brings the same functions,
    numbers and shapes. So define `objective`, `initialize`, `optimizer` and a schedule once,
    outside of loops: a new `lambda` is a new function. Data that change belong into an objective
    that is an `equinox.Module` or `equinox.Partial`, whose arrays may change.

    >>> import jax, jax.numpy as jnp
    >>> from symlib.inference import elbo, fit
    >>> from symlib.posteriors import DiagonalGaussian
    >>> def log_joint(z):
    ...     return -0.5 * jnp.sum((z - 3) ** 2)
    >>> def objective(posterior, key):
    ...     return elbo(key, log_joint, posterior, num_samples=16)[0]
    >>> def initialize(key):
    ...     return DiagonalGaussian(jax.random.normal(key, (1,)), jnp.ones(1))
    >>> found = fit(jax.random.key(0), objective, initialize, steps=300, restarts=2)
    >>> print(round(float(found.posterior.mean[0]), 1))
    3.0

    Args:
        key: Random key.
        objective: Function (posterior, key) -> scalar to maximise, exact or an unbiased estimate.
        initialize: Function key -> posterior, the start of one restart.
        steps: Number of optimiser steps.
        learning_rate: Initial step size of the default optimiser, Adam with cosine decay to 0
            over `steps`; or a schedule of optax, a function of the step. Unused if `optimizer` is
            given.
        optimizer: An optax optimiser (it descends; the sign is handled here). Those that search
            along a line, such as `optax.lbfgs()`, want an objective without noise.
        restarts: Number of starts, run side by side.
        state: The `state` of an earlier result with as many restarts and the same optimiser, to go
            on from there; of `initialize` only the shapes count. With the same key and a rate that
            does not depend on `steps` the run is the one that a longer first call gives. The
            default rate decays over all steps, the earlier ones included.
        tolerance: If given, stop when all restarts have converged or failed; looked at after each
            tenth of `steps`, of which there have to be 20 or more.
        callback: Function (steps done, mean objective since the last call of each restart), called
            after each tenth of `steps`, rounded up.
        progress: Show a bar, by tqdm, moved after each tenth of `steps`.

    Raises:
        ImportError: `progress` without tqdm.
        ValueError: A number is below its least value, a function does not take what it is given,
            the objective does not return a scalar, the start holds nothing to train, or something
            in half precision, the state is that of another problem, or values are asked for under
            a transformation.
        RuntimeError: All restarts failed. The message names one of them, the step, and what became
            NaN or infinite or the error that the objective raised.
    """
    steps = positive_integer("steps", steps)
    restarts = positive_integer("restarts", restarts)
    if optimizer is None and not callable(learning_rate):
        learning_rate = positive("learning_rate", learning_rate)
    if tolerance is not None and (positive("tolerance", tolerance) and steps < 20):
        raise ValueError(f"{caller()}: tolerance compares tenths of the steps, give 20 or more.")
    require_functions(objective, initialize, optimizer, callback)
    keys = jax.random.split(key, restarts)
    done = 0 if state is None else int(state.steps)
    settings = done + steps, learning_rate, optimizer
    watched = tolerance is not None or callback is not None or progress
    window = max(1, steps // 10)
    if state is None and not watched:
        try:
            found = whole(keys, objective, initialize, *settings)
            return result(*found, {}, window, None, done)
        except eqx.EquinoxRuntimeError:  # raised in one of the restarts: apart, to learn in which
            pass
    if state is None:
        start, lost = by_restart(begin, (keys,), initialize, *settings)
        if start is None:
            raise RuntimeError(f"{caller()}: all restarts failed at the start: {lost[0]}")
        posteriors, optimizer_state, noise = start
    else:
        posteriors, optimizer_state = checked_state(state, keys[0], initialize, restarts, settings)
        noise, lost = step_keys(keys, done, done + steps), {}

    bar = _bar(steps) if progress else None
    length = -(-steps // 10) if watched else steps
    reasons, traces, codes, converged = lost, [], [], None
    for first in range(0, steps, length):
        some = noise[:, first : first + length] if watched else noise
        posteriors, optimizer_state, trace, code, errors = chunk(
            posteriors, optimizer_state, some, objective, settings
        )
        reasons = errors | reasons
        traces.append(trace)
        codes.append(code)
        if not watched:
            continue
        if isinstance(trace, jax.core.Tracer):
            raise ValueError(
                f"{caller()}: tolerance, callback and progress need values, which jit, vmap and "
                "grad do not show; call it outside of them."
            )
        failed = np.any([np.any(code, axis=1) for code in codes], axis=0)
        if bar is not None:
            bar.update(some.shape[1])
        if callback is not None:
            callback(done + first + some.shape[1], np.mean(trace, axis=1))
        if tolerance is not None:
            converged = ~failed & at_rest(np.concatenate(traces, axis=1), window, tolerance)
        if failed.all() or (tolerance is not None and (failed | converged).all()):
            break
    if bar is not None:
        bar.close()
    trace, codes = (
        part[0] if len(part) == 1 else jnp.concatenate(part, axis=1) for part in (traces, codes)
    )
    if lost:  # in initialize
        codes = codes.at[jnp.asarray(list(lost)), 0].set(4)
    return result(posteriors, optimizer_state, trace, codes, reasons, window, converged, done)


def _bar(steps):
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError(
            f"{caller()}: progress=True needs tqdm: pip install tqdm, or pass a callback."
        ) from error
    return tqdm(total=steps)
