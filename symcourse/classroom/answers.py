"""What a check sees of an answer: plain values, asked for by name.

A check never touches an object that a student made. It asks for the value of a name, or for what
a named function returns, and gets numbers, text, lists, dictionaries and NumPy arrays. So the same
check runs inside a notebook and in the marker's own process, with the student's code elsewhere and
nothing but JSON between them.
"""

import base64
import re
from typing import NamedTuple

import numpy as np

MAX_ENTRIES = 1_000_000  # of one array: far more than any exercise needs


class Wrong(Exception):
    """An answer is not right; the message is the hint that its author reads."""


class Stopped(Exception):
    """The process of a submission was stopped, or ended by itself; the message says why."""


class Key(NamedTuple):
    """An argument that becomes `jax.random.key(seed)` where the student's code runs."""

    seed: int


class Code(NamedTuple):
    """An argument that is a function, as the Python expression that makes it."""

    source: str


class Opaque(NamedTuple):
    """A value that cannot be sent: an object of the type with this name."""

    type: str


def encode(value):
    """Return a value as something that JSON can hold."""
    if isinstance(value, (Key, Code, Opaque)):
        return {type(value).__name__: value[0]}
    if value is None or isinstance(value, (bool, float, str)):
        return value
    if isinstance(value, int) and abs(value) < 2**63:  # Python refuses to print very long ones
        return value
    if isinstance(value, (list, tuple)):
        return {"list": [encode(item) for item in value]}
    if isinstance(value, dict) and all(isinstance(key, (str, int)) for key in value):
        return {"dict": [[key, encode(item)] for key, item in value.items()]}
    if hasattr(value, "__array__"):
        return _encode_array(value)
    return {"Opaque": type(value).__name__}


def _encode_array(value):
    try:
        array = np.asarray(value)
    except Exception:  # a typed random key, or an array that is computed only when traced
        return {"Opaque": type(value).__name__}
    if array.dtype.kind not in "biuf" or array.size > MAX_ENTRIES:
        return {"Opaque": f"array of {array.size} entries of type {array.dtype}"}
    if array.ndim == 0:
        return array.item()
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    data = base64.b64encode(array.tobytes()).decode()
    return {"array": data, "type": array.dtype.str, "shape": list(array.shape)}


def decode(data, special=None):
    """Return what `encode` was given; arrays come as NumPy arrays, tuples as lists.

    Args:
        data: what came out of JSON.
        special: function that turns a `Key` or a `Code` into what it stands for.

    Raises:
        ValueError: the data are not of this form.
    """
    if data is None or isinstance(data, (bool, int, float, str)):
        return data
    if isinstance(data, dict):
        if len(data) == 1:
            [(kind, content)] = data.items()
            if kind == "list" and isinstance(content, list):
                return [decode(item, special) for item in content]
            if kind == "dict" and isinstance(content, list):
                return {key: decode(item, special) for key, item in content}
            if kind == "Opaque" and isinstance(content, str):
                return Opaque(content[:100])
            if kind in ("Key", "Code") and special is not None:
                return special(Key(content) if kind == "Key" else Code(content))
        if set(data) == {"array", "type", "shape"}:
            return _decode_array(**data)
    raise ValueError(f"unknown data of type {type(data).__name__}")


def _decode_array(array, type, shape):
    # Nothing of this is trusted: NumPy is asked about plain types and sizes only.
    if not (isinstance(type, str) and re.fullmatch(r"[<|][biuf]\d{1,2}", type)):
        raise ValueError("an array of this type is not allowed")
    if not (isinstance(shape, list) and all(_is_size(n) for n in shape) and len(shape) <= 32):
        raise ValueError("an array of this shape is not allowed")
    dtype = np.dtype(type)
    return np.frombuffer(base64.b64decode(array, validate=True), dtype).reshape(shape).copy()


def _is_size(number):
    return isinstance(number, int) and 0 <= number <= MAX_ENTRIES


class Answers:
    """The answers of one notebook, as the checks ask for them.

    Args:
        request: function of a dictionary, `{"get": name}` or `{"call": name, "arguments": [...]}`,
            that returns `{"value": encoded}`, `{"missing": True}` or `{"error": text}`.
    """

    def __init__(self, request):
        self._request = request

    def value(self, name):
        """Return the value of a name.

        Raises:
            Wrong: the name has no value yet.
        """
        reply = self._request({"get": name})
        if reply.get("missing") or ("value" in reply and reply["value"] is None):
            raise Wrong(f"`{name}` has no value yet.")
        return self._plain(reply, f"`{name}`")

    def call(self, name, *arguments):
        """Return what the function of that name returns for these arguments.

        Raises:
            Wrong: there is no such function, it raises an error, or it returns nothing.
        """
        encoded = [encode(argument) for argument in arguments]
        reply = self._request({"call": name, "arguments": encoded})
        if reply.get("missing"):
            raise Wrong(f"there is no function `{name}` yet.")
        if "error" in reply:
            raise Wrong(f"`{name}` stopped with an error: {str(reply['error'])[:300]}")
        if reply.get("value") is None:
            raise Wrong(f"`{name}` returned nothing: is a `return` missing, or is it still empty?")
        return self._plain(reply, f"what `{name}` returned")

    def number(self, name):
        """Return the value of a name that has to be one finite number."""
        return finite_number(self.value(name), f"`{name}`")

    def array(self, name, shape):
        """Return the value of a name that has to be a finite array of this shape."""
        return finite_array(self.value(name), shape, f"`{name}`")

    def called_number(self, name, *arguments):
        """Return what a function returns, which has to be one finite number."""
        return finite_number(self.call(name, *arguments), f"what `{name}` returned")

    def called_array(self, name, shape, *arguments):
        """Return what a function returns, which has to be a finite array of this shape."""
        return finite_array(self.call(name, *arguments), shape, f"what `{name}` returned")

    def _plain(self, reply, what):
        try:
            return decode(reply["value"])
        except Exception:  # whatever a submission sends, it is no more than a wrong answer
            raise Wrong(f"{what} could not be read.") from None


def finite_number(value, what):
    """Return a value as a float, or say in a `Wrong` why it is no finite number."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if not isinstance(value, (bool, int, float)):
        raise Wrong(f"{what} has to be one number, and it is {describe(value)}.")
    if not np.isfinite(value):
        raise Wrong(f"{what} is {value}.")
    return float(value)


def finite_array(value, shape, what):
    """Return a value as an array of floats, or say in a `Wrong` what is in the way."""
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError):
        raise Wrong(f"{what} has to be an array, and it is {describe(value)}.") from None
    if array.shape != tuple(shape):
        raise Wrong(f"{what} has to have shape {tuple(shape)}, and it has shape {array.shape}.")
    if not np.isfinite(array).all():
        raise Wrong(f"{what} contains NaN or infinity.")
    return array


def describe(value):
    """Return a few words for a value of the wrong kind."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, Opaque):
        return f"an object of type {value.type}"
    if isinstance(value, list):  # as tuples come, too
        return f"a list or tuple of {len(value)} entries"
    if isinstance(value, dict):
        return f"a dictionary of {len(value)} entries"
    return f"of type {type(value).__name__}"


def require(condition, hint):
    """Go on if a condition holds; otherwise the answer is `Wrong`, with this hint.

    A comparison with NaN does not hold, so NaN never passes.
    """
    if not bool(np.all(condition)):
        raise Wrong(hint)


def require_none_of(found, *known):
    """Require that a value is none of the known mistakes, pairs of a value and its hint."""
    for wrong, hint in known:
        require(not np.allclose(found, wrong), hint)


def require_right_or_unknown(found, right, tolerance, *known):
    """The same, but a value within the tolerance of the right one passes.

    What a check draws may make a mistake right by chance.
    """

    def near(value):
        return np.allclose(found, value, rtol=0, atol=tolerance)

    for wrong, hint in known:
        require(near(right) or not near(wrong), hint)
