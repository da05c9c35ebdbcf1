"""A copy of the project with pages of its own, for tests of its tools."""

import os
import shutil
import subprocess
import sys

import nbformat

from tools import notebooks

ROOT = notebooks.ROOT

HEADER = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---
"""


def copy_project(root, pages, contents, *files):
    """Copy tools, code and settings to a new folder, and write pages of its own.

    Args:
        root: the folder to make.
        pages: dictionary from a path in `book/` to the text of the page.
        contents: the text of `_toc.yml`.
        files: paths of further files to copy.
    """
    for folder in ("tools", "symlib", "symcourse", "book/_static"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_config.yml", "requirements.lock", *files):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    for name, text in {"references.bib": "", "welcome.md": "# Welcome\n", **pages}.items():
        (root / "book" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "book" / name).write_text(text)
    (root / "_toc.yml").write_text(contents)
    return root


def keep_stored_executions(root, sources):
    """Let the tools take the outputs of some exercise pages from the stored notebooks.

    Other tests of the same run execute these pages, whole and blank, and compare the outputs; a
    second execution would show nothing new, and costs minutes.
    """
    store = root / "_build" / "executed"
    store.mkdir(parents=True, exist_ok=True)
    for source in sources:
        whole = notebooks.convert(source)
        pages = {
            notebooks.notebook_path(source): whole,
            notebooks.blank_path(source): notebooks.blank(whole),
        }
        for path, notebook in pages.items():
            notebooks.take_outputs(notebook, nbformat.read(path, as_version=4))
            nbformat.write(notebook, store / f"{notebooks.execution_key(notebook, root)}.ipynb")


def run(root, *command, check=True):
    """Run a program in a copy; its own symlib comes first."""
    done = subprocess.run(
        command,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "PYTEST_ADDOPTS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout
    return done


def run_module(root, *command, check=True):
    """Run a Python module in a copy."""
    return run(root, sys.executable, "-m", *command, check=check)
