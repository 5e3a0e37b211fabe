"""What arrives of one object, kept while it arrives: small ones in memory, others on the inbox's disk."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any, Literal

__all__ = ["Failure", "Spool"]

_IN_MEMORY = 1 << 20
_PIECE = 1 << 20

Failure = Literal["", "too_large", "disk"]


class Spool(io.BytesIO):
    """A ``BytesIO`` that never holds more than a megabyte in memory, nor more than a limit at all.

    It is written to by one thread and then read by another. A write never raises: what goes wrong is kept in
    ``failure``, everything written is dropped, and so is all that follows.

    Args:
        largest: bytes that it may hold.
        scratch: opens a file for what is more than a megabyte.
    """

    def __init__(self, largest: int, scratch: Callable[[], IO[bytes]]) -> None:
        super().__init__()
        self._largest = largest
        self._scratch = scratch
        self._file: IO[bytes] | None = None
        self.size = 0
        """Bytes written so far, also those that were dropped."""
        self.failure: Failure = ""

    def write(self, data: Any) -> int:
        """Take the next bytes."""
        self.size += len(data)
        if self.size > self._largest:
            self._fail("too_large")
        if not self.failure:
            try:
                self._keep(data)
            except OSError:
                self._fail("disk")
        return len(data)

    def _keep(self, data: Any) -> None:
        if self._file is None and self.size > _IN_MEMORY:
            self._file = self._scratch()
            self._file.write(self.getvalue())
            self.truncate(0)
        if self._file is None:
            super().write(data)
        else:
            self._file.write(data)

    def _fail(self, failure: Failure) -> None:
        if not self.failure:
            self.failure = failure
            self.truncate(0)
            self._close_file()

    def pieces(self) -> Iterator[bytes]:
        """Yield everything from the beginning."""
        source: Any = self._file or self
        source.seek(0)
        while piece := source.read(_PIECE):
            yield piece

    def head(self, size: int) -> bytes:
        """Return the first bytes."""
        source: Any = self._file or self
        source.seek(0)
        return bytes(source.read(size))

    def close(self) -> None:
        """Give back memory and disk."""
        self._close_file()
        super().close()

    def _close_file(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):  # what could not be flushed to a full disk is not wanted any more
                file.close()
