"""A decoder, its derivatives in the latent vector, and what is checked of both."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from symlib._checks import caller, finite, full_precision, refuse_if
from symlib.autoencoders.observation import BERNOULLI, GAUSSIAN

Decoder = Callable[[Float[Array, " d"]], Float[Array, "..."]]


def columns_and_weights(decoder, x, mean, observation, directions):
    """Return the output, J^T with a flattened column of J in each row, and the diagonal of H."""
    output, columns = output_and_columns(decoder, mean, directions)
    weights = jnp.asarray(observation.curvature(output, x))
    if weights.shape not in ((), output.shape):
        raise ValueError(
            f"{caller()}: the observation's curvature has to have the shape of the decoder's "
            f"output, {output.shape}, got {weights.shape}."
        )
    if observation not in (GAUSSIAN, BERNOULLI):  # of which it is known
        weights = refuse_if(
            weights,
            ~((weights >= 0) & (weights < jnp.inf)),
            f"{caller()}: the observation's curvature is negative, infinite or NaN.",
        )
    return output, flat(columns), weights.ravel()


def scalar_loss(observation, prediction, target):
    """Return the loss, which has to be a scalar: a mean over pixels would pass unnoticed."""
    if observation not in (GAUSSIAN, BERNOULLI):  # which look at the data themselves
        target = finite("x", target)
    value = observation.loss(prediction, target)
    if jnp.shape(value) != ():
        raise ValueError(
            f"{caller()}: loss has to return a scalar, the sum over the entries of x, got shape "
            f"{jnp.shape(value)}."
        )
    return value


def output_and_columns(decoder, mean, directions):
    """Return the decoder's output and its derivatives in the directions, by forward mode."""
    if len(directions) == 1:  # one pass for both
        output, column = jax.jvp(decoder, (mean,), (directions[0],))
        return output, column[None]
    output, forward = jax.linearize(decoder, mean)
    return output, jax.vmap(forward)(directions)


def flat(columns):
    return columns.reshape(len(columns), -1)


def check_decoder(decoder, x, mean):
    if mean.ndim != 1 or not jnp.issubdtype(mean.dtype, jnp.floating):
        raise ValueError(f"{caller()}: mean has to be a vector, got {mean.dtype} {mean.shape}.")
    full_precision("mean", mean)
    try:
        output = jax.eval_shape(decoder, mean)
    except TypeError as error:
        raise ValueError(
            f"{caller()}: the decoder failed on a latent vector of length {len(mean)}: {error}"
        ) from error
    if not hasattr(output, "dtype") or not jnp.issubdtype(output.dtype, jnp.floating):
        raise ValueError(
            f"{caller()}: the decoder has to return an array of floating-point numbers to be "
            f"differentiable, got {output}."
        )
    full_precision("the decoder's output", jnp.empty((), output.dtype))
    if x is not None and x.shape != output.shape:
        raise ValueError(
            f"{caller()}: the decoder returns shape {output.shape} and x has shape {x.shape}."
        )


def refuse_collectives(decoder, mean):
    """Refuse a decoder that averages over the points of a mapped axis, as batch normalisation does.

    A derivative in z would move the points of the whole batch: a linear decoder's would be 0.
    """
    if _has_collective(jax.make_jaxpr(decoder)(mean).jaxpr):
        raise ValueError(
            f"{caller()}: the decoder averages over a batch, so that it has no derivatives of a "
            "single point. Use batch normalisation with its running statistics (inference mode)."
        )


def _has_collective(jaxpr):
    names = ("psum", "pmax", "pmin", "all_gather", "ppermute", "all_to_all", "reduce_scatter")
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith(names):
            return True
        # What jit, scan, cond and custom derivatives hold: programs, or tuples of them.
        inside = jax.tree.leaves(list(equation.params.values()))
        if any(_has_collective(part) for part in inside if hasattr(part, "eqns")):
            return True
    return False
