"""The class edition has no solutions anywhere; the teacher's has them open, and the notes."""

import re
import subprocess
import sys

import nbformat
import pytest
import yaml

from tests.small_book import HEADER, copy_project
from tests.small_book import run_module as run
from tools import editions, notebooks

ROOT = notebooks.ROOT
EXERCISES = [source for source in notebooks.sources() if notebooks.is_exercise(source)]

CHAPTER = (
    HEADER
    + """\
# A page

```{code-cell} ipython3
print("In the chapter.")
```

[Exercises](exercises/01-page.md)
"""
)

EXERCISE = (
    HEADER
    + """\
# Exercises

## 1. A number

```{code-cell} ipython3
answer = None
```

```{code-cell} ipython3
print("blank" if answer is None else "answered")
```

```{code-cell} ipython3
:tags: [solution, hide-cell]

# The thought behind it all.
answer = 41 + 1
print("The number is", answer)
```
"""
)
SECRETS = ("The thought behind", "41 + 1", "The number is", "A rubric", "Where the answers are")


@pytest.fixture(scope="module")
def small_book(tmp_path_factory):
    """Return a copy of the project with one chapter, its exercise page and a teaching note."""
    pages = {"file": "book/01-page", "sections": [{"file": "book/exercises/01-page"}]}
    part = {"caption": "Start", "chapters": [{"file": "book/teachers"}, pages]}
    contents = {"format": "jb-book", "root": "book/welcome", "parts": [part]}
    return copy_project(
        tmp_path_factory.mktemp("editions") / "book",
        {
            "01-page.md": CHAPTER,
            "exercises/01-page.md": EXERCISE,
            "teachers.md": "# For teachers\n\nWhere the answers are.\n",
            "welcome.md": "# Welcome\n\n% Not for a class:\n[Where](teachers.md)\n% End.\n",
            "teaching/01.md": "# Notes\n\nA rubric.\n",
        },
        yaml.safe_dump(contents),
    )


def found_in(folder, words):
    """Return the files of a folder whose bytes contain some words."""
    return [p for p in folder.rglob("*") if p.is_file() and words.encode() in p.read_bytes()]


def test_the_class_edition_has_no_solutions_in_any_file(small_book):
    editions.main("class", small_book)
    output = small_book / "_build" / "class"
    for words in SECRETS:
        assert found_in(output, words) == []
    page = (output / "html" / "book" / "exercises" / "01-page.html").read_text("utf-8")
    assert "answer" in page and "blank" in page
    assert "In the chapter." in (output / "html" / "book" / "01-page.html").read_text("utf-8")
    notebook = nbformat.read(output / "notebooks" / "01-page.ipynb", as_version=4)
    assert [c.source for c in notebook.cells if "answer = None" in c.source]
    assert not any(cell.get("outputs") for cell in notebook.cells)


def test_the_teachers_edition_has_them_open_and_the_notes(small_book):
    editions.main("teacher", small_book)
    html = small_book / "_build" / "teacher" / "html"
    page = (html / "book" / "exercises" / "01-page.html").read_text("utf-8")
    assert "The thought behind" in page and "The number is 42" in page
    assert "<details" not in page.partition("The thought behind")[0].rpartition("<h2>")[2]
    assert "A rubric." in (html / "book" / "teaching" / "01.html").read_text("utf-8")


def test_a_reader_gets_the_solutions_behind_a_toggle_and_no_notes(small_book):
    run(small_book, "tools.notebooks")
    run(small_book, "tools.build")
    html = small_book / "_build" / "html"
    page = html / "book" / "exercises" / "01-page.html"
    before = page.read_text("utf-8").partition("The thought behind")[0]
    assert before.rfind("<details") > before.rfind("</details>")
    assert found_in(html, "A rubric") == []
    # The launch buttons of an exercise page open it blank, those of a chapter as it is.
    links = re.findall(r'href="(https://(?:mybinder|colab)[^"]+)"', before)
    assert len(links) == 2
    assert all(link.endswith("notebooks/blank/01-page.ipynb") for link in links)
    chapter = (html / "book" / "01-page.html").read_text("utf-8")
    assert "notebooks/01-page.ipynb" in chapter


@pytest.mark.parametrize("source", EXERCISES, ids=lambda source: source.stem)
def test_no_line_of_a_solution_is_left_in_a_blank_page(source):
    whole, blank = notebooks.convert(source), editions.convert(source, "class")
    left = "\n".join(cell.source for cell in blank.cells)
    solutions = [cell.source for cell in whole.cells if notebooks.is_solution(cell)]
    # A solution may repeat lines that are given, such as the head of a function; its comments, in
    # which it explains itself, are its own.
    comments = re.findall(r"^# .{10,}", "\n".join(solutions), re.M)
    assert len(solutions) >= 3 and comments
    assert not [comment for comment in comments if comment in left]
    assert not any(notebooks.is_solution(cell) for cell in blank.cells)


def test_an_unknown_edition_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "tools.editions", "reader"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode and "tools.editions class" in done.stderr


@pytest.mark.parametrize("source", EXERCISES, ids=lambda source: source.stem)
def test_a_blank_page_does_not_speak_of_solutions_that_it_lacks(source):
    text = " ".join(c.source for c in editions.convert(source, "class").cells)
    assert not re.search(r"\bsolutions? (hides?|below|behind|is hidden)", text)
