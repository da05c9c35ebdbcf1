"""What folds, on a page and in its notebook: imports, code of figures, solutions and claims."""

import ast
import re


def fold(source, tags, checks=0, figure=False, other=False):
    """Return (part, summary) for a code cell that folds, else None.

    Args:
        source: the code of the cell.
        tags: its tags.
        checks: how many claims it shows.
        figure: whether it shows a figure or a flipbook.
        other: whether it shows anything else.

    Returns:
        None if all is visible; else ("cell" or "input", the line that stands for what is folded).
        A cell whose outputs are claims folds whole, by rule; so do solutions, by their tag. Of a
        cell that imports, and of one with the tag `hide-input` or `hide-cell`, the code folds. A
        comment on its first line says what it is.
    """
    if "solution" in tags:  # open in the teacher's edition
        return ("cell", "Solution") if "hide-cell" in tags else None
    if checks and not figure and not other:
        return "cell", f"{checks} checks passed" if checks > 1 else "1 check passed"
    said = re.match(r"#\s*(.+?)\.?\n", source + "\n")
    if "hide-cell" in tags or "hide-input" in tags:
        part = "cell" if "hide-cell" in tags else "input"
        if said:
            return part, f"Code: {said[1][0].lower()}{said[1][1:]}"
        return part, "Code of this figure" if figure else "Code"
    if _imports(source):
        return "input", "Imports and settings"
    return None


def _imports(source):
    """Return whether a cell has an import outside functions."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # a magic of IPython
        return False
    return any(isinstance(s, (ast.Import, ast.ImportFrom)) for s in statements)
