"""Refusals name the function that was called, in one line where the values are known."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from symlib._checks import caller, refuse_if
from symlib.factorization import Ratings
from symlib.groups import SignFlip
from symlib.inference import elbo
from symlib.posteriors import DiagonalGaussian, IsotropicGaussian, Symmetrized
from symlib.special import log_hyp0f1
from symlib.syre import anchored_decay

POSTERIOR = Symmetrized(IsotropicGaussian(jnp.ones(2), 1.0), SignFlip(2))


def message_of(call, *arguments):
    with pytest.raises(ValueError) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: elbo(jax.random.key(0), jnp.sum, POSTERIOR, 0), "elbo"),
        # A check of a group, of a base class and of a module of the library's own, from outside.
        (lambda: SignFlip(2).act(2.0, jnp.ones(2)), "SignFlip"),
        (lambda: POSTERIOR.kl_from_base(jax.random.key(0), 0), "Symmetrized.kl_from_base"),
        (lambda: IsotropicGaussian(jnp.ones(2), -1.0), "IsotropicGaussian"),
        (lambda: DiagonalGaussian(jnp.ones(2), jnp.ones(2)).log_prob(1.0), "DiagonalGaussian"),
        # Inside functions that JAX or optax call.
        (lambda: jax.vmap(partial(log_hyp0f1, method="no"))(jnp.ones((4, 3))), "log_hyp0f1"),
        (lambda: jax.eval_shape(partial(log_hyp0f1, method="no"), jnp.ones(2)), "log_hyp0f1"),
        (lambda: anchored_decay(jax.random.key(0), gamma=-1.0), "anchored_decay"),
    ],
)
def test_the_message_names_what_was_called(call, name):
    assert message_of(call).startswith(name)


def test_a_function_that_calls_another_of_the_library_is_named():
    class Own(DiagonalGaussian):
        def log_prob(self, z):
            return log_hyp0f1(z, method="no")

    # The user's own code calls log_hyp0f1: it is the call to mend, not the one around it.
    base = Own(jnp.ones(2), jnp.ones(2))
    call = Symmetrized(base, SignFlip(2)).log_prob
    assert "log_hyp0f1" in message_of(call, jnp.ones(2))


def test_known_values_are_refused_in_one_line():
    words = message_of(Ratings, jnp.full((2, 2), jnp.nan))
    assert words.startswith("Ratings: ") and "\n" not in words


def test_traced_values_are_refused_when_run():
    refused = eqx.filter_jit(lambda x: refuse_if(x, x < 0, "negative"))
    assert refused(jnp.ones(())) == 1
    with pytest.raises(RuntimeError, match="negative"):
        refused(-jnp.ones(()))
    with pytest.raises(ValueError, match="^negative$"):
        refuse_if(jnp.ones(2), np.array([False, True]), "negative")
    assert refuse_if("kept", np.array([False]), "negative") == "kept"


def test_outside_of_the_library_there_is_no_name():
    assert caller() == "symlib"
