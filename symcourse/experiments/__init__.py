"""Results of the experiments that take too long for a page: one JSON file each.

`symcourse list` shows the experiments, `symcourse reproduce M3` runs one and writes its file in
symcourse/experiments/results, which chapters read with `load_result`.
"""

import json
import re
from pathlib import Path

from symcourse.experiments._digest import changed_modules, code_digests

EXPERIMENTS = Path(__file__).parent
RESULTS = EXPERIMENTS / "results"


def files(experiments=EXPERIMENTS):
    """Return the experiments' modules by name: `s10_permuted_mnist.py` is S10, a time its stem."""
    found = {}
    for path in sorted(Path(experiments).glob("[!_]*.py")):
        row = re.match(r"[a-z]\d+(?=_)", path.stem)
        found[(row[0] if row else path.stem).upper()] = path
    return found


def load_result(name, results=RESULTS, experiments=EXPERIMENTS):
    """Return the stored result of an experiment.

    Args:
        name: the experiment's id on the scoreboard, in any case ("M3" or "m3"). A run with five
            seeds on request is "S10-seeds-5".
        results: folder of the result files.
        experiments: folder of the experiments' modules.

    Returns:
        dict with what the file holds (name, command, settings, key, versions, code, seconds, cases,
        values, small) and "is_current": True if the code that made the result is the code as it
        is, False if it has changed since, None if the result does not say. Older code need not have
        been wrong.

    Raises:
        FileNotFoundError: the experiment has not been run; the message names the command.
    """
    name = name.upper()
    path = Path(results) / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(f"There is no result of {name}: run symcourse reproduce {name}")
    stored = json.loads(path.read_text("utf-8"))
    return stored | {"is_current": _is_current(stored, files(experiments))}


def _is_current(stored, sources):
    if "code" not in stored or stored["name"] not in sources:
        return None
    if "kept" in stored:  # some of its cases are of other code, settings or versions
        return False
    return not changed_modules(stored["code"], code_digests(sources[stored["name"]]))
