"""Sources and notebooks agree, and the checks that say so can fail."""

import base64
import io
import json
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from tests.small_book import HEADER, copy_project
from tests.small_book import run as run_program
from tests.small_book import run_module as run
from tools import build, derive, notebooks

ROOT = notebooks.ROOT

PAGE = (
    HEADER
    + """\
# A page

```{code-cell} ipython3
import matplotlib.pyplot as plt
from symcourse.page import claim, flipbook
from symlib.constant import VALUE
```

```{code-cell} ipython3
claim("the-value", VALUE, "The value is below two.", below=2)
```

The value is {glue:text}`the-value`.

```{code-cell} ipython3
def draw(r):
    figure, axes = plt.subplots(figsize=(2, 1))
    axes.plot([0, r])
    axes.set(ylim=(0, 3))
    return figure, f"slope {r}"


flipbook(draw, r=[1, 2, 3])
```

```{code-cell} ipython3
---
mystnb:
  image:
    alt: A line that rises.
---
plt.plot([1, 2])
plt.show()
```
"""
)


@pytest.fixture(scope="module")
def small_book(tmp_path_factory):
    """Return a copy of the project with one small page, which uses its own symlib."""
    root = copy_project(
        tmp_path_factory.mktemp("small") / "book",
        {"01-page.md": PAGE},
        "format: jb-book\nroot: book/welcome\nchapters:\n- file: book/01-page\n",
        "notebooks/conftest.py",
    )
    (root / "symlib" / "__init__.py").write_text("")  # without JAX a page takes a second less
    (root / "symlib" / "constant.py").write_text("VALUE = 1.25\n")
    return root


@pytest.fixture(autouse=True)
def own_library(monkeypatch, small_book):
    """Let the pages of the copy find its symlib, in the processes that the tools start."""
    monkeypatch.setenv("PYTHONPATH", str(small_book))


def generate(root):
    """Write the notebooks of a copy, unless they are what their sources say."""
    if notebooks.differences(root):
        notebooks.main(root=root)


def test_every_notebook_is_what_its_source_says():
    assert notebooks.sources()
    assert notebooks.differences() == []


STORED = [notebooks.notebook_path(source) for source in notebooks.sources()]
STORED += [notebooks.blank_path(s) for s in notebooks.sources() if notebooks.is_exercise(s)]


@pytest.mark.parametrize("path", STORED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_stored_notebooks_are_executed_small_and_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    text = path.read_text("utf-8")
    assert "widget-view" not in text
    assert "widgets" not in notebook.metadata
    assert str(ROOT) not in text
    assert len(text) < 1_500_000
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error" or "raises-exception" in cell.metadata.tags
            if "image/png" in output.get("data", {}):
                alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
                assert len(alt.split()) >= 5, f"a figure without alt text:\n{cell.source}"
                png = base64.b64decode(output.data["image/png"])
                assert Image.open(io.BytesIO(png)).mode == "P"


def test_the_first_code_cell_installs_symlib_from_the_public_address():
    for path in (ROOT / "notebooks").glob("**/*.ipynb"):
        first = next(c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
        assert f"git+{derive.repository_url(ROOT)}" in first.source


def failure(root):
    """Return what a build that fails says."""
    with pytest.raises(SystemExit) as failed:
        build.main(root)
    assert not (root / "_build" / "html.digest").exists()
    return str(failed.value)


def test_a_page_follows_its_source_and_the_library(small_book, capsys):
    """The whole life of a page: written, built, served again, changed, broken, mended."""
    page = small_book / "_build" / "html" / "book" / "01-page.html"
    constant = small_book / "symlib" / "constant.py"
    source = small_book / "book" / "01-page.md"

    assert "notebooks/01-page.ipynb is missing: run `make notebooks`" in failure(small_book)
    notebooks.main(root=small_book)
    build.main(small_book)
    html = page.read_text("utf-8")
    # A number of the prose leads to the claim that carries it.
    assert re.search(
        r'The value is <a[^>]* href="#claim-the-value"><span[^>]*>1.25</span></a>', html
    )
    assert html.count('alt="slope ') == 3
    assert 'alt="A line that rises."' in html
    assert "widget-view" not in html

    # Nothing changed: nothing is built.
    before = page.stat().st_mtime_ns
    capsys.readouterr()
    build.main(small_book)
    assert "up to date" in capsys.readouterr().out
    assert page.stat().st_mtime_ns == before

    # A claim that has become false fails the build, and says which sentence.
    constant.write_text("VALUE = 2.5\n")
    assert "this is now false: 'The value is below two.'" in failure(small_book)

    # A changed tag or alt text is no change of the code, and the notebook is to show it.
    source.write_text(PAGE.replace("A line that rises.", "A line that goes up."))
    assert "notebooks/01-page.ipynb differs from book/01-page.md" in failure(small_book)

    # A change in the library executes the page again, and the page shows all that changed. A
    # warning of the renderer fails the build, and the pages are there to look at.
    constant.write_text("VALUE = 1.75\n")
    source.write_text(source.read_text() + "\n#### A level left out\n")
    notebooks.main(root=small_book)
    assert "have the warnings or errors above" in failure(small_book)
    assert "Non-consecutive header level increase" in capsys.readouterr().out
    html = page.read_text("utf-8")
    assert "1.75" in html and "1.25" not in html
    assert 'alt="A line that goes up."' in html
    constant.write_text("VALUE = 1.25\n")
    source.write_text(PAGE)
    notebooks.main(root=small_book)


def article(page):
    """Return the part of a built page that its source makes."""
    found = re.search(r"<article.*</article>", page.read_text("utf-8"), re.S)[0]
    # A kernel that has just run calls its language so; a stored notebook does not keep this.
    return found.replace("highlight-ipython3", "highlight-python")


def test_a_bare_build_gives_the_same_pages_and_executes_nothing_twice(small_book):
    generate(small_book)
    build.main(small_book)
    page = small_book / "_build" / "html" / "book" / "01-page.html"
    made = article(page)
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    said = run_program(small_book, str(jupyter_book), "build", ".", "--all").stdout
    assert "Using cached" in said and "Executing notebook" not in said
    assert article(page) == made
    shutil.rmtree(small_book / "_build" / ".jupyter_cache")
    said = run_program(small_book, str(jupyter_book), "build", ".", "--all").stdout
    assert "Executing notebook" in said
    assert article(page) == made


def test_regenerating_changes_nothing(small_book, capsys):
    generate(small_book)
    path = small_book / "notebooks" / "01-page.ipynb"
    before = path.read_bytes()
    shutil.rmtree(small_book / "_build", ignore_errors=True)
    capsys.readouterr()
    notebooks.main(root=small_book)
    assert "wrote" not in capsys.readouterr().out
    assert path.read_bytes() == before
    assert before.count(b"data:image/png") == 1, "frames behind the first belong to the page"


def test_strict_nbval_passes_true_cells_and_fails_falsified_ones(small_book):
    generate(small_book)
    path = small_book / "notebooks" / "01-page.ipynb"
    notebook = json.loads(path.read_text("utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (claim,) = (json.dumps(cell) for cell in code if cell["source"][0].startswith("claim("))
    for old in ("[1.25]", 'papermill.record/text/plain": "1.25'):
        assert claim.count(old) == 1
        notebook["cells"].append(json.loads(claim.replace(old, old.replace("1.25", "1.26"))))
    false = path.with_name("false.ipynb")
    false.write_text(json.dumps(notebook), "utf-8")
    options = ("-q", "--nbval", "-p", "no:cacheprovider", false.relative_to(small_book))
    done = run(small_book, "pytest", *options, check=False)
    false.unlink()
    assert done.returncode == 1, done.stdout
    failed = re.findall(r"^FAILED notebooks/false\.ipynb::Cell (\d+)", done.stdout, re.M)
    assert failed == [str(len(code)), str(len(code) + 1)], done.stdout
    assert f"2 failed, {len(code)} passed" in done.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda nb: nb["cells"][0].update(source="# Another page"), "differs from"),
        (lambda nb: nb["cells"].pop(), "differs from"),
        (lambda nb: nb["cells"][3]["metadata"].update(tags=["hide-input"]), "differs from"),
    ],
)
def test_a_notebook_that_strays_from_its_source_is_named(small_book, change, message):
    generate(small_book)
    path = small_book / "notebooks" / "01-page.ipynb"
    text = path.read_text("utf-8")
    notebook = json.loads(text)
    change(notebook)
    path.write_text(json.dumps(notebook), "utf-8")
    problems = notebooks.differences(small_book)
    path.write_text(text, "utf-8")
    assert len(problems) == 1 and message in problems[0]


def test_a_page_is_executed_again_when_a_result_that_it_reads_changes(tmp_path):
    results = tmp_path / "symcourse" / "experiments" / "results"
    results.mkdir(parents=True)
    pages = {
        "M3": 'from symcourse.experiments import load_result\nload_result("M3")',
        "unnamed": "from symcourse.experiments import load_result\nload_result(name)",
        "none": 'print("M3")',
    }

    def keys():
        return {
            name: notebooks.execution_key(
                nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), tmp_path
            )
            for name, code in pages.items()
        }

    def changed_by(file):
        before = keys()
        (results / file).write_text(f"{before}")
        return {name for name, key in keys().items() if key != before[name]}

    (results / "M3.json").write_text("{}")
    assert changed_by("M3.json") == {"M3", "unnamed"}
    assert changed_by("M9.json") == {"unnamed"}


def test_a_notebook_without_a_source_is_named(small_book):
    generate(small_book)
    stray = small_book / "notebooks" / "02-stray.ipynb"
    shutil.copy(small_book / "notebooks" / "01-page.ipynb", stray)
    problems = notebooks.differences(small_book)
    stray.unlink()
    assert problems == ["notebooks/02-stray.ipynb has no source in book/"]


def test_inputs_of_the_book_cover_what_pages_are_made_from():
    covered = {str(p.relative_to(ROOT)) for i in build.INPUTS for p in ROOT.glob(i)}
    covered |= {str(p.relative_to(ROOT)) for i in notebooks.LIBRARY for p in ROOT.glob(i)}
    for needed in (
        "symcourse/experiments/results/M3.json",
        "_toc.yml",
        "symlib/groups/group.py",
        "symcourse/page/claim.py",
        "requirements.lock",
    ):
        assert needed in covered, needed
    assert Path("book/_static/course.css").as_posix() in covered


def test_only_pages_that_check_answers_depend_on_the_checks(tmp_path):
    checks = tmp_path / "symcourse" / "classroom" / "pages"
    checks.mkdir(parents=True)
    head = "from symcourse.classroom import checker\n"
    pages = (f'{head}check = checker("01", globals())', "import symlib")

    def keys():
        return [
            notebooks.execution_key(
                nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), tmp_path
            )
            for code in pages
        ]

    before = keys()
    (checks / "page_01.py").write_text("1")
    after = keys()
    assert after[0] != before[0] and after[1] == before[1]
    (checks / "page_02.py").write_text("1")
    assert keys() == after
    (checks.parent / "answers.py").write_text("1")
    assert keys()[0] != after[0]
    (tmp_path / "symlib").mkdir()
    (tmp_path / "symlib" / "data.py").write_text("1")
    assert not set(keys()) & set(after)
