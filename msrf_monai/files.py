"""Files that appear whole or not at all, and their digests."""

from __future__ import annotations

import hashlib
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from msrf_monai.errors import StorageError

__all__ = ["Closing", "atomic_write", "sha256_of", "storing", "umask", "write_bytes", "write_text"]


class Closing(ABC):
    """What can be closed, and is at the end of a ``with`` block."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn what the system says against writing into a ``StorageError`` that names the file."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; nothing was changed there. "
            "Free some space or choose another folder, then run again."
        ) from error


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path`` that replaces it when, and only when, the block ends without an error.

    The folder is made when it is missing. The data is flushed and synced to the disk before the replacement, so that
    after a crash or a power cut the reader finds the old file or the new one, never a part of one.

    Args:
        path: the file to write.

    Yields:
        A binary file object open for writing.

    Raises:
        StorageError: when the operating system cannot make, write, sync or rename the file (disk full, no
            permission, …). The old file, if any, is untouched and no temporary file stays.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=".part", dir=path.parent)
            temporary = Path(name)
            with os.fdopen(descriptor, "wb") as handle:
                os.fchmod(handle.fileno(), 0o666 & ~umask())
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
            temporary = None
            # The file is in place by now: a folder that cannot be synced (some network drives) must not fail the save.
            with suppress(OSError):
                _sync_folder(path.parent)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` to ``path`` whole or not at all; raises ``StorageError`` as ``atomic_write`` does."""
    with atomic_write(path) as handle:
        handle.write(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Write ``content`` as UTF-8 to ``path`` whole or not at all; raises ``StorageError`` as ``atomic_write`` does."""
    write_bytes(path, content.encode("utf-8"))


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the hexadecimal SHA-256 digest of a file, read in pieces."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def umask() -> int:
    """Return the permission bits that new files and folders of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Sync the folder's entry where the system offers it, so that the rename itself survives a power cut."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
