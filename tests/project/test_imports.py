"""Folders import each other in one direction only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("symlib", "symcourse")

# A folder may import the folders named here, and itself.
ALLOWED = {
    # What everyone needs stands at the top.
    "symlib": {
        *("symlib.data", "symlib.special", "symlib.groups", "symlib.posteriors"),
        *("symlib.inference", "symlib.factorization", "symlib.syre", "symlib.autoencoders"),
    },
    "symlib._checks": set(),
    "symlib.data": set(),
    "symlib.special": {"symlib._checks"},
    "symlib.groups": {"symlib._checks", "symlib.special"},
    "symlib.posteriors": {"symlib._checks", "symlib.groups", "symlib.special"},
    "symlib.inference": {"symlib._checks", "symlib.groups", "symlib.posteriors"},
    "symlib.factorization": {
        *("symlib._checks", "symlib.groups", "symlib.special"),
        *("symlib.posteriors", "symlib.inference"),
    },
    "symlib.syre": {"symlib._checks", "symlib.groups"},
    "symlib.autoencoders": {"symlib._checks"},
    "symcourse": {"symcourse.classroom", "symcourse.experiments"},
    "symcourse.page": set(),
    # Checks of the exercises and the experiments use what they are about.
    "symcourse.classroom": {"symlib"},
    "symcourse.experiments": {"symlib"},
}


def folder(module):
    """Return the row of a dotted name in ALLOWED."""
    return max((row for row in ALLOWED if f"{module}.".startswith(f"{row}.")), key=len, default="")


def imported_names(path: Path) -> set[str]:
    """Return the absolute dotted names that a file imports, `from a import b` as `a.b`."""
    package = path.relative_to(ROOT).parent.parts
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*start, *filter(None, [node.module])])
            names |= {f"{origin}.{alias.name}" for alias in node.names}
    return names


FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    here = folder(module)
    new = here in PACKAGES and module.count(".") and not module.endswith("__main__")
    assert not new, f"{module} is new: say in ALLOWED what it may import."
    for name in imported_names(path):
        assert name.split(".")[0] not in {"tests", "tools", "conftest"}, f"{path.name}: {name}"
        other = folder(name)
        known = {"", here, *ALLOWED[here]} | {
            r for r in ALLOWED if r.split(".")[0] in ALLOWED[here]
        }
        assert other in known, f"{here} may not import {name} ({path.name})."


def test_no_two_folders_import_each_other():
    seen = []

    def visit(row, above):
        assert row not in above, f"{row} imports itself: {above}"
        seen.append(row)
        for other in ALLOWED[row]:
            visit(other, (*above, row))

    for row in ALLOWED:
        visit(row, ())
    assert set(seen) == set(ALLOWED)


def test_table_lists_only_what_exists():
    existing = {
        ".".join((path.parent if path.name == "__init__.py" else path.with_suffix("")).parts)
        for path in (file.relative_to(ROOT) for file in FILES)
    }
    assert set(ALLOWED) <= existing, f"ALLOWED names no module: {set(ALLOWED) - existing}"
