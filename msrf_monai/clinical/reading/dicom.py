"""One DICOM file as a case: limits first, then the header, and pixels only when they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.reading.dicom_header import PixelLayout, parse_dicom, pixel_layout
from msrf_monai.clinical.reading.dicom_info import dicom_info
from msrf_monai.clinical.reading.dicom_values import frame_values
from msrf_monai.clinical.reading.limits import Limits
from msrf_monai.clinical.reading.quiet import quiet_pydicom, refusing_bad_headers
from msrf_monai.clinical.reading.refusal import RefusalCode, RefusedInput
from msrf_monai.clinical.reading.regular import digest_of, read_regular

__all__ = ["DicomFrames", "inspect_dicom", "open_dicom"]


class DicomFrames:
    """The frames of one DICOM file.

    Args:
        path: the file.
        digest: its SHA-256 when it was opened; a file that has changed since is refused.
        limits: bounds, held again whenever the file is read again.
    """

    def __init__(self, path: Path, digest: str, limits: Limits) -> None:
        self._path = path
        self._digest = digest
        self._limits = limits
        self._parsed: tuple[Any, PixelLayout] | None = None

    def keep(self, dataset: Any, layout: PixelLayout) -> None:
        """Hold what has been parsed already, so that the first frame needs no second reading."""
        self._parsed = (dataset, layout)

    def frame(self, index: int) -> npt.NDArray[Any]:
        """Decode one frame; see ``Case.frame``."""
        with quiet_pydicom(), refusing_bad_headers():
            dataset, layout = self._parsed or self._read()
            # a clip is read once for all its frames; a single image need not stay in memory
            self._parsed = (dataset, layout) if index < layout.frames - 1 else None
            return frame_values(dataset, layout, index)

    def _read(self) -> tuple[Any, PixelLayout]:
        data = read_regular(self._path, self._limits)
        if digest_of(data) != self._digest:
            raise RefusedInput(RefusalCode.CHANGED, "the file has changed since it was opened; run again")
        dataset = parse_dicom(data, self._limits)
        return dataset, pixel_layout(dataset, self._limits)


def open_dicom(path: Path, limits: Limits | None = None, *, data: bytes | None = None, keep: bool = True) -> Case:
    """Open one DICOM file: any image of one or more frames.

    Args:
        path: the file.
        limits: bounds; default ``Limits()``.
        data: its bytes, when they have been read already.
        keep: hold the parsed file in memory until its last frame has been read; False for the files of a series.

    Returns:
        The case. Nothing is decoded yet.

    Raises:
        RefusedInput: when the file is no DICOM image, is damaged, contradicts itself or breaks a limit.
    """
    return inspect_dicom(path, limits or Limits(), data=data, keep=keep)[0]


def inspect_dicom(path: Path, limits: Limits, *, data: bytes | None = None, keep: bool = False) -> tuple[Case, Any]:
    """Open one DICOM file as ``open_dicom`` does, and return its data set too, for what a case does not tell."""
    data = read_regular(path, limits) if data is None else data
    with quiet_pydicom(), refusing_bad_headers():
        dataset = parse_dicom(data, limits)
        layout = pixel_layout(dataset, limits)
        info = dicom_info(dataset, layout)
    digest = digest_of(data)
    frames = DicomFrames(path, digest, limits)
    if keep:
        frames.keep(dataset, layout)
    return Case(digest, (path,), info, frames), dataset
