"""A small picture of each result, so that a report can show it without the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pydicom

from msrf_monai.clinical.artefacts import Artefact
from msrf_monai.clinical.case import Case, ImageInfo, PixelSource
from msrf_monai.clinical.display import Display
from msrf_monai.clinical.prediction import Prediction
from msrf_monai.clinical.writing import Segment, check_png
from msrf_monai.clinical.writing.tolerance import guarded

__all__ = ["THUMBNAIL_SIZE", "draw_thumbnail", "remember_small_frames", "shown_frame", "shrink_frame"]

THUMBNAIL_SIZE = 256
"""Longest side in pixels."""
_MOST_REMEMBERED = 300
_ROUNDING = 1e-5


def shown_frame(prediction: Prediction) -> int:
    """Return the frame worth showing: the one with most marked pixels, the middle one when there are none."""
    marked = np.count_nonzero(prediction.mask, axis=(1, 2))
    return int(np.argmax(marked)) if marked.any() else len(marked) // 2


def shrink_frame(frame: npt.NDArray[Any], info: ImageInfo) -> npt.NDArray[Any]:
    """Return a frame in the size of a thumbnail, its values averaged, of the same type."""
    return np.asarray(cv2.resize(frame, _small_size(info), interpolation=cv2.INTER_AREA))


class _Remembering:
    """Frames that keep a small copy of each one that was decoded, up to a number."""

    def __init__(self, pixels: PixelSource, info: ImageInfo) -> None:
        self._pixels = pixels
        self._info = info
        self._small: dict[int, npt.NDArray[Any]] = {}

    def frame(self, index: int) -> npt.NDArray[Any]:
        """Decode one frame; see ``Case.frame``."""
        frame = self._pixels.frame(index)
        if index not in self._small and len(self._small) < _MOST_REMEMBERED:
            self._small[index] = shrink_frame(frame, self._info)
        return frame

    def small(self, index: int) -> npt.NDArray[Any] | None:
        """Return the small copy of a frame; None when it was not kept."""
        return self._small.get(index)


def remember_small_frames(case: Case) -> Case:
    """Return the same case, which keeps a small copy of what is decoded, so that its thumbnail decodes nothing again.

    Args:
        case: to be predicted, then given to ``write_outputs``. The thumbnail is the same with and without.

    Returns:
        A case that holds at most 300 small frames in memory, 60 MB of colour at the most.
    """
    return replace(case, pixels=_Remembering(case.pixels, case.info))


def draw_thumbnail(case: Case, prediction: Prediction, segments: Sequence[Segment]) -> Artefact:
    """Draw the outlines of every segment over a small picture of the frame worth showing.

    Args:
        case: what was predicted.
        prediction: of it.
        segments: one for each class.

    Returns:
        ``thumbnail.png``, at most 256 pixels long, upright, in the proportions of the pixels. Thin structures stay
        visible: no smaller a share is marked than in the frame itself. Where a DICOM file says that writing is burned
        into its pixels, the outlines lie on plain grey, since the writing may be a name.

    Raises:
        RefusedInput: when the frame cannot be decoded.
    """
    index = shown_frame(prediction)
    drawn = _backdrop(case, index).copy()  # it may be a picture that is kept
    rows, columns = drawn.shape[:2]
    for segment in segments:
        plane = prediction.mask[index] == segment.number
        if plane.any():
            small = _shrunk(plane, columns, rows)
            outlines, _ = cv2.findContours(small, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(drawn, outlines, -1, [int(part) for part in segment.rgb], _thickness(small))
    _, content = cv2.imencode(".png", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 4])
    return Artefact(("thumbnail",), "thumbnail.png", bytes(content), partial(check_png, expected=drawn))


def _thickness(small: npt.NDArray[np.uint8]) -> int:
    """Return 2 for what has an inside, 1 for what is as thin as vessels are and would run together."""
    inside = cv2.erode(small, np.ones((3, 3), np.uint8))
    return 2 if 2 * np.count_nonzero(inside) > np.count_nonzero(small) else 1


def _backdrop(case: Case, index: int) -> npt.NDArray[np.uint8]:
    """Return the small frame, or mere grey where the file says that its pixels hold writing, which may be a name."""
    info = case.info
    if info.kind in ("dicom", "dicom-volume") and _has_writing(case):
        columns, rows = _small_size(info)
        return np.full((rows, columns, 3), 96, dtype=np.uint8)
    remembered = case.pixels.small(index) if isinstance(case.pixels, _Remembering) else None
    small = shrink_frame(case.frame(index), info) if remembered is None else remembered
    return Display.of_frames(info, [small]).picture(small)


def _has_writing(case: Case) -> bool:
    with guarded("read the source's header again"):
        tags = ["BurnedInAnnotation"]
        headers = (pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags) for path in case.sources)
        return any(str(header.get("BurnedInAnnotation", "")).strip().upper() == "YES" for header in headers)


def _small_size(info: ImageInfo) -> tuple[int, int]:
    """Return columns and rows of the small picture."""
    rows_mm, columns_mm = info.spacing_mm or (1.0, 1.0)
    height, width = info.rows * rows_mm, info.columns * columns_mm
    scale = THUMBNAIL_SIZE / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _shrunk(plane: npt.NDArray[np.bool_], columns: int, rows: int) -> npt.NDArray[np.uint8]:
    """Return a small mask with no smaller a share of its pixels marked: those that cover most of the large mask."""
    share = cv2.resize(plane.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    count = max(1, round(float(plane.mean()) * share.size))
    least = np.partition(share.ravel(), share.size - count)[share.size - count]
    # equal shares count as equal whatever their rounding, so that a thin line stays whole
    return np.asarray(share >= max(least - _ROUNDING, _ROUNDING), dtype=np.uint8)
