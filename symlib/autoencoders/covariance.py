"""The best Gaussian posterior at a given curvature: its precision and its covariance."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, ArrayLike, Float

from symlib._checks import caller, full_precision, positive, refuse_if


def optimal_precision(curvature: Float[Array, "..."], beta: ArrayLike) -> Float[Array, "d d"]:
    r"""Return $K = I + C / \beta$, the best Gaussian's precision (Kumar & Poole 2020, eqs. 9, 11).

    Args:
        curvature: $C$, shape (d, d), symmetric and finite, as `curvature` returns it.
        beta: The weight of the divergence, above 0.

    Raises:
        ValueError: An argument is not as stated, or $K$ is not positive definite: the objective
            then has no minimum.
    """
    return precision_and_cholesky(curvature, beta)[0]


def optimal_covariance(curvature: Float[Array, "..."], beta: ArrayLike) -> Float[Array, "d d"]:
    r"""Return $\Sigma = K^{-1}$, the covariance of the best Gaussian posterior.

    The arguments and the errors are those of `optimal_precision`.

    Example:
        >>> import jax.numpy as jnp
        >>> optimal_covariance(jnp.diag(jnp.array([0.0, 3.0])), beta=1.0).tolist()
        [[1.0, 0.0], [0.0, 0.25]]
    """
    K, factor = precision_and_cholesky(curvature, beta)
    return cho_solve((factor, True), jnp.eye(len(K), dtype=K.dtype))


def precision_and_cholesky(curvature, beta):
    beta = positive("beta", beta)
    if curvature.ndim != 2 or curvature.shape[0] != curvature.shape[1]:
        raise ValueError(f"{caller()}: expected a square matrix, got shape {curvature.shape}.")
    full_precision("the curvature", curvature)
    K = jnp.eye(len(curvature), dtype=curvature.dtype) + curvature / beta
    factor = jnp.linalg.cholesky(K)  # NaN if K is not positive definite
    size = jnp.max(jnp.abs(curvature))
    # Twice differentiated networks are symmetric to about 1e-5 in float32; a triangular factor
    # given in place of C is not at all.
    skewed = jnp.max(jnp.abs(curvature - curvature.T)) > 1e-2 * size
    diagonal = jnp.diagonal(K)
    # What the columns before leave of each diagonal entry. Rounding in K is eps of the entry, so
    # below 300 eps the rest is wrong by a third of a per cent or more: latents are redundant.
    rest = jnp.diagonal(factor) ** 2 / diagonal
    lost_digits = jnp.min(rest) < 300 * jnp.finfo(K.dtype).eps
    messages = [
        f"{caller()}: the curvature holds NaN or infinity; look at the decoder's output and "
        "derivatives there.",
        f"{caller()}: the curvature has to be a symmetric matrix.",
        f"{caller()}: I + C / beta is not positive definite, so that there is no best covariance. "
        "Take a larger beta, or hessian='gauss-newton'. With that, latents are redundant to the "
        "last digit: take a larger beta, or float64.",
        f"{caller()}: latents are redundant, so that I + C / beta is too ill-conditioned for its "
        "precision. Take a larger beta, or float64.",
    ]
    lost = ~(jnp.max(diagonal) < jnp.inf) | ~(size < jnp.inf)
    failed = jnp.isnan(factor).any()
    index = jnp.where(lost, 0, jnp.where(skewed, 1, jnp.where(failed, 2, 3)))
    wrong = lost | skewed | failed | lost_digits
    if isinstance(wrong, jax.core.Tracer):
        return K, eqx.branched_error_if(factor, wrong, index, messages)
    return K, refuse_if(factor, wrong, messages[int(index)])
