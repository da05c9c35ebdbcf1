"""`python -m symlib.classroom grade 01 submissions -o marks.csv`: mark a folder of notebooks."""

import argparse
import os
import secrets
import sys

from symlib.classroom.check import checks_of
from symlib.classroom.grade import NothingToMark, grade, submissions
from symlib.classroom.sandbox import NoSandbox, require_sandbox


def main(arguments=None):
    """Mark a class; say in one sentence what is in the way if it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m symlib.classroom")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("grade", help="mark a folder of notebooks")
    command.add_argument("page", help="the number of the exercise page, such as 01")
    command.add_argument("folder", help="the submissions: one .ipynb file for each student")
    command.add_argument("-o", "--output", default="marks.csv", help="the table to write")
    command.add_argument(
        "--seed", type=int, help="what the checks draw; without one a new seed is drawn and told"
    )
    command.add_argument("--limit", type=int, default=20, help="seconds for a cell or an answer")
    command.add_argument(
        "--workers", type=int, help="submissions at once; one for each core, as far as memory lasts"
    )
    command.add_argument("--unsafe", action="store_true", help="run without a sandbox")
    options = parser.parse_args(arguments)
    if options.limit < 1:
        parser.error(f"--limit has to be at least 1 second, got {options.limit}")
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    print(f"Seed {seed}: keep it, to mark again or to go on.", flush=True)
    try:
        checks_of(options.page)
    except ValueError as error:
        parser.error(str(error))
    try:
        _, others = submissions(options.folder)
        if not options.unsafe:
            require_sandbox()
            if os.geteuid() == 0:
                print("You mark as root: a hole in the sandbox would cost more.", file=sys.stderr)
        if others:
            print(f"Not looked at: {', '.join(others)}", file=sys.stderr)
        marks = grade(
            options.page,
            options.folder,
            options.output,
            seed=seed,
            limit=options.limit,
            workers=options.workers,
            unsafe=options.unsafe,
        )
    except (NothingToMark, NoSandbox) as error:
        print(f"Nothing was marked: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"Interrupted. The same command with --seed {seed} goes on where it stopped.",
            file=sys.stderr,
        )
        return 130
    troubled = [student for student, found in marks if found.status != "marked"]
    print(f"{len(marks)} submissions are marked in {options.output}.")
    if troubled:
        print(f"To look at: {', '.join(troubled)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
