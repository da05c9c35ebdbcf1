"""A notebook says what its page says, wherever it is opened, and folds what the page folds."""

import difflib
import re

import nbformat
import pytest
from bs4 import BeautifulSoup
from markdown_it import MarkdownIt

from tests.small_book import HEADER
from tools import derive, lessons, notebooks, plain
from tools.folds import fold

ROOT = notebooks.ROOT
RAW = re.compile(r"\{[\w:-]+\}`|^`{3,}\{|^:{3,}\{|^\([\w-]+\)=$", re.M)


def words(text):
    """Return the words of a text without marks, numbers of sections and kinds of quotes."""
    text = text.translate(str.maketrans("“”‘’–—", "\"\"''--"))
    return [word.strip(".") for word in re.findall(r"[\w'.%+/=-]*\w[\w'.%+/=-]*", text)]


def words_of_a_page(html):
    """Return the words of the prose of a built page: no cells, no formulas, no decoration."""
    article = BeautifulSoup(html, "html.parser").find("article")
    for output in article.select("div.cell_output"):
        output.replace_with(*output.select("figcaption:not(.flipbook figcaption)"))
    dropped = "div.cell_input, details.fold, .math, a.headerlink, .section-number, .caption-number"
    for element in article.select(f"{dropped}, .prev-next-area"):
        element.decompose()
    return words(article.get_text(" "))


def words_of_a_notebook(notebook):
    """Return the words of the Markdown of a notebook, without formulas."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"\$\$.*?\$\$", "", cell.source, flags=re.S)
            text = re.sub(r"\$[^$]+\$", "", text)
            text = re.sub(r"\*\*(Proposition|Theorem|Definition|Lemma) [\d.]+\*\*", "", text)
            html = MarkdownIt("commonmark").enable("table").render(text)
            found += words(BeautifulSoup(html, "html.parser").get_text(" "))
    return found


def strayed(page, notebook):
    """Return what stands on one side only, as lines of a comparison."""
    pairs = difflib.unified_diff(words_of_a_page(page), words_of_a_notebook(notebook), n=0)
    return [line for line in pairs if not line.startswith(("---", "+++", "@@"))]


CHAPTERS = [source for source in notebooks.sources() if not notebooks.is_exercise(source)]


@pytest.mark.parametrize("source", notebooks.sources(), ids=lambda s: f"{s.parent.name}/{s.stem}")
def test_a_notebook_has_no_raw_markup(source):
    paths = [notebooks.notebook_path(source)]
    if notebooks.is_exercise(source):
        paths.append(notebooks.blank_path(source))
    for path in paths:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                assert not RAW.search(cell.source), cell.source


@pytest.fixture
def labels(tmp_path):
    """Return the labels of a small book."""
    book = tmp_path / "book"
    book.mkdir()
    (tmp_path / "_config.yml").write_text("html: {baseurl: https://example.org/}\n")
    (book / "02-other.md").write_text(
        HEADER + "# Other\n\n(a-label)=\n## A section\n\n$$\nx\n$$ (eq-b)\n\n"
        "```{prf:theorem} T\n:label: thm-b\nText.\n```\n"
    )
    (book / "01-page.md").write_text(
        HEADER + "$$\ny\n$$ (eq-a)\n\n$$\nz\n$$ (eq-c)\n\n"
        "```{prf:proposition}\n:label: prop-a\nText.\n```\n"
    )
    (book / "references.bib").write_text(
        "@article{one, author={Noether, Emmy}, title={t}, year={1918}}\n"
        "@article{three, author={A, B and C, D and E, F}, title={t}, year={2001}}\n"
    )
    return plain.Labels(tmp_path)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("It is {glue:text}`a-value`.", "It is 1.50."),
        ("See {eq}`eq-c`.", "See (1.2)."),
        ("See {eq}`eq-b`.", "See [(2.1)](https://example.org/book/02-other.html#equation-eq-b)."),
        ("By {prf:ref}`prop-a`", "By Proposition 1.1"),
        ("By {prf:ref}`thm-b`", "By [Theorem 2.1](https://example.org/book/02-other.html#thm-b)"),
        ("{ref}`a-label`", "[A section](https://example.org/book/02-other.html#a-label)"),
        ("{ref}`it <a-label>`", "[it](https://example.org/book/02-other.html#a-label)"),
        ("{term}`MAP`", "[MAP](https://example.org/book/glossary.html#term-MAP)"),
        ("{cite:t}`one`", "[Noether [1918]](https://example.org/book/bibliography.html)"),
        ("{cite:p}`three`", "([A *et al.*, 2001](https://example.org/book/bibliography.html))"),
        ("{py:obj}`~a.b`", "[`b`](https://example.org/book/reference.html#a.b)"),
        ("[other](02-other.md#x)", "[other](https://example.org/book/02-other.html#x)"),
        ("`{eq}` and `[a](b.md)` are code", "`{eq}` and `[a](b.md)` are code"),
        ("{kbd}`Tab`", "<kbd>Tab</kbd>"),
        ("% a comment\nText", "Text"),
        ("$$\nz\n$$ (eq-c)", "$$\nz\n\\tag{1.2}\n$$"),
        ("- a\n\n  $$\n  z\n  $$ (eq-c)", "- a\n\n  $$\n  z\n  \\tag{1.2}\n  $$"),
        ("(here)=\n## A", '<a id="here"></a>\n\n## A'),
        ("```{admonition} Note `a`\n:class: tip\n\nText {eq}`eq-a`.\n```",
         "> **Note `a`**\n>\n> Text (1.1)."),
        ("```{prf:proposition} Big\n:label: prop-a\nText.\n```",
         "> **Proposition 1.1** (Big)\n>\n> Text."),
        ("```{prf:proof}\nText.\n```", "*Proof.* Text.\n\n∎"),
        ("````{dropdown} Proof, 2 < 3 minutes\nText.\n\n```python\nx\n```\n````",
         "<details><summary>Proof, 2 &lt; 3 minutes</summary>\n\nText.\n\n```python\nx\n```\n\n"
         "</details>"),
        ("```{list-table}\n:header-rows: 1\n* - a\n  - b\n* - c\n    d\n  - e\n```",
         "| a | b |\n| --- | --- |\n| c d | e |"),
    ],
)  # fmt: skip
def test_markup_has_a_plain_form(labels, text, wanted):
    found = plain.markdown(text, "book/01-page", labels, {"a-value": "1.50"})
    assert re.sub(r"\n{3,}", "\n\n", found) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{glue:text}`no-value`", "names the claim 'no-value'"),
        ("{eq}`eq-d`", "names the equation 'eq-d'"),
        ("{prf:ref}`thm-d`", "names the theorem"),
        ("{ref}`no`", "names the label"),
        ("{cite:t}`no`", "cites 'no'"),
        ("{numref}`x`", "the role numref"),
        ("```{figure} x.png\n```", "the directive figure"),
        ("```{admonition} Open", "never closed"),
        ("[x](03-none.md)", "which does not exist"),
    ],
)
def test_what_has_no_plain_form_is_refused(labels, text, message):
    with pytest.raises(plain.UnknownMarkup, match=message):
        plain.markdown(text, "book/01-page", labels, {})


@pytest.mark.parametrize(
    ("source", "tags", "shown", "wanted"),
    [
        ("x = 1", [], {}, None),
        ("x", [], {"figure": True}, None),
        ("claim()", [], {"checks": 7}, ("cell", "7 checks passed")),
        ("claim()", [], {"checks": 1}, ("cell", "1 check passed")),
        ("claim()", [], {"checks": 7, "other": True}, None),
        ("import a\nx = 1", [], {}, ("input", "Imports and settings")),
        ("def f():\n    import a", [], {}, None),
        ("%matplotlib", [], {}, None),
        ("x", ["hide-input"], {"figure": True}, ("input", "Code of this figure")),
        ("# Train the network.\nx", ["hide-input"], {}, ("input", "Code: train the network")),
        ("x", ["hide-cell"], {}, ("cell", "Code")),
        ("x", ["solution", "hide-cell"], {"other": True}, ("cell", "Solution")),
        ("x", ["solution"], {"other": True}, None),
    ],
)
def test_what_folds(source, tags, shown, wanted):
    assert fold(source, tags, **shown) == wanted


def test_claims_of_a_cell_become_one_line_and_come_apart_again():
    mark = '<p class="claim" id="claim-{0}">A {0}</p>'
    outputs = [
        output
        for name in ("a", "b")
        for output in (
            nbformat.v4.new_output("display_data", {"text/html": mark.format(name)}),
            nbformat.v4.new_output("display_data", {derive.GLUE: "1"}),
        )
    ]
    cell = nbformat.v4.new_code_cell("claim()", outputs=nbformat.from_dict(outputs))
    derive._fold(cell)
    html = [o.data.get("text/html") for o in cell.outputs]
    assert html[0].startswith("<details><summary>2 checks passed</summary>")
    assert html[0].count('class="claim"') == 2 and html[2] == ""
    assert cell.metadata["jupyter"] == {"source_hidden": True}
    assert derive.ungrouped(cell.outputs) == nbformat.from_dict(outputs)


def test_the_table_of_lessons_counts_what_is_visible(tmp_path):
    page = tmp_path / "02-page.html"
    cell = '<div class="cell"><div class="cell_input"><pre>{0}</pre></div>{1}</div>'
    picture = '<div class="cell_output"><img></div>'
    page.write_text(
        "<body><p>not counted</p><article><p>Four words stand here.</p>"
        + cell.format("a\nb\n\nc", "")
        + cell.format("d", picture)
        + f"<details><summary>folded</summary>{cell.format('e', '')}</details>"
        + '<p>Equation 4 of <a href="03-next.html">later</a>, equation 2.1 of '
        + '<a href="01-before.html">ours</a>.</p></article></body>'
    )
    lines, longest, words, ratio, figure, ahead, papers = lessons.measures(page)
    assert (lines, longest, figure, ahead, papers) == (4, 3, 1, 1, 1)
    assert ratio == round(words / 4) and words == 12


def test_letters_with_two_meanings_are_found():
    text = (
        "## Chapters 1 to 3\n\n| $a$, $b$ | one |\n| $b$ | two |\n\n## Chapter 4\n\n| $a$ | x |\n"
    )
    assert lessons.letters_with_two_meanings(text) == {1: ["b"], 2: ["b"], 3: ["b"], 4: []}
