"""Read a bundle's configs, without evaluating them, and list what breaks the rules of the zoo and of MONAI Label."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msrf_monai.bundle.expressions import (
    PICKLE_OPTIONS,
    absolute_path,
    expression_problems,
    personal_path,
    target_problems,
)
from msrf_monai.errors import ConfigError

__all__ = ["config_files", "lint_bundle", "lint_config", "lint_name", "read_json"]

_DATA_KEYS = frozenset({"image", "label", "pred", "edge", "fov", "label2"})
# It only drops entries, also those that MONAI's transforms derive: label_fg_indices, image_meta_dict, …
_DROPS_DERIVED = "monai.transforms.DeleteItemsd"
_URL = re.compile(r"^(https?|ftp|s3)://")
_NAME = re.compile(r"^[a-z][a-z0-9]*(_[a-z0-9]+)+_segmentation$")
# MONAI Label guesses the task from these words in the folder's name, and tries them before "segmentation".
_TASK_WORDS = ("detection", "deepedit", "deepgrow")


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
        content = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}, and a JSON object was expected")
    return content


def lint_bundle(bundle: str | os.PathLike[str]) -> list[str]:
    """Lint the name and all configs of a bundle.

    Args:
        bundle: folder of the bundle.

    Returns:
        One sentence a problem, beginning with the file and the key; empty when there is none.
    """
    problems = lint_name(Path(bundle).resolve().name)
    for path in config_files(bundle):
        problems += lint_config(path)
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


def lint_config(path: str | os.PathLike[str]) -> list[str]:
    """Check one config file without evaluating or importing anything in it.

    Args:
        path: a JSON config.

    Returns:
        One sentence a problem, beginning with the file's name and the key.
    """
    path = Path(path)
    try:
        config = read_json(path)
    except ConfigError as error:
        return [str(error)]
    problems = _layout(path.read_text(encoding="utf-8")) + _top_level(config)
    for name, value in _walk(config):
        found: list[str] = []
        if isinstance(value, Mapping):
            found = _component(value)
        elif isinstance(value, str):
            found = expression_problems(value) if value.startswith("$") else _text(value)
        problems += [f"{name}: {problem}" for problem in found]
    return [f"{path.name}: {problem}" for problem in problems]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"the key {', '.join(twice)} occurs twice in one object")
    return dict(pairs)


def _walk(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    yield name or "top level", value
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, f"{name}::{key}" if name else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, f"{name}::{index}")


def _layout(text: str) -> list[str]:
    problems = []
    for number, line in enumerate(text.splitlines(), start=1):
        indent = line[: len(line) - len(line.lstrip())]
        if "\t" in indent or len(indent) % 4:
            problems.append(f"line {number} is not indented by a multiple of 4 spaces")
    if not text.endswith("\n"):
        problems.append("the last line has no line end")
    return problems[:3]


def _top_level(config: Mapping[str, Any]) -> list[str]:
    problems = [
        # MONAI Label runs the whole config for an empty run id: with two lists, training would run twice
        f'{key}: must be "@run", is {json.dumps(config[key])[:80]}'
        for key in ("training", "evaluating")
        if key in config and config[key] != "@run"
    ]
    train = config.get("train")
    handlers = train.get("handlers") if isinstance(train, Mapping) else None
    if handlers is not None and not (isinstance(handlers, list) and all(isinstance(h, Mapping) for h in handlers)):
        problems.append("train::handlers: must be a JSON list of objects, or MONAI Label cannot change it")
    return problems


def _component(value: Mapping[str, Any]) -> list[str]:
    problems = []
    if "_target_" in value:
        problems += target_problems(value["_target_"])
        problems += _keys(value.get("keys"), allow_derived=value["_target_"] == _DROPS_DERIVED)
    if value.get("lazy"):
        problems.append("lazy resampling ignores the mode of each key and spoils masks; leave it out")
    problems += [
        f"{key} is set; only a loader of pickled objects takes it" for key in sorted(PICKLE_OPTIONS & set(value))
    ]
    urls = [key for key, item in value.items() if isinstance(item, str) and _URL.match(item)]
    has_digest = any(isinstance(value.get(key), str) for key in ("sha256", "hash_val"))
    problems += [f"{key} is a URL without a sha256 beside it" for key in urls if not has_digest]
    return problems


def _keys(keys: Any, *, allow_derived: bool) -> list[str]:
    if keys is None or (isinstance(keys, str) and keys.startswith(("@", "$", "%"))):
        return []
    names = [keys] if isinstance(keys, str) else list(keys)
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
    if re.match(r"^%?scripts[./]", value):
        problems.append(f"{value!r} uses scripts/; code belongs in the installed package")
    return problems
