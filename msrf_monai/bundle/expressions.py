"""What a config's ``_target_`` names and ``$`` expressions may use: nothing that runs code, loads pickles or writes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

__all__ = ["PICKLE_OPTIONS", "absolute_path", "expression_problems", "personal_path", "target_problems"]

ROOTS = ("monai", "torch", "ignite", "msrf_monai")
PICKLE_OPTIONS = frozenset({"weights_only", "allow_pickle"})
"""Options that only a loader of pickled objects takes."""

_MODULES = frozenset({*ROOTS, "numpy", "glob", "logging", "math", "os", "pathlib"})
_BUILTINS = frozenset(
    {"breakpoint", "compile", "delattr", "eval", "exec", "getattr", "globals", "input", "locals", "open", "setattr"}
    | {"vars"}
)
# Of these modules an expression may use what is named here, and of math everything. PurePath touches no disk.
_STANDARD = frozenset({"glob", "logging", "os", "pathlib"})
_STANDARD_ALLOWED = frozenset(
    {"glob.glob", "os.cpu_count", "os.environ", "os.environ.get", "os.fspath", "os.path", "os.sep"}
    | {f"os.path.{name}" for name in ("abspath", "basename", "dirname", "exists", "isdir", "isfile", "join")}
    | {f"os.path.{name}" for name in ("normpath", "relpath", "splitext")}
    | {f"logging.{name}" for name in ("getLogger", "DEBUG", "INFO", "WARNING", "ERROR")}
    | {"pathlib.PurePath", "pathlib.PurePosixPath"}
)
# Modules that many others import, and so are reachable behind a permitted name: torch.os.system, monai.utils.module.sys
_REACHABLE = frozenset(
    {"builtins", "ctypes", "importlib", "marshal", "multiprocessing", "pickle", "runpy", "shutil", "socket"}
    | {"subprocess", "sys", "tempfile", "urllib"}
)
_WRITERS = frozenset(
    {"chmod", "mkdir", "open", "popen", "read_bytes", "read_text", "rmdir", "symlink_to", "system", "tofile"}
    | {"touch", "unlink", "write_bytes", "write_text"}
)
# Each stands for itself and for everything below it.
_FORBIDDEN = (
    *(f"torch.{name}" for name in ("compile", "export.load", "hub", "load", "load_library", "ops.load_library")),
    *(f"torch.{name}" for name in ("package", "save", "serialization", "utils.cpp_extension", "utils.model_zoo")),
    *(f"numpy.{name}" for name in ("ctypeslib", "f2py", "fromfile", "genfromtxt", "lib", "load", "loadtxt", "memmap")),
    *(f"numpy.{name}" for name in ("save", "savetxt", "savez", "savez_compressed", "testing")),
    *(f"monai.bundle.{name}" for name in ("download", "load", "run", "scripts")),
    "monai.apps.utils",
    "monai.apps.download_and_extract",
    "monai.apps.download_url",
)
# TorchScript holds no Python pickle, and MONAI's own inference from model.ts builds it as a component.
_TARGET_ONLY = "torch.jit.load"
_ABSOLUTE = re.compile(r"^(/[^/\s]|~|[A-Za-z]:[\\/]|\\\\)")
_PERSONAL = re.compile(r"(/home/|/Users/|/root/|/workspace/|[A-Za-z]:\\Users\\)")


def absolute_path(text: str) -> bool:
    """Say whether a text begins like an absolute path of any system, or with ``~``."""
    return bool(_ABSOLUTE.match(text))


def personal_path(text: str) -> bool:
    """Say whether a text holds a folder of one user or one machine."""
    return bool(_PERSONAL.search(text))


def target_problems(target: object) -> list[str]:
    """List what is wrong with a ``_target_``: not below a permitted package, or a name that loads or runs things."""
    if not isinstance(target, str) or not target.startswith(tuple(f"{root}." for root in ROOTS)):
        return [f"_target_ {target!r} must be a dotted name under {', '.join(ROOTS)}"]
    parts = target.split(".")
    if _forbidden(target) or any(part == "os" or part in _REACHABLE or part.startswith("__") for part in parts):
        return [f"_target_ {target!r} loads, writes or runs what a config must not; use a component of the package"]
    return []


def expression_problems(value: str) -> list[str]:
    """List what is wrong with a ``$`` expression, by its syntax tree; nothing is evaluated or imported.

    This finds what a reviewer would object to. It is no sandbox: open only bundles that you trust.

    Args:
        value: the expression with its ``$``.
    """
    if "\n" in value:
        return ["the expression spans several lines; make it a function of the package"]
    # "@id" and "@a::b#c" are references of MONAI's, not Python
    source = re.sub(r"@[\w:#]*\w", "reference", value[1:].strip())
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        return [f"the expression is not Python: {error.msg}"]
    nodes = list(ast.walk(tree))
    below = _below_a_folder(nodes)
    inner = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    problems: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Name):
            problems += _name(node.id, id(node) in inner)
        elif isinstance(node, ast.Attribute):
            problems += _attribute(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            problems += _literal(node.value, id(node) in below)
        else:
            problems += _statement(node)
    return problems


def _statement(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Lambda):
        return ["lambda in an expression; make it a named function of the package"]
    if isinstance(node, ast.keyword) and node.arg in PICKLE_OPTIONS:
        return [f"the expression sets {node.arg}; weights come in through msrf_monai.engines.LoadWeights"]
    if isinstance(node, ast.Import):
        return [problem for alias in node.names for problem in _import(alias.name, alias.asname)]
    if isinstance(node, ast.ImportFrom):
        return [problem for alias in node.names for problem in _import_from(node.module or ".", alias)]
    return []


def _name(name: str, has_attribute: bool) -> list[str]:
    if name.startswith("__"):
        return [f"the expression uses {name}"]
    if name in _BUILTINS:
        return [f"the expression calls {name}()"]
    if name in _REACHABLE:
        return [f"the expression uses the module {name}"]
    if name in _STANDARD | {"torch", "numpy", "np"} and not has_attribute:
        return [f"the expression hands on the module {name}"]
    return []


def _attribute(node: ast.Attribute) -> list[str]:
    if node.attr.startswith("__") or node.attr == "os" or node.attr in _WRITERS | _REACHABLE:
        return [f"the expression uses .{node.attr}"]
    name = _dotted(node)
    standard = name.partition(".")[0] in _STANDARD and name not in _STANDARD_ALLOWED
    if standard or name == _TARGET_ONLY or _forbidden(name):
        return [f"the expression uses {name}; make it a function of the package"]
    return []


def _literal(text: str, below_a_folder: bool) -> list[str]:
    if text in PICKLE_OPTIONS:
        return [f"the expression sets {text}"]
    if personal_path(text):
        return [f"{text!r} holds a path of one machine"]
    if absolute_path(text) and not below_a_folder:
        return [f"{text!r} is an absolute path; derive it from @bundle_root or leave it to an override"]
    return []


def _below_a_folder(nodes: Iterable[ast.AST]) -> set[int]:
    """Return the literals that are appended to something given, as "/models/model.pt" to ``@bundle_root``."""
    return {id(literal) for node in nodes for literal in _appended(node)}


def _appended(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and not isinstance(node.left, ast.Constant):
        yield node.right
    elif isinstance(node, ast.JoinedStr):
        yield from node.values[1:]


def _dotted(node: ast.AST) -> str:
    """Return ``a.b.c`` of a chain of attributes that begins at a name, "" for another one; ``np`` counts as numpy."""
    if isinstance(node, ast.Name):
        return "numpy" if node.id == "np" else node.id
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def _forbidden(name: str) -> bool:
    return any(name == entry or name.startswith(f"{entry}.") for entry in _FORBIDDEN)


def _import(module: str, alias: str | None) -> list[str]:
    root, dot, _ = module.partition(".")
    if root not in _MODULES or _forbidden(module):
        return [f"the expression imports {module}"]
    # under another name the rules above would not see what it is
    if alias is not None and not (root in ROOTS and dot) and (module, alias) != ("numpy", "np"):
        return [f"the expression imports {module} as {alias}; keep its name"]
    return []


def _import_from(module: str, alias: ast.alias) -> list[str]:
    name = f"{module}.{alias.name}"
    if module.partition(".")[0] not in ROOTS or alias.name == "*" or target_problems(name):
        return [f"the expression imports {module if alias.name == '*' else name}; import the module"]
    return []
