"""What the project holds of what its pages name: claims, tests, functions, results, proofs."""

import ast
import functools
import importlib
import inspect
import json
import re
from pathlib import Path

import jupytext

# Decimals and percentages. Whole numbers count things, name sections and carry exponents.
NUMBER = re.compile(r"(?<![\w.-])(\d+\.\d+|\d+(?=\s?%))(?![\w.])")
# In a status: the value of a claim, by its name in braces.
VALUE = re.compile(r"\{([a-z0-9]+(?:-[a-z0-9]+)+)\}")
# Roles show what a cell computed, and the target of a link is no prose.
NOT_PROSE = re.compile(r"\{[\w:]+\}`[^`]*`|\]\([^)]*\)")
# A listing or a directive between two lines of backquotes.
FENCED = re.compile(r"^(`{3,}).*?^\1$", re.M | re.S)


def missing(row, root):
    """Yield what a row of the scoreboard or the index names and the project does not have."""
    names = []
    if row["page"]:
        source = page_source(row["page"], root)
        if source.is_file():
            names = claim_names(source)
        else:
            yield f"the page {row['page']} has no source {source.relative_to(root)}"
    for name in row["claims"]:
        if name not in names:
            yield f"the page has no claim {name}"
    for name in row["functions"]:
        if not public(name):
            yield f"there is no function {name}"
    for test in row["tests"]:
        file, _, name = test.partition("::")
        if name not in test_names(root / file):
            yield f"there is no test {test}"
    for name in row["results"]:
        if not (root / result_path(name)).is_file():
            yield f"there is no result {name}"


def unfounded(row, root):
    """Yield what the statuses of a row show and its page does not compute."""
    source = page_source(row["page"], root) if row["page"] else None
    code = code_of(text(source)) if source else ""
    statuses = "\n".join(entry["status"] for entry in (row, *row["parts"]))
    for name in VALUE.findall(statuses):
        if name not in row["claims"]:
            yield f"a status shows {name}, which is no claim of the row"
    for number in typed_numbers(statuses, code):
        yield f"{number} in a status is typed: no cell of the page holds it"


def page_source(page, root):
    """Return the source of a page."""
    return root / f"{page}.md"


def claim_names(path):
    """Return the names of the claims in a source's code cells, in order."""
    return list(_claims_in(path.read_text("utf-8"), path.name))


@functools.cache  # several rows name one page
def _claims_in(text, page):
    # A line of IPython's own (%magic, !command) is not Python: ast cannot read it.
    code = re.sub(r"^(\s*)[%!].*$", r"\1pass", code_of(text), flags=re.M)
    names = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "claim":
            name = node.args[0] if node.args else None
            if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
                raise ValueError(
                    f"{page}: a claim's name must be written out, as its first argument"
                )
            names.append(name.value)
    return names


def code_of(source):
    """Return the code cells of a source's text, joined."""
    return _cells_in(source, "code")


def headings(path):
    """Return the headings of a source's text cells, in order."""
    return _headings_in(path.read_text("utf-8"))


@functools.cache
def _headings_in(source):
    prose = FENCED.sub("", _cells_in(source, "markdown"))
    return re.findall(r"^#+ (.+)$", prose, re.M)


def _cells_in(source, kind):
    """Return the cells of a kind, joined."""
    return "\n".join(text for cell_type, text in _read(source) if cell_type == kind)


@functools.cache  # many entries name one page
def _read(source):
    cells = jupytext.reads(source, fmt="md:myst").cells
    return [(cell.cell_type, cell.source) for cell in cells]


def claim_values(page, root):
    """Return what a stored notebook's claims show, a dict from their names to texts."""
    notebook = root / "notebooks" / f"{Path(page).relative_to('book')}.ipynb"
    return _values_in(text(notebook) or '{"cells": []}')


@functools.cache
def _values_in(notebook):
    outputs = [o for cell in json.loads(notebook)["cells"] for o in cell.get("outputs", [])]
    values = {}
    for output in outputs:
        # The value of a claim names its type itself, so that symcourse.page, which starts
        # matplotlib, need not say it.
        if kept := output.get("metadata", {}).get("scrapbook"):
            values[kept["name"]] = "".join(output["data"][kept["mime_prefix"] + "text/plain"])
    return values


def typed_numbers(prose, code):
    """Return the decimals and percentages of a text that the code of its page does not hold."""
    known = {float(number) for number in re.findall(r"\d+\.\d+|\d+", code)}
    found = NUMBER.findall(NOT_PROSE.sub("", prose))
    return [n for n in found if not {float(n), float(n) / 100} & known]


def test_names(path):
    """Return the names of the tests in a test file; none if there is no such file."""
    return _tests_in(text(path))


@functools.cache
def _tests_in(text):
    functions = (node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
    return [node.name for node in functions if node.name.startswith("test_")]


def proved_errors(root):
    """Return the names of the errors that the page of errors proves: its part "Errors"."""
    page = text(root / "book" / "errors.md")
    parts = re.findall(r"^## Errors.*?(?=^## |\Z)", page, re.M | re.S)
    return [
        name.upper() for part in parts for name in re.findall(r"^\(error-(e\d+)\)=", part, re.M)
    ]


def public(name):
    """Tell whether the reference describes a name: a function or class on a face, or a method.

    A face is a folder of symlib, whose `__all__` lists its names, or a module without `__all__`,
    with what it defines. A method is one that its class defines itself, with a docstring.
    """
    parts = name.split(".")
    if parts[0] != "symlib" or len(parts) < 3:
        return False
    _, folder, owner, *method = parts
    try:
        face = importlib.import_module(f"symlib.{folder}")
    except ModuleNotFoundError:
        return False
    found = getattr(face, owner, None)
    listed = getattr(face, "__all__", None)
    if not (inspect.isclass(found) or inspect.isfunction(found)) or owner.startswith("_"):
        return False
    if owner not in listed if listed else found.__module__ != face.__name__:
        return False
    if not method:
        return True
    (method, *deeper) = method
    defined = vars(found).get(method)
    return not (deeper or method.startswith("_")) and bool(getattr(defined, "__doc__", None))


def result_path(name):
    """Return where the stored result of an experiment lies, from the repository."""
    return f"symcourse/experiments/results/{name}.json"


def text(path):
    """Return a file's text, or nothing if there is no such file."""
    return path.read_text("utf-8") if path.is_file() else ""
