"""Run the cells of one submission, then answer requests: the process inside the sandbox.

`python -m symcourse.classroom.worker` reads one JSON line with the job and writes a line before
each cell, so that the marker knows where a killed process was. Nothing that it writes is trusted: a
submission can do whatever this process can.
"""

import importlib
import json
import os
import resource
import signal
import sys

from symcourse.classroom import serve

LONGEST_WORDS = 300  # characters of an error that its author reads


class TooLong(BaseException):
    """A cell or an answer takes longer than its limit. Not an Exception, which answers may catch"""


def main():
    """Serve one submission on the standard streams, until they close."""
    # What cells print must not mix with the replies, and they have nothing to read.
    requests, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    job = json.loads(requests.readline())
    _set_limits(job)

    def send(message):
        text = json.dumps(message)
        if len(text) > job["longest"]:
            text = json.dumps(message | {"value": {"Opaque": "something too long"}})
        replies.write(text + "\n")
        replies.flush()

    # Loading these takes seconds on a busy machine, which are not the first cell's.
    for name in ("jax", "optax", "symlib.inference"):
        importlib.import_module(name)
    shell = _shell()
    for number, source in enumerate(job["cells"]):
        if number in job["skip"]:
            continue
        send({"cell": number})
        with _Alarm(job["limit"]) as alarm:
            result = shell.run_cell(source, store_history=False)
        error = result.error_before_exec or result.error_in_exec
        if alarm.rang:
            send({"slow": number})
        elif error is not None:
            words = f"{type(error).__name__}: {error}"
            send({"failed": number, "words": words[:LONGEST_WORDS]})
    send({"ready": True})
    for line in requests:
        request = json.loads(line)
        reply = {"error": f"it takes longer than {job['limit']} seconds", "slow": True}
        try:
            with _Alarm(job["limit"]):
                reply = serve.reply_to(request, shell.user_ns)
        except BaseException as error:  # also exit(), which an answer may call
            if not isinstance(error, TooLong):
                reply = {"error": type(error).__name__}
        send(reply | {"number": request["number"]})


class _Alarm:
    """Raise TooLong in the block after some seconds, and again until it ends."""

    def __init__(self, limit):
        self.limit = limit
        self.rang = False

    def __enter__(self):
        def ring(*_):
            self.rang = True
            raise TooLong(f"longer than {self.limit} seconds")

        # Set anew each time: a submission may have set a handler of its own. Repeated: an answer
        # that catches the first goes on otherwise.
        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, self.limit, 0.5)
        return self

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)


def _set_limits(job):
    megabyte = 2**20
    limits = {
        resource.RLIMIT_AS: job["memory"] * megabyte,
        resource.RLIMIT_FSIZE: 16 * megabyte,
        resource.RLIMIT_NOFILE: 256,  # files that live in memory alone count for no process
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in limits.items():
        resource.setrlimit(kind, (value, value))


def _shell():
    """Return an IPython shell, so that magics work, with a checker that does nothing."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    import symcourse.classroom

    # The checks are not here, and what a submission finds about itself does not count.
    symcourse.classroom.checker = lambda page, names: lambda question: None
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)
    shell.enable_gui = lambda gui=None: None  # `%matplotlib inline` asks for it
    shell.ask_exit = lambda: None  # `exit()` does
    return shell


if __name__ == "__main__":
    sys.exit(main())
