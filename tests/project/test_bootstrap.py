"""The first command of a newcomer: it makes .venv, or says in one sentence what to do.

The Pythons and their pip are small shell scripts, so nothing is downloaded.
"""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BOOTSTRAP = ROOT / "tools" / "bootstrap.py"

FAKE_PYTHON = """\
#!/bin/sh
PATH=/usr/bin:/bin
case "$1 $2 $3" in
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip --version") ;;
  "-m pip install") shift 3; echo "$@" >> "{folder}/pip.calls"; . "{folder}/pip.sh" ;;
  "-m pip uninstall") echo "$@" >> "{folder}/pip.calls" ;;
  "-c "*) echo "python|{version}|{complete}|{self}" ;;
esac
"""

# What pip prints without a network, shortened.
NO_NETWORK = """\
echo "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError('<pip._\
vendor.urllib3.connection.HTTPSConnection>: Failed to establish a new connection: [Errno -3] \
Temporary failure in name resolution')': /simple/jax/"
echo "ERROR: Could not find a version that satisfies the requirement jax==1 (from versions: none)"
echo "ERROR: No matching distribution found for jax==1"
exit 1
"""
NOT_OFFERED = """\
echo "Collecting jax==1"
echo "ERROR: Could not find a version that satisfies the requirement jax==1 (from versions: 0.1)"
echo "ERROR: No matching distribution found for jax==1"
exit 1
"""


# Runs a file as a program that Ctrl-C can stop, even where this test run ignores it.
RUN = (
    "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


class Sandbox:
    """A repository with a lock of two packages, and the Pythons that a test puts on the path."""

    def __init__(self, folder):
        self.folder = folder
        self.root = folder / "repository"
        self.commands = folder / "commands"
        (self.root / "tools").mkdir(parents=True)
        self.commands.mkdir()
        shutil.copy(BOOTSTRAP, self.root / "tools")
        (self.root / "requirements.lock").write_text("# by make lock\njax==1\nnumpy==2\n")
        (self.root / "pyproject.toml").write_text("[project]\n")
        self.pip("")

    def python(self, name, version, complete="complete"):
        path = self.commands / name
        path.write_text(
            FAKE_PYTHON.format(folder=self.folder, version=version, complete=complete, self=path)
        )
        path.chmod(0o755)
        return path

    def pip(self, script):
        (self.folder / "pip.sh").write_text(script)

    def run(self, *arguments):
        return subprocess.run(
            [sys.executable, "-c", RUN, self.root / "tools" / "bootstrap.py", *arguments],
            env={"PATH": str(self.commands)},
            capture_output=True,
            text=True,
        )

    def fails(self, *arguments):
        """Return the one sentence of a run that fails."""
        result = self.run(*arguments)
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1
        assert "Traceback" not in result.stderr + result.stdout
        assert result.stderr.endswith(".\n")
        return result.stderr

    def calls(self):
        path = self.folder / "pip.calls"
        calls = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return calls

    def state(self):
        return json.loads((self.root / ".venv" / "bootstrap.json").read_text())


@pytest.fixture
def sandbox(tmp_path):
    return Sandbox(tmp_path)


@pytest.fixture
def installed(sandbox):
    sandbox.python("python3", "3.12.1")
    assert sandbox.run().returncode == 0
    sandbox.calls()
    return sandbox


def test_fresh_install_takes_the_lock_and_then_the_course(sandbox):
    sandbox.python("python3", "3.12.1")
    result = sandbox.run()
    assert result.returncode == 0, result.stderr
    lock, former, editable = sandbox.calls()
    assert lock.endswith(f"-r {sandbox.root}/requirements.lock")
    assert former.startswith("-m pip uninstall") and former.endswith("--yes symlib")
    assert editable.endswith(f"--no-deps --no-build-isolation -e {sandbox.root}")
    assert "Making .venv with Python 3.12.1" in result.stdout
    assert "the 2 packages" in result.stdout
    assert sandbox.state()["state"] == "ready"


def test_nothing_happens_when_nothing_changed(installed):
    result = installed.run()
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert installed.calls() == []


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_changed_input_installs_again_in_the_same_environment(installed, name):
    (installed.root / ".venv" / "kept").touch()
    with (installed.root / name).open("a") as file:
        file.write("# changed\n")
    assert installed.run().returncode == 0
    assert len(installed.calls()) == 3
    assert (installed.root / ".venv" / "kept").exists()


def test_suitable_python_is_found_behind_an_unsuitable_one(sandbox):
    sandbox.python("python3", "3.14.0")
    sandbox.python("python3.12", "3.12.9", complete="no-venv")
    sandbox.python("python3.11", "3.11.2")
    assert "with Python 3.11.2" in sandbox.run().stdout


@pytest.mark.parametrize("version", ["2.7.18", "3.10.14", "3.14.0"])
def test_unsuitable_python_is_named(sandbox, version):
    sandbox.python("python3", version)
    sentence = sandbox.fails()
    assert f"python3 is Python {version}" in sentence
    assert "install Python 3.11, 3.12 or 3.13" in sentence
    assert "make book PYTHON=/path/to/python3.12" in sentence
    assert not (sandbox.root / ".venv").exists()


def test_no_python_at_all(sandbox):
    assert "no Python was found" in sandbox.fails()


def test_named_python_must_run(sandbox):
    sandbox.python("python3", "3.12.1")
    assert "PYTHON=python9 is not a Python that runs" in sandbox.fails("python9")


def test_named_python_must_suit(sandbox):
    sandbox.python("python3", "3.12.1")
    old = sandbox.python("python3.8", "3.8.1")
    assert f"{old} is Python 3.8.1" in sandbox.fails(str(old))


def test_missing_venv_package_is_named(sandbox):
    sandbox.python("python3", "3.11.2", complete="no-venv")
    assert "sudo apt install python3.11-venv" in sandbox.fails()


def test_venv_that_fails_for_lack_of_ensurepip(sandbox):
    python = sandbox.python("python3", "3.11.2")
    script = python.read_text().replace("mkdir -p", "echo 'ensurepip is not available'; exit 1; :")
    python.write_text(script)
    assert "sudo apt install python3.11-venv" in sandbox.fails()


def test_no_network(sandbox):
    sandbox.python("python3", "3.12.1")
    sandbox.pip(NO_NETWORK)
    sentence = sandbox.fails()
    assert "could not be reached" in sentence
    assert "check the network or the proxy, then run the same command again" in sentence
    assert len(sandbox.calls()) == 1


def test_version_that_the_index_does_not_offer(sandbox):
    sandbox.python("python3", "3.12.1")
    sandbox.pip(NOT_OFFERED)
    sentence = sandbox.fails()
    assert "does not offer jax==1" in sentence
    assert "reached" not in sentence


def test_version_not_offered_after_a_connection_that_recovered(sandbox):
    sandbox.python("python3", "3.12.1")
    sandbox.pip(NO_NETWORK.splitlines()[0] + "\n" + NOT_OFFERED)
    assert "does not offer jax==1" in sandbox.fails()


def test_full_disk(sandbox):
    sandbox.python("python3", "3.12.1")
    sandbox.pip("echo 'ERROR: [Errno 28] No space left on device'; exit 1")
    assert "The disk is full" in sandbox.fails()
    assert len(sandbox.calls()) == 1


def test_broken_cache_is_passed_over_once(sandbox):
    sandbox.python("python3", "3.12.1")
    sandbox.pip('case "$*" in *--no-cache-dir*) ;; *) echo "zipfile.BadZipFile"; exit 2 ;; esac')
    result = sandbox.run()
    assert result.returncode == 0, result.stderr
    assert "once more without its cache" in result.stdout
    assert ["--no-cache-dir" in call for call in sandbox.calls()] == [
        *(False, True, False, False, True)
    ]


def test_other_failure_quotes_pip_and_names_its_log(sandbox):
    sandbox.python("python3", "3.12.1")
    sandbox.pip("echo 'ERROR: Failed to build numpy'; echo 'hint: none'; exit 1")
    sentence = sandbox.fails()
    assert "(Failed to build numpy)" in sentence
    log = sandbox.root / ".venv" / "bootstrap.log"
    assert str(log) in sentence
    assert "hint: none" in log.read_text()


@pytest.mark.parametrize("signal", ["INT", "KILL"])
def test_interrupted_install_is_made_afresh(installed, signal):
    (installed.root / ".venv" / "old").touch()
    with (installed.root / "requirements.lock").open("a") as file:
        file.write("optax==3\n")
    installed.pip(f"kill -{signal} $PPID; sleep 0.2; exit 1")
    stopped = installed.run()
    assert stopped.returncode == (1 if signal == "INT" else -9)
    assert "Traceback" not in stopped.stderr
    installed.pip("")
    result = installed.run()
    assert result.returncode == 0, result.stderr
    assert "Making .venv afresh: its last installation was interrupted" in result.stdout
    assert not (installed.root / ".venv" / "old").exists()
    assert installed.state()["state"] == "ready"


def test_failed_install_is_not_taken_for_a_finished_one(sandbox):
    sandbox.python("python3", "3.12.1")
    sandbox.pip(NO_NETWORK)
    sandbox.fails()
    sandbox.pip("")
    assert "Making .venv afresh" in sandbox.run().stdout


def test_another_python_makes_the_environment_afresh(installed):
    other = installed.python("python3.13", "3.13.0")
    result = installed.run(str(other))
    assert "it holds Python 3.12 and Python 3.13 was asked for" in result.stdout
    assert installed.run().stdout == ""
    assert installed.run(str(other)).stdout == ""


def test_environment_whose_python_is_gone_is_made_afresh(installed):
    python = installed.root / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/no/such/python")
    assert "its Python no longer runs" in installed.run().stdout
    assert python.exists()


def test_moved_folder_is_made_afresh(installed):
    installed.root = installed.root.rename(installed.folder / "elsewhere")
    assert "the folder has moved" in installed.run().stdout


def test_environment_stays_when_no_python_could_replace_it(installed):
    (installed.root / ".venv" / "bin" / "python").unlink()
    (installed.commands / "python3").unlink()
    installed.fails()
    assert (installed.root / ".venv" / "bootstrap.json").exists()


def test_own_environment_is_adopted(sandbox):
    python = sandbox.python("python3", "3.12.1")
    (sandbox.root / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(python, sandbox.root / ".venv" / "bin" / "python")
    (sandbox.root / ".venv" / "kept").touch()
    assert "afresh" not in sandbox.run().stdout
    assert len(sandbox.calls()) == 3
    assert (sandbox.root / ".venv" / "kept").exists()


def test_any_python_of_the_last_years_can_read_the_file():
    ast.parse(BOOTSTRAP.read_text(), feature_version=(3, 6))


def test_make_without_any_python_says_so(tmp_path):
    make = shutil.which("make")
    result = subprocess.run(
        [make, "-C", ROOT, "book"], env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert result.returncode != 0
    assert "no Python was found: install Python 3.11, 3.12 or 3.13" in result.stderr


def continuous_integration(folder, present, user="0"):
    """Run .ci/run of a copy with the commands `present`; return the result and its calls."""
    (folder / ".ci").mkdir()
    for script in (ROOT / ".ci").iterdir():
        shutil.copy(script, folder / ".ci")
    commands = folder / "commands"
    commands.mkdir()
    for name in ("bash", "dirname", "env"):
        (commands / name).symlink_to(shutil.which(name))
    note = f'#!/bin/sh\necho "${{0##*/}} $* in $PWD CI=$CI" >> {folder}/calls\n'
    fakes = {name: note for name in present}
    fakes["id"] = f"#!/bin/sh\necho {user}\n"
    fakes["sudo"] = note + '"$@"\n'
    for name, text in fakes.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    result = subprocess.run(
        [folder / ".ci" / "run"],
        cwd=elsewhere,
        env={"PATH": str(commands)},
        capture_output=True,
        text=True,
    )
    return result, (folder / "calls").read_text().splitlines()


def test_continuous_integration_with_everything_present(tmp_path):
    present = ("make", "git", "bwrap", "chromium", "python3", "apt-get")
    result, calls = continuous_integration(tmp_path, present)
    assert result.returncode == 0, result.stderr
    assert calls[-1] == f"make test in {tmp_path} CI=true"
    assert not [call for call in calls if call.startswith(("apt-get", "sudo"))]


@pytest.mark.parametrize("user", ["0", "1000"])
def test_continuous_integration_installs_what_is_missing(tmp_path, user):
    result, calls = continuous_integration(tmp_path, ("make", "git", "apt-get"), user)
    assert result.returncode == 0, result.stderr
    assert any(
        call.startswith("apt-get install") and "bubblewrap chromium python3-venv" in call
        for call in calls
    )
    assert any(call.startswith("sudo") for call in calls) == (user != "0")


def test_missing_system_packages_are_named_where_there_is_no_apt(tmp_path):
    result, calls = continuous_integration(tmp_path, ("make", "git", "python3", "bwrap"))
    assert result.returncode == 1
    assert "install chromium by hand" in result.stderr
    assert not [call for call in calls if call.startswith("make")]
