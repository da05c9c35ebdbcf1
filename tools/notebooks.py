"""Turn the chapter sources in book/ into the executed notebooks in notebooks/.

`python -m tools.notebooks` regenerates what is out of date; with names, such as
`python -m tools.notebooks 02`, only the notebooks whose names begin so. The page and the
notebook are made from the same execution (`execute`), the notebook as plain Markdown (`derive`).
"""

import asyncio
import base64
import hashlib
import io
import json
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from PIL import Image
from tqdm import tqdm

from tools import derive, plain

ROOT = Path(__file__).resolve().parent.parent
CELL_TIMEOUT = 300  # seconds; a whole chapter is to take less than 60
KEPT_EXECUTIONS = 200  # a few versions of every page, so that going back is quick
# What a page's numbers depend on besides its own cells.
LIBRARY = (
    "symlib/**/*.py",
    "symcourse/page/*.py",
    "symcourse/experiments/__init__.py",
    "requirements.lock",
)
CHECKS = "symcourse/classroom/**/*.py"  # on these, only the pages that check answers depend
RESULTS = "symcourse/experiments/results/*.json"  # of these, the ones that the page names


def sources(root=ROOT):
    """Return the chapter and exercise sources: the pages whose names begin with a number."""
    named = [*root.glob("book/[0-9]*.md"), *root.glob("book/exercises/*.md")]
    named += root.glob("book/paper/*.md")
    for path in named:
        if not re.search(r"^kernelspec:", path.read_text("utf-8"), re.M):
            raise SystemExit(
                f"{path.relative_to(root)} has no kernelspec in its head: copy the head of another "
                "chapter."
            )
    return sorted(named)


def executed_pages(root=ROOT):
    """Return the sources of all pages with cells: those with a notebook, and the first page."""
    first = root / "book" / "welcome.md"
    has_cells = first.exists() and "kernelspec:" in first.read_text("utf-8")
    return [first] * has_cells + sources(root)


def notebook_path(source, root=ROOT):
    """Return where a source's notebook lies: book/x.md -> notebooks/x.ipynb."""
    return root / "notebooks" / source.relative_to(root / "book").with_suffix(".ipynb")


def blank_path(source, root=ROOT):
    """Return where the blank notebook of an exercise page lies, which Binder and Colab open."""
    return root / "notebooks" / "blank" / source.with_suffix(".ipynb").name


def page_name(source, root=ROOT):
    """Return the name of a source's page: book/x.md -> "book/x"."""
    return str(source.relative_to(root).with_suffix(""))


def is_solution(cell):
    """Return whether a cell belongs to the solution of an exercise."""
    return "solution" in cell.metadata.get("tags", [])


def blank(notebook):
    """Return a notebook without solutions and without outputs."""
    notebook = nbformat.from_dict(notebook)
    notebook.cells = [cell for cell in notebook.cells if not is_solution(cell)]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def is_exercise(source):
    """Return whether a source is an exercise page."""
    return source.parent.name == "exercises"


def convert(source, root=ROOT):
    """Return a source as a notebook without outputs."""
    notebook = jupytext.read(source, fmt="md:myst")
    notebook.metadata = nbformat.from_dict(
        {k: v for k, v in notebook.metadata.items() if k in ("kernelspec", "myst")}
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"  # jupytext makes random ones
    return notebook


def digest(*parts):
    """Return a short hash of strings and bytes."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part if isinstance(part, bytes) else part.encode())
        state.update(b"\0")
    return state.hexdigest()[:24]


def library_digest(root=ROOT):
    """Return a hash of everything but its own cells that a page's numbers depend on."""
    files = sorted({p for pattern in LIBRARY for p in root.glob(pattern)})
    python = "{}.{}".format(*sys.version_info)
    return digest(python, *(x for p in files for x in (str(p.relative_to(root)), p.read_bytes())))


def execution_key(notebook, root=ROOT):
    """Return the key under which a notebook's execution is kept."""
    # Tags that only change how a page looks are left out, so that all editions share executions.
    code = [
        [c.source, "raises-exception" in c.metadata.get("tags", [])]
        for c in notebook.cells
        if c.cell_type == "code"
    ]
    text = "\n".join(source for source, _ in code)
    results = sorted(root.glob(RESULTS)) if "symcourse.experiments" in text else []
    # A page that reads a result without naming it in quotes depends on all of them.
    named = [path for path in results if f'"{path.stem}"' in text] or results
    if "symcourse.classroom" in text:
        others = re.compile(r"page_(?!{})".format("|".join(re.findall(r'checker\("(\d\d)"', text))))
        named = named + sorted(p for p in root.glob(CHECKS) if not others.match(p.name))
    contents = (x for path in named for x in (path.name, path.read_bytes()))
    return digest(json.dumps(code, sort_keys=True), library_digest(root), *contents)


def execute(names_and_notebooks, root=ROOT):
    """Execute notebooks in parallel, each once for its cells and the library as they are.

    Args:
        names_and_notebooks: dict from a name (such as "01-model-symmetries") to a notebook.
        root: the repository.

    Returns:
        dict from name to the executed notebook.

    Raises:
        SystemExit: a cell failed; every failure is printed, with the cell and its error.
    """
    store = root / "_build" / "executed"
    store.mkdir(parents=True, exist_ok=True)
    kept = {n: store / f"{execution_key(nb, root)}.ipynb" for n, nb in names_and_notebooks.items()}
    todo = [n for n in names_and_notebooks if not kept[n].exists()]
    failures = []
    if todo:
        workers = min(os.cpu_count() or 1, len(todo))
        bar = tqdm(total=len(todo), desc="Executing notebooks", unit="notebook", file=sys.stdout)
        with ThreadPoolExecutor(workers) as pool, bar:
            jobs = {
                pool.submit(_execute_one, names_and_notebooks[n], kept[n], n, root): n for n in todo
            }
            for job in as_completed(jobs):
                bar.update()
                try:
                    bar.write(f"  {jobs[job]}: {job.result():.0f} s")
                except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
                    bar.write(f"  {jobs[job]}: failed")
                    failures.append(f"\n{jobs[job]} failed:\n{error}")
    if failures:
        raise SystemExit("\n".join(failures))
    old = sorted(store.glob("*.ipynb"), key=lambda p: p.stat().st_mtime)
    for path in old[:-KEPT_EXECUTIONS]:
        path.unlink()
    results = {}
    for name, notebook in names_and_notebooks.items():
        executed = nbformat.read(kept[name], as_version=4)
        outputs = iter([c for c in executed.cells if c.cell_type == "code"])
        merged = nbformat.from_dict(notebook)
        for cell in merged.cells:
            if cell.cell_type == "code":
                done = next(outputs)
                cell.outputs, cell.execution_count = done.outputs, done.execution_count
        results[name] = merged
    return results


def _execute_one(notebook, path, name, root):
    """Execute one notebook in the folder it belongs to and keep the result."""
    start = time.monotonic()
    notebook = nbformat.from_dict(notebook)
    folder = root / "book"
    folder.mkdir(parents=True, exist_ok=True)
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        resources={"metadata": {"path": str(folder)}},
        coalesce_streams=True,  # how often a cell flushes what it prints is chance
    )
    asyncio.run(client.async_execute())  # which closes its loop; client.execute() leaves one open
    part = path.with_suffix(f".{os.getpid()}.part")
    nbformat.write(notebook, part)
    part.replace(path)
    return time.monotonic() - start


def clean(notebook):
    """Return an executed notebook as it is committed: small, and the same every time."""
    notebook = nbformat.from_dict(notebook)
    notebook.metadata.pop("widgets", None)
    notebook.metadata.pop("language_info", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop("application/vnd.jupyter.widget-view+json", None)
            if "image/png" in data:
                data["image/png"] = _fewer_colours(data["image/png"])
            if 'class="flipbook"' in data.get("text/html", ""):
                # The frames behind the first need the page's script, so only pages keep them.
                lines = data["text/html"].splitlines()
                data["text/html"] = "\n".join(x for x in lines if not x.startswith("<img hidden"))
    return notebook


def _fewer_colours(png):
    """Return a base64 PNG reduced to 128 colours."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    buffer = io.BytesIO()
    image.quantize(128, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def differences(root=ROOT):
    """Return a sentence for each notebook that is not what its source says."""
    problems = []
    labels = plain.Labels(root)
    expected = {notebook_path(s, root): s for s in sources(root)}
    blanks = {blank_path(s, root): s for s in expected.values() if is_exercise(s)}
    for path, source in (expected | blanks).items():
        name, page = path.relative_to(root), source.relative_to(root)
        if not path.exists():
            problems.append(f"{name} is missing")
            continue
        notebook = convert(source, root)
        if path in blanks:
            notebook = blank(notebook)
        if not _same(nbformat.read(path, as_version=4), notebook, source, labels):
            without = " without its solutions" if path in blanks else ""
            problems.append(f"{name} differs from {page}{without}")
    for path in _strays(root, expected | blanks):
        problems.append(f"{path.relative_to(root)} has no source in book/")
    return problems


def take_outputs(notebook, stored):
    """Give the cells of a page the outputs of its stored notebook; say whether the code agrees."""
    code = [cell for cell in stored.cells if cell.cell_type == "code"][1:]  # but for the install
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.source for cell in code] != [cell.source for cell in cells]:
        return False
    for count, (cell, old) in enumerate(zip(cells, code, strict=True), 1):
        cell.outputs, cell.execution_count = derive.ungrouped(old.outputs), count
    return True


def _same(stored, notebook, source, labels):
    """Return whether a stored notebook is the one that its source makes, with stored outputs."""
    if not take_outputs(notebook, stored):
        return False
    try:
        made = derive.derive(notebook, page_name(source, labels.root), labels)
    except plain.UnknownMarkup:  # a new claim has no value before it is executed
        return False
    return _outline(stored) == _outline(made)


def _strays(root, expected):
    """Return the notebooks that no source makes."""
    found = sorted(root.glob("notebooks/**/*.ipynb"))
    return [p for p in found if ".ipynb_checkpoints" not in p.parts and p not in expected]


def _outline(notebook):
    """Return what a source and its notebook must share."""
    cells = [[c.cell_type, c.source, c.id, dict(c.metadata)] for c in notebook.cells]
    return json.dumps(cells, sort_keys=True)


def _write(path, text, root):
    """Write a file if that changes it, and say so."""
    if not path.exists() or path.read_text("utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        print(f"wrote {path.relative_to(root)}")


def main(prefixes=(), root=ROOT):
    """Write every notebook whose source, library or outputs changed."""
    folder = root / "notebooks"
    paths = {notebook_path(source, root): source for source in sources(root)}
    blanks = {blank_path(s, root): s for s in paths.values() if is_exercise(s)}
    for path in _strays(root, paths | blanks):
        path.unlink()
        print(f"removed {path.relative_to(root)}: it has no source in book/")
    wanted = {
        str(path.relative_to(folder).with_suffix("")): (
            blank(convert(source, root)) if path in blanks else convert(source, root)
        )
        for path, source in (paths | blanks).items()
        if not prefixes or path.name.startswith(tuple(prefixes))
    }
    executed = execute(wanted, root)
    labels = plain.Labels(root)
    for name, notebook in executed.items():
        path = folder / f"{name}.ipynb"
        page = page_name((paths | blanks)[path], root)
        try:
            made = derive.derive(clean(notebook), page, labels)
        except plain.UnknownMarkup as error:
            raise SystemExit(f"{error}.") from error
        _write(path, nbformat.writes(made) + "\n", root)
    print(f"{len(executed)} notebooks are up to date.")


if __name__ == "__main__":
    main(sys.argv[1:])
