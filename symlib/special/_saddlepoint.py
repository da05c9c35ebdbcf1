"""Published saddlepoint approximations of log 0F1: one checked spectrum of shape (k,), any k."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def _laplace_terms(sigma):
    """Return the exponent of Butler and Wood and log(1 - y_i^2 y_j^2) for all (i, j)."""
    k = sigma.shape[0]
    u = 2 * sigma / k
    root = jnp.sqrt(1 + u**2)
    half = jnp.log1p(u**2 / (root + 1) / 2)  # -log(1 - y^2), y = u / (root + 1)
    exponent = jnp.sum(sigma * u / (root + 1) - k / 2 * half)
    mean = jnp.log1p((u**2 / (root + 1))[:, None] / 2 + (u**2 / (root + 1)) / 2)
    return exponent, mean - half[:, None] - half


def laplace(sigma: Float[Array, " k"]) -> Float[Array, ""]:
    """Return the approximation of Butler and Wood (2003), with the product over i <= j."""
    exponent, pairs = _laplace_terms(sigma)
    return exponent - (jnp.sum(pairs) + jnp.sum(jnp.diagonal(pairs))) / 4


def moore(sigma: Float[Array, " k"]) -> Float[Array, ""]:
    """Return the approximation as Moore (2016, eq. 7) prints it, with the product over all i, j."""
    exponent, pairs = _laplace_terms(sigma)
    return exponent - jnp.sum(pairs) / 2


def saddlepoint(sigma: Float[Array, " k"]) -> Float[Array, ""]:
    """Return the second-order saddlepoint approximation of Kume, Preston and Wood (2013)."""
    # X = diag(sigma) + noise, S = X X^T: 0F1 is the ratio of the noncentral and the central
    # density of S at the identity, times e^{|sigma|^2 / 2}. The central one is known, the other is
    # inverted from K(Theta) = log E e^{tr Theta S} at Theta = diag((1 - w) / 2), where p = 1 / w.
    k = sigma.shape[0]
    i, j = np.triu_indices(k)
    root = jnp.sqrt(k**2 + 4 * sigma**2)
    w = (k + root) / 2
    p = 1 / w
    exponent = jnp.sum(sigma**2 * p / 2 - (1 - w) / 2 - k / 2 * jnp.log(w))
    # Curvature of K in the direction e_i e_j^T + e_j e_i^T; half of that for i = j. The variable
    # dual to S_ij is 2 Theta_ij, hence the log 2.
    curvature = 2 * (root[:, None] + root) * p[:, None] * p
    curvature = curvature * (1 - jnp.eye(k, dtype=sigma.dtype) / 2)
    log_density = exponent - jnp.sum(jnp.log(2 * jnp.pi * curvature[i, j])) / 2
    log_density += k * (k - 1) / 2 * math.log(2)
    gammas = k * (k - 1) / 4 * math.log(math.pi) + sum(math.lgamma((k - n) / 2) for n in range(k))
    log_central = -k / 2 - k**2 / 2 * math.log(2) - gammas
    # Next order, E K_4 / 24 - E K_3^2 / 72 over symmetric Gaussian matrices of variance v.
    v = 1 / curvature
    q = 48 * (4 - 3 * k * p)
    fourth = jnp.einsum("a,b,a,d,ab,ad->", q, p, p, p, v, v)
    fourth += jnp.einsum("a,b,c,b,ab,bc->", q, p, p, p, v, v)
    fourth += jnp.einsum("a,b,a,b,ab,ab->", q, p, p, p, v, v)
    pp = p[:, None] * p
    third = 8 * (pp[:, :, None] + pp[:, None, :] + pp[None, :, :])
    third -= 16 * k * pp[:, :, None] * p
    loops = jnp.einsum("aab,ab->a", third, v)
    squares = 9 * jnp.einsum("aa,a,a->", v, loops, loops)
    squares += 6 * jnp.einsum("abc,abc,ab,bc,ca->", third, third, v, v, v)
    return log_density - log_central + fourth / 24 - squares / 72
