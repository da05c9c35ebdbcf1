"""Every check of every exercise page: the solution passes, the blank does not, and each known wrong
answer gets a hint of its own."""

import contextlib
import importlib
import io
import re

import jax
import nbformat
import pytest

from symcourse.classroom.answers import Answers
from symcourse.classroom.check import checks_of, question_of, run_check
from symcourse.classroom.serve import reply_to
from tools import notebooks

PAGES = [source for source in notebooks.sources() if notebooks.is_exercise(source)]
SEEDS = (0, 1)


def number(source):
    return source.name[:2]


@pytest.fixture(autouse=True)
def own_precision():
    """Give back the precision that the first cell of a page sets for good."""
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture(scope="module", params=PAGES, ids=lambda source: source.stem)
def page(request):
    return request.param


def run_blank(source):
    """Run a blank notebook; return its names, and (what is stored, what it printed) by cell.

    In a notebook the cells would do the same but for what they display, and they only print.
    """
    namespace, shown = {"__name__": "__main__"}, []
    for cell in nbformat.read(notebooks.blank_path(source), as_version=4).cells:
        if cell.cell_type == "code" and "remove-cell" not in cell.metadata.get("tags", []):
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(cell.source, namespace)
            stored = [(output.get("name"), output.get("text")) for output in cell.outputs]
            text = printed.getvalue()
            shown.append((stored, [("stdout", text)] if text else []))
    return namespace, shown


def test_stored_pages_earn_nothing_when_blank_and_everything_with_the_solutions(page):
    """That they print this today is proved by nbval, and of blank pages by the next test."""
    checks = checks_of(number(page))
    questions = dict.fromkeys(map(question_of, checks))
    assert questions
    marks = {
        question: [question_of(name) for name in checks].count(question) for question in questions
    }
    said = {"blank": {}, "solution": {}}
    for cell in nbformat.read(notebooks.notebook_path(page), as_version=4).cells:
        kind = "solution" if "solution" in cell.metadata.get("tags", []) else "blank"
        text = "".join(output.get("text", "") for output in cell.get("outputs", []))
        for question, earned, total in re.findall(r"^(q\d+): (\d+) of (\d+)$", text, re.M):
            assert marks[question] == int(total)
            assert question not in said[kind], f"{question} is checked twice"
            said[kind][question] = int(earned)
    assert said == {"blank": dict.fromkeys(questions, 0), "solution": marks}


def test_a_blank_page_prints_what_it_stores_and_each_wrong_answer_gets_its_own_hint(page):
    bank = importlib.import_module(f"tests.course.wrong_answers.page_{number(page)}").WRONG
    checks = checks_of(number(page))
    assert list(bank) == list(checks), "every check has wrong answers"
    blank, shown = run_blank(page)
    assert [stored for stored, _ in shown] == [printed for _, printed in shown]
    assert any(stored for stored, _ in shown)
    for name, wrong_answers in bank.items():
        hints = set()
        for code, words in wrong_answers:
            namespace = dict(blank)
            exec(code, namespace)
            answers = Answers(lambda request, names=namespace: reply_to(request, names))
            for seed in SEEDS:
                result = run_check(name, checks[name], answers, seed)
                assert not result.passed, f"{name} accepts\n{code}"
                assert words in result.words, f"{name} tells\n{code}\n{result.words}"
            hints.add(words)
        assert len(hints) == len(wrong_answers), f"{name}: two wrong answers share their hint"
