"""``run.json``: what ran, with which versions, settings and seed, so that a result can be traced and repeated."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from msrf_monai.errors import StorageError
from msrf_monai.files import sha256_of, write_text
from msrf_monai.runtime import versions

__all__ = ["finish_manifest", "git_commit", "is_main_process", "write_manifest"]

_log = logging.getLogger(__name__)

MANIFEST_NAME = "run.json"
PREVIOUS_NAME = "run.previous.json"
_PLAIN = (str, int, float, bool, type(None))


def write_manifest(
    output_dir: str | os.PathLike[str],
    *,
    config: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    argv: list[str] | None = None,
    seed: int | None = None,
    device: Any = None,
    bundle_root: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
) -> Path | None:
    """Write ``run.json`` into a run's output folder, whole or not at all, from the main process only.

    The record of a finished run is kept as ``run.previous.json``, since the new run may not come to its end.

    Args:
        output_dir: folder of the run's results; made when missing.
        config: the merged config, unevaluated; values that are not plain JSON are written as their type's name.
        overrides: what the command line changed in it.
        argv: the command line.
        seed: the seed of the run, None when it was left unseeded.
        device: the device of the run; None records whether CUDA is there.
        bundle_root: folder of the bundle; the commit of the checkout around it is recorded.
        weights: a checkpoint that the run starts from; its SHA-256 is recorded when the file exists.

    Returns:
        The path of the file, or None in the other processes of a distributed run.

    Raises:
        StorageError: when the file cannot be written.
    """
    if not is_main_process():
        return None
    manifest = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "git_commit": git_commit(bundle_root) if bundle_root is not None else None,
        "device": str(device) if device is not None else ("cuda" if torch.cuda.is_available() else "cpu"),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "seed": seed,
        "weights_sha256": sha256_of(weights) if weights is not None and Path(weights).is_file() else None,
        "argv": argv,
        "overrides": _plain(overrides),
        "config": _plain(config),
    }
    path = Path(output_dir) / MANIFEST_NAME
    _keep_finished(path)
    write_text(path, json.dumps(manifest, indent=4) + "\n")
    return path


def finish_manifest(output_dir: str | os.PathLike[str]) -> None:
    """Add the end of the run and its wall time in seconds to ``run.json``; for a config's ``finalize`` list.

    Args:
        output_dir: the folder that ``write_manifest`` wrote to.

    Raises:
        StorageError: when the file is missing, is not a manifest, or cannot be written.
    """
    if not is_main_process():
        return
    path = Path(output_dir) / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        started = datetime.fromisoformat(manifest["started"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{path} is not the record of a run that has begun ({error}); call prepare_run first"
        ) from error
    now = datetime.now(UTC)
    manifest["finished"] = now.isoformat(timespec="seconds")
    manifest["wall_time_s"] = round((now - started).total_seconds(), 1)
    write_text(path, json.dumps(manifest, indent=4) + "\n")


def is_main_process() -> bool:
    """Say whether this process is the only one, or rank 0 of a distributed run (initialised or about to be)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank() == 0
    return os.environ.get("RANK", "0") == "0"


def git_commit(folder: str | os.PathLike[str]) -> str | None:
    """Return the commit that a folder's checkout stands on, read from ``.git`` without running git; None outside one.

    Args:
        folder: a folder inside a checkout, or anywhere else.
    """
    here = Path(folder).resolve()
    for place in (here, *here.parents):
        mark = place / ".git"
        try:
            if mark.is_file():  # a worktree or a submodule: the file points to the real folder
                mark = (place / mark.read_text(encoding="utf-8").removeprefix("gitdir:").strip()).resolve()
            if (mark / "HEAD").is_file():
                return _head(mark)
        except (OSError, UnicodeDecodeError) as error:
            _log.debug("cannot read the git folder %s: %s", mark, error)
            return None
    return None


def _keep_finished(path: Path) -> None:
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # none, or none that says what ran
    if not isinstance(old, dict) or "finished" not in old:
        return
    try:
        path.replace(path.with_name(PREVIOUS_NAME))
    except OSError as error:
        raise StorageError(
            f"cannot keep {path} as {PREVIOUS_NAME}: {error.strerror or error}; choose another output_dir"
        ) from error


def _head(git: Path) -> str | None:
    head = (git / "HEAD").read_text(encoding="utf-8").strip()
    if not head.startswith("ref:"):
        return head or None
    name = head.removeprefix("ref:").strip()
    common = git / "commondir"
    root = (git / common.read_text(encoding="utf-8").strip()).resolve() if common.is_file() else git
    for reference in (git / name, root / name):
        if reference.is_file():
            return reference.read_text(encoding="utf-8").strip()
    packed = root / "packed-refs"
    lines = packed.read_text(encoding="utf-8").splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), None)


def _plain(value: Any) -> Any:
    """Turn any value into what JSON holds; an object becomes its type's name, never its contents."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return f"<{type(value).__module__}.{type(value).__qualname__}>"
