"""What a person should look at: flags for results that are unlikely to be right, with the bounds that raise them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from msrf_monai.clinical.statistics import CaseStatistics
from msrf_monai.errors import ConfigError

__all__ = ["FLAGS", "QualityLimits", "flags_of", "frame_flags"]

FLAGS = {
    "empty_mask": "nothing was found in any frame",
    "whole_image": "nearly the whole frame is marked",
    "low_confidence": "the network is unsure over the whole frame",
    "touches_border": "much of the frame's border is marked, so what was found may be cut off",
    "many_components": "what was found falls into many separate parts",
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

    def __post_init__(self) -> None:
        for bound in fields(self):
            value = getattr(self, bound.name)
            largest = 1 if bound.name != "many_components" else float("inf")
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= largest:
                raise ConfigError(f"quality limit {bound.name} must be a number from 0 to {largest:g}, got {value!r}")

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> QualityLimits:
        """Read the bounds of a bundle.

        Args:
            metadata: the parsed metadata.json; its ``quality_limits``, when there, names some of the bounds.

        Raises:
            ConfigError: when it names a bound that there is not.
        """
        given = metadata.get("quality_limits") or {}
        known = [bound.name for bound in fields(cls)]
        if not isinstance(given, Mapping) or set(given) - set(known):
            raise ConfigError(f"quality_limits in metadata.json may hold {', '.join(known)}; got {given!r}")
        return cls(**given)


def frame_flags(statistics: CaseStatistics, limits: QualityLimits | None = None) -> dict[int, tuple[str, ...]]:
    """Return the flags of each frame that has any.

    Args:
        statistics: of the case.
        limits: bounds; default ``QualityLimits()``.

    Returns:
        Frame (from 0) to its flags in the order of ``FLAGS``. An empty frame is not flagged: most slices of a volume
        are empty by right.
    """
    limits = limits or QualityLimits()
    size = statistics.rows * statistics.columns
    found: dict[int, set[str]] = {}
    marked: dict[int, int] = {}
    for region in statistics.regions:
        marked[region.frame] = marked.get(region.frame, 0) + region.pixels
        if region.border_share > limits.touches_border:
            found.setdefault(region.frame, set()).add("touches_border")
        if region.components > limits.many_components:
            found.setdefault(region.frame, set()).add("many_components")
    for frame, pixels in marked.items():
        if pixels >= limits.whole_image * size:
            found.setdefault(frame, set()).add("whole_image")
    for frame, confidence in enumerate(statistics.confidence):
        # NaN compares false, and a confidence that is no number must not pass
        if not confidence >= limits.low_confidence:
            found.setdefault(frame, set()).add("low_confidence")
    return {frame: _in_order(found[frame]) for frame in sorted(found)}


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


def _in_order(flags: set[str]) -> tuple[str, ...]:
    return tuple(flag for flag in FLAGS if flag in flags)
