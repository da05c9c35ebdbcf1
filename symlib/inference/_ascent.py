"""The steps of `fit`: compiled programs over all restarts, and what to do when one raises."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from symlib._checks import caller, full_precision, scalar
from symlib.groups import Group

# The jitted functions stand at module level, so that a second fit of the same functions compiles
# nothing.


@eqx.filter_jit
def whole(keys, objective, initialize, *settings):
    """Return what `advance` does from the starts: one program where nobody looks in between."""

    def one(key):
        return _advance(*_begin(key, initialize, *settings), objective, *settings)

    return eqx.filter_vmap(one)(keys)


@eqx.filter_jit
def begin(keys, initialize, *settings):
    """Return the starts of all restarts, their optimiser states, and a key for each step."""
    return eqx.filter_vmap(lambda key: _begin(key, initialize, *settings))(keys)


@eqx.filter_jit
def step_keys(keys, done, steps):
    """Return the keys that `begin` gives for the steps from `done` on."""
    return jax.vmap(lambda key: jax.random.split(jax.random.split(key)[1], steps)[done:])(keys)


@eqx.filter_jit
def advance(posteriors, states, keys, objective, *settings):
    """Take a step with each key: the modules and states, the traces, and the codes of failures."""

    def one(posterior, state, keys):
        return _advance(posterior, state, keys, objective, *settings)

    return eqx.filter_vmap(one)(posteriors, states, keys)


def _begin(key, initialize, steps, learning_rate, optimizer):
    start_key, noise_key = jax.random.split(key)
    posterior = initialize(start_key)
    parameters, _ = split(posterior)
    if not jax.tree.leaves(parameters):
        raise ValueError(f"{caller()}: initialize has to return floating-point arrays to train.")
    full_precision("the start", parameters)
    state = optimizer_of(steps, learning_rate, optimizer).init(parameters)
    return posterior, state, jax.random.split(noise_key, steps)


def _advance(posterior, state, keys, objective, steps, learning_rate, optimizer):
    optimizer = optax.with_extra_args_support(optimizer_of(steps, learning_rate, optimizer))
    parameters, rest = split(posterior)

    def step(carry, key):
        parameters, state = carry

        def loss(parameters):
            value = objective(eqx.combine(parameters, rest), key)
            if isinstance(value, tuple):
                raise ValueError(
                    f"{caller()}: objective returned a tuple, as elbo does; return its first "
                    "entry, elbo(...)[0]."
                )
            value = scalar("objective", value)
            if not jnp.issubdtype(value.dtype, jnp.floating):
                raise ValueError(
                    f"{caller()}: objective has to return a floating-point number, got "
                    f"{value.dtype}."
                )
            return -value

        value, gradient = jax.value_and_grad(loss)(parameters)
        try:
            updates, state = optimizer.update(gradient, state, parameters)
        except TypeError:
            # One that searches along a line asks for these. The others must not get them: a decay
            # refuses to stand beside a line search, which would not see it.
            line = {"value": value, "grad": gradient, "value_fn": loss}
            updates, state = optimizer.update(gradient, state, parameters, **line)
        parameters = optax.apply_updates(parameters, updates)
        cause = jnp.where(_all_finite(gradient), 3, 2)
        code = jnp.where(jnp.isfinite(value), jnp.where(_all_finite(parameters), 0, cause), 1)
        return (parameters, state), (-value, code.astype(jnp.int8))

    (parameters, state), (trace, codes) = jax.lax.scan(step, (parameters, state), keys)
    return eqx.combine(parameters, rest), state, trace, codes


def split(posterior):
    """Return what is trained and the rest: a group, such as a mirror, is given."""
    return eqx.partition(
        posterior, eqx.is_inexact_array, is_leaf=lambda node: isinstance(node, Group)
    )


def optimizer_of(steps, learning_rate, optimizer):
    """Return the optimiser of a fit of so many steps in all."""
    if optimizer is not None:
        return optimizer
    if not callable(learning_rate):
        learning_rate = optax.cosine_decay_schedule(learning_rate, steps)
    return optax.adam(learning_rate)


def by_restart(function, stacked, *shared):
    """Return `function(*stacked, *shared)` and, of restarts that raised an error, its sentence.

    An error in one restart ends all, so each then runs alone. One that failed has NaN in all its
    numbers; there is no result if all failed.
    """
    try:
        return function(*stacked, *shared), {}
    except eqx.EquinoxRuntimeError:  # from the objective or a module
        pass
    found, errors = {}, {}
    count = len(stacked[-1])
    for index in range(count):
        try:
            found[index] = function(*row(stacked, index), *shared)
        except eqx.EquinoxRuntimeError as error:
            errors[index] = _sentence(error)
    if not found:
        return None, errors
    some = next(iter(found.values()))  # gives a failed one its shapes
    lost = jnp.asarray([index in errors for index in range(count)])

    def join(*leaves):
        if not eqx.is_array(leaves[0]):
            return leaves[0]
        return without(jnp.concatenate(leaves), lost)

    return jax.tree.map(join, *(found.get(index, some) for index in range(count))), errors


def chunk(posteriors, states, keys, objective, settings):
    """Return what `advance` does, and the sentences of the restarts that raised an error."""
    result, errors = by_restart(advance, (posteriors, states, keys), objective, *settings)
    if result is None:
        lost = jnp.ones(keys.shape[0], bool)
        nothing = jax.tree.map(lambda leaf: without(leaf, lost), posteriors)
        result = nothing, states, jnp.full(keys.shape, jnp.nan), jnp.zeros(keys.shape, jnp.int8)
    posteriors_after, states_after, trace, codes = result
    for index in errors:
        # Once more by single steps, to learn which one it is.
        position, state, own = row((posteriors, states, keys), index)
        done = 0
        try:
            while done < keys.shape[1] - 1:
                position, state, *_ = advance(
                    position, state, own[:, done : done + 1], objective, *settings
                )
                done += 1
        except eqx.EquinoxRuntimeError:
            pass
        codes = codes.at[index].set(0).at[index, done].set(4)
    return posteriors_after, states_after, trace, codes, errors


def row(tree, index):
    """Return one restart of all, on a leading axis of length 1."""
    return jax.tree.map(lambda x: x[index : index + 1] if eqx.is_array(x) else x, tree)


def without(leaf, failed):
    """Return an array of all restarts with NaN in those that failed."""
    if not eqx.is_inexact_array(leaf):
        return leaf
    return jnp.where(failed.reshape(-1, *[1] * (leaf.ndim - 1)), jnp.nan, leaf)


def _all_finite(tree):
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _sentence(error):
    """Return the message of an error of `equinox.error_if` without the advice around it."""
    found = re.search(r"RuntimeError: (.*?)\n\s*\n-{5}", str(error), re.DOTALL)
    return found[1] if found else str(error).strip()
