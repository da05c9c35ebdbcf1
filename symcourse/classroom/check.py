"""The checks of a page: found, run on answers, and told in words."""

import importlib
import inspect
import re
import textwrap
import zlib
from typing import NamedTuple

import numpy as np

from symcourse.classroom.answers import Answers, Stopped, Wrong
from symcourse.classroom.serve import reply_to

PAGES = "symcourse.classroom.pages"
BROKEN = "the check itself failed"  # how such a result begins
LIMIT = 60  # seconds for a cell or an answer: the longest solution took 34 beside other work
LONGEST_WORDS = 1000  # characters that a student reads about one check
WIDTH = 76  # characters of a line that fits a page
OWN_SEED = 0  # in a notebook; a teacher marks with another


class Result(NamedTuple):
    """One check of one notebook: its name, whether it holds, and what to tell the author."""

    name: str
    passed: bool
    words: str


def checks_of(page):
    """Return the checks of a page: functions named q1_..., q2_..., one mark each, in their order.

    Args:
        page: the number of the exercise page, such as "01".

    Raises:
        ValueError: there is no such page.
    """
    if not re.fullmatch(r"\d\d", page):
        raise ValueError(f"a page is named by two digits, such as '01', got {page!r}")
    try:
        module = importlib.import_module(f"{PAGES}.page_{page}")
    except ModuleNotFoundError as error:
        if error.name != f"{PAGES}.page_{page}":
            raise
        raise ValueError(f"there are no checks for page {page}") from None
    return {
        name: function
        for name, function in vars(module).items()
        if re.match(r"q\d+_", name) and inspect.isfunction(function)
    }


def question_of(check):
    """Return the question that a check belongs to: "q1" for "q1_orbit"."""
    return check.partition("_")[0]


def run_check(name, check, answers, seed):
    """Run one check with a generator that depends on the seed and on its name."""
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    try:
        check(answers, random)
    except Wrong as wrong:
        return Result(name, False, readable(wrong))
    except Stopped:
        raise
    except Exception as error:
        words = f"{BROKEN} ({type(error).__name__}: {error}): tell your teacher."
        return Result(name, False, readable(words))
    return Result(name, True, "right")


def readable(words):
    """Return words that every file and screen can hold: a submission may have a part in them."""
    words = str(words)[:LONGEST_WORDS].encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() or c == " " else " " for c in words)


def checker(page, names):
    """Return the function that checks the answers of a page in a notebook.

    `check("q1")` looks at the names that the exercise asks for and prints, for each mark, whether
    it is earned, and if not, what the answer shows and what to think about. Nothing is recorded.

    Args:
        page: the number of the exercise page, such as "01".
        names: where the answers will be found: `globals()`.
    """
    checks = checks_of(page)
    answers = Answers(lambda request: reply_to(request, names))

    def check(question):
        named = {name: f for name, f in checks.items() if question_of(name) == question}
        if not named:
            known = ", ".join(dict.fromkeys(map(question_of, checks)))
            raise ValueError(f"page {page} has the questions {known}; got {question!r}")
        results = [run_check(name, f, answers, OWN_SEED) for name, f in named.items()]
        print(f"{question}: {sum(r.passed for r in results)} of {len(results)}")
        for result in results:
            title = result.name.partition("_")[2].replace("_", " ")
            print(
                textwrap.fill(
                    f"{title}: {result.words}",
                    WIDTH,
                    initial_indent="  ",
                    subsequent_indent="    ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )

    return check
