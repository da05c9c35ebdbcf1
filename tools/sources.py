"""Check the index of the sources and write its page.

`python -m tools.sources` checks book/sources.yml and writes book/sources.md.
"""

import re
from collections import Counter
from pathlib import Path

import yaml

from tools import evidence, links

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "book" / "sources.yml"
PAGE = ROOT / "book" / "sources.md"
LISTS = ("functions", "claims", "results", "tests", "errors")
REQUIRED = {"place", "says", "page", "section", "tests"}
INTRODUCTION = """\
# From a formula to code, test and page

Each row is a place in one of the sources: an equation, a figure, a theorem or a listing that this
course implements. It names the code, the section of the book that explains it, and the tests that
would fail if the code were wrong. Where a source has a slip, the row names its entry on the page of
[errors](errors.md): read that first. How far a result holds is on the
[scoreboard](scoreboard.md), in the row named beside the place.

There are {count} places. This page is made from `book/sources.yml`. A test of the project sees that
every function, section, claim, result and test exists, and that no numbered equation or figure of a
text that we read is forgotten: what is not implemented stands below its table.
"""


def load(path=SOURCES):
    """Return the sources with their entries; ValueError names everything that is wrong."""
    sources = yaml.safe_load(path.read_text("utf-8"))
    found = problems(sources)
    if found:
        raise ValueError("the index of the sources has problems:\n" + "\n".join(found))
    return [
        source | {"entries": [_complete(entry) for entry in source["entries"]]}
        for source in sources
    ]


def problems(sources, root=ROOT):
    """Return one sentence for everything that an entry names and the project does not hold."""
    found, bibliography = [], evidence.text(root / "book" / "references.bib")
    scoreboard = yaml.safe_load(evidence.text(root / "book" / "scoreboard.yml"))
    rows = {row["id"] for row in scoreboard}
    for source in sources:
        if not re.search(rf"^@\w+\{{{source['source']},", bibliography, re.M):
            found.append(f"references.bib has no {source['source']}")
        counts = Counter(entry.get("place") for entry in source["entries"])
        found += [f"{place}: there are {n} such places" for place, n in counts.items() if n > 1]
        for entry in source["entries"]:
            where = f"{source['title']}, {entry.get('place')}"
            found += [f"{where}: {text}" for text in _entry_problems(entry, rows, root)]
    return found


def _complete(entry):
    """Return an entry with all its lists."""
    return {name: [] for name in LISTS} | {"row": None} | entry


def _entry_problems(entry, rows, root):
    """Yield what is wrong with one entry."""
    unknown = set(entry) - REQUIRED - set(LISTS) - {"row"}
    if unknown or not all(entry.get(field) for field in REQUIRED):
        yield f"needs {', '.join(sorted(REQUIRED))}, and has {', '.join(sorted(unknown)) or 'less'}"
        return
    entry = _complete(entry)
    for field in LISTS:
        if not isinstance(entry[field], list):
            yield f"{field} must be a list"
            return
    if not (entry["functions"] or entry["claims"] or entry["results"]):
        yield "names no code: functions, claims or results"
    source = evidence.page_source(entry["page"], root)
    if source.is_file() and entry["section"] not in evidence.headings(source):
        yield f"the page has no section {entry['section']!r}"
    for name in entry["errors"]:
        if f"(error-{name.lower()})=\n" not in evidence.text(root / "book" / "errors.md"):
            yield f"the page of errors has no {name}"
    if entry["row"] and entry["row"] not in rows:
        yield f"the scoreboard has no row {entry['row']}"
    yield from evidence.missing(entry, root)


# The page.


def page(sources=None):
    """Return the text of the page."""
    sources = load() if sources is None else sources
    count = sum(len(source["entries"]) for source in sources)
    return "\n".join([INTRODUCTION.format(count=count), *map(_section, sources)])


def _section(source):
    """Return the heading and the table of one source."""
    lines = [f"## {source['title']}", "", f"{{cite:t}}`{source['source']}`. {source['note']}", ""]
    lines += ["```{list-table}", ":header-rows: 1", ":widths: 45 55", ""]
    lines += ["* - In the source", "  - Here"]
    for entry in source["entries"]:
        there, here = ("\n\n    ".join(cell) for cell in (_there(entry), _here(entry)))
        lines += [f"* - {there}", f"  - {here}"]
    left_out = "; ".join(f"{item['place']} ({item['why']})" for item in source["left_out"])
    return "\n".join([*lines, "```", "", f"Not here: {left_out}.", ""])


def _there(entry):
    """Yield the paragraphs of an entry's first cell."""
    row = f" (row [{entry['row']}](scoreboard.md))" if entry["row"] else ""
    yield f"**{entry['place']}**{row}"
    yield entry["says"]


def _here(entry):
    """Yield the paragraphs of an entry's second cell."""
    page = entry["page"]
    if entry["errors"]:
        names = (f"{{ref}}`{name} <error-{name.lower()}>`" for name in entry["errors"])
        yield f"Read first: {', '.join(names)}."
    code = [*map(links.function, entry["functions"])]
    code += [f"claim {links.claim(page, name)}" for name in entry["claims"]]
    code += [f"`symcourse reproduce {n}` ({links.result(n)})" for n in entry["results"]]
    yield f"Code: {', '.join(code)}."
    chapter = int(Path(page).name.partition("-")[0])
    yield f"Page: chapter {chapter}, {links.section(page, entry['section'])}."
    yield f"Test: {', '.join(map(links.test, entry['tests']))}."


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
