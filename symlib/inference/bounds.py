r"""The evidence lower bound, estimated by Monte Carlo.

For an approximation $q$ the bound is $L(q) = E_q[\log p(x, z) - \log q(z)] \le \log p(x)$
(Moore 2016, eq. 1). If $p$ does not change under a group, the bound of the symmetrized $\tilde q$
needs draws from the base $q^*$ only (eq. 4), and exceeds the bound of $q^*$ by
$KL[q^* \| \tilde q] \ge 0$ (eq. 5).
"""

from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from symlib._checks import caller, mean_and_error, positive_integer, scalar, with_methods
from symlib.groups.invariance import require_invariance

_FORMS = ("density", "entropy", "divergence")


def elbo(
    key: PRNGKeyArray,
    log_joint: Callable[[PyTree], Float[Array, ""]],
    posterior: eqx.Module,
    num_samples: int,
    form: str = "density",
    check_invariance: bool = True,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""Estimate the evidence lower bound by Monte Carlo, in nats.

    The forms differ in what is known in closed form, hence in their noise:

    - "density": $E[\log p - \log q]$ for a Gaussian (eq. 1),
      $E_{q^*}[\log p - \log \tilde q]$ for a symmetrized posterior (eq. 4);
    - "entropy": $E_q[\log p] + H(q)$ (eq. 2), for a Gaussian;
    - "divergence": $E_{q^*}[\log p] + H(q^*) + KL[q^* \| \tilde q]$ (eq. 5), for a symmetrized
      posterior, the divergence estimated from the same draws.

    All are unbiased and reparameterized.

    For a symmetrized posterior they are bounds only if `log_joint` is invariant under the group.
    So each call, also one inside `fit`, moves a few of its draws by random elements, one for every
    16 draws up to four, and compares `log_joint` before and after. It costs three evaluations of
    the model for each of them.

    Args:
        key: Random key. The same key gives all forms the same draws of the base.
        log_joint: Log joint density $z \mapsto \log p(x, z)$ of one point.
        posterior: The approximation, with `sample` and `log_prob`, and `entropy` for the other
            forms. One that has a `group` is symmetrized, and says its `base`.
        num_samples: Number of draws, at least 2.
        form: "density", "entropy" or "divergence".
        check_invariance: Whether to do so.

    Returns:
        The estimate and its standard error.

    >>> import jax, jax.numpy as jnp
    >>> from symlib.inference import elbo
    >>> from symlib.posteriors import IsotropicGaussian
    >>> prior, q = (IsotropicGaussian(jnp.zeros(2), variance) for variance in (1.0, 0.5))
    >>> value, error = elbo(jax.random.key(0), prior.log_prob, q, 1000, form="entropy")
    >>> print(abs(value + q.kl(prior)) < 4 * error)  # a density: the evidence is 0
    True

    Raises:
        ValueError: The form is unknown or does not fit the posterior, `num_samples` is below 2,
            `log_joint`, `log_prob` or `entropy` does not return a scalar, `log_joint` is not
            invariant under the group, or a term is NaN or infinite.
        RuntimeError: A traced value is such.

    References:
        Moore (2016), eqs. 1, 2, 4 and 5.
    """
    num_samples = positive_integer("num_samples", num_samples)
    if num_samples < 2:
        raise ValueError(f"{caller()}: a standard error needs num_samples of at least 2, got 1.")
    if form not in _FORMS:
        raise ValueError(f"{caller()}: form has to be one of {_FORMS}, got {form!r}.")
    symmetrized = getattr(posterior, "group", None) is not None
    if form == "entropy" and symmetrized:
        raise ValueError(
            f"{caller()}: form 'entropy' needs a closed-form entropy, which a symmetrized "
            "posterior lacks; use 'density' or 'divergence', or pass posterior.base."
        )
    if form == "divergence" and not symmetrized:
        raise ValueError(
            f"{caller()}: form 'divergence' is for a Symmetrized posterior, got "
            f"{type(posterior).__name__}; use 'density' or 'entropy'."
        )
    base = posterior
    if symmetrized:
        base = getattr(posterior, "base", None)
        if base is None:
            raise ValueError(
                f"{caller()}: a {type(posterior).__name__} has a group and no base to draw from."
            )
    with_methods("the base" if symmetrized else "the posterior", base, "sample", "log_prob")
    with_methods("the posterior", posterior, "log_prob")
    if form != "density":
        with_methods(f"for form {form!r} the base", base, "entropy")

    def log_density(z):
        return scalar("log_joint", log_joint(z))

    def term(z):
        log_p = log_density(z)
        if form == "density":
            return log_p - scalar("log_prob of the posterior", posterior.log_prob(z))
        entropy = scalar("entropy of the posterior", base.entropy())
        if form == "entropy":
            return log_p + entropy
        log_q = scalar("log_prob of the base", base.log_prob(z))
        return log_p + entropy + (log_q - posterior.log_prob(z))

    draws = jax.vmap(base.sample)(jax.random.split(key, num_samples))
    terms = jax.vmap(term)(draws)
    if symmetrized and check_invariance:
        few = jax.tree.map(lambda leaf: leaf[: max(1, min(4, num_samples // 16))], draws)
        # The number is beyond those of the keys of the draws.
        check_key = jax.random.fold_in(key, num_samples)
        terms = require_invariance(log_density, posterior.group, few, check_key, terms)
    return mean_and_error(terms, "log_joint gave NaN or infinity.")
