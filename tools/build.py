"""Build the book into _build/html: execute every page, then render, and fail on any warning.

`python -m tools.build`. A page is never older than what it was made from: a change in
symlib, a result file or the lock re-executes the pages, and any other change renders them anew.
"""

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn

from tools import notebooks, scoreboard, sources

ROOT = notebooks.ROOT
INPUTS = (
    "_config.yml",
    "_toc.yml",
    "book/**/*",
    "notebooks/**/*.ipynb",
    "tools/*.py",
    notebooks.CHECKS,
    notebooks.RESULTS,
)


def input_digest(root=ROOT):
    """Return a hash of everything that the built pages depend on."""
    files = sorted(p for pattern in INPUTS for p in root.glob(pattern) if p.is_file())
    parts = (x for p in files for x in (str(p.relative_to(root)), p.read_bytes()))
    return notebooks.digest(notebooks.library_digest(root), *parts)


def check_sources(root=ROOT):
    """Stop with one sentence if a generated file is not what its source says."""
    problems = notebooks.differences(root)
    if problems:
        raise SystemExit("; ".join(problems) + ": run `make notebooks`.")
    for made in (scoreboard, sources):
        name = made.PAGE.name
        page = root / "book" / name
        if page.exists() and page.read_text("utf-8") != made.page():
            data = page.with_suffix(".yml").name
            raise SystemExit(f"book/{name} is not what {data} says: run `make notebooks`.")


def hand_over(executed, root=ROOT):
    """Put executed notebooks where Jupyter Book looks for them.

    The cache is made anew each time: its own key ignores the library and the cells' tags.
    """
    folder = root / "_build" / ".jupyter_cache"
    shutil.rmtree(folder, ignore_errors=True)
    cache = get_cache(folder)
    for name, notebook in executed.items():
        uri = str(root / f"{name}.md")
        cache.cache_notebook_bundle(
            CacheBundleIn(notebook, uri, data={"execution_seconds": 0}), check_validity=False
        )


def render(root, html, log):
    """Render the pages of a folder into another, or stop with the warnings if there are any."""
    # Pages that left the table of contents must leave the site, too.
    shutil.rmtree(html, ignore_errors=True)
    print("Rendering the pages", flush=True)
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    command = [jupyter_book, "build", root, "--all", "-W", "--keep-going", "-q"]
    with log.open("w", encoding="utf-8") as out:
        run = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False)
    if run.returncode:
        print(log.read_text("utf-8"))
        raise SystemExit(
            "The pages have the warnings or errors above: mend them, then build again."
        )
    built = root / "_build" / "html"
    if built != html:
        shutil.move(built, html)


def main(root=ROOT):
    """Build the book, or say that it is up to date. A second build waits for the first."""
    root = Path(root)
    (root / "_build").mkdir(exist_ok=True)
    with (root / "_build" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _build(root)


def _build(root):
    """Build the book if anything it depends on has changed."""
    html = root / "_build" / "html"
    stamp = root / "_build" / "html.digest"
    current = input_digest(root)
    if stamp.exists() and stamp.read_text() == current and (html / "index.html").exists():
        print("The book is up to date: open _build/html/index.html")
        return
    stamp.unlink(missing_ok=True)
    check_sources(root)
    pages = {
        notebooks.page_name(s, root): notebooks.convert(s, root)
        for s in notebooks.executed_pages(root)
    }
    hand_over(notebooks.execute(pages, root), root)
    render(root, html, root / "_build" / "build.log")
    stamp.write_text(current)
    print("The book is built: open _build/html/index.html")


if __name__ == "__main__":
    main()
