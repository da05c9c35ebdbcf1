"""The teachers' page, tried as a new teacher would: every command on it, in its order."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from symcourse.classroom.check import checks_of
from tests.debian import program
from tests.small_book import HEADER, copy_project, keep_stored_executions, run
from tools import notebooks

ROOT = notebooks.ROOT
PAGE = ROOT / "book" / "teachers.md"
NAME = "01-model-symmetries"


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    """Return a copy of the project with one exercise page, where the page's commands have run."""
    program("bubblewrap", "bwrap")
    pages = {
        "file": f"book/{NAME}",
        "sections": [{"file": f"book/exercises/{NAME}"}],
    }
    contents = {"format": "jb-book", "root": "book/welcome"}
    contents["parts"] = [{"caption": "Pages", "chapters": [pages]}]
    root = copy_project(
        tmp_path_factory.mktemp("school") / "course",
        {
            f"{NAME}.md": HEADER + "# A chapter\n\n```{code-cell} ipython3\n1 + 1\n```\n",
            "teaching/01.md": "# Notes\n",
        },
        yaml.safe_dump(contents),
        "pyproject.toml",
        "Makefile",
        f"book/exercises/{NAME}.md",
        f"notebooks/exercises/{NAME}.ipynb",
    )
    (root / ".venv").symlink_to(sys.prefix)
    keep_stored_executions(root, [ROOT / "book" / "exercises" / f"{NAME}.md"])
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    # make itself would first install an environment for this copy: see the last test.
    stand_in = 'make() { .venv/bin/python -m tools.editions "$1"; }'
    script = "\n".join(["set -e", stand_in, *blocks])
    run(root, "bash", "-c", script)
    return root


def test_every_command_of_the_page_does_what_it_says(school):
    assert (school / "_build/class/html/index.html").exists()
    assert (school / "_build/teacher/html/index.html").exists()
    with (school / "marks-01.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    total = str(len(checks_of("01")))
    assert {name: row["score"] for name, row in rows.items()} == {
        "blank": "0",
        "broken": "0",
        "solved": total,
    }
    pages = {path.name for path in (school / "marks-01-feedback").iterdir()}
    assert pages == {"blank.html", "broken.html", "solved.html"}


def test_the_page_names_every_column(school):
    with (school / "marks-01.csv").open(encoding="utf-8-sig", newline="") as file:
        columns = next(csv.reader(file))
    text = PAGE.read_text("utf-8")
    for column in columns:
        name = "q1_..." if column.startswith("q") else column
        assert f"`{name}`" in text, column


@pytest.mark.parametrize("edition", ["class", "teacher"])
def test_make_builds_an_edition(edition):
    done = subprocess.run(
        ["make", "--dry-run", edition], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f".venv/bin/python -m tools.editions {edition}" in done.stdout.splitlines()


def test_what_the_page_names_exists():
    names = re.findall(
        r"`((?:book|symlib|symcourse|tests|notebooks)/[\w/]+)`", PAGE.read_text("utf-8")
    )
    assert len(names) >= 5
    for name in names:
        assert Path(ROOT / name).exists(), name
