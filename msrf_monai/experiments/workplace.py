"""The folder of an experiment: one at a time works in it, and always with the same options."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msrf_monai.errors import InputError, StorageError
from msrf_monai.json_files import write_json
from msrf_monai.runtime import versions

__all__ = ["digest_of", "workplace"]

SETTINGS_NAME = "experiment.json"
LOCK_NAME = ".lock"
_FORMAT = 1


def digest_of(content: Any) -> str:
    """Return the SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextmanager
def workplace(
    output: Path, options: Mapping[str, Any], *, resume: bool = True, what: str = "cross-validation"
) -> Iterator[int]:
    """Take hold of the folder of an experiment and note its options.

    The lock is inherited by the processes that train, so that it also holds while one of them has outlived a killed
    parent.

    Args:
        output: folder, made when missing.
        options: what decides the results; those under "variants" by name, since variants may come and go.
        resume: go on in a folder that holds an experiment with the same options; False refuses every used folder.
        what: what the folder is for, in words; used in messages.

    Yields:
        The file descriptor of the lock.

    Raises:
        InputError: when the folder is in use, holds something else, or an experiment with other options.
        StorageError: when something cannot be written.
    """
    path = output / SETTINGS_NAME
    if output.is_dir() and any(child.name != LOCK_NAME for child in output.iterdir()) and not path.is_file():
        raise InputError(f"{output}: is not empty and holds no {what}; choose another folder")
    if path.is_file() and not resume:
        raise InputError(f"{output}: holds a {what}; choose another folder, or resume it")
    lock = _take_lock(output, what)
    try:
        known = _read(path, what) if path.is_file() else {}
        changes = _changes(known, options)
        if changes:
            raise InputError(
                f"{output}: holds a {what} with other options ({'; '.join(changes)}); "
                "choose another folder, or give the same options"
            )
        variants = {**known.get("variants", {}), **options.get("variants", {})}
        record = {"format": _FORMAT, "versions": versions(), "options": {**options, "variants": variants}}
        write_json(path, record)
        yield lock
    finally:
        os.close(lock)


def _take_lock(output: Path, what: str) -> int:
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = os.open(output / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise StorageError(f"cannot write {output}: {error.strerror or error}; choose another folder") from error
    try:
        with suppress(OSError):  # a drive that knows no locks
            _lock(lock, output, what)
    except InputError:
        os.close(lock)
        raise
    return lock


def _lock(descriptor: int, output: Path, what: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"{output}: another {what}, or a training that it left behind, is at work here; wait for its end or end it"
        ) from None


def _read(path: Path, what: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        options = content["options"]
        if content["format"] != _FORMAT or not isinstance(options, dict):
            raise ValueError("another format")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no record of a {what} ({error}); choose another folder") from error
    return options


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Name what differs: files by their names only, other options with both values."""
    changes = []
    for key in sorted(old.keys() | new.keys()) if old else ():
        before, now = old.get(key), new.get(key)
        if before == now:
            continue
        if not (isinstance(before, dict) and isinstance(now, dict)):
            changes.append(f"{key} was {_shown(before)}, is {_shown(now)}")
            continue
        names = before.keys() & now.keys() if key == "variants" else before.keys() | now.keys()
        for name in sorted(name for name in names if before.get(name) != now.get(name)):
            values = f" was {_shown(before.get(name))}, is {_shown(now.get(name))}"
            changes.append(f"{name} has changed" if key in ("variants", "configs") else f"{key} {name}{values}")
    return changes


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:40]}…" if len(text) > 40 else text
