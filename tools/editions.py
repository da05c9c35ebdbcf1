"""Build the book for a class or for its teacher: `python -m tools.editions class` or `teacher`.

The class edition has no solutions in any of its files; the teacher's has them open, and the
teaching notes. Both come from the same sources as the book, and the chapters from the same
executions.
"""

import re
import shutil
import sys
from pathlib import Path

import jupytext
import nbformat
import yaml

from tools import build, derive, notebooks, plain

ROOT = notebooks.ROOT
EDITIONS = ("class", "teacher")
NOTES = "book/teaching"  # pages that only the teacher's edition has
TEACHERS = "book/teachers"  # a page that a class does not have
NOT_FOR_A_CLASS = re.compile(r"^% Not for a class:\n(.*?)^% End\.\n", re.M | re.S)


def convert(source, edition, root=ROOT):
    """Return the notebook of a source as an edition shows it, without outputs."""
    notebook = notebooks.convert(source, root)
    if edition == "class":
        return notebooks.blank(notebook)
    for cell in notebook.cells:
        if notebooks.is_solution(cell):
            cell.metadata["tags"] = [t for t in cell.metadata["tags"] if t != "hide-cell"]
    return notebook


def lay_out(edition, folder, root=ROOT):
    """Write the sources of an edition into a folder, and return its notebooks by name."""
    shutil.rmtree(folder, ignore_errors=True)
    ignore = shutil.ignore_patterns("exercises", "paper", "[0-9]*.md", Path(NOTES).name)
    shutil.copytree(root / "book", folder / "book", ignore=ignore)
    config = yaml.safe_load((root / "_config.yml").read_text("utf-8"))
    contents = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
    config["title"] += f", {edition} edition"
    config["sphinx"]["local_extensions"] = {
        name: str(root / "tools") for name in config["sphinx"]["local_extensions"]
    }
    if edition == "class":
        # Sphinx publishes the sources of the pages otherwise. They have no solutions either.
        config["sphinx"]["config"] |= {"html_copy_source": False, "html_show_sourcelink": False}
        (folder / f"{TEACHERS}.md").unlink(missing_ok=True)
        for part in contents["parts"]:
            part["chapters"] = [page for page in part["chapters"] if page["file"] != TEACHERS]
        for page in (folder / "book").glob("*.md"):
            page.write_text(NOT_FOR_A_CLASS.sub("", page.read_text("utf-8")), "utf-8")
    else:
        shutil.copytree(root / NOTES, folder / NOTES)
        notes = sorted((root / NOTES).glob("*.md"))
        chapters = [{"file": f"{NOTES}/{path.stem}"} for path in notes]
        contents["parts"].insert(1, {"caption": "For the teacher", "chapters": chapters})
    for name, data in (("_config.yml", config), ("_toc.yml", contents)):
        (folder / name).write_text(yaml.safe_dump(data, sort_keys=False), "utf-8")
    named = {}
    for source in notebooks.executed_pages(root):
        name = notebooks.page_name(source, root)
        named[name] = notebook = convert(source, edition, root)
        target = folder / f"{name}.md"
        if target.exists():  # it was copied above, without what a class does not get
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(jupytext.writes(notebook, fmt="md:myst"), "utf-8")
    return named


def main(edition, root=ROOT):
    """Build an edition into _build/class or _build/teacher."""
    target = root / "_build" / edition
    shutil.rmtree(target, ignore_errors=True)
    folder = target / "source"
    named = lay_out(edition, folder, root)
    executed = notebooks.execute(named, root)
    build.hand_over(executed, folder)
    build.render(folder, target / "html", target / "build.log")
    shutil.rmtree(folder)
    if edition == "class":
        labels = plain.Labels(root)
        for source in filter(notebooks.is_exercise, notebooks.sources(root)):
            path = target / "notebooks" / source.with_suffix(".ipynb").name
            path.parent.mkdir(exist_ok=True)
            name = notebooks.page_name(source, root)
            made = notebooks.blank(derive.derive(executed[name], name, labels))
            path.write_text(nbformat.writes(made) + "\n", "utf-8")
        print(f"Blank notebooks for the class: {target / 'notebooks'}")
    print(f"The {edition} edition is built: open {target / 'html' / 'index.html'}")


if __name__ == "__main__":
    if sys.argv[1:] not in [[edition] for edition in EDITIONS]:
        raise SystemExit("python -m tools.editions class, or python -m tools.editions teacher")
    main(sys.argv[1])
