"""A slide's file: opened once, read in pieces at given places, and held against what it was when it was opened."""

from __future__ import annotations

import hashlib
import io
import os
from abc import abstractmethod
from pathlib import Path

from msrf_monai.clinical.reading import RefusalCode, RefusedInput
from msrf_monai.clinical.reading.regular import read_head
from msrf_monai.clinical.slides.limits import SlideLimits
from msrf_monai.files import Closing

__all__ = ["BoundedReader", "SeekableReader", "SlideFile"]

_PIECE = 1 << 22


class SlideFile(Closing):
    """A regular file that stays open, so that every tile comes from the same one.

    Args:
        path: the file.
        limits: its size is held against ``limits.file_bytes``.

    Raises:
        RefusedInput: as ``msrf_monai.clinical.reading`` refuses files: ``missing``, ``permission_denied``,
            ``link_loop``, ``not_regular_file``, ``empty_file``, ``too_large`` or ``io_error``.
    """

    def __init__(self, path: Path, limits: SlideLimits) -> None:
        self.path = path
        self.head = read_head(path, limits.of_file)
        self._handle = _open(path)
        self._state = self._stat()
        self.size = self._state[1]

    def read(self, position: int, size: int) -> bytes:
        """Read exactly ``size`` bytes.

        Args:
            position: where they begin.
            size: how many.

        Raises:
            RefusedInput: ``truncated`` when the file ends before, ``io_error`` when the system cannot read it.
        """
        if position < 0 or size < 0 or position + size > self.size:
            raise RefusedInput(
                RefusalCode.TRUNCATED, "the file ends before what its header points to; copy or export it again"
            )
        try:
            self._handle.seek(position)
            data = self._handle.read(size)
        except OSError as error:
            raise RefusedInput(
                RefusalCode.IO_ERROR, f"the system cannot read the file ({os.strerror(error.errno or 5)})"
            ) from None
        if len(data) != size:
            raise _changed()
        return data

    def check_unchanged(self) -> None:
        """Refuse the file (``changed``) when it has been written to since it was opened."""
        if self._stat() != self._state:
            raise _changed()

    def digest(self) -> str:
        """Return the hexadecimal SHA-256 of the file, read in pieces; raises as ``read`` does."""
        whole = hashlib.sha256()
        for position in range(0, self.size, _PIECE):
            whole.update(self.read(position, min(_PIECE, self.size - position)))
        return whole.hexdigest()

    def close(self) -> None:
        """Close the file; it cannot be read afterwards."""
        self._handle.close()

    def _stat(self) -> tuple[int, int, int]:
        status = os.fstat(self._handle.fileno())
        return status.st_ino, status.st_size, status.st_mtime_ns


class SeekableReader(io.RawIOBase):
    """What streams for reading share: a place that moves."""

    name = ""
    """Libraries ask for one, and keep it: better none than a path."""

    def __init__(self) -> None:
        super().__init__()
        self._position = 0

    @abstractmethod
    def _end(self) -> int:
        """Return the place behind the last byte."""

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, as every stream does."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._end()}[whence]
        self._position = max(0, start + offset)
        return self._position


class BoundedReader(SeekableReader):
    """A file as a stream that gives so many bytes and no more, for parsers that cannot be told to stop.

    Args:
        file: the file.
        limit: how many bytes may be read in all.
    """

    def __init__(self, file: SlideFile, limit: int) -> None:
        super().__init__()
        self._file = file
        self._left = limit

    def _end(self) -> int:
        return self._file.size

    def readinto(self, buffer: object) -> int:
        """Fill ``buffer`` as far as the file goes; refuses (``too_large``) when the limit has been read."""
        view = memoryview(buffer)  # type: ignore[arg-type]
        size = max(0, min(len(view), self._file.size - self._position))
        self._left -= size
        if self._left < 0:
            raise RefusedInput(
                RefusalCode.TOO_LARGE, "the header is larger than the limit; raise header_bytes if that is meant"
            )
        view[:size] = self._file.read(self._position, size)
        self._position += size
        return size


def _open(path: Path) -> io.BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise RefusedInput(
            RefusalCode.IO_ERROR, f"the system cannot open the file ({os.strerror(error.errno or 5)})"
        ) from None


def _changed() -> RefusedInput:
    return RefusedInput(RefusalCode.CHANGED, "the file has changed since it was opened; run again")
