"""Whole slides: one door for DICOM, SVS, tiled TIFF and makers' formats, and regions of any level as RGB."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Protocol

import numpy as np

from msrf_monai.clinical.reading import Limits, RefusalCode, RefusedInput
from msrf_monai.clinical.reading.dicom_header import is_dicom
from msrf_monai.clinical.reading.quiet import quiet_pydicom, refusing_bad_headers
from msrf_monai.clinical.slides.dicom import WsiFile, open_dicom_levels, read_wsi_header, series_of
from msrf_monai.clinical.slides.files import SlideFile
from msrf_monai.clinical.slides.levels import LevelPixels, SlideInfo, SlideKind, Tile
from msrf_monai.clinical.slides.limits import SlideLimits
from msrf_monai.clinical.slides.makers import MakersSlide, makers_slide
from msrf_monai.clinical.slides.openslide import NamedFile, open_makers_levels
from msrf_monai.clinical.slides.tiff import open_tiff_levels
from msrf_monai.clinical.slides.tiff_structure import is_tiff
from msrf_monai.errors import InputError
from msrf_monai.files import Closing

__all__ = ["GLASS", "Slide", "open_slide", "slide_kind"]


class SupportsClose(Protocol):
    """Something that is open."""

    def close(self) -> None:
        """Close it."""
        ...  # pragma: no cover


GLASS = 255
"""What lies outside of a slide, and where it has no tile: white, as empty glass."""


class Slide(Closing):
    """An open whole slide. Its tiles are read by one thread at a time.

    Args:
        info: what is known of it.
        pixels: the tiles of each level.
        files: its files, kept open; the first is the finest level's.
        cache_bytes: decoded tiles to keep.
        handles: what else is to be closed with it.
    """

    def __init__(
        self,
        info: SlideInfo,
        pixels: Sequence[LevelPixels],
        files: Sequence[SlideFile],
        cache_bytes: int,
        handles: Sequence[SupportsClose] = (),
    ) -> None:
        self.info = info
        self._pixels = tuple(pixels)
        self._files = tuple(files)
        self._handles = tuple(handles)
        self._cache: OrderedDict[tuple[int, int, int], Tile] = OrderedDict()
        self._held = 0
        self.cache_bytes = cache_bytes

    @property
    def sources(self) -> tuple[Path, ...]:
        """Its files: one a level for DICOM; for makers' formats that by which it was opened comes first."""
        return tuple(file.path for file in self._files)

    def digest(self) -> str:
        """Return the SHA-256 (hexadecimal) of the file, or of its files' digests from the finest level on."""
        digests = [file.digest() for file in self._files]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def check_unchanged(self) -> None:
        """Refuse the slide (``changed``) when one of its files has been written to since it was opened."""
        for file in self._files:
            file.check_unchanged()

    def read_region(self, level: int, top: int, left: int, rows: int, columns: int) -> Tile:
        """Read a rectangle of one level.

        Args:
            level: 0 is the finest.
            top: its first row in the level's pixels; rows and columns outside of the level are white.
            left: its first column.
            rows: its height.
            columns: its width.

        Returns:
            RGB ``(rows, columns, 3)`` uint8; the caller may write into it.

        Raises:
            InputError: when there is no such level, or the rectangle is empty.
            RefusedInput: when a tile is damaged.
        """
        if not 0 <= level < len(self.info.levels) or rows < 1 or columns < 1:
            raise InputError(
                f"a region of {rows} x {columns} pixels of level {level} was asked for; the slide has the levels 0 to "
                f"{len(self.info.levels) - 1}, and a region has at least one pixel"
            )
        known = self.info.levels[level]
        region = np.full((rows, columns, 3), GLASS, dtype=np.uint8)
        bottom, right = min(top + rows, known.rows), min(left + columns, known.columns)
        for row in range(max(top, 0) // known.tile_rows, -(-bottom // known.tile_rows)):
            for column in range(max(left, 0) // known.tile_columns, -(-right // known.tile_columns)):
                tile = self._tile(level, row, column)
                if tile is not None:
                    y, x = row * known.tile_rows, column * known.tile_columns
                    y0, y1 = max(y, top, 0), min(y + known.tile_rows, bottom)
                    x0, x1 = max(x, left, 0), min(x + known.tile_columns, right)
                    region[y0 - top : y1 - top, x0 - left : x1 - left] = tile[y0 - y : y1 - y, x0 - x : x1 - x]
        return region

    def close(self) -> None:
        """Close its files and forget its tiles."""
        self._cache.clear()
        for each in (*self._handles, *self._files):
            each.close()

    def _tile(self, level: int, row: int, column: int) -> Tile | None:
        key = (level, row, column)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        tile = self._pixels[level].tile(row, column)
        if tile is not None:
            self._cache[key] = tile
            self._held += tile.nbytes
            while self._held > self.cache_bytes and len(self._cache) > 1:
                self._held -= self._cache.popitem(last=False)[1].nbytes
        return tile


def open_slide(path: str | os.PathLike[str], limits: SlideLimits | None = None) -> Slide:
    """Open a whole slide; what it is, its content decides.

    Args:
        path: an SVS or tiled TIFF file, a DICOM file of a slide (the other files of its series that lie beside it are
            its levels), a folder with the DICOM files of one slide, or the file in a maker's format by which OpenSlide
            opens it, such as that of a MIRAX slide that lies beside its folder.
        limits: bounds; default ``SlideLimits()``.

    Returns:
        The slide; nothing is decoded yet. Close it, or use it in a ``with`` block.

    Raises:
        RefusedInput: when it cannot or may not be read, with a stable code.
    """
    path, limits = Path(path), limits or SlideLimits()
    if path.is_dir():
        return _open_dicom(_files_of_slide(path, None, limits), limits)
    with ExitStack() as opened:
        file = opened.enter_context(SlideFile(path, limits))
        if is_dicom(file.head):
            series = series_of(path, limits)
            paths = _files_of_slide(path.parent, series, limits) if series else [path]
            return _open_dicom(paths, limits)
        makers = makers_slide(file, limits)
        if makers is not None:
            return _open_makers(path, makers, limits)
        if not is_tiff(file.head):
            raise RefusedInput(
                RefusalCode.UNKNOWN_FORMAT,
                "the file is neither DICOM nor TIFF nor in a maker's format that is known, so it is no slide that can "
                "be read; export it as DICOM or SVS",
            )
        info, pixels = open_tiff_levels(file, limits)
        opened.pop_all()
    return Slide(info, pixels, [file], limits.cache_bytes)


def slide_kind(path: str | os.PathLike[str], limits: SlideLimits | None = None) -> SlideKind | None:
    """Tell whether a file is a slide rather than a picture or another DICOM object.

    Args:
        path: any file.
        limits: bounds; default ``SlideLimits()``.

    Returns:
        ``"dicom-wsi"`` for a VL Whole Slide Microscopy Image; ``"openslide"`` for a maker's format, whether OpenSlide
        is installed or not; ``"tiff"`` for a tiled TIFF that has several levels or is too large for a picture
        (``Limits().frame_pixels``); None for everything else, and for what cannot be read.
    """
    path, limits = Path(path), limits or SlideLimits()
    try:
        with SlideFile(path, limits) as file:
            if is_dicom(file.head):
                return "dicom-wsi" if series_of(path, limits) else None
            if makers_slide(file, limits) is not None:
                return "openslide"
            if not is_tiff(file.head):
                return None
            levels = open_tiff_levels(file, limits)[0].levels
    except RefusedInput:
        return None
    is_large = levels[0].rows * levels[0].columns > Limits().frame_pixels
    return "tiff" if is_large or len(levels) > 1 else None


def _open_makers(path: Path, makers: MakersSlide, limits: SlideLimits) -> Slide:
    with ExitStack() as opened:
        files = [opened.enter_context(NamedFile(each, limits)) for each in (path, *makers.companions)]
        info, pixels, handle = open_makers_levels(makers, files, limits)
        opened.enter_context(closing(handle))
        slide = Slide(info, pixels, files, limits.cache_bytes, [handle])
        slide.check_unchanged()
        opened.pop_all()
    return slide


def _files_of_slide(folder: Path, series: str | None, limits: SlideLimits) -> list[Path]:
    """Return the DICOM files of one series in a folder, or of the only series that it holds."""
    try:
        paths = sorted((entry for entry in folder.iterdir() if entry.is_file()), key=os.fsencode)
    except OSError as error:
        raise RefusedInput(
            RefusalCode.PERMISSION_DENIED, f"the folder cannot be listed ({os.strerror(error.errno or 5)})"
        ) from None
    found = {path: series_of(path, limits) for path in paths}
    wanted = {one for one in found.values() if one} if series is None else {series}
    if len(wanted) != 1:
        raise RefusedInput(
            RefusalCode.UNSUPPORTED if wanted else RefusalCode.NOT_DICOM,
            f"the folder holds {len(wanted)} DICOM slides, and one was expected; give one of its files",
        )
    chosen = [path for path, one in found.items() if one in wanted]
    if len(chosen) > limits.levels:
        raise RefusedInput(
            RefusalCode.TOO_MANY_FRAMES, f"{len(chosen)} files are more than the limit of {limits.levels} a slide"
        )
    return chosen


def _open_dicom(paths: Sequence[Path], limits: SlideLimits) -> Slide:
    with ExitStack() as opened, quiet_pydicom(), refusing_bad_headers():
        files: list[WsiFile] = []
        for path in paths:
            files.append(read_wsi_header(path, limits))
            opened.enter_context(files[-1].file)
        info, pixels = open_dicom_levels(files, limits)
        uids = [level.sop.sop_instance_uid if level.sop else "" for level in info.levels]
        by_uid = {str(one.header.get("SOPInstanceUID")): one.file for one in files if one.is_volume}
        levels = [by_uid[uid] for uid in uids]
        for one in files:
            if one.file not in levels:
                one.file.close()
        opened.pop_all()
    return Slide(info, pixels, levels, limits.cache_bytes)
