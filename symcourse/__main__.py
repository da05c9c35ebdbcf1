"""The command line of the course: symcourse list | reproduce NAME | grade PAGE FOLDER."""

import argparse
import ast
import os
import sys

from symcourse.classroom import command as grading
from symcourse.experiments import files, load_result


def main(arguments=None):
    """Run a command and return its exit status."""
    parser = argparse.ArgumentParser(prog="symcourse", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("list", help="show the experiments, their size and their time")
    command.set_defaults(run=_list)
    command = commands.add_parser("reproduce", help="run an experiment and store its result")
    command.add_argument("name", help="its id on the scoreboard, such as M3")
    changed = command.add_mutually_exclusive_group()
    for choice, text in (
        ("afresh", "run finished cases again"),
        ("keep", "keep finished cases although code, settings or versions have changed"),
    ):
        changed.add_argument(
            f"--{choice}", dest="changed", action="store_const", const=choice, help=text
        )
    command.add_argument(
        "--seeds", type=int, metavar="N", help="another number of seeds, in a result of its own"
    )
    command.add_argument(
        "--small", action="store_true", help="only the small case, which a test runs again"
    )
    command.set_defaults(run=_reproduce)
    grading.add_to(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except ModuleNotFoundError as error:
        if not error.name or error.name.split(".")[0] in ("symlib", "symcourse"):
            raise
        print(
            f"symcourse {options.command} needs the package {error.name}: install it, or all of "
            'them by pip install ".[classroom]" in a copy of the course.',
            file=sys.stderr,
        )
        return 1


def _list(_):
    try:
        for line in _experiments():
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # what reads them, such as head, has seen enough
        # Or Python would fail once more as it closes the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _experiments():
    """Yield a line for each experiment."""
    for name, path in files().items():
        title = ast.get_docstring(ast.parse(path.read_text("utf-8"))).splitlines()[0]
        try:
            stored = load_result(name)
        except FileNotFoundError:
            from symcourse.experiments._runner import load_experiment

            experiment = load_experiment(name)
            count, took = len(experiment.cases(experiment.SETTINGS)), "not run"
        else:
            count, took = len(stored["cases"]), f"{stored['seconds']:.0f} s"
            took += " (older code)" if stored["is_current"] is False else ""
        yield f"{name:12}{count:4} {'case ' if count == 1 else 'cases'}{took:>8}  {title}"


def _reproduce(options):
    # Here, since it needs JAX and a package of the extra `classroom`, and the list does not.
    from symcourse.experiments._runner import ExperimentError, reproduce, store_small

    try:
        if options.small:
            path = store_small(options.name)
        else:
            path = reproduce(options.name, options.changed, options.seeds)
        print(f"Wrote {path}")
    except ModuleNotFoundError:
        raise  # main says what to install
    except (ExperimentError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted: the same command goes on after the finished cases.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
