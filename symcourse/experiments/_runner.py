"""Run an experiment case by case, so that a killed run goes on where it stopped."""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import time
import zlib
from pathlib import Path

import jax
from tqdm import tqdm

from symcourse.experiments import RESULTS

EXPERIMENTS = Path(__file__).parent


class ExperimentError(Exception):
    """Says what is wrong with an experiment or its name."""


def names(experiments=EXPERIMENTS):
    """Return the names of the experiments, as the scoreboard writes them."""
    return sorted(files(experiments))


def files(experiments=EXPERIMENTS):
    """Return the experiments' modules by name: `s10_permuted_mnist.py` is S10, a time its stem."""
    found = {}
    for path in sorted(Path(experiments).glob("[!_]*.py")):
        row = re.match(r"[a-z]\d+(?=_)", path.stem)
        found[(row[0] if row else path.stem).upper()] = path
    return found


def reproduce(name, experiments=EXPERIMENTS, results=RESULTS):
    """Run the cases of an experiment that are not finished and write its result file.

    Args:
        name: the experiment's id on the scoreboard, in any case.
        experiments: folder of the experiments' modules.
        results: folder of the result files.

    Returns:
        Path of the result file, which is only ever written as a whole.

    Raises:
        ExperimentError: no such experiment, a name used by two cases, or a result that
            JSON cannot hold, such as NaN.
    """
    name, results = name.upper(), Path(results)
    if name not in names(experiments):
        known = ", ".join(names(experiments)) or "none yet"
        raise ExperimentError(f"There is no experiment {name}. Those that exist: {known}.")
    source = files(experiments)[name]
    experiment = _load_module(source)
    settings = experiment.SETTINGS
    seed = settings.get("seed", 0)
    versions = {p: importlib.metadata.version(p) for p in ("jax", "numpy", "model-symmetries")}
    versions = {"python": platform.python_version(), **versions}
    digest = _digest(
        _dump(settings, "the settings", sort_keys=True), source.read_text("utf-8"), _dump(versions)
    )
    cases = experiment.cases(settings)
    if len(dict(cases)) != len(cases):
        raise ExperimentError(f"{name} has two cases of one name.")

    results.mkdir(parents=True, exist_ok=True)
    partial = results / f"{name}.partial.jsonl"
    finished = _resume(partial, digest)
    todo = [case for case in cases if case[0] not in finished]
    bar = tqdm(desc=name, initial=len(finished), total=len(cases), unit="case")
    with partial.open("a", encoding="utf-8") as file, bar:
        for case_name, case in todo:
            # The key follows the case's name: a new case leaves the others as they were.
            key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(case_name.encode()))
            start = time.perf_counter()
            result = experiment.run_case(settings, case, key)
            record = {"case": case_name, "result": result, "seconds": time.perf_counter() - start}
            line = _dump(record, f"case {case_name}")
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
            # As it would be read back, so that a resumed run ends in the same file.
            finished[case_name] = json.loads(line)
            bar.update()

    ordered = {case_name: finished[case_name]["result"] for case_name, _ in cases}
    outcome = {
        "name": name,
        "command": f"symcourse reproduce {name}",
        "settings": settings,
        "key": seed,
        "versions": versions,
        "seconds": round(sum(finished[case_name]["seconds"] for case_name, _ in cases), 1),
        "cases": ordered,
        "values": experiment.summarise(settings, ordered),
    }
    path = results / f"{name}.json"
    _write_whole(path, _dump(outcome, "the values", indent=2) + "\n")
    partial.unlink()
    return path


def _load_module(source):
    specification = importlib.util.spec_from_file_location(f"experiment_{source.stem}", source)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def _digest(*parts):
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _dump(data, what="", **layout):
    try:
        return json.dumps(data, allow_nan=False, **layout)
    except ValueError as error:
        raise ExperimentError(f"A result is NaN or infinite in {what}: not stored.") from error
    except TypeError as error:
        raise ExperimentError(f"JSON cannot hold {what}: {error}.") from error


def _resume(partial, digest):
    """Return the finished cases of an interrupted run, and cut off what was half written."""
    records = []
    for line in partial.read_bytes().splitlines(keepends=True) if partial.exists() else []:
        try:
            # A line without its end may be valid JSON and still be cut, as 12 of 123.
            records.append(json.loads(line if line.endswith(b"\n") else b""))
        except ValueError:
            break
    header = {"digest": digest}
    if records[:1] != [header]:
        if records:
            print("The settings, the code or the versions have changed: starting afresh")
        records = [header]
    _write_whole(partial, "".join(_dump(record) + "\n" for record in records))
    return {record["case"]: record for record in records[1:]}


def _write_whole(path, text):
    new = path.with_name(path.name + ".new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
