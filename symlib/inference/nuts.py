"""Draws from a posterior by the No-U-Turn sampler of NumPyro: the gold standard on small networks.

It rarely crosses between the modes that a symmetry makes: chains sit in different copies of one
mode, and agree only on what the symmetry does not move, such as predictions.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from symlib._checks import caller, finite, full_precision, positive_integer


class NutsDraws(NamedTuple):
    """What `nuts` returns; the leaves of `draws` start with the axes (chains, samples)."""

    draws: PyTree
    divergences: Int[Array, " chains"]  # transitions that left the trajectory; 0 is good


def nuts(
    key: PRNGKeyArray,
    log_density: Callable[[PyTree], Float[Array, ""]],
    starts: PyTree,
    *,
    num_warmup: int = 500,
    num_samples: int = 500,
) -> NutsDraws:
    """Sample from the density whose logarithm, up to a constant, is given, by NUTS.

    Step size and a diagonal mass matrix are adapted during the warm-up, whose draws are left out.

    Args:
        log_density: Function of one point, smooth almost everywhere.
        starts: The starts, stacked on a leading axis of each leaf, one a chain.
        num_warmup: Steps of adaptation.
        num_samples: Draws kept a chain.

    Raises:
        ImportError: NumPyro is missing.
        ValueError: A number is below 1, there is no start, the starts differ in number between
            leaves or are in half precision, or the density is no scalar, or it or its gradient is
            not finite at a start.
        RuntimeError: A draw is NaN or infinite.

    References:
        Hoffman and Gelman (2014), The No-U-Turn sampler.
    """
    try:
        from numpyro.infer import MCMC, NUTS
    except ImportError as error:
        raise ImportError("nuts needs NumPyro: run pip install numpyro.") from error
    num_warmup = positive_integer("num_warmup", num_warmup)
    num_samples = positive_integer("num_samples", num_samples)
    starts = full_precision("starts", starts)
    counts = {leaf.shape[:1] for leaf in jax.tree.leaves(starts)}
    if len(counts) != 1 or counts == {()}:
        raise ValueError(
            f"{caller()}: the leaves of starts have to share a leading axis, got {counts}."
        )
    ((num_chains,),) = counts
    positive_integer("the number of starts", num_chains)
    # From a start where the density is NaN or zero no proposal is ever taken: the chain would be
    # that one point.
    density = jax.eval_shape(log_density, jax.tree.map(lambda leaf: leaf[0], starts))
    if jnp.shape(density) != ():
        raise ValueError(f"{caller()}: log_density has to return a scalar, got {density}.")
    for leaf in jax.tree.leaves(jax.jit(jax.vmap(jax.value_and_grad(log_density)))(starts)):
        finite("log_density at the starts, and its gradient,", leaf)
    sampler = MCMC(
        NUTS(potential_fn=lambda z: -log_density(z)),
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    if num_chains == 1:  # NumPyro wants no chain axis then
        starts = jax.tree.map(lambda leaf: leaf[0], starts)
    sampler.run(key, init_params=starts, extra_fields=("diverging",))
    draws = sampler.get_samples(group_by_chain=True)
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(draws)):
        raise RuntimeError(
            f"{caller()}: a draw is NaN or infinite; is log_density finite at the starts?"
        )
    diverging = sampler.get_extra_fields(group_by_chain=True)["diverging"]
    return NutsDraws(draws, jnp.sum(diverging, axis=1))
