"""A process for one submission: without a network, on read-only files, with limits.

bubblewrap does the separation. A thread watches time, memory, processes and threads, since a limit
of the kernel on one process does not bound its children, and a busy loop inside XLA hears no signal
but the last one. Not bounded is what a submission keeps in anonymous files (memfd), but for their
number and size: that needs a control group, which an ordinary user cannot make everywhere.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

import psutil

import symlib
from symcourse.classroom.answers import Stopped

MEMORY = 8192  # MiB of address space for each process: JAX reserves far more than it uses
RESIDENT = 3072  # MiB in use by all processes of a submission together
PROCESSES = 32  # a submission needs one; libraries may start a few
THREADS = 64 + 8 * (os.cpu_count() or 1)  # XLA starts a few for each core
LONGEST_LINE = 16 * 2**20  # characters of one reply
MOST_BRACKETS = 100_000  # lists and dictionaries of one reply: each takes far more than its text
START = 60  # seconds until Python and JAX are loaded, on a busy machine
POLL = 0.1  # seconds between two looks at a submission

_running = set()  # workers that would outlive an interruption
interrupted = threading.Event()  # set while an interrupted marking ends


class NoSandbox(RuntimeError):
    """bubblewrap is missing or does not work here."""


def command(unsafe=False):
    """Return the command that starts a worker, in a sandbox unless `unsafe`.

    Visible are the system's programs, Python, its packages and symlib; not the home folder, the
    other submissions, the course's pages with their solutions, nor the checks.
    """
    # -P: a folder symcourse/ where the marking is started does not run in place of ours.
    worker = [sys.executable, "-P", "-m", "symcourse.classroom.worker"]
    if unsafe:
        return worker
    course = Path(__file__).resolve().parents[1]
    library = Path(symlib.__file__).resolve().parent
    packages = Path(sysconfig.get_paths()["purelib"])
    shown = ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives"]
    shown += [sys.prefix, sys.base_prefix, str(packages)]
    shown += [str(Path(sys.executable).resolve().parents[1]), str(course), str(library)]
    options = ["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent"]
    options += ["--new-session", "--cap-drop", "ALL", "--dev", "/dev", "--proc", "/proc"]
    # --size bounds what a submission can write to the tmpfs that follows it.
    for place in ("/tmp", "/dev/shm"):
        options += ["--size", str(64 * 2**20), "--tmpfs", place]
    for path in dict.fromkeys(shown):
        options += ["--ro-bind-try", path, path]
    hidden = {p / "classroom" / "pages" for p in (course, packages / "symcourse")}
    for place in filter(Path.is_dir, hidden):
        options += ["--tmpfs", str(place), "--remount-ro", str(place)]
    options += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp", "--clearenv"]
    for name, value in _environment().items():
        options += ["--setenv", name, value]
    return ["bwrap", *options, *worker]


def _environment():
    places = {str(Path(__file__).resolve().parents[2]), str(Path(symlib.__file__).parents[1])}
    return {
        "HOME": "/tmp",
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join(sorted(places)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLBACKEND": "agg",
        "JAX_PLATFORMS": "cpu",
        "LANG": "C.UTF-8",
        # Both reserve address space for each core, which has a limit.
        "MALLOC_ARENA_MAX": "2",
        "OPENBLAS_NUM_THREADS": "1",
    }


def require_sandbox():
    """Raise NoSandbox, with what to do, unless a worker starts in the sandbox."""
    advice = (
        "submissions are not run without it. Install bubblewrap 0.8 or later (apt-get install "
        "bubblewrap), and let it make user namespaces where the system forbids that, as Ubuntu "
        "24.04 does. --unsafe marks without it: only for notebooks that you trust as your own code."
    )
    if shutil.which("bwrap") is None:
        raise NoSandbox(f"bubblewrap (the program bwrap) is missing, and {advice}")
    start = command()[: -len(command(unsafe=True))]
    probe = subprocess.run([*start, "/bin/true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        raise NoSandbox(f"bubblewrap does not work here ({probe.stderr.strip()}), and {advice}")
    with Worker({"cells": [], "skip": [], "limit": START}) as worker:
        try:
            worker.read(START)
        except Stopped as stopped:
            raise NoSandbox(f"Python does not start in the sandbox: {stopped}") from None


def most_workers():
    """Return how many submissions may run at once: one for each core, as far as memory lasts."""
    fitting = psutil.virtual_memory().available // (RESIDENT * 2**20)
    return max(1, min(os.cpu_count() or 1, fitting))


def stop_all():
    """Stop every running submission, and let no stopped one be tried again."""
    interrupted.set()
    for worker in list(_running):
        worker.stop("the marking was interrupted")


class Worker:
    """A running submission: send it requests, and it answers or is stopped.

    Args:
        job: what `symcourse.classroom.worker` reads first.
        unsafe: run without the sandbox.
    """

    def __init__(self, job, unsafe=False):
        self._deadline = time.monotonic() + START
        self._reason = None
        self._ended = threading.Event()
        # bubblewrap itself keeps the environment that it was started in, where a submission
        # could read it.
        empty = {"PATH": os.environ.get("PATH", os.defpath)}
        self._process = subprocess.Popen(
            command(unsafe),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | _environment() if unsafe else empty,
            start_new_session=True,
        )
        _running.add(self)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        self._send(job | {"memory": MEMORY, "longest": LONGEST_LINE - 1000})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop("done")
        self._ended.set()
        self._process.wait()
        self._watcher.join()
        _running.discard(self)
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was not sent has no reader any more
                stream.close()

    def request(self, message, seconds):
        """Send a message and return the reply, or raise Stopped after some seconds."""
        self._deadline = time.monotonic() + seconds
        self._send(message)
        return self.read(seconds)

    def read(self, seconds, longest=LONGEST_LINE):
        """Return the next message, a dictionary, or raise Stopped after some seconds."""
        self._deadline = time.monotonic() + seconds
        line = self._process.stdout.readline(longest)
        self._deadline = None
        if self._reason or not line:
            raise Stopped(self._reason or "its process ended")
        message = None
        if line.count(b"[") + line.count(b"{") <= MOST_BRACKETS:
            with contextlib.suppress(ValueError, RecursionError):
                message = json.loads(line)
        if not isinstance(message, dict):
            self.stop("it wrote into the marker's own channel")
            raise Stopped(self._reason)
        return message

    def stop(self, reason):
        """End the process and all that it started; the first reason is kept."""
        self._reason = self._reason or reason
        # Killing bubblewrap ends its name space of processes, so nothing survives.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _send(self, message):
        with contextlib.suppress(OSError):  # the process is gone: the next read says so
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def _watch(self):
        while not self._ended.wait(POLL):
            try:
                reason = self._excess()
            except Exception as error:  # without a watcher there would be no limits
                reason = f"the marker lost sight of it ({type(error).__name__})"
            if reason:
                self.stop(reason)

    def _excess(self):
        """Return which limit is exceeded, or None."""
        deadline = self._deadline
        if deadline is not None and time.monotonic() > deadline:
            return "it took too long"
        processes = threads = resident = 0
        with contextlib.suppress(psutil.NoSuchProcess):
            main = psutil.Process(self._process.pid)
            for process in (main, *main.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    processes += 1
                    resident += process.memory_info().rss
                    threads += process.num_threads()
        if processes > PROCESSES:
            return f"it started more than {PROCESSES} processes"
        if threads > THREADS:
            return f"it started more than {THREADS} threads"
        if resident > RESIDENT * 2**20:
            return f"it used more than {RESIDENT} MiB of memory"
        return None
