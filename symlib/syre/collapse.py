"""Measure collapse: ranks of features, dead units, and how symmetric the parameters are.

All functions refuse NaN, which would count as collapse or as life, and infinite numbers. Integers
and half precision are measured, and answered, in float32.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PyTree, Real

from symlib._checks import caller, entries, finite, floating_leaves, nonnegative
from symlib.groups import Group

# How far the length of a "unit" vector may be from 1: the distances are wrong by as much.
_LENGTH_ERROR = 0.01


def degree_of_symmetry(
    directions: Real[ArrayLike, "..."], w: Real[ArrayLike, "..."], threshold: ArrayLike
) -> Int[Array, ""]:
    r"""Count the reflections that nearly fix a point, $\sum_i 1\{|v_i^\top w| < c\}$.

    $|v_i^\top w|$ is the distance to the mirror of $w \mapsto w - 2 (v_i^\top w) v_i$. In Ziyin, Xu
    & Chuang 2024, section 5, the absolute value is missing.

    Args:
        directions: Unit vectors $v_i$ as rows, to .01 in their length, shape (reflections, d).
        w: The parameters, shape (d,).
        threshold: $c$, at least 0, in the units of `w`.

    Raises:
        ValueError: An argument is not as stated, or not finite.
    """
    directions, w = _numbers("directions", directions), _numbers("w", w)
    if w.ndim != 1 or directions.shape[1:] != w.shape:
        raise ValueError(
            f"{caller()}: expected directions (reflections, d) and w (d,), got "
            f"{directions.shape} and {w.shape}."
        )
    directions = entries(
        "directions",
        directions,
        lambda v: abs((v * v).sum(axis=1, keepdims=True) ** 0.5 - 1) < _LENGTH_ERROR + 0 * v,
        "unit vectors",
    )
    threshold = nonnegative("threshold", threshold)
    # Partial sums of coordinates near the end of the range overflow, to NaN with both signs: sum
    # them in units of 2^40. A distance beyond the range is infinite then, and no near mirror.
    large = jnp.max(jnp.abs(w), initial=0) > jnp.finfo(w.dtype).max * 2.0**-40
    unit = jnp.where(large, 2.0**40, 1.0).astype(w.dtype)
    return jnp.sum(jnp.abs(directions @ (w / unit)) * unit < threshold)


def covariance_spectrum(features: Real[ArrayLike, "..."]) -> Float[Array, " d"]:
    """Return the eigenvalues (d,) of the covariance of features over a batch, the largest first.

    They are the squared singular values of the centred features divided by the batch size n, zeros
    where n < d. Those of 1e-6 of the largest are right in float32.

    Args:
        features: Shape (n, d), n of 2 or more.

    Raises:
        ValueError: `features` is not as stated or not finite, or the spectrum beyond its type.
    """
    return _spectrum(features)


def thresholded_rank(
    features: Real[ArrayLike, "..."], threshold: ArrayLike = 1e-4
) -> Int[Array, ""]:
    """Count the eigenvalues of the covariance of features that exceed a threshold.

    Args:
        features: Shape (n, d), n of 2 or more.
        threshold: Absolute, in squared units of the features: 1e-4 and 1e-6 in Ziyin, Xu & Chuang
            2024, appendix C.3 and Fig. 6.

    Raises:
        ValueError: As in `covariance_spectrum`, or `threshold` is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> int(thresholded_rank(jnp.array([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])))  # a line
        1
    """
    threshold = nonnegative("threshold", threshold)
    return jnp.sum(_spectrum(features) > threshold)


def effective_rank(matrix: Real[ArrayLike, "..."]) -> Float[Array, ""]:
    r"""Return $\exp(-\sum_i p_i \log p_i)$ for the singular values $s$, $p_i = s_i / \sum_j s_j$.

    It lies between 1 and the rank, is 0 for the zero matrix, and does not depend on the scale:
    features that have all but vanished may have a large one. It is continuous; at a singular matrix
    its slope is infinite (Roy & Vetterli 2007).

    Args:
        matrix: Weights, or features over a batch (not centred here).

    Raises:
        ValueError: `matrix` is no matrix, or not finite.
    """
    matrix = _matrix(matrix)
    # The scale does not count; this one keeps sums and shares in the range of float32.
    scale = jnp.max(jnp.abs(matrix))
    values = jnp.linalg.svd(matrix / jnp.where(scale > 0, scale, 1), compute_uv=False)
    total = jnp.sum(values)
    shares = values / jnp.where(total > 0, total, 1)
    return jnp.where(total > 0, jnp.exp(jnp.sum(jax.scipy.special.entr(shares))), 0)


def dead_units(activations: Real[ArrayLike, "..."], threshold: ArrayLike = 0.0) -> Int[Array, ""]:
    """Count the units whose activation never exceeds a threshold in absolute value on a batch.

    Args:
        activations: Shape (n, d), one column for each unit.
        threshold: At least 0, in the units of the activations. 0 counts the units that are exactly
            silent, as a dead ReLU is; a smooth unit needs more.

    Raises:
        ValueError: An argument is not as stated, or not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> int(dead_units(jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]])))
        1
    """
    activations = _matrix(activations)
    threshold = nonnegative("threshold", threshold)
    return jnp.sum(jnp.max(jnp.abs(activations), axis=0) <= threshold)


def symmetry_breaking_strength(
    group: Group, gradient: PyTree, elements: PyTree | None = None
) -> Float[Array, ""]:
    r"""Return $\Delta_V = \|(I - \bar V) \nabla \ell\|$, the gradient that breaks a symmetry.

    $\bar V = |V|^{-1} \sum_{g \in V} g$ projects on what all elements fix. At a point that $V$
    fixes, a loss that is invariant under $V$ has $\Delta_V = 0$ (Ziyin, Xu & Chuang 2024, section
    4, before Theorem 6). The elements have to act by orthogonal matrices, as permutations do.

    Args:
        group: A finite group, small enough to list.
        gradient: The gradient, finite floating-point arrays that the group acts on.
        elements: The elements of the subgroup $V$, all of them, stacked on a leading axis of each
            leaf; by default the whole group. Elements that are no subgroup are not noticed.

    Raises:
        ValueError: The group or the gradient is not as stated.

    Example:
        >>> import jax.numpy as jnp
        >>> from symlib.groups import SignFlip
        >>> float(symmetry_breaking_strength(SignFlip(2), jnp.array([3.0, 4.0])))
        5.0
    """
    gradient = floating_leaves("gradient", gradient)
    gradient = jax.tree.map(lambda leaf: _numbers("gradient", leaf), gradient)
    if elements is None:
        elements = group.elements()
    images = jax.vmap(lambda g: group.act(g, gradient))(elements)
    broken = jax.tree.map(lambda image, leaf: leaf - jnp.mean(image, axis=0), images, gradient)
    # In units of the largest entry, which may be held constant in derivatives: the squares of
    # entries below 1e-23 vanish in float32.
    sizes = [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(broken) if leaf.size]
    unit = jax.lax.stop_gradient(jnp.max(jnp.stack(sizes)))
    unit = jnp.where(unit == 0, 1, unit)
    square = sum(jnp.sum((leaf / unit) ** 2) for leaf in jax.tree.leaves(broken))
    # At a symmetric point the root of 0, whose derivative is infinite; 0 is one of the slopes.
    strength = jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))
    return finite("the strength", unit * strength)


def _spectrum(features):
    features = _matrix(features)
    if len(features) < 2:
        raise ValueError(f"{caller()}: a covariance needs 2 points or more, got 1.")
    centred = features - jnp.mean(features, axis=0)
    # Once more: the mean of many large features is off by its own rounding.
    centred = centred - jnp.mean(centred, axis=0)
    values = jnp.linalg.svd(centred, compute_uv=False) ** 2 / len(features)
    # NaN also where sums of large features overflow, and then it would be no rank.
    values = finite("the spectrum", values)
    return jnp.pad(values, (0, features.shape[1] - len(values)))


def _matrix(array) -> Array:
    array = _numbers("the matrix", array)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"{caller()}: expected a matrix that is not empty, got shape {array.shape}."
        )
    return array


def _numbers(name: str, array) -> Array:
    """Return finite float32 or float64 numbers."""
    array = jnp.asarray(array)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"{caller()}: {name} has to be real, got {array.dtype}.")
    if array.dtype not in (jnp.float32, jnp.float64):
        array = array.astype(jnp.float32)
    return finite(name, array)
