"""Check the scoreboard of reproduced results and write its page.

`python -m tools.scoreboard` checks book/scoreboard.yml and writes book/scoreboard.md.
"""

import ast
import functools
import importlib
import re
from collections import Counter
from pathlib import Path

import jupytext
import yaml

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "book" / "scoreboard.yml"
PAGE = ROOT / "book" / "scoreboard.md"
FIELDS = {"id", "source", "claim", "status", "page"}
FIELDS |= {"functions", "claims", "tests", "parts", "needs"}
SOURCES = {
    "M": "Symmetrized variational inference",
    "G": "Permutation-invariant posteriors",
    "S": "Removing symmetries: syre",
    "K": "Implicit regularization in beta-VAEs: GRAE",
}
# Each status has a mark, so that it is told by more than colour.
MARKS = {"reproduced": "●", "scaled down": "◐", "not confirmed": "✕", "open": "○"}
INTRODUCTION = """\
# What we reproduced

This page is made from a list of rows, `book/scoreboard.yml`. A row is one claim of a source. Its
status is one of four:

- **● reproduced**: a page shows it, at the source's own size;
- **◐ scaled down**: a page shows it on a smaller problem, and the row says how;
- **✕ not confirmed**: a page measures it and finds otherwise, and the row says what;
- **○ open**: not done yet, and the row says what it would take.

A row leaves "open" only with a page, a {ref}`checked claim <how-claims-work>` on that page, and a
test. A test of this project fails if one of the three is missing or does not exist. The sources'
own mistakes stand on another page: [errors we found in the sources](errors.md).
"""


def load(path=ROWS):
    """Return the rows; ValueError names everything that is wrong with them."""
    rows = yaml.safe_load(path.read_text("utf-8"))
    found = problems(rows)
    if found:
        raise ValueError("the scoreboard has problems:\n" + "\n".join(found))
    return rows


def problems(rows, root=ROOT):
    """Return one sentence for everything that a row claims and the project does not hold."""
    counts = Counter(row.get("id") for row in rows)
    found = [f"{name}: the id is used {n} times" for name, n in counts.items() if n > 1]
    for row in rows:
        found += [f"{row.get('id')}: {text}" for text in _row_problems(row, root)]
    return found


def _row_problems(row, root):
    """Yield what is wrong with one row."""
    if set(row) != FIELDS:
        yield f"the fields must be {', '.join(sorted(FIELDS))}"
        return
    for field in ("functions", "claims", "tests", "parts"):
        if not isinstance(row[field], list):
            yield f"{field} must be a list"
            return
    if not row["claim"] or row["id"][0] not in SOURCES:
        yield "needs a claim and an id that starts with " + ", ".join(SOURCES)
    if not re.search(rf"^@\w+\{{{row['source']},", _text(root / "book" / "references.bib"), re.M):
        yield f"references.bib has no {row['source']}"
    statuses = [row["status"]] + [part["status"] for part in row["parts"]]
    for status in statuses:
        if status not in ("open", "reproduced") and not re.match(
            r"(scaled down|not confirmed): \S", status
        ):
            yield f"unknown status {status!r}"
    if row["status"] == "open" and not row.get("needs"):
        yield "an open row says in `needs` what it would take"
    if row["status"] == "reproduced" and set(statuses) != {"reproduced"}:
        yield "is called reproduced, but one of its parts is not"
    if any(status != "open" for status in statuses):
        for field in ("page", "claims", "tests"):
            if not row[field]:
                yield f"is not open, so it must name its {field}"
    yield from _missing_evidence(row, root)


def _missing_evidence(row, root):
    """Yield what a row names and the project does not have."""
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
        if not _importable(name):
            yield f"there is no function {name}"
    for test in row["tests"]:
        file, _, name = test.partition("::")
        if name not in test_names(root / file):
            yield f"there is no test {test}"


def page_source(page, root=ROOT):
    """Return the source of a notebook: notebooks/x -> book/x.md."""
    return root / "book" / Path(page).relative_to("notebooks").with_suffix(".md")


def claim_names(path):
    """Return the names of the claims in a source's code cells, in order."""
    return list(_claims_in(path.read_text("utf-8"), path.name))


@functools.cache  # several rows name one page
def _claims_in(text, page):
    notebook = jupytext.reads(text, fmt="md:myst")
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    # A line of IPython's own (%magic, !command) is not Python: ast cannot read it.
    code = re.sub(r"^(\s*)[%!].*$", r"\1pass", "\n".join(cells), flags=re.M)
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


def test_names(path):
    """Return the names of the tests in a test file; none if there is no such file."""
    return _tests_in(_text(path))


@functools.cache
def _tests_in(text):
    functions = (node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
    return [node.name for node in functions if node.name.startswith("test_")]


def page(rows=None):
    """Return the text of the page."""
    rows = load() if rows is None else rows
    sections = [_section(letter, rows) for letter in SOURCES]
    return "\n".join([INTRODUCTION, _summary(rows), "", *sections])


def _summary(rows):
    """Return the counts, in a sentence."""
    counts = Counter(row["status"].split(":")[0] for row in rows)
    text = ", ".join(f"{counts[kind]} {kind}" for kind in MARKS)
    parts = [part["status"] for row in rows for part in row["parts"]]
    done = sum(status != "open" for status in parts)
    return (
        f"So far, of {len(rows)} rows: **{text}**. Of {len(parts)} parts of rows, {done} are done."
    )


def _section(letter, rows):
    """Return the heading and the table of one source."""
    rows = [row for row in rows if row["id"].startswith(letter)]
    keys = ", ".join(f"{{cite:t}}`{key}`" for key in dict.fromkeys(row["source"] for row in rows))
    lines = [f"## {SOURCES[letter]}", "", f"Sources: {keys}.", ""]
    lines += ["```{list-table}", ":header-rows: 1", ":widths: 8 47 45", ""]
    lines += ["* - Row", "  - The source says", "  - Status"]
    for row in rows:
        lines += [f"* - {row['id']}", f"  - {row['claim']}", f"  - {_status(row['status'])}"]
        lines += [f"\n    {text}" for text in _details(row)]
    return "\n".join([*lines, "```", ""])


def _status(status):
    """Return a status as words with its mark."""
    kind, _, how = status.partition(": ")
    return f"**{MARKS[kind]} {kind}**" + (f": {how}" if how else "")


def _details(row):
    """Yield the further paragraphs of a row's status cell."""
    if row["page"]:
        # The page links itself, so its own title becomes the link's text.
        yield f"Page: [](../{row['page']}.ipynb)."
    for field in ("claims", "functions", "tests"):
        if row[field]:
            yield f"{field.capitalize()}: " + ", ".join(f"`{name}`" for name in row[field]) + "."
    if row.get("needs"):
        yield f"Needs: {row['needs']}."
    if row["parts"]:
        parts = "; ".join(f"{part['part']}: {_status(part['status'])}" for part in row["parts"])
        yield f"Parts: {parts}."


def _importable(name):
    """Tell whether a dotted name is something public in symlib."""
    module, _, attribute = name.rpartition(".")
    if not module.startswith("symlib"):
        return False
    try:
        return hasattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError:
        return False


def _text(path):
    """Return a file's text, or nothing if there is no such file."""
    return path.read_text("utf-8") if path.is_file() else ""


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
