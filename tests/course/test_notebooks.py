"""Sources and notebooks agree, and the checks that say so can fail."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from tests.small_book import HEADER, copy_project
from tests.small_book import run_module as run
from tools import build, notebooks

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
        "format: jb-book\nroot: book/welcome\nchapters:\n- file: notebooks/01-page\n",
        "notebooks/conftest.py",
    )
    (root / "symlib" / "__init__.py").write_text("")  # without JAX a page takes a second less
    (root / "symlib" / "constant.py").write_text("VALUE = 1.25\n")
    return root


def generate(root):
    """Write the notebooks of a copy, unless they are what their sources say."""
    if notebooks.differences(root):
        run(root, "tools.notebooks")


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
        assert f"git+{notebooks.repository_url()}" in first.source
        assert "remove-cell" in first.metadata.tags


def test_a_page_follows_its_source_and_the_library(small_book):
    """The whole life of a page: written, built, served again, changed, broken, mended."""
    page = small_book / "_build" / "html" / "notebooks" / "01-page.html"
    constant = small_book / "symlib" / "constant.py"
    source = small_book / "book" / "01-page.md"

    said = run(small_book, "tools.build", check=False)
    assert said.returncode
    assert "notebooks/01-page.ipynb is missing: run `make notebooks`" in said.stdout
    run(small_book, "tools.notebooks")
    run(small_book, "tools.build")
    html = page.read_text("utf-8")
    assert 'The value is <span class="pasted-text">1.25</span>' in html
    assert html.count('alt="slope ') == 3
    assert 'alt="A line that rises."' in html
    assert "widget-view" not in html

    # Nothing changed: nothing is built.
    before = page.stat().st_mtime_ns
    assert "up to date" in run(small_book, "tools.build").stdout
    assert page.stat().st_mtime_ns == before

    # A change in the library re-executes the page.
    constant.write_text("VALUE = 1.75\n")
    run(small_book, "tools.build")
    assert "1.75" in page.read_text("utf-8")
    assert "1.25" not in page.read_text("utf-8")

    # A claim that has become false fails the build, and says which sentence.
    constant.write_text("VALUE = 2.5\n")
    said = run(small_book, "tools.build", check=False)
    assert said.returncode
    assert "this is now false: 'The value is below two.'" in said.stdout
    assert not (small_book / "_build" / "html.digest").exists()

    # A changed tag or alt text shows, although the code is the same.
    constant.write_text("VALUE = 1.25\n")
    source.write_text(PAGE.replace("A line that rises.", "A line that goes up."))
    said = run(small_book, "tools.build", check=False)
    assert "notebooks/01-page.ipynb differs from book/01-page.md" in said.stdout
    run(small_book, "tools.notebooks")
    run(small_book, "tools.build")
    assert 'alt="A line that goes up."' in page.read_text("utf-8")

    # A warning of the renderer fails the build.
    source.write_text(PAGE + "\nSee [nowhere](nowhere.md).\n")
    run(small_book, "tools.notebooks")
    said = run(small_book, "tools.build", check=False)
    assert said.returncode and "nowhere.md" in said.stdout
    source.write_text(PAGE)
    run(small_book, "tools.notebooks")


def test_regenerating_changes_nothing(small_book):
    generate(small_book)
    path = small_book / "notebooks" / "01-page.ipynb"
    before = path.read_bytes()
    shutil.rmtree(small_book / "_build", ignore_errors=True)
    assert "wrote" not in run(small_book, "tools.notebooks").stdout
    assert path.read_bytes() == before
    assert before.count(b"data:image/png") == 1, "frames behind the first belong to the page"


def test_strict_nbval_passes_a_true_notebook_and_fails_a_falsified_one(small_book):
    generate(small_book)
    path = small_book / "notebooks" / "01-page.ipynb"
    true = path.read_text("utf-8")
    changes = (("[1.25]", "[1.26]"), ('papermill.record/text/plain": "1.25', None))
    false = []
    for number, (old, new) in enumerate(changes):
        false.append(path.with_name(f"false-{number}.ipynb"))
        false[-1].write_text(true.replace(old, new or old.replace("1.25", "1.26")), "utf-8")
        assert false[-1].read_text("utf-8") != true
    # One start of pytest for all three.
    options = ("-q", "--nbval", "-p", "no:cacheprovider", "notebooks")
    done = run(small_book, "pytest", *options, check=False)
    for other in false:
        other.unlink()
    assert done.returncode == 1, done.stdout
    failed = re.findall(r"^FAILED notebooks/([\w-]+)\.ipynb::", done.stdout, re.M)
    assert sorted(failed) == ["false-0", "false-1"], done.stdout
    assert f"2 failed, {3 * number_of_code_cells(true) - 2} passed" in done.stdout


def number_of_code_cells(text):
    return sum(cell["cell_type"] == "code" for cell in json.loads(text)["cells"])


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
