"""DICOM whole-slide images: the levels of one series, and their frames as tiles."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from msrf_monai.clinical.case import SopReference
from msrf_monai.clinical.reading import RefusalCode, RefusedInput
from msrf_monai.clinical.reading.dicom_header import is_dicom
from msrf_monai.clinical.reading.quiet import quiet_pydicom
from msrf_monai.clinical.slides.dicom_tile import TileDecoder
from msrf_monai.clinical.slides.files import BoundedReader, SlideFile
from msrf_monai.clinical.slides.frames import FramePlaces, frame_places
from msrf_monai.clinical.slides.levels import LevelPixels, SlideInfo, SlideLevel, Tile, plausible_mpp
from msrf_monai.clinical.slides.limits import SlideLimits
from msrf_monai.errors import MissingExtraError
from msrf_monai.optional import require

__all__ = ["WSI_CLASS", "WsiFile", "WsiIdentity", "identity_of", "open_dicom_levels", "read_wsi_header"]
__all__ += ["series_of"]

logger = logging.getLogger(__name__)

WSI_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""VL Whole Slide Microscopy Image Storage."""

_SERIES = 0x0020000E
_PIXELS = 0x7FE00001


@dataclass(frozen=True)
class WsiIdentity:
    """What a file of a slide is called."""

    series: str
    instance: str
    """SOP Instance UID; empty when the file has none."""


@dataclass(frozen=True)
class WsiFile:
    """One DICOM file of a slide and what its header says."""

    file: SlideFile
    header: Any
    """A ``pydicom.Dataset`` without pixels."""
    pixels_at: int
    """Where the element of the pixel data begins."""

    @property
    def is_volume(self) -> bool:
        """Whether it is a level of the slide, not its label, overview or thumbnail."""
        kinds = [str(part) for part in self.header.get("ImageType") or ()]
        return str(self.header.get("SOPClassUID")) == WSI_CLASS and len(kinds) > 2 and kinds[2] == "VOLUME"


class DicomTiles:
    """The tiles of one level of a DICOM slide.

    Args:
        wsi: the open file.
        limits: bounds.
    """

    def __init__(self, wsi: WsiFile, limits: SlideLimits) -> None:
        self._file = wsi.file
        self._places: FramePlaces = frame_places(wsi.file, wsi.header, wsi.pixels_at, limits)
        self._decoder = TileDecoder(wsi.header, limits)

    def tile(self, row: int, column: int) -> Tile | None:
        """Decode one tile; see ``LevelPixels``."""
        data = self._places.read(self._file, row, column)
        if data is None:
            return None
        try:
            with quiet_pydicom():
                return self._decoder.decode(data)
        except (RefusedInput, MissingExtraError):
            raise
        except Exception as error:  # pydicom parses values when they are asked for, and raises whatever that leads to
            raise RefusedInput(
                RefusalCode.DECODE_FAILED,
                f"the tile in row {row}, column {column} cannot be decoded ({type(error).__name__}); "
                "copy or export the file again",
            ) from None


def read_wsi_header(path: Path, limits: SlideLimits) -> WsiFile:
    """Open a DICOM file and read its header; the caller closes it.

    Args:
        path: the file.
        limits: ``header_bytes`` bounds what is read.

    Raises:
        RefusedInput: ``not_dicom``, ``unsupported``, ``unreadable``, ``truncated``, ``too_large`` and as ``SlideFile``.
    """
    file = SlideFile(path, limits)
    try:
        header, position = _parse(file, limits)
    except BaseException:
        file.close()
        raise
    return WsiFile(file, header, position)


def series_of(path: Path, limits: SlideLimits) -> str | None:
    """Return the series that a file of a slide belongs to, reading no further; None when it is no such file."""
    found = identity_of(path, limits)
    return found.series if found else None


def identity_of(path: Path, limits: SlideLimits) -> WsiIdentity | None:
    """Return what a file of a slide is called, reading no further than its series; None when it is no such file."""
    try:
        with SlideFile(path, limits) as file:
            if not is_dicom(file.head):
                return None
            partial = require("pydicom.filereader", "slides").read_partial
            with quiet_pydicom():
                stream = io.BufferedReader(BoundedReader(file, limits.header_bytes))
                header = partial(stream, stop_when=lambda tag, vr, length: int(tag) > _SERIES)
                series = str(header.get("SeriesInstanceUID") or "")
                is_slide = str(header.get("SOPClassUID")) == WSI_CLASS
                return WsiIdentity(series, str(header.get("SOPInstanceUID") or "")) if is_slide and series else None
    except MissingExtraError:
        raise
    except Exception as error:  # a neighbour that cannot be read is no level of this slide
        logger.debug("a file beside a slide cannot be read (%s); it is no level of it", type(error).__name__)
        return None


def open_dicom_levels(files: Sequence[WsiFile], limits: SlideLimits) -> tuple[SlideInfo, tuple[LevelPixels, ...]]:
    """Make the levels of a slide of the files of one series.

    Args:
        files: its files; labels, overviews and thumbnails among them are left out.
        limits: bounds.

    Returns:
        What is known of the slide, and the tiles of each level.

    Raises:
        RefusedInput: ``not_an_image`` when no file is a level, ``duplicate_uid``, ``unsupported``, ``bad_header``,
            ``truncated``, ``bad_encapsulation``, ``too_many_pixels`` or ``too_many_frames``.
    """
    volumes = [one for one in files if one.is_volume]
    if not volumes:
        raise RefusedInput(
            RefusalCode.NOT_AN_IMAGE, "none of the DICOM files is a level of a whole slide (image type VOLUME)"
        )
    if len({str(one.header.get("SOPInstanceUID")) for one in volumes}) < len(volumes):
        raise RefusedInput(
            RefusalCode.DUPLICATE_UID, "two files of the slide have the same SOPInstanceUID; remove one of them"
        )
    found = sorted(
        ((_level(one.header, limits), one) for one in volumes), key=lambda pair: -pair[0].rows * pair[0].columns
    )
    for (finer, _), (coarser, _) in pairwise(found):
        if coarser.rows >= finer.rows and coarser.columns >= finer.columns:
            raise RefusedInput(
                RefusalCode.UNSUPPORTED,
                "two files of the slide have the same size (optical paths, focal planes or parts); give one of them",
            )
    first = found[0][1].header
    info = SlideInfo(
        kind="dicom-wsi",
        levels=tuple(level for level, _ in found),
        mpp=found[0][0].mpp,
        photometric=str(first.get("PhotometricInterpretation") or ""),
        is_lossy=str(first.get("LossyImageCompression") or "00") == "01",
        notes=("grey_to_rgb",) if first.get("SamplesPerPixel") == 1 else (),
    )
    return info, tuple(DicomTiles(one, limits) for _, one in found)


def _parse(file: SlideFile, limits: SlideLimits) -> tuple[Any, int]:
    if not is_dicom(file.head):
        raise RefusedInput(RefusalCode.NOT_DICOM, "the file does not begin with a preamble and DICM; export it again")
    partial = require("pydicom.filereader", "slides").read_partial
    stream = io.BufferedReader(BoundedReader(file, limits.header_bytes))
    try:
        with quiet_pydicom():
            header = partial(stream, stop_when=lambda tag, vr, length: int(tag) >= _PIXELS)
            syntax = header.file_meta.TransferSyntaxUID
            is_readable = not (syntax.is_deflated or syntax.is_private or not syntax.is_little_endian)
    except RefusedInput:
        raise
    except EOFError:
        raise RefusedInput(RefusalCode.TRUNCATED, "the file ends within its header; copy or export it again") from None
    except Exception as error:  # pydicom raises whatever a broken value leads it to
        raise RefusedInput(
            RefusalCode.UNREADABLE, f"the header cannot be parsed ({type(error).__name__}); export the file again"
        ) from None
    if not is_readable:
        raise RefusedInput(RefusalCode.UNSUPPORTED, "slides of this transfer syntax cannot be read; export it again")
    return header, stream.tell()


def _level(header: Any, limits: SlideLimits) -> SlideLevel:
    rows, columns, tile_rows, tile_columns = (
        _whole(header, name) for name in ("TotalPixelMatrixRows", "TotalPixelMatrixColumns", "Rows", "Columns")
    )
    limits.check_level(rows, columns, tile_rows, tile_columns)
    for name in ("NumberOfOpticalPaths", "TotalPixelMatrixFocalPlanes", "InConcatenationTotalNumber"):
        if header.get(name) and _whole(header, name) > 1:
            raise RefusedInput(
                RefusalCode.UNSUPPORTED, f"slides with {name} above 1 cannot be read; export one of them"
            )
    uids = [
        str(header.get(name) or "")
        for name in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    ]
    return SlideLevel(rows, columns, tile_rows, tile_columns, _spacing(header), SopReference(*uids))


def _spacing(header: Any) -> tuple[float, float] | None:
    try:
        measures = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        rows, columns = (float(value) * 1000 for value in measures.PixelSpacing)
    except Exception as error:  # absent, empty or no numbers: then it is not known
        logger.debug("a slide's level has no spacing (%s)", type(error).__name__)
        return None
    return plausible_mpp(rows, columns)


def _whole(header: Any, name: str) -> int:
    try:
        return int(header.get(name))
    except Exception:  # absent, or text, or several values
        raise RefusedInput(
            RefusalCode.BAD_HEADER, f"{name} is missing or is not one whole number; export the file again"
        ) from None
