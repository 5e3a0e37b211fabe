"""PNG, JPEG, TIFF, BMP, PPM, GIF and WebP files as pixels.

Pillow opens every file and decides what it is. Plain 8-bit JPEG and PNG files, which are nearly all there are, are then
decoded by OpenCV, which gives the same pixels in a third of the time; a test compares the two on real images.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from msrf_monai.errors import DataError
from msrf_monai.orientation import upright
from msrf_monai.stored_pixels import has_all_pieces, is_deep_colour, is_turned_by_opencv, why_unreadable
from msrf_monai.transforms.picture import Picture

__all__ = ["DEFAULT_MAX_PIXELS", "Palette", "read_raster"]

DEFAULT_MAX_PIXELS = 89_478_485
"""Largest width times height read by default: Pillow's own limit for a decompression bomb (about 9459 x 9459)."""

Palette = Literal["colour", "index"]

_ORIENTATION = 0x0112
# Broken metadata makes Pillow fail in ways that it does not catch itself: a missing tag, a number of the wrong kind, ….
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, OverflowError, TypeError, AttributeError),
    *(struct.error, zlib.error),
)
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_PLAIN = {
    b"IHDR",
    b"IDAT",
    b"IEND",
    b"pHYs",
    b"tEXt",
    b"zTXt",
    b"iTXt",
    b"tIME",
    b"sRGB",
    b"gAMA",
    b"cHRM",
    b"bKGD",
}
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PNG_ORIENTED = (b"exif\0", b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""Keywords of the texts in which programs put EXIF and XMP."""


def read_raster(
    data: bytes, name: str, *, max_pixels: int = DEFAULT_MAX_PIXELS, palette: Palette = "colour"
) -> Picture:
    """Decode one image.

    Modes become: 1, L, I;16, I, F -> one channel; LA, La -> one channel, alpha dropped; RGB, and P, PA, RGBA, RGBX,
    CMYK, YCbCr, LAB, HSV converted by Pillow -> three channels, alpha dropped without blending. 16-bit images keep
    their 16 bits, in colour too. The EXIF orientation is applied.

    Args:
        data: the file's bytes.
        name: the file, for errors.
        max_pixels: largest allowed width times height; more than twice Pillow's own limit
            (``PIL.Image.MAX_IMAGE_PIXELS``) needs that raised too.
        palette: what a palette image (mode P) gives: the ``"colour"`` looked up, or the ``"index"`` stored.

    Returns:
        The pixels, ``(H, W, 1)`` or ``(H, W, 3)`` of dtype uint8, uint16, int32 or float32.

    Raises:
        DataError: when the bytes are no image, are cut short or damaged, hold no pixel or several frames, or are larger
            than ``max_pixels``.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            _check(image, name, max_pixels)
            return _decode(image, data, palette)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name} is not an image in a format that can be read; check what the file really is"
        ) from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{name} is refused as too large: {error}") from error
    except (*_DAMAGE, cv2.error) as error:
        raise DataError(f"{name} is cut short or damaged ({error}); copy or export the file again") from error


def _check(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height == 0:
        raise DataError(f"{name} has no pixels: its size is {width} x {height}")
    if width * height > max_pixels:
        raise DataError(
            f"{name} is refused as too large: {width} x {height} pixels are more than max_pixels={max_pixels}; "
            "raise max_pixels if the file is meant to be that large"
        )
    # a telephone's MPO file is a JPEG with further views behind it: the first one is the picture
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1:
        raise DataError(
            f"{name} holds {frames} frames, and one 2-D image was expected; save the wanted frame by itself"
        )
    if not has_all_pieces(image):
        raise DataError(f"{name} is cut short: rows of its picture are not in the file; copy or export the file again")
    unreadable = why_unreadable(image)
    if unreadable:
        raise DataError(f"{name}: {unreadable}")


def _decode(image: Image.Image, data: bytes, palette: Palette) -> Picture:
    kind = image.format  # asked before the image is turned, for the copy does not have it
    is_lossy = kind in ("JPEG", "MPO", "WEBP", "JPEG2000")
    rows = _decode_fast(image, data)
    if rows is not None:
        return Picture(rows, 255.0, is_lossy)
    if is_deep_colour(image, data):
        return Picture(_decode_deep(image, data), 65535.0)
    image.load()
    image = ImageOps.exif_transpose(image)
    mode = image.mode
    if mode == "P" and palette == "index":
        return Picture(_array(image), None)
    if mode == "1":
        return Picture(_array(image).astype(np.uint8), 1.0)
    if mode.startswith("I;16"):
        return Picture(_array(image).astype(np.uint16), 65535.0)
    if mode in ("I", "F"):
        # Pillow before 11.3 gives 16-bit PNG files as mode I, and PGM files are brought to the scale 0..65535 in it
        return Picture(_array(image), 65535.0 if mode == "I" and kind in ("PNG", "PPM") else None)
    if mode in ("L", "LA", "La"):
        return Picture(_array(image.getchannel(0)), 255.0, is_lossy)
    return Picture(_array(image.convert("RGB")), 255.0, is_lossy)


def _decode_deep(image: Image.Image, data: bytes) -> npt.NDArray[np.uint16]:
    """Return the pixels of 16-bit colour, of which Pillow would keep 8 bits."""
    # OpenCV turns the picture itself where the tag of a TIFF says how, though told not to, and never else
    left_to_turn = 1 if is_turned_by_opencv(image) else image.getexif().get(_ORIENTATION, 1)
    image.load()  # it finds what is cut short, and OpenCV does not
    rows = _imdecode(data, cv2.IMREAD_ANYDEPTH, is_grey=False)
    if rows is None or rows.dtype != np.uint16:
        raise ValueError("16-bit colour could not be decoded; save it as 8-bit RGB")
    return upright(rows, left_to_turn)


def _array(image: Image.Image) -> npt.NDArray[Any]:
    pixels = np.array(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _decode_fast(image: Image.Image, data: bytes) -> npt.NDArray[np.uint8] | None:
    """Return the pixels of a plain, whole 8-bit JPEG or PNG file, or None for Pillow to decode or to refuse it."""
    if image.format == "JPEG":
        if image.mode not in ("L", "RGB") or image.getexif().get(_ORIENTATION, 1) != 1 or not _is_whole_jpeg(data):
            return None
    elif image.format != "PNG" or image.mode not in ("L", "RGB", "RGBA") or not _is_plain_png(data):
        return None
    return _imdecode(data, 0, is_grey=image.mode == "L")


def _imdecode(data: bytes, depth: int, *, is_grey: bool) -> npt.NDArray[Any] | None:
    buffer = np.frombuffer(data, np.uint8)
    if is_grey:
        rows = cv2.imdecode(buffer, depth | cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
        return None if rows is None else rows[..., None]
    rows = cv2.imdecode(buffer, depth | cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if rows is None else cv2.cvtColor(rows, cv2.COLOR_BGR2RGB, dst=rows)


def _is_whole_jpeg(data: bytes) -> bool:
    """Tell whether the scan is followed by an end marker, which entropy-coded data cannot contain."""
    scan = data.find(b"\xff\xda")
    return scan > 0 and data.rfind(b"\xff\xd9") > scan


def _is_plain_png(data: bytes) -> bool:
    """Tell whether a PNG is whole, 8 bits deep, not interlaced, and holds no chunk that changes what is shown."""
    header = data[24:29]
    if not data.startswith(_PNG_SIGNATURE) or len(header) < 5 or header[0] != 8 or header[4] != 0:
        return False
    position = len(_PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind not in _PNG_PLAIN or end > len(data):
            return False
        if kind in _PNG_TEXTS and data.startswith(_PNG_ORIENTED, position + 8):
            return False  # it may say how to turn the picture
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return False
        if kind == b"IEND":
            return True
        position = end
    return False
