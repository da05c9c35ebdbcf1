"""Results of the experiments that take too long for a page: one JSON file each.

`symcourse list` names the experiments, `symcourse reproduce M3`
runs one and writes its file in symcourse/experiments/results, which chapters read with `load`.
"""

import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def load(name, results=RESULTS):
    """Return the stored result of an experiment.

    Args:
        name: the experiment's id on the scoreboard, in any case ("M3" or "m3").
        results: folder of the result files.

    Returns:
        dict with name, command, settings, key, versions, seconds, cases and values.

    Raises:
        FileNotFoundError: the experiment has not been run; the message names the command.
    """
    path = Path(results) / f"{name.upper()}.json"
    if not path.exists():
        raise FileNotFoundError(
            f"There is no result of {name.upper()}: run symcourse reproduce {name.upper()}"
        )
    return json.loads(path.read_text("utf-8"))
