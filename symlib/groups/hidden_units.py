r"""The permutations of hidden units, which no output of a multilayer network notices.

Number the units of a hidden layer differently and take their incoming weights, biases and outgoing
weights along: the network computes the same function. For hidden widths $d_1, \dots, d_{L-1}$ these
relabellings form $G = S_{d_1} \times \dots \times S_{d_{L-1}}$ (Gelberg et al. 2024, section 2).

The point is the parameter pytree. It is `equinox.filter(mlp, equinox.is_inexact_array)` of an
`equinox.nn.MLP`, or a tuple or list of layers. A layer is any pytree with one matrix of weights,
shape (out, in), and any number of vectors of length out: an `equinox.nn.Linear`, a pair (W, b), a
dict, or the matrix alone.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from symlib._checks import caller, floating_leaves, like
from symlib.groups._told import told
from symlib.groups.finite import Permutation
from symlib.groups.group import log_sum
from symlib.groups.product import Product
from symlib.special.permanent import MAX_SIZE, log_permanent, permutation_log_ratio


class HiddenPermutation(Product):
    r"""The group $S_{d_1} \times \dots \times S_{d_{L-1}}$ of hidden units (Gelberg et al. 2024).

    An element is a tuple with one permutation for each hidden layer, as `Permutation` has them:
    unit i of the layer moves to place `g[i]`. With permutation matrices $P_l$, and $P_0$, $P_L$
    identities, the weights become $P_l W_l P_{l-1}^\top$ and the biases $P_l b_l$.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from symlib import HiddenPermutation
    >>> network = [jnp.array([[1.0], [2.0]]), jnp.array([[3.0, 4.0]])]  # 1 input, 2 units, 1 output
    >>> (exchanged,) = HiddenPermutation(2).act((jnp.array([1, 0]),), network)[1]
    >>> print(exchanged)
    [4. 3.]

    Args:
        *widths: The number of units of each hidden layer, from the input to the output.

    Raises:
        ValueError: There is no hidden layer, or a width is no integer of at least 1.
    """

    def __init__(self, *widths: int):
        super().__init__(*(Permutation(width) for width in widths))

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of units of each hidden layer."""
        return tuple(group.n for group in self.groups)

    def __repr__(self) -> str:
        return f"HiddenPermutation{self.widths}".replace(",)", ")")

    def check_point(self, z):
        z = floating_leaves("z", z)
        found = hidden_widths(z)
        if found != self.widths:
            raise ValueError(
                f"{caller()}: the network has hidden layers of widths {found}, not {self.widths}."
            )
        return z

    def act(self, g, z):
        layers, join = split_layers(self.check_point(z))
        # Place j of a permuted layer holds the unit that came from there.
        origins = [None, *self.inverse(g), None]

        def permute(leaf, incoming, outgoing):
            leaf = leaf if outgoing is None else leaf[outgoing]
            return leaf if leaf.ndim == 1 or incoming is None else leaf[:, incoming]

        return join(
            [
                jax.tree.map(lambda leaf, i=i, o=o: permute(leaf, i, o), layer)
                for layer, i, o in zip(layers, origins[:-1], origins[1:], strict=True)
            ]
        )

    def log_ratio(self, base, z):
        r"""Return $\log q^*(z) - \log\tilde q(z)$ in nats: a permanent for one hidden layer.

        For a Gaussian with independent entries and at most 15 units. Otherwise it is the sum over
        all elements.

        Raises:
            ValueError: `z` has a wrong shape, or there are too many elements to sum over.
        """
        if not self._has_permanent(base):
            return super().log_ratio(base, z)
        return permutation_log_ratio(unit_log_densities(base, self._point(base, z)))

    def log_mixture(self, base, z):
        r"""Return $\log\tilde q(z)$ in nats, of the permanent itself where there is one.

        All its terms are positive, so that no digits are lost far from the base. Raises as
        `log_ratio` does.
        """
        if type(self).log_ratio is not HiddenPermutation.log_ratio:
            return super().log_mixture(base, z)
        if not self._has_permanent(base):
            return log_sum(self, base, z)
        z = self._point(base, z)
        log_densities = unit_log_densities(base, z)
        # The biases of the output do not move.
        point, mean, variance = map(_output_biases, (z, base.mean, told(base, "variances")))
        still = -0.5 * jnp.sum((point - mean) ** 2 / variance + jnp.log(2 * math.pi * variance))
        return still + log_permanent(log_densities) - math.lgamma(len(log_densities) + 1)

    def _has_permanent(self, base):
        one = len(self.widths) == 1 and self.widths[0] <= MAX_SIZE
        return one and self.acts_as(HiddenPermutation) and told(base, "variances") is not None

    def _point(self, base, z):
        return like("z", self.check_point(z), base.mean)


def hidden_widths(z: PyTree) -> tuple[int, ...]:
    """Return the widths of the hidden layers of a network, from the input to the output.

    Raises:
        ValueError: `z` is no network as the module describes it: a layer lacks its matrix, a
            vector has another length, or two layers do not fit together.
    """
    layers, _ = split_layers(floating_leaves("z", z))
    shapes = [_layer_shape(layer) for layer in layers]
    for (before, _), (_, after) in zip(shapes[:-1], shapes[1:], strict=True):
        if before != after:
            raise ValueError(
                f"{caller()}: a layer gives {before} numbers and the next one takes {after}."
            )
    return tuple(out for out, _ in shapes[:-1])


def unit_rows(z: PyTree, layer: int = 0, *, incoming: bool = True) -> Float[Array, "d p"]:
    r"""Return the parameters of each unit of one hidden layer, as the rows of a matrix.

    A row holds the incoming weights of the unit, its biases and its outgoing weights: what the
    unit takes along when it moves. Units of one layer share none of them. Units of two adjacent
    layers share the weights between them.

    Args:
        z: The parameters of a network.
        layer: The hidden layer, counted from 0.
        incoming: Whether the incoming weights are part of the rows.

    Raises:
        ValueError: `z` is no network, or has no such hidden layer.
    """
    widths = hidden_widths(z)
    if not 0 <= layer < len(widths):
        raise ValueError(f"{caller()}: layer has to be in 0, ..., {len(widths) - 1}, got {layer}.")
    layers, _ = split_layers(z)
    own = [leaf for leaf in jax.tree.leaves(layers[layer]) if incoming or leaf.ndim == 1]
    (weights,) = (leaf for leaf in jax.tree.leaves(layers[layer + 1]) if leaf.ndim == 2)
    return jnp.concatenate([*(leaf.reshape(widths[layer], -1) for leaf in own), weights.T], axis=1)


def unit_moments(
    base: eqx.Module, layer: int = 0, *, incoming: bool = True
) -> tuple[Float[Array, "d p"], Float[Array, "d p"]]:
    """Return the means and variances of a Gaussian, with a row for each unit as in `unit_rows`.

    Raises as `unit_rows` does, and ValueError if the base is no Gaussian with independent entries.
    """
    variances = told(base, "variances")
    if variances is None:
        raise ValueError(
            f"{caller()}: the units of a network are independent under an IsotropicGaussian or a "
            f"DiagonalGaussian, got {type(base).__name__}."
        )
    return tuple(unit_rows(tree, layer, incoming=incoming) for tree in (base.mean, variances))


def unit_log_densities(
    base: eqx.Module, z: PyTree, layer: int = 0, *, incoming: bool = True
) -> Float[Array, "d d"]:
    r"""Return the matrix $\log q_i(n_j)$: the law of unit i at the parameters of unit j, in nats.

    A Gaussian $q$ with independent entries factorises over the units, so that
    $\log q(g^{-1} \cdot \omega) - \log q(\omega) = \sum_i \log q_i(n_{g(i)}) - \log q_i(n_i)$
    for every permutation $g$ of this layer. Without the incoming weights the matrix is that of the
    remaining entries of each row.

    The matrix speaks of one layer. Do not add up what two adjacent layers gain: they share the
    weights between them. `symlib.posteriors.block_log_ratio` takes several layers.

    Args:
        base: An `IsotropicGaussian` or a `DiagonalGaussian` over the parameters of a network.
        z: A point.
        layer: The hidden layer, counted from 0.
        incoming: Whether the incoming weights of the units count.

    Raises:
        ValueError: The base is another one, it or `z` is no network or has no such layer, or their
            widths differ.
    """
    means, variances = unit_moments(base, layer, incoming=incoming)
    rows = unit_rows(z, layer, incoming=incoming)
    if rows.shape != means.shape:
        raise ValueError(
            f"{caller()}: z has to have units (number, parameters) {means.shape} as the "
            f"base has, got {rows.shape}."
        )

    # The squares are not multiplied out: with small variances the terms would cancel in float32.
    # One unit at a time, since the derivative of all at once spends its time in memory.
    def of_unit(moments):
        mean, variance = moments
        constant = jnp.sum(jnp.log(2 * math.pi * variance))
        return -0.5 * (jnp.sum((rows - mean) ** 2 / variance, axis=1) + constant)

    return jax.lax.map(of_unit, (means, variances))


def split_layers(z: PyTree) -> tuple[list, Callable[[list], PyTree]]:
    """Return the layers of a network, and the function that puts changed ones in their place."""
    if hasattr(z, "layers"):
        inside, everything = (len(jax.tree.leaves(tree)) for tree in (z.layers, z))
        if inside < everything:  # such as the slopes of a trained activation, one a unit
            raise ValueError(
                f"{caller()}: a {type(z).__name__} with arrays outside its layers, "
                f"{everything - inside} of them: a unit that moves would leave its share of them "
                "behind."
            )
        return list(z.layers), lambda layers: eqx.tree_at(lambda n: n.layers, z, tuple(layers))
    if not isinstance(z, tuple | list) or len(z) < 2:
        raise ValueError(
            f"{caller()}: a network has to be an equinox.nn.MLP or a tuple or list of two layers "
            f"or more, got {type(z).__name__}."
        )
    return list(z), jax.tree.structure(z, is_leaf=lambda part: part is not z).unflatten


def _output_biases(z):
    layers, _ = split_layers(z)
    vectors = [leaf for leaf in jax.tree.leaves(layers[-1]) if leaf.ndim != 2]
    return jnp.concatenate(vectors) if vectors else jnp.zeros(0)


def _layer_shape(layer):
    leaves = jax.tree.leaves(layer)
    matrices = [leaf.shape for leaf in leaves if leaf.ndim == 2]
    vectors = [leaf.shape for leaf in leaves if leaf.ndim != 2]
    if len(matrices) != 1 or any(shape != matrices[0][:1] for shape in vectors):
        raise ValueError(
            f"{caller()}: a layer has to hold one matrix of weights (out, in) and vectors (out,), "
            f"got {[leaf.shape for leaf in leaves]}."
        )
    return matrices[0]
