"""Check the scoreboard of reproduced results and write its page.

`python -m tools.scoreboard` checks book/scoreboard.yml and writes book/scoreboard.md.
"""

import functools
import re
from collections import Counter
from pathlib import Path

import yaml

from symcourse.experiments import load_result
from tools import evidence, links

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "book" / "scoreboard.yml"
PAGE = ROOT / "book" / "scoreboard.md"
LISTS = {"functions", "claims", "tests", "results", "sizes", "parts"}
FIELDS = LISTS | {"id", "source", "statement", "status", "page", "needs"}
# What a contradiction rests on: proofs on the page of errors, or the source's own stated settings.
GROUNDS = {"proof", "stated"}
SOURCES = {
    "M": "Symmetrized variational inference",
    "G": "Permutation-invariant posteriors",
    "S": "Removing symmetries: syre",
    "K": "Implicit regularization in beta-VAEs: GRAE",
}
DEPENDS = "depends on a setting that the source leaves open"
# Each status has a mark, so that it is told by more than colour. All but the first and the last
# say more behind a colon.
MARKS = {
    "reproduced": "●",
    "scaled down": "◐",
    DEPENDS: "◇",
    "contradicted": "✕",
    "being run again": "↻",
    "open": "○",
}
INTRODUCTION = """\
# What we reproduced

A row is the main statement that a source makes with a figure, a theorem or an equation. Weaker
statements beside it are parts of the row.

{summary}

A status is one of six:

- **● reproduced**: a page shows or proves it, and no size is below one that the source states;
- **◐ scaled down**: a page shows it on a smaller problem than the source's, or on one of ours where
  the source has none, and the sizes say which;
- **◇ depends on a setting that the source leaves open**: it holds for some values of the setting
  and not for others, and the row says for which;
- **✕ contradicted**: by a proof on the page of [errors](errors.md), or by a run with the settings
  that the source itself states;
- **↻ being run again**: what is stored does not decide it, and the row says what is known;
- **○ open**: not done yet, and the row says what it would take.

A row leaves "open" only with a page, a {{ref}}`checked claim <how-claims-work>` on that page, and a
test; nothing is called contradicted without one of the two grounds. A test of this project sees to
both. We read text copies of the sources, without their figures, and of {{cite:t}}`ziyin2024syre`
the first preprint: the published version differs. Of {{cite:t}}`gelberg2024` we had a summary and
reports, so its rows are statements as they were reported to us. This page is made from
`book/scoreboard.yml`.

{results}
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


def kind(status):
    """Return the kind of a status, the words before its colon."""
    return status.partition(": ")[0]


def _row_problems(row, root):
    """Yield what is wrong with one row."""
    if set(row) - GROUNDS != FIELDS:
        yield f"the fields must be {', '.join(sorted(FIELDS))}"
        return
    for field in LISTS:
        if not isinstance(row[field], list):
            yield f"{field} must be a list"
            return
    if not row["statement"] or row["id"][0] not in SOURCES:
        yield "needs a statement and an id that starts with " + ", ".join(SOURCES)
    bibliography = evidence.text(root / "book" / "references.bib")
    if not re.search(rf"^@\w+\{{{row['source']},", bibliography, re.M):
        yield f"references.bib has no {row['source']}"
    kinds = {kind(row["status"])} | {kind(part["status"]) for part in row["parts"]}
    if row["status"] == "open" and not row.get("needs"):
        yield "an open row says in `needs` what it would take"
    if kinds != {"open"}:
        for field in ("page", "claims", "tests"):
            if not row[field]:
                yield f"is not open, so it must name its {field}"
    for entry in (row, *row["parts"]):
        yield from _status_problems(entry, root)
    yield from _size_problems(row)
    yield from evidence.unfounded(row, root)
    yield from evidence.missing(row, root)


def _status_problems(entry, root):
    """Yield what is wrong with the status of a row or a part."""
    status = entry["status"]
    more = kind(status) in MARKS and re.search(r": \S", status)
    if not more and status not in ("open", "reproduced"):
        yield f"unknown status {status!r}"
    grounds = [entry[ground] for ground in GROUNDS & set(entry)]
    if (kind(status) == "contradicted") != bool(grounds):
        yield "a contradiction, and nothing else, names a proof or the source's stated settings"
    if not all(isinstance(ground, list) and ground for ground in grounds):
        yield "proof and stated are lists with something in them"
        return
    for name in entry.get("proof", []):
        if name not in evidence.proved_errors(root):
            yield f"the page of errors proves no {name}"


def _size_problems(row):
    """Yield where a row's sizes do not fit its status."""
    smaller = False
    for size in row["sizes"]:
        if set(size) != {"what", "ours", "source"} or size["ours"] is None:
            yield "a size has what, ours and source (null: not stated)"
            return
        ours, theirs = size["ours"], size["source"]
        if all(isinstance(number, int | float) for number in (ours, theirs)):
            smaller |= ours < theirs
        else:
            smaller |= theirs is not None and ours != theirs
    if kind(row["status"]) == "scaled down" and not smaller:
        yield "is called scaled down, but no size is below the source's"
    if row["status"] == "reproduced" and smaller:
        yield "is called reproduced, but a size is not the source's"


# The page.


def page(rows=None):
    """Return the text of the page."""
    rows = load() if rows is None else rows
    sections = [_section(letter, rows) for letter in SOURCES]
    introduction = INTRODUCTION.format(summary=_summary(rows), results=_results(rows))
    return "\n".join([introduction, *sections])


def _summary(rows):
    """Return how many main statements hold, in two sentences."""
    counts = Counter(kind(row["status"]) for row in rows)
    holds = counts["reproduced"] + counts["scaled down"]
    return (
        f"**Of {len(rows)} main statements, {holds} hold where we tried them**: "
        f"{counts['reproduced']} at no smaller size than the source states, and "
        f"{counts['scaled down']} on a smaller problem. Of the others, {counts[DEPENDS]} hang on a "
        f"setting that the source leaves open, {counts['being run again']} are being run again, "
        f"{counts['open']} open and {counts['contradicted']} contradicted."
    )


def _results(rows):
    """Return what is to be known about the age of the stored results."""
    names = dict.fromkeys(name for row in rows for name in row["results"])
    unknown = sorted(name for name in names if _is_current(name) is None)
    text = (
        "A stored result holds a digest of the code that made it. A row says where the code has "
        "changed since; the result need not be wrong then."
    )
    if unknown:
        text += (
            f" {', '.join(unknown)} {'is' if len(unknown) == 1 else 'are'} from before results "
            "held a digest: kept as made, with code that may have changed since."
        )
    return text


@functools.cache
def _is_current(name):
    """Tell whether a result is of the code as it is; None if it does not say or is not there."""
    try:
        return load_result(name)["is_current"]
    except FileNotFoundError:  # a problem that `problems` names
        return None


def _section(letter, rows):
    """Return the heading and the table of one source."""
    rows = [row for row in rows if row["id"].startswith(letter)]
    keys = ", ".join(f"{{cite:t}}`{key}`" for key in dict.fromkeys(row["source"] for row in rows))
    lines = [f"## {SOURCES[letter]}", "", f"Sources: {keys}.", ""]
    lines += ["```{list-table}", ":header-rows: 1", ":widths: 8 42 50", ""]
    lines += ["* - Row", "  - The source says", "  - Status"]
    for row in rows:
        lines += [f"* - {row['id']}", f"  - {row['statement']}", f"  - {_status(row, row)}"]
        lines += [f"\n    {text}" for text in _details(row)]
    return "\n".join([*lines, "```", ""])


def _status(entry, row):
    """Return a status as words with its mark, and what a contradiction rests on."""
    status = entry["status"]
    shown = evidence.VALUE.sub(lambda name: _value(name[1], row["page"]), status)
    _, _, how = shown.partition(": ")
    text = f"**{MARKS[kind(status)]} {kind(status)}**" + (f": {how}" if how else "")
    if "proof" in entry:
        names = (f"{{ref}}`{name} <error-{name.lower()}>`" for name in entry["proof"])
        text += f" (proof: {', '.join(names)})"
    if "stated" in entry:
        text += f" (with the source's own settings: {', '.join(entry['stated'])})"
    return text


def _value(name, page):
    """Return what a claim of a page shows, from the page's stored notebook."""
    values = evidence.claim_values(page, ROOT)
    if name not in values:
        raise ValueError(f"{page}: its notebook stores no value of {name}: run `make notebooks`.")
    return values[name]


def _details(row):
    """Yield the further paragraphs of a row's status cell."""
    if row["page"]:
        # The page links itself, so its own title becomes the link's text.
        yield f"Page: [](../{row['page']}.md)."
    for part in row["parts"]:
        yield f"*{part['part']}*: {_status(part, row)}"
    if row["sizes"]:
        yield f"Size, ours and the source's: {'; '.join(map(_size, row['sizes']))}."
    if row.get("needs"):
        yield f"Needs: {row['needs']}."
    lines = list(_links(row))
    if lines:
        yield "\n\n    ".join([":::{dropdown} Evidence", *lines, ":::"])


def _size(size):
    """Return one size in words."""
    ours, theirs = (
        f"{number:,}".replace(",", "\N{NO-BREAK SPACE}") if isinstance(number, int) else number
        for number in (size["ours"], size["source"])
    )
    return f"{size['what']} {ours} and {'not stated' if theirs is None else theirs}"


def _links(row):
    """Yield a line of links for each kind of evidence."""
    if row["claims"]:
        yield f"Claims: {', '.join(links.claim(row['page'], name) for name in row['claims'])}."
    if row["functions"]:
        yield f"Functions: {', '.join(map(links.function, row['functions']))}."
    if row["tests"]:
        yield f"Tests: {', '.join(map(links.test, row['tests']))}."
    if row["results"]:
        results = (
            links.result(name) + (" (made by older code)" if _is_current(name) is False else "")
            for name in row["results"]
        )
        yield f"Stored results: {', '.join(results)}."


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
