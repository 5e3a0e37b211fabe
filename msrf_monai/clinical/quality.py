"""What a person should look at: flags for results that are unlikely to be right, with the bounds that raise them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from msrf_monai.clinical.statistics import CaseStatistics
from msrf_monai.errors import ConfigError

__all__ = ["FLAGS", "TRAITS", "Bounds", "QualityLimits", "flags_of", "frame_flags", "unlike_training"]

TRAITS = {
    "shorter_side": "pixels of the shorter side",
    "aspect": "longer side divided by the shorter one",
    "darkest": "value that 1 % of the pixels stay below",
    "brightest": "value that 1 % of the pixels exceed",
    "brightness": "mean value",
    "contrast": "standard deviation of the values",
    "colourfulness": "mean difference between the largest and the smallest channel",
    "warmth": "mean of the first channel less mean of the last, red less blue",
}
"""What is measured of a frame before any preprocessing, see ``msrf_monai.clinical.traits``."""

Bounds = tuple[float | None, float | None]
"""Smallest and largest value; None for no bound."""

FLAGS = {
    "empty_mask": "nothing was found in any frame",
    "whole_image": "nearly the whole frame is marked",
    "low_confidence": "the network is unsure over the whole frame",
    "touches_border": "much of the frame's border is marked, so what was found may be cut off",
    "many_components": "what was found falls into many separate parts",
    "unusual_area": "what was found is smaller or larger than nearly all that the network was trained on",
    "flips_disagree": "the mirror image gives another result",
    "unlike_training": "the image looks unlike those that the network was trained on",
}
"""Every flag and what it says; the words never change their meaning from version to version."""


@dataclass(frozen=True)
class QualityLimits:
    """The bounds beyond which a result is flagged; a bundle sets its own under ``quality_limits`` in metadata.json.

    Raises:
        ConfigError: when a bound is not a number, or a share lies outside [0, 1].
    """

    whole_image: float = 0.95
    """A frame is flagged when its marked share is at least this; no lesion or organ in a photograph fills it."""
    low_confidence: float = 0.75
    """A frame is flagged when its confidence is below this; 0.5 is tossing a coin at every pixel."""
    touches_border: float = 0.1
    """A frame is flagged when one segment covers more than this share of its outermost pixels."""
    many_components: int = 50
    """A frame is flagged when one segment has more parts than this; set it higher for vessels or cells."""
    flip_agreement: float = 0.5
    """A frame is flagged when its mirror image was predicted too, and the Dice of both results is below this."""
    area: Bounds | None = None
    """A frame in which something is found is flagged when the marked share lies outside; None where nothing is known of
    the training data."""
    traits: tuple[tuple[str, Bounds], ...] = ()
    """Some of ``TRAITS``, each with its bounds; a frame is flagged when one of its traits lies outside."""

    def __post_init__(self) -> None:
        for name in ("whole_image", "low_confidence", "touches_border", "many_components", "flip_agreement"):
            value = getattr(self, name)
            largest = 1 if name != "many_components" else math.inf
            if not _is_number(value) or not 0 <= value <= largest:
                raise ConfigError(f"quality limit {name} must be a number from 0 to {largest:g}, got {value!r}")
        for name, bounds in (("area", self.area or (None, None)), *self.traits):
            _check_bounds(name, bounds)
        unknown = [name for name, _ in self.traits if name not in TRAITS]
        if unknown:
            raise ConfigError(f"quality limit traits may hold {', '.join(TRAITS)}; got {unknown[0]!r}")

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> QualityLimits:
        """Read the bounds of a bundle.

        Args:
            metadata: the parsed metadata.json; its ``quality_limits``, when there, names some of the bounds.

        Raises:
            ConfigError: when it names a bound that there is not, or one is wrong.
        """
        given = metadata.get("quality_limits") or {}
        known = [bound.name for bound in fields(cls)]
        if not isinstance(given, Mapping) or set(given) - set(known):
            raise ConfigError(f"quality_limits in metadata.json may hold {', '.join(known)}; got {given!r}")
        given = {name: value for name, value in given.items() if value is not None}
        bounds: dict[str, Any] = {}
        if "area" in given:
            bounds["area"] = _bounds("area", given["area"])
        if "traits" in given:
            if not isinstance(given["traits"], Mapping):
                raise ConfigError(
                    f"quality limit traits must be an object of names and bounds, got {given['traits']!r}"
                )
            bounds["traits"] = tuple((name, _bounds(name, value)) for name, value in given["traits"].items())
        return cls(**{**given, **bounds})

    def as_metadata(self) -> dict[str, Any]:
        """Return the bounds as ``quality_limits`` holds them, those left out that are the usual ones."""
        usual = QualityLimits()
        changed = {each.name: getattr(self, each.name) for each in fields(self)}
        changed = {name: value for name, value in changed.items() if value != getattr(usual, name)}
        if self.area is not None:
            changed["area"] = list(self.area)
        if self.traits:
            changed["traits"] = {name: list(bounds) for name, bounds in self.traits}
        return changed


def frame_flags(statistics: CaseStatistics, limits: QualityLimits | None = None) -> dict[int, tuple[str, ...]]:
    """Return the flags of each frame that has any.

    Args:
        statistics: of the case.
        limits: bounds; default ``QualityLimits()``.

    Returns:
        Frame (from 0) to its flags in the order of ``FLAGS``. That a frame is empty raises none: most slices of a
        volume are empty by right.
    """
    limits = limits or QualityLimits()
    found: dict[int, set[str]] = {}
    for frame, flag in (*_of_regions(statistics, limits), *_of_frames(statistics, limits)):
        found.setdefault(frame, set()).add(flag)
    return {frame: _in_order(found[frame]) for frame in sorted(found)}


def _of_regions(statistics: CaseStatistics, limits: QualityLimits) -> Iterator[tuple[int, str]]:
    """Yield frames and the flags that what was found in them raises."""
    size = statistics.rows * statistics.columns
    marked: dict[int, int] = {}
    for region in statistics.regions:
        marked[region.frame] = marked.get(region.frame, 0) + region.pixels
        if region.border_share > limits.touches_border:
            yield region.frame, "touches_border"
        if region.components > limits.many_components:
            yield region.frame, "many_components"
    for frame, pixels in marked.items():
        if pixels >= limits.whole_image * size:
            yield frame, "whole_image"
        if limits.area is not None and not _within(pixels / size, limits.area):
            yield frame, "unusual_area"


def _of_frames(statistics: CaseStatistics, limits: QualityLimits) -> Iterator[tuple[int, str]]:
    """Yield frames and the flags that they raise whatever was found in them."""
    # NaN compares false, and a number that is none must not pass
    for frame, confidence in enumerate(statistics.confidence):
        if not confidence >= limits.low_confidence:
            yield frame, "low_confidence"
    for frame, agreement in enumerate(statistics.flip_agreement or ()):
        if not agreement >= limits.flip_agreement:
            yield frame, "flips_disagree"
    for frame in unlike_training(statistics, limits):
        yield frame, "unlike_training"


def unlike_training(statistics: CaseStatistics, limits: QualityLimits) -> dict[int, tuple[str, ...]]:
    """Return which traits of each frame lie outside their bounds, for frames that have such traits.

    Args:
        statistics: of the case.
        limits: bounds.
    """
    outside = {
        frame: tuple(name for name, bounds in limits.traits if not _within(traits.get(name, math.nan), bounds))
        for frame, traits in enumerate(statistics.traits or ())
    }
    return {frame: names for frame, names in outside.items() if names}


def flags_of(statistics: CaseStatistics, limits: QualityLimits | None = None) -> tuple[str, ...]:
    """Return the flags of a case: those of its frames, and ``empty_mask`` when no frame holds anything.

    Args:
        statistics: of the case.
        limits: bounds; default ``QualityLimits()``.

    Returns:
        Flags in the order of ``FLAGS``, each once.
    """
    found = {flag for flags in frame_flags(statistics, limits).values() for flag in flags}
    return _in_order(found | (set() if statistics.regions else {"empty_mask"}))


def _within(value: float, bounds: Bounds) -> bool:
    """Return whether a value lies within its bounds; one that is no number does not."""
    smallest, largest = bounds
    return not math.isnan(value) and (smallest is None or value >= smallest) and (largest is None or value <= largest)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _bounds(name: str, given: Any) -> Bounds:
    if not isinstance(given, list) or len(given) != 2:
        raise ConfigError(f"quality limit {name} must be [SMALLEST, LARGEST], null for no bound, got {given!r}")
    return given[0], given[1]


def _check_bounds(name: str, bounds: Bounds) -> None:
    known = [value for value in bounds if value is not None]
    if not all(map(_is_number, known)) or known != sorted(known):
        raise ConfigError(f"quality limit {name} must be two numbers in order, or null for no bound, got {bounds!r}")


def _in_order(flags: set[str]) -> tuple[str, ...]:
    return tuple(flag for flag in FLAGS if flag in flags)
