r"""A matrix Gaussian against its mixture over all rotations: the log ratio of the two densities.

The rows of X hold the factors of a matrix factorization, $U$ above $V$, and $X \mapsto X T^\top$
with $T$ in O(k) leaves the product $U V^\top$ alone (Moore 2016, section 3.2). The mixture
$\tilde q$ of $q^* = \mathcal{N}(M, c I)$ over the uniform law of $T$ has a density that needs one
Bessel function of a matrix, since $\|X T^\top\|$ does not depend on $T$.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree, Real

from symlib._checks import array_shape, at_least_single, caller, floating_leaves, refuse_if
from symlib.special import log_hyp0f1, log_hyp0f1_scaled, singular_values


def rotation_log_ratio(
    X: Float[ArrayLike, "n k"],
    M: Float[ArrayLike, "n k"],
    variance: Real[ArrayLike, "..."],
    method: str = "calibrated",
) -> Float[Array, ""]:
    r"""Return $\log q^*(X) - \log\tilde q(X)$ in nats, for $q^*$ a Gaussian around $M$.

    $$\log\frac{q^*(X)}{\tilde q(X)} = \mathrm{tr}\,B - \log {}_0F_1(k/2; B B^\top / 4), \qquad
      B = M^\top C^{-1} X,$$

    where $C$ is $c I$, or diagonal with a variance for each row. Averaged over $X \sim q^*$ this is
    $KL[q^* \| \tilde q] \ge 0$ (Moore 2016, eq. 6, with $B$ in place of the symmetrized $A$). A
    single value is negative wherever $q^*$ is below its mixture.

    The error is that of the method, see `symlib.special.log_hyp0f1`. The terms are of the size of
    $\|B\|_*$ and cancel for X near an image of M. So they are not formed: X is turned to M first,
    see `rotation_log_mixture`.

    Args:
        X: A point, of shape (n, k); n may be below k.
        M: The mean of $q^*$, of shape (n, k).
        variance: The variance $c > 0$ of all entries, or a vector (n,) with one for each row.
        method: Name of a method of `symlib.special.log_hyp0f1`.

    Raises:
        ValueError: The shapes do not fit, `X` or `M` holds integers or is not finite, `variance` is
            not positive and finite, or the method is unknown.
        RuntimeError: A traced value is such.

    References:
        Moore (2016), section 3.2 and Appendix A.
    """
    X, M, variance, dtype = _checked(X, M, variance)
    turned, gap = _turned(X, M, variance, method)
    # The difference of two squares, both small where the value is.
    value = jnp.sum((turned - X) / variance * (turned + X - 2 * M)) / 2 - gap
    return value.astype(dtype)


def rotation_log_mixture(
    X: Float[ArrayLike, "n k"],
    M: Float[ArrayLike, "n k"],
    variance: Real[ArrayLike, "..."],
    method: str = "calibrated",
) -> Float[Array, ""]:
    r"""Return $\log\tilde q(X)$ in nats, for the mixture of a Gaussian around $M$ over rotations.

    With $B = M^\top C^{-1} X = U \Sigma V^\top$ and the rotation $T = U V^\top$ that turns X
    nearest to M,

    $$\log\tilde q(X) = \log q^*(X T^\top) + \log {}_0F_1(k/2; B B^\top / 4) - \sum_i \sigma_i.$$

    No digits are lost where X is far from M and near one of its images, which the difference
    of $\log q^*(X)$ and the log ratio would do.

    Args, range and errors as in `rotation_log_ratio`.
    """
    X, M, variance, dtype = _checked(X, M, variance)
    turned, gap = _turned(X, M, variance, method)
    logs = jnp.log(2 * math.pi * jnp.broadcast_to(variance, M.shape))
    value = gap - jnp.sum((turned - M) ** 2 / variance + logs) / 2
    return value.astype(dtype)


def printed_log_ratio(
    X: Float[ArrayLike, "n k"],
    M: Float[ArrayLike, "n k"],
    variance: Real[ArrayLike, "..."],
    method: str = "moore",
) -> Float[Array, ""]:
    r"""Return what Moore's Listing 1 computes. For comparison only: it is wrong in two ways.

    $$\mathrm{tr}\,A - \log {}_0F_1(k/2; A A^\top / 4), \qquad
      A = \frac{M^\top X + X^\top M}{2 c}.$$

    First, $A$ is the symmetric part of $B = M^\top X / c$, but the trace of $B T^\top$ for a $T$
    that is not symmetric needs all of $B$. This makes the value too large, or leaves it, for every
    X: $\log {}_0F_1$ is convex and the same for $B$ and $B^\top$. Second, the Laplace approximation
    of ${}_0F_1$ (eq. 7) is printed with a product over all (i, j) in place of $i \le j$: the
    method `"moore"`. With `method="calibrated"` only the first error is left.

    Args:
        X: A point, of shape (n, k).
        M: The mean of $q^*$, of shape (n, k).
        variance: The variance $c > 0$, or one for each row.
        method: Name of a method of `symlib.special.log_hyp0f1`.

    Raises:
        ValueError: As `rotation_log_ratio`.
        RuntimeError: A traced value is such.

    References:
        Moore (2016), Appendix A: below eq. 6, eq. 7 and Listing 1.
    """
    X, M, variance, dtype = _checked(X, M, variance)
    with jax.default_matmul_precision("highest"):
        B = (M / variance).T @ X
        A = (B + B.T) / 2
        sigma = singular_values(A)
    return (jnp.trace(A) - log_hyp0f1(sigma, method)).astype(dtype)


def rotation_log_ratio_bound(
    X: Float[ArrayLike, "n k"], weights: Float[ArrayLike, "n k"], method: str = "calibrated"
) -> Float[Array, ""]:
    r"""Return $\mathrm{tr}\,B - \log {}_0F_1(k/2; B B^\top / 4)$, $B = W^\top X$, in nats.

    Let $q^*$ be a Gaussian with any variances, a matrix $S$. The mean over $X \sim q^*$ is at most
    $KL[q^* \| \tilde q]$, whatever the weights W are. Proof: let T be uniform on O(k) and
    $X' = X T$, a draw from $\tilde q$. Then $KL[q^* \| \tilde q] = E \log p(T | X')$, with
    densities relative to the uniform law. Any other density $r(T | X')$ has
    $E \log r(T | X') = E \log p(T | X') - E\,KL[p \| r]$. Take the matrix Langevin law,
    $r \propto e^{\mathrm{tr}\,W^\top X' T^\top}$: with $X' = X T$ its log is the expression above.

    If all variances of a row are equal, $r = p$ for $W = M / S$, and this is `rotation_log_ratio`.
    Otherwise see `symlib.posteriors` for the gap. The expression is differentiable in `X` and
    in `weights`, free parameters that can be trained like the others. For k above 3 the error of
    the method comes on top: see `symlib.special.log_hyp0f1`.

    Args:
        X: A draw from $q^*$, of shape (n, k).
        weights: The matrix W, of shape (n, k), which may not depend on the draw. A good choice is
            `langevin_weights`.
        method: Name of a method of `symlib.special.log_hyp0f1`.

    Raises:
        ValueError: The shapes do not fit, $B$ is not finite, or the method is unknown.
        RuntimeError: A traced value is such.

    References:
        Barber and Agakov (2003), The IM algorithm, for any mutual information. Its use here is
        ours.
    """
    X = floating_leaves("X", X)
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"{caller()}: X has to have shape (n, k), got {X.shape}.")
    weights = array_shape("weights", weights, X.shape)
    # A small relative error of B is a large one of the difference: accelerators that round the
    # factors of a product in float32 to ten bits may not do so here.
    X, dtype = X.astype(at_least_single(X.dtype)), X.dtype
    with jax.default_matmul_precision("highest"):
        B = weights.T.astype(X.dtype) @ X
        sigma = singular_values(B)
    return (jnp.trace(B) - log_hyp0f1(sigma, method)).astype(dtype)


def langevin_weights(M: Float[ArrayLike, "n k"], S: Float[ArrayLike, "n k"]) -> Float[Array, "n k"]:
    r"""Return weights for `rotation_log_ratio_bound`: M divided by the mean variance of each row.

    $W_{ij} = M_{ij} / \bar s_i$ with $\bar s_i = \frac1k \sum_j S_{ij}$. Then $W^\top M$ is
    symmetric and positive, so that for X near M the law $r(T | X)$ has its mode near the truth,
    $T = I$. The choice $M / S$, which comes to mind first, does not ensure this.

    Args:
        M: Means, of shape (n, k).
        S: Variances, of shape (n, k).

    Raises:
        ValueError: `M` and `S` have different shapes or hold integers, or an entry of `S` is not
            positive and finite.
        RuntimeError: A traced value is such.
    """
    M, S = floating_leaves("M", M), floating_leaves("S", S)
    S = array_shape("S", S, M.shape)
    message = f"{caller()}: the variances S have to be positive and finite."
    S = refuse_if(S, ~((S > 0) & jnp.isfinite(S)), message)
    return M / jnp.mean(S, axis=1, keepdims=True)


def stack_rows(tree: PyTree[Float[Array, "..."]]) -> Float[Array, "n k"]:
    """Stack the rows of all leaves, whose last axes have the same length: (U, V) as one X.

    Args:
        tree: An array or a pytree of arrays with at least one axis.

    Raises:
        ValueError: There is no leaf, a leaf is a scalar, or the last axes differ.
    """
    leaves = jax.tree.leaves(floating_leaves("tree", tree))
    shapes = [leaf.shape for leaf in leaves]
    if len({shape[-1:] for shape in shapes}) != 1 or 0 in map(len, shapes):
        raise ValueError(
            f"{caller()}: the leaves have to share the length of the last axis, got {shapes}."
        )
    return jnp.concatenate([leaf.reshape(-1, leaf.shape[-1]) for leaf in leaves])


def _checked(X, M, variance):
    """Return X, M and the variance, of shape (n, 1), of float32 at least, and the dtype."""
    X, M = floating_leaves("X", X), floating_leaves("M", M)
    if M.ndim != 2 or 0 in M.shape or X.shape != M.shape:
        raise ValueError(
            f"{caller()}: X and M have to have the same shape (n, k) with n and k at least 1, "
            f"got {X.shape} and {M.shape}."
        )
    variance = jnp.asarray(variance)
    if variance.shape not in [(), M.shape[:1]]:
        raise ValueError(
            f"{caller()}: variance has to be a scalar or have shape {M.shape[:1]}, one for "
            "each row, "
            f"got {variance.shape}; for a variance for each entry see "
            "symlib.posteriors.rotation_kl_bound."
        )
    dtype = jnp.result_type(X, M)
    X, M, variance = (a.astype(at_least_single(dtype)) for a in (X, M, variance))
    good = jnp.all((variance > 0) & jnp.isfinite(variance))
    good = good & jnp.all(jnp.isfinite(X)) & jnp.all(jnp.isfinite(M))
    message = f"{caller()}: variance has to be positive and finite, X and M have to be finite."
    variance = jnp.broadcast_to(refuse_if(variance, ~good, message), M.shape[:1])
    return X, M, variance[:, None], dtype


def _turned(X, M, variance, method):
    """Return X turned to M, and the scaled logarithm of the mean over rotations."""
    with jax.default_matmul_precision("highest"):
        B = (M / variance).T @ X
        sigma = singular_values(B)
        left, _, right = jnp.linalg.svd(jax.lax.stop_gradient(B), full_matrices=False)
        turn = left @ right
        turned = X @ turn.T
        # The same numbers column by column: those that are small beside the largest have digits.
        refined = jax.lax.stop_gradient(jnp.sum((M @ left) * (X @ right.T) / variance, axis=0))
    # The rotation stands still in derivatives. The first ones are right, since the value does not
    # depend on it; second ones need this term, whose value and slope are 0.
    still = jnp.sum(sigma) - jnp.sum(B * turn)
    sigma = sigma + jax.lax.stop_gradient(jnp.abs(refined) - sigma)
    gap = log_hyp0f1_scaled(sigma, method) + jnp.sum(jnp.abs(refined) - refined)
    return turned, gap + still - jax.lax.stop_gradient(still)
