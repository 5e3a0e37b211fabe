"""One stored tile of a DICOM slide becomes RGB.

JPEG and JPEG 2000 are decoded by imagecodecs and not by GDCM, as in reading: the pixels are the same, and GDCM ends
the whole process when certain JPEG data is damaged. A slide is too much to lose by one tile.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.reading import RefusalCode, RefusedInput
from msrf_monai.clinical.reading.dicom_header import pixel_layout
from msrf_monai.clinical.reading.dicom_values import frame_values
from msrf_monai.clinical.slides.levels import Tile
from msrf_monai.clinical.slides.limits import SlideLimits
from msrf_monai.optional import require

__all__ = ["TileDecoder"]

_LAYOUT = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "RedPaletteColorLookupTableDescriptor"),
    *("GreenPaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableDescriptor"),
    *("RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData"),
)
_JPEG = "1.2.840.10008.1.2.4.50"
_WAVELET_COLOURS = ("RGB", "YBR_RCT", "YBR_ICT")
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")


class TileDecoder:
    """Decodes the frames of one file.

    Args:
        header: of the file, without its pixels.
        limits: bounds of a tile.
    """

    def __init__(self, header: Any, limits: SlideLimits) -> None:
        dataset = require("pydicom.dataset", "slides")
        self._limits = limits.of_file
        self._header = dataset.Dataset()
        self._header.file_meta = dataset.FileMetaDataset()
        self._header.file_meta.TransferSyntaxUID = header.file_meta.TransferSyntaxUID
        for name in _LAYOUT:
            if name in header:
                self._header[name] = header[name]
        self._header.NumberOfFrames = 1

    def decode(self, data: bytes) -> Tile:
        """Decode one frame.

        Args:
            data: the frame as it is stored.

        Returns:
            RGB ``(tile_rows, tile_columns, 3)`` uint8.

        Raises:
            RefusedInput: when the frame is not what the header says, cut short or damaged, or not of 8 bits.
        """
        frame = copy.copy(self._header)
        syntax = frame.file_meta.TransferSyntaxUID
        is_packed = bool(syntax.is_encapsulated)
        frame.PixelData = require("pydicom.encaps", "slides").encapsulate([data], has_bot=False) if is_packed else data
        frame["PixelData"].VR = "OB"
        frame["PixelData"].is_undefined_length = is_packed
        layout = pixel_layout(frame, self._limits)
        pixels: npt.NDArray[Any]
        if layout.bits_stored == 8 and str(syntax) == _JPEG and layout.photometric != "PALETTE COLOR":
            pixels = _jpeg(data, layout.photometric)
        elif (
            layout.bits_stored == 8
            and str(syntax) in _JPEG_2000
            and layout.photometric in ("RGB", "YBR_RCT", "YBR_ICT")
        ):
            # the codestream says by itself whether its colours were turned
            pixels = require("imagecodecs", "slides").jpeg2k_decode(data)
        else:
            pixels = frame_values(frame, layout, 0)
        if pixels.dtype != np.uint8 or pixels.shape[:2] != (layout.rows, layout.columns):
            raise RefusedInput(
                RefusalCode.UNSUPPORTED,
                f"tiles of {pixels.shape} {pixels.dtype} cannot be read; export the slide as 8-bit RGB",
            )
        return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else np.ascontiguousarray(pixels)


def _jpeg(data: bytes, photometric: str) -> npt.NDArray[Any]:
    decode = require("imagecodecs", "slides").jpeg8_decode
    if photometric.startswith("MONOCHROME"):
        grey = np.asarray(decode(data))
        return 255 - grey if photometric == "MONOCHROME1" else grey
    # as the header says, not as the codec would guess from markers
    return np.asarray(decode(data, colorspace="RGB" if photometric == "RGB" else "YCBCR", outcolorspace="RGB"))
