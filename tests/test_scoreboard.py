"""The scoreboard says no more than the project holds."""

import copy
from collections import Counter

import pytest

from tests.small_book import HEADER
from tools import scoreboard

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


@pytest.fixture
def root(tmp_path):
    """A small project with one chapter and one test."""
    (tmp_path / "book").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "book" / "01-chapter.md").write_text(CHAPTER, "utf-8")
    (tmp_path / "book" / "references.bib").write_text("@misc{moore2016,\n}\n", "utf-8")
    (tmp_path / "tests" / "test_x.py").write_text("def test_y():\n    pass\n", "utf-8")
    return tmp_path


def row(**changes):
    """A row that is right in that project, with some fields changed."""
    right = {
        "id": "M1",
        "source": "moore2016",
        "claim": "Something.",
        "status": "reproduced",
        "page": "notebooks/01-chapter",
        "functions": ["symlib.groups.SignFlip"],
        "claims": ["first", "second"],
        "tests": ["tests/test_x.py::test_y"],
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
            names.update(scoreboard.claim_names(source))
    assert [name for name, count in names.items() if count > 1] == []


def test_claim_names_reads_code_cells_only(root):
    assert scoreboard.claim_names(root / "book" / "01-chapter.md") == ["first", "second"]


def test_claim_names_refuses_a_computed_name(root):
    path = root / "book" / "01-chapter.md"
    path.write_text(CHAPTER.replace('"second"', 'f"second-{x}"'), "utf-8")
    with pytest.raises(ValueError, match="written out"):
        scoreboard.claim_names(path)


def test_a_right_row_has_no_problem(root):
    assert scoreboard.problems([row()], root) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"claims": []}, "must name its claims"),
        ({"page": None}, "must name its page"),
        ({"tests": []}, "must name its tests"),
        ({"status": "scaled down: smaller", "claims": []}, "must name its claims"),
        ({"status": "open", "needs": "x", "tests": []}, "must name its tests"),  # a part is done
        ({"status": "scaled down: "}, "unknown status"),
        ({"status": "not confirmed"}, "unknown status"),
        ({"status": "not confirmed: smaller", "tests": []}, "must name its tests"),
        ({"status": "Reproduced"}, "unknown status"),
        ({"parts": [{"part": "a half", "status": "open"}]}, "one of its parts is not"),
        ({"parts": [{"part": "a half", "status": "done"}]}, "unknown status"),
        ({"status": "open", "needs": ""}, "what it would take"),
        ({"claims": ["in-prose"]}, "no claim in-prose"),
        ({"page": "notebooks/02-nowhere"}, "has no source"),
        ({"functions": ["symlib.groups.NoSuchGroup"]}, "no function"),
        ({"functions": ["symlib.nowhere.f"]}, "no function"),
        ({"functions": ["math.pi"]}, "no function"),
        ({"tests": ["tests/test_x.py::test_z"]}, "no test"),
        ({"tests": ["tests/test_nowhere.py::test_y"]}, "no test"),
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
    text = scoreboard.page([row(status="scaled down: one matrix")])
    assert "**◐ scaled down**: one matrix" in text
    assert "[](../notebooks/01-chapter.ipynb)" in text
    assert "of 1 rows: **0 reproduced, 1 scaled down, 0 not confirmed, 0 open**" in text
