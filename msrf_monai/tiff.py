"""What a TIFF file's tags say of its pieces, which decoders do not hold against the size of the picture.

Pillow leaves rows black for which an uncompressed file has no strip or tile, and OpenCV fills them with whatever lay in
memory; OpenCV also gives wrong pixels for 16-bit colour that is stored plane by plane. Tags as in TIFF 6.0.
"""

from __future__ import annotations

from typing import Any

from PIL import Image

__all__ = ["has_all_pieces", "is_in_planes", "stored_size"]

_WIDTH, _HEIGHT, _SAMPLES, _ROWS_OF_STRIP, _PLANAR = 256, 257, 277, 278, 284
_STRIPS, _TILE_WIDTH, _TILE_HEIGHT, _TILES = 273, 322, 323, 324


def has_all_pieces(image: Image.Image) -> bool:
    """Tell whether a TIFF has as many strips or tiles as its picture needs.

    Args:
        image: as Pillow opened it; other formats than TIFF have all pieces.

    Raises:
        KeyError, TypeError, ValueError: when the tags give no size of the picture or of its pieces.
    """
    tags = _tags(image)
    if _TILES in tags:
        given = len(tags[_TILES])
        needed = _pieces(tags[_HEIGHT], tags[_TILE_HEIGHT]) * _pieces(tags[_WIDTH], tags[_TILE_WIDTH])
    elif _STRIPS in tags:
        given = len(tags[_STRIPS])
        needed = _pieces(tags[_HEIGHT], tags.get(_ROWS_OF_STRIP, tags[_HEIGHT]))
    else:
        return True
    return bool(given >= needed * (tags.get(_SAMPLES, 1) if is_in_planes(image) else 1))


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Return the rows and columns that a file stores.

    Args:
        image: as Pillow opened it; it gives the size of a TIFF as it is after turning, and of other formats as stored.
    """
    tags = _tags(image)
    return (int(tags[_HEIGHT]), int(tags[_WIDTH])) if tags else (image.height, image.width)


def is_in_planes(image: Image.Image) -> bool:
    """Tell whether a TIFF stores its colours one after the other instead of pixel by pixel.

    Args:
        image: as Pillow opened it; for other formats than TIFF the answer is no.
    """
    return bool(_tags(image).get(_PLANAR) == 2)


def _tags(image: Image.Image) -> dict[int, Any]:
    return dict(image.tag_v2) if image.format == "TIFF" else {}  # type: ignore[attr-defined]


def _pieces(length: int, of: int) -> int:
    if of < 1:
        raise ValueError(f"a strip or tile of {of} pixels")
    return -(-length // of)
