r"""Measure collapse: ranks of features, dead units, and how symmetric the parameters are.

A model trapped at a symmetric point uses fewer directions than it has. The ranks see this from
outside, in the features; the degree of symmetry and the breaking strength see it in the parameters
and the gradient.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from symlib._checks import floating_leaves, nonnegative
from symlib.groups import Group


def degree_of_symmetry(
    directions: Float[ArrayLike, "..."], w: Float[ArrayLike, "..."], threshold: ArrayLike
) -> Int[Array, ""]:
    r"""Count the reflections that nearly fix a point, $\sum_i 1\{|v_i^\top w| < c\}$.

    Each unit vector $v_i$ stands for the reflection $w \mapsto w - 2 (v_i^\top w) v_i$, and
    $|v_i^\top w|$ is the distance to its mirror.

    Args:
        directions: Unit vectors as rows, shape (reflections, d).
        w: The parameters, shape (d,).
        threshold: $c$, in the units of `w`.

    Raises:
        ValueError: A shape is wrong, or `threshold` is negative.

    References:
        Ziyin, Xu & Chuang (2024), section 5, where the absolute value is missing: without it every
        negative component counts, however far from the mirror.
    """
    directions, w = jnp.asarray(directions), jnp.asarray(w)
    if w.ndim != 1 or directions.shape[1:] != w.shape:
        raise ValueError(
            "degree_of_symmetry: expected directions (reflections, d) and w (d,), got "
            f"{directions.shape} and {w.shape}."
        )
    return jnp.sum(
        jnp.abs(directions @ w) < nonnegative("degree_of_symmetry", "threshold", threshold)
    )


def covariance_spectrum(features: Float[ArrayLike, "..."]) -> Float[Array, " d"]:
    r"""Return the eigenvalues of the covariance of features over a batch, the largest first.

    They are the squared singular values of the centred features divided by the batch size n: no
    covariance is formed, so that eigenvalues of 1e-6 of the largest are right in float32.

    Args:
        features: Shape (n, d).

    Returns:
        Shape (d,), in squared units of the features; zeros fill up where n < d.

    Raises:
        ValueError: `features` is no matrix.
    """
    features = _matrix("covariance_spectrum", features)
    centred = features - jnp.mean(features, axis=0)
    values = jnp.linalg.svd(centred, compute_uv=False) ** 2 / len(features)
    return jnp.pad(values, (0, features.shape[1] - len(values)))


def thresholded_rank(
    features: Float[ArrayLike, "..."], threshold: ArrayLike = 1e-4
) -> Int[Array, ""]:
    r"""Count the eigenvalues of the covariance of features that exceed a threshold.

    The threshold is absolute: features scaled by $a$ need one scaled by $a^2$.

    Args:
        features: Shape (n, d).
        threshold: In squared units of the features.

    Raises:
        ValueError: `features` is no matrix, or `threshold` is negative.

    References:
        Ziyin, Xu & Chuang (2024), appendix C.3 (1e-4) and Fig. 6 (1e-6).
    """
    threshold = nonnegative("thresholded_rank", "threshold", threshold)
    return jnp.sum(covariance_spectrum(features) > threshold)


def effective_rank(matrix: Float[ArrayLike, "..."]) -> Float[Array, ""]:
    r"""Return $\exp(-\sum_i p_i \log p_i)$ for the singular values $s$, $p_i = s_i / \sum_j s_j$.

    It lies between 1 and the rank, does not depend on the scale, and changes smoothly where
    the number of nonzero singular values jumps. The zero matrix has 0. Since the scale does not
    count, features that have all but vanished may have a large one: look at their size as well.

    Args:
        matrix: Weights, or features over a batch (not centred here).

    Raises:
        ValueError: `matrix` is no matrix.

    References:
        Roy & Vetterli (2007), The effective rank.
    """
    values = jnp.linalg.svd(_matrix("effective_rank", matrix), compute_uv=False)
    total = jnp.sum(values)
    shares = values / jnp.where(total > 0, total, 1)
    return jnp.where(total > 0, jnp.exp(jnp.sum(jax.scipy.special.entr(shares))), 0)


def dead_units(activations: Float[ArrayLike, "..."], threshold: ArrayLike = 0.0) -> Int[Array, ""]:
    r"""Count the units whose activation never exceeds a threshold in absolute value on a batch.

    Args:
        activations: Shape (n, d), one column for each unit.
        threshold: In the units of the activations. 0 counts the units that are exactly silent, as a
            dead ReLU is; a smooth unit needs more.

    Raises:
        ValueError: `activations` is no matrix, or `threshold` is negative.
    """
    activations = _matrix("dead_units", activations)
    threshold = nonnegative("dead_units", "threshold", threshold)
    return jnp.sum(jnp.max(jnp.abs(activations), axis=0) <= threshold)


def symmetry_breaking_strength(
    group: Group, gradient: PyTree, elements: PyTree | None = None
) -> Float[Array, ""]:
    r"""Return $\Delta_V = \|(I - \bar V) \nabla \ell\|$, the gradient that breaks a symmetry.

    $\bar V = |V|^{-1} \sum_{g \in V} g$ projects on what all elements fix. At a point that $V$
    fixes, a loss that is invariant under $V$ has $\Delta_V = 0$: nothing pushes out. The elements
    have to act by orthogonal matrices, as permutations and sign flips do.

    Args:
        group: A finite group.
        gradient: The gradient, a point that the group acts on.
        elements: The elements of the subgroup $V$, all of them, stacked on a leading axis of each
            leaf; by default the whole group. Elements that are no subgroup are not noticed.

    Raises:
        ValueError: The group is too large to list, the gradient holds no floating-point arrays, or
            does not fit the group.

    References:
        Ziyin, Xu & Chuang (2024), section 4, before Theorem 6.
    """
    gradient = floating_leaves("symmetry_breaking_strength", "gradient", gradient)
    if elements is None:
        elements = group.elements()
    images = jax.vmap(lambda g: group.act(g, gradient))(elements)
    broken = jax.tree.map(lambda image, leaf: leaf - jnp.mean(image, axis=0), images, gradient)
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(broken)))


def _matrix(owner: str, array) -> Array:
    array = jnp.asarray(array)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{owner}: expected a matrix that is not empty, got shape {array.shape}.")
    return array
