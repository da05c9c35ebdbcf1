"""`symcourse grade 01 submissions -o marks.csv`: mark a folder of notebooks."""

import os
import secrets
import sys

from symcourse.classroom.check import LIMIT, checks_of


def add_to(commands):
    """Add `grade` to the commands of a parser."""
    command = commands.add_parser("grade", help="mark a folder of notebooks")
    command.add_argument("page", help="the number of the exercise page, such as 01")
    command.add_argument("folder", help="the submissions: one .ipynb file for each student")
    command.add_argument("-o", "--output", help="the table to write; by default marks-NN.csv")
    command.add_argument(
        "--seed", type=int, help="what the checks draw; without one a new seed is drawn and told"
    )
    command.add_argument(
        "--limit", type=int, default=LIMIT, help=f"seconds for a cell or an answer, {LIMIT}"
    )
    command.add_argument(
        "--workers", type=int, help="submissions at once; one for each core, as far as memory lasts"
    )
    command.add_argument("--unsafe", action="store_true", help="run without a sandbox")
    command.set_defaults(run=run, error=command.error)


def run(options):
    """Mark a class; say in one sentence what is in the way if it cannot be done."""
    # Here, since these need packages of the extra `classroom`, and the other commands do not.
    from symcourse.classroom.grade import NothingToMark, grade, submissions
    from symcourse.classroom.sandbox import NoSandbox, require_sandbox

    if options.limit < 1:
        options.error(f"--limit has to be at least 1 second, got {options.limit}")
    page = options.page.zfill(2)
    try:
        checks_of(page)
    except ValueError as error:
        options.error(str(error))
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    output = options.output or f"marks-{page}.csv"
    try:
        _, others = submissions(options.folder)
        if not options.unsafe:
            require_sandbox()
            if os.geteuid() == 0:
                print("You mark as root: a hole in the sandbox would cost more.", file=sys.stderr)
        print(f"Seed {seed}: keep it, to mark again or to go on.", flush=True)
        marks = grade(
            page,
            options.folder,
            output,
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
    for number, result in enumerate(marks[0][1].results):
        passed = sum(found.results[number].passed for _, found in marks)
        print(f"{result.name}: {passed} of {len(marks)}")
    print(f"Submissions marked in {output}: {len(marks)}")
    troubled = [student for student, found in marks if found.status != "marked"]
    if troubled:
        print(f"To look at: {', '.join(troubled)}")
    if others:
        print(f"Not looked at: {', '.join(others)}", file=sys.stderr)
    return 0
