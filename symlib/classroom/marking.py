"""Mark one submission: read its notebook, run its cells in a sandbox, run the checks.

Whatever is in the file, the result is a `Mark`: a submission cannot stop the marking of others.
"""

import hashlib
import json
import secrets
import time
from pathlib import Path
from typing import NamedTuple

from symlib.classroom.answers import Answers
from symlib.classroom.check import Result, checks_of, run_check
from symlib.classroom.sandbox import Stopped, Worker

LARGEST_FILE = 20 * 2**20  # bytes; notebooks of this course are far below 1 MiB without outputs
MOST_CELLS = 500
START = 60  # seconds until Python and JAX are loaded, on a busy machine
RESTARTS = 2  # a submission may lose this many cells or answers to loops that nothing else stops


class Unreadable(ValueError):
    """A file is no notebook that can be marked; the message says why."""


class Mark(NamedTuple):
    """What one submission earned."""

    status: str
    seconds: float
    digest: str
    results: list[Result]

    @property
    def score(self):
        """Number of checks that hold."""
        return sum(result.passed for result in self.results)


def read_cells(path):
    """Return the sources of a notebook's code cells.

    Raises:
        Unreadable: the file is no plain file, too large, or no notebook.
    """
    path = Path(path)
    if path.is_symlink() or not path.is_file():
        raise Unreadable("it is no plain file")
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise Unreadable(f"it has {size / 2**20:.0f} MiB, more than {LARGEST_FILE // 2**20}")
    try:
        notebook = json.loads(path.read_bytes())
        cells = [cell for cell in notebook["cells"] if cell.get("cell_type") == "code"]
        sources = [cell.get("source", "") for cell in cells]
        sources = ["".join(s) if isinstance(s, list) else s for s in sources]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise Unreadable(f"it is no notebook ({type(error).__name__})") from None
    if not all(isinstance(source, str) for source in sources):
        raise Unreadable("it has a cell without text")
    if len(sources) > MOST_CELLS:
        raise Unreadable(f"it has {len(sources)} code cells, more than {MOST_CELLS}")
    return sources


def file_digest(path):
    """Return the SHA-256 of a file's bytes, or of nothing if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return hashlib.sha256().hexdigest()


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
    start = time.monotonic()
    checks = checks_of(page)
    digest = file_digest(path)
    try:
        cells = read_cells(path)
    except Unreadable as error:
        words = f"your file could not be read: {error}."
        results = [Result(name, False, words) for name in checks]
        return Mark(f"unreadable: {error}", 0.0, digest, results)
    results, trouble = _run(cells, checks, seed, limit, unsafe)
    status = "; ".join(dict.fromkeys(trouble)) or "marked"
    return Mark(status, round(time.monotonic() - start, 1), digest, results)


def _run(cells, checks, seed, limit, unsafe):
    """Return the results in the order of the checks, and what went wrong on the way."""
    end = time.monotonic() + START + 10 * limit
    skip, found, trouble = [], {}, []
    for _ in range(RESTARTS + 1):
        if time.monotonic() > end or len(found) == len(checks):
            break
        session = _Session(cells, skip, limit, unsafe, end)
        with session.worker:
            try:
                session.run_cells()
                for name, check in checks.items():
                    if name not in found:
                        session.at = name
                        found[name] = run_check(name, check, session.answers, seed)
            except Stopped as stopped:
                words = _place(session.at, stopped)
                trouble.append(words)
                if isinstance(session.at, str):
                    found[session.at] = Result(session.at, False, f"{words}.")
                else:
                    skip.append(session.at)
    words = f"this was not reached: {'; '.join(trouble) or 'the time was over'}."
    return [found.get(name, Result(name, False, words)) for name in checks], trouble


def _place(at, stopped):
    where = f"an answer for {at}" if isinstance(at, str) else f"code cell {at + 1}"
    return f"{where} was stopped: {stopped}"


class _Session:
    """One process with the cells of a submission, and where it is: a cell or a check."""

    def __init__(self, cells, skip, limit, unsafe, end):
        self.worker = Worker({"cells": cells, "skip": skip, "limit": limit}, unsafe)
        # The limit inside the process is kinder: it goes on behind a slow cell.
        self.hard = 2 * limit + 2
        self.end = end
        self.at = 0
        self.answers = Answers(self._request)

    def run_cells(self):
        """Follow the process through the cells, until it is ready to answer."""
        message = self.worker.read(self._seconds(START))
        while not message.get("ready"):
            at = message.get("cell")
            if not isinstance(at, int) or at < self.at:
                raise Stopped("it wrote into the marker's own channel")
            self.at = at
            message = self.worker.read(self._seconds(self.hard))

    def _request(self, message):
        # The number tells the reply to this request from whatever a submission sent before.
        number = secrets.token_hex(8)
        reply = self.worker.request(message | {"number": number}, self._seconds(self.hard))
        if reply.pop("number", None) != number:
            raise Stopped("it wrote into the marker's own channel")
        return reply

    def _seconds(self, most):
        return max(0.0, min(most, self.end - time.monotonic()))
