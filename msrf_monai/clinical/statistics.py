"""What was found, in numbers: pixels, areas, parts and confidence of every segment in every frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.case import ImageInfo
from msrf_monai.clinical.prediction import Prediction
from msrf_monai.errors import InputError

__all__ = ["CaseStatistics", "Region", "measure"]


@dataclass(frozen=True)
class Region:
    """One segment in one frame in which it was found."""

    frame: int
    """Counted from 0."""
    segment: int
    """Counted from 1."""
    pixels: int
    components: int
    """Parts that do not touch, not even at a corner."""
    largest_pixels: int
    """Pixels of the largest part."""
    box: tuple[int, int, int, int]
    """Top, left, bottom and right of what it lies within, upright; bottom and right are the first outside."""
    border_share: float
    """Share of the frame's outermost pixels that belong to it, 0 to 1."""
    confidence: float | None
    """Mean probability of the segment over its pixels; None when probabilities were not kept."""


@dataclass(frozen=True)
class CaseStatistics:
    """The numbers of one case."""

    frames: int
    rows: int
    columns: int
    segments: int
    regions: tuple[Region, ...]
    """Frame by frame, segment by segment; what was not found has no region."""
    confidence: tuple[float, ...]
    """One a frame, as the prediction has it."""
    pixel_mm2: float | None
    """Area of a pixel in the patient; None when that is not known."""
    slice_spacing_mm: float | None
    """Distance between the slices of a volume whose pixels have a known area."""
    flip_agreement: tuple[float, ...] | None = None
    """One a frame, as the prediction has it."""
    traits: tuple[Mapping[str, float], ...] | None = None
    """One a frame, as the prediction has them."""

    def found(self, segment: int) -> tuple[Region, ...]:
        """Return the regions of one segment, in the order of frames."""
        return tuple(region for region in self.regions if region.segment == segment)

    def area_mm2(self, pixels: int) -> float | None:
        """Return the area of so many pixels of one frame, or None when it is not known."""
        return None if self.pixel_mm2 is None else pixels * self.pixel_mm2

    def volume_mm3(self, segment: int) -> float | None:
        """Return the volume of a segment, or None when this is no volume or its spacing is not known."""
        if self.pixel_mm2 is None or self.slice_spacing_mm is None:
            return None
        return sum(region.pixels for region in self.found(segment)) * self.pixel_mm2 * self.slice_spacing_mm


def measure(info: ImageInfo, prediction: Prediction, segments: int) -> CaseStatistics:
    """Measure every segment in every frame.

    Args:
        info: of the case that was predicted; tells whether the spacing holds in the patient.
        prediction: of the case.
        segments: how many classes there are beside the background.

    Returns:
        The numbers. Areas are known only where ``info.spacing_is_real``.

    Raises:
        InputError: when the prediction does not fit the case or the segments.
    """
    shape = (info.frames, info.rows, info.columns)
    if prediction.mask.shape != shape:
        raise InputError(f"the prediction is {prediction.mask.shape}, and its case {shape} (frames, rows, columns)")
    maps = prediction.probabilities
    if maps is not None and maps.shape[1] != segments:
        raise InputError(f"probabilities of {maps.shape[1]} classes were given, and {segments} segment(s) described")
    largest = int(prediction.mask.max(initial=0))
    if largest > segments:
        raise InputError(f"the mask holds class {largest}, and {segments} segment(s) are described")
    regions = [
        _region(frame, segment, plane, None if maps is None else maps[frame, segment - 1])
        for frame, classes in enumerate(prediction.mask)
        for segment in range(1, segments + 1)
        if (plane := classes == segment).any()
    ]
    is_real = info.spacing_is_real and info.spacing_mm is not None
    return CaseStatistics(
        *shape,
        segments=segments,
        regions=tuple(regions),
        confidence=prediction.confidence,
        pixel_mm2=float(np.prod(info.spacing_mm)) if is_real and info.spacing_mm else None,
        slice_spacing_mm=info.slice_spacing_mm if is_real and info.frames > 1 else None,
        flip_agreement=prediction.flip_agreement,
        traits=prediction.traits,
    )


def _region(frame: int, segment: int, plane: npt.NDArray[np.bool_], probability: npt.NDArray[Any] | None) -> Region:
    number, _, sizes, _ = cv2.connectedComponentsWithStats(plane.astype(np.uint8), connectivity=8)
    parts = sizes[1:]
    left, top = parts[:, cv2.CC_STAT_LEFT], parts[:, cv2.CC_STAT_TOP]
    right, bottom = left + parts[:, cv2.CC_STAT_WIDTH], top + parts[:, cv2.CC_STAT_HEIGHT]
    return Region(
        frame=frame,
        segment=segment,
        pixels=int(parts[:, cv2.CC_STAT_AREA].sum()),
        components=number - 1,
        largest_pixels=int(parts[:, cv2.CC_STAT_AREA].max()),
        box=(int(top.min()), int(left.min()), int(bottom.max()), int(right.max())),
        border_share=_border_share(plane),
        confidence=None if probability is None else float(probability[plane].astype(np.float64).mean()),
    )


def _border_share(plane: npt.NDArray[np.bool_]) -> float:
    inner = plane[1:-1, 1:-1]
    border = plane.size - inner.size
    return float((np.count_nonzero(plane) - np.count_nonzero(inner)) / border)
