"""Where a dotted name of an installed package is defined, by its files alone: nothing is imported or executed."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Definition", "find_definition", "is_installed", "is_submodule"]

_MOST_STEPS = 12
# How torch names what it defines in C: each call hands on the function that it documents or chooses.
_TORCH_WRAPPERS = frozenset({"_add_docstr", "boolean_dispatch"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Definition:
    """The place where a name is defined."""

    module: str
    name: str
    attribute: str = ""
    """The method or member of the class ``name``; empty for the name itself."""
    is_bound: bool = True
    """False for a method that wants an instance first."""


@dataclass(frozen=True)
class _Module:
    name: str
    is_package: bool
    bindings: Mapping[str, tuple[ast.AST, ...]]
    """All that may bind each name at the top of the file, in every branch."""
    stars: tuple[str, ...]
    """Modules of which it takes all public names."""
    exports: frozenset[str] | None
    """``__all__``, where it is written out."""


@cache
def is_installed(root: str) -> bool:
    """Say whether a package is installed as files that can be read; it is not imported."""
    return _folder(root) is not None


@cache
def is_submodule(name: str) -> bool:
    """Say whether a dotted name is a module or package among the files of an installed package."""
    return _file(name) is not None


@cache
def find_definition(name: str) -> Definition | None:
    """Find the class, function or value of its own package that a dotted name stands for.

    The name may go through modules of the package that are files, then name one thing, then one attribute of a
    class. What the package only imports from elsewhere (``logging``, ``np``) is not found, and no module is.

    Args:
        name: for example ``monai.data.Dataset`` or ``ignite.engine.Events.EPOCH_STARTED``.
    """
    parts = name.split(".")
    split = 1
    while split < len(parts) and is_submodule(".".join(parts[: split + 1])):
        split += 1
    rest = parts[split:]
    if not 1 <= len(rest) <= 2:
        return None
    found = _resolve(".".join(parts[:split]), rest[0], _MOST_STEPS)
    if found is None:
        return None
    module, inner, node = found
    if len(rest) == 1:
        return Definition(module, inner)
    return _member(Definition(module, inner, rest[1]), node) if isinstance(node, ast.ClassDef) else None


def _member(wanted: Definition, node: ast.ClassDef) -> Definition | None:
    """Find a method or a plain value in the body of a class; what it inherits is not followed."""
    found = [each for statement in node.body for name, each in _bound(statement) if name == wanted.attribute]
    if not found:
        return None
    if all(isinstance(each, Function) for each in found):
        bound = all(_has_decorator(each, {"classmethod", "staticmethod"}) for each in found)
        return Definition(wanted.module, wanted.name, wanted.attribute, bound)
    return wanted if all(isinstance(each, ast.Constant) for each in found) else None


def _has_decorator(node: ast.AST, names: set[str]) -> bool:
    return any(isinstance(each, ast.Name) and each.id in names for each in getattr(node, "decorator_list", ()))


def _resolve(module: str, name: str, steps: int) -> tuple[str, str, ast.AST] | None:
    """Follow imports and second names to a definition; every branch that binds the name must lead to one."""
    read = _read(module)
    if read is None or steps == 0:
        return None
    nodes = read.bindings.get(name)
    if nodes:
        found = [_of_binding(read, name, node, steps - 1) for node in nodes]
        return found[-1] if all(found) else None
    for source in () if name.startswith("_") else read.stars:
        if _exports(source, name) and (star := _resolve(source, name, steps - 1)):
            return star
    return None


def _of_binding(read: _Module, name: str, node: ast.AST, steps: int) -> tuple[str, str, ast.AST] | None:
    if isinstance(node, Function | ast.ClassDef | ast.Constant):
        return read.name, name, node
    if isinstance(node, ast.Name):
        return None if node.id == name else _resolve(read.name, node.id, steps)
    if isinstance(node, ast.Call):
        return (read.name, name, node) if _is_own_object(read, node, steps) else None
    if isinstance(node, ast.ImportFrom):
        source, inner = _source(read, node), _imported(node, name)
        is_own = source.partition(".")[0] == read.name.partition(".")[0]
        return _resolve(source, inner, steps) if is_own and not is_submodule(f"{source}.{inner}") else None
    return None


def _is_own_object(read: _Module, node: ast.Call, steps: int) -> bool:
    """Say whether a call makes an object of a class of the package, or is how torch names a function of C."""
    if not isinstance(node.func, ast.Name):
        return False
    if read.name.startswith("torch.") and node.func.id in _TORCH_WRAPPERS:
        return True
    found = _resolve(read.name, node.func.id, steps)
    return found is not None and isinstance(found[2], ast.ClassDef)


def _exports(module: str, name: str) -> bool:
    read = _read(module)
    return read is not None and (read.exports is None or name in read.exports)


def _imported(node: ast.ImportFrom, name: str) -> str:
    return next(alias.name for alias in node.names if (alias.asname or alias.name) == name)


def _source(read: _Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = read.name.split(".")
    base = parts[: len(parts) - node.level + read.is_package]
    return ".".join([*base, *((node.module or "").split(".") if node.module else ())])


@cache
def _read(name: str) -> _Module | None:
    path = _file(name)
    try:
        tree = None if path is None else ast.parse(path.read_bytes())
    except (OSError, ValueError, SyntaxError, RecursionError):
        return None
    if tree is None or path is None:
        return None
    empty = _Module(name, path.name == "__init__.py", {}, (), None)
    bindings: dict[str, tuple[ast.AST, ...]] = {}
    stars = []
    for statement in _statements(tree.body):
        for bound, node in _bound(statement):
            bindings[bound] = (*bindings.get(bound, ()), node)
        if isinstance(statement, ast.ImportFrom) and any(alias.name == "*" for alias in statement.names):
            stars.append(_source(empty, statement))
    root = name.partition(".")[0]
    own = tuple(star for star in stars if star.partition(".")[0] == root)
    return _Module(name, empty.is_package, bindings, own, _written_out(bindings.pop("__all__", ())))


def _written_out(nodes: Iterable[ast.AST]) -> frozenset[str] | None:
    names: set[str] = set()
    for node in nodes:
        if not isinstance(node, ast.List | ast.Tuple):
            return None
        names |= {str(each.value) for each in node.elts if isinstance(each, ast.Constant)}
    return frozenset(names) or None


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a file, also those within ``if``, ``try`` and ``with``."""
    for statement in body:
        yield statement
        for field in ("body", "orelse", "finalbody"):
            if isinstance(statement, ast.If | ast.Try | ast.With | ast.For | ast.While):
                yield from _statements(getattr(statement, field, ()))
        for handler in getattr(statement, "handlers", ()):
            yield from _statements(handler.body)


def _bound(statement: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    """Yield the names that a statement binds, each with what it stands for: the statement itself where that is open."""
    if isinstance(statement, Function | ast.ClassDef):
        yield statement.name, statement
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        for alias in statement.names:
            yield alias.asname or alias.name.partition(".")[0], statement
    else:
        yield from _assigned(statement)


def _assigned(statement: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    value: ast.AST | None = getattr(statement, "value", None)
    targets: list[ast.AST] = list(getattr(statement, "targets", ()))
    targets += [item.optional_vars for item in getattr(statement, "items", ()) if item.optional_vars]
    targets += [statement.target] if isinstance(statement, ast.AnnAssign | ast.AugAssign | ast.For) else []
    is_plain = isinstance(statement, ast.Assign | ast.AnnAssign)
    for target in targets:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id, value if value is not None and is_plain and node is target else statement


@cache
def _folder(root: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(root)
    except (ImportError, ValueError):
        return None
    path = Path(spec.origin) if spec is not None and spec.origin else None
    return path.parent if path is not None and path.name == "__init__.py" and path.is_file() else None


@cache
def _names(folder: Path) -> frozenset[str]:
    return frozenset(each.name for each in folder.iterdir()) if folder.is_dir() else frozenset()


@cache
def _file(name: str) -> Path | None:
    """Return the file of a module, spelt exactly so also where the file system ignores case."""
    root, *others = name.split(".")
    folder = _folder(root)
    for index, part in enumerate(others):
        if folder is None or not part.isidentifier():
            return None
        if part in _names(folder) and "__init__.py" in _names(folder / part):
            folder = folder / part
        elif index == len(others) - 1 and f"{part}.py" in _names(folder):
            return folder / f"{part}.py"
        else:
            return None
    return None if folder is None else folder / "__init__.py"
