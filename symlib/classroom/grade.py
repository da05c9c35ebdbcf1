"""Mark a folder of submissions into a table and a page of feedback for each student."""

import csv
import hashlib
import html
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from symlib.classroom.check import PAGES, Result, checks_of
from symlib.classroom.marking import Mark, file_digest, mark


def grade(page, folder, output, *, seed, limit=20, workers=None, unsafe=False):
    """Mark every notebook of a folder and write the table and the feedback.

    A run that was interrupted goes on where it stopped: each mark is kept beside the table, under
    the contents of its file, the checks, the seed and the limit.

    Args:
        page: the number of the exercise page, such as "01".
        folder: where the submissions lie, one `*.ipynb` file a student; its name is the student's.
        output: the table to write, such as `marks.csv`. Feedback lies beside it, in
            `marks-feedback/`, and what an interrupted run keeps in `marks-kept/`.
        seed: what the checks draw depends on it; keep it to yourself.
        limit: seconds for one cell and for one answer.
        workers: submissions at once; by default one for each core.
        unsafe: run without the sandbox.

    Returns:
        list of (student, Mark), sorted by student.

    Raises:
        ValueError: there is no such page, or no notebook in the folder.
    """
    checks_of(page)
    folder, output = Path(folder), Path(output)
    files = {p.stem: p for p in sorted(folder.glob("*.ipynb"))} if folder.is_dir() else {}
    if not files:
        raise ValueError(f"no notebooks (*.ipynb) in {folder}")
    kept = output.with_name(output.stem + "-kept")
    kept.mkdir(parents=True, exist_ok=True)
    marks = {}
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        jobs = {
            pool.submit(_mark_once, kept, path, page, seed, limit, unsafe): student
            for student, path in files.items()
        }
        try:
            for job in tqdm(as_completed(jobs), total=len(jobs), desc="Marking", unit="notebook"):
                marks[jobs[job]] = job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    marks = sorted(marks.items())
    write_table(marks, output)
    write_feedback(marks, page, output.with_name(output.stem + "-feedback"))
    return marks


def _mark_once(kept, path, page, seed, limit, unsafe):
    """Return the mark of a file, from an earlier run if nothing changed since."""
    parts = (file_digest(path), _checks_digest(page), seed, limit, unsafe)
    name = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
    stored = kept / f"{name}.json"
    try:
        data = json.loads(stored.read_text("utf-8"))
        return Mark(*data[:3], [Result(*result) for result in data[3]])
    except (OSError, ValueError, TypeError):
        pass  # not marked yet, or the writing was interrupted
    found = mark(path, page, seed, limit, unsafe)
    part = stored.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(found), "utf-8")
    part.replace(stored)
    return found


def _checks_digest(page):
    source = Path(__file__).parent / PAGES.rpartition(".")[2] / f"page_{page}.py"
    return hashlib.sha256(source.read_bytes()).hexdigest()


def write_table(marks, path):
    """Write the table of marks as CSV: a row for each student, a column for each check."""
    names = [result.name for result in marks[0][1].results]
    digests = [found.digest for _, found in marks]
    header = ["student", "score", "max", "status", "seconds", "sha256", "same_file_as"]
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8-sig") as file:  # a spreadsheet expects the mark
        table = csv.writer(file)
        table.writerow([*header, *names, "feedback"])
        for student, found in marks:
            same = [s for s, other in marks if other.digest == found.digest and s != student]
            same = same if digests.count(found.digest) > 1 else []
            wrong = [f"{r.name}: {r.words}" for r in found.results if not r.passed]
            row = [student, found.score, len(names), found.status, found.seconds, found.digest]
            row += [", ".join(same), *(int(r.passed) for r in found.results), " | ".join(wrong)]
            table.writerow([plain_cell(cell) for cell in row])
    part.replace(path)


def plain_cell(cell):
    """Return a cell that no spreadsheet takes for a formula, and on one line."""
    if not isinstance(cell, str):
        return cell
    cell = " ".join(cell.split())
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@") else cell


def write_feedback(marks, page, folder):
    """Write a page of feedback for each student."""
    folder.mkdir(parents=True, exist_ok=True)
    for student, found in marks:
        rows = "\n".join(
            f"<tr><td>{html.escape(r.name.replace('_', ' '))}</td>"
            f"<td>{'right' if r.passed else 'not yet'}</td>"
            f"<td>{html.escape('' if r.passed else r.words)}</td></tr>"
            for r in found.results
        )
        text = _PAGE.format(
            title=html.escape(f"Exercises {page}: {student}"),
            score=f"{found.score} of {len(found.results)}",
            status="" if found.status == "marked" else f"<p>{html.escape(found.status)}</p>",
            rows=rows,
        )
        name = re.sub(r"[^\w .,()@+-]", "_", student) or "_"
        (folder / f"{name}.html").write_text(text, "utf-8")


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<style>body {{ font-family: sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
td, th {{ text-align: left; vertical-align: top; padding: .3rem 1rem .3rem 0 }}</style></head>
<body><h1>{title}</h1><p>{score} checks are right.</p>{status}
<table><thead><tr><th>Check</th><th>Result</th><th>What to think about</th></tr></thead>
<tbody>
{rows}
</tbody></table></body></html>
"""
