"""Multipart bodies of DICOMweb, read and written piece by piece."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from email.message import Message
from pathlib import Path

__all__ = ["MultipartFiles", "boundary_of", "first_part"]

_HEAD = 1 << 14
"""Bytes before a part's content, more than any header has."""
_PIECE = 1 << 16


def boundary_of(content_type: str) -> bytes | None:
    """Return the boundary of a multipart body, or None when the header does not speak of one."""
    message = Message()
    message["Content-Type"] = content_type.replace("\r", " ").replace("\n", " ")
    boundary = message.get_boundary() if message.get_content_maintype() == "multipart" else None
    if not boundary or len(boundary) > 200 or not boundary.isascii():
        return None
    return boundary.encode()


def first_part(pieces: Iterable[bytes], boundary: bytes) -> Iterator[bytes]:
    """Yield the content of a multipart body's first part; what comes behind it is not looked at.

    Args:
        pieces: of the body, cut anywhere.
        boundary: between the parts.

    Raises:
        EOFError: when the body ends before the part does.
        ValueError: when there is no part, or no end of its header.
    """
    delimiter, source = b"\r\n--" + boundary, iter(pieces)
    buffer = _behind(bytearray(b"\r\n"), delimiter, source)
    while len(buffer) < 2:
        buffer += _next(source)
    if buffer.startswith(b"--"):
        raise ValueError("no part")
    buffer = _behind(buffer, b"\r\n\r\n", source)
    while (end := buffer.find(delimiter)) < 0:
        # the last bytes may be the beginning of the delimiter
        ready = len(buffer) - len(delimiter) + 1
        if ready > 0:
            yield bytes(buffer[:ready])
            del buffer[:ready]
        buffer += _next(source)
    yield bytes(buffer[:end])


def _behind(buffer: bytearray, mark: bytes, source: Iterator[bytes]) -> bytearray:
    """Return what follows a mark that comes soon."""
    while (found := buffer.find(mark)) < 0:
        if len(buffer) > _HEAD:
            raise ValueError("no header")
        buffer += _next(source)
    return buffer[found + len(mark) :]


def _next(source: Iterator[bytes]) -> bytes:
    try:
        return next(source)
    except StopIteration:
        raise EOFError from None


class MultipartFiles:
    """DICOM files as the body of one request: its length is known before, and a piece at a time is in memory.

    Args:
        paths: the files.
        sizes: bytes of each; one that has changed since breaks the request off.
    """

    def __init__(self, paths: Sequence[Path], sizes: Sequence[int]) -> None:
        boundary = uuid.uuid4().hex
        self.content_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
        self._files = list(zip(paths, sizes, strict=True))
        self._head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        self._end = f"--{boundary}--\r\n".encode()

    def __len__(self) -> int:
        return sum(len(self._head) + size + 2 for _, size in self._files) + len(self._end)

    def __iter__(self) -> Iterator[bytes]:
        for path, size in self._files:
            yield self._head
            left = size
            with path.open("rb") as handle:
                while left:
                    piece = handle.read(min(left, _PIECE))
                    if not piece:
                        raise OSError("a file became shorter while it was sent")
                    left -= len(piece)
                    yield piece
            yield b"\r\n"
        yield self._end
