"""A file of lines that is only ever added to, and whose lines are each there whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from msrf_monai.errors import StorageError
from msrf_monai.files import Closing

__all__ = ["LineFile"]


class LineFile(Closing):
    """A file open for adding lines, each on the disk before ``append`` returns.

    Args:
        path: the file; made when missing. A last line without its end, left by ``kill -9`` or a full disk, is cut off.
        mode: permissions of a new file, before the umask.

    Raises:
        StorageError: when the file cannot be opened or written.
    """

    def __init__(self, path: Path, mode: int = 0o666) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, mode)
            try:
                self.content = self._read()
                """The whole lines that it held when it was opened."""
                self._size = len(self.content)
                os.ftruncate(self._descriptor, self._size)
            except BaseException:
                os.close(self._descriptor)
                raise
        except OSError as error:
            raise self._failed(error) from error

    def append(self, line: bytes) -> None:
        """Add a line and wait until it is on the disk.

        Args:
            line: without its end.

        Raises:
            StorageError: when the disk is full or fails; the lines before stay whole.
        """
        data = line + b"\n"
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._descriptor, data[written:], self._size + written)
            os.fsync(self._descriptor)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise self._failed(error) from error
        self._size += len(data)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _read(self) -> bytes:
        with os.fdopen(os.dup(self._descriptor), "rb") as handle:
            content = handle.read()
        return content[: content.rfind(b"\n") + 1]

    def _failed(self, error: OSError) -> StorageError:
        return StorageError(
            f"cannot write {self._path}: {error.strerror or error}; its lines before stay. "
            "Free some space or give this user the right to write there, then run again with --resume"
        )
