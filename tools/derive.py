"""Derive the notebook that is committed from a page and its execution.

The page is MyST for Sphinx. Its notebook is plain: it reads as well in Jupyter, VS Code, Colab and
on GitHub. Numbers of claims are filled in, and what folds on the page folds where the program can.
"""

import hashlib
import html

import nbformat
import yaml

from tools import plain
from tools.folds import fold

GLUE = "application/papermill.record/text/plain"
CLAIM = 'class="claim"'


def repository_url(root):
    """Return the public address of the repository."""
    return yaml.safe_load((root / "_config.yml").read_text("utf-8"))["repository"]["url"]


def install_cell(root):
    """Return the first code cell of every notebook: it installs the course on Colab."""
    # It asks for symcourse: a package symlib that is not ours exists too.
    source = (
        "import importlib.util\n\n"
        'if importlib.util.find_spec("symcourse") is None:  # on Colab\n'
        f'    %pip install -q "model-symmetries @ git+{repository_url(root)}"'
    )
    # The tag marks it as no part of the page.
    metadata = {"jupyter": {"source_hidden": True}, "tags": ["remove-cell"]}
    return nbformat.v4.new_code_cell(source, metadata=metadata)


def values(notebook):
    """Return what the claims of a notebook show, a dict from their names to texts."""
    found = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if GLUE in output.get("data", {}):
                name = output.metadata["scrapbook"]["name"]
                found[name] = "".join(output.data[GLUE])
    return found


def derive(executed, page, labels):
    """Return the plain notebook of an executed page.

    Args:
        executed: the notebook of the page as it is written, with outputs.
        page: where it stands, such as "book/02-symmetric-posteriors".
        labels: the `Labels` of the book.
    """
    notebook = nbformat.from_dict(executed)
    notebook.metadata = nbformat.from_dict(
        {k: v for k, v in notebook.metadata.items() if k == "kernelspec"}
    )
    known = values(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = plain.markdown(cell.source, page, labels, known)
        else:
            _fold(cell)
    notebook.cells = [c for cell in notebook.cells for c in (cell, *_caption(cell)) if c.source]
    title = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "markdown")
    notebook.cells.insert(title + 1, install_cell(labels.root))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, 1):
        cell.execution_count = count
    seen = {}
    for cell in notebook.cells:
        text = f"{cell.cell_type}\n{cell.source}"
        seen[text] = seen.get(text, 0) + 1
        cell.id = hashlib.sha256(f"{text}\n{seen[text]}".encode()).hexdigest()[:12]
    return notebook


def _caption(cell):
    """Yield the caption of a cell's figure, which stands in the cell's head on the page."""
    text = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption")
    if text:
        yield nbformat.v4.new_markdown_cell(f"*{' '.join(text.split())}*")


def _fold(cell):
    """Fold a code cell as the page does, for JupyterLab and for Colab."""
    tags = cell.metadata.get("tags", [])
    if "live" in tags:
        # What it shows needs a kernel; a stored copy would be a dead slider.
        cell.outputs = []
        return
    shown = [o.get("data", {}) for o in cell.outputs]
    checks = sum(CLAIM in data.get("text/html", "") for data in shown)
    figure = any(
        "image/png" in data or 'class="flipbook"' in data.get("text/html", "") for data in shown
    )
    other = any(
        set(data) - {GLUE} and CLAIM not in data.get("text/html", "") for data in shown
    ) or any(o.output_type == "stream" for o in cell.outputs)
    found = fold(cell.source, tags, checks, figure, other)
    if "quiz" in tags:
        found = "input", None
    if not found:
        return
    part, summary = found
    cell.metadata["jupyter"] = {"source_hidden": True}
    cell.metadata["cellView"] = "form"  # Colab
    if part == "cell" and not checks:
        cell.metadata["jupyter"]["outputs_hidden"] = True
    if checks and part == "cell":
        _group(cell.outputs, summary)


def _group(outputs, summary):
    """Show the claims of a cell as one closed line, in its first output."""
    claims = [o for o in outputs if CLAIM in o.get("data", {}).get("text/html", "")]
    sentences = "\n".join(o.data["text/html"] for o in claims)
    for output in claims[1:]:
        output.data["text/html"] = ""
    claims[0].data["text/html"] = (
        f"<details><summary>{html.escape(summary)}</summary>\n{sentences}\n</details>"
    )


def ungrouped(outputs):
    """Return stored outputs with each claim by itself again."""
    outputs = nbformat.from_dict(outputs)
    claims = [o for o in outputs if GLUE not in o.get("data", {}) and "data" in o]
    grouped = claims and claims[0].data.get("text/html", "").startswith("<details><summary>")
    if grouped:
        lines = claims[0].data["text/html"].splitlines()[1:-1]
        for output, line in zip(claims, lines, strict=True):
            output.data["text/html"] = line
    return outputs
