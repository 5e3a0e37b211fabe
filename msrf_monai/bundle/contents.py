"""What lies in a bundle's folder beside its configs and could carry code or lead out of it; nothing is loaded."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msrf_monai.bundle.artifacts import examine_artifact, extra_files
from msrf_monai.bundle.lint import last_of, lint_content, parse_json, read_json, walk
from msrf_monai.bundle.logging_conf import check_logging
from msrf_monai.bundle.tree import bundle_files, links, specials
from msrf_monai.errors import ConfigError

__all__ = ["check_contents"]

_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")
_PLAIN = frozenset({".md", ".txt", ".csv", ".pdf", *_PICTURES})
_WEIGHTS = frozenset({".pt", ".pth", ".ts", ".pt2", ".onnx", ".safetensors"})
_BARE_NAMES = frozenset({"LICENSE", "LICENCE", "NOTICE", "README", "CITATION.cff", "SHA256SUMS", ".gitkeep"})
_LARGE_FILES = frozenset({"large_files.yml", "large_files.yaml"})


def check_contents(bundle: str | os.PathLike[str]) -> list[str]:
    """List files that are no part of a bundle, code wherever it hides, pickles that import, and links that lead out.

    Args:
        bundle: folder of the bundle; what runs leave there (``eval``, ``data``, caches) is passed over, links are not.
    """
    root = Path(bundle)
    problems = [f"{path.relative_to(root)} is a link that leads out of the bundle" for path in _leading_out(root)]
    problems += [f"{path.relative_to(root)} is neither a file nor a folder" for path in specials(root)]
    lowered: dict[str, Path] = {}
    for path in bundle_files(root):
        relative = path.relative_to(root)
        twin = lowered.setdefault(relative.as_posix().casefold(), relative)
        if twin != relative:
            problems.append(f"{relative} and {twin} are one file where case does not count")
        problems += [f"{relative}: {problem}" for problem in _file(path, relative)]
    return problems


def _leading_out(root: Path) -> Iterator[Path]:
    inside = root.resolve()
    for path in links(root):
        if path.readlink().is_absolute() or not path.resolve().is_relative_to(inside):
            yield path


def _file(path: Path, relative: Path) -> list[str]:
    suffix = path.suffix
    if not str(relative).isascii():
        return ["the name holds characters other than ASCII"]
    if suffix == ".json":
        return _json(path, relative)
    if suffix == ".conf":
        return [problem.partition(": ")[2] for problem in check_logging(path)]
    if suffix in _WEIGHTS:
        return _weights(path)
    if suffix in (".yml", ".yaml") and str(relative) not in _LARGE_FILES:
        return ["is YAML; monai.bundle.load and this check read JSON configs only, so convert it"]
    if suffix in _PLAIN or path.name in _BARE_NAMES or str(relative) in _LARGE_FILES:
        return []
    return ["is no part of a bundle; code belongs in the installed package, data elsewhere"]


def _json(path: Path, relative: Path) -> list[str]:
    """Check JSON outside the linted configs: MONAI reads metadata as a config, and macros can name any file."""
    is_config = relative.parts[0] == "configs" and relative.as_posix() != "configs/metadata.json"
    if is_config:
        return []
    try:
        return _inert(read_json(path))
    except ConfigError:
        return ["cannot be read as a JSON object"]


def _inert(content: dict[str, Any]) -> list[str]:
    problems = []
    for name, value in walk(content):
        if isinstance(value, str) and value[:1] in ("$", "%"):
            problems.append(f"{name} would be evaluated as a config; no expression or macro may stand here")
        elif isinstance(value, dict) and any(last_of(key) == "_target_" for key in value):
            problems.append(f"{name} has a _target_; only configs may")
    return problems


def _weights(path: Path) -> list[str]:
    found = examine_artifact(path)
    problems = [found.problem] if found.problem else []
    if found.unsafe:
        problems.append(f"its pickle imports {', '.join(found.unsafe[:5])}; ship a plain state dict")
    if path.suffix == ".safetensors" and found.kind != "safetensors":
        problems.append(f"is no safetensors file but {found.kind}")
    if path.suffix in (".pt", ".pth", ".ts") and found.kind in ("zip", "unknown", "ONNX"):
        problems.append("is no file of PyTorch's")
    return problems + _extras(path)


def _extras(path: Path) -> list[str]:
    try:
        extras = extra_files(path)
    except (OSError, ValueError, zipfile.BadZipFile, RuntimeError):
        return ["an extra file in it cannot be read"]
    problems = []
    for name, text in extras.items():
        short = name.partition("extra/")[2]
        if not short.endswith(".json"):
            problems.append(f"the extra file {short} is no JSON")
            continue
        try:
            content = parse_json(text, short)
        except ConfigError as error:
            problems.append(str(error))
            continue
        found = _inert(content) if short == "metadata.json" else lint_content(content)
        problems += [f"{short}: {problem}" for problem in found]
    return problems
