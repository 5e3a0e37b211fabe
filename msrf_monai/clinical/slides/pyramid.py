"""A mask as a pyramid OME-TIFF, written tile by tile: every level is every second pixel of the one before."""

from __future__ import annotations

import hashlib
import io
import os
import uuid
import zlib
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.slides.grid import SlideGrid
from msrf_monai.clinical.slides.spool import DescriptorReader, Nameless, RowBlocks, TileSpool
from msrf_monai.clinical.writing import Written
from msrf_monai.clinical.writing.tolerance import REFUSALS
from msrf_monai.errors import ConfigError, InputError, StorageError
from msrf_monai.files import atomic_write
from msrf_monai.optional import require

__all__ = ["PyramidSink"]

_DEFLATE_LEVEL = 6
_MOST_CLASSIC = 3_900_000_000
"""Bytes of tiles from which BigTIFF is written; the classic form ends at 4 GiB."""
_MICROMETRES_A_CENTIMETRE = 10_000.0


class _Level:
    """One level while it is written."""

    def __init__(self, path: Path, rows: int, columns: int, tile: int) -> None:
        self.rows = rows
        self.columns = columns
        self.tile = tile
        self.blocks = RowBlocks(tile, columns)
        # several times as fast as zlib, which reads it back
        encode = require("imagecodecs", "slides").deflate_encode
        self.spool = TileSpool(path, lambda pixels: bytes(encode(pixels, level=_DEFLATE_LEVEL, raw=False)))
        self.given = 0

    @property
    def tiles(self) -> int:
        return -(-self.rows // self.tile) * -(-self.columns // self.tile)

    def write(self, rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Add rows, and return those of them that the next level has."""
        for block in self.blocks.push(rows):
            self.spool.add_blocks(block, self.tile)
        smaller = rows[self.given % 2 :: 2, ::2]
        self.given += len(rows)
        return smaller

    def finish(self) -> None:
        for block in self.blocks.rest():
            self.spool.add_blocks(block, self.tile)


class PyramidSink:
    """Writes class numbers as a tiled, deflated OME-TIFF with its smaller levels in SubIFDs.

    Args:
        path: the file to write.
        tile: height and width of its tiles.

    Raises:
        ConfigError: when ``tile`` is not a positive multiple of 16.
    """

    def __init__(self, path: str | os.PathLike[str], *, tile: int = 512) -> None:
        if tile < 16 or tile % 16:
            raise ConfigError(f"the tiles of a TIFF are a positive multiple of 16 wide, got {tile}")
        self._path = Path(path)
        self._tile = tile
        self._levels: list[_Level] = []

    def begin(self, grid: SlideGrid) -> None:
        """Prepare every level, down to one that fits into a tile; see ``MaskSink``.

        Raises:
            StorageError: when the folder cannot be written to.
        """
        self._grid = grid
        self._content = hashlib.sha256()
        rows, columns = grid.rows, grid.columns
        self._levels = [_Level(self._path, rows, columns, self._tile)]
        while max(rows, columns) > self._tile:
            rows, columns = -(-rows // 2), -(-columns // 2)
            self._levels.append(_Level(self._path, rows, columns, self._tile))

    def write(self, rows: npt.NDArray[np.uint8]) -> None:
        """Take the next rows; see ``MaskSink``.

        Raises:
            InputError: when the rows have another width.
            StorageError: when the disk refuses.
        """
        if not self._levels:
            raise InputError("the mask has not begun, or is finished")
        self._content.update(rows.tobytes())
        for level in self._levels:
            rows = level.write(np.ascontiguousarray(rows))

    def finish(self) -> tuple[Written, ...]:
        """Write the file, read it back tile by tile, and put it in its place; see ``MaskSink``.

        Raises:
            InputError: when rows are missing.
            MissingExtraError: when tifffile is not installed.
            StorageError: when the disk refuses or gives back other pixels.
        """
        try:
            for level in self._levels:
                level.finish()
            missing = [level for level in self._levels if level.given != level.rows or len(level.spool) != level.tiles]
            if missing or not self._levels:
                raise InputError("the mask is not complete: rows are missing, or it has not begun")
            with atomic_write(self._path) as handle:
                self._write_file(handle)
                handle.flush()
                os.fsync(handle.fileno())
                _verify(handle.fileno(), self._levels)
                with io.BufferedReader(DescriptorReader(handle.fileno())) as kept:
                    digest = hashlib.file_digest(kept, "sha256").hexdigest()
        finally:
            self.abort()
        return (Written("mask", self._path, digest),)

    def abort(self) -> None:
        """Leave nothing behind; see ``MaskSink``."""
        for level in self._levels:
            level.spool.close()
        self._levels = []

    def _write_file(self, handle: IO[bytes]) -> None:
        tifffile = require("tifffile", "slides")
        size = sum(int(level.spool.sizes.sum()) for level in self._levels)
        with tifffile.TiffWriter(Nameless(handle), bigtiff=size > _MOST_CLASSIC, ome=True) as writer:
            for number, level in enumerate(self._levels):
                first: dict[str, Any] = {"subifds": len(self._levels) - 1, "metadata": self._metadata()}
                writer.write(
                    level.spool.read_all(),
                    shape=(level.rows, level.columns),
                    dtype=np.uint8,
                    tile=(level.tile, level.tile),
                    compression="adobe_deflate",
                    photometric="minisblack",
                    software="msrf-monai",
                    **self._resolution(level),
                    **(first if number == 0 else {"subfiletype": 1, "metadata": None}),
                )

    def _metadata(self) -> dict[str, Any]:
        # tifffile's own would hold the time and the machine; the same mask is to give the same bytes
        identifier = uuid.uuid5(uuid.NAMESPACE_OID, self._content.hexdigest())
        known: dict[str, Any] = {"axes": "YX", "Name": "mask", "UUID": f"urn:uuid:{identifier}"}
        if self._grid.mpp:
            known |= {"PhysicalSizeY": self._grid.mpp[0], "PhysicalSizeX": self._grid.mpp[1]}
            known |= {"PhysicalSizeYUnit": "µm", "PhysicalSizeXUnit": "µm"}
        return known

    def _resolution(self, level: _Level) -> dict[str, Any]:
        if not self._grid.mpp:
            return {}
        rows = self._grid.mpp[0] * self._grid.rows / level.rows
        columns = self._grid.mpp[1] * self._grid.columns / level.columns
        return {
            "resolution": (_MICROMETRES_A_CENTIMETRE / columns, _MICROMETRES_A_CENTIMETRE / rows),
            "resolutionunit": "CENTIMETER",
        }


def _verify(descriptor: int, levels: list[_Level]) -> None:
    """Read the file back and hold every tile's pixels against what was meant."""
    tifffile = require("tifffile", "slides")
    different = 0
    try:
        with io.BufferedReader(DescriptorReader(descriptor)) as stream, tifffile.TiffFile(stream) as kept:
            pages = kept.series[0].levels
            for level, page in zip(levels, pages, strict=True):
                different += _differences(page.keyframe, level)
            sizes = [page.keyframe.shape for page in pages]
            if any(finer[0] < coarser[0] for finer, coarser in pairwise(sizes)):
                raise ValueError("the levels are out of order")
    except (*REFUSALS, OSError) as error:
        raise StorageError(
            f"the mask cannot be read back ({type(error).__name__}); it was not kept. Check the disk"
        ) from None
    if different:
        raise StorageError(
            f"{different} tiles of the mask came back changed; it was not kept. Check the disk, then run again"
        )


def _differences(page: Any, level: _Level) -> int:
    if page.shape != (level.rows, level.columns) or len(page.dataoffsets) != level.tiles:
        raise ValueError("a level has another size")
    different, last = 0, (b"", 0)
    handle = page.parent.filehandle
    for offset, size, expected in zip(page.dataoffsets, page.databytecounts, level.spool.checks, strict=True):
        handle.seek(offset)
        data = handle.read(size)
        if data != last[0]:
            last = (data, zlib.crc32(zlib.decompress(data)))
        different += last[1] != int(expected)
    return different
