"""The runner of long experiments, what it stores, and a small case of every experiment."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from symcourse import experiments
from symcourse.__main__ import main
from symcourse.experiments import _runner as runner
from symcourse.experiments._digest import changed_modules, code_digests

ROOT = Path(experiments.__file__).parents[2]
TIMES = {"BESSEL_TIME", "GRAE_TIME", "STEP_TIME", "SYRE_TIME"}
NAMES = runner.names()

# Squares the numbers 0 to 4. Each run of a case is noted in `ran`; the text in `trouble`
# is executed before case "n3".
TOY = """
import math, os, signal
from pathlib import Path
import jax

HERE = Path(__file__).parent
SETTINGS = {"seed": 7, "power": 2}
SMALL = "n1", {"power": 5}

def cases(settings):
    return [(f"n{i}", {"number": i}) for i in range(5)]

def run_case(settings, case, key):
    with open(HERE / "ran", "a") as file:
        print(case["number"], file=file)
    value = float(case["number"] ** settings["power"])
    if case["number"] == 3:
        exec((HERE / "trouble").read_text())
    return {"value": value, "uniform": float(jax.random.uniform(key))}

def summarise(settings, results):
    return {"total": sum(result["value"] for result in results.values())}
"""


@pytest.fixture
def toy(tmp_path):
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "trouble").write_text("")
    return tmp_path


def reproduce(folder, name="toy", **options):
    places = {"experiments": folder, "results": folder / "results"}
    return runner.reproduce(name, **places, **options)


def stop_early(folder):
    """Run three of the five cases."""
    (folder / "trouble").write_text("raise RuntimeError")
    with pytest.raises(RuntimeError):
        reproduce(folder)
    (folder / "trouble").write_text("")


def load_toy(folder, name="toy"):
    return experiments.load_result(name, folder / "results", folder)


def ran(folder):
    return [int(line) for line in (folder / "ran").read_text().split()]


def test_full_run_stores_everything_needed_to_repeat_it(toy):
    path = reproduce(toy, "TOY")
    stored = load_toy(toy, "Toy")
    assert path == toy / "results" / "TOY.json"
    assert stored["values"] == {"total": 30.0}
    assert list(stored["cases"]) == ["n0", "n1", "n2", "n3", "n4"]
    assert len({case["uniform"] for case in stored["cases"].values()}) == 5
    assert stored["key"] == 7
    assert stored["settings"] == {"seed": 7, "power": 2}
    assert stored["command"] == "symcourse reproduce TOY"
    assert stored["small"]["case"] == "n1"
    assert stored["small"]["result"]["value"] == 1
    assert {"python", "jax", "numpy", "model-symmetries"} < set(stored["versions"])
    assert stored["is_current"] is True
    assert [p.name for p in (toy / "results").iterdir()] == ["TOY.json"]


def test_killed_run_goes_on_after_the_finished_cases(toy):
    (toy / "trouble").write_text("os.kill(os.getpid(), signal.SIGKILL)")
    command = (
        "from pathlib import Path; from symcourse.experiments._runner import reproduce; "
        "reproduce('toy', experiments=Path('.'), results=Path('results'))"
    )
    killed = subprocess.run(
        [sys.executable, "-c", command],
        cwd=toy,
        env={"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (toy / "results" / "TOY.json").exists()
    (toy / "trouble").write_text("")

    resumed = json.loads(reproduce(toy).read_text())
    assert ran(toy) == [0, 1, 2, 3, 3, 4, 1]  # the last is the small case
    whole = json.loads(reproduce(toy).read_text())
    assert resumed["cases"] == whole["cases"]
    assert resumed["values"] == whole["values"]


def test_half_written_line_is_dropped(toy):
    stop_early(toy)
    partial = toy / "results" / "TOY.partial.jsonl"
    *others, last = partial.read_text().splitlines(keepends=True)
    assert '"n2"' in last
    partial.write_text("".join(others) + last.rstrip("\n"))
    assert json.loads(reproduce(toy).read_text())["values"] == {"total": 30.0}
    assert ran(toy) == [0, 1, 2, 3, 2, 3, 4, 1]


CHANGES = {
    "settings": ('"power": 2', '"power": 3', r"settings have changed: power \(2, now 3\)"),
    "code": ("import math", "import math, sys", "the code of toy has changed"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_stops_the_run_until_told_what_to_do(toy, kind):
    stop_early(toy)
    old, new, sentence = CHANGES[kind]
    (toy / "toy.py").write_text(TOY.replace(old, new))
    with pytest.raises(runner.ExperimentError, match=rf"TOY has finished cases \(3.*{sentence}"):
        reproduce(toy)
    assert ran(toy) == [0, 1, 2, 3]
    total = {"settings": 100.0, "code": 30.0}[kind]
    assert json.loads(reproduce(toy, changed="afresh").read_text())["values"] == {"total": total}
    assert ran(toy)[4:] == [0, 1, 2, 3, 4, 1]
    assert load_toy(toy)["is_current"] is True


def test_kept_cases_are_named_in_the_result(toy):
    stop_early(toy)
    (toy / "toy.py").write_text(TOY.replace('"power": 2', '"power": 3'))
    stored = json.loads(reproduce(toy, changed="keep").read_text())
    assert ran(toy)[4:] == [3, 4, 1]
    assert stored["values"] == {"total": 0 + 1 + 4 + 27 + 64}
    (kept,) = stored["kept"]
    assert kept["cases"] == ["n0", "n1", "n2"]
    assert kept["changed"] == [
        "the code of toy has changed",
        "the settings have changed: power (2, now 3)",
    ]
    assert load_toy(toy)["is_current"] is False


def test_another_version_stops_the_run(toy, monkeypatch):
    stop_early(toy)
    monkeypatch.setattr(runner.importlib.metadata, "version", lambda package: "99")
    with pytest.raises(
        runner.ExperimentError, match=r"versions have changed: .*jax \([\d.]*, now 99"
    ):
        reproduce(toy)


def test_a_case_of_more_than_twenty_minutes_is_named(toy, monkeypatch, capsys):
    assert runner.LONGEST_CASE == 1200
    monkeypatch.setattr(runner, "LONGEST_CASE", 0)
    reproduce(toy)
    assert "n4 took 0 minutes; a case is meant to take" in capsys.readouterr().out


def test_finished_cases_can_be_committed():
    """git must not ignore them, or a run would die with its machine."""
    assert "partial" not in (ROOT / ".gitignore").read_text("utf-8")


def test_more_seeds_have_a_result_of_their_own(toy):
    (toy / "toy.py").write_text(
        TOY.replace('"seed": 7', '"seed": 7, "seeds": 5').replace(
            "range(5)", 'range(settings["seeds"])'
        )
    )
    path = reproduce(toy, seeds=6)
    assert path.name == "TOY-SEEDS-6.json"
    assert load_toy(toy, "toy-seeds-6")["values"] == {"total": 55.0}
    assert load_toy(toy, "toy-seeds-6")["command"] == "symcourse reproduce TOY --seeds 6"
    with pytest.raises(runner.ExperimentError, match="two seeds or more, and --seeds is 1"):
        reproduce(toy, seeds=1)


def test_the_small_case_can_be_stored_alone(toy):
    before = json.loads(reproduce(toy).read_text())
    (toy / "toy.py").write_text(TOY.replace("float(case", "1 + float(case"))
    after = json.loads(runner.store_small("toy", toy, toy / "results").read_text())
    assert after.pop("small")["result"]["value"] == 2
    assert before.pop("small")["result"]["value"] == 1
    assert after == before


def test_a_list_of_numbers_is_one_line_of_the_file():
    data = {"a": [[1, 2], [3.5, None], []], "b": {"c": ["x, y", "[", "]"]}}
    text = runner._laid_out(json.dumps(data, indent=2))
    assert json.loads(text) == data
    assert "[1, 2]," in text and "[3.5, null]," in text


def test_seeds_are_refused_where_there_are_none_to_count(toy):
    with pytest.raises(
        runner.ExperimentError, match="TOY has no setting `seeds`.* It can for: none"
    ):
        reproduce(toy, seeds=3)
    with pytest.raises(
        runner.ExperimentError, match="for: COLLAPSE_ELSEWHERE, G4, K5, K6, S10, S2, S4, S5"
    ):
        runner.reproduce("M3", seeds=3)


@pytest.mark.parametrize("bad", ["math.nan", "math.inf"])
def test_result_that_is_no_number_is_refused(toy, bad):
    special = f'{{"value": {bad} if case["number"] == 3 else value'
    (toy / "toy.py").write_text(TOY.replace('{"value": value', special))
    with pytest.raises(runner.ExperimentError, match="NaN or infinite in case n3"):
        reproduce(toy)
    assert not (toy / "results" / "TOY.json").exists()


def test_array_in_a_result_is_refused_by_name(toy):
    (toy / "toy.py").write_text(TOY.replace("float(jax.random.uniform(key))", "key"))
    with pytest.raises(runner.ExperimentError, match="JSON cannot hold case n0"):
        reproduce(toy)


def test_unknown_name_lists_the_experiments(toy):
    with pytest.raises(runner.ExperimentError, match=r"no experiment M99.* exist: TOY\."):
        reproduce(toy, "m99")


def test_two_cases_of_one_name_are_refused(toy):
    (toy / "toy.py").write_text(TOY.replace('f"n{i}"', '"same"'))
    with pytest.raises(runner.ExperimentError, match="two cases of one name"):
        reproduce(toy)


def test_missing_result_names_the_command(toy):
    with pytest.raises(FileNotFoundError, match="symcourse reproduce M3"):
        experiments.load_result("M3", results=toy)


def test_command_line(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in lines) == NAMES
    (line,) = (line for line in lines if line.startswith("M3"))
    title = "Figure 3 of Moore (2016) by stochastic inference: predictive means over r, ten starts"
    assert "13 cases" in line and "176 s" in line and title in line
    assert main(["reproduce", "no-such-thing"]) == 1
    assert "There is no experiment NO-SUCH-THING" in capsys.readouterr().err


# The digest of the code

MODULES = {
    "symlib/__init__.py": "",
    "symlib/face/__init__.py": "from symlib.face._inner import used\n",
    "symlib/face/_inner.py": """from symlib.other import helper
def used(x):
    return helper(x) + 1
""",
    "symlib/face/_unused.py": "def unused():\n    return 1\n",
    "symlib/other.py": "def helper(x):\n    return 2 * x\n",
}
USER = '''"""A docstring."""
import numpy as np
from symlib.face import used

def run_case(settings, case, key):
    """Another."""
    return used(3)  # a comment
'''


@pytest.fixture
def package(tmp_path):
    """A folder with a package and an experiment that uses one of its names through a face."""
    for name, text in (MODULES | {"user.py": USER}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def digests(folder):
    return code_digests(folder / "user.py", root=folder)


def test_a_name_is_followed_to_the_module_that_defines_it(package):
    assert set(digests(package)) == {"user", "symlib.face._inner", "symlib.other"}


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("symlib/other.py", "2 * x", "3 * x", ["symlib.other"]),
        ("symlib/face/_inner.py", "+ 1", "- 1", ["symlib.face._inner"]),
        ("user.py", "used(3)", "used(4)", ["user"]),
        ("user.py", "import numpy", "import jax.numpy", ["user"]),
        ("user.py", "# a comment", "# another", []),
        ("user.py", '"""Another."""', '"""Other words."""', []),
        ("user.py", "import numpy as np", "\n\nimport numpy as np", []),
        ("user.py", "from symlib.face import", "from symlib.face._inner import", []),
        (
            "symlib/face/__init__.py",
            "import used",
            "import used\nfrom symlib.face import _unused",
            [],
        ),
        ("symlib/face/_unused.py", "return 1", "return 2", []),
    ],
)
def test_what_changes_a_digest(package, file, old, new, changed):
    before, path = digests(package), package / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert changed_modules(before, digests(package)) == changed


def test_another_name_of_the_same_face_is_seen(package):
    before = digests(package)
    (package / "symlib/face/_inner.py").write_text(
        MODULES["symlib/face/_inner.py"] + "def second(x):\n    return x\n"
    )
    face = package / "symlib/face/__init__.py"
    face.write_text("from symlib.face._inner import second, used\n")
    middle = digests(package)
    (package / "user.py").write_text(USER.replace("import used", "import second as used"))
    assert changed_modules(before, middle) == ["symlib.face._inner"]
    assert changed_modules(middle, digests(package)) == ["user"]


def test_a_module_that_moves_is_the_same_code(package):
    before = digests(package)
    (package / "symlib/other.py").rename(package / "symlib/elsewhere.py")
    inner = package / "symlib/face/_inner.py"
    inner.write_text(inner.read_text().replace("symlib.other", "symlib.elsewhere"))
    assert "symlib.elsewhere" in digests(package)
    assert changed_modules(before, digests(package)) == []


def test_an_experiment_depends_on_the_shared_file_and_on_definitions_alone():
    found = set(code_digests(experiments.files()["S6"]))
    assert {"s6_weight_decay_rank", "symcourse.experiments._training"} < found
    assert not found & {"symlib.syre", "symlib", "symcourse.experiments", "symcourse"}
    assert not any("factorization" in name or "_runner" in name for name in found)


def test_results_from_before_the_digest_do_not_say_whether_they_are_current(toy):
    path = reproduce(toy)
    stored = json.loads(path.read_text())
    del stored["code"]
    path.write_text(json.dumps(stored))
    assert load_toy(toy)["is_current"] is None


def test_a_result_of_older_code_says_so(toy):
    reproduce(toy)
    (toy / "toy.py").write_text(TOY.replace("float(case", "1 + float(case"))
    assert load_toy(toy)["is_current"] is False


# The experiments


@pytest.mark.parametrize("name", NAMES)
def test_stored_result_is_of_the_present_settings(name):
    stored = experiments.load_result(name)
    experiment = runner.load_experiment(name)
    assert stored["settings"] == json.loads(json.dumps(experiment.SETTINGS))
    assert list(stored["cases"]) == [case for case, _ in experiment.cases(experiment.SETTINGS)]


def leaves(tree, path=""):
    """Return the leaves of nested dicts and lists by their places."""
    if not isinstance(tree, dict | list):
        return {path: tree}
    branches = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {k: v for key, branch in branches for k, v in leaves(branch, f"{path}/{key}").items()}


def assert_same(found, expected, rtol):
    """Compare nested dicts and lists: numbers within rtol of themselves or of 1e-3.

    Below 1e-3 stand differences of larger numbers, of which float32 keeps fewer digits. Of a text,
    such as the pixels of an image, a hundredth may differ, where a rounding falls otherwise.
    """
    found, expected = leaves(found), leaves(expected)
    assert found.keys() == expected.keys()
    for place, value in expected.items():
        if isinstance(value, float):
            assert found[place] == pytest.approx(value, rel=rtol, abs=1e-3 * rtol), place
        elif isinstance(value, str):
            pairs = zip(found[place], value, strict=True)
            assert sum(a != b for a, b in pairs) <= len(value) / 100, place
        else:
            assert found[place] == value, place


@pytest.mark.parametrize("name", NAMES)
def test_small_case_gives_what_is_stored(name):
    """Within .002: most are stored in four digits, of which the last may be rounded otherwise.

    The largest difference that XLA made, optimising and not, was 1e-6. Times are only named.
    """
    found, expected = (
        runner.run_small(runner.load_experiment(name)),
        experiments.load_result(name)["small"],
    )
    if name in TIMES:
        assert leaves(found).keys() == leaves(expected).keys()
        assert all(
            value > 0 for key, value in leaves(found["result"]).items() if "state" not in key
        )
    else:
        assert_same(found, expected, 2e-3)


# Times name the machine that summarises them. M3 and S4 solve their problems again: half a minute.
@pytest.mark.parametrize("name", sorted(set(NAMES) - TIMES - {"M3", "S4"}))
def test_stored_values_follow_from_the_stored_cases(name):
    stored = experiments.load_result(name)
    values = runner.load_experiment(name).summarise(stored["settings"], stored["cases"])
    assert_same(json.loads(json.dumps(values)), stored["values"], 1e-6)


def test_a_small_case_can_be_one_of_the_stored_cases():
    stored = experiments.load_result("M6")
    assert_same(stored["small"]["result"], stored["cases"][stored["small"]["case"]], 1e-5)
