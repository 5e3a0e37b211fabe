"""A tiled DICOM segmentation of a slide, written tile by tile: highdicom makes the header, from one tile.

highdicom would need the whole mask in memory. It is given a stand-in of a single tile; the size of the slide and the
number of frames are put in afterwards, and the compressed tiles are copied behind the header one by one.
"""

from __future__ import annotations

import copy
import hashlib
import io
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Literal

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, JPEGLSLossless, RLELossless

from msrf_monai.clinical.slides.dicom import read_wsi_header
from msrf_monai.clinical.slides.grid import SlideGrid
from msrf_monai.clinical.slides.limits import SlideLimits
from msrf_monai.clinical.slides.reading import Slide
from msrf_monai.clinical.slides.segmentation_check import TILE_FORM, check_tiled
from msrf_monai.clinical.slides.spool import DescriptorReader, RowBlocks, TileSpool
from msrf_monai.clinical.writing import DicomSource, Identity, Segment, Spacing, Written

# the description of a segment is the same for every segmentation
from msrf_monai.clinical.writing.finish import CREATOR, common_arguments, finish
from msrf_monai.clinical.writing.segmentation import describe_segment
from msrf_monai.clinical.writing.segments import check_segments
from msrf_monai.clinical.writing.tolerance import guarded
from msrf_monai.errors import ConfigError, InputError
from msrf_monai.files import atomic_write
from msrf_monai.optional import require

__all__ = ["SegmentationSink", "SlideSource"]

Codec = Literal["jpeg-ls", "rle"]

_SYNTAXES = {"jpeg-ls": JPEGLSLossless, "rle": RLELossless}
_PLACE = (
    *("TotalPixelMatrixOriginSequence", "ImageOrientationSlide", "FrameOfReferenceUID", "PositionReferenceIndicator"),
    *("DimensionOrganizationType", "VolumetricProperties"),
)
_ITEM, _END_OF_ITEMS = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_MOST_BASIC = (1 << 32) - 1
"""What an entry of the basic offset table can hold."""
_DEFAULT_TILE = 512


class SlideSource(DicomSource):
    """The level of a slide that a segmentation refers to."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layout", "image")
        object.__setattr__(self, "frames", 1)

    @classmethod
    def of_slide(cls, slide: Slide, level: int) -> SlideSource:
        """Read the header of one level again, without its pixels.

        Args:
            slide: a DICOM slide.
            level: the level.

        Raises:
            InputError: when the slide is not DICOM, or has changed since it was opened.
        """
        known = slide.info.levels[level].sop
        if known is None:
            raise InputError("only a DICOM slide has a DICOM segmentation; write the mask as OME-TIFF")
        wsi = read_wsi_header(slide.sources[level], SlideLimits())
        wsi.file.close()
        if str(wsi.header.get("SOPInstanceUID", "")) != known.sop_instance_uid:
            raise InputError("the input is another object than the one that was predicted; run it again")
        rows, columns = slide.info.levels[level].mpp or (1000.0, 1000.0)
        return cls((wsi.header,), Spacing(rows / 1000, columns / 1000, is_real=True, source="PixelSpacing"))


class SegmentationSink:
    """Writes a mask as a DICOM segmentation of type LABELMAP, organised as TILED_FULL.

    Args:
        path: the file to write.
        slide: the DICOM slide.
        segments: one for each class, numbered 1, 2, ….
        identity: who made it, and its UIDs.
        codec: how tiles are compressed, without loss; RLE is larger and slower, and read by older software.

    Raises:
        ConfigError: when the codec is unknown, or the segments are not numbered 1, 2, ….
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        slide: Slide,
        segments: Sequence[Segment],
        identity: Identity,
        *,
        codec: Codec = "jpeg-ls",
    ) -> None:
        if codec not in _SYNTAXES:
            raise ConfigError(f"the tiles of a segmentation are compressed by {' or '.join(_SYNTAXES)}, got {codec!r}")
        self._path = Path(path)
        self._slide = slide
        self._segments = check_segments(segments)
        self._identity = identity
        self._codec = codec
        self._spool: TileSpool | None = None

    def begin(self, grid: SlideGrid) -> None:
        """Read the slide's header and try the segmentation's; see ``MaskSink``.

        Raises:
            InputError: when the slide is not DICOM, or its header cannot be referred to.
            MissingExtraError: when highdicom or a codec is not installed.
            StorageError: when the folder cannot be written to.
        """
        level = self._slide.info.levels[grid.level]
        is_level = grid.factors == (1.0, 1.0)
        self._grid = grid
        self._tile = (level.tile_rows, level.tile_columns) if is_level else (_DEFAULT_TILE, _DEFAULT_TILE)
        self._source = SlideSource.of_slide(self._slide, grid.level)
        self._build("", 1)
        self._blocks = RowBlocks(self._tile[0], grid.columns)
        self._content = hashlib.sha256()
        self._spool = TileSpool(self._path, _encoder(self._codec))

    def write(self, rows: npt.NDArray[np.uint8]) -> None:
        """Take the next rows; see ``MaskSink``.

        Raises:
            InputError: when the rows have another width, or hold a class that has no segment.
            StorageError: when the disk refuses.
        """
        if rows.size and int(rows.max()) > len(self._segments):
            raise InputError(f"the mask holds class {int(rows.max())}, and {len(self._segments)} segments are known")
        spool = self._open
        for block in self._blocks.push(rows):
            spool.add_blocks(block, self._tile[1])

    def finish(self) -> tuple[Written, ...]:
        """Write the file, read it back tile by tile, and put it in its place; see ``MaskSink``.

        Raises:
            InputError: when rows are missing.
            StorageError: when the disk refuses or gives back other pixels.
        """
        spool = self._open
        for block in self._blocks.rest():
            spool.add_blocks(block, self._tile[1])
        across, down = -(-self._grid.columns // self._tile[1]), -(-self._grid.rows // self._tile[0])
        if len(spool) != across * down:
            raise InputError(f"{len(spool)} tiles of the mask were given, and the slide has {across * down}")
        for data in spool.read_all():
            self._content.update(data)
        seg = self._build(self._content.hexdigest(), len(spool))
        if int((spool.sizes + spool.sizes % 2 + 8).sum()) > _MOST_BASIC:
            seg.ExtendedOffsetTable, seg.ExtendedOffsetTableLengths = _extended_table(spool.sizes)
        try:
            with atomic_write(self._path) as handle:
                pydicom.dcmwrite(handle, seg, enforce_file_format=True)
                _append_frames(handle, spool, is_basic="ExtendedOffsetTable" not in seg)
                handle.flush()
                os.fsync(handle.fileno())
                check_tiled(handle.fileno(), seg, spool.checks, self._tile)
                with io.BufferedReader(DescriptorReader(handle.fileno())) as kept:
                    digest = hashlib.file_digest(kept, "sha256").hexdigest()
        finally:
            self.abort()
        return (Written("seg", self._path, digest, str(seg.SOPInstanceUID)),)

    def abort(self) -> None:
        """Leave nothing behind; see ``MaskSink``."""
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    @property
    def _open(self) -> TileSpool:
        if self._spool is None:
            raise InputError("the segmentation has not begun, or is finished")
        return self._spool

    def _build(self, content: str, frames: int) -> Dataset:
        """Return the whole object but its pixels."""
        highdicom = require("highdicom", "slides")
        identity, source = self._identity, self._source
        with guarded("build the segmentation of the slide"):
            seg = highdicom.seg.Segmentation(
                [_one_tile(source, self._grid, self._tile)],
                np.ones((1, *self._tile), dtype=np.uint8),
                segmentation_type="LABELMAP",
                segment_descriptions=[describe_segment(highdicom, one, source, identity) for one in self._segments],
                tile_pixel_array=True,
                dimension_organization_type="TILED_FULL",
                omit_empty_frames=False,
                content_label="MSRF_MONAI",
                content_description=", ".join(one.label for one in self._segments)[:64],
                content_creator_name=CREATOR,
                series_description="msrf-monai labelmap",
                **common_arguments("labelmap", source, identity, content),
            )
            del seg.PixelData
            seg.file_meta.TransferSyntaxUID = UID(_SYNTAXES[self._codec])
            seg.TotalPixelMatrixRows, seg.TotalPixelMatrixColumns = self._grid.rows, self._grid.columns
            seg.NumberOfFrames = frames
            finish(seg, source, identity, specimen=True)
        return seg  # type: ignore[no-any-return]


def _one_tile(source: SlideSource, grid: SlideGrid, tile: tuple[int, int]) -> Dataset:
    """Return a header of a slide of one tile: geometry and UIDs, nobody's name."""
    header = source.header
    one = source.stand_ins(placed=False)[0]
    one.SOPClassUID = header.SOPClassUID
    for name in _PLACE:
        if name in header:
            one[name] = copy.deepcopy(header[name])
    measures = copy.deepcopy(header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence)
    if grid.mpp and grid.factors != (1.0, 1.0):
        measures[0].PixelSpacing = [f"{value / 1000:.10g}" for value in grid.mpp]
    shared = Dataset()
    shared.PixelMeasuresSequence = measures
    one.SharedFunctionalGroupsSequence = DicomSequence([shared])
    one.Rows, one.Columns = tile
    one.TotalPixelMatrixRows, one.TotalPixelMatrixColumns = tile
    one.NumberOfFrames = 1
    return one


def _encoder(codec: Codec) -> Callable[[npt.NDArray[np.uint8]], bytes]:
    if codec == "jpeg-ls":
        encode = require("imagecodecs", "slides").jpegls_encode
        return lambda tile: bytes(encode(tile))
    encoder = require("pydicom.pixels.encoders", "slides").RLELosslessEncoder

    def run_length(tile: npt.NDArray[np.uint8]) -> bytes:
        return bytes(
            encoder.encode(
                tile,
                rows=tile.shape[0],
                columns=tile.shape[1],
                encoding_plugin="pydicom",
                **TILE_FORM,
            )
        )

    return run_length


def _starts(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return where each frame's item begins, counted from the first one."""
    ends = np.cumsum(sizes + sizes % 2 + 8)
    return np.concatenate([[0], ends[:-1]]).astype(np.int64)


def _extended_table(sizes: npt.NDArray[np.int64]) -> tuple[bytes, bytes]:
    return _starts(sizes).astype("<u8").tobytes(), (sizes + sizes % 2).astype("<u8").tobytes()


def _append_frames(handle: IO[bytes], spool: TileSpool, *, is_basic: bool) -> None:
    handle.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF))
    table = _starts(spool.sizes).astype("<u4").tobytes() if is_basic else b""
    handle.write(struct.pack("<HHL", *_ITEM, len(table)) + table)
    for data in spool.read_all():
        padded = data + b"\0" * (len(data) % 2)
        handle.write(struct.pack("<HHL", *_ITEM, len(padded)) + padded)
    handle.write(struct.pack("<HHL", *_END_OF_ITEMS, 0))
