"""Pictures and masks as they lie on disk: opened, fully decoded, turned upright, and refused with a reason."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from msrf_monai.errors import DataError

__all__ = [
    "MAX_PIXELS",
    "PICTURE_SUFFIXES",
    "Picture",
    "encode_png",
    "large_pictures_allowed",
    "read_mask",
    "read_picture",
]

PICTURE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
MAX_PIXELS = 2**27
"""Largest picture that is decoded: 134 million pixels, that is 11 585 x 11 585 or 400 MB as RGB."""

MAX_UNCLEAR_SHARE = 0.02
"""Share of a mask's pixels that may lie between 33 and 222 of 255: the rims that JPEG or resampling blur."""

_ORIENTATION_TAG = 0x0112
_PLAIN_MODES = frozenset({"1", "L", "P", "RGB"})
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError)


@dataclass(frozen=True)
class Picture:
    """A picture that was decoded without an error.

    Attributes:
        height_px: rows, after the EXIF orientation was applied.
        width_px: columns, after the EXIF orientation was applied.
        replacement: the picture as 8-bit RGB (H, W, 3) when its bytes must not be used as they are, else None.
        reason: why the bytes must not be used as they are, or an empty string.
    """

    height_px: int
    width_px: int
    replacement: NDArray[np.uint8] | None
    reason: str


def read_picture(content: bytes, path: Path) -> Picture:
    """Decode a picture completely and say whether its bytes can be kept as they are.

    Bytes are kept for upright 8-bit grey, palette and RGB pictures and for those with an alpha channel that is opaque
    everywhere. All others get a replacement: pixels turned upright by their EXIF orientation, CMYK and other colour
    models converted to RGB, transparent pixels laid over black, and 16-bit values divided by the full scale of the
    smallest of 8, 10, 12, 14 or 16 bits that holds the largest value of the picture.

    Args:
        content: the bytes of the file.
        path: where they come from, for the message of an error.

    Returns:
        Size, and the replacement where one is needed.

    Raises:
        DataError: when the file is empty, is no picture, is damaged, has several frames, has values that are neither 8
            nor 16 bits wide, or has more than ``MAX_PIXELS`` pixels.
    """
    image, turned = _decode(content, path)
    reasons = ["EXIF orientation"] if turned else []
    pixels: Image.Image | NDArray[np.uint8] = image
    if _is_wide(image):
        reasons.append("16-bit values")
        pixels = _narrow(_wide_values(image, path))
    elif "A" in image.getbands() or "transparency" in image.info:
        colours = image.convert("RGBA")
        if colours.getchannel("A").getextrema() != (255, 255):
            reasons.append("transparent pixels")
            pixels = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), colours)
    elif image.mode == "F":
        raise DataError(f"{path}: has 32-bit floating-point values; expected 8 or 16 bits a channel")
    elif image.mode not in _PLAIN_MODES:
        reasons.append(f"{image.mode} colours")
    return Picture(image.height, image.width, _as_rgb(pixels) if reasons else None, ", ".join(reasons))


def read_mask(content: bytes, path: Path) -> NDArray[np.bool_]:
    """Decode a binary mask.

    A mask with the values 0 and one other, whatever that is, is taken as it stands. Otherwise the values must lie near
    0 and near full scale, as they do after JPEG compression, and are cut at half scale (above 127 of 255). Colours are
    turned to grey first; alpha is left out.

    Args:
        content: the bytes of the file.
        path: where they come from, for the message of an error.

    Returns:
        The mask as bool, (H, W), upright.

    Raises:
        DataError: when the file cannot be decoded (see ``read_picture``) or is not binary.
    """
    image, _ = _decode(content, path)
    if image.mode == "F":
        raise DataError(f"{path}: has 32-bit floating-point values; expected a mask of 0 and 255")
    values = _wide_values(image, path) if _is_wide(image) else np.asarray(image.convert("L"))
    return _binary(values, path)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return (H, W) grey or (H, W, 3) RGB uint8 pixels as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


@contextmanager
def large_pictures_allowed() -> Iterator[None]:
    """Silence Pillow's warning about large pictures inside the block, since ``MAX_PIXELS`` is the limit here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _decode(content: bytes, path: Path) -> tuple[Image.Image, bool]:
    """Return the decoded upright image and whether it had to be turned."""
    if not content:
        raise DataError(f"{path}: is an empty file; expected a picture")
    try:
        image: Image.Image = Image.open(io.BytesIO(content))
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
            frames = getattr(image, "n_frames", 1)
            raise DataError(f"{path}: has {frames} frames; expected a single picture: save the wanted frame alone")
        # Asked before the pixels are loaded: Pillow turns TIFF by itself on loading and drops the tag then.
        turned = image.getexif().get(_ORIENTATION_TAG, 1) not in (0, 1)
        image.load()
        return ImageOps.exif_transpose(image), turned
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: is not a picture that can be read") from error
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path}: has more than the {MAX_PIXELS} pixels that are allowed; tile it or make it smaller first"
        ) from error
    except DataError:
        raise
    except _DECODER_ERRORS as error:
        raise DataError(f"{path}: cannot be decoded ({error}); the file is damaged: get it again") from error


def _is_wide(image: Image.Image) -> bool:
    return image.mode.startswith("I")


def _wide_values(image: Image.Image, path: Path) -> NDArray[np.uint16]:
    values = np.asarray(image)
    if values.size and (int(values.min()) < 0 or int(values.max()) > 65535):
        raise DataError(
            f"{path}: has values from {values.min()} to {values.max()}; expected 8 or 16 bits without a sign"
        )
    return values.astype(np.uint16)


def _narrow(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    largest = int(values.max())
    full_scale = next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if largest < 2**bits)
    scaled: NDArray[np.uint8] = np.rint(values.astype(np.float32) * (255.0 / full_scale)).astype(np.uint8)
    return scaled


def _as_rgb(pixels: Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    return np.asarray(image.convert("RGB"))


def _binary(values: NDArray[np.uint8] | NDArray[np.uint16], path: Path) -> NDArray[np.bool_]:
    full_scale = int(np.iinfo(values.dtype).max)
    counts = np.bincount(values.ravel(), minlength=full_scale + 1)
    present = np.flatnonzero(counts)
    if present.size <= 2 and (present[0] == 0 or present[-1] == 1):
        return values > 0
    low, high = round(full_scale * 33 / 255), round(full_scale * 222 / 255)
    unclear = float(counts[low : high + 1].sum()) / values.size
    half = full_scale // 2
    if unclear > MAX_UNCLEAR_SHARE or present[-1] <= half:
        shown = ", ".join(str(value) for value in present[:6]) + (", …" if present.size > 6 else "")
        raise DataError(
            f"{path}: is not a binary mask: it has {present.size} values ({shown}), {unclear:.1%} of its pixels "
            f"between {low} and {high}; expected 0 and {full_scale}"
        )
    return values > half
