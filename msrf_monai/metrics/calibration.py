"""Do probabilities mean what they say? Bins of a reliability diagram and the expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from msrf_monai.errors import InputError
from msrf_monai.metrics.regions import check_probabilities, pixels_inside

__all__ = ["CalibrationBins", "calibration_bins", "expected_calibration_error"]


@dataclass(frozen=True)
class CalibrationBins:
    """Pixels sorted into bins by their probability: the data of a reliability diagram.

    Args:
        edges: of the bins, from 0 to 1, one more than bins. A bin holds its upper edge; the first one holds 0 too.
        counts: pixels in each bin.
        confidence: mean probability in each bin; NaN in an empty one.
        frequency: share of the bin's pixels that belong to the object in truth; NaN in an empty one.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    confidence: tuple[float, ...]
    frequency: tuple[float, ...]

    @property
    def error(self) -> float:
        """Mean distance of confidence and frequency, each bin weighed by its pixels; NaN without any pixel."""
        total = sum(self.counts)
        if total == 0:
            return float("nan")
        bins = zip(self.counts, self.confidence, self.frequency, strict=True)
        return sum(count * abs(said - seen) for count, said, seen in bins if count) / total


def calibration_bins(
    probability: Tensor, label: Tensor, fov: Tensor | None = None, *, bins: int = 15
) -> CalibrationBins:
    """Sort pixels into bins of equal width by the probability of the object, as scikit-learn's ``calibration_curve``.

    Args:
        probability: of the object, float in [0, 1], any shape.
        label: the truth, {0, 1}, same shape.
        fov: field of view, same shape; every pixel by default.
        bins: number of bins.

    Returns:
        Counts, mean probabilities and observed frequencies of the bins, empty ones included.

    Raises:
        InputError: when shapes differ, a mask is not binary, a probability is outside [0, 1], or there is no bin.
    """
    if bins < 1:
        raise InputError(f"bins is {bins}; expected 1 or more")
    said, true = pixels_inside(probability, label, fov, name="probability")
    check_probabilities(said)
    said = said.double()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=said.device)
    place = torch.bucketize(said, edges[1:-1].contiguous())
    counts = torch.bincount(place, minlength=bins)
    confidence = torch.bincount(place, weights=said, minlength=bins) / counts
    frequency = torch.bincount(place, weights=true.double(), minlength=bins) / counts
    return CalibrationBins(*(tuple(values.tolist()) for values in (edges, counts, confidence, frequency)))


def expected_calibration_error(
    probability: Tensor, label: Tensor, fov: Tensor | None = None, *, bins: int = 15
) -> float:
    """Return the expected calibration error of the object's probability: ``calibration_bins(...).error``.

    It is about the probability of the object, not about the confidence in the more likely class, which would leave
    out how sure the network is of its background. As most pixels are background, where a network is nearly always
    sure and right, small values are normal.

    Args:
        probability: see ``calibration_bins``, as are the other arguments and the errors.
        label: the truth.
        fov: field of view.
        bins: number of bins.

    Returns:
        Value in [0, 1]; NaN when no pixel counts.
    """
    return calibration_bins(probability, label, fov, bins=bins).error
