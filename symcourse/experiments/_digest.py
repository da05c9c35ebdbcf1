"""Which code made a result: a digest of every module that holds a name that its experiment uses.

A digest is of parsed code. Comments, docstrings, the layout and the place of a file do not count,
nor do the folders' faces: a name is followed to the module that defines it.
"""

import ast
import functools
import hashlib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("symlib", "symcourse")


def code_digests(source, root=ROOT):
    """Return the digests of an experiment and of all of the course's modules that it uses.

    Args:
        source: the experiment's file.
        root: the folder that holds the course's packages.

    Returns:
        dict from the names of the modules, and the stem of `source`, to their digests.
    """
    found, todo = {}, [(Path(source).stem, Path(source))]
    while todo:
        name, path = todo.pop()
        if name in found:
            continue
        digest, imported = _read(path.read_text("utf-8"), _package(path, root))
        found[name] = digest
        for module, original, _ in imported:
            home = _home(module, original, root)
            todo.append((home, _file(home, root)))
    return dict(sorted(found.items()))


def changed_modules(before, now):
    """Return the names of the modules whose code differs; one that only moved is not among them."""
    before_only = set(before.values()) - set(now.values())
    now_only = set(now.values()) - set(before.values())
    changed = {name for name, digest in before.items() if digest in before_only}
    return sorted(changed | {name for name, digest in now.items() if digest in now_only})


@functools.cache
def _read(text, package):
    """Return a module's digest, and what it imports of the course: (module, name, name here)."""
    tree = ast.parse(text)
    imported = set()
    for node in ast.walk(tree):
        if _is_own(node):
            module = _absolute(node, package)
            for alias in node.names:
                here = alias.asname or alias.name
                whole = isinstance(node, ast.Import)
                imported.add((alias.name, None, here) if whole else (module, alias.name, here))
    bound = sorted({f"{name} as {here}" for _, name, here in imported})
    state = "\n".join([*bound, _code(tree)])
    return hashlib.sha256(state.encode()).hexdigest()[:16], sorted(imported, key=str)


def _is_own(node):
    """Tell whether a node is an import of the course's own."""
    if isinstance(node, ast.Import):
        return all(alias.name.split(".")[0] in PACKAGES for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return node.level > 0 or node.module.split(".")[0] in PACKAGES
    return False


def _code(node):
    """Return a text of parsed code: what it does, and not where it stands or what it says.

    `ast.dump` would do, but its text depends on Python's version.
    """
    if isinstance(node, list):
        return f"[{','.join(_code(one) for one in node if not _is_own(one))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list) and value and _is_docstring(value[0]):
            value = value[1:]
        if value is not None and value != []:
            fields.append(f"{name}={_code(value)}")
    return f"{type(node).__name__}({','.join(fields)})"


def _is_docstring(statement):
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return False
    return isinstance(statement.value.value, str)


def _home(module, name, root):
    """Return the module that defines a name which can be imported from `module`."""
    if name is None:
        return module
    if _file(f"{module}.{name}", root):
        return f"{module}.{name}"
    path = _file(module, root)
    for origin, original, here in _read(path.read_text("utf-8"), _package(path, root))[1]:
        if here == name and original is not None:
            return _home(origin, original, root)
    return module


def _file(module, root):
    """Return a module's file, or None."""
    path = Path(root, *module.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in candidates if file.is_file()), None)


def _package(path, root):
    """Return the dotted name of the folder of a file, "" outside of `root`."""
    folder = path.resolve().parent
    if not folder.is_relative_to(Path(root).resolve()):
        return ""
    return ".".join(folder.relative_to(Path(root).resolve()).parts)


def _absolute(node, package):
    """Return the module that an import names, without leading dots."""
    if isinstance(node, ast.Import) or not node.level:
        return getattr(node, "module", None)
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])
