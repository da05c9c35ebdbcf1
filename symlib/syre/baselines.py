"""Other ways to break symmetries in training: frozen weights (W-fix) and dropped ones (dropout).

Plain weight decay is `optax.add_decayed_weights(2 * gamma)`; L2 Init is `decay_to_initial`.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import ArrayLike, PRNGKeyArray, PyTree

from symlib._checks import at_least_single, nonnegative
from symlib.syre.anchor import array_leaves


def fix_weights(
    params: PyTree, key: PRNGKeyArray, fraction: ArrayLike, sigma: ArrayLike = 0.01
) -> tuple[PyTree, optax.GradientTransformation]:
    r"""Freeze a random part of the weights at random values: W-fix (Lim et al. 2024).

    In each leaf a share $\phi$ of the entries, rounded to a whole number, is drawn without
    replacement and set to $N(0, \kappa^2)$. Returns the parameters to start from, and a
    transformation that sets the updates of these entries to zero: put it last in `optax.chain`.

    Args:
        params: Real floating-point arrays in any pytree; other leaves are left alone.
        fraction: $\phi$, from 0 to below 1.
        sigma: $\kappa$, the standard deviation of the frozen values, at least 0; the default is the
            "variance" of Ziyin, Xu & Chuang (2024), appendix C.2.

    Raises:
        ValueError: An argument is not as stated, or the parameters hold no array.
    """
    arrays = array_leaves(params)
    fraction = nonnegative("fraction", fraction, below=1.0)
    sigma = nonnegative("sigma", sigma)
    leaves, treedef = jax.tree.flatten(arrays)
    started, frozen = [], []
    for place, leaf in enumerate(leaves):
        place_key, value_key = jax.random.split(jax.random.fold_in(key, place))
        count = round(fraction * leaf.size)
        first = jnp.arange(leaf.size) < count
        fixed = jax.random.permutation(place_key, first).reshape(leaf.shape)
        values = sigma * jax.random.normal(value_key, leaf.shape, at_least_single(leaf.dtype))
        frozen.append(fixed)
        started.append(jnp.where(fixed, values.astype(leaf.dtype), leaf))
    frozen = treedef.unflatten(frozen)

    def hold(updates, _=None):
        return _map_arrays(lambda fixed, update: jnp.where(fixed, 0, update), frozen, updates)

    start = _map_arrays(lambda array, _: array, treedef.unflatten(started), params)
    return start, optax.stateless(hold)


def drop_weights(params: PyTree, key: PRNGKeyArray, rate: ArrayLike) -> PyTree:
    """Set each entry to zero with probability p, and divide the others by 1 - p: dropout.

    The mean over draws is `params`; NaN stays NaN. Call it in the loss, with a new key in every
    step: `loss(drop_weights(params, key, rate))`.

    Args:
        params: Weights, or the activations of a layer: real floating-point arrays in any pytree;
            other leaves are left alone.
        rate: p, from 0 to below 1.

    Raises:
        ValueError: An argument is not as stated, or the parameters hold no array.
    """
    arrays = array_leaves(params)
    rate = nonnegative("rate", rate, below=1.0)
    leaves, treedef = jax.tree.flatten(arrays)

    def drop(place, leaf):
        kept = jax.random.bernoulli(jax.random.fold_in(key, place), 1 - rate, leaf.shape)
        return jnp.where(kept | jnp.isnan(leaf), leaf / (1 - rate), 0).astype(leaf.dtype)

    dropped = treedef.unflatten([drop(*pair) for pair in enumerate(leaves)])
    return _map_arrays(lambda array, _: array, dropped, params)


def _map_arrays(function, arrays, tree):
    """Apply a function where `arrays` has an array, and keep the leaf of `tree` elsewhere."""
    return jax.tree.map(
        lambda array, leaf: leaf if array is None else function(array, leaf),
        arrays,
        tree,
        is_leaf=lambda node: node is None,
    )
