"""Run an experiment case by case, so that a killed run goes on where it stopped.

Finished cases are lines of a file beside the results. It can be committed, so that a run outlives
its machine. Its first line says with which code, settings and versions they were made; where those
have changed, the runner stops and asks.
"""

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

from symcourse.experiments import EXPERIMENTS, RESULTS, files
from symcourse.experiments._digest import changed_modules, code_digests

# The packages whose versions a result names.
NAMED = ("equinox", "jax", "model-symmetries", "numpy", "optax")
# A longer case would cost too much when a machine is lost.
LONGEST_CASE = 20 * 60


class ExperimentError(Exception):
    """Says what is wrong with an experiment or its name."""


def names(experiments=EXPERIMENTS):
    """Return the names of the experiments, as the scoreboard writes them."""
    return sorted(files(experiments))


def load_experiment(name, experiments=EXPERIMENTS):
    """Return the module of an experiment."""
    source = files(experiments).get(name.upper())
    if source is None:
        known = ", ".join(names(experiments)) or "none yet"
        raise ExperimentError(f"There is no experiment {name.upper()}. Those that exist: {known}.")
    specification = importlib.util.spec_from_file_location(f"experiment_{source.stem}", source)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def reproduce(name, changed=None, seeds=None, experiments=EXPERIMENTS, results=RESULTS):
    """Run the cases of an experiment that are not finished and write its result file.

    Args:
        name: the experiment's id on the scoreboard, in any case.
        changed: what to do with finished cases of other code, settings or versions: "keep" them,
            run them "afresh", or None, stop.
        seeds: another number of seeds than the experiment's own; the result then has a file of
            its own, such as S10-SEEDS-5.json.
        experiments: folder of the experiments' modules.
        results: folder of the result files.

    Returns:
        Path of the result file, which is only ever written as a whole.

    Raises:
        ExperimentError: no such experiment, one without seeds to count, a name used by two cases,
            a result that JSON cannot hold, such as NaN, or finished cases that were made otherwise.
    """
    experiment, name, results = load_experiment(name, experiments), name.upper(), Path(results)
    settings, label, command = experiment.SETTINGS, name, f"symcourse reproduce {name}"
    if seeds is not None:
        settings = _with_seeds(name, settings, seeds, experiments)
        label, command = f"{name}-SEEDS-{seeds}", f"{command} --seeds {seeds}"
    cases = experiment.cases(settings)
    if len(dict(cases)) != len(cases):
        raise ExperimentError(f"{name} has two cases of one name.")
    header = {
        "code": code_digests(files(experiments)[name]),
        # As it would be read back, lists for tuples.
        "settings": json.loads(_dump(settings, "the settings")),
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in NAMED},
    }

    results.mkdir(parents=True, exist_ok=True)
    partial = results / f"{label}.partial.jsonl"
    records = _resume(label, partial, header, changed)
    finished = {record["case"]: record for record in records if "case" in record}
    todo = [case for case in cases if case[0] not in finished]
    bar = tqdm(desc=label, initial=len(cases) - len(todo), total=len(cases), unit="case")
    with partial.open("a", encoding="utf-8") as file, bar:
        for case_name, case in todo:
            start = time.perf_counter()
            result = _run_case(experiment, settings, case_name, case)
            record = {"case": case_name, "result": result, "seconds": time.perf_counter() - start}
            line = _dump(record, f"case {case_name}")
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
            # As it would be read back, so that a resumed run ends in the same file.
            finished[case_name] = json.loads(line)
            bar.update()
            if record["seconds"] > LONGEST_CASE:
                bar.write(
                    f"{case_name} took {record['seconds'] / 60:.0f} minutes; a case is meant to "
                    f"take {LONGEST_CASE // 60} at most, since a lost machine loses one."
                )

    ordered = {case_name: finished[case_name]["result"] for case_name, _ in cases}
    kept = _kept(records, header, ordered)
    outcome = {
        "name": name,
        "command": command,
        "settings": settings,
        "key": settings.get("seed", 0),
        "versions": header["versions"],
        "code": header["code"],
        **({"kept": kept} if kept else {}),
        "seconds": round(sum(finished[case_name]["seconds"] for case_name, _ in cases), 1),
        "cases": ordered,
        "values": experiment.summarise(settings, ordered),
        "small": run_small(experiment),
    }
    path = results / f"{label}.json"
    _write_whole(path, _laid_out(_dump(outcome, "the values", indent=2)))
    partial.unlink()
    return path


def run_small(experiment):
    """Run the case of a few seconds that a test runs again; return its name and its result."""
    name, changes = experiment.SMALL
    settings = experiment.SETTINGS | changes
    result = _run_case(experiment, settings, name, dict(experiment.cases(settings))[name])
    return {"case": name, "result": json.loads(_dump(result, f"the small case {name}"))}


def store_small(name, experiments=EXPERIMENTS, results=RESULTS):
    """Run the small case alone and store it in the experiment's result, whose rest stays as it is.

    For code that was changed on purpose and gives other numbers, before all cases are run again.
    """
    path = Path(results) / f"{name.upper()}.json"
    small = run_small(load_experiment(name, experiments))
    if not path.exists():
        raise ExperimentError(f"{name.upper()} has no result yet: run it without --small.")
    outcome = json.loads(path.read_text("utf-8")) | {"small": small}
    _write_whole(path, _laid_out(_dump(outcome, "the small case", indent=2)))
    return path


def _run_case(experiment, settings, name, case):
    # The key follows the case's name: a new case leaves the others as they were.
    key = jax.random.fold_in(jax.random.key(settings.get("seed", 0)), zlib.crc32(name.encode()))
    return experiment.run_case(settings, case, key)


def _with_seeds(name, settings, seeds, experiments):
    if "seeds" not in settings:
        modules = {other: load_experiment(other, experiments) for other in names(experiments)}
        able = [other for other, module in modules.items() if "seeds" in module.SETTINGS]
        raise ExperimentError(
            f"{name} has no setting `seeds`, so their number cannot be chosen. "
            f"It can for: {', '.join(able) or 'none'}."
        )
    if seeds < 2:
        raise ExperimentError(f"A standard error needs two seeds or more, and --seeds is {seeds}.")
    return settings | {"seeds": seeds}


def _resume(label, partial, header, changed):
    """Return the lines of an interrupted run that are kept, and cut off what was half written."""
    records = []
    for line in partial.read_bytes().splitlines(keepends=True) if partial.exists() else []:
        try:
            # A line without its end may be valid JSON and still be cut, as 12 of 123.
            records.append(json.loads(line if line.endswith(b"\n") else b""))
        except ValueError:
            break
    count = sum("case" in record for record in records)
    before = next((record for record in reversed(records) if "code" in record), None)
    if changed == "afresh" or not count:
        records = [header]
    elif differences := _differences(before, header):
        if changed != "keep":
            raise ExperimentError(
                f"{label} has finished cases ({count}, in {partial}) that were made otherwise: "
                f"{'; '.join(differences)}. Say --keep to go on after them, --afresh to run them "
                "again."
            )
        records.append(header)
    _write_whole(partial, "".join(_dump(record) + "\n" for record in records))
    return records


def _differences(before, now):
    """Return what changed between two headers: the code of which modules, settings, versions."""
    found = []
    if modules := changed_modules(before["code"], now["code"]):
        found.append(f"the code of {', '.join(modules)} has changed")
    for kind in ("settings", "versions"):
        old, new = before[kind], now[kind]
        changes = [
            f"{name} ({old.get(name, 'not there')}, now {new.get(name, 'not there')})"
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        ]
        if changes:
            found.append(f"the {kind} have changed: {', '.join(changes)}")
    return found


def _kept(records, header, ordered):
    """Return the cases that were made otherwise, and in what, for a run that went on with keep."""
    kept, last = [], header
    for record in records:
        if "code" in record:
            last = record
        elif record["case"] in ordered and (differences := _differences(last, header)):
            if not kept or kept[-1]["changed"] != differences:
                kept.append({"cases": [], "changed": differences})
            kept[-1]["cases"].append(record["case"])
    return kept


def _dump(data, what="", **layout):
    try:
        return json.dumps(data, allow_nan=False, **layout)
    except ValueError as error:
        raise ExperimentError(f"A result is NaN or infinite in {what}: not stored.") from error
    except TypeError as error:
        raise ExperimentError(f"JSON cannot hold {what}: {error}.") from error


def _laid_out(text):
    """Put each innermost list of indented JSON on one line: a number a line fills megabytes."""
    # A text has no raw line breaks, so that "[" and a break are layout.
    lists = re.compile(r"\[\n\s+([^\[\]{}]*?)\n\s*\]")
    return lists.sub(lambda found: "[" + re.sub(r",\n\s+", ", ", found[1]) + "]", text) + "\n"


def _write_whole(path, text):
    new = path.with_name(path.name + ".new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
