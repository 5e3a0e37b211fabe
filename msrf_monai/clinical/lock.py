"""One run at a time in a result folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msrf_monai.errors import StorageError

__all__ = ["LOCK", "hold"]

LOCK = ".lock"
"""Name of the file in the result folder; it stays behind, the lock itself ends with the process."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a folder for this process while the block runs; however the process ends, the system lets go of it.

    Args:
        folder: a folder that exists; it gets a file with the process's number.

    Raises:
        StorageError: when another process holds it, or the file cannot be made.
    """
    path = folder / LOCK
    try:
        # not truncated before it is held: the number in it may be another run's
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror}; choose a result folder that this user may write to"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            number = os.read(descriptor, 20).decode("ascii", "replace").strip()
            raise StorageError(
                f"another run{f' (process {number})' if number.isdigit() else ''} is writing to {folder}; "
                "wait until it has ended, or choose another result folder"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
