"""Read a bundle's configs, without evaluating them, and list what breaks the rules of the zoo and of MONAI Label."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from msrf_monai.bundle.config_ids import DEEPEST, depth_of, last_of, macro_file, normal_id, walk
from msrf_monai.bundle.expressions import (
    NO_ALIASES,
    PICKLE_OPTIONS,
    absolute_path,
    climbing_path,
    expression_problems,
    imported_names,
    personal_path,
)
from msrf_monai.bundle.targets import fetch_problems, helper_problems, target_problems, wholeness_problems
from msrf_monai.errors import ConfigError

__all__ = [
    "config_files",
    "depth_of",
    "last_of",
    "lint_bundle",
    "lint_config",
    "lint_content",
    "lint_name",
    "macro_file",
    "normal_id",
    "parse_json",
    "read_json",
    "walk",
]

_DATA_KEYS = frozenset({"image", "label", "pred", "edge", "fov", "label2"})
# It only drops entries, also those that MONAI's transforms derive: label_fg_indices, image_meta_dict, …
_DROPS_DERIVED = "monai.transforms.DeleteItemsd"
_URL = re.compile(r"^([A-Za-z][\w+.-]*)://")
_NAME = re.compile(r"^[a-z][a-z0-9]*(_[a-z0-9]+)+_segmentation$")
# MONAI Label guesses the task from these words in the folder's name, and tries them before "segmentation".
_TASK_WORDS = ("detection", "deepedit", "deepgrow")
_FEW = 3  # more short names than these are one problem, so that others are seen beside them
_MODES = ("default", "callable")
_HELPERS = ("reader", "writer", "merger_cls")
# They turn the direction of text, or cannot be seen.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def config_files(bundle: str | os.PathLike[str]) -> list[Path]:
    """Return every JSON file below ``configs`` except ``metadata.json``, overlays included, sorted."""
    folder = Path(bundle) / "configs"
    return sorted(path for path in folder.rglob("*.json") if path != folder / "metadata.json")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object in which no key occurs twice.

    Raises:
        ConfigError: when the file is missing, is no JSON, repeats a key, or holds something else than an object.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}") from error
    return parse_json(text, str(path))


def parse_json(text: str, name: str) -> dict[str, Any]:
    """Parse a JSON object in which no key occurs twice; ``name`` is for the message.

    Raises:
        ConfigError: when it is no JSON, repeats a key, or holds something else than an object.
    """
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} cannot be read as JSON: {error}") from error
    if depth_of(content) > DEEPEST:
        raise ConfigError(f"{name} is nested deeper than {DEEPEST} levels")
    if not isinstance(content, dict):
        raise ConfigError(f"{name} holds a {type(content).__name__}, and a JSON object was expected")
    return content


def lint_bundle(bundle: str | os.PathLike[str]) -> list[str]:
    """Lint the name and all configs of a bundle.

    Args:
        bundle: folder of the bundle.

    Returns:
        One sentence a problem, beginning with the file and the key; empty when there is none.
    """
    problems = lint_name(Path(bundle).resolve().name)
    files = config_files(bundle)
    aliases: dict[str, str] = {}
    for path in files:
        for name, full in _aliases_of(path).items():
            if aliases.setdefault(name, full) != full:
                problems.append(f"{path.name}: imports {full} as {name}, which is {aliases[name]} in another config")
    for path in files:
        problems += lint_config(path, aliases)
    return problems


def lint_name(name: str) -> list[str]:
    """Check a bundle's folder name: snake_case, ending in ``_segmentation``, no word that MONAI Label misreads."""
    problems = []
    if not _NAME.match(name):
        problems.append(f"{name}: the name must be snake_case and end in _segmentation")
    problems += [
        f"{name}: the name holds '{word}', which MONAI Label takes for the task" for word in _TASK_WORDS if word in name
    ]
    return problems


def lint_config(path: str | os.PathLike[str], aliases: Mapping[str, str] = NO_ALIASES) -> list[str]:
    """Check one config file without evaluating or importing anything in it.

    Args:
        path: a JSON config.
        aliases: names that import statements of the bundle's other configs bind, and what they stand for.

    Returns:
        One sentence a problem, beginning with the file's name and the key.
    """
    path = Path(path)
    try:
        config = read_json(path)
    except ConfigError as error:
        return [str(error)]
    problems = _layout(path.read_text(encoding="utf-8")) + lint_content(config, aliases)
    return [f"{path.name}: {problem}" for problem in problems]


def lint_content(config: Mapping[str, Any], aliases: Mapping[str, str] = NO_ALIASES) -> list[str]:
    """Check what a config holds; as ``lint_config``, without the file's layout and name."""
    known = {**aliases, **_imports(config)}
    problems, short = [], _short_targets(config)
    if len(short) > _FEW:
        names = ", ".join(dict.fromkeys(short.values()))
        problems.append(
            f"{next(iter(short))} and {len(short) - 1} more: _target_ must be a dotted name; short are {names}"
        )
    for name, value in walk(config):
        found: list[str] = []
        if isinstance(value, Mapping):
            found = [problem for key in value for problem in _key(key)]
            ends = {last_of(key): item for key, item in value.items()}
            found += _component(ends, says_targets=name not in short or len(short) <= _FEW)
            found += wholeness_problems(name, value)
        elif isinstance(value, str):
            found = expression_problems(value, known) if value.startswith("$") else _text(value)
        found += _by_id(normal_id(name), value)
        problems += [f"{name}: {problem}" for problem in found]
    return problems


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else []
    if twice:
        raise ValueError(f"the key {', '.join(twice)} occurs twice in one object")
    return dict(pairs)


def _aliases_of(path: Path) -> dict[str, str]:
    try:
        return _imports(read_json(path))
    except ConfigError:  # lint_config says so
        return {}


def _imports(config: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for _, value in walk(config):
        if isinstance(value, str) and value.startswith("$") and "import" in value:
            found |= imported_names(value)
    return found


def _layout(text: str) -> list[str]:
    problems = []
    for number, line in enumerate(text.splitlines(), start=1):
        indent = line[: len(line) - len(line.lstrip())]
        if "\t" in indent or len(indent) % 4:
            problems.append(f"line {number} is not indented by a multiple of 4 spaces")
    if not text.endswith("\n"):
        problems.append("the last line has no line end")
    return problems[:3]


def _by_id(name: str, value: Any) -> list[str]:
    """Check what MONAI Label looks up by its id, however the config writes the id."""
    if name in ("training", "evaluating") and value != "@run":
        # MONAI Label runs the whole config for an empty run id: with two lists, training would run twice
        return [f'must be "@run", is {json.dumps(value)[:80]}']
    is_list = isinstance(value, list) and all(isinstance(each, Mapping) for each in value)
    if name == "train::handlers" and not is_list:
        return ["must be a JSON list of objects, or MONAI Label cannot change it"]
    return []


def _key(key: str) -> list[str]:
    if not key.isascii():
        return [f"the key {key!a} holds characters other than ASCII, which can look like others"]
    if key[:1] in "~$@%!&*-" and key:
        return [f"the key {key!r} begins with a sign that MONAI does not know; only + may begin one"]
    return []


def _short_targets(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the components that are named without their package, which MONAI finds only among its own modules."""
    return {
        name: target
        for name, value in walk(config)
        if isinstance(value, Mapping) and isinstance(target := value.get("_target_"), str) and target.isidentifier()
    }


def _component(value: Mapping[str, Any], *, says_targets: bool) -> list[str]:
    problems = []
    if "_target_" in value and says_targets:
        problems += target_problems(value["_target_"])
    if "keys" in value:
        problems += _keys(value["keys"], allow_derived=value.get("_target_") == _DROPS_DERIVED)
    if "_mode_" in value and value["_mode_"] not in _MODES:
        problems.append(f"_mode_ is {value['_mode_']!r}; only {' and '.join(_MODES)} may stand, others open a debugger")
    for key in _HELPERS:
        problems += helper_problems(key, value[key]) if value.get(key) is not None else []
    if value.get("lazy"):
        problems.append("lazy resampling ignores the mode of each key and spoils masks; leave it out")
    problems += [
        f"{key} is set; only a loader of pickled objects takes it" for key in sorted(PICKLE_OPTIONS & set(value))
    ]
    problems += fetch_problems(value)
    urls = [key for key, item in value.items() if _is_url(item) or (isinstance(item, list) and any(map(_is_url, item)))]
    has_digest = any(isinstance(value.get(key), str) for key in ("sha256", "hash_val"))
    problems += [f"{key} is a URL without a sha256 beside it" for key in urls if not has_digest]
    return problems


def _is_url(value: Any) -> bool:
    return isinstance(value, str) and bool(_URL.match(value))


def _keys(keys: Any, *, allow_derived: bool) -> list[str]:
    if isinstance(keys, str) and keys.startswith(("@", "$", "%")):
        return []
    names = [keys] if isinstance(keys, str) else list(keys) if isinstance(keys, list) else []
    if allow_derived:
        derived = tuple(f"{key}_" for key in _DATA_KEYS)
        names = [name for name in names if not str(name).startswith(derived)]
    return [f"keys names {name!r}; use {', '.join(sorted(_DATA_KEYS))}" for name in names if name not in _DATA_KEYS]


def _text(value: str) -> list[str]:
    problems = []
    if absolute_path(value.removeprefix("%")):
        problems.append(f"{value!r} is an absolute path; derive it from @bundle_root or leave it to an override")
    elif personal_path(value):
        problems.append(f"{value!r} holds a path of one machine")
    elif climbing_path(value.removeprefix("%")):
        problems.append(f"{value!r} is a path that goes up and may leave the bundle")
    if re.match(r"^%?scripts[./]", value):
        problems.append(f"{value!r} uses scripts/; code belongs in the installed package")
    if _INVISIBLE.search(value):
        problems.append(f"{value!a} holds characters that cannot be seen or that turn the direction of text")
    return problems + _macro(value)


def _macro(value: str) -> list[str]:
    name = macro_file(value) if value.startswith("%") else ""
    path = PurePosixPath(name)
    if name and (path.parts[:1] != ("configs",) or path.suffix != ".json" or "metadata" in path.stem):
        return [f"{value!r} takes its value from {name}; a macro may read only configs/*.json of its own bundle"]
    return []
