"""A file of lines that is only ever added to, and whose lines are each there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from msrf_monai.errors import StorageError
from msrf_monai.files import Closing

__all__ = ["LineFile", "line_at", "whole_lines"]

_PIECE = 4096


def whole_lines(file: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file with the place where each begins, without a last one that was cut short.

    Args:
        file: open for reading in binary mode, at its beginning.
    """
    place = 0
    for line in file:
        if not line.endswith(b"\n"):
            return  # it may be whole by the next read, which would then take its rest for a line
        yield place, line[:-1]
        place += len(line)


def line_at(descriptor: int, place: int) -> bytes:
    """Return the line that begins at a place of a file, without its end; several threads may do so at once."""
    found = b""
    while b"\n" not in found[-_PIECE:]:
        piece = os.pread(descriptor, _PIECE, place + len(found))
        if not piece:
            break
        found += piece
    return found.partition(b"\n")[0]


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
                self._size = self._whole()
                os.ftruncate(self._descriptor, self._size)
            except BaseException:
                os.close(self._descriptor)
                raise
        except OSError as error:
            raise self._failed(error) from error

    @property
    def content(self) -> bytes:
        """All of its lines; they are read now, and not kept."""
        with self._reading() as handle:
            return handle.read()

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield its lines as ``whole_lines`` does; only one is in memory at a time, and none may be added meanwhile."""
        with self._reading() as handle:
            yield from whole_lines(handle)

    def line(self, place: int) -> bytes:
        """Return the line that begins at a place; see ``line_at``."""
        return line_at(self._descriptor, place)

    def append(self, line: bytes) -> int:
        """Add a line and wait until it is on the disk.

        Args:
            line: without its end.

        Returns:
            The place where it begins.

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
        return self._size - len(data)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _reading(self) -> IO[bytes]:
        handle = os.fdopen(os.dup(self._descriptor), "rb")
        handle.seek(0)
        return handle

    def _whole(self) -> int:
        """Return the size up to the end of the last whole line."""
        end = os.fstat(self._descriptor).st_size
        while end > 0:
            begin = max(0, end - _PIECE)
            last = os.pread(self._descriptor, end - begin, begin).rfind(b"\n")
            if last >= 0:
                return begin + last + 1
            end = begin
        return 0

    def _failed(self, error: OSError) -> StorageError:
        return StorageError(
            f"cannot write {self._path}: {error.strerror or error}; its lines before stay. "
            "Free some space or give this user the right to write there, then run again with --resume"
        )
