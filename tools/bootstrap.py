"""Make `.venv` from the lock, or say in one sentence why it cannot be made.

Every `make` target runs this file with whatever Python the system has, so it
uses the standard library only and the syntax of Python 3.6. It does nothing
when `.venv` already stands for the present lock.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

OLDEST, NEWEST = (3, 11), (3, 13)
COMMANDS = ("python3", "python3.13", "python3.12", "python3.11", "python")
# The files that decide what is installed.
INPUTS = ("requirements.lock", "pyproject.toml")
# Kept inside .venv: "unfinished" from the first change until all is installed.
STATE = "bootstrap.json"
LOG = "bootstrap.log"
# The course was once installed by this name, which a stranger's package has too. Its symlib would
# be imported in place of ours.
FORMER_NAME = "symlib"

# Asks an interpreter for its version, the installation behind a virtual
# environment (which may be the .venv about to be deleted), and whether it has
# the two modules that Debian packs apart from Python.
PROBE = """\
import sys
version = "%d.%d.%d" % sys.version_info[:3]
try:
    import ensurepip, venv
    complete = "complete"
except ImportError:
    complete = "no-venv"
print("python|" + version + "|" + complete + "|"
      + (getattr(sys, "_base_executable", None) or sys.executable))
"""

# What pip prints when the network, a proxy or a certificate is in the way.
NO_CONNECTION = re.compile(
    r"NewConnectionError|ConnectTimeoutError|ReadTimeoutError|Read timed out|ConnectionError"
    r"|ConnectionResetError|RemoteDisconnected|ProxyError|SSLError|CERTIFICATE_VERIFY_FAILED"
    r"|Temporary failure in name resolution|Name or service not known|nodename nor servname"
    r"|Network is unreachable|Connection refused|Max retries exceeded"
)
NOT_FOUND = re.compile(
    r"(?:Could not find a version that satisfies the requirement"
    r"|No matching distribution found for) ([^\s(]+)"
)
SOME_VERSIONS = re.compile(r"\(from versions: (?!none\b)")
NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded")


class Problem(Exception):
    """Carries the sentence that tells the reader what to do."""


def say(text):
    print(text, flush=True)


def no_venv(version, python):
    return Problem(
        f"Python {short(version)} at {python} cannot make virtual environments: install its venv "
        f"package (on Debian and Ubuntu: sudo apt install python{short(version)}-venv), then run "
        "the same command again."
    )


def probe(command):
    """Return (version tuple, has venv, base executable) of a Python, or None."""
    try:
        answer = subprocess.run(
            [command, "-c", PROBE],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            universal_newlines=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    # Some launchers print more than they are asked to: take our own line.
    lines = [line for line in answer.stdout.splitlines() if line.startswith("python|")]
    if answer.returncode or not lines:
        return None
    _, version, complete, base = lines[-1].split("|", 3)
    return tuple(int(part) for part in version.split(".")), complete == "complete", base


def short(version):
    return ".".join(str(part) for part in version[:2])


def suits(version):
    return OLDEST <= version[:2] <= NEWEST


def find_python(wanted):
    """Choose the Python that `.venv` will be made with.

    Args:
        wanted: command or path the reader named, or "" to look for one.

    Returns:
        (version tuple, path of the interpreter).
    """
    remedy = "install Python 3.11, 3.12 or 3.13, or name one: make book PYTHON=/path/to/python3.12"
    found, without_venv = [], None
    for command in [wanted] if wanted else COMMANDS:
        answer = probe(command)
        if answer is None:
            continue
        version, complete, base = answer
        if suits(version):
            if complete:
                return version, base
            without_venv = without_venv or (version, base)
        found.append("{} is Python {}".format(command, ".".join(map(str, version))))
    if without_venv:
        raise no_venv(*without_venv)
    if wanted and not found:
        raise Problem(f"PYTHON={wanted} is not a Python that runs: {remedy}.")
    seen = "; ".join(found) if found else "no Python was found"
    raise Problem(f"This course needs Python 3.11 to 3.13, but {seen}: {remedy}.")


def digest(root):
    total = hashlib.sha256()
    for name in INPUTS:
        with open(os.path.join(root, name), "rb") as file:
            total.update(file.read())
    return total.hexdigest()


def read_state(venv):
    try:
        with open(os.path.join(venv, STATE), encoding="utf-8") as file:
            state = json.load(file)
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(venv, **state):
    path = os.path.join(venv, STATE)
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(state, file)
    os.replace(path + ".new", path)


def reason_to_rebuild(venv, state, root, wanted_version):
    """Say why a present `.venv` cannot be kept, or return None."""
    if state.get("state") == "unfinished":
        return "its last installation was interrupted"
    if state.get("root", root) != root:
        # Scripts and the editable installation hold the folder's old path.
        return "the folder has moved since it was made"
    answer = probe(os.path.join(venv, "bin", "python"))
    if answer is None:
        return "its Python no longer runs"
    version = answer[0]
    if not suits(version):
        return f"it holds Python {short(version)}"
    if wanted_version and wanted_version[:2] != version[:2]:
        return f"it holds Python {short(version)} and Python {short(wanted_version)} was asked for"
    if not state and not has_pip(venv):
        return "it has no pip"
    return None


def has_pip(venv):
    command = [os.path.join(venv, "bin", "python"), "-m", "pip", "--version"]
    return subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


class Progress:
    """Counts the packages that pip has looked at: one line, or a few in a log."""

    def __init__(self, total):
        self.total, self.count = total, 0
        self.live = sys.stdout.isatty()
        self.waiting = False

    def see(self, line):
        if self.total == 0:
            return
        words = line.split()
        if line.startswith(("Collecting ", "Processing ", "Requirement already ", "Ignoring ")):
            self.count = min(self.count + 1, self.total)
            name = words[3] if words[0] == "Requirement" else os.path.basename(words[1])
            name = re.split(r"[=<>!;(\[:]", name)[0]
            if self.live:
                print(f"\r  {self.count}/{self.total} {name:40.40}", end="", flush=True)
            elif self.count % 40 == 0:
                say(f"  {self.count}/{self.total} packages")
        elif line.startswith("Installing collected packages"):
            self.end()
            say("  unpacking them")
        elif line.startswith("WARNING: Retrying") and not self.waiting:
            self.waiting = True
            self.end()
            say("  the package index does not answer, trying again")

    def end(self):
        if self.live and self.count:
            print("\r" + " " * 70 + "\r", end="", flush=True)


def run_pip(venv, action, arguments, packages=0):
    """Run pip of `.venv`; return (succeeded, all it printed)."""
    command = [os.path.join(venv, "bin", "python"), "-m", "pip", action]
    command += ["--disable-pip-version-check", "--no-input"]
    printed, progress = [], Progress(packages)
    with open(os.path.join(venv, LOG), "a", encoding="utf-8") as log:
        process = subprocess.Popen(
            command + arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
            errors="replace",
        )
        for line in process.stdout:
            log.write(line)
            printed.append(line)
            progress.see(line)
    progress.end()
    return process.wait() == 0, "".join(printed)


def explain(output, log):
    """Turn pip's output into (sentence, whether another attempt may help)."""
    again = "then run the same command again"
    if NO_SPACE.search(output):
        return f"The disk is full: free about 2 GB, {again}.", False
    missing = NOT_FOUND.search(output)
    connection = NO_CONNECTION.search(output)
    # Without a network pip also says "not found", but then it lists no version.
    if connection and not (missing and SOME_VERSIONS.search(output)):
        return (
            f"The Python package index could not be reached ({connection.group(0)}): check the "
            f"network or the proxy, {again}."
        ), False
    if missing:
        return (
            f"The package index in use does not offer {missing.group(1)} for this Python: choose "
            "another index or another Python, or make a new lock with make lock."
        ), False
    errors = [line for line in output.splitlines() if re.match(r"\s*(ERROR|error):", line)]
    lines = errors or [line for line in output.splitlines() if line.strip()] or ["no message"]
    last = re.sub(r"^\s*(?:ERROR|error):\s*", "", lines[-1]).rstrip(". ")
    return f"pip could not install the packages ({last}): read {log}, {again}.", True


def install(venv, arguments, packages=0):
    """Install with pip, once more without its cache if it fails for no known reason."""
    arguments = ["--progress-bar", "off"] + arguments
    done, output = run_pip(venv, "install", arguments, packages)
    if done:
        return
    sentence, another_attempt = explain(output, os.path.join(venv, LOG))
    if another_attempt:
        say("  pip failed; trying once more without its cache")
        done, output = run_pip(venv, "install", ["--no-cache-dir"] + arguments, packages)
        if done:
            return
        sentence, _ = explain(output, os.path.join(venv, LOG))
    raise Problem(sentence)


def uninstall(venv, name):
    """Uninstall a distribution; pip does nothing if it is not there."""
    done, output = run_pip(venv, "uninstall", ["--yes", name])
    if not done:
        raise Problem(explain(output, os.path.join(venv, LOG))[0])


def remove(venv):
    """Delete `.venv` so that an interruption still leaves it marked as unfinished."""
    if os.path.islink(venv) or not os.path.isdir(venv):
        os.unlink(venv)
        return
    write_state(venv, state="unfinished")
    for name in os.listdir(venv):
        path = os.path.join(venv, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif name != STATE:
            os.unlink(path)
    shutil.rmtree(venv)


def create(venv, version, python, root):
    say("Making .venv with Python {} ({})".format(".".join(map(str, version)), python))
    os.mkdir(venv)
    write_state(venv, state="unfinished", root=root)
    made = subprocess.run(
        [python, "-m", "venv", venv],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    if made.returncode:
        if "ensurepip" in made.stdout or "No module named venv" in made.stdout:
            raise no_venv(version, python)
        last = (made.stdout.strip() or "no message").splitlines()[-1]
        raise Problem(f"{python} -m venv failed ({last}): repair that Python.")


def bootstrap(root, wanted=""):
    """Bring `.venv` in `root` to the present lock, doing as little as possible."""
    venv = os.path.join(root, ".venv")
    present = os.path.lexists(venv)
    state = read_state(venv)
    chosen = find_python(wanted) if wanted else None
    if present:
        reason = reason_to_rebuild(venv, state, root, chosen and chosen[0])
        if reason is None and state.get("digest") == digest(root):
            return
        if reason:
            # Looked for first: without a Python, the old .venv is better than none.
            chosen = chosen or find_python("")
            say(f"Making .venv afresh: {reason}")
            remove(venv)
            present = False
    if not present:
        version, python = chosen or find_python("")
        create(venv, version, python, root)
    write_state(venv, state="unfinished", root=root)
    with open(os.path.join(root, "requirements.lock"), encoding="utf-8") as file:
        total = sum(1 for line in file if line.strip() and not line.startswith("#"))
    say(f"Installing the {total} packages of requirements.lock")
    install(venv, ["-r", os.path.join(root, "requirements.lock")], total)
    say("Installing the course itself")
    uninstall(venv, FORMER_NAME)  # before: what it deletes may be what comes next
    # The build tools are in the lock too, so that nothing unlocked is fetched.
    install(venv, ["--no-deps", "--no-build-isolation", "-e", root])
    write_state(venv, state="ready", root=root, digest=digest(root))
    say("Ready: .venv")


def main(arguments):
    root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    try:
        bootstrap(root, os.path.expanduser(arguments[0]) if arguments else "")
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"The environment .venv could not be made ({error}): repair that, then run the same "
            "command again.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(
            "\nInterrupted: run the same command again, .venv will be made afresh.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
