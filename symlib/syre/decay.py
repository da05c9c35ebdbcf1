r"""Weight decay towards an anchor, as optax transformations: syre and L2 Init.

Both add $2 \gamma (\varphi - \theta_0)$ to the gradient: $\theta_0$ is a small random point in syre
(Ziyin, Xu & Chuang 2024), the initial weights in L2 Init, 0 in `optax.add_decayed_weights`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, PRNGKeyArray, PyTree

from symlib._checks import at_least_single, caller, nonnegative
from symlib.syre.anchor import array_leaves, draw_anchor


class AnchoredDecayState(NamedTuple):
    """What `anchored_decay` keeps: the anchor and the deviation of the metric, or their key's data.

    With a key, the anchor only marks which leaves are arrays, by an empty array each, since `jit`
    makes arrays of Python numbers too. Data, since a key itself is not serialised.
    """

    anchor: PyTree
    deviation: PyTree
    key: Array | None
    count: Array | None


def anchored_decay(
    key: PRNGKeyArray,
    *,
    gamma: ArrayLike | Callable[[Array], ArrayLike],
    sigma0: PyTree | Callable[[PyTree], PyTree] | None = None,
    mask: PyTree | Callable[[PyTree], PyTree] = True,
    metric_spread: ArrayLike = 0.0,
    store: bool = True,
) -> optax.GradientTransformation:
    r"""Add $2 \gamma D (\varphi - \theta_0)$ to the gradient: syre as an optax transformation.

    `optax.chain(anchored_decay(key, gamma=...), optimizer)` on the loss itself takes the steps of
    `optimizer` on the biased loss of `remove_symmetry` (Ziyin, Xu & Chuang 2024, eqs. 2 and 3) with
    the same key, if it starts at $\varphi = \theta + \theta_0$. The parameters are the model to
    deploy: nothing is to be undone.

    Behind `optax.scale_by_adam` and before the learning rate, the decay is decoupled as in AdamW:
    Adam does not rescale it, and the steps differ.

    Args:
        key: As in `remove_symmetry`, and so are `sigma0`, `mask` and `metric_spread`.
        gamma: Strength of the decay, at least 0; or a schedule as in optax, a function of the
            number of steps that were taken.
        store: Keep the anchor in the state, one number a parameter; or draw it in every step, as
            `draw_anchor(..., hashed=True)`: another anchor, of a uniform law.

    Raises:
        ValueError: As in `remove_symmetry`; or the update is called without the parameters.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> decay = anchored_decay(jax.random.key(0), gamma=0.1, sigma0=0.01)
        >>> optimizer = optax.chain(decay, optax.sgd(0.1))
        >>> params = jnp.zeros(2)  # a symmetric point: no gradient
        >>> updates, _ = optimizer.update(jnp.zeros(2), optimizer.init(params), params)
        >>> bool((updates != 0).all())
        True
    """
    if not callable(gamma):
        gamma = nonnegative("gamma", gamma)

    def init(params):
        anchor, deviation = draw_anchor(params, key, sigma0, mask, metric_spread)
        count = jnp.zeros((), jnp.int32) if callable(gamma) else None
        if store:
            return AnchoredDecayState(anchor, deviation, None, count)
        marks = jax.tree.map(lambda _: jnp.zeros(0), array_leaves(params))
        # A copy: a step that donates its state must not take the caller's key with it.
        data = jnp.array(jax.random.key_data(key), copy=True)
        return AnchoredDecayState(marks, None, data, count)

    def update(updates, state, params=None, **extra):
        _check_update(params, extra)
        anchor, deviation = state.anchor, state.deviation
        if state.key is not None:
            arrays = jax.tree.map(
                lambda mark, leaf: None if mark is None else leaf,
                anchor,
                params,
                is_leaf=lambda node: node is None,
            )
            kept = jax.random.wrap_key_data(state.key, impl=jax.random.key_impl(key))
            anchor, deviation = draw_anchor(arrays, kept, sigma0, mask, metric_spread, hashed=True)
        if state.count is None:
            return _pull(updates, params, anchor, deviation, gamma), state
        strength = nonnegative("gamma", gamma(state.count))
        state = state._replace(count=optax.safe_increment(state.count))
        return _pull(updates, params, anchor, deviation, strength), state

    return optax.GradientTransformationExtraArgs(init, update)


def decay_to_initial(gamma: ArrayLike) -> optax.GradientTransformation:
    r"""Add $2 \gamma (\varphi - \varphi_0)$ to the gradient; $\varphi_0$ are the initial weights.

    L2 Init (Kumar, Marklund & Van Roy 2023) is syre with the initial weights as the anchor: a start
    at a symmetric point makes a symmetric anchor, which breaks nothing. Only floating-point arrays
    decay.

    Args:
        gamma: Strength of the decay, at least 0.

    Raises:
        ValueError: `gamma` is not as stated, no parameter is a floating-point array, one is
            complex, or the update is called without the parameters.
    """
    gamma = nonnegative("gamma", gamma)

    def init(params):
        # Copies: a step that donates the parameters must not take the anchor with them.
        return jax.tree.map(jnp.copy, array_leaves(params))

    def update(updates, initial, params=None, **extra):
        _check_update(params, extra)
        return _pull(
            updates, params, initial, jax.tree.map(lambda _: None, initial), gamma
        ), initial

    return optax.GradientTransformationExtraArgs(init, update)


def _check_update(params, extra):
    if params is None:
        raise ValueError(f"{caller()}: call update(gradient, state, params).")
    if "value_fn" in extra:  # L-BFGS and other line searches
        raise ValueError(
            f"{caller()}: a line search sees the loss without the decay. Give it the loss that "
            "symlib.syre.remove_symmetry returns."
        )


def _pull(updates, params, anchor, deviation, gamma):
    """Add the gradient of the decay, 2 gamma D (params - anchor), where there is an anchor."""

    def of_leaf(anchor, xi, update, leaf):
        if anchor is None:
            return update
        dtype = at_least_single(jnp.result_type(leaf))
        offset = jnp.asarray(leaf, dtype) - anchor
        offset = offset if xi is None else offset + xi * offset  # D = 1 + xi, a small xi kept
        return (update + 2 * gamma * offset).astype(jnp.result_type(update))

    return jax.tree.map(
        of_leaf, anchor, deviation, updates, params, is_leaf=lambda node: node is None
    )
