"""What a config's ``$`` expressions may use: an allow list, by the syntax tree alone."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from msrf_monai.bundle.permitted import (
    FETCH_OPTIONS,
    HARMLESS_BUILTINS,
    MODULES,
    ROOTS,
    UNSAFE_PARTS,
    is_module,
    is_permitted,
    missing_package,
)
from msrf_monai.bundle.targets import target_problems, unknown

__all__ = [
    "PICKLE_OPTIONS",
    "absolute_path",
    "climbing_path",
    "expression_problems",
    "expression_tree",
    "full_name",
    "imported_names",
    "personal_path",
]

PICKLE_OPTIONS = frozenset({"weights_only", "allow_pickle", "pickle_module"})
"""Options that only a loader of pickled objects takes."""

NO_ALIASES: Mapping[str, str] = MappingProxyType({})
_GIVEN = MappingProxyType({"np": "numpy"})
_LONGEST = 300
# MONAI puts references in before Python sees the text, also within quotes, and takes "#" for "::".
_REFERENCE = re.compile(r"@\w*(?:::\w*)*")
_MARK = "_reference_"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_URL = re.compile(r"^[A-Za-z][\w+.-]*://")
_ABSOLUTE = re.compile(r"^(/[^/\s]|~|[A-Za-z]:[\\/]|\\\\|//\w|file:)")
_CLIMBING = re.compile(r"(^|[/\\])\.\.([/\\]|$)")
_PERSONAL = re.compile(r"(/home/|/Users/|/root/|/workspace/|[A-Za-z]:\\Users\\)")


def absolute_path(text: str) -> bool:
    """Say whether a text begins like an absolute path of any system, or with ``~``."""
    return bool(_ABSOLUTE.match(text))


def climbing_path(text: str) -> bool:
    """Say whether a path goes up, and so may leave the bundle."""
    return bool(_CLIMBING.search(text))


def personal_path(text: str) -> bool:
    """Say whether a text holds a folder of one user or one machine."""
    return bool(_PERSONAL.search(text))


def imported_names(value: str) -> dict[str, str]:
    """Return what an import statement of a config binds: each name with what it stands for; empty for another text."""
    tree = expression_tree(value)
    found: dict[str, str] = {}
    for node in tree.body if isinstance(tree, ast.Module) else ():
        if isinstance(node, ast.Import):
            found |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module or ''}.{alias.name}" for alias in node.names}
    return found


def expression_tree(value: str) -> ast.Module | str:
    """Parse a ``$`` expression as MONAI would hand it to Python, or return in words why that cannot be.

    Args:
        value: the expression with its ``$``.
    """
    if _CONTROL.search(value):
        return "the expression spans several lines; make it a function of the package"
    if len(value) > _LONGEST:
        return f"the expression has {len(value)} characters, over {_LONGEST}; make it a function of the package"
    if not value.isascii():
        return "the expression holds characters other than ASCII, which can look like others"
    source = _REFERENCE.sub(f"{_MARK}[0]", value[1:].strip().replace("#", "::"))
    try:
        return ast.parse(source)
    except SyntaxError as error:
        return f"the expression is not Python: {error.msg}"
    except (ValueError, MemoryError, RecursionError):
        return "the expression is not Python"


def expression_problems(value: str, aliases: Mapping[str, str] = NO_ALIASES) -> list[str]:
    """List what is wrong with a ``$`` expression, by its syntax tree; nothing is evaluated or imported.

    This finds what a reviewer would object to. It is no sandbox: open only bundles that you trust.

    Args:
        value: the expression with its ``$``.
        aliases: names that import statements of the bundle bind, and what they stand for.
    """
    tree = expression_tree(value)
    if isinstance(tree, str):
        return [tree]
    nodes = list(ast.walk(tree))
    below = _below_a_folder(nodes)
    inner = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    known = {**_GIVEN, **aliases}
    problems = [] if len(tree.body) == 1 else ["the text is not one expression"]
    for node in nodes:
        if isinstance(node, ast.Name):
            problems += _name(node.id, id(node) in inner, known)
        elif isinstance(node, ast.Attribute):
            problems += _attribute(node, id(node) in inner, known)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            problems += _literal(node.value, id(node) in below)
        else:
            problems += _statement(node)
    return list(dict.fromkeys(problems))


def full_name(node: ast.AST, aliases: Mapping[str, str] = NO_ALIASES) -> str:
    """Return ``a.b.c`` of a chain of attributes that begins at a name, as imported; "" for another one."""
    if isinstance(node, ast.Name):
        return {**_GIVEN, **aliases}.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        base = full_name(node.value, aliases)
        return f"{base}.{node.attr}" if base else ""
    return ""


def _statement(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Lambda):
        return ["lambda in an expression; make it a named function of the package"]
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        return ["the expression sets an item"]
    if isinstance(node, ast.NamedExpr):
        return ["the expression assigns a name with :="]
    if isinstance(node, ast.Await | ast.Yield | ast.YieldFrom) or getattr(node, "is_async", False):
        return ["the expression waits or yields"]
    if isinstance(node, ast.JoinedStr) and any(_is_mark(part) for part in ast.walk(node)):
        return ["a reference stands within a text, which MONAI cuts in two; join them with +"]
    if isinstance(node, ast.keyword) and node.arg in PICKLE_OPTIONS | FETCH_OPTIONS:
        return [f"the expression sets {node.arg}; weights come in through msrf_monai.engines.LoadWeights"]
    if isinstance(node, ast.Import):
        return [problem for alias in node.names for problem in _import(alias.name, alias.asname)]
    if isinstance(node, ast.ImportFrom):
        module = node.module if node.module and not node.level else "."
        return [problem for alias in node.names for problem in _import_from(module, alias)]
    if isinstance(node, ast.stmt) and not isinstance(node, ast.Expr):
        return ["the text is a statement; only an expression or an import may stand here"]
    return []


def _name(name: str, has_attribute: bool, known: Mapping[str, str]) -> list[str]:
    if name == _MARK:
        return []
    if name.startswith("__"):
        return [f"the expression uses {name}"]
    if hasattr(builtins, name) and name not in HARMLESS_BUILTINS and name not in known:
        return [f"the expression calls {name}()"]
    full = known.get(name, name)
    if name in UNSAFE_PARTS and full not in MODULES:
        return [f"the expression uses the module {name}"]
    if has_attribute:
        return []
    if full in MODULES or (name in known and not is_permitted(full)):
        return [f"the expression hands on the module {name}"]
    return []


def _attribute(node: ast.Attribute, is_inner: bool, known: Mapping[str, str]) -> list[str]:
    problems = [] if isinstance(node.ctx, ast.Load) else [f"the expression sets .{node.attr}"]
    if node.attr.startswith("_") or node.attr in UNSAFE_PARTS:
        problems.append(f"the expression uses .{node.attr}")
    # a chain that begins at a module is judged as a whole, once, at its outermost attribute
    name = full_name(node, known)
    if is_inner or name.partition(".")[0] not in MODULES or is_permitted(name):
        return problems
    if missing := missing_package(name):
        return [*problems, unknown(f"{name} in the expression", missing)]
    if is_module(name):
        return [*problems, f"the expression hands on the module {name}"]
    return [*problems, f"the expression uses {name}; make it a function of the package"]


def _literal(value: str | bytes, below_a_folder: bool) -> list[str]:
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if _MARK in text:
        return ["a reference stands within a text, which MONAI cuts in two; join them with +"]
    if text in PICKLE_OPTIONS | FETCH_OPTIONS:
        return [f"the expression sets {text}"]
    if "__" in text:
        return [f"{text!r} holds two underscores, as the names of Python's inner parts do"]
    return _path(text, below_a_folder)


def _path(text: str, below_a_folder: bool) -> list[str]:
    if personal_path(text):
        return [f"{text!r} holds a path of one machine"]
    if climbing_path(text):
        return [f"{text!r} is a path that goes up and may leave the bundle"]
    if _URL.match(text):
        return [f"{text!r} is a URL in an expression; give it a key of its own with a sha256 beside it"]
    if absolute_path(text) and not below_a_folder:
        return [f"{text!r} is an absolute path; derive it from @bundle_root or leave it to an override"]
    return []


def _below_a_folder(nodes: Iterable[ast.AST]) -> set[int]:
    """Return the literals that are appended to something given, as "/models/model.pt" to ``@bundle_root``."""
    return {id(literal) for node in nodes for literal in _appended(node)}


def _appended(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and _begins_with_reference(node.left):
        yield node.right


def _begins_with_reference(node: ast.AST) -> bool:
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        node = node.left
    return isinstance(node, ast.Subscript) and _is_mark(node.value)


def _is_mark(node: ast.AST) -> bool:
    is_name = isinstance(node, ast.Name) and node.id == _MARK
    return is_name or (isinstance(node, ast.Constant) and isinstance(node.value, str) and _MARK in node.value)


def _import(module: str, alias: str | None) -> list[str]:
    root, dot, _ = module.partition(".")
    if not is_module(module):
        return [f"the expression imports {module}"]
    # under another name the rules above would not see what it is
    if alias is not None and not (root in ROOTS and dot) and (module, alias) != ("numpy", "np"):
        return [f"the expression imports {module} as {alias}; keep its name"]
    if alias is not None and (alias in MODULES or hasattr(builtins, alias)):
        return [f"the expression imports {module} as {alias}, the name of something else"]
    return []


def _import_from(module: str, alias: ast.alias) -> list[str]:
    name = f"{module}.{alias.name}"
    if module.partition(".")[0] not in ROOTS or alias.name == "*" or target_problems(name):
        return [f"the expression imports {module if alias.name == '*' else name}; import the module"]
    if alias.asname is not None and (alias.asname in MODULES or hasattr(builtins, alias.asname)):
        return [f"the expression imports {name} as {alias.asname}, the name of something else"]
    return []
