"""What a bundle would execute: every name, expression, import, script, address and pickle in it, without running it."""

from __future__ import annotations

import ast
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from msrf_monai.bundle.artifacts import examine_artifact, extra_files
from msrf_monai.bundle.config_ids import last_of, macro_file, walk
from msrf_monai.bundle.expressions import (
    expression_problems,
    expression_tree,
    full_name,
    imported_names,
)
from msrf_monai.bundle.lint import parse_json
from msrf_monai.bundle.logging_conf import check_logging
from msrf_monai.bundle.targets import is_unsafe_short, target_problems
from msrf_monai.bundle.tree import bundle_files, links
from msrf_monai.errors import ConfigError, MissingExtraError
from msrf_monai.optional import require

__all__ = ["Explanation", "Item", "explain_bundle"]

Kind = Literal["target", "expression", "import", "macro", "script", "address", "weights", "logging", "link", "unread"]

_ADDRESS = re.compile(r"\b(?:https?|ftp|s3|gs|file|git|ssh)://[^\s'\"<>)\]]+", re.IGNORECASE)
_HARMLESS = re.compile(r"lambda in|the expression (spans|has)|a reference stands|['\"].*(absolute path|one machine)")
_SCRIPTS = frozenset({".py", ".pyc", ".sh", ".bat", ".ps1", ".so", ".dll", ".pyd", ".dylib", ".exe", ".ipynb"})
_WEIGHTS = frozenset(
    {".pt", ".pth", ".ts", ".pt2", ".onnx", ".safetensors", ".pkl", ".pickle", ".bin", ".ckpt", ".npz"}
)
_CONFIGS = frozenset({".json", ".yaml", ".yml"})
_MOST_TEXT_BYTES = 16 << 20
_MOST_VALUES = 200_000
_DEEPEST = 100


@dataclass(frozen=True)
class Item:
    """One thing that opening or running the bundle would use."""

    kind: Kind
    text: str
    module: str
    """The module or package that it belongs to; empty where there is none."""
    place: str
    """``file::key``."""
    warnings: tuple[str, ...] = ()
    """What is beyond the rules for configs; empty for what every bundle does."""


@dataclass(frozen=True)
class Explanation:
    """What a bundle would execute."""

    bundle: str
    items: tuple[Item, ...]

    @property
    def dangerous(self) -> tuple[Item, ...]:
        """What is beyond the rules for configs; last what is only hard to read or to carry to another computer."""
        found = [item for item in self.items if item.warnings]
        return tuple(sorted(found, key=lambda item: all(_HARMLESS.match(warning) for warning in item.warnings)))

    def by_module(self) -> dict[str, tuple[Item, ...]]:
        """Return the names, expressions and imports of each module, the most used first."""
        counts = Counter(item.module for item in self.items if item.module)
        order = sorted(counts, key=lambda module: (-counts[module], module))
        return {module: tuple(item for item in self.items if item.module == module) for module in order}


def explain_bundle(bundle: str | os.PathLike[str]) -> Explanation:
    """List what a bundle would execute, from its files alone: nothing of it is imported, evaluated or unpickled.

    Args:
        bundle: folder of the bundle, of any kind and origin; configs may be JSON or YAML.
    """
    root = Path(bundle)
    items = [
        Item("link", f"{path.name} leads to {path.readlink()}", "", _place(path, root), ("a link",))
        for path in links(root)
    ]
    contents = []
    for path in bundle_files(root, with_leftovers=True):
        items += _file(path, root)
        if path.suffix.lower() in _CONFIGS and path.stat().st_size <= _MOST_TEXT_BYTES:
            found = _read(path, root)
            items += [found] if isinstance(found, Item) else []
            contents += [] if isinstance(found, Item) else [(_place(path, root), found)]
    aliases: dict[str, str] = {}
    for _, content in contents:
        for _, value in walk(content):
            if isinstance(value, str) and value.startswith("$") and "import" in value:
                aliases |= imported_names(value)
    for place, content in contents:
        items += _of_config(content, place, aliases)
    return Explanation(root.name, tuple(items))


def _place(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _read(path: Path, root: Path) -> Any:
    """Return the content of a JSON or YAML file, or an item that says why it cannot be read."""
    place = _place(path, root)
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            return parse_json(text, place)
        yaml = require("yaml", "clinical")
        try:
            content = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError):
            return Item("unread", place, "", place, ("cannot be read as YAML, so what is in it is unknown",))
        return content if _is_small(content) else _endless(place)
    except (OSError, ValueError, ConfigError, MissingExtraError) as error:
        reason = str(error) if isinstance(error, MissingExtraError) else type(error).__name__
        return Item("unread", place, "", place, (f"cannot be read ({reason}), so what is in it is unknown",))


def _endless(place: str) -> Item:
    return Item("unread", place, "", place, ("repeats itself without end, as a trap for readers does",))


def _is_small(content: Any) -> bool:
    """Say whether a YAML's content can be walked: its parts may stand in it many times, also within themselves."""
    left, waiting = _MOST_VALUES, [(content, 0)]
    while waiting and left:
        value, depth = waiting.pop()
        left -= 1
        if isinstance(value, Mapping | list):
            if depth > _DEEPEST:
                return False
            items = list(value.values()) if isinstance(value, Mapping) else value
            waiting += [(item, depth + 1) for item in items[: left + 1]]
    return left > 0


def _file(path: Path, root: Path) -> Iterator[Item]:
    place, suffix = _place(path, root), path.suffix.lower()
    if suffix in _SCRIPTS or os.access(path, os.X_OK):
        yield Item("script", place, "", place, ("code of the bundle's own",))
    elif suffix == ".conf":
        problems = check_logging(path)
        yield Item("logging", place, "", place, tuple(problem.partition(": ")[2] for problem in problems))
    elif suffix in _WEIGHTS:
        yield from _weights(path, place)
    elif suffix not in {*_CONFIGS, ".md", ".txt", ".csv", ".pdf", ".png", ".jpg", ".jpeg", ".svg", ".gif", ""}:
        yield Item("unread", place, "", place, ("a file of another kind, which was not read",))


def _weights(path: Path, place: str) -> Iterator[Item]:
    found = examine_artifact(path)
    warnings = [found.problem] if found.problem else []
    if found.unsafe:
        warnings.append(f"its pickle imports {', '.join(found.unsafe)}")
    yield Item("weights", f"{place} is {found.kind}", "", place, tuple(warnings))
    try:
        extras = extra_files(path)
        for name, text in extras.items():
            inner = f"{place}!{name.partition('extra/')[2]}"
            if name.endswith(".json"):
                yield from _of_config(parse_json(text, inner), inner, {})
            else:
                yield Item("unread", inner, "", inner, ("an extra file, which was not read",))
    except (OSError, ValueError, ConfigError, RuntimeError):
        yield Item("unread", place, "", place, ("its extra files cannot be read",))


def _of_config(content: Any, place: str, aliases: Mapping[str, str]) -> Iterator[Item]:
    for name, value in walk(content):
        where = f"{place}::{name}"
        if isinstance(value, Mapping):
            for key, item in value.items():
                if last_of(str(key)) == "_target_":
                    yield _target(item, where)
        elif isinstance(value, str):
            yield from _text(value, where, aliases)


def _target(value: object, place: str) -> Item:
    text = str(value)
    is_name = re.fullmatch(r"[\w.]+", text) is not None
    module = text.partition(".")[0] if is_name and "." in text else "monai" if is_name else "computed when it runs"
    if is_name and "." not in text:  # MONAI finds a short name in its own modules
        runs = ("a name that loads, writes or runs things",) if is_unsafe_short(text) else ()
        return Item("target", text, module, place, runs)
    return Item("target", text, module, place, tuple(target_problems(value)))


def _text(value: str, place: str, aliases: Mapping[str, str]) -> Iterator[Item]:
    if value.startswith("$"):
        problems = tuple(expression_problems(value, aliases))
        imports = tuple(_imports(value))
        for module in imports:
            yield Item("import", value, module, place, problems)
        if not imports:
            for module in _modules(value, aliases) or [""]:
                yield Item("expression", value, module, place, problems)
    elif value.startswith("%") and macro_file(value):
        name = macro_file(value)
        outside = () if name.startswith("configs/") and ".." not in name else ("reads a file outside configs",)
        yield Item("macro", value, "", place, outside)
    is_schema = place.endswith("metadata.json::schema")
    for address in () if is_schema else _ADDRESS.findall(value):
        yield Item("address", address, "", place)


def _imports(value: str) -> Iterator[str]:
    tree = expression_tree(value)
    for node in tree.body if isinstance(tree, ast.Module) else ():
        if isinstance(node, ast.Import):
            yield from dict.fromkeys(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or ".").partition(".")[0]


def _modules(value: str, aliases: Mapping[str, str]) -> list[str]:
    """Return the modules that an expression names, by the first part of each chain of attributes."""
    tree = expression_tree(value)
    if isinstance(tree, str):
        return []
    roots = {
        node.value.id for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    known = {
        full_name(ast.Name(id=root), aliases).partition(".")[0] for root in roots if not root.startswith("_reference_")
    }
    return sorted(known)
