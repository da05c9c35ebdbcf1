"""The command line of the course: symcourse list | reproduce NAME | grade PAGE FOLDER."""

import argparse
import sys

from symcourse.classroom import command as grading
from symcourse.experiments._runner import ExperimentError, names, reproduce


def main(arguments=None):
    """Run a command and return its exit status."""
    parser = argparse.ArgumentParser(prog="symcourse", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name the experiments").set_defaults(run=_list)
    command = commands.add_parser("reproduce", help="run an experiment and store its result")
    command.add_argument("name", help="its id on the scoreboard, such as M3")
    command.set_defaults(run=_reproduce)
    grading.add_to(commands)
    options = parser.parse_args(arguments)
    return options.run(options)


def _list(_):
    print("\n".join(names()) or "There are no experiments yet.")
    return 0


def _reproduce(options):
    try:
        print(f"Wrote {reproduce(options.name)}")
    except ExperimentError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted: the same command goes on after the finished cases.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
