"""What the header of a picture's file says of its pixels, which decoders do not tell, do not check, or read wrongly.

Pillow gives 8 bits of 16-bit colour. It leaves rows of a TIFF black for which there is no strip or tile, and OpenCV
fills them with whatever lay in memory. Both give other pixels than are stored for 16 bits plane by plane, and Pillow
swaps the bytes of compressed 32-bit numbers of big-endian files. Tags as in TIFF 6.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

__all__ = ["has_all_pieces", "is_deep_colour", "is_turned_by_opencv", "stored_size", "why_unreadable"]

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _ORIENTATION = 256, 257, 258, 259, 274
_STRIPS, _SAMPLES, _ROWS_OF_STRIP, _PLANAR = 273, 277, 278, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES = 322, 323, 324
_PLAIN, _OLD_JPEG = 1, 6


def has_all_pieces(image: Image.Image) -> bool:
    """Tell whether a TIFF has as many strips or tiles as its picture needs.

    Args:
        image: as Pillow opened it; other formats than TIFF have all pieces.

    Raises:
        KeyError, TypeError, ValueError: when the tags give no size of the picture or of its pieces.
    """
    tags = _tags(image)
    if tags.get(_COMPRESSION) == _OLD_JPEG:
        return True  # one stream, whatever the tags say; its decoder finds out by itself
    if _STRIPS in tags:
        given = len(tags[_STRIPS])
        needed = _pieces(tags[_HEIGHT], tags.get(_ROWS_OF_STRIP, tags[_HEIGHT]))
    elif _TILES in tags:
        given = len(tags[_TILES])
        needed = _pieces(tags[_HEIGHT], tags[_TILE_HEIGHT]) * _pieces(tags[_WIDTH], tags[_TILE_WIDTH])
    else:
        return True
    return bool(given >= needed * (tags[_SAMPLES] if _is_in_planes(tags) else 1))


def why_unreadable(image: Image.Image) -> str:
    """Return why the pixels of a whole TIFF would be read wrongly, and what to do, or nothing when they are not.

    Args:
        image: as Pillow opened it; of other formats than TIFF nothing is said.
    """
    tags = _tags(image)
    if _is_in_planes(tags) and 16 in tags.get(_BITS, ()):
        return "16 bits stored plane by plane cannot be read; save it interleaved"
    is_big = bool(tags) and image.tag_v2.prefix == b"MM"  # type: ignore[attr-defined]
    if is_big and image.mode in ("I", "F") and tags.get(_COMPRESSION, _PLAIN) != _PLAIN:
        return "compressed big-endian numbers of this kind cannot be read; save it little-endian or uncompressed"
    return ""


def is_turned_by_opencv(image: Image.Image) -> bool:
    """Tell whether OpenCV turns the picture upright though told not to, as it does by the tag of a TIFF alone.

    Args:
        image: as Pillow opened it; nothing of it has been decoded yet, for that takes the tag away.
    """
    return _tags(image).get(_ORIENTATION) in range(1, 9)


def is_deep_colour(image: Image.Image, data: bytes) -> bool:
    """Tell whether a PNG or TIFF has colours of 16 bits a channel, of which Pillow gives 8; no other format has.

    Args:
        image: as Pillow opened it.
        data: the file's bytes.
    """
    if image.mode not in ("RGB", "RGBA"):
        return False
    return data[24] == 16 if image.format == "PNG" else 16 in _tags(image).get(_BITS, ())


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Return the rows and columns that a file stores.

    Args:
        image: as Pillow opened it; it gives the size of a TIFF as it is after turning, and of other formats as stored.
    """
    tags = _tags(image)
    return (int(tags[_HEIGHT]), int(tags[_WIDTH])) if tags else (image.height, image.width)


def _tags(image: Image.Image) -> Mapping[int, Any]:
    return image.tag_v2 if image.format == "TIFF" else {}  # type: ignore[attr-defined]


def _is_in_planes(tags: Mapping[int, Any]) -> bool:
    return bool(tags.get(_PLANAR) == 2 and tags.get(_SAMPLES, 1) > 1)


def _pieces(length: int, of: int) -> int:
    if of < 1:
        raise ValueError(f"a strip or tile of {of} pixels")
    return -(-length // of)
