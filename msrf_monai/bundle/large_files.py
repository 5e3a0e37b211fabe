"""Files that are too large for the repository, and whether a bundle has weights or says that it has none."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from msrf_monai.bundle.lint import read_json
from msrf_monai.errors import ConfigError
from msrf_monai.files import sha256_of
from msrf_monai.optional import require

__all__ = ["check_large_files", "check_weights"]

_NAMES = ("large_files.yml", "large_files.yaml", "large_files.json")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_WEIGHTS = "models/model.pt"
_NO_WEIGHTS = "no trained weights"


def check_large_files(bundle: str | os.PathLike[str]) -> list[str]:
    """Check that each file of ``large_files.yml`` has a SHA-256, and that those which are there agree with it.

    Args:
        bundle: folder of the bundle; nothing is downloaded.
    """
    root = Path(bundle)
    try:
        name, entries = _listing(root)
    except ConfigError as error:
        return [str(error)]
    return [f"{name}: {problem}" for entry in entries for problem in _entry(root, entry)]


def check_weights(bundle: str | os.PathLike[str]) -> list[str]:
    """Check that ``models/model.pt`` is there or in ``large_files.yml``, or that the changelog says it is not.

    A version without weights has the words "no trained weights" in its own entry of the changelog in ``metadata.json``.

    Args:
        bundle: folder of the bundle.

    Raises:
        ConfigError: when ``metadata.json`` cannot be read.
    """
    root = Path(bundle)
    _, entries = _listing(root)
    listed = any(isinstance(entry, Mapping) and entry.get("path") == _WEIGHTS for entry in entries)
    if listed or (root / _WEIGHTS).is_file():
        return []
    meta = read_json(root / "configs" / "metadata.json")
    if _NO_WEIGHTS in str(meta.get("changelog", {}).get(meta.get("version"), "")):
        return []
    return [f"{_WEIGHTS} is neither there nor in large_files.yml, and the changelog does not say '{_NO_WEIGHTS}'"]


def _listing(root: Path) -> tuple[str, list[Any]]:
    path = next((root / name for name in _NAMES if (root / name).is_file()), None)
    if path is None:
        return "", []
    yaml = require("yaml", "clinical")  # it reads JSON too
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{path.name} cannot be read as YAML: {' '.join(str(error).split())[:200]}") from error
    entries = content.get("large_files") if isinstance(content, Mapping) else None
    if content is not None and not isinstance(entries, list | None):
        raise ConfigError(f"{path.name} must hold a list named large_files")
    return path.name, entries or []


def _entry(root: Path, entry: Any) -> list[str]:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str):
        return ["an entry has no path"]
    name, digest, url = entry["path"], str(entry.get("hash_val")), str(entry.get("url") or "")
    if PurePosixPath(name).is_absolute() or "\\" in name or ":" in name or ".." in PurePosixPath(name).parts:
        return [f"{name} lies outside the bundle"]
    if entry.get("hash_type") != "sha256" or not _SHA256.match(digest):
        return [f"{name} has no sha256"]
    if url and not url.startswith("https://"):
        return [f"{name} comes from {url[:80]}, which is not https"]
    path = root / name
    if path.is_file() and sha256_of(path) != digest:
        return [f"{name} is not the file whose sha256 is listed"]
    return []
