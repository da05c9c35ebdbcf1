r"""How much a base density over a network gains by symmetrization: exact values and bounds.

Symmetrizing a base $q$ over the hidden permutations $G$ adds $I = KL[q \| q^G] \ge 0$ to its
evidence bound (Gelberg et al. 2024; Moore 2016, eq. 5), and
$q^G(\omega) = \frac1{|G|} \sum_g q(g^{-1} \cdot \omega)$ has too many terms to add up. Each of
these functions returns, for one draw $\omega \sim q$, a term whose mean over draws is $I$ or a
bound of it:

- `symlib.special.permutation_log_ratio`: $I$ itself, for one hidden layer of up to 15 units.
- `block_log_ratio`, `sampled_log_ratio`: **lower** bounds of $I$, which keep the evidence bound a
  bound.
- `sampled_log_ratio_upper`: an **upper** bound of $I$. It shows how far a lower bound can be off
  and must not be used in an evidence bound.

**Why the first two are lower bounds.** Let $H$ be the entropy. For any list of elements
$s_1, \dots, s_K$ the mixture $m = \frac1K \sum_k q(s_k^{-1} \cdot \omega)$ has $H(m) \le H(q^G)$:
$q^G$ is the mixture of all $m(g^{-1} \cdot \omega)$, which have the entropy of $m$, and entropy is
concave. And $H(m) - H(q)$ is the mean, over $\omega \sim q$ and k uniform, of
$\log q(\omega) - \log \frac1K \sum_j q(s_j^{-1} s_k \cdot \omega)$. If the list is a subgroup,
every k gives the same mean. If it was drawn uniformly, with replacement or without, so does every
k, and $s_k^{-1} s_j$ has the law of the list itself, with the identity in place k.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from symlib._checks import caller, positive_integer, refuse_if, scalar
from symlib.groups import Group, HiddenPermutation, hidden_widths, unit_log_densities
from symlib.groups._told import told
from symlib.groups.group import identity_first
from symlib.groups.hidden_units import unit_moments
from symlib.posteriors.gaussian import Gaussian
from symlib.special import permutation_log_ratio


def block_log_ratio(
    base: Gaussian, z: PyTree, blocks: Array | Sequence[Array | None]
) -> Float[Array, ""]:
    r"""Return a term whose mean is a **lower** bound of $I$, from permutations within blocks.

    The permutations that keep every block of units to itself form a subgroup, $S_b^m$ for m blocks
    of b units in a layer. Its mixture factorises over the blocks, so that the term is the sum of
    `permutation_log_ratio` over them, at a cost of $m b^2$ + $m b \, 2^b$. Blocks of two are
    disjoint transpositions. The mean over draws is at most $m \log b!$: for 30 units, 10.4 nats in
    15 pairs and 32.9 in five blocks of six.

    **Several layers** go into one call. The weights between two adjacent layers with blocks count
    for the lower of the two only: the rows of the upper one come without their incoming weights.
    Proof: let $h = (h_1, \dots, h_{L-1})$ be uniform in the product of the subgroups and
    $\omega' = h \cdot \omega$. The gain of the product is the mutual information of $h$ and
    $\omega'$, at most I, and by the chain rule the sum over the layers of the information on $h_l$
    given $h_{l+1}, \dots, h_{L-1}$. Undo these: the outgoing weights and the biases of layer l
    are then moved by $h_l$ alone, and so are its incoming weights unless layer $l - 1$ has
    blocks. What this part of $\omega'$ tells of $h_l$ is at most all of it, and is the mean of the
    term.

    Do not add up calls for single layers that are adjacent: each counts the weights between them,
    and the sum can exceed I. With widths (2, 2), a diagonal matrix between the layers and nothing
    else that tells units apart, only $h_2 h_1$ leaves a trace: I is $\log 2$, and so is each of
    the two single gains. Layers that are not adjacent share nothing, and the sum of their calls
    is what one call returns.

    The direction holds for any blocks, also ones that follow the base, as long as they do not
    depend on the draw.

    Args:
        base: A Gaussian with independent entries over the parameters of a network.
        z: A draw $\omega$ from the base.
        blocks: The units of each block, an integer array (blocks, units), from 0 to d - 1, no unit
            twice. Units may be left out. For a network with several hidden layers, a list or tuple
            with one such array for each of them, None for a layer that is left out.

    Raises:
        ValueError: A shape is wrong, the layers of the network and the blocks differ in number, or
            a block holds more than 15 units; a unit stands twice, or is none of 0, ..., d - 1.
        RuntimeError: A traced value is such.
    """
    widths = hidden_widths(base.mean)
    layers = list(blocks) if isinstance(blocks, list | tuple) else [blocks]
    if len(layers) != len(widths) or all(layer is None for layer in layers):
        raise ValueError(
            f"{caller()}: the network has hidden layers of widths {widths}; give blocks for "
            f"one or more in a list with an entry for each, None for none, got {len(layers)}."
        )
    total = 0
    for layer, units in enumerate(layers):
        if units is None:
            continue
        units = jnp.asarray(units)
        if units.ndim != 2 or not jnp.issubdtype(units.dtype, jnp.integer):
            raise ValueError(
                f"{caller()}: blocks has to be an integer array (blocks, units), got {units}."
            )
        units = _disjoint(units, widths[layer])
        # Between two layers with blocks the lower one has the weights.
        incoming = layer == 0 or layers[layer - 1] is None
        log_densities = unit_log_densities(base, z, layer, incoming=incoming)
        of_block = jax.vmap(lambda b, A=log_densities: permutation_log_ratio(A[jnp.ix_(b, b)]))
        total += jnp.sum(of_block(units))
    return total


def unit_blocks(base: Gaussian, size: int, *, layer: int = 0) -> Int[Array, "m size"]:
    r"""Return disjoint blocks of units of one hidden layer, near units together.

    Greedy: the closest two of the units left open a block, and the unit closest to one of its
    members joins until it is full. The distance is $|m_i - m_j|^2 / (s_i + s_j)$, summed over the
    entries of two rows. When d is no multiple of the size the last units are left out.

    Near units are where the base and its permuted copies overlap, hence where the gradient of the
    bound is. The result carries no gradient itself.

    Args:
        base: A Gaussian over the parameters of a network.
        size: Units in a block.
        layer: The hidden layer, counted from 0.

    Raises:
        ValueError: The base is no network, or the layer has fewer units than `size`.
    """
    size = positive_integer("size", size)
    means, variances = unit_moments(base, layer)
    d = len(means)
    if size > d:
        raise ValueError(f"{caller()}: size has to be at most {d}, the width, got {size}.")
    difference = (means[:, None] - means) ** 2 / (variances[:, None] + variances)
    distance = jnp.where(jnp.eye(d, dtype=bool), jnp.inf, jnp.sum(difference, axis=2))

    largest = jnp.finfo(distance.dtype).max

    def block(free, _):
        def join(carry, place):
            free, member, nearest = carry
            # The first member is one end of the shortest distance between two free units.
            open_pairs = jnp.where(free[:, None] & free, distance, jnp.inf)
            scores = jnp.where(place == 0, jnp.min(open_pairs, axis=1), nearest)
            # A free unit, even where no distance is finite: the last one alone has none.
            unit = jnp.argmin(jnp.where(free, jnp.minimum(scores, largest), jnp.inf))
            nearest = jnp.minimum(nearest, distance[unit])
            return (free.at[unit].set(False), member.at[place].set(unit), nearest), None

        start = free, jnp.zeros(size, int), jnp.full(d, jnp.inf, distance.dtype)
        (free, member, _), _ = jax.lax.scan(join, start, jnp.arange(size))
        return free, member

    return jax.lax.scan(block, jnp.ones(d, bool), None, length=d // size)[1]


def sampled_log_ratio(
    key: PRNGKeyArray,
    base: Gaussian,
    group: Group,
    z: PyTree,
    num_elements: int,
    *,
    replace: bool = True,
) -> Float[Array, ""]:
    r"""Return a term whose mean is a **lower** bound of $I$, from K elements with the identity.

    $$\log q(\omega) - \log \frac1K \Big(q(\omega) + \sum_{j=1}^{K-1} q(g_j^{-1} \cdot
    \omega)\Big),$$

    with $g_j$ uniform in $G$. It is the estimator of Gelberg et al. (2024) and holds for any
    compact group. Each term is at most $\log K$, however many elements the group has. Without
    replacement the elements and the identity are all different; the bound is then at least as
    large, and K up to $|G|$ gives $I$ itself.

    Args:
        key: Random key for the elements.
        base: The base density $q$.
        group: A group that acts on the points of the base.
        z: A draw $\omega$ from the base.
        num_elements: K, with the identity counted.
        replace: Whether an element may be drawn twice. False needs a group that can be listed.

    Raises:
        ValueError: K is below 1, or above the order of the group without replacement; the group
            is not compact or too large to list; the shapes do not match.

    References:
        Gelberg et al. (2024); Poole et al. (2019), On variational bounds of mutual information.
    """
    count = positive_integer("num_elements", num_elements)
    log_weight = _log_weight(base, group, z)
    if replace:
        elements = jax.vmap(group.sample)(jax.random.split(key, count - 1))
    else:
        if count > group.order:
            raise ValueError(
                f"{caller()}: {group} has {group.order} elements, fewer than the "
                f"{count} asked for without replacement."
            )
        everything = identity_first(group)
        rows = 1 + jax.random.permutation(key, group.order - 1)[: count - 1]
        elements = jax.tree.map(lambda leaf: leaf[rows], everything)
    if count == 1:
        return log_weight(group.identity())  # 0 up to rounding
    weights = jax.vmap(log_weight)(elements)
    return math.log(count) - logsumexp(jnp.append(weights, jnp.zeros_like(weights[0])))


def sampled_log_ratio_upper(
    key: PRNGKeyArray, base: Gaussian, group: Group, z: PyTree, num_elements: int
) -> Float[Array, ""]:
    r"""Return a term whose mean is an **upper** bound of $I$, from K elements drawn uniformly.

    $$\log q(\omega) - \log \frac1K \sum_{j=1}^K q(g_j^{-1} \cdot \omega),$$

    without the identity among them. By Jensen's inequality the mean is at least $I$, so adding it
    to an evidence bound gives no bound. It falls to $I$ as K grows; while K is far below the order
    of the group it can be too large by any amount.

    Args and errors as in `sampled_log_ratio`.
    """
    count = positive_integer("num_elements", num_elements)
    log_weight = _log_weight(base, group, z)
    elements = jax.vmap(group.sample)(jax.random.split(key, count))
    return math.log(count) - logsumexp(jax.vmap(log_weight)(elements))


def _disjoint(blocks, width):
    blocks = jnp.asarray(blocks, int)  # the width may be beyond a small integer
    count = jnp.zeros(width, int).at[blocks].add(1, mode="drop")
    wrong = (blocks < 0) | (blocks >= width) | jnp.any(count > 1)
    message = f"{caller()}: the units have to be different and of 0, ..., {width - 1}."
    return refuse_if(blocks, wrong, message)


def _log_weight(base, group, z):
    """Return the function g -> log q(g^-1 z) - log q(z)."""
    # The short cut is for the group's own action: a subclass may act in another way.
    hidden = isinstance(group, HiddenPermutation) and group.acts_as(HiddenPermutation)
    if hidden and len(group.widths) == 1 and told(base, "variances") is not None:
        # A permutation only chooses among d^2 numbers: no network is moved.
        log_densities = unit_log_densities(base, group.check_point(z))
        units = jnp.arange(len(log_densities))
        identity = jnp.trace(log_densities)
        return lambda g: jnp.sum(log_densities[units, g[0]]) - identity

    def log_prob(z):
        return scalar("log_prob of the base", base.log_prob(z))

    reference = log_prob(z)
    return lambda g: log_prob(group.act(group.inverse(g), z)) - reference
