"""Random numbers that cost almost nothing to draw again: a hash of the place of each number.

JAX's generator writes its bits to memory, a hash is fused with whatever uses the number. It is no
source of randomness for sampling: use each number once, where it only has to have no structure.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray

from symlib._checks import caller


def hashed_uniform(
    key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Float[Array, "..."]:
    r"""Draw from the uniform law on $[-\sqrt3, \sqrt3)$: mean 0, variance 1.

    The number at place i is a hash of i and of the key, with a resolution of $2^{-22}$: the same on
    every device and in every version. Its mixing step is Appleby's (2011, MurmurHash3), taken
    twice.

    Args:
        key: Random key.
        shape: Shape of the array, of fewer than $2^{32}$ entries.
        dtype: A floating-point type. Numbers of half precision are rounded ones of float32.

    Raises:
        ValueError: An argument is not as stated: more entries would repeat.
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{caller()}: dtype has to be a floating-point type, got {dtype}.")
    if math.prod(shape) >= 2**32:
        raise ValueError(f"{caller()}: shape has to have below 2^32 entries, got {shape}.")
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    places = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    bits = _mix(_mix(places + first) ^ second)
    # The upper 23 bits become the fraction of a float in [1, 2).
    number = jax.lax.bitcast_convert_type((bits >> 9) | jnp.uint32(0x3F800000), jnp.float32)
    return (math.sqrt(3) * (2 * number - 3)).astype(dtype)


def _mix(bits):
    """Mix 32 bits; each bit of the input changes about half of the output's (MurmurHash3)."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)
