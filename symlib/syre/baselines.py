r"""Other ways to break symmetries in training: frozen weights (W-fix) and dropped ones (dropout).

For the comparison with syre (Ziyin, Xu & Chuang 2024, section 5). Plain weight decay is
`optax.add_decayed_weights(2 * gamma)`; L2 Init is `symlib.syre.decay_to_initial`.
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
    r"""Freeze a random part of the weights at random values: W-fix.

    In each leaf a share $\phi$ of the entries, rounded to a whole number, is drawn without
    replacement and set to $N(0, \kappa^2)$. Put the transformation last in
    `optax.chain(optimizer, transformation)`: it sets the updates of these entries to zero.

    Args:
        params: The parameters: floating-point arrays in any pytree. Leaves of other kinds, Python
            numbers among them, are left alone.
        key: Random key.
        fraction: $\phi$, from 0 to below 1.
        sigma: $\kappa$, the standard deviation of the frozen values, at least 0.

    Returns:
        The parameters to start from, and the transformation.

    Raises:
        ValueError: `fraction` or `sigma` is out of range; the parameters hold no floating-point
            arrays, or complex ones.

    References:
        Lim, Putterman, Walters, Maron & Jegelka (2024), The empirical impact of neural parameter
        symmetries, or lack thereof; as Ziyin, Xu & Chuang (2024) use it, appendix C.2, whose
        "variance" .01 is taken for a standard deviation here.
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
    r"""Set each entry to zero with probability p, and divide the others by 1 - p: dropout.

    The mean over draws is `params`; NaN stays NaN. Call it in the loss, with a new key in every
    step: `loss(drop_weights(params, key, rate))`.

    Args:
        params: Floating-point arrays in any pytree: the weights, or the activations of a layer.
            Leaves of other kinds, Python numbers among them, are left alone.
        key: Random key.
        rate: p, from 0 to below 1.

    Raises:
        ValueError: `rate` is out of range; the parameters hold no floating-point arrays, or complex
            ones.
        RuntimeError: A traced value is such.
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
