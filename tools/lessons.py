"""Print a table of the lessons, from the built pages: `python -m tools.lessons [NN ...]`.

It is there to be read, not a gate. A good lesson has about 150 visible lines of code in cells of 3
to 8, 12 or more words to a line, and its first figure on the first screen.
"""

import re
import sys

from bs4 import BeautifulSoup

from tools import notebooks

HTML = notebooks.ROOT / "_build" / "html" / "book"
SCREEN = 250  # words that fill a screen, roughly
OF_A_PAPER = re.compile(r"\b(?:[Ee]quations?|Figures?|Table|Theorem|Proposition) \d+(?![\d.])")
HEAD = ("lesson", "lines", "longest", "words", "words/line", "figure", "ahead", "paper's", "twice")


def letters_with_two_meanings(text):
    """Return the rows of the notation table whose letter stands in more than one row of a part."""
    twice = {}
    for part in re.split(r"^## ", text, flags=re.M)[1:]:
        rows = re.findall(r"^\| (\$[^|]*\$) \|", part, re.M)
        letters = [letter.strip() for row in rows for letter in re.findall(r"\$([^$]+)\$", row)]
        chapters = [int(x) for x in re.findall(r"\d+", part.partition("\n")[0])]
        if chapters:  # "Chapters 1 to 3", "Chapters 4 and 5", "Chapter 6"
            for chapter in range(min(chapters), max(chapters) + 1):
                twice[chapter] = sorted({x for x in letters if letters.count(x) > 1})
    return twice


def measures(page):
    """Return what the table says of one built lesson.

    Args:
        page: path of the built page.

    Returns:
        Visible lines of code; lines of the longest visible cell; words of prose; words to a line;
        the screen of the first figure; links to later lessons; numbers of a paper's equations,
        figures and theorems.
    """
    article = BeautifulSoup(page.read_text("utf-8"), "html.parser").find("article")
    for folded in article.find_all("details"):
        folded.decompose()
    cells = [c.get_text() for c in article.select("div.cell_input pre")]
    lines = [sum(bool(x.strip()) for x in cell.splitlines()) for cell in cells]
    picture = article.select_one("div.cell_output img")
    before = len(" ".join(picture.find_all_previous(string=True)).split()) if picture else None
    head = len(" ".join(article.find_all_previous(string=True)).split())
    number = int(page.stem[:2])
    links = [re.match(r"(\d\d)-", a["href"]) for a in article.select("p a[href]")]
    for cell in article.select("div.cell"):
        cell.decompose()
    text = article.get_text(" ")
    words = len(re.findall(r"\w[\w'.-]*", text))
    return (
        sum(lines),
        max(lines, default=0),
        words,
        round(words / max(sum(lines), 1)),
        1 + (before - head) // SCREEN if picture else "none",
        sum(int(found[1]) > number for found in links if found),
        len(OF_A_PAPER.findall(text)),
    )


def main(prefixes=()):
    """Print the table; the last column names letters that the notation page gives twice."""
    twice = letters_with_two_meanings((notebooks.ROOT / "book" / "notation.md").read_text("utf-8"))
    print(" ".join(f"{name:>10}" for name in HEAD))
    for page in sorted(HTML.glob("[0-9]*.html")):
        if not prefixes or page.name.startswith(tuple(prefixes)):
            letters = " ".join(twice.get(int(page.stem[:2]), [])) or "-"
            row = (page.stem[:2], *measures(page), letters)
            print(" ".join(f"{value!s:>10}" for value in row))


if __name__ == "__main__":
    main(sys.argv[1:])
