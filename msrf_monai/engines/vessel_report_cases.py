"""From the maps of one image to its rows: one for each protocol under which it is scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from msrf_monai.errors import InputError
from msrf_monai.metrics import calibration_bins, confusion, mask_scores, pixels_inside, vessel_scores

__all__ = [
    "CALIBRATION_BINS",
    "COUNTS",
    "PixelCounts",
    "Protocol",
    "VesselMaps",
    "about_fov",
    "evaluated_items",
    "protocols_for",
    "score_case",
]

COUNTS = ("tp", "fp", "fn", "tn")
CALIBRATION_BINS = 15
_LEVELS = 8192
_LARGEST_LOGIT = 20.0


@dataclass(frozen=True)
class Protocol:
    """One way of scoring.

    Attributes:
        name: as the files call it.
        region: the pixels that count: those of the field of view, or all.
        reader: what is scored: the model, or the second observer's mask.
        threshold: from which on a pixel is a vessel; None for the observer.
        has_topology: whether topology is scored, too.
    """

    name: str
    region: Literal["fov", "full"]
    reader: Literal["model", "observer"]
    threshold: float | None
    has_topology: bool


@dataclass(frozen=True)
class VesselMaps:
    """What is known of one image, all of one shape.

    Attributes:
        probability: of a vessel, float in [0, 1], (X, Y).
        label: true mask, boolean or {0, 1}.
        fov: field of view, None where there is none: the whole image then.
        observer: the second observer's mask, None where there is none.
    """

    probability: Tensor
    label: Tensor
    fov: Tensor | None = None
    observer: Tensor | None = None


@dataclass(frozen=True)
class PixelCounts:
    """The pixels of images counted by probability and truth, so that images and processes add up.

    Probabilities are sorted into 8192 steps of the logit from -20 to 20; pixels of one step count as ties. That takes
    128 kB instead of all pixels, and moves an area under the ROC curve by less than 1e-5 where the logits have a
    standard deviation of 0.1 or more; those of a network that has hardly begun to learn may lie closer together.

    Attributes:
        levels: float64 (2, 8192): background and vessel pixels of each step.
        bins: float64 (3, 15): pixels, sum of probabilities and vessel pixels in each bin of the calibration.
    """

    levels: Tensor
    bins: Tensor

    @classmethod
    def none(cls) -> PixelCounts:
        """Return the counts of no image."""
        return cls(torch.zeros(2, _LEVELS, dtype=torch.float64), torch.zeros(3, CALIBRATION_BINS, dtype=torch.float64))

    @classmethod
    def of(cls, maps: VesselMaps) -> PixelCounts:
        """Count the pixels in the field of view of one image."""
        said, true = pixels_inside(maps.probability, maps.label, maps.fov, name="probability")
        logits = torch.logit(said.double()).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
        step = ((logits + _LARGEST_LOGIT) * ((_LEVELS - 1) / (2 * _LARGEST_LOGIT))).round().long()
        levels = torch.bincount(true.long() * _LEVELS + step, minlength=2 * _LEVELS).reshape(2, _LEVELS)
        found = calibration_bins(said, true, bins=CALIBRATION_BINS)
        counts, confidence, frequency = (
            torch.tensor(each, dtype=torch.float64) for each in (found.counts, found.confidence, found.frequency)
        )
        sums = [(counts * each).nan_to_num(0.0) for each in (confidence, frequency)]
        return cls(levels.double().cpu(), torch.stack([counts, *sums]))

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(self.levels + other.levels, self.bins + other.bins)

    def auc_roc(self) -> float:
        """Return the area under the ROC curve; NaN without vessels or without background."""
        background, vessels = self.levels
        below = background.cumsum(0) - background / 2
        return float((vessels * below).sum() / (vessels.sum() * background.sum()))

    def auc_pr(self) -> float:
        """Return the average precision; NaN without vessels."""
        background, vessels = self.levels.flip(1)
        found = vessels.cumsum(0)
        precision = (found / (found + background.cumsum(0))).nan_to_num(0.0)
        return float((precision * vessels).sum() / vessels.sum())

    def ece(self) -> float:
        """Return the expected calibration error; NaN without pixels."""
        counts, said, seen = self.bins
        return float((said - seen).abs().sum() / counts.sum())


def evaluated_items(engine: Any) -> list[dict[str, Any]]:
    """Return the items of an evaluator's iteration with all their keys.

    After decollating, MONAI keeps what the network and the post-processing made in ``state.output``, and what the data
    set brought, such as the field of view, in ``state.batch``.

    Args:
        engine: a MONAI evaluator.
    """
    output, batch = engine.state.output, engine.state.batch
    is_list = isinstance(batch, Sequence) and not isinstance(batch, str) and len(batch) == len(output)
    brought = batch if is_list and all(isinstance(each, Mapping) for each in batch) else [{}] * len(output)
    return [{**before, **after} for before, after in zip(brought, output, strict=True)]


def protocols_for(threshold: float, *, has_observer: bool, topology: bool = True) -> list[Protocol]:
    """Return the protocols of a report, the primary one first.

    Args:
        threshold: the chosen one. With 0.5 itself there is no row of its own for it.
        has_observer: whether there are second observer's masks.
        topology: whether topology is scored in the field of view.
    """
    found = [Protocol("fov_chosen", "fov", "model", threshold, topology)] if threshold != 0.5 else []
    found.append(Protocol("fov_0.5", "fov", "model", 0.5, topology))
    if has_observer:
        found.append(Protocol("fov_observer", "fov", "observer", None, topology))
    found.append(Protocol("full_0.5", "full", "model", 0.5, False))
    if has_observer:
        found.append(Protocol("full_observer", "full", "observer", None, False))
    return found


def score_case(maps: VesselMaps, protocols: Sequence[Protocol]) -> list[dict[str, Any]]:
    """Score one image under each protocol.

    Args:
        maps: of the image.
        protocols: of ``protocols_for``; those of an observer are left out where the image has none.

    Returns:
        A row each: protocol, threshold, the scores by name (None where undefined or not scored), and the counts.

    Raises:
        InputError: when shapes differ, a mask is not of 0 and 1, or a probability is outside [0, 1].
    """
    return [_row(maps, protocol) for protocol in protocols if protocol.reader == "model" or maps.observer is not None]


def about_fov(maps: VesselMaps) -> dict[str, bool]:
    """Say whether there is a field of view, and whether probabilities outside it were set to 0."""
    if maps.fov is None:
        return {"has_fov": False, "is_cleared": False}
    outside = maps.probability[maps.fov == 0]
    return {"has_fov": True, "is_cleared": len(outside) > 0 and not bool(outside.any())}


def _row(maps: VesselMaps, protocol: Protocol) -> dict[str, Any]:
    fov = maps.fov if protocol.region == "fov" else None
    if protocol.threshold is not None:
        found = maps.probability >= protocol.threshold
        scores = vessel_scores(
            maps.probability, maps.label, fov, threshold=protocol.threshold, topology=protocol.has_topology
        )
    else:
        if maps.observer is None:
            raise InputError("there is no second observer's mask to score")
        found = maps.observer
        scores = mask_scores(found, maps.label, fov, topology=protocol.has_topology)
    counts = confusion(found[None], maps.label[None], region=None if fov is None else fov[None])
    return {
        "protocol": protocol.name,
        "threshold": protocol.threshold,
        **{name: value if math.isfinite(value) else None for name, value in scores.items()},
        **{name: int(count) for name, count in zip(COUNTS, counts, strict=True)},
    }
