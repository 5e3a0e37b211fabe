"""What a compressed frame says about itself: size, components and depth, read from its first header alone.

A decoder allocates by this header and not by DICOM's: a frame of 3 kB can claim a gigabyte.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["CodestreamHeader", "codestream_header"]

_SOF = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7})
_BARE = frozenset({0x01, *range(0xD0, 0xDA)})
_JP2 = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_J2K = b"\xff\x4f\xff\x51"


@dataclass(frozen=True)
class CodestreamHeader:
    """The claims of one frame."""

    rows: int
    columns: int
    components: int
    precision: int
    """Bits of the deepest component."""
    is_jfif: bool = False
    """A JFIF marker is there, so three components mean YCbCr."""
    adobe_transform: int | None = None
    """Adobe's marker: 0 for RGB, 1 for YCbCr; None without it."""


def codestream_header(frame: bytes) -> CodestreamHeader | None:
    """Read the header of a JPEG, JPEG-LS, JPEG 2000 or HTJ2K frame.

    Args:
        frame: one whole frame, fragments joined.

    Returns:
        What it claims; None when the bytes are none of these, or the header is broken.
    """
    try:
        if frame[:2] == b"\xff\xd8":
            return _jpeg(frame)
        start = 0 if frame[:4] == _J2K else _codestream_box(frame)
        return _jpeg_2000(frame, start) if start is not None else None
    except (struct.error, IndexError):
        return None


def _jpeg(frame: bytes) -> CodestreamHeader | None:
    position, is_jfif, adobe = 2, False, None
    while position + 4 <= len(frame):
        if frame[position] != 0xFF:
            return None
        marker = frame[position + 1]
        if marker == 0xFF or marker in _BARE:
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", frame, position + 2)
        body = frame[position + 4 : position + 2 + length]
        if marker in _SOF:
            precision, rows, columns, components = struct.unpack_from(">BHHB", body)
            return CodestreamHeader(rows, columns, components, precision, is_jfif, adobe)
        is_jfif = is_jfif or (marker == 0xE0 and body[:4] == b"JFIF")
        if marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            adobe = body[11]
        position += 2 + length
    return None


def _codestream_box(frame: bytes) -> int | None:
    """Return where the codestream of a JP2 file begins; the boxes before it are stepped over, not searched."""
    if frame[:12] != _JP2:
        return None
    position = 12
    while position + 8 <= len(frame):
        length, kind = struct.unpack_from(">I4s", frame, position)
        if kind == b"jp2c":
            return position + (16 if length == 1 else 8)
        if length < 8:
            return None
        position += length
    return None


def _jpeg_2000(frame: bytes, start: int) -> CodestreamHeader | None:
    if frame[start : start + 4] != _J2K:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", frame, start + 8)
    (components,) = struct.unpack_from(">H", frame, start + 40)
    depths = [(frame[start + 42 + 3 * index] & 0x7F) + 1 for index in range(components)]
    return CodestreamHeader(bottom - top, right - left, components, max(depths, default=0))
