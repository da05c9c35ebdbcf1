"""The scoreboard says no more than the project holds."""

import copy
from collections import Counter

import pytest

from tests.small_book import HEADER
from tools import evidence, scoreboard

# fmt: off
ALL_ROWS = [
    "M1", "M2", "M3", "M4", "M5", "M6", "M7", "M8", "M9",
    "G1", "G2", "G3", "G4",
    "S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10",
    "K1", "K2", "K3", "K4", "K5", "K6", "K7", "K8", "K9",
]
# fmt: on

CHAPTER = (
    HEADER
    + """\
# A chapter

A claim in prose is none: claim("in-prose", 1, "No.", equal=1)

```{code-cell} ipython3
:tags: [hide-input]

%matplotlib inline
claim(
    "first", 1.0, "One is one.", equal=1
)
# claim("in-a-comment", 1, "No.", equal=1)
```

```{code-cell} ipython3
---
mystnb:
  image:
    alt: Nothing.
---
for x in range(1):
    claim("second", x, "Zero is zero.", equal=0)
```
"""
)


ERRORS = """\
# Errors

## Errors

(error-e1)=
### E1. Proved

## Cautions

(error-e2)=
### E2. A slip
"""


@pytest.fixture
def root(tmp_path):
    """A small project with one chapter, one test, one result, an error and a caution."""
    (tmp_path / "book").mkdir()
    (tmp_path / "tests" / "library").mkdir(parents=True)
    (tmp_path / "symcourse" / "experiments" / "results").mkdir(parents=True)
    (tmp_path / "symcourse" / "experiments" / "results" / "M1.json").write_text("{}", "utf-8")
    (tmp_path / "book" / "errors.md").write_text(ERRORS, "utf-8")
    (tmp_path / "book" / "01-chapter.md").write_text(CHAPTER, "utf-8")
    (tmp_path / "book" / "references.bib").write_text("@misc{moore2016,\n}\n", "utf-8")
    (tmp_path / "tests" / "library" / "test_x.py").write_text("def test_y():\n    pass\n", "utf-8")
    return tmp_path


SEEDS = {"what": "seeds", "ours": 3, "source": 5}


def row(**changes):
    """A row that is right in that project, with some fields changed."""
    right = {
        "id": "M1",
        "source": "moore2016",
        "statement": "Something.",
        "status": "reproduced",
        "page": "book/01-chapter",
        "functions": ["symlib.groups.SignFlip"],
        "claims": ["first", "second"],
        "tests": ["tests/library/test_x.py::test_y"],
        "results": ["M1"],
        "sizes": [SEEDS | {"ours": 5}, {"what": "data", "ours": "digits", "source": None}],
        "parts": [{"part": "a half", "status": "reproduced"}],
        "needs": None,
    }
    return right | changes


def test_every_row_is_there_once():
    assert [row["id"] for row in scoreboard.load()] == ALL_ROWS


def test_rows_have_no_problems():
    assert scoreboard.problems(scoreboard.load()) == []


def test_page_is_the_one_generated():
    assert scoreboard.PAGE.read_text("utf-8") == scoreboard.page()


def test_page_names_every_row_and_part():
    text = scoreboard.page()
    for entry in scoreboard.load():
        assert f"* - {entry['id']}\n" in text
        for part in entry["parts"]:
            assert part["part"] in text


def test_parts_the_sources_name_keep_their_place():
    parts = {row["id"]: len(row["parts"]) for row in scoreboard.load()}
    assert (parts["M9"], parts["S5"]) == (8, 3)


def test_claim_names_are_unique_in_the_book():
    names = Counter()
    for source in scoreboard.ROOT.glob("book/**/*.md"):
        if "kernelspec:" in source.read_text("utf-8"):
            names.update(evidence.claim_names(source))
    assert [name for name, count in names.items() if count > 1] == []


def test_claim_names_reads_code_cells_only(root):
    assert evidence.claim_names(root / "book" / "01-chapter.md") == ["first", "second"]


def test_claim_names_refuses_a_computed_name(root):
    path = root / "book" / "01-chapter.md"
    path.write_text(CHAPTER.replace('"second"', 'f"second-{x}"'), "utf-8")
    with pytest.raises(ValueError, match="written out"):
        evidence.claim_names(path)


def test_a_right_row_has_no_problem(root):
    assert scoreboard.problems([row()], root) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "scaled down: fewer seeds", "sizes": [SEEDS]},
        {"status": "scaled down: other data", "sizes": [SEEDS | {"ours": "a", "source": "b"}]},
        {"status": f"{scoreboard.DEPENDS}: holds below 1"},
        {"status": "being run again: undecided", "sizes": [SEEDS]},
        {"status": "contradicted: it diverges", "proof": ["E1"]},
        {"status": "contradicted: it diverges", "stated": ["$d = 1000$"]},
        {"parts": [{"part": "x", "status": "contradicted: no", "proof": ["E1"]}]},
        {"parts": [{"part": "x", "status": "open"}]},  # a weaker statement beside the main one
    ],
)
def test_another_right_row_has_no_problem(root, changes):
    assert scoreboard.problems([row(**changes)], root) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"claims": []}, "must name its claims"),
        ({"page": None}, "must name its page"),
        ({"tests": []}, "must name its tests"),
        ({"status": "being run again: x", "claims": []}, "must name its claims"),
        ({"status": "open", "needs": "x", "tests": []}, "must name its tests"),  # a part is done
        ({"status": "scaled down: "}, "unknown status"),
        ({"status": "scaled down"}, "unknown status"),
        ({"status": "not confirmed: smaller"}, "unknown status"),
        ({"status": "Reproduced"}, "unknown status"),
        ({"status": "scaled down: smaller"}, "no size is below"),
        ({"status": "scaled down: smaller", "sizes": []}, "no size is below"),
        ({"sizes": [SEEDS]}, "is not the source's"),
        ({"sizes": [{"what": "data", "ours": "digits", "source": "MNIST"}]}, "is not the source's"),
        ({"sizes": [{"what": "seeds", "ours": None, "source": 5}]}, "a size has"),
        ({"sizes": [{"what": "seeds", "ours": 5}]}, "a size has"),
        ({"status": "contradicted: it diverges"}, "names a proof or"),
        ({"status": "contradicted: it diverges", "proof": []}, "something in them"),
        ({"status": "contradicted: it diverges", "proof": ["E2"]}, "proves no E2"),  # a caution
        ({"status": "contradicted: it diverges", "proof": ["E3"]}, "proves no E3"),
        ({"status": "contradicted: it diverges", "stated": "d = 1000"}, "something in them"),
        ({"proof": ["E1"]}, "names a proof or"),
        ({"parts": [{"part": "x", "status": "contradicted: no"}]}, "names a proof or"),
        ({"parts": [{"part": "a half", "status": "done"}]}, "unknown status"),
        ({"status": "open", "needs": ""}, "what it would take"),
        ({"claims": ["in-prose"]}, "no claim in-prose"),
        ({"page": "book/02-nowhere"}, "has no source"),
        ({"functions": ["symlib.groups.group.NoSuchGroup"]}, "no function"),
        ({"functions": ["symlib.nowhere.f"]}, "no function"),
        ({"functions": ["math.pi"]}, "no function"),
        ({"tests": ["tests/library/test_x.py::test_z"]}, "no test"),
        ({"tests": ["tests/library/test_nowhere.py::test_y"]}, "no test"),
        ({"results": ["M2"]}, "no result"),
        ({"status": "being run again: {in-prose} nats"}, "in-prose, which is no claim of the row"),
        ({"status": "being run again: 0.5 nats"}, "0.5 in a status is typed"),
        ({"parts": [{"part": "x", "status": "being run again: 12 %"}]}, "12 in a status is typed"),
        ({"source": "nobody1900"}, "references.bib"),
        ({"colour": "green"}, "fields"),
    ],
)
def test_a_falsified_row_is_seen(root, changes, problem):
    found = scoreboard.problems([row(**changes)], root)
    assert any(problem in text for text in found), found


def test_a_missing_field_is_seen(root):
    falsified = row()
    del falsified["tests"]
    assert "fields" in scoreboard.problems([falsified], root)[0]


def test_a_repeated_id_is_seen(root):
    assert scoreboard.problems([row(), row()], root) == ["M1: the id is used 2 times"]


def test_a_falsified_scoreboard_does_not_load(tmp_path):
    text = scoreboard.ROWS.read_text("utf-8").replace("status: open", "status: finished", 1)
    path = tmp_path / "scoreboard.yml"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match="finished"):
        scoreboard.load(path)


def test_calling_an_open_row_reproduced_is_seen():
    rows = copy.deepcopy(scoreboard.load())
    falsified = next(row for row in rows if row["status"] == "open" and not row["claims"])
    falsified["status"] = "reproduced"
    assert any(text.startswith(f"{falsified['id']}: ") for text in scoreboard.problems(rows))


def test_the_page_shows_the_status_and_the_evidence():
    text = scoreboard.page(
        [
            row(status="scaled down: one matrix", sizes=[SEEDS | {"ours": 1, "source": 10_000}]),
            row(id="S1", status="contradicted: no", proof=["E1"]),
            row(id="S2", status="contradicted: no", stated=["$d = 1000$"]),
        ]
    )
    assert "Of 3 main statements, 1 hold" in text
    assert "**◐ scaled down**: one matrix" in text
    assert "seeds 1 and 10\N{NO-BREAK SPACE}000" in text
    assert "no (proof: {ref}`E1 <error-e1>`)" in text
    assert "no (with the source's own settings: $d = 1000$)" in text
    assert "[](../book/01-chapter.md)" in text
    assert '<a href="../book/01-chapter.html#claim-first"><code>first</code></a>' in text
    assert "{py:obj}`symlib.groups.SignFlip`" in text
    assert "/blob/main/tests/library/test_x.py)" in text
    assert "/blob/main/symcourse/experiments/results/M1.json)" in text


def test_the_page_names_results_of_older_code_and_those_that_do_not_say(monkeypatch):
    ages = {"M3": True, "M7": False, "M9": None}
    monkeypatch.setattr(scoreboard, "_is_current", ages.get)
    text = scoreboard.page([row(results=["M3", "M7", "M9"])])
    assert "M7.json) (made by older code)" in text
    assert text.count("(made by older code)") == 1
    assert "M9 is from before results held a digest" in text
