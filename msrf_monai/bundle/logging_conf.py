"""Whether a ``logging.conf`` holds code: Python evaluates the class and the arguments of each handler in it."""

from __future__ import annotations

import ast
import configparser
from pathlib import Path

from msrf_monai.bundle.expressions import absolute_path, climbing_path

__all__ = ["check_logging"]

_NAMES = """
StreamHandler FileHandler NullHandler handlers.RotatingFileHandler handlers.TimedRotatingFileHandler
handlers.WatchedFileHandler
"""
_HANDLERS = frozenset(f"{prefix}{name}" for prefix in ("", "logging.") for name in _NAMES.split())
_FORMATTERS = frozenset({"Formatter", "logging.Formatter", "logging.BufferingFormatter"})
_STREAMS = frozenset({"sys.stdout", "sys.stderr"})


def check_logging(path: Path) -> list[str]:
    """List what is wrong with a logging configuration: classes of others, arguments that are no literals, far paths."""
    parser = configparser.RawConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, configparser.Error) as error:
        return [f"{path.name}: cannot be read as a logging configuration ({type(error).__name__})"]
    problems = []
    for section in (parser.default_section, *parser.sections()):
        for key, value in parser.items(section) if section != parser.default_section else parser.defaults().items():
            problems += [f"{path.name}: [{section}] {key}: {problem}" for problem in _field(section, key, value)]
    return list(dict.fromkeys(problems))


def _field(section: str, key: str, value: str) -> list[str]:
    if key == "class":
        known = _FORMATTERS if section.startswith("formatter") else _HANDLERS
        return (
            [] if value.strip() in known else [f"{value!r} is evaluated; only the usual classes of logging may stand"]
        )
    if key not in ("args", "kwargs") or not value.strip():
        return []
    try:
        tree = ast.parse(value.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return [f"{value!r} is evaluated, and is not Python"]
    if not _is_plain(tree.body):
        return [f"{value!r} is evaluated; only literals and {' and '.join(sorted(_STREAMS))} may stand"]
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [f"{text!r} lies outside the bundle" for text in texts if absolute_path(text) or climbing_path(text)]


def _is_plain(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return ast.unparse(node) in _STREAMS
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return all(_is_plain(each) for each in node.elts)
    if isinstance(node, ast.Dict):
        return all(key is not None and _is_plain(key) for key in node.keys) and all(map(_is_plain, node.values))
    return isinstance(node, ast.Constant)
