"""Read a slide's segmentation back from the disk, tile by tile, before it gets its name."""

from __future__ import annotations

import io
import zlib

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset

from msrf_monai.clinical.reading.decoders import pinned_plugin
from msrf_monai.clinical.slides.spool import DescriptorReader
from msrf_monai.clinical.writing.tolerance import REFUSALS, without_validation
from msrf_monai.errors import StorageError
from msrf_monai.optional import require

__all__ = ["TILE_FORM", "check_tiled"]

TILE_FORM = {
    "samples_per_pixel": 1,
    "bits_allocated": 8,
    "bits_stored": 8,
    "pixel_representation": 0,
    "photometric_interpretation": "MONOCHROME2",
    "number_of_frames": 1,
}
"""What pydicom's encoders and decoders are told of a tile of class numbers."""

_TOLD = (
    *("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "TotalPixelMatrixRows", "TotalPixelMatrixColumns"),
    *("NumberOfFrames", "Rows", "Columns", "SegmentationType", "DimensionOrganizationType", "PatientID"),
)


def check_tiled(descriptor: int, meant: Dataset, checks: npt.NDArray[np.int64], tile: tuple[int, int]) -> None:
    """Read a tiled segmentation back and hold its header and every tile's pixels against what was meant.

    Args:
        descriptor: of the file, which is still open for writing.
        meant: the object without its pixels.
        checks: CRC-32 of each tile's pixels.
        tile: height and width of a tile.

    Raises:
        StorageError: when it cannot be read, or one pixel differs.
    """
    different = 0
    try:
        with io.BufferedReader(DescriptorReader(descriptor)) as stream, without_validation():
            kept = pydicom.dcmread(stream, stop_before_pixels=True)
            if any(kept.get(name) != meant.get(name) for name in _TOLD):
                raise ValueError("the header has changed")
            stream.seek(12, io.SEEK_CUR)
            frames = require("pydicom.encaps", "slides").generate_frames(stream, number_of_frames=len(checks))
            check = _FrameCheck(kept, tile)
            for data, expected in zip(frames, checks, strict=True):
                different += check.of(data) != int(expected)
    except (*REFUSALS, OSError) as error:
        raise StorageError(
            f"the segmentation cannot be read back ({type(error).__name__}); it was not kept. Check the disk"
        ) from None
    if different:
        raise StorageError(
            f"{different} of {len(checks)} tiles of the segmentation came back changed; it was not kept. "
            "Check the disk and the memory, then run again"
        )


class _FrameCheck:
    """Decodes a tile with the decoder that reading uses, equal ones once."""

    def __init__(self, header: Dataset, tile: tuple[int, int]) -> None:
        syntax = header.file_meta.TransferSyntaxUID
        self._plugin = pinned_plugin(syntax)
        self._decoder = require("pydicom.pixels", "slides").get_decoder(syntax)
        self._encapsulate = require("pydicom.encaps", "slides").encapsulate
        self._tile = tile
        self._last: tuple[bytes, int] = (b"", 0)

    def of(self, data: bytes) -> int:
        """Return the CRC-32 of a frame's pixels."""
        if data != self._last[0]:
            pixels, _ = self._decoder.as_array(
                self._encapsulate([data], has_bot=False),
                index=0,
                decoding_plugin=self._plugin,
                rows=self._tile[0],
                columns=self._tile[1],
                pixel_keyword="PixelData",
                **TILE_FORM,
            )
            self._last = (data, zlib.crc32(np.ascontiguousarray(pixels).data))
        return self._last[1]
