"""Mark a folder of submissions into a table and a page of feedback for each student."""

import csv
import hashlib
import html
import json
import os
import re
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

import symlib
from symcourse.classroom import sandbox
from symcourse.classroom.check import LIMIT, Result, checks_of, readable
from symcourse.classroom.marking import (
    Mark,
    Unreadable,
    digest_of,
    mark_bytes,
    nothing,
    read_file,
    unreadable,
)


class NothingToMark(ValueError):
    """The folder has no submissions, or two of one name."""


def submissions(folder):
    """Return the notebooks of a folder by student, and the names of what else lies there.

    The student is the name of the file. Notes that macOS leaves beside files are passed over.
    """
    folder, files, others = Path(folder), {}, []
    if not folder.is_dir():
        raise NothingToMark(f"{folder} is no folder: name the one that holds the notebooks")
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() != ".ipynb" or path.name.startswith("._"):
            others.append(_name(path.name))
            continue
        student = _name(path.name[: -len(".ipynb")])
        if student in files:
            raise NothingToMark(f"two files of {folder} have the name {student}: rename one")
        files[student] = path
    if not files:
        inside = f": they have to lie in it, not in its folders ({others[0]})" if others else ""
        raise NothingToMark(f"no notebooks (*.ipynb) in {folder}{inside}")
    return files, others


def _name(name):
    """Return a file's name as text that every file and screen can hold."""
    return readable(os.fsencode(name).decode("utf-8", "backslashreplace"))


def grade(page, folder, output, *, seed, limit=LIMIT, workers=None, unsafe=False):
    """Mark every notebook of a folder and write the table and the feedback.

    A run that was interrupted goes on where it stopped: each mark is kept beside the table, under
    the contents of its file, the checks, the seed and the limit. What was stopped, for taking too
    long or otherwise, gets another try.

    Args:
        page: the number of the exercise page, such as "01".
        folder: where the submissions lie, one `.ipynb` file a student.
        output: the table to write, such as `marks.csv`. Feedback lies beside it, in
            `marks-feedback/`, and what an interrupted run keeps in `marks-kept/`.
        seed: what the checks draw depends on it; keep it to yourself.
        limit: seconds for one cell and for one answer.
        workers: submissions at once; by default one for each core, as far as memory lasts.
        unsafe: run without the sandbox.

    Returns:
        list of (student, Mark), sorted by student.

    Raises:
        NothingToMark: see `submissions`.
    """
    files, _ = submissions(folder)
    output = Path(output)
    kept = output.with_name(output.stem + "-kept")
    kept.mkdir(parents=True, exist_ok=True)
    settings = (page, _checks_digest(), seed, limit, unsafe)
    marks = {}
    sandbox.interrupted.clear()
    pool = ThreadPoolExecutor(workers or sandbox.most_workers())
    jobs = {pool.submit(_mark_once, kept, path, settings): name for name, path in files.items()}
    try:
        for job in tqdm(as_completed(jobs), total=len(jobs), desc="Marking", unit="notebook"):
            marks[jobs[job]] = job.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        sandbox.stop_all()
        raise
    finally:
        pool.shutdown()
    marks = sorted(marks.items())
    write_table(marks, output)
    write_feedback(marks, page, output.with_name(output.stem + "-feedback"))
    return marks


def _mark_once(kept, path, settings):
    """Return the mark of a file, from an earlier run if nothing changed since."""
    page, _, seed, limit, unsafe = settings
    try:
        data = read_file(path)
        name = hashlib.sha256(repr((digest_of(data), settings)).encode()).hexdigest()[:32]
        stored = kept / f"{name}.json"
        found = _kept_mark(stored, page)
        if found is None:
            found = mark_bytes(data, page, seed, limit, unsafe)
            if found.final:
                part = stored.with_suffix(f".{os.getpid()}.{threading.get_ident()}.part")
                part.write_text(json.dumps(found), "utf-8")
                part.replace(stored)
        return found
    except Unreadable as error:
        return unreadable(error, page, "")
    except Exception as error:  # no submission may cost the others their marks
        words = f"the marker failed ({type(error).__name__}): tell your teacher."
        status = readable(f"the marker failed: {type(error).__name__}: {error}")
        return Mark(status, 0.0, "", False, nothing(page, words))


def _kept_mark(stored, page):
    """Return a mark that was kept, or None if there is none or its writing was interrupted."""
    try:
        *rest, results = json.loads(stored.read_text("utf-8"))
        found = Mark(*rest, [Result(*result) for result in results])
        return found if [r.name for r in found.results] == list(checks_of(page)) else None
    except (OSError, ValueError, TypeError):
        return None


def _checks_digest():
    """Return a hash of the code that marks and that checks ask: classroom and library."""
    folders = [Path(__file__).parent, Path(symlib.__file__).parent]
    state = hashlib.sha256()
    for path in (p for folder in folders for p in sorted(folder.rglob("*.py"))):
        state.update(path.read_bytes() + b"\0")
    return state.hexdigest()


def write_table(marks, path):
    """Write the table of marks as CSV: a row for each student, a column for each check."""
    names = [result.name for result in marks[0][1].results]
    header = ["student", "score", "max", "status", "seconds", "sha256", "same_file_as"]
    pages = feedback_names([student for student, _ in marks])
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8-sig") as file:  # a spreadsheet expects the mark
        table = csv.writer(file, quoting=csv.QUOTE_ALL)
        table.writerow([*header, *names, "feedback", "feedback_page"])
        for student, found in marks:
            same = [s for s, other in marks if other.digest == found.digest and s != student]
            wrong = [f"{r.name}: {r.words}" for r in found.results if not r.passed]
            row = [student, found.score, len(names), found.status, found.seconds, found.digest]
            row += [" | ".join(same) if found.digest else ""]
            row += [*(int(r.passed) for r in found.results), " | ".join(wrong), pages[student]]
            table.writerow([plain_cell(cell) for cell in row])
    part.replace(path)


def plain_cell(cell):
    """Return a cell that no spreadsheet takes for a formula, and on one line."""
    if not isinstance(cell, str):
        return cell
    cell = " ".join(cell.split())
    return f"'{cell}" if cell[:1] and cell[0] in "=+-@＝＋－＠" else cell


def write_feedback(marks, page, folder):
    """Write a page of feedback for each student, and remove those of an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.html"):
        path.unlink()
    names = feedback_names([student for student, _ in marks])
    for student, found in marks:
        rows = "\n".join(
            f"<tr><td>{html.escape(r.name.replace('_', ' '))}</td>"
            f"<td>{int(r.passed)}</td>"
            f"<td>{'' if r.passed else with_code(r.words)}</td></tr>"
            for r in found.results
        )
        text = _PAGE.format(
            title=html.escape(f"Exercises {page}: {student}"),
            score=f"{found.score} of {len(found.results)}",
            status="" if found.status == "marked" else f"<p>{with_code(found.status)}</p>",
            rows=rows,
        )
        (folder / names[student]).write_text(text, "utf-8")


def with_code(words):
    """Return words as HTML, with `names` as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(words))


def feedback_names(students):
    """Return the name of each student's page: no two share it, whatever their names are."""
    plain = {student: re.sub(r"[^\w .,()@+-]", "_", student)[:100] for student in students}
    # Some file systems do not tell A from a.
    used = Counter(name.casefold() for name in plain.values())
    for student, name in plain.items():
        if name != student or used[name.casefold()] > 1:
            plain[student] += "-" + hashlib.sha256(student.encode()).hexdigest()[:8]
    return {student: f"{name}.html" for student, name in plain.items()}


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<style>body {{ font-family: sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
td, th {{ text-align: left; vertical-align: top; padding: .3rem 1rem .3rem 0 }}</style></head>
<body><h1>{title}</h1><p>Marks for what can be checked: {score}.</p>{status}
<table><thead><tr><th>Check</th><th>Mark</th><th>What to think about</th></tr></thead>
<tbody>
{rows}
</tbody></table></body></html>
"""
