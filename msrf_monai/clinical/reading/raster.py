"""PNG, JPEG, TIFF, BMP, PPM, GIF and WebP files as cases: what each kind of pixel becomes is said, not guessed.

==================  ===========================================================================
stored              given
==================  ===========================================================================
1 bit               ``(H, W)`` uint8, 0 and 1; white is 1
8-bit grey          ``(H, W)`` uint8
16-bit grey         ``(H, W)`` uint16
float, 32-bit grey  ``(H, W)`` float32, no white
palette             RGB of the colours, uint8
RGB                 uint8 or uint16
RGBA                RGB, alpha dropped without blending, note ``alpha_dropped``
grey and alpha      refused (``has_alpha``) unless ``convert_unusual``: which grey is meant is unknown
CMYK                refused (``cmyk``) unless ``convert_unusual``: the colours depend on a profile
several pages       refused
==================  ===========================================================================

The EXIF orientation is applied, and ``ImageInfo.exif_orientation`` says which it was: masks are turned back by it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from msrf_monai.clinical.case import Case, ImageInfo
from msrf_monai.clinical.reading.limits import Limits
from msrf_monai.clinical.reading.png import has_all_pixels, is_interlaced_png, is_upright_png
from msrf_monai.clinical.reading.refusal import RefusalCode, RefusedInput
from msrf_monai.clinical.reading.regular import digest_of, read_regular
from msrf_monai.stored_pixels import has_all_pieces, is_deep_colour, stored_size, why_unreadable

__all__ = ["RasterPixels", "open_raster"]

_ORIENTATION = 0x0112
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "PPM", "GIF", "WEBP")
_GREY = ("L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N", "I", "F", "1")

DType = Literal["uint8", "uint16", "float32"]


@dataclass(frozen=True)
class _Header:
    format: str
    mode: str
    orientation: int
    is_deep_colour: bool
    is_clear: bool
    """Parts of the picture may be transparent."""
    size: tuple[int, int]
    """Rows and columns as stored."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows and columns of the upright picture, and its channels."""
        rows, columns = self.size[::-1] if self.orientation >= 5 else self.size
        return rows, columns, 1 if self.mode in _GREY else 3

    @property
    def dtype(self) -> DType:
        if self.is_deep_colour or self.mode.startswith("I;16") or (self.mode == "I" and self.format in ("PNG", "PPM")):
            return "uint16"
        return "float32" if self.mode in ("I", "F") else "uint8"

    @property
    def white(self) -> float | None:
        if self.mode == "1":
            return 1.0
        return {"uint8": 255.0, "uint16": 65535.0, "float32": None}[self.dtype]


class RasterPixels:
    """The pixels of one raster file; raises ``changed`` when the file is no longer the one that was opened."""

    def __init__(self, path: Path, digest: str, limits: Limits, header: _Header) -> None:
        self._path = path
        self._digest = digest
        self._limits = limits
        self._header = header
        self._data: bytes | None = None

    def keep(self, data: bytes) -> None:
        """Hold the file's bytes until they are decoded."""
        self._data = data

    def frame(self, index: int) -> npt.NDArray[Any]:
        """Decode the picture; see ``Case.frame``."""
        data, self._data = self._data, None
        if data is None:
            data = read_regular(self._path, self._limits)
            if digest_of(data) != self._digest:
                raise RefusedInput(RefusalCode.CHANGED, "the file has changed since it was opened; run again")
        # here, because that room loads torch, which who only looks at headers can do without
        from msrf_monai.transforms.raster import read_raster

        with _refusing(data):
            rows = read_raster(data, "the picture", max_pixels=self._limits.frame_pixels).rows
        if rows.shape != self._header.shape:
            raise RefusedInput(
                RefusalCode.DECODE_FAILED, "the picture is of another size than its header says; export it again"
            )
        if self._header.format == "PNG" and _may_lack_rows(rows, self._header, data) and not has_all_pixels(data):
            raise RefusedInput(
                RefusalCode.TRUNCATED, "the picture's pixels end before its last row; copy or export the file again"
            )
        rows = rows if rows.shape[2] == 3 else rows[..., 0]
        return np.ascontiguousarray(rows.astype(self._header.dtype, copy=False))


def open_raster(
    path: Path,
    limits: Limits | None = None,
    *,
    data: bytes | None = None,
    convert_unusual: bool = False,
    keep: bool = True,
) -> Case:
    """Open one picture.

    Args:
        path: the file.
        limits: bounds; default ``Limits()``.
        data: its bytes, when they have been read already.
        convert_unusual: take grey with alpha as grey, and CMYK by the plain formula, instead of refusing them.
        keep: hold the file's bytes in memory until the picture has been decoded.

    Returns:
        The case. Nothing is decoded yet.

    Raises:
        RefusedInput: ``unknown_format``, ``unsupported`` (pages, rare modes), ``too_many_pixels``, ``truncated``,
            ``decode_failed``, ``has_alpha`` or ``cmyk``, and as ``read_regular``.
    """
    limits = limits or Limits()
    data = read_regular(path, limits) if data is None else data
    with _refusing(data):
        header = _read_header(data, limits)
    _check_mode(header, convert_unusual)
    rows, columns, samples = header.shape
    digest = digest_of(data)
    pixels = RasterPixels(path, digest, limits, header)
    if keep:
        pixels.keep(data)
    info = ImageInfo(
        kind="raster",
        rows=rows,
        columns=columns,
        samples=samples,
        dtype=header.dtype,
        photometric=header.mode,
        white=header.white,
        exif_orientation=header.orientation,
        is_lossy=header.format in ("JPEG", "MPO", "WEBP"),
        notes=("alpha_dropped",) if header.is_clear else (),
    )
    return Case(digest, (path,), info, pixels)


def _may_lack_rows(rows: npt.NDArray[Any], header: _Header, data: bytes) -> bool:
    """Tell whether the last row is as Pillow leaves those that a file does not have: 0, or a palette's first colour.

    It says nothing when the compressed pixels end early. Inflating all of them to find out costs half as much as
    decoding does, so it is done only then, and where the last row that is stored may be any.
    """
    if header.orientation != 1 or is_interlaced_png(data):
        return True
    last = rows[-1]
    return bool((last == last[:1]).all()) if header.mode == "P" else not last.any()


@contextmanager
def _refusing(data: bytes) -> Iterator[None]:
    try:
        yield
    except RefusedInput:
        raise
    except Image.DecompressionBombError:
        raise RefusedInput(
            RefusalCode.TOO_MANY_PIXELS, "the picture is larger than Pillow's own limit, PIL.Image.MAX_IMAGE_PIXELS"
        ) from None
    except Exception as error:  # Pillow raises nearly anything for broken metadata
        if _is_cut(data):
            raise RefusedInput(
                RefusalCode.TRUNCATED, "the picture is cut short: its end is missing; copy or export the file again"
            ) from None
        raise RefusedInput(
            RefusalCode.DECODE_FAILED,
            f"the picture is damaged ({type(error).__name__}); copy or export the file again",
        ) from None


def _is_cut(data: bytes) -> bool:
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-64:]
    return data.startswith(b"\xff\xd8") and b"\xff\xd9" not in data[-64:]


def _read_header(data: bytes, limits: Limits) -> _Header:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        rows, columns = stored_size(image)
        limits.check_size(rows, columns)
        if not has_all_pieces(image):
            raise RefusedInput(
                RefusalCode.TRUNCATED, "rows of the picture are not in the file; copy or export the file again"
            )
        unreadable = why_unreadable(image)
        if unreadable:
            raise RefusedInput(RefusalCode.UNSUPPORTED, unreadable)
        # a telephone's MPO file is a JPEG with further views behind it: the first one is the picture
        if image.format not in ("JPEG", "MPO") and _has_second_page(image):
            raise RefusedInput(
                RefusalCode.UNSUPPORTED, "the file holds several pages or frames; save the wanted one by itself"
            )
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        # Pillow decodes a PNG down to its end to look for an orientation there
        is_upright = image.format == "PNG" and is_upright_png(data)
        orientation = 1 if is_upright else image.getexif().get(_ORIENTATION, 1)
        return _Header(
            str(image.format),
            image.mode,
            orientation if orientation in range(1, 9) else 1,
            is_deep_colour(image, data),
            image.mode in ("RGBA", "PA", "LA", "La") or "transparency" in image.info,
            (rows, columns),
        )


def _has_second_page(image: Image.Image) -> bool:
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def _check_mode(header: _Header, convert_unusual: bool) -> None:
    if header.mode not in (*_GREY, "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"):
        raise RefusedInput(RefusalCode.UNSUPPORTED, f"pictures of mode {header.mode} cannot be read; save it as RGB")
    if header.mode in ("LA", "La") and not convert_unusual:
        raise RefusedInput(
            RefusalCode.HAS_ALPHA,
            "grey with transparency has no one meaning; save it as plain grey, or allow conversion",
        )
    if header.mode == "CMYK" and not convert_unusual:
        raise RefusedInput(
            RefusalCode.CMYK, "CMYK is made for printing and has no one RGB; save it as RGB, or allow conversion"
        )
