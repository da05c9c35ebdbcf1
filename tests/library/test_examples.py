"""The examples in docstrings run and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import symlib

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(symlib.__path__, "symlib.")
    if not module.ispkg  # a folder's face holds no code
)
FINDER = doctest.DocTestFinder(exclude_empty=True)
EXAMPLES = [
    test
    for name in MODULES
    for test in FINDER.find(importlib.import_module(name), name)
    if test.examples
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_prints_what_it_says(example):
    # A doctest prints what differs; a second runner for each leaves no name behind.
    report = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example)
    assert report.failed == 0


def test_there_are_examples():
    assert len(EXAMPLES) >= 20
