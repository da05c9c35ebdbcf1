r"""A Sphinx extension: docstrings may hold `code` and $formulas$, as they read best in an editor.

reStructuredText would take a backquoted name for a title and a dollar for a dollar.
"""

import re

TOKEN = re.compile(
    r"(?P<kept>``.*?``|:[\w:]+:`[^`]*`)"
    r"|[ \t]*\$\$(?P<display>.+?)\$\$(?P<end>[.,;:]?)[ \t]*\n?"
    r"|\$(?P<inline>[^$]+?)\$"
    r"|`(?P<code>[^`]+)`(?!_)",
    re.DOTALL,
)


def convert(text):
    r"""Return a docstring with :math: for $...$ and ``...`` for `...`."""
    return TOKEN.sub(_replace, text)


def _replace(match):
    """Return the reStructuredText of one piece of code or one formula."""
    kind = next(kind for kind in ("kept", "code", "inline", "display") if match[kind])
    content = " ".join(match[kind].split())
    if kind == "kept":
        return match[kind]
    if kind == "code":
        return f"``{content}``"
    if kind == "inline":
        return f":math:`{content}`"
    # A directive stands alone: blank lines around it, and the paragraph goes on at its indent.
    line = match.string[: match.start()].rpartition("\n")[2] or match[0]
    indent = " " * (len(line) - len(line.lstrip()))
    return f"\n\n{indent}.. math:: {content}{match['end']}\n\n"


def process(app, what, name, obj, options, lines):
    """Convert a docstring in place, before napoleon reads its sections."""
    lines[:] = convert("\n".join(lines)).split("\n")


def setup(app):
    """Connect to autodoc."""
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
