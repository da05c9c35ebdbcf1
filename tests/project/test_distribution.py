"""What pip installs, under which name, and what is imported then."""

import importlib.metadata
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import TransformerManager

import symlib
from symcourse.__main__ import main
from symcourse.classroom import sandbox
from tests.project.test_project import PROJECT, read
from tools import derive

ROOT = Path(__file__).parents[2]
NAME, VERSION = PROJECT["project"]["name"], PROJECT["project"]["version"]
PACKAGES = ("symlib", "symcourse")


def test_wheel_holds_both_packages_with_their_types_and_results(tmp_path):
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "*.partial.jsonl")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    files = [path for name in PACKAGES for path in (tmp_path / name).rglob("*") if path.is_file()]
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", build, "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tmp_path / "out").iterdir()
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {"symlib/py.typed", "symcourse/experiments/results/M3.json"} <= packed
    assert {path.relative_to(tmp_path).as_posix() for path in files} <= packed
    assert {name.split("/")[0] for name in packed} == {
        *PACKAGES,
        f"{NAME.replace('-', '_')}-{VERSION}.dist-info",
    }


def test_version_is_that_of_the_installed_distribution(monkeypatch):
    assert symlib.__version__ == VERSION, "run any make target to install it"
    newest = re.search(r"^## (\d\S*?)(?::|$)", read("CHANGELOG.md"), re.M).group(1)
    assert newest == VERSION

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert runpy.run_path(symlib.__file__)["__version__"] == "0+unknown"


def test_import_leaves_the_settings_of_jax_open():
    # An array made by an import would start JAX, and would not have the precision chosen later.
    code = "import symlib, jax; jax.config.update('jax_num_cpu_devices', 2); jax.devices()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_text_lets_pip_fetch_the_course_by_a_bare_name():
    texts = [path for name in (*PACKAGES, "tools", "book") for path in (ROOT / name).rglob("*.*")]
    texts = [path for path in texts if path.suffix in {".py", ".md", ".yml"}]
    bare = re.compile(rf"pip install.*(?:symlib|{NAME}(?! @ git\+))")
    assert bare.search('pip install "symlib[classroom]"') and bare.search(f"pip install {NAME}")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (*texts, ROOT / "README.md", ROOT / "CONTRIBUTING.md")
        for line in path.read_text("utf-8").splitlines()
        if bare.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("present", "installs"),
    [((), True), (("symlib",), True), (("symlib", "symcourse"), False)],
    ids=["nothing", "a stranger's symlib", "ours"],
)
def test_first_cell_installs_where_the_course_is_missing(tmp_path, present, installs):
    for name in present:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    cell = TransformerManager().transform_cell(derive.install_cell(ROOT).source)
    head = "class get_ipython:\n    run_line_magic = lambda self, *words: print(*words)\n"
    # Without the packages of this Python (-S), and from the folder of the packages above.
    command = [sys.executable, "-E", "-S", "-c", head + cell]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted = f'pip install -q "{NAME} @ git+{derive.repository_url(ROOT)}"\n'
    assert done.stdout == (wanted if installs else "")


def test_a_folder_of_one_of_our_names_does_not_run_in_place_of_ours(tmp_path):
    for name in ("course", *PACKAGES):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("open('imported', 'w')\n")
    command = [Path(sys.executable).with_name("symcourse"), "list"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "M3" in done.stdout
    # The process of a submission; it ends, since it is given nothing.
    subprocess.run(sandbox.command(unsafe=True), cwd=tmp_path, input=b"", capture_output=True)
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("command", [["reproduce", "M3"], ["grade", "01", "folder"]])
def test_command_without_the_classroom_packages_says_what_to_install(command, monkeypatch, capsys):
    for name in ("symcourse.experiments._runner", "symcourse.classroom.grade"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert main(command) == 1
    assert capsys.readouterr().err == (
        f"symcourse {command[0]} needs the package tqdm: install it, or all of them by "
        'pip install ".[classroom]" in a copy of the course.\n'
    )


def test_the_list_needs_no_classroom_packages_and_ends_quietly_with_its_reader():
    code = (
        "import sys\n"
        "for name in ('IPython', 'jax', 'psutil', 'tqdm'): sys.modules[name] = None\n"
        "import os, symcourse.__main__ as command\n"
        "reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1)\n"
        "sys.exit(command.main(['list']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
