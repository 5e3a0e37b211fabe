"""What a PNG file says of itself without being decoded: an orientation, and whether its pixels are all there."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

__all__ = ["has_all_pixels", "is_interlaced_png", "is_upright_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_ORIENTED = (b"exif\0", b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""Keywords of the texts in which programs put EXIF and XMP."""
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel, by the colour type."""
_PASSES = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
"""First row, step, first column, step of each pass of an interlaced picture."""
_PIECE = 1 << 18


def is_upright_png(data: bytes) -> bool:
    """Tell whether a PNG has its end, and no chunk on the way there that may hold an orientation (EXIF or XMP).

    Args:
        data: the file's bytes.
    """
    for kind, start, length in _chunks(data):
        if kind == b"eXIf" or (kind in _TEXTS and data.startswith(_ORIENTED, start, start + length)):
            return False
        if kind == b"IEND":
            return start + length + 4 <= len(data)
    return False


def is_interlaced_png(data: bytes) -> bool:
    """Tell whether the rows of a PNG, whose header has been read by a decoder, are stored in several passes."""
    return data[len(_SIGNATURE) + 20] != 0


def has_all_pixels(data: bytes) -> bool:
    """Tell whether the compressed pixels of a PNG become as many as its header says.

    They are inflated piece by piece and thrown away; no more is held than a piece.

    Args:
        data: the file's bytes; its header has been read by a decoder.
    """
    wanted = _stored_bytes(data)
    inflater = zlib.decompressobj()
    try:
        for kind, start, length in _chunks(data):
            if kind != b"IDAT":
                continue
            waiting = data[start : start + length]
            while waiting and wanted > 0 and not inflater.eof:
                wanted -= len(inflater.decompress(waiting, _PIECE))
                waiting = inflater.unconsumed_tail
        while wanted > 0 and (rest := inflater.decompress(inflater.unconsumed_tail, _PIECE)):
            wanted -= len(rest)
    except zlib.error:
        return False
    return wanted <= 0


def _stored_bytes(data: bytes) -> int:
    """Return how many bytes the rows have, each with the byte that names its filter."""
    columns, rows, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, len(_SIGNATURE) + 8)
    pixel = bits * _SAMPLES.get(colour, 1)
    if not interlaced:
        return int(rows * (1 + -(-columns * pixel // 8)))
    total = 0
    for top, down, left, right in _PASSES:
        high, wide = max(0, -(-(rows - top) // down)), max(0, -(-(columns - left) // right))
        # a pass without a column has no rows either
        total += high * (1 + -(-wide * pixel // 8)) if wide else 0
    return total


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each chunk, where its content begins, and its length; ends where the file does."""
    position = len(_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, position + 8, length
        position += 12 + length
