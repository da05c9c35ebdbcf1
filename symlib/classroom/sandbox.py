"""A process for one submission: without a network, on read-only files, with limits.

bubblewrap does the separation. A thread watches time, memory and the number of processes, since a
limit of the kernel on one process does not bound its children, and a busy loop inside XLA hears no
signal but the last one.
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

MEMORY = 8192  # MiB of address space for each process: JAX reserves far more than it uses
RESIDENT = 3072  # MiB in use by all processes of a submission together
PROCESSES = 32  # a submission needs one; libraries may start a few
LONGEST_LINE = 32 * 2**20  # characters of one reply
POLL = 0.1  # seconds between two looks at a submission


class NoSandbox(RuntimeError):
    """bubblewrap is missing or does not work here."""


class Stopped(Exception):
    """The process of a submission was stopped, or ended by itself; the message says why."""


def command(unsafe=False):
    """Return the command that starts a worker, in a sandbox unless `unsafe`.

    Visible are the system's programs, Python, its packages and symlib; not the home folder, the
    other submissions, the course's pages with their solutions, nor the checks.
    """
    worker = [sys.executable, "-m", "symlib.classroom.worker"]
    if unsafe:
        return worker
    package = Path(__file__).resolve().parents[1]
    shown = ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives"]
    shown += [sys.prefix, sys.base_prefix, sysconfig.get_paths()["purelib"]]
    shown += [str(Path(sys.executable).resolve().parents[1]), str(package)]
    options = ["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    # --size bounds what a submission can write to the tmpfs that follows it.
    options += ["--size", str(64 * 2**20), "--tmpfs", "/tmp", "--dev", "/dev", "--proc", "/proc"]
    options += ["--size", str(64 * 2**20), "--tmpfs", "/dev/shm"]
    for path in dict.fromkeys(shown):
        options += ["--ro-bind-try", path, path]
    options += ["--tmpfs", str(package / "classroom" / "pages")]
    options += ["--remount-ro", str(package / "classroom" / "pages"), "--remount-ro", "/"]
    options += ["--chdir", "/tmp", "--clearenv"]
    for name, value in _environment().items():
        options += ["--setenv", name, value]
    return ["bwrap", *options, *worker]


def _environment():
    package = Path(__file__).resolve().parents[2]
    return {
        "HOME": "/tmp",
        "PATH": os.defpath,
        "PYTHONPATH": str(package),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLBACKEND": "agg",
        "JAX_PLATFORMS": "cpu",
        "LANG": "C.UTF-8",
    }


def require_sandbox():
    """Raise NoSandbox, with what to do, unless a program can be run in the sandbox."""
    advice = (
        "submissions are not run without it. Install it (apt-get install bubblewrap), or mark "
        "with --unsafe if you trust every submission as you trust your own code."
    )
    if shutil.which("bwrap") is None:
        raise NoSandbox(f"bubblewrap (the program bwrap) is missing, and {advice}")
    start = command()[: -len(command(unsafe=True))]
    probe = subprocess.run([*start, "/bin/true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        raise NoSandbox(f"bubblewrap does not work here ({probe.stderr.strip()}), and {advice}")


class Worker:
    """A running submission: send it requests, and it answers or is stopped.

    Args:
        job: what `symlib.classroom.worker` reads first.
        unsafe: run without the sandbox.
    """

    def __init__(self, job, unsafe=False):
        self._deadline = None
        self._reason = None
        self._ended = threading.Event()
        environment = os.environ | _environment() if unsafe else os.environ
        self._process = subprocess.Popen(
            command(unsafe),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        self._send(job | {"memory": MEMORY})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._kill("done")
        self._ended.set()
        self._process.wait()
        self._watcher.join()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was not sent has no reader any more
                stream.close()

    def request(self, message, seconds):
        """Send a message and return the reply, or raise Stopped after some seconds."""
        self._deadline = time.monotonic() + seconds
        self._send(message)
        return self.read(seconds)

    def read(self, seconds):
        """Return the next message, a dictionary, or raise Stopped after some seconds."""
        self._deadline = time.monotonic() + seconds
        line = self._process.stdout.readline(LONGEST_LINE)
        self._deadline = None
        if self._reason or not line:
            raise Stopped(self._reason or "its process ended")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self._kill("it wrote into the marker's own channel")
            raise Stopped(self._reason)
        return message

    def _send(self, message):
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            pass  # the process is gone: the next read says so

    def _kill(self, reason):
        self._reason = self._reason or reason
        try:
            # Killing bubblewrap ends its name space of processes, so nothing survives.
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def _watch(self):
        while not self._ended.wait(POLL):
            deadline = self._deadline
            if deadline is not None and time.monotonic() > deadline:
                self._kill("it took too long")
            family = _family(self._process.pid)
            if len(family) > PROCESSES:
                self._kill(f"it started more than {PROCESSES} processes")
            if sum(map(_resident, family)) > RESIDENT * 2**20:
                self._kill(f"it used more than {RESIDENT} MiB of memory")


def _family(pid):
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _resident(process):
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0
