"""The modules of symlib import each other in one direction only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "symlib"

# The checks of the exercise pages may use the library that the exercises are about.
CLASSROOM = {"classroom", "factorization"}

# A module may import the modules of symlib named here, and no others.
ALLOWED = {
    "__init__": set(),
    "_checks": set(),
    "bessel": {"_checks", "bessel_expansion", "bessel_saddlepoint"},
    "bessel_expansion": set(),
    "bessel_saddlepoint": set(),
    "langevin": {"_checks", "bessel", "langevin_sweeps"},
    "langevin_sweeps": set(),
    "groups": {"_checks"},
    "networks": {"_checks", "groups"},
    "permanent": {"_checks"},
    "rotations": {"_checks", "bessel"},
    "posteriors": {"_checks", "groups", "networks", "permanent", "rotations"},
    "permutation_bounds": {"_checks", "groups", "networks", "permanent", "posteriors"},
    "rotation_bounds": {"_checks", "groups", "posteriors", "rotations"},
    "inference": {"_checks", "posteriors", "symmetry"},
    "bayesian_network": {"_checks", "groups", "posteriors", "symmetry"},
    "nuts": {"_checks"},
    "factorization": {"_checks", "groups", "posteriors", "inference"},
    "matrix_factorization": {"_checks", "factorization", "posteriors"},
    "matrix_ascent": {"_checks", "matrix_factorization"},
    "matrix_inference": {"_checks", "posteriors", "rotations", "inference", "matrix_factorization"},
    "matrix_gibbs": {"_checks", "matrix_factorization"},
    "matrix_evidence": {"_checks", "matrix_factorization", "matrix_gibbs"},
    "symmetry": {"_checks", "groups"},
    "hashing": set(),
    "syre": {"_checks", "hashing"},
    "decay": {"_checks", "syre"},
    "baselines": {"_checks", "syre"},
    "collapse": {"_checks", "groups"},
    "observation": {"_checks"},
    "beta_vae": {"_checks", "observation"},
    "grae": {"_checks", "beta_vae", "observation"},
    "latent_geometry": {"_checks"},
    "data": set(),
    "book": {"book"},
    "classroom": CLASSROOM,
}


def imported_names(path: Path) -> set[str]:
    """Return the absolute dotted names that a file imports, `from a import b` as `a.b`."""
    package = path.relative_to(ROOT.parent).parent.parts
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*start, *filter(None, [node.module])])
            names |= {f"{origin}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    module = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert module in ALLOWED, f"symlib/{module} is new: say in ALLOWED what it may import."
    for name in imported_names(path):
        top, *rest = name.split(".")
        assert top not in {"tests", "tools", "benchmarks", "conftest"}, f"{path.name}: {name}"
        if top == "symlib":
            assert set(rest[:1]) & ALLOWED[module], f"{path.name} may not import {name}."


def test_table_lists_only_what_exists():
    existing = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in ROOT.rglob("*.py")}
    assert set(ALLOWED) <= existing, f"ALLOWED names no module: {set(ALLOWED) - existing}"
