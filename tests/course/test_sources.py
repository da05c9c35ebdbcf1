"""The index of the sources leads to what is there, and forgets no numbered equation."""

import functools
import importlib
import inspect
import re
from pathlib import Path

import pytest

import symlib
from tests.small_book import HEADER
from tools import build, links, sources

# How many of each kind the sources number, in the texts that we read.
NUMBERED = {
    ("moore2016", "equation"): 7,
    ("moore2016", "figure"): 4,
    ("moore2016", "listing"): 1,
    ("moore2016", "footnote"): 1,
    ("ziyin2024syre", "equation"): 52,
    ("ziyin2024syre", "figure"): 9,
    ("ziyin2024syre", "table"): 1,
    ("kumar2020", "equation"): 15,
    ("kumar2020", "figure"): 7,
    ("kumar2020", "table"): 1,
    ("kumar2020", "theorem"): 1,
    ("kumar2020", "corollary"): 2,
}
# The statements of syre are numbered through.
STATEMENTS = "definition|proposition|theorem|lemma|remark"
PLACE = r"(\w+)s? ((?:\d+(?: to \d+)?(?:, | and )?)+)"
AUTHORS = {"Moore": "moore2016", "Ziyin": "ziyin2024syre", "Kumar": "kumar2020"}
EQUATIONS = r"(Moore|Ziyin|Kumar)[^;]*?\(?20\d\d\)?, eqs?\. ((?:\d+(?:, | and )?)+)"

CHAPTER = (
    HEADER
    + """\
# A chapter

## A section

```{admonition} Not a heading
# of the page
```

```{code-cell} ipython3
# Nor is this
claim("first", 1.0, "One is one.", equal=1)
```
"""
)
ENTRY = {
    "place": "Equation 1",
    "says": "Something.",
    "functions": ["symlib.groups.SignFlip"],
    "claims": ["first"],
    "results": ["M1"],
    "page": "book/01-chapter",
    "section": "A section",
    "tests": ["tests/library/test_x.py::test_y"],
    "errors": ["E1"],
    "row": "M1",
}


@pytest.fixture
def root(tmp_path):
    """A small project in which the entry above is right."""
    files = {
        "book/01-chapter.md": CHAPTER,
        "book/errors.md": "(error-e1)=\n### E1. An error\n",
        "book/scoreboard.yml": "- id: M1\n",
        "book/references.bib": "@misc{moore2016,\n}\n",
        "symcourse/experiments/results/M1.json": "{}",
        "tests/library/test_x.py": "def test_y():\n    pass\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


def index(*entries, source="moore2016"):
    """An index of one source."""
    return [{"source": source, "title": "T", "note": "N.", "left_out": [], "entries": entries}]


@functools.cache
def loaded():
    """Return the index, read and checked once."""
    return sources.load()


def numbers(place):
    """Return the (kind, number) pairs of a place: Figures 1 and 3 are figure 1 and figure 3."""
    found = set()
    for kind, listed in re.findall(PLACE, place.lower()):
        kind = {"corollarie": "corollary"}.get(kind.rstrip("s"), kind.rstrip("s"))
        for first, last in re.findall(r"(\d+)(?: to (\d+))?", listed):
            found |= {(kind, n) for n in range(int(first), int(last or first) + 1)}
    return found


def places():
    """Return the places of each source, with those left out."""
    found = {}
    for source in loaded():
        named = [*source["entries"], *source["left_out"]]
        found.setdefault(source["source"], []).extend(item["place"] for item in named)
    return found


def test_the_index_has_no_problems():
    assert sources.problems(loaded()) == []


def test_page_is_the_one_generated():
    assert sources.PAGE.read_text("utf-8") == sources.page(loaded())


def test_a_page_that_is_older_than_its_data_stops_the_build(tmp_path):
    path = tmp_path / "book" / "sources.md"
    path.parent.mkdir()
    path.write_text(sources.page(loaded()), "utf-8")
    build.check_sources(tmp_path)
    path.write_text("older", "utf-8")
    with pytest.raises(SystemExit, match="sources.md is not what sources.yml says"):
        build.check_sources(tmp_path)


def test_places_are_read():
    assert numbers("Equations 3 and 4") == {("equation", 3), ("equation", 4)}
    assert numbers("Theorem 6, items 2 to 4") >= {("theorem", 6)}
    assert numbers("Figures 1, 5 and 6 with table 2") >= {("figure", 5), ("table", 2)}
    assert ("equation", 2) in numbers("Proposition 2 with equations 1 to 3")


@pytest.mark.parametrize(("source", "kind"), NUMBERED)
def test_every_number_of_a_source_is_there_or_left_out(source, kind):
    found = set().union(*map(numbers, places()[source]))
    wanted = {(kind, n) for n in range(1, NUMBERED[source, kind] + 1)}
    assert wanted - found == set()
    assert {pair for pair in found if pair[0] == kind} <= wanted  # no number that is not printed


def test_every_statement_of_syre_is_there_or_left_out():
    found = set().union(*map(numbers, places()["ziyin2024syre"]))
    assert {n for kind, n in found if kind in STATEMENTS.split("|")} == set(range(1, 10))


def cited_equations():
    """Yield (name, source, number) for each equation that a public docstring refers to."""
    for path in sorted(Path(symlib.__file__).parent.glob("*/__init__.py")):
        face = importlib.import_module(f"symlib.{path.parent.name}")
        for name in face.__all__:
            text = " ".join((inspect.getdoc(getattr(face, name)) or "").split())
            for author, listed in re.findall(EQUATIONS, text):
                for number in re.findall(r"\d+", listed):
                    yield f"{face.__name__}.{name}", AUTHORS[author], int(number)


def test_an_equation_that_a_docstring_cites_leads_to_the_function():
    cited = list(cited_equations())
    assert len(cited) > 15
    named = {
        (function, source["source"], number)
        for source in loaded()
        for entry in source["entries"]
        for function in entry["functions"]
        for kind, number in numbers(entry["place"])
        if kind == "equation"
    }
    assert [item for item in cited if item not in named] == []


@pytest.mark.parametrize(
    ("source", "place", "function"),
    [
        ("moore2016", "Equation 5", "symlib.posteriors.Symmetrized.kl_from_base"),
        ("ziyin2024syre", "Equation 3", "symlib.syre.remove_symmetry"),
        ("kumar2020", "Equation 14", "symlib.autoencoders.grae_bound"),
        ("gelberg2024", "The $K$-sample bound", "symlib.posteriors.sampled_log_ratio"),
        ("nakajima2013", "The threshold", "symlib.factorization.mean_field_threshold"),
    ],
)
def test_a_formula_is_found_by_its_place(source, place, function):
    entries = [e for s in loaded() if s["source"] == source for e in s["entries"]]
    (entry,) = (entry for entry in entries if entry["place"] == place)
    assert function in entry["functions"]


def test_the_first_screen_of_the_readme_leads_here_and_to_the_scoreboard():
    first = (sources.ROOT / "README.md").read_text("utf-8").partition("\n## ")[0]
    assert "(book/sources.md)" in first and "(book/scoreboard.md)" in first


def test_a_right_entry_has_no_problem(root):
    assert sources.problems(index(ENTRY), root) == []
    for name in ("symlib.groups.Reflection.distance", "symlib.data.load"):
        assert sources.problems(index(ENTRY | {"functions": [name]}), root) == []
    short = {k: v for k, v in ENTRY.items() if k not in ("claims", "results", "errors", "row")}
    assert sources.problems(index(short), root) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"place": ""}, "needs"),
        ({"tests": []}, "needs"),
        ({"section": None}, "needs"),
        ({"colour": "green"}, "has colour"),
        ({"functions": "symlib.groups.SignFlip"}, "must be a list"),
        ({"functions": [], "claims": [], "results": []}, "names no code"),
        ({"functions": ["symlib.groups.NoSuchGroup"]}, "no function"),
        ({"functions": ["symlib.groups.group.SignFlip"]}, "no function"),  # behind the face
        ({"functions": ["symlib.groups.importlib"]}, "no function"),
        ({"functions": ["symlib.groups.SignFlip.no_method"]}, "no function"),
        ({"functions": ["symlib.groups.SignFlip.__init__"]}, "no function"),
        ({"functions": ["symlib.nowhere.f"]}, "no function"),
        ({"functions": ["symlib.groups"]}, "no function"),
        ({"functions": ["symlib.data.partial"]}, "no function"),  # imported there
        ({"functions": ["symlib.groups.MAX_ELEMENTS"]}, "no function"),  # the reference lacks it
        ({"functions": ["math.pi"]}, "no function"),
        ({"claims": ["second"]}, "no claim"),
        ({"results": ["M2"]}, "no result"),
        ({"page": "book/02-nowhere"}, "has no source"),
        ({"section": "Nor is this"}, "no section"),
        ({"section": "of the page"}, "no section"),
        ({"tests": ["tests/library/test_x.py::test_z"]}, "no test"),
        ({"errors": ["E2"]}, "page of errors has no E2"),
        ({"row": "M2"}, "no row M2"),
    ],
)
def test_a_falsified_entry_is_seen(root, changes, problem):
    found = sources.problems(index(ENTRY | changes), root)
    assert any(problem in text for text in found), found


def test_a_repeated_place_and_an_unknown_source_are_seen(root):
    assert "there are 2 such places" in sources.problems(index(ENTRY, ENTRY), root)[0]
    assert "references.bib" in sources.problems(index(ENTRY, source="nobody1900"), root)[0]


def test_a_falsified_index_does_not_load(tmp_path):
    text = sources.SOURCES.read_text("utf-8").replace("symlib.inference.elbo", "symlib.elbow", 1)
    path = tmp_path / "sources.yml"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match="elbow"):
        sources.load(path)


def test_the_page_shows_all_of_an_entry():
    text = sources.page(index(ENTRY))
    assert "* - **Equation 1** (row [M1](scoreboard.md))\n\n    Something.\n" in text
    assert "Read first: {ref}`E1 <error-e1>`." in text
    assert "{py:obj}`symlib.groups.SignFlip`, claim <a href" in text
    assert "`symcourse reproduce M1`" in text
    assert '"../book/01-chapter.html#a-section">A section</a>' in text
    assert "/blob/main/tests/library/test_x.py)" in text


def test_an_anchor_is_that_of_sphinx():
    link = links.section("book/04-bessel-functions", "k = 1, 2 & 3: Laplace's method?")
    assert "#k-1-2-3-laplace-s-method" in link and "&amp;" in link
