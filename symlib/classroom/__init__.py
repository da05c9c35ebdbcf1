"""Exercises that check themselves, and the marking of a whole class.

In a notebook, `check = checker("01", globals())` and then `check("q1")` say at once what is right
and what is not. `python -m symlib.classroom grade` marks a folder of notebooks with the same
checks.
"""

from symlib.classroom.check import checker

__all__ = ["checker"]
