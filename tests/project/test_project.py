"""The files around the book agree: address, versions, lock, commands and licences."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests import debian

ROOT = Path(__file__).parents[2]


def read(name):
    return (ROOT / name).read_text("utf-8")


def load_yaml(name):
    return yaml.safe_load(read(name))


PROJECT = tomllib.loads(read("pyproject.toml"))
REPOSITORY = load_yaml("_config.yml")["repository"]
WORKFLOW = load_yaml(".github/workflows/book.yml")
# The name of a target, its prerequisites, and what `make help` says of it.
TARGETS = re.findall(r"^([a-z]+):(.*?)(?:## (.*))?$", read("Makefile"), re.M)
PYTHONS = WORKFLOW["jobs"]["book"]["strategy"]["matrix"]["python"]


def locked():
    """Return the lock as a dict from name to (version, marker or None)."""
    lines = [x for x in read("requirements.lock").splitlines() if x and not x.startswith("#")]
    requirements = [Requirement(line) for line in lines]
    assert len({canonicalize_name(r.name) for r in requirements}) == len(lines)
    return {
        canonicalize_name(r.name): (Version(str(r.specifier).removeprefix("==")), r.marker)
        for r in requirements
    }


def declared():
    """Return all requirements of pyproject.toml: build system, library and extras."""
    extras = PROJECT["project"]["optional-dependencies"].values()
    texts = PROJECT["project"]["dependencies"] + PROJECT["build-system"]["requires"]
    requirements = [Requirement(x) for x in texts + [x for extra in extras for x in extra]]
    return [r for r in requirements if r.name != PROJECT["project"]["name"]]


# The public address


def test_the_address_is_the_same_everywhere():
    owner_and_name = REPOSITORY["url"].removeprefix("https://github.com/")
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", owner_and_name)
    assert PROJECT["project"]["urls"]["Repository"] == REPOSITORY["url"]
    assert load_yaml("CITATION.cff")["repository-code"] == REPOSITORY["url"]
    badge = re.search(r"\[!\[Binder\]\((\S+)\)\]\((\S+)\)", read("README.md"))
    assert badge.group(1) == "https://mybinder.org/badge_logo.svg"
    start = f"https://mybinder.org/v2/gh/{owner_and_name}/{REPOSITORY['branch']}?urlpath=lab/tree/"
    assert badge.group(2).startswith(start)
    assert (ROOT / badge.group(2).removeprefix(start)).exists()


@pytest.mark.parametrize("name", ["README.md", "CITATION.cff", "pyproject.toml", "CONTRIBUTING.md"])
def test_no_other_address_of_the_project_is_left(name):
    owner_and_name = REPOSITORY["url"].removeprefix("https://github.com/")
    for link in re.findall(r"(?:github\.com|mybinder\.org/v2/gh)/([\w.-]+/[\w.-]+)", read(name)):
        assert link == owner_and_name


# Versions


def test_every_dependency_is_locked_at_a_version_that_fits():
    versions = locked()
    for requirement in declared():
        version, marker = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is locked at {version}"
        assert marker is None, f"{requirement} is locked for some machines only"


def test_lock_names_no_index_and_no_place():
    for line in read("requirements.lock").splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; .+)?", line)
        assert "/" not in line


def test_lock_is_what_is_installed():
    from importlib.metadata import version

    environment = default_environment()
    for name, (wanted, marker) in locked().items():
        if marker is None or marker.evaluate(environment):
            assert Version(version(name)) == wanted, f"{name}: run any make target to install it"


def test_python_versions_are_the_tested_ones():
    supported = SpecifierSet(PROJECT["project"]["requires-python"])
    minors = [f"3.{minor}" for minor in range(30)]
    assert [minor for minor in minors if supported.contains(minor)] == PYTHONS
    from tools import bootstrap

    assert [".".join(map(str, v)) for v in (bootstrap.OLDEST, bootstrap.NEWEST)] == [
        PYTHONS[0],
        PYTHONS[-1],
    ]
    assert "3.11, 3.12 or 3.13" in read("README.md")


def test_the_published_book_is_built_by_a_tested_python():
    steps = WORKFLOW["jobs"]["book"]["steps"]
    upload = next(s for s in steps if "upload-pages-artifact" in s.get("uses", ""))
    assert re.search(r"matrix\.python == '([\d.]+)'", upload["if"]).group(1) in PYTHONS
    assert upload["with"]["path"] == "_build/html"


def test_actions_are_pinned_to_a_major_version():
    steps = [s for job in WORKFLOW["jobs"].values() for s in job["steps"] if "uses" in s]
    assert steps
    for step in steps:
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"])


# Binder


def binder():
    """Return the conda packages and the pip lines of environment.yml."""
    dependencies = load_yaml("environment.yml")["dependencies"]
    pip = next(x["pip"] for x in dependencies if isinstance(x, dict))
    return [x for x in dependencies if isinstance(x, str)], pip


def test_binder_takes_a_supported_python_and_the_lock():
    conda, pip = binder()
    python = next(x.removeprefix("python=") for x in conda if x.startswith("python"))
    assert python in PYTHONS
    assert set(conda) == {f"python={python}", "pip"}
    constraint, editable = pip
    assert constraint == "-c requirements.lock"
    extra = re.fullmatch(r"-e \.\[(\w+)\]", editable).group(1)
    assert extra in PROJECT["project"]["optional-dependencies"]


def test_binder_recognises_the_repository():
    command = [sys.executable, "-m", "repo2docker", "--no-build", "--debug", "."]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-2000:]
    python = next(x.removeprefix("python=") for x in binder()[0] if x.startswith("python"))
    assert f"Building conda environment for python={python}\n" in output
    assert 'env update -p ${NB_PYTHON_PREFIX} --file "environment.yml"' in output


# Commands


def test_every_target_has_help():
    shown = subprocess.run(["make", "-C", ROOT, "help"], capture_output=True, text=True).stdout
    # "environment" is a step of the others.
    named = {name for name, _, _ in TARGETS if name != "environment"}
    everyday = {"help", "book", "test", "notebooks", "lint", "serve", "clean", "lock"}
    assert named == everyday | {"class", "teacher"}
    for name, _, words in TARGETS:
        if name in named:
            assert words
            assert re.search(rf"^  make {name} +{re.escape(words)}$", shown, re.M)
    phony = re.search(r"^\.PHONY:(.*)$", read("Makefile"), re.M).group(1).split()
    assert set(phony) == named | {"environment"}


def test_make_alone_shows_the_help():
    def shown(*target):
        return subprocess.run(["make", "-C", ROOT, *target], capture_output=True, text=True)

    assert shown().returncode == 0
    assert "make book" in shown().stdout


def test_targets_that_run_python_bring_the_environment_first():
    recipes = re.findall(r"^([a-z]+):(.*)\n((?:\t.*\n)+)", read("Makefile"), re.M)
    users = [(name, head) for name, head, recipe in recipes if "$(RUN)" in recipe]
    assert len(users) == 7
    for name, head in users:
        assert re.search(r"\b(environment|book)\b", head.split("##")[0]), name


def test_commands_named_in_the_texts_exist():
    names = {name for name, _, _ in TARGETS}
    for text in ("README.md", "CONTRIBUTING.md"):
        commands = re.findall(r"(?:`|^)make ([a-z]+)", read(text), re.M)
        assert commands
        assert set(commands) <= names


# Texts


def test_example_of_the_readme_does_what_it_says(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", read("README.md"), re.S)
    exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    numbers = {
        line.split(":")[0]: [float(x) for x in re.findall(r"-?\d+\.\d*", line)] for line in lines
    }
    bound, *mean = numbers["plain"]
    assert max(map(abs, mean)) < 0.2
    better, *mean = numbers["symmetrized"]
    assert min(map(abs, mean)) > 0.5
    assert better > bound + 0.05


def test_links_of_the_texts_lead_to_files():
    for text in ("README.md", "CONTRIBUTING.md"):
        links = re.findall(r"\]\((?!https?:)([^)#\s]+)\)", read(text))
        links += [x for x in re.findall(r"^\| `([^`]+)`", read(text), re.M)]
        for link in links:
            assert (ROOT / link).exists(), f"{text}: {link}"


def test_contributing_fits_a_screen_and_readme_explains_the_pin():
    assert len(read("CONTRIBUTING.md").splitlines()) <= 80
    (pin,) = [r for r in declared() if r.name == "jupyter-book"]
    assert not pin.specifier.contains("2.0")
    assert "version 2 drops `_config.yml` and `_toc.yml`" in " ".join(read("README.md").split())


def test_licences_and_citation_agree():
    citation = load_yaml("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert [author["name"] for author in citation["authors"]] == ["The Model Symmetries authors"]
    assert citation["version"] == PROJECT["project"]["version"]
    assert citation["license"] == [PROJECT["project"]["license"], "CC-BY-4.0"]
    assert "MIT License" in read("LICENSE")
    assert "https://creativecommons.org/licenses/by/4.0/legalcode" in read("LICENSE-TEXT")
    for name in ("LICENSE", "LICENSE-TEXT"):
        assert "The Model Symmetries authors" in read(name)


def test_no_file_names_a_place_of_one_machine():
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others"]
    try:
        listed = subprocess.run(
            [*command, "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    place = re.compile(r"(?<![\w.~-])/(?:home|Users|root|work|private)/\w|\b[A-Z]:\\Users")
    index = re.compile(r"(?:extra-)?index-url\s*=|find-links\s*=|--index-url|--find-links")
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.suffix in {".png", ".ico", ".woff2"} or not path.is_file():
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if place.search(line) or (index.search(line) and path != Path(__file__)):
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    assert found == []


@pytest.mark.parametrize(
    ("environment", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)]
)
def test_a_missing_debian_package_skips_and_fails_under_ci(monkeypatch, environment, outcome):
    monkeypatch.setenv("CI", environment)
    with pytest.raises(outcome, match="needs the Debian package chromium: apt-get install"):
        debian.program("chromium", "no-such-browser")
