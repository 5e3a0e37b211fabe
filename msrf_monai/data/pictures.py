"""Pictures and masks as they lie on disk: opened, fully decoded, turned upright, and refused with a reason."""

from __future__ import annotations

import gzip
import io
import struct
import warnings
import zlib
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
    "PACKED_SUFFIX",
    "PICTURE_SUFFIXES",
    "Picture",
    "encode_png",
    "large_pictures_allowed",
    "read_bytes",
    "read_instances",
    "read_mask",
    "read_picture",
    "read_rgb",
]

PICTURE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
PACKED_SUFFIX = ".gz"
"""Suffix of files that are packed one by one, as STARE hands its pictures out."""

MAX_PIXELS = 2**27
"""Largest picture that is decoded: 134 million pixels, that is 11 585 x 11 585 or 400 MB as RGB."""

MAX_UNCLEAR_SHARE = 0.02
"""Share of a mask's pixels that may lie between 33 and 222 of 255: the rims that JPEG or resampling blur."""

_ORIENTATION_TAG = 0x0112
_KEPT_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})
_SCALED_FORMATS = frozenset({"PNG", "PPM"})
"""Formats whose values Pillow brings to the scale 0..65535, even where it stores them in 32 bits."""

# Broken metadata makes Pillow fail in ways that it does not catch itself: a missing tag, a number of the wrong kind, ….
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, AttributeError, OverflowError),
    *(struct.error, zlib.error),
)


@dataclass(frozen=True)
class Picture:
    """A picture that was decoded without an error.

    Attributes:
        height_px: rows, after the EXIF orientation was applied.
        width_px: columns, after the EXIF orientation was applied.
        replacement: the pixels when the bytes must not be used as they are, else None: grey (H, W) of dtype uint8 or
            uint16, or RGB (H, W, 3) of dtype uint8.
        reason: why the bytes must not be used as they are, or an empty string.
    """

    height_px: int
    width_px: int
    replacement: NDArray[np.uint8] | NDArray[np.uint16] | None
    reason: str


def read_picture(content: bytes, path: Path) -> Picture:
    """Decode a picture completely and say whether its bytes can be kept as they are.

    Bytes are kept for upright grey, palette and RGB pictures of 8 or 16 bits, with and without alpha: what becomes of
    alpha and of 16 bits is decided by ``LoadImage2D`` alone, so that training and inference see the same. Pictures
    with an EXIF orientation and those with CMYK or other colour models get a replacement, since other programs read
    them differently. Its pixels are those that ``LoadImage2D`` reads.

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
    if image.mode == "F":
        raise DataError(f"{path}: has 32-bit floating-point values; expected 8 or 16 bits a channel")
    if _is_wide(image):
        _check_range(image, path)
    elif image.mode not in _KEPT_MODES:
        reasons.append(f"{image.mode} colours")
    return Picture(image.height, image.width, _as_loaded(content, path) if reasons else None, ", ".join(reasons))


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file, unpacked where its name ends in .gz.

    Args:
        path: the file.

    Returns:
        The bytes.

    Raises:
        DataError: when a packed file is damaged, or larger than an RGB picture of ``MAX_PIXELS`` pixels of 16 bits.
        OSError: when the file cannot be read.
    """
    if path.suffix.lower() != PACKED_SUFFIX:
        return path.read_bytes()
    limit = 6 * MAX_PIXELS + 2**20
    try:
        with gzip.open(path) as packed:
            content = packed.read(limit + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be unpacked ({error}); the file is damaged: get it again") from error
    if len(content) > limit:
        raise DataError(f"{path}: unpacks to more than {limit} bytes; expected a single picture")
    return content


def read_mask(content: bytes, path: Path) -> NDArray[np.bool_]:
    """Decode a binary mask.

    A mask with the values 0 and one other, whatever that is, is taken as it stands. Otherwise the values must lie near
    0 and near full scale, as they do after JPEG compression, and are cut at half scale (above 127 of 255). Colours are
    turned to grey first; alpha is left out, unless nothing but alpha shows a shape, which is an error.

    Args:
        content: the bytes of the file.
        path: where they come from, for the message of an error.

    Returns:
        The mask as bool, (H, W), upright.

    Raises:
        DataError: when the file cannot be decoded (see ``read_picture``), is not binary, or has its shape in alpha.
    """
    image, _ = _decode(content, path)
    if image.mode == "F":
        raise DataError(f"{path}: has 32-bit floating-point values; expected a mask of 0 and 255")
    if _is_wide(image):
        return _binary(_wide_values(image, path), path)
    values = np.asarray(image.convert("L"))
    if values.min() == values.max() and _alpha_varies(image):
        raise DataError(
            f"{path}: has one grey level and a shape in its alpha channel only; expected the mask in the grey levels: "
            "save the alpha channel as a grey picture"
        )
    return _binary(values, path)


def read_instances(content: bytes, path: Path) -> NDArray[np.bool_]:
    """Decode a mask whose values number its objects; 0 is the background.

    Args:
        content: the bytes of the file.
        path: where they come from, for the message of an error.

    Returns:
        Where any object is, bool, (H, W), upright. Of a palette picture the numbers count, not the colours; a colour
        picture is background where it is black.

    Raises:
        DataError: when the file cannot be decoded (see ``read_picture``), or its values are no whole numbers.
    """
    image, _ = _decode(content, path)
    if image.mode == "F":
        raise DataError(f"{path}: has 32-bit floating-point values; expected whole numbers of objects")
    if image.mode in ("1", "L", "P") or _is_wide(image):
        return np.asarray(np.asarray(image) != 0, np.bool_)
    return np.asarray(np.asarray(image.convert("RGB")).any(axis=2), np.bool_)


def read_rgb(content: bytes, path: Path) -> NDArray[np.uint8]:
    """Decode a picture to the 8-bit colours that are seen.

    Args:
        content: the bytes of the file.
        path: where they come from, for the message of an error.

    Returns:
        RGB, uint8, (H, W, 3), upright; of 16 bits the upper 8.

    Raises:
        DataError: when the file cannot be decoded (see ``read_picture``).
    """
    pixels = _as_loaded(content, path)
    if pixels.dtype == np.uint16:
        pixels = (pixels // 257).astype(np.uint8)
    return np.asarray(np.broadcast_to(pixels[..., None], (*pixels.shape, 3)) if pixels.ndim == 2 else pixels, np.uint8)


def encode_png(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Return (H, W) grey pixels, uint8 or uint16, or (H, W, 3) RGB pixels, uint8, as the bytes of a PNG file."""
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
        turned = image.getexif().get(_ORIENTATION_TAG, 1) in range(2, 9)
        image.load()
        upright = ImageOps.exif_transpose(image)
        upright.format = image.format  # which a turned copy does not have
        return upright, turned
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


def _check_range(image: Image.Image, path: Path) -> None:
    """Refuse values for which no file format says which one is white, as the loader does."""
    if image.mode != "I" or image.format in _SCALED_FORMATS:
        return
    values = np.asarray(image)
    smallest, largest = int(values.min()), int(values.max())
    if smallest < 0 or largest > 255:
        raise DataError(
            f"{path}: has 32-bit or signed values from {smallest} to {largest}; expected 8 or 16 bits without a sign: "
            "save it as 16-bit PNG"
        )


def _alpha_varies(image: Image.Image) -> bool:
    if "A" not in image.getbands() and "transparency" not in image.info:
        return False
    smallest, largest = image.convert("RGBA").getchannel("A").getextrema()
    return smallest != largest


def _as_loaded(content: bytes, path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return the pixels as ``LoadImage2D`` takes them from the file: grey or RGB, upright, 16 bits kept as 16."""
    # Imported here: it brings MONAI, for which the many data sets without such pictures need not wait.
    from msrf_monai.transforms.raster import read_raster

    loaded = read_raster(content, str(path), max_pixels=MAX_PIXELS)
    rows = loaded.rows * np.uint8(255) if loaded.white == 1 else loaded.rows
    flat = rows[..., 0] if rows.shape[2] == 1 else rows
    is_deep = rows.dtype != np.uint8 and loaded.white is not None
    return flat.astype(np.uint16) if is_deep else flat.astype(np.uint8)


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
