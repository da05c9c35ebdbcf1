"""Links from a generated page in book/ to claims, sections, functions, tests and results."""

import functools
import html
from pathlib import Path

import yaml
from docutils.nodes import make_id

from tools import evidence

ROOT = Path(__file__).resolve().parent.parent


def claim(page, name):
    """Return a link to a claim. It is HTML: Sphinx knows no target inside a cell's output."""
    return f'<a href="../{page}.html#claim-{name}"><code>{name}</code></a>'


def section(page, heading):
    """Return a link to a section. It is HTML: Sphinx gives headings an anchor, but no label."""
    return f'<a href="../{page}.html#{make_id(heading)}">{html.escape(heading)}</a>'


def function(name):
    """Return a link to a name in the reference."""
    return f"{{py:obj}}`{name}`"


def test(path):
    """Return a link to the file of a test, tests/library/test_x.py::test_y."""
    file, _, name = path.partition("::")
    return f"[`{name}`]({_files()}/{file})"


def result(name):
    """Return a link to the stored result of an experiment."""
    return f"[`{name}.json`]({_files()}/{evidence.result_path(name)})"


@functools.cache
def _files():
    """Return where the files of the repository are shown."""
    settings = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))["repository"]
    return f"{settings['url']}/blob/{settings['branch']}"
