"""Answer a check's requests from the names of a notebook."""

import traceback

from symcourse.classroom.answers import Key, decode, encode


def reply_to(request, namespace):
    """Return the reply to a request of `symcourse.classroom.answers.Answers`.

    Args:
        request: `{"get": name}` or `{"call": name, "arguments": [...]}`.
        namespace: dictionary of the notebook's names.

    Returns:
        dict with "value", encoded; or "missing"; or "error", the last line of a traceback.
    """
    name = request.get("get", request.get("call"))
    if name not in namespace:
        return {"missing": True}
    value = namespace[name]
    if "call" in request:
        if value is None:
            return {"missing": True}
        if not callable(value):
            return {"error": f"it is no function, but of type {type(value).__name__}"}
        try:
            value = _call(value, [decode(a, _special) for a in request["arguments"]])
        except Exception as error:
            return {"error": traceback.format_exception_only(error)[-1].strip()}
    try:
        return {"value": encode(value)}
    except Exception as error:
        return {"error": f"the value could not be read: {type(error).__name__}"}


def _call(function, arguments):
    """Call a function with JAX arrays, or with NumPy's if it writes into its arguments."""
    try:
        return function(*(_as_jax(argument) for argument in arguments))
    except TypeError as error:
        if "immutable" not in str(error):
            raise
        return function(*arguments)


def _special(argument):
    import jax

    if isinstance(argument, Key):
        return jax.random.key(argument.seed)
    import jax.numpy as jnp

    # The source comes from a check, never from a student.
    return eval(argument.source, {"jax": jax, "jnp": jnp})


def _as_jax(argument):
    """Return an argument with JAX arrays in place of NumPy's, as exercises use them."""
    import jax
    import numpy as np

    return jax.tree.map(
        lambda leaf: jax.numpy.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, argument
    )
