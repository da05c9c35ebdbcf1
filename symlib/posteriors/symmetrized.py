r"""Approximate posteriors: two Gaussians, and the mixture of a base density over a group.

If the model density does not change under a group, $p(x, z) = p(x, g \cdot z)$, then neither
does the posterior. The symmetrized posterior of Moore (2016, section 3) shares this invariance:
it draws $z^*$ from a base density $q^*$ and applies a random element of the group.
"""

import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from symlib._checks import (
    array_shape,
    caller,
    floating_leaves,
    full_precision,
    mean_and_error,
    positive_integer,
    refuse_if,
    scalar,
)
from symlib.groups import MAX_ELEMENTS, Group, HiddenPermutation, Orthogonal, unit_log_densities
from symlib.groups.group import listed
from symlib.posteriors.rotations import rotation_log_ratio, stack_rows
from symlib.special import permutation_log_ratio
from symlib.special.permanent import MAX_SIZE


class Gaussian(eqx.Module):
    r"""A Gaussian with independent entries, over an array or a pytree of arrays.

    The fields are unconstrained, so an optimiser can train the module itself:
    `mean`, and `log_variance` in place of the positive variance. They are in float32 or float64.

    The closed forms, `entropy`, `kl` and those elsewhere in the library, are those of this law. A
    subclass that overrides `variance`, `sample` or `log_prob` has another law: it has to bring its
    own `entropy` and `kl` if it needs them, and goes the general way everywhere else.
    """

    mean: eqx.AbstractVar[PyTree]
    log_variance: eqx.AbstractVar[PyTree]

    @property
    def variance(self) -> PyTree:
        r"""The variance, $\exp$ of `log_variance`."""
        return jax.tree.map(jnp.exp, self.log_variance)

    def sample(self, key: PRNGKeyArray) -> PyTree:
        r"""Draw $z = m + \sqrt{c} \, \epsilon$ with $\epsilon$ standard normal.

        The draw is reparameterized: it is a differentiable function of the fields.
        """
        mean, log_variance = self._flat()
        _, unflatten = ravel_pytree(self.mean)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        return unflatten(mean + jnp.exp(0.5 * log_variance) * noise)

    def log_prob(self, z: PyTree) -> Float[Array, ""]:
        r"""Return $\log q(z) = -\tfrac12 \sum_i [(z_i - m_i)^2 / c_i + \log (2 \pi c_i)]$ in nats.

        Args:
            z: A point with the structure and shapes of `mean`.

        Raises:
            ValueError: `z` has another structure or other shapes.
        """
        mean, log_variance = self._flat()
        difference = ravel_pytree(_like("z", z, self.mean))[0] - mean
        # Scaled before it is squared: with tiny variances the factor alone would overflow.
        squares = (difference * jnp.exp(-0.5 * log_variance)) ** 2
        return -0.5 * jnp.sum(squares + log_variance + math.log(2 * math.pi))

    def entropy(self) -> Float[Array, ""]:
        r"""Return $H(q) = \tfrac12 \sum_i \log (2 \pi e c_i)$ in nats.

        Raises:
            ValueError: A subclass with another law has no entropy of its own.
        """
        self._require_gaussian()
        _, log_variance = self._flat()
        return 0.5 * jnp.sum(log_variance + math.log(2 * math.pi) + 1)

    def kl(self, other: "Gaussian") -> Float[Array, ""]:
        r"""Return $KL[q \| p]$ in nats for another such Gaussian $p$, over the same points.

        $$KL = \tfrac12 \sum_i [c_i / v_i + (m_i - \mu_i)^2 / v_i - 1 + \log (v_i / c_i)],$$

        with $\mu_i$ and $v_i$ the means and variances of $p$.

        Raises:
            ValueError: The means have different structures or shapes, or one of the two is a
                subclass with another law.
        """
        self._require_gaussian()
        other._require_gaussian()
        _like("the mean of the other Gaussian", other.mean, self.mean)
        mean, log_variance = self._flat()
        center, log_scale = other._flat()
        log_ratio = log_variance - log_scale
        squares = ((mean - center) * jnp.exp(-0.5 * log_scale)) ** 2  # scaled first, as in log_prob
        # expm1: near p = q the two terms in the ratio cancel to second order.
        return 0.5 * jnp.sum(jnp.expm1(log_ratio) - log_ratio + squares)

    def _flat(self) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
        full_precision("mean and log_variance", (self.mean, self.log_variance))
        mean, _ = ravel_pytree(self.mean)
        log_variance, _ = ravel_pytree(self.log_variance)
        return mean, jnp.broadcast_to(log_variance, mean.shape)

    def _is_gaussian(self) -> bool:
        names = "variance", "sample", "log_prob", "_flat"
        return all(getattr(type(self), name) is getattr(Gaussian, name) for name in names)

    def _require_gaussian(self) -> None:
        if not self._is_gaussian():
            raise ValueError(
                f"{caller()}: {type(self).__name__} overrides a method of Gaussian, so that "
                "the closed form of a Gaussian is not its own."
            )

    def _entry_moments(self) -> tuple[PyTree, PyTree]:
        """Return the mean and the variance of every entry, for the closed forms elsewhere."""
        self._require_gaussian()
        mean, log_variance = self._flat()
        unflatten = ravel_pytree(self.mean)[1]
        return self.mean, unflatten(jnp.exp(log_variance))


class IsotropicGaussian(Gaussian):
    r"""The Gaussian $\mathcal{N}(m, c I)$ with one variance for all entries.

    Args:
        mean: Mean $m$, a floating-point array of any shape or a pytree of such arrays.
        variance: Variance $c > 0$, a scalar.

    Raises:
        ValueError: `mean` holds integers, or `variance` is no scalar.
        RuntimeError: `variance` is not positive and finite, or `mean` is not finite.
    """

    mean: PyTree[Float[Array, "..."]]
    log_variance: Float[Array, ""]

    def __init__(self, mean: PyTree, variance):
        self.mean = _finite(mean)
        variance = array_shape("variance", variance, ())
        dtype = ravel_pytree(self.mean)[0].dtype
        self.log_variance = _log_positive(variance.astype(dtype))


class DiagonalGaussian(Gaussian):
    r"""The Gaussian $\mathcal{N}(m, \mathrm{diag}(c))$ with a variance for each entry (mean field).

    Args:
        mean: Mean $m$, a floating-point array of any shape or a pytree of such arrays.
        variance: Variances $c_i > 0$, with the structure and shapes of `mean`.

    Raises:
        ValueError: `mean` holds integers, or the structures or shapes differ.
        RuntimeError: A variance is not positive and finite, or `mean` is not finite.
    """

    mean: PyTree[Float[Array, "..."]]
    log_variance: PyTree[Float[Array, "..."]]

    def __init__(self, mean: PyTree, variance: PyTree):
        self.mean = _finite(mean)
        variance = _like("variance", variance, self.mean)
        self.log_variance = jax.tree.map(_log_positive, variance)


class Symmetrized(eqx.Module):
    r"""The mixture of a base density over a compact group (Moore 2016, eq. 3),

    $$\tilde q(z) = \int_G q^*(g^{-1} \cdot z) \, dV(g),$$

    with $V$ the uniform (Haar) measure. The paper's factor $|\det|$ is 1 for an affine action of a
    compact group; another action has to preserve volume by itself. The mixture is invariant,
    $\tilde q(g \cdot z) = \tilde q(z)$.

    Args:
        base: Base density $q^*$, with `sample(key)` and `log_prob(z)`.
        group: A compact group that acts on the points of `base`.

    Raises:
        ValueError: The group is not compact, or does not act on points of this shape.
    """

    base: Gaussian
    group: Group

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

    def log_prob(self, z: PyTree) -> Float[Array, ""]:
        r"""Return $\log \tilde q(z) = \log \frac1{|G|} \sum_g q^*(g^{-1} \cdot z)$ in nats.

        For a finite group it is a sum over all elements. For `Orthogonal(k)` and an
        `IsotropicGaussian`, over an array or a pytree whose leaves have a last axis of length k,
        the integral is a Bessel function of a matrix: `symlib.posteriors.rotation_log_ratio`. It is
        exact up to k = 3; above, the error is that of `symlib.special.log_hyp0f1`. For
        `HiddenPermutation(d)`, one hidden layer of at most 15 units, and a Gaussian it is a
        permanent: `symlib.special.permutation_log_ratio`. Subclasses of these two groups, and of
        the Gaussians with another law, take the sum or are refused.

        Raises:
            ValueError: `z` has a wrong shape, the base does not return a scalar, the group has too
                many elements to list or another number than its order, or it is infinite and the
                pair of group and base is not the one above.
        """
        log_ratio = self._closed_log_ratio(z)
        if log_ratio is not None:
            return self._base_log_prob(z) - log_ratio
        if self.group.order > MAX_ELEMENTS:
            raise ValueError(
                f"{caller()}: {self.group} has more than {MAX_ELEMENTS} elements, too "
                "many for the exact sum; symlib.posteriors has bounds of the divergence."
            )

        def log_component(g):
            return self._base_log_prob(self.group.act(self.group.inverse(g), z))

        log_components = jax.vmap(log_component)(listed(self.group))
        return logsumexp(log_components) - math.log(self.group.order)

    def _base_log_prob(self, z):
        return scalar("log_prob of the base", self.base.log_prob(z))

    def _closed_log_ratio(self, z):
        """Return log q* - log q~ where there is another way than the sum, and None elsewhere.

        The closed forms serve the classes themselves. A subclass may have changed what they rely
        on, the action or the law.
        """
        group = self.group
        gaussian = isinstance(self.base, Gaussian) and self.base._is_gaussian()
        if type(group) is HiddenPermutation and len(group.widths) == 1 and gaussian:
            if group.widths[0] <= MAX_SIZE:
                z = _like("z", group._check_point(z), self.base.mean)
                return permutation_log_ratio(unit_log_densities(self.base, z))
        if group.order < math.inf:  # math.isinf fails on the order of a large group
            return None
        isotropic = gaussian and isinstance(self.base, IsotropicGaussian)
        if not (type(group) is Orthogonal and isotropic):
            raise ValueError(
                f"{caller()}: no closed form for the infinite group {group} and a "
                f"{type(self.base).__name__}. Orthogonal(k) has one with an IsotropicGaussian; for "
                "a DiagonalGaussian symlib.posteriors.rotation_kl_bound bounds the divergence."
            )
        X = stack_rows(_like("z", group._check_point(z), self.base.mean))
        return rotation_log_ratio(X, stack_rows(self.base.mean), self.base.variance)

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
            ValueError: `num_samples` is below 2, or a density is no scalar.
            RuntimeError: A term is NaN or infinite.
        """
        num_samples = positive_integer("num_samples", num_samples)
        if num_samples < 2:
            raise ValueError(f"{caller()}: a standard error needs num_samples of at least 2.")

        def log_ratio(sample_key):
            z = self.base.sample(sample_key)
            # A closed form is free of the rounding of two large densities. It is that of the
            # method below: a subclass with its own is taken at its word.
            own = type(self).log_prob is not Symmetrized.log_prob
            closed = None if own else self._closed_log_ratio(z)
            if closed is not None:
                return closed
            return self._base_log_prob(z) - scalar("log_prob", self.log_prob(z))

        terms = jax.vmap(log_ratio)(jax.random.split(key, num_samples))
        return mean_and_error(terms, "a log density is NaN or infinite.")


def kl_sign_flip(base: Gaussian) -> Float[Array, ""]:
    r"""Return $KL[q^* \| \tilde q]$ in nats for one sign flip of a whole Gaussian vector.

    For the mixture of Moore (2016, section 3.1) the log ratio depends on $z$ only through
    $y = m^\top \Sigma^{-1} z$, which has the law $\mathcal{N}(a, a)$ with
    $a = m^\top \Sigma^{-1} m$. Hence

    $$KL = E_{y \sim \mathcal{N}(a, a)} [\log 2 - \log(1 + e^{-2 y})],$$

    which rises from 0 at $a = 0$, with slope $1/2$, to $\log 2$ at infinity. For all $a$
    the quadrature errs by less than 1e-15 in float64 and 5e-7 in float32, the derivative
    with respect to $a$ by less than 1e-14 and 5e-7 (measured against 30 digits). Derivatives of
    any order exist, also at $a = 0$.

    Args:
        base: A Gaussian.

    Raises:
        ValueError: The base is a subclass with another law.
    """
    base._require_gaussian()
    mean, log_variance = base._flat()
    # From 100 standard deviations on the result is log 2 to exp(-5000), so the cut changes nothing;
    # without it the square could overflow.
    ratio = jnp.clip(mean * jnp.exp(-0.5 * log_variance), -100, 100)
    a = jnp.sum(ratio**2)
    return _gaussian_expectation(lambda y: math.log(2) - jax.nn.softplus(-2 * y), a)


# Trapezoidal rule for y = a + sqrt(a) x. log(1 + exp(-2 y)) is analytic for |Im y| < pi / 2, so a
# step h in x errs by exp(-pi^2 / (h sqrt(a))), times exp(-a / 2) for the weight at y = 0. At its
# worst a this is exp(-1.5 (pi^2 / h)^(2/3)): 2e-16 at h = 1/12. Cutting at |x| = 9 leaves 2e-19.
_NODES = np.arange(-9 * 12, 9 * 12 + 1) / 12
_WEIGHTS = np.exp(-0.5 * _NODES**2) / np.sum(np.exp(-0.5 * _NODES**2))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _gaussian_expectation(f, a):
    r"""Return $E[f(y)]$ for $y \sim \mathcal{N}(a, a)$."""
    values = jax.vmap(f)(a + jnp.sqrt(a) * jnp.asarray(_NODES, a.dtype))
    return jnp.dot(jnp.asarray(_WEIGHTS, a.dtype), values)


@_gaussian_expectation.defjvp
def _gaussian_expectation_jvp(f, primals, tangents):
    # d/da E[f] = E[f' + f''/2], the heat equation. Differentiating the rule itself would meet the
    # infinite slope of sqrt(a) at a = 0.
    (a,), (da,) = primals, tangents
    slope = jax.grad(f)
    curvature = jax.grad(slope)
    derivative = _gaussian_expectation(lambda y: slope(y) + 0.5 * curvature(y), a)
    return _gaussian_expectation(f, a), derivative * da


def _like(name, tree, target):
    """Return `tree` as floating-point arrays, which have to have the structure of `target`."""
    tree = floating_leaves(name, tree)
    shapes, expected = (jax.tree.map(jnp.shape, t) for t in (tree, target))
    if shapes != expected:
        raise ValueError(f"{caller()}: {name} has to have shape {expected}, got {shapes}.")
    return tree


def _finite(mean):
    def check(leaf):
        return refuse_if(leaf, ~jnp.isfinite(leaf), f"{caller()}: mean has to be finite.")

    return jax.tree.map(check, full_precision("mean", mean))


def _log_positive(variance):
    wrong = ~((variance > 0) & jnp.isfinite(variance))
    message = f"{caller()}: variance has to be positive and finite."
    return jnp.log(refuse_if(variance, wrong, message))
