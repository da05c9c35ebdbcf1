r"""The mixture of a base density over a group.

If the model density does not change under a group, $p(x, z) = p(x, g \cdot z)$, then neither
does the posterior. The symmetrized posterior of Moore (2016, section 3) shares this invariance:
it draws $z^*$ from a base density $q^*$ and applies a random element of the group.
"""

from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from symlib._checks import caller, mean_and_error, positive_integer, scalar, with_methods
from symlib.groups import Group
from symlib.groups.group import difference


class Symmetrized(eqx.Module):
    r"""The mixture of a base density over a compact group (Moore 2016, eq. 3),

    $$\tilde q(z) = \int_G q^*(g^{-1} \cdot z) \, dV(g),$$

    with $V$ the uniform (Haar) measure. The paper's factor $|\det|$ is 1 for an affine action of a
    compact group; another action has to preserve volume by itself. The mixture is invariant,
    $\tilde q(g \cdot z) = \tilde q(z)$.

    >>> import jax.numpy as jnp
    >>> from symlib import DiagonalGaussian, SignFlip, Symmetrized
    >>> base = DiagonalGaussian(jnp.array([3.0, 1.0]), jnp.ones(2))
    >>> posterior = Symmetrized(base, SignFlip(2))
    >>> z = jnp.array([-3.0, -1.0])
    >>> print(f"{base.log_prob(z):.1f}, {posterior.log_prob(z):.1f}")
    -21.8, -2.5

    Args:
        base: Base density $q^*$, with `sample(key)` and `log_prob(z)`.
        group: A compact group that acts on the points of `base`.
        log_ratio: Function (base, z) -> $\log q^*(z) - \log\tilde q(z)$ in place of that of the
            group, such as a bound of `symlib.posteriors` where there is no closed form. With a
            lower bound `log_prob` is too large, and an evidence bound stays one. An
            `equinox.Module` may hold arrays to train.

    Raises:
        ValueError: The base lacks `sample` or `log_prob`; the group is none, is not compact, or
            does not act on points of this shape.
    """

    base: eqx.Module
    group: Group
    given_log_ratio: Callable | None

    def __init__(self, base: eqx.Module, group: Group, log_ratio: Callable | None = None):
        with_methods("the base, which comes first,", base, "sample", "log_prob")
        with_methods("the group, which comes second,", group, "act", "sample")
        if log_ratio is not None and not isinstance(log_ratio, eqx.Module):
            # A function is no array: here it is part of the structure, for jax.jit.
            log_ratio = jax.tree_util.Partial(log_ratio)
        self.base, self.group, self.given_log_ratio = base, group, log_ratio

    def __check_init__(self):
        # Traces both without computing: a group without a uniform law or with another shape of
        # point is refused here and not at first use.
        jax.eval_shape(
            lambda key: self.group.act(self.group.sample(key), self.base.sample(key)),
            jax.random.key(0),
        )

    def sample(self, key: PRNGKeyArray) -> PyTree:
        r"""Draw $z = g \cdot z^*$ with $z^* \sim q^*$ and $g$ uniform (Moore 2016, section 3)."""
        base_key, group_key = jax.random.split(key)
        return self.group.act(self.group.sample(group_key), self.base.sample(base_key))

    def log_ratio(self, z: PyTree) -> Float[Array, ""]:
        r"""Return $\log q^*(z) - \log\tilde q(z)$ in nats: that of the group, or what was given.

        For `Orthogonal(k)` and an `IsotropicGaussian` it is a Bessel function of a matrix, for
        `HiddenPermutation(d)` with one hidden layer of at most 15 units and a Gaussian a permanent,
        for other finite groups a sum over all elements.

        Raises:
            ValueError: `z` has a wrong shape, a density returns no scalar, or the group has too
                many elements to list and no closed form for this base.
        """
        if self.given_log_ratio is not None:
            return scalar("log_ratio", self.given_log_ratio(self.base, z))
        return scalar("log_ratio of the group", self.group.log_ratio(self.base, z))

    def log_prob(self, z: PyTree) -> Float[Array, ""]:
        r"""Return $\log\tilde q(z)$ in nats: the `log_mixture` of the group.

        With a `log_ratio` that was given, or overridden in a subclass, it is $\log q^*(z)$ minus
        that.

        Raises:
            ValueError: As `log_ratio`; or the difference has lost its digits, far from the base.
            RuntimeError: A traced one has.
        """
        if self.given_log_ratio is None and type(self).log_ratio is Symmetrized.log_ratio:
            return scalar("log_mixture of the group", self.group.log_mixture(self.base, z))
        # Far from the base both are large, and cancel.
        return difference(self._base_log_prob(z), self.log_ratio(z))

    def _base_log_prob(self, z):
        return scalar("log_prob of the base", self.base.log_prob(z))

    def kl_from_base(
        self, key: PRNGKeyArray, num_samples: int
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        r"""Estimate $KL[q^* \| \tilde q] = E_{q^*}[\log q^* - \log \tilde q]$ by Monte Carlo.

        This is the term that eq. 5 of Moore (2016) adds to the bound of the base density. It lies
        between 0 and $\log |G|$, which is infinite for an infinite group. The estimate is unbiased
        and reparameterized.

        Args:
            key: Random key.
            num_samples: Number of draws from the base, at least 2.

        Returns:
            The estimate and its standard error, in nats.

        Raises:
            ValueError: `num_samples` is below 2, a density is no scalar, or a term NaN or infinite.
            RuntimeError: A traced term is such.
        """
        num_samples = positive_integer("num_samples", num_samples)
        if num_samples < 2:
            raise ValueError(f"{caller()}: a standard error needs num_samples of at least 2.")

        def log_ratio(sample_key):
            z = self.base.sample(sample_key)
            if type(self).log_prob is Symmetrized.log_prob:
                return self.log_ratio(z)
            # A subclass with a density of its own is taken at its word.
            return self._base_log_prob(z) - scalar("log_prob", self.log_prob(z))

        terms = jax.vmap(log_ratio)(jax.random.split(key, num_samples))
        return mean_and_error(terms, "a log density is NaN or infinite.")
