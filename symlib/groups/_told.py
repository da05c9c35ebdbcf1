"""What a base density says of itself, on which the closed forms rest."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from symlib._checks import caller, refuse_if, scalar
from symlib.groups.rotations import stack_rows


def told(base: eqx.Module, name: str) -> PyTree | None:
    """Return `base.variances()` or `base.row_variances()`, or None if it does not know them.

    A base that is not the library's own is held to what it says, that it is a Gaussian with
    independent entries: at its mean a Gaussian with dependent entries has a larger density than the
    one with its variances alone (Hadamard's inequality), and other laws have another one.

    Raises:
        ValueError: The density at the mean is not that of independent normal entries.
        RuntimeError: A traced one is not.
    """
    method = getattr(base, name, None)
    variances = None if method is None else method()
    # The library's own say None where a subclass has another law.
    if variances is None or getattr(type(base), name).__module__.startswith("symlib."):
        return variances
    if not hasattr(base, "mean"):
        raise ValueError(f"{caller()}: a {type(base).__name__} has {name}() and no mean.")
    if name == "variances":
        leaves = jax.tree.leaves(variances)
    else:
        rows = stack_rows(base.mean)
        leaves = [jnp.broadcast_to(jnp.reshape(variances, (-1, 1)), rows.shape)]
    logs = jnp.concatenate([jnp.log(2 * math.pi * jnp.ravel(leaf)) for leaf in leaves])
    found = scalar("log_prob of the base", base.log_prob(base.mean))
    # Some roundings of a sum, and a dependence that is too weak to matter.
    tolerance = 1e-3 + 16 * jnp.finfo(logs.dtype).eps * jnp.sum(jnp.abs(logs))
    wrong = ~(jnp.abs(found + jnp.sum(logs) / 2) <= tolerance)
    message = (
        f"{caller()}: {name}() of a {type(base).__name__} says that its entries are independent "
        "and normal, and log_prob at its mean is not that of such a law."
    )
    return refuse_if(variances, wrong, message)
