"""Exercises that check themselves, and the marking of a whole class.

In a notebook, `check = checker("01", globals())` and then `check("q1")` say at once what is right
and what is not. `symcourse grade` marks a folder of notebooks with the same
checks.
"""

from symcourse.classroom.check import checker

__all__ = ["checker"]
