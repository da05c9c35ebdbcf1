r"""The geometry that a decoder gives its latent space: metric, length of curves, geodesics.

A step $dz$ in the latent space moves the output by $J dz$, so its length there is
$\sqrt{dz^\top G dz}$ with $G(z) = J^\top J$. For Gaussian observations the best covariance of a
posterior knows the metric, $G = \beta (\Sigma^{-1} - I)$ (Kumar & Poole 2020, section 5.2).
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from symlib._checks import caller, full_precision, positive_integer, refuse_if
from symlib.autoencoders._decoder import Decoder, refuse_collectives


def metric(decoder: Decoder, z: Float[Array, "..."]) -> Float[Array, "d d"]:
    r"""Return $G(z) = J(z)^\top J(z)$, the metric that the decoder pulls back.

    Args:
        decoder: Function of a latent vector, shape (d,).
        z: The point, shape (d,).

    Raises:
        ValueError: `z` is no vector of float32 or float64, or the decoder's output is of another
            type.

    References:
        Kumar & Poole (2020), section 5.2.
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

    The sum of chords: below the length of the smooth curve, with an error that falls as the square
    of the spacing. Its derivatives are those of the distances; where two neighbours decode to the
    same point, that distance has a kink and 0 is taken.

    Args:
        decoder: Function of a latent vector, shape (d,).
        curve: Points $z_0, \dots, z_n$ along the curve, shape (n + 1, d).

    Raises:
        ValueError: `curve` is no matrix of two points or more, of float32 or float64.
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
    r"""Return a shortest curve between two latent points, by minimising its energy.

    The energy $n \sum_i \|g(z_{i+1}) - g(z_i)\|^2$ is at least the squared length, with equality
    for chords of equal length. L-BFGS starts at the straight line: where several geodesics
    exist, it finds one near it. The straight line's energy is never exceeded.

    Args:
        decoder: Differentiable function of a latent vector, shape (d,).
        start: The first point, shape (d,).
        end: The last point, shape (d,).
        num_points: Number of points of the curve, both ends included.
        steps: Number of L-BFGS steps.

    Raises:
        ValueError: The points do not match or are not float32 or float64, or `num_points` is below
            3 or `steps` below 1; or the energy became NaN or infinite.
        RuntimeError: A traced value is such.

    References:
        Kumar & Poole (2020), section 5.2; Shao, Kumar & Fletcher (2018).
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
