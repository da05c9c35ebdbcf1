"""Mark one submission: read its notebook, run its cells in a sandbox, run the checks.

Whatever is in the file, the result is a `Mark`: a submission cannot stop the marking of others.
"""

import hashlib
import json
import os
import re
import secrets
import stat
import time
from typing import NamedTuple

from symcourse.classroom.answers import Answers, Stopped
from symcourse.classroom.check import BROKEN, Result, checks_of, readable, run_check
from symcourse.classroom.sandbox import START, Worker, interrupted
from symcourse.classroom.worker import LONGEST_WORDS

LARGEST_FILE = 20 * 2**20  # bytes; notebooks of this course are far below 1 MiB without outputs
MOST_CELLS = 500
LONGEST_NOTICE = 4096  # characters of the line before a cell
CELLS_SHARE, CHECKS_SHARE = 6, 4  # limits that all cells, and then all checks, may take together
OWN_CHANNEL = "it wrote into the marker's own channel"


class Unreadable(ValueError):
    """A file is no notebook that can be marked; the message says why."""


class Mark(NamedTuple):
    """What one submission earned."""

    status: str
    seconds: float
    digest: str  # of the file; empty if it could not be read
    final: bool  # whether another run would find the same: nothing was slow, stopped or failed
    results: list[Result]

    @property
    def score(self):
        """Number of checks that hold."""
        return sum(result.passed for result in self.results)


def read_file(path):
    """Return the bytes of a plain file: no link, which could lead to another student's file.

    Raises:
        Unreadable: it is no plain file, it is too large, or the system does not give it.
    """
    try:
        # Not waiting: a pipe would be waited for without end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Unreadable("it is no plain file")
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise Unreadable(f"it is no plain file that can be opened ({error.strerror})") from None
    if len(data) > LARGEST_FILE:
        raise Unreadable(f"it has more than {LARGEST_FILE // 2**20} MiB")
    return data


def read_cells(data):
    """Return the sources of a notebook's code cells.

    Args:
        data: the bytes of the file, in the present format of notebooks or in that of 2014.

    Raises:
        Unreadable: it is no notebook.
    """
    try:
        notebook = json.loads(data)
        sheets = notebook.get("worksheets", [])
        cells = notebook["cells"] if not sheets else [c for s in sheets for c in s["cells"]]
        code = [cell for cell in cells if cell.get("cell_type") == "code"]
        sources = [cell.get("source", cell.get("input", "")) for cell in code]
        sources = ["".join(s) if isinstance(s, list) else s for s in sources]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError, MemoryError):
        raise Unreadable("it is no notebook: save it again in Jupyter") from None
    if not all(isinstance(source, str) for source in sources):
        raise Unreadable("it has a cell without text")
    if len(sources) > MOST_CELLS:
        raise Unreadable(f"it has {len(sources)} code cells, more than {MOST_CELLS}")
    return sources


def mark(path, page, seed, limit, unsafe=False):
    """Return the `Mark` of one file.

    Args:
        path: the submitted notebook.
        page: the number of the exercise page, such as "01".
        seed: the marker's seed: what the checks draw depends on it.
        limit: seconds for one cell and for one answer. All in all a submission gets ten times as
            much, and the time to start.
        unsafe: run without the sandbox.
    """
    try:
        data = read_file(path)
    except Unreadable as error:
        return unreadable(error, page, "")
    return mark_bytes(data, page, seed, limit, unsafe)


def mark_bytes(data, page, seed, limit, unsafe=False):
    """Return the `Mark` of the bytes of a file; for the rest see `mark`."""
    start = time.monotonic()
    digest = digest_of(data)
    try:
        cells = read_cells(data)
    except Unreadable as error:
        return unreadable(error, page, digest)
    results, notes, final = _run(cells, checks_of(page), seed, limit, unsafe)
    broken = [f"the check {r.name} failed" for r in results if r.words.startswith(BROKEN)]
    status = "; ".join(dict.fromkeys([*_another_page(cells, page), *notes, *broken])) or "marked"
    seconds = round(time.monotonic() - start, 1)
    return Mark(readable(status), seconds, digest, final and not broken, results)


def _another_page(cells, page):
    """Return a note if the notebook says that it belongs to another page."""
    said = set(re.findall(r"""\bchecker\(\s*["'](\d\d)["']""", "\n".join(cells)))
    if not said or page in said:
        return []
    return [f"it is a notebook of page {', '.join(sorted(said))}"]


def digest_of(data):
    """Return the SHA-256 of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


def unreadable(error, page, digest):
    """Return the mark of a file that cannot be read."""
    words = f"your file could not be read: {error}."
    return Mark(f"unreadable: {error}", 0.0, digest, bool(digest), nothing(page, words))


def nothing(page, words):
    """Return results without a mark."""
    return [Result(name, False, readable(words)) for name in checks_of(page)]


def _run(cells, checks, seed, limit, unsafe):
    """Return the results in the order of the checks, notes on trouble, and whether this is final.

    A process that was killed is started again, without the cells that cost too much: what they
    would have defined is lost, the marks for the rest are not.
    """
    end_of_cells = time.monotonic() + START + CELLS_SHARE * limit
    end = end_of_cells + START + CHECKS_SHARE * limit
    found, notes, lost, slow_names, slow_cells, stops = {}, [], set(), set(), set(), 0
    while len(found) < len(checks) and time.monotonic() < end and stops < len(checks) + 5:
        session = _Session(cells, lost, slow_names, limit, unsafe, end)
        with session.worker:
            try:
                session.run_cells(end_of_cells)
                for name, check in checks.items():
                    if name not in found:
                        session.at = name
                        found[name] = run_check(name, check, session.answers, seed)
            except Stopped as stopped:
                if interrupted.is_set():
                    raise
                stops += 1
                words = _place(session.at, stopped)
                session.notes[session.at] = words
                if isinstance(session.at, str):
                    found[session.at] = Result(session.at, False, readable(f"{words}."))
                    slow_names.add(session.asked)
                elif session.at is None:
                    stops += 2  # it did not start: a second try, and no third
                else:
                    lost |= session.slow
                    lost |= {i for i, cell in enumerate(cells) if cell == cells[session.at]}
                    if stops > 1 or time.monotonic() > end_of_cells:
                        lost |= set(range(session.at, len(cells)))
                    # What is left is quick: what was slow is among the lost.
                    end_of_cells = max(end_of_cells, time.monotonic() + START + 2 * limit)
            notes += session.notes.values()
            slow_cells |= session.slow
    notes = list(dict.fromkeys(notes))
    words = readable(f"this was not reached: {'; '.join(notes) or 'the time was over'}.")
    results = [found.get(name, Result(name, False, words)) for name in checks]
    return results, notes, not (stops or slow_names or slow_cells)


def _place(at, stopped):
    if at is None:
        return f"it did not start: {stopped}"
    where = f"an answer for {at}" if isinstance(at, str) else f"code cell {at + 1}"
    return f"{where} was stopped: {stopped}"


class _Session:
    """One process with the cells of a submission, and where it is: a cell or a check."""

    def __init__(self, cells, lost, slow_names, limit, unsafe, end):
        job = {"cells": cells, "skip": sorted(lost), "limit": limit}
        self.worker = Worker(job, unsafe)
        self.count = len(cells)
        # The limit inside the process is kinder: it goes on behind a slow cell.
        self.hard = 2 * limit + 2
        self.end = end
        self.at = None
        self.asked = None
        # On cells that were cut short or have an error, and on what was stopped. One for each:
        # a submission may write as many notices as it likes.
        self.notes = {}
        self.slow = set()  # cells that were cut short: a second run would lose that time again
        self.slow_names = slow_names  # what took too long once is not asked for again
        self.answers = Answers(self._request)

    def run_cells(self, end_of_cells):
        """Follow the process through the cells, until it is ready to answer."""
        seconds = START
        while True:
            message = self.worker.read(self._seconds(seconds), LONGEST_NOTICE)
            seconds = self.hard
            if message.get("ready"):
                return
            at, slow, failed = (message.get(key) for key in ("cell", "slow", "failed"))
            if slow is not None and slow == self.at:
                self.slow.add(self.at)
                self.notes[self.at] = _place(self.at, "it took too long")
            elif failed is not None and failed == self.at:
                words = readable(message.get("words", ""))[:LONGEST_WORDS]
                self.notes[self.at] = f"code cell {self.at + 1} has an error: {words}"
            elif type(at) is int and (-1 if self.at is None else self.at) < at < self.count:
                self.at = at
            else:
                raise Stopped(OWN_CHANNEL)
            if time.monotonic() > end_of_cells:
                raise Stopped("the cells took too long together")

    def _request(self, message):
        self.asked = message.get("call", message.get("get"))
        if self.asked in self.slow_names:
            return {"error": "it took too long before"}
        # The number tells the reply to this request from whatever a submission sent before.
        number = secrets.token_hex(8)
        reply = self.worker.request(message | {"number": number}, self._seconds(self.hard))
        if reply.pop("number", None) != number:
            raise Stopped(OWN_CHANNEL)
        if reply.pop("slow", False):
            self.slow_names.add(self.asked)
        return reply

    def _seconds(self, most):
        return max(0.0, min(most, self.end - time.monotonic()))
