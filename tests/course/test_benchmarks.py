"""The runner of long experiments: a kill loses one case at most, and no NaN is stored."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from symcourse import experiments
from symcourse.__main__ import main
from symcourse.experiments import _runner as runner

ROOT = Path(experiments.__file__).parents[2]

# Squares the numbers 0 to 4. Each run of a case is noted in `ran`; the text in `trouble`
# is executed before case "n3".
TOY = """
import math, os, signal
from pathlib import Path
import jax

HERE = Path(__file__).parent
SETTINGS = {"seed": 7, "power": 2}

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


def reproduce(folder, name="toy"):
    return runner.reproduce(name, experiments=folder, results=folder / "results")


def ran(folder):
    return [int(line) for line in (folder / "ran").read_text().split()]


def test_full_run_stores_everything_needed_to_repeat_it(toy):
    path = reproduce(toy, "TOY")
    stored = experiments.load("Toy", results=toy / "results")
    assert path == toy / "results" / "TOY.json"
    assert stored["values"] == {"total": 30.0}
    assert list(stored["cases"]) == ["n0", "n1", "n2", "n3", "n4"]
    assert len({case["uniform"] for case in stored["cases"].values()}) == 5
    assert stored["key"] == 7
    assert stored["settings"] == {"seed": 7, "power": 2}
    assert stored["command"] == "symcourse reproduce TOY"
    assert set(stored["versions"]) == {"python", "jax", "numpy", "symlib"}
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
    assert ran(toy) == [0, 1, 2, 3, 3, 4]
    whole = json.loads(reproduce(toy).read_text())
    assert resumed["cases"] == whole["cases"]
    assert resumed["values"] == whole["values"]


def test_half_written_line_is_dropped(toy):
    (toy / "trouble").write_text("raise RuntimeError")
    with pytest.raises(RuntimeError):
        reproduce(toy)
    partial = toy / "results" / "TOY.partial.jsonl"
    *others, last = partial.read_text().splitlines(keepends=True)
    assert '"n2"' in last
    partial.write_text("".join(others) + last.rstrip("\n"))
    (toy / "trouble").write_text("")
    assert json.loads(reproduce(toy).read_text())["values"] == {"total": 30.0}
    assert ran(toy) == [0, 1, 2, 3, 2, 3, 4]


def test_changed_settings_start_afresh(toy, capsys):
    (toy / "trouble").write_text("raise RuntimeError")
    with pytest.raises(RuntimeError):
        reproduce(toy)
    (toy / "trouble").write_text("")
    (toy / "toy.py").write_text(TOY.replace('"power": 2', '"power": 3'))
    assert json.loads(reproduce(toy).read_text())["values"] == {"total": 100.0}
    assert ran(toy) == [0, 1, 2, 3, 0, 1, 2, 3, 4]
    assert "starting afresh" in capsys.readouterr().out


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
        experiments.load("M3", results=toy)


def test_command_line(capsys):
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in runner.names())
    assert main(["reproduce", "no-such-thing"]) == 1
    assert "There is no experiment NO-SUCH-THING" in capsys.readouterr().err


@pytest.mark.parametrize("name", runner.names())
def test_stored_result_is_of_the_present_settings(name):
    stored = experiments.load(name)
    experiment = runner._load_module(runner.files()[name])
    assert stored["settings"] == json.loads(json.dumps(experiment.SETTINGS))
    assert list(stored["cases"]) == [case for case, _ in experiment.cases(experiment.SETTINGS)]
