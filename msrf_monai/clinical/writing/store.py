"""Keep an object only when it has been read back and found to be what was meant."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msrf_monai.errors import StorageError
from msrf_monai.files import atomic_write

__all__ = ["Written", "write_verified"]


@dataclass(frozen=True)
class Written:
    """A result that is on the disk."""

    role: str
    """What it is: ``"seg"``, ``"sr"``, ``"mask"``, …."""
    path: Path
    sha256: str
    """Hexadecimal digest of the file."""
    instance_uid: str = ""
    """SOP instance UID; empty outside DICOM."""


def write_verified(
    path: str | os.PathLike[str],
    content: bytes,
    check: Callable[[bytes], None],
    *,
    role: str = "",
    instance_uid: str = "",
) -> Written:
    """Write a file beside its final name, sync it, read it back, check what was read, and only then rename it.

    Args:
        path: the final name.
        content: the bytes.
        check: raises an error when the bytes read back are not what was meant.
        role: what it is, for the answer.
        instance_uid: its UID, for the answer.

    Returns:
        What was written, with its digest.

    Raises:
        StorageError: when the disk refuses or gives back other bytes, or ``check`` does; what was there before stays,
            and no part of the new file does.
    """
    with atomic_write(path) as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
        kept = _read_all(handle.fileno())
        if kept != content:
            raise StorageError(f"{Path(path).name} came back from the disk changed; it was not kept. Check the disk")
        check(kept)
    return Written(role, Path(path), hashlib.sha256(content).hexdigest(), instance_uid)


def _read_all(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    content = bytearray()
    while part := os.pread(descriptor, min(size - len(content), 1 << 30), len(content)):
        content += part
    return bytes(content)
