r"""Gaussians with independent entries, the base densities of the course."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from symlib._checks import array_shape, caller, full_precision, like, refuse_if


class Gaussian(eqx.Module):
    r"""A Gaussian with independent entries, over an array or a pytree of arrays.

    The fields are unconstrained, so an optimiser can train the module itself:
    `mean`, and `log_variance` in place of the positive variance. They are in float32 or float64.

    The closed forms, `entropy`, `kl` and those elsewhere in the library, rest on `variances()` and
    `row_variances()`. A subclass that overrides `variance`, `sample` or `log_prob` has another law
    and says None there: it goes the general way, and brings its own `entropy` and `kl`.

    `base`, `group` and `log_ratio` are those of `Symmetrized`, for a mixture over nothing: code
    that takes either need not ask which one it has.
    """

    mean: eqx.AbstractVar[PyTree]
    log_variance: eqx.AbstractVar[PyTree]

    @property
    def variance(self) -> PyTree:
        r"""The variance, $\exp$ of `log_variance`."""
        return jax.tree.map(jnp.exp, self.log_variance)

    @property
    def base(self) -> "Gaussian":
        """The Gaussian itself."""
        return self

    @property
    def group(self) -> None:
        """There is none."""
        return None

    def log_ratio(self, z: PyTree) -> Float[Array, ""]:
        """Return 0, the log of the ratio of this density to itself."""
        return jnp.zeros((), self._flat()[0].dtype)

    def variances(self) -> PyTree | None:
        """Return the variance of every entry, in the shapes of `mean`; None for another law."""
        if not self._is_gaussian():
            return None
        mean, log_variance = self._flat()
        unflatten = ravel_pytree(self.mean)[1]
        return unflatten(jnp.broadcast_to(jnp.exp(log_variance), mean.shape))

    def row_variances(self) -> Float[Array, "..."] | None:
        """Return one variance for the entries of a row, the last axis of every leaf.

        A scalar if all rows share it, a vector with one for each row of the stacked leaves, or
        None if there is no such number, or this is another law.
        """
        return None

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
        difference = ravel_pytree(like("z", z, self.mean))[0] - mean
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

    def kl(self, other: eqx.Module) -> Float[Array, ""]:
        r"""Return $KL[q \| p]$ in nats for another such Gaussian $p$, over the same points.

        $$KL = \tfrac12 \sum_i [c_i / v_i + (m_i - \mu_i)^2 / v_i - 1 + \log (v_i / c_i)],$$

        with $\mu_i$ and $v_i$ the means and variances of $p$.

        Raises:
            ValueError: The means have different structures or shapes, or one of the two is a
                subclass with another law.
        """
        self._require_gaussian()
        if not isinstance(other, Gaussian):
            raise ValueError(
                f"{caller()}: the closed form of the divergence needs another Gaussian with "
                f"independent entries, got a {type(other).__name__}."
            )
        other._require_gaussian()
        like("the mean of the other Gaussian", other.mean, self.mean)
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


class IsotropicGaussian(Gaussian):
    r"""The Gaussian $\mathcal{N}(m, c I)$ with one variance for all entries.

    Args:
        mean: Mean $m$, a floating-point array of any shape or a pytree of such arrays.
        variance: Variance $c > 0$, a scalar.

    Raises:
        ValueError: `mean` holds integers or is not finite, or `variance` is no scalar, or not
            positive and finite.
        RuntimeError: A traced value is such.
    """

    mean: PyTree[Float[Array, "..."]]
    log_variance: Float[Array, ""]

    def __init__(self, mean: PyTree, variance):
        self.mean = _finite(mean)
        variance = array_shape("variance", variance, ())
        dtype = ravel_pytree(self.mean)[0].dtype
        self.log_variance = _log_positive(variance.astype(dtype))

    def row_variances(self):
        return self.variance if self._is_gaussian() else None


class DiagonalGaussian(Gaussian):
    r"""The Gaussian $\mathcal{N}(m, \mathrm{diag}(c))$ with a variance for each entry (mean field).

    >>> import jax.numpy as jnp
    >>> from symlib import DiagonalGaussian
    >>> q = DiagonalGaussian(jnp.zeros(2), jnp.array([1.0, 4.0]))
    >>> print(q.log_prob(jnp.zeros(2)).round(2), q.entropy().round(2))
    -2.53 3.53

    Args:
        mean: Mean $m$, a floating-point array of any shape or a pytree of such arrays.
        variance: Variances $c_i > 0$, with the structure and shapes of `mean`.

    Raises:
        ValueError: `mean` holds integers or is not finite, a variance is not positive and finite,
            or the structures or shapes differ.
        RuntimeError: A traced value is such.
    """

    mean: PyTree[Float[Array, "..."]]
    log_variance: PyTree[Float[Array, "..."]]

    def __init__(self, mean: PyTree, variance: PyTree):
        self.mean = _finite(mean)
        variance = like("variance", variance, self.mean)
        self.log_variance = jax.tree.map(_log_positive, variance)


def _finite(mean):
    def check(leaf):
        return _refuse(leaf, ~jnp.isfinite(leaf), "mean has to be finite")

    return jax.tree.map(check, full_precision("mean", mean))


def _log_positive(variance):
    wrong = ~((variance > 0) & jnp.isfinite(variance))
    return jnp.log(_refuse(variance, wrong, "variance has to be positive and finite"))


def _refuse(value, wrong, message):
    """Return `value`; raise if any of `wrong`, with the first such value where it is known."""
    message = f"{caller()}: {message}"
    if not isinstance(wrong, jax.core.Tracer) and wrong.any():
        known = jax.lax.stop_gradient(value)  # also inside a gradient
        message = f"{message}, got {known[wrong][0]}"
    return refuse_if(value, wrong, f"{message}.")
