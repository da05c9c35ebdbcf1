"""Claims: statements of the text that the page itself checks."""

import html
import numbers
import re

import numpy as np
from IPython.display import display

# The key under which MyST-NB finds a value for {glue:text}; it is written here so that
# a notebook needs no documentation tool to run.
GLUE = "application/papermill.record/text/plain"


def claim(name, value, sentence, *, equal=None, within=None, below=None, above=None, digits=3):
    r"""Assert a statement over a computed value, show it, and keep the value for the prose.

    The cell shows the sentence with the value behind it. The prose shows the value
    with ``{glue:text}`` and the claim's name. If the statement is false, the cell
    fails, and with it the notebook and the build.

    Args:
        name: name of the value, lower case with hyphens, used once in the whole book.
        value: the computed number, of any scalar type; a bool or text with ``equal``.
        sentence: the statement, as a full sentence without the number.
        equal: what the value must be: exactly, or up to ``within``.
        within: the largest allowed ``|value - equal|``.
        below: a strict upper bound.
        above: a strict lower bound.
        digits: significant digits shown.

    Raises:
        AssertionError: the statement is false; the message is the sentence that is
            now false, the value, and what was expected. NaN makes every statement false.
        ValueError: there is no condition, so that the claim could not fail; a bad
            name; a value that is not a scalar; ``within`` without ``equal``.

    >>> claim("golden-ratio", (1 + 5**0.5) / 2, "It solves x = 1 + 1/x.",
    ...       equal=1.618, within=1e-3, digits=5)  # doctest: +SKIP
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(f"a claim's name is lower case words joined by hyphens, got {name!r}")
    if within is not None and equal is None:
        raise ValueError(f"claim {name!r}: within= needs equal=")
    if equal is None and below is None and above is None:
        raise ValueError(f"claim {name!r} cannot fail: give equal=, below= or above=")
    value = _scalar(name, value)

    expected, holds = [], True
    if equal is not None:
        equal = _scalar(name, equal)
        if within is None:
            expected.append(f"exactly {equal}")
            holds &= value == equal
        else:
            expected.append(f"within {within:g} of {equal:.10g}")
            holds &= abs(value - equal) <= within
    if below is not None:
        expected.append(f"below {below:.10g}")
        holds &= value < below
    if above is not None:
        expected.append(f"above {above:.10g}")
        holds &= value > above
    if not holds:
        raise AssertionError(
            f"this is now false: {sentence!r} (claim {name!r}: the value is {value!r}, "
            f"expected {' and '.join(expected)})"
        )

    text = _format(value, digits)
    shown = {
        "text/plain": f"Checked: {sentence} [{text}]",
        "text/html": f'<p class="claim" id="claim-{name}"><span class="claim-mark">Checked</span> '
        f'{html.escape(sentence)} <code class="claim-value">{html.escape(text)}</code></p>',
    }
    display(shown, raw=True)
    scrapbook = {"name": name, "mime_prefix": GLUE.removesuffix("text/plain")}
    display({GLUE: text}, raw=True, metadata={"scrapbook": scrapbook})


def _scalar(name, value):
    """Return a Python bool, int, float or str from any scalar."""
    if isinstance(value, (str, bool)):
        return value
    array = np.asarray(value)
    if array.ndim != 0 or array.dtype.kind not in "biuf":
        raise ValueError(
            f"claim {name!r} needs one real number, bool or text, "
            f"got {type(value).__name__} of shape {array.shape}"
        )
    return array.item()


def _format(value, digits):
    """Return the rounded text of a value, without exponents where a reader can do without."""
    if isinstance(value, (str, bool)) or isinstance(value, numbers.Integral):
        return str(value)
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if -5 < int(exponent) < 6:
        return f"{value:.{max(0, digits - 1 - int(exponent))}f}"
    return f"{mantissa}e{int(exponent)}"
