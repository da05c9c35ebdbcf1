"""Docstrings turn into reStructuredText without loss."""

import pytest

from tools.docstrings import convert


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Return $|r|$.", "Return :math:`|r|`."),
        ("The field `mean`.", "The field ``mean``."),
        ("``kept`` and :func:`kept`", "``kept`` and :func:`kept`"),
        ("$a$ and `b` and $c$", ":math:`a` and ``b`` and :math:`c`"),
    ],
)
def test_text_in_a_line(written, read):
    assert convert(written) == read


@pytest.mark.parametrize(
    ("written", "paragraphs"),
    [
        ("Formula:\n\n$$a\n+ b,$$\n\nmore", ["Formula:", ".. math:: a + b,", "more"]),
        ("so $$a$$, and on", ["so", ".. math:: a,", "and on"]),
        ("    so\n    $$a$$\n    on", ["    so", "    .. math:: a", "    on"]),
    ],
)
def test_a_display_is_a_paragraph_with_the_indent_of_its_text(written, paragraphs):
    assert [part.strip("\n") for part in convert(written).split("\n\n") if part.strip()] == (
        paragraphs
    )
