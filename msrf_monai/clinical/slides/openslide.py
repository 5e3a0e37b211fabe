"""Slides in makers' own formats (NDPI, MIRAX, VMS, SCN, …): their levels and tiles, read through OpenSlide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.reading import RefusalCode, RefusedInput
from msrf_monai.clinical.slides.files import SlideFile
from msrf_monai.clinical.slides.levels import LevelPixels, SlideInfo, SlideLevel, Tile, plausible_mpp
from msrf_monai.clinical.slides.limits import SlideLimits
from msrf_monai.clinical.slides.makers import MakersSlide
from msrf_monai.errors import MissingExtraError
from msrf_monai.optional import require

__all__ = ["NamedFile", "OpenSlideTiles", "open_makers_levels"]

_TILE = 512
"""Side of the squares that are asked for: OpenSlide puts them together from whatever is stored."""


class NamedFile(SlideFile):
    """A file that OpenSlide opens again by its name, so that a file put in its place counts as a change too."""

    def _stat(self) -> tuple[int, int, int]:
        own = super()._stat()
        try:
            named = self.path.stat()
        except OSError:
            return 0, 0, 0
        return own if own == (named.st_ino, named.st_size, named.st_mtime_ns) else (0, 0, 0)


class OpenSlideTiles:
    """The tiles of one level.

    Args:
        handle: the slide as OpenSlide has opened it.
        level: the level's number there.
        known: its size.
        scale: how many pixels of the finest level one pixel is wide.
    """

    def __init__(self, handle: Any, level: int, known: SlideLevel, scale: float) -> None:
        self._handle = handle
        self._level = level
        self._known = known
        self._scale = scale

    def tile(self, row: int, column: int) -> Tile | None:
        """Decode one square; see ``LevelPixels``."""
        top, left = row * _TILE, column * _TILE
        rows, columns = min(_TILE, self._known.rows - top), min(_TILE, self._known.columns - left)
        place = round(left * self._scale), round(top * self._scale)
        try:
            pixels = np.asarray(self._handle.read_region(place, self._level, (columns, rows)))
        except Exception as error:  # its messages name files
            raise RefusedInput(
                RefusalCode.DECODE_FAILED,
                f"the pixels of row {row}, column {column} of level {self._level} cannot be decoded "
                f"({type(error).__name__}); copy all files of the slide again",
            ) from None
        if not pixels[..., 3].any():
            return None
        whole = np.full((_TILE, _TILE, 3), 255, np.uint8)
        whole[:rows, :columns] = _on_white(pixels)
        return whole


def open_makers_levels(
    slide: MakersSlide, files: Sequence[SlideFile], limits: SlideLimits
) -> tuple[SlideInfo, tuple[LevelPixels, ...], Any]:
    """Open a slide in a maker's format.

    Args:
        slide: what it is.
        files: its files, open, so that they are known to be regular and within the limits; the first is its own.
        limits: bounds.

    Returns:
        What is known of it, the tiles of each level, and OpenSlide's handle, which the caller closes.

    Raises:
        RefusedInput: ``decoder_missing`` without OpenSlide; ``unsupported``, ``bad_header``, ``too_many_pixels`` or
            ``too_many_frames``.
    """
    library = _library(slide.vendor)
    path = files[0].path
    if library.OpenSlide.detect_format(path) != slide.vendor:
        raise RefusedInput(
            RefusalCode.UNSUPPORTED,
            f"the slide looks like one of {slide.vendor}, and OpenSlide does not know it; export it as DICOM or SVS",
        )
    with ExitStack() as opened:
        try:
            handle = opened.enter_context(library.OpenSlide(path))
            sizes, scales = handle.level_dimensions, handle.level_downsamples
            properties = handle.properties
        except library.OpenSlideError:  # its messages name files
            raise RefusedInput(
                RefusalCode.BAD_HEADER,
                f"OpenSlide cannot open this slide of {slide.vendor}: it is damaged, or files of it are missing; "
                "copy all of its files again",
            ) from None
        levels = _levels(sizes, scales, properties, limits)
        opened.pop_all()
    info = SlideInfo("openslide", levels, mpp=levels[0].mpp, photometric="RGB", is_lossy=True, maker=slide.vendor)
    tiles = [OpenSlideTiles(handle, number, known, scales[number]) for number, known in enumerate(levels)]
    return info, tuple(tiles), handle


def _library(vendor: str) -> Any:
    try:
        return require("openslide", "openslide")
    except (MissingExtraError, OSError):
        raise RefusedInput(
            RefusalCode.DECODER_MISSING,
            f"slides of {vendor} are read through OpenSlide, which is not installed; "
            "run: pip install 'msrf-monai[openslide]'",
        ) from None


def _levels(
    sizes: Sequence[tuple[int, int]], scales: Sequence[float], properties: Mapping[str, str], limits: SlideLimits
) -> tuple[SlideLevel, ...]:
    if len(sizes) > limits.levels:
        raise RefusedInput(
            RefusalCode.TOO_MANY_FRAMES, f"the slide has {len(sizes)} levels, more than the limit of {limits.levels}"
        )
    mpp = plausible_mpp(*(_number(properties.get(f"openslide.mpp-{axis}", "")) for axis in "yx"))
    found = []
    for number, ((columns, rows), scale) in enumerate(zip(sizes, scales, strict=True)):
        # what is decoded at once is the stored tile, which may be a whole picture
        stored = [_number(properties.get(f"openslide.level[{number}].tile-{side}", "")) for side in ("height", "width")]
        height, width = (int(max(1, side)) for side in stored)
        limits.check_level(height, width, height, width)
        limits.check_level(rows, columns, _TILE, _TILE)
        scaled = mpp and (mpp[0] * scale, mpp[1] * scale)
        found.append(SlideLevel(rows, columns, _TILE, _TILE, scaled))
    return tuple(found)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _on_white(pixels: npt.NDArray[np.uint8]) -> Tile:
    """Lay RGBA on white: what is transparent has not been scanned."""
    colours, alpha = pixels[..., :3], pixels[..., 3:]
    if (alpha == 255).all():
        return np.ascontiguousarray(colours)
    weight = alpha.astype(np.uint16)
    mixed = (colours * weight + 255 * (255 - weight) + 127) // 255
    return mixed.astype(np.uint8)
