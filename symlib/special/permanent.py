r"""The permanent of a matrix of positive numbers, from their logarithms.

For independent things, $q(z) = \prod_i q_i(z_i)$, the mixture over all relabellings is one:
$\frac1{n!} \sum_g \prod_i q_i(z_{g(i)}) = \mathrm{perm}[q_i(z_j)] / n!$.
"""

import math
from functools import lru_cache
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from symlib._checks import caller, full_precision

# The work and the memory grow as n 2^n: n = 15 asks for 245,760 numbers a matrix and takes
# milliseconds; each step of 1 doubles it, and batches multiply it.
MAX_SIZE = 15


def log_permanent(log_matrix: Float[Array, "..."]) -> Float[Array, ""]:
    r"""Return $\log \sum_g \prod_i \exp A_{i g(i)}$ over all permutations of n things.

    A sum over subsets, $f(S) = \sum_{j \in S} e^{A_{|S| j}} f(S \setminus \{j\})$, needs
    $n 2^{n-1}$ multiplications in place of $n \cdot n!$ (Ryser 1963, chapter 2, on the cost). All
    terms are positive: the error is some n roundings of the logarithms. The derivative with respect
    to $A_{ij}$ is the share of the permutations with $g(i) = j$; all orders exist, also where some
    entries are 0, but not where no permutation avoids the zeros, and the value is minus infinity.

    Args:
        log_matrix: Logarithms $A$ of the entries, shape (n, n) with n at most 15, in float32 or
            float64; minus infinity stands for an entry of 0. NaN stays NaN.

    Raises:
        ValueError: The matrix is not as stated.
    """
    log_matrix = full_precision("log_matrix", log_matrix)
    if log_matrix.ndim != 2 or log_matrix.shape[0] != log_matrix.shape[1]:
        raise ValueError(f"{caller()}: expected a square matrix, got {log_matrix.shape}.")
    size = len(log_matrix)
    if not 1 <= size <= MAX_SIZE:
        raise ValueError(
            f"{caller()}: the size has to be 1, ..., {MAX_SIZE}, got {size}: the cost grows as "
            "n 2^n. symlib.posteriors has bounds for more units."
        )
    return _over_subsets(log_matrix)


def permutation_log_ratio(log_densities: Float[Array, "..."]) -> Float[Array, ""]:
    r"""Return $\log q(\omega) - \log q^G(\omega)$ for the permutations of one hidden layer.

    With the rows $n_j$ of the units, $q^G / q = \mathrm{perm}[q_i(n_j)] / (d! \prod_i q_i(n_i))$.
    Exact up to rounding, at a cost of $d \, 2^d$. Its mean over draws of the base lies between 0
    and $\log d!$. Values of adjacent layers, which share weights, must not be added: the sum is too
    large, and `symlib.posteriors.block_log_ratio` takes several layers.

    Args:
        log_densities: The matrix $\log q_i(n_j)$, (d, d), of `symlib.groups.unit_log_densities`.

    Raises:
        ValueError: As `log_permanent`.
    """
    value = log_permanent(log_densities)
    return jnp.trace(jnp.asarray(log_densities)) - value + math.lgamma(len(log_densities) + 1)


@jax.jit  # one compilation for a size; called one by one the steps would compile for seconds
def _over_subsets(log_matrix):
    values = jnp.zeros(1, log_matrix.dtype)
    for row, (columns, rests) in zip(log_matrix, _subsets(len(log_matrix)), strict=True):
        values = _log_sum(row[columns] + values[rests])
    return values[0]


def _log_sum(terms):
    """Return log sum exp over the last axis, with slope 0 (JAX has NaN) where all terms are 0."""
    largest = jax.lax.stop_gradient(jnp.max(terms, axis=-1))  # any constant gives the same sum
    shift = jnp.where(jnp.isfinite(largest), largest, 0)
    total = jnp.sum(jnp.exp(terms - shift[..., None]), axis=-1)
    empty = total == 0  # False for NaN, which stays
    return jnp.where(empty, -jnp.inf, jnp.log(jnp.where(empty, 1, total)) + shift)


@lru_cache
def _subsets(size):
    """Return, for each number of elements, the columns of every subset and where its rests are."""
    tables, before = [], {(): 0}
    for count in range(1, size + 1):
        subsets = list(combinations(range(size), count))
        rests = [[before[s[:i] + s[i + 1 :]] for i in range(count)] for s in subsets]
        tables.append((np.array(subsets, np.int32), np.array(rests, np.int32)))
        before = {subset: i for i, subset in enumerate(subsets)}
    return tables
