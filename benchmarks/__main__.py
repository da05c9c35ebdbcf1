"""The command line: python -m benchmarks list, python -m benchmarks reproduce NAME."""

import argparse
import sys

from benchmarks.runner import ExperimentError, names, reproduce


def main(arguments=None):
    """Run a command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name the experiments")
    reproduction = commands.add_parser("reproduce", help="run an experiment and store its result")
    reproduction.add_argument("name", help="its id on the scoreboard, such as M3")
    chosen = parser.parse_args(arguments)
    if chosen.command == "list":
        print("\n".join(names()) or "There are no experiments yet.")
        return 0
    try:
        print(f"Wrote {reproduce(chosen.name)}")
    except ExperimentError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted: the same command goes on after the finished cases.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
