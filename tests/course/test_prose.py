"""No result is typed by hand: a number in the prose stands in a cell of the same page."""

import jupytext
import pytest

from tests.course.test_notebooks import HEADER
from tools import evidence, notebooks


def typed_numbers(source):
    """Return the decimals and percentages of a source's prose that no cell of it holds."""
    cells = jupytext.read(source, fmt="md:myst").cells
    prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
    code = evidence.code_of(source.read_text("utf-8"))
    return [number for text in prose for number in evidence.typed_numbers(text, code)]


@pytest.mark.parametrize("source", notebooks.sources(), ids=lambda path: path.stem)
def test_every_number_of_the_prose_stands_in_a_cell(source):
    assert typed_numbers(source) == []


def test_a_typed_result_is_seen(tmp_path):
    source = tmp_path / "page.md"
    cell = "```{code-cell} ipython3\nr = 1.5\n```\n"
    source.write_text(f"{HEADER}# Page 1\n\nAt $r = 1.5$ it is {{glue:text}}`x-1.25`.\n\n{cell}")
    assert typed_numbers(source) == []
    source.write_text(f"{HEADER}# Page 1\n\nAt $r = 1.5$ it is 0.535, or 36 %.\n\n{cell}")
    assert typed_numbers(source) == ["0.535", "36"]
