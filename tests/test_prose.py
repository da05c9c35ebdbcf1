"""No result is typed by hand: a number in the prose stands in a cell of the same page."""

import re

import jupytext
import pytest

from tests.test_notebooks import HEADER
from tools import notebooks

# Decimals and percentages. Whole numbers count things, name sections and carry exponents.
NUMBER = re.compile(r"(?<![\w.-])(\d+\.\d+|\d+(?=\s?%))(?![\w.])")
# Roles show what a cell computed, and the target of a link is no prose.
NOT_PROSE = re.compile(r"\{[\w:]+\}`[^`]*`|\]\([^)]*\)")


def typed_numbers(source):
    """Return the decimals and percentages of a source's prose that no cell of it holds."""
    cells = jupytext.read(source, fmt="md:myst").cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    known = {float(number) for number in re.findall(r"\d+\.\d+|\d+", code)}
    prose = [NOT_PROSE.sub("", cell.source) for cell in cells if cell.cell_type == "markdown"]
    found = [number for text in prose for number in NUMBER.findall(text)]
    return [n for n in found if not {float(n), float(n) / 100} & known]


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
