r"""The geometry that a decoder gives its latent space: metric, length of curves, geodesics.

A step $dz$ in the latent space moves the output by $\|J dz\| = \sqrt{dz^\top G dz}$.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from symlib._checks import caller, full_precision, positive_integer, refuse_if
from symlib.autoencoders._decoder import Decoder, refuse_collectives


def metric(decoder: Decoder, z: Float[Array, "..."]) -> Float[Array, "d d"]:
    r"""Return $G(z) = J(z)^\top J(z)$, the metric that the decoder pulls back.

    For Gaussian observations the best covariance knows it: $G = \beta (\Sigma^{-1} - I)$ (Kumar &
    Poole 2020, section 5.2).

    Args:
        decoder: Function of a latent vector, shape (d,), with an output in float32 or float64.
        z: The point, shape (d,), in float32 or float64.

    Raises:
        ValueError: An argument is not as stated.
    """
    if z.ndim != 1:
        raise ValueError(f"{caller()}: z has to be a vector, got shape {z.shape}.")
    full_precision("z", z)
    outputs = jax.eval_shape(decoder, z)
    full_precision("the decoder's output", jnp.empty((), outputs.dtype))
    refuse_collectives(decoder, z)
    jacobian = jax.jacfwd(decoder)(z).reshape(-1, len(z))
    return jacobian.T @ jacobian


def curve_length(decoder: Decoder, curve: Float[Array, "..."]) -> Float[Array, ""]:
    r"""Return the length of a curve after decoding, $\sum_i \|g(z_{i+1}) - g(z_i)\|$.

    Chords are below the smooth curve; the error falls as the square of the spacing. Where two
    neighbours decode to the same point the derivative of their distance is taken to be 0.

    Args:
        decoder: As in `metric`.
        curve: Points $z_0, \dots, z_n$ along the curve, shape (n + 1, d), n of 1 or more.

    Raises:
        ValueError: An argument is not as stated.
    """
    chords = _chords(decoder, curve)
    # A length is its scale times that of the scaled chord, whatever the scale: it may be held
    # constant in derivatives. Without one, squares of chords below 1e-23 vanish in float32.
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(chords), axis=1, keepdims=True))
    moved = scale[:, 0] != 0
    squares = jnp.sum((chords / jnp.where(scale == 0, 1, scale)) ** 2, axis=1)
    # Not the root of 0, whose derivative is infinite.
    return jnp.sum(jnp.where(moved, scale[:, 0] * jnp.sqrt(jnp.where(moved, squares, 1)), 0))


def geodesic(
    decoder: Decoder,
    start: Float[Array, "..."],
    end: Float[Array, "..."],
    num_points: int = 33,
    steps: int = 300,
) -> Float[Array, "points d"]:
    r"""Return a shortest curve, (points, d), between two latent points, by minimising its energy.

    L-BFGS on $n \sum_i \|g(z_{i+1}) - g(z_i)\|^2$ starts at the straight line, whose energy is
    never exceeded: where several geodesics exist, it finds one near it (Kumar & Poole 2020, section
    5.2; Shao, Kumar & Fletcher 2018).

    Args:
        decoder: As in `metric`.
        start: The first point, shape (d,).
        end: The last point, shape (d,).
        num_points: Number of points of the curve, both ends included, at least 3.
        steps: Number of L-BFGS steps, at least 1.

    Raises:
        ValueError: An argument is not as stated, or the energy became NaN or infinite.
    """
    if start.ndim != 1 or start.shape != end.shape:
        raise ValueError(
            f"{caller()}: start and end have to be vectors of one length, got {start.shape} and "
            f"{end.shape}."
        )
    full_precision("start or end", (start, end))
    if positive_integer("num_points", num_points) < 3:
        raise ValueError(f"{caller()}: num_points has to be at least 3, got {num_points}.")
    steps = positive_integer("steps", steps)
    times = jnp.linspace(0, 1, num_points, dtype=start.dtype)[:, None]
    line = (1 - times) * start + times * end
    # The curve does not depend on the decoder's scale, but the optimiser's tolerances do, and the
    # squares of small chords vanish in float32.
    scale = jnp.max(jnp.abs(_chords(decoder, line))) * (num_points - 1)
    scale = jnp.where(scale == 0, 1, scale)

    def energy(inner):
        curve = jnp.concatenate([line[:1], inner, line[-1:]])
        return (num_points - 1) * jnp.sum((_chords(decoder, curve) / scale) ** 2)

    optimizer = optax.lbfgs()

    def step(carry, _):
        inner, state = carry
        value, gradient = optax.value_and_grad_from_state(energy)(inner, state=state)
        updates, state = optimizer.update(
            gradient, state, inner, value=value, grad=gradient, value_fn=energy
        )
        return (optax.apply_updates(inner, updates), state), None

    inner = line[1:-1]
    (found, _), _ = jax.lax.scan(step, (inner, optimizer.init(inner)), None, length=steps)
    best = jnp.where(energy(found) <= energy(inner), found, inner)
    best = refuse_if(
        best, ~jnp.isfinite(energy(found)), f"{caller()}: the energy became NaN or infinite."
    )
    return jnp.concatenate([line[:1], best, line[-1:]])


def _chords(decoder, curve):
    if curve.ndim != 2 or len(curve) < 2:
        raise ValueError(f"{caller()}: expected a curve (points, d), got shape {curve.shape}.")
    full_precision("the curve", curve)
    outputs = jax.vmap(decoder)(curve).reshape(len(curve), -1)
    return jnp.diff(full_precision("the decoder's output", outputs), axis=0)
