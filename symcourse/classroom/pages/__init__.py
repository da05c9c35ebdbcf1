"""The checks of the exercise pages: `page_01` has those of exercise page 01, and so on.

A check is a function (answers, random) named after its question, such as `q1_orbit`, and earns one
mark. It asks for answers by name, tests properties on numbers drawn with the generator `random`,
and raises `Wrong` with a hint: what was seen, and what to think about.
"""
