"""What the classes of a mask are, in the words and codes that DICOM, 3D Slicer and PACS viewers know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from msrf_monai.errors import ConfigError

__all__ = ["Code", "Segment", "segments_from_metadata"]

COLOURS = ((0, 230, 118), (255, 171, 0), (41, 121, 255), (245, 0, 87), (0, 229, 255), (213, 0, 249))
"""RGB of segments 1, 2, … that bring no colour of their own, the same as in our overlays."""


def _check_text(name: str, text: str, most: int) -> None:
    if not (text.strip() and text.isascii() and text.isprintable() and "\\" not in text and len(text) <= most):
        raise ConfigError(f"{name} has 1 to {most} printable ASCII characters and no backslash, got {text!r}")


@dataclass(frozen=True)
class Code:
    """A coded concept, such as ``Code("59820001", "SCT", "Blood vessel")``."""

    value: str
    """The code; at most 16 characters."""
    scheme: str
    """Who defines it: ``"SCT"`` for SNOMED CT, ``"DCM"`` for DICOM, ``"99…"`` for one's own."""
    meaning: str
    """What it says in English; at most 64 characters."""

    def __post_init__(self) -> None:
        for name, text, most in (("value", self.value, 16), ("scheme", self.scheme, 16), ("meaning", self.meaning, 64)):
            _check_text(f"the {name} of a code", text, most)


TISSUE = Code("85756007", "SCT", "Tissue")
"""Category and type of a class that nobody has coded; 3D Slicer's own default."""


@dataclass(frozen=True)
class Segment:
    """One class of a mask.

    Raises:
        ConfigError: when a text is empty, too long or outside ASCII, or a colour outside 0..255.
    """

    number: int
    """Its value in a label map, counted from 1 without gaps."""
    label: str
    """Its name for people; at most 64 ASCII characters, since objects keep their source's character set."""
    category: Code = TISSUE
    """DICOM's context group 7150, such as ``Code("49755003", "SCT", "Morphologically Abnormal Structure")``."""
    kind: Code = TISSUE
    """The segmented property type, such as ``Code("68496003", "SCT", "Polyp of colon")``."""
    anatomy: Code | None = None
    """Where it lies, such as ``Code("71854001", "SCT", "Colon")``; None when that is not known beforehand."""
    colour: tuple[int, int, int] | None = None
    """RGB 0..255 that viewers are asked to use; None for one from our palette."""

    def __post_init__(self) -> None:
        _check_text("the label of a segment", self.label, 64)
        if self.colour is not None and not (len(self.colour) == 3 and all(0 <= part <= 255 for part in self.colour)):
            raise ConfigError(f"the colour of segment {self.number} must be three numbers 0..255, got {self.colour}")

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The colour to draw with."""
        return self.colour or COLOURS[(self.number - 1) % len(COLOURS)]


def segments_from_metadata(metadata: Mapping[str, Any], *, output: str = "pred") -> tuple[Segment, ...]:
    """Read the segments of a bundle's ``metadata.json``.

    They stand in the list ``segments``, one object a class, in the words of dcmqi's and 3D Slicer's JSON:
    ``labelID``, ``SegmentLabel``, ``SegmentedPropertyCategoryCodeSequence``, ``SegmentedPropertyTypeCodeSequence``
    and, if wanted, ``AnatomicRegionSequence`` (each ``{"CodeValue", "CodingSchemeDesignator", "CodeMeaning"}``) and
    ``recommendedDisplayRGBValue``. A bundle without that list gets one segment for each channel but channel 0 of
    ``network_data_format.outputs.<output>.channel_def``, named by it and coded as tissue.

    Args:
        metadata: the parsed file.
        output: the name of the network's output.

    Returns:
        At least one segment, sorted by number.

    Raises:
        ConfigError: when there is neither, a field is missing, or the numbers are not 1, 2, ….
    """
    items = metadata.get("segments")
    segments = [_segment(item) for item in items] if items else _from_channels(metadata, output)
    return check_segments(sorted(segments, key=lambda segment: segment.number))


def check_segments(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Return the segments when they are numbered 1, 2, … in this order.

    Raises:
        ConfigError: otherwise.
    """
    numbers = [segment.number for segment in segments]
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        raise ConfigError(f"segments are numbered 1, 2, … without gaps, got {numbers or 'none'}; mend 'segments'")
    return tuple(segments)


@contextmanager
def _understood(refusal: str) -> Iterator[None]:
    """Refuse what is missing or of another form with this sentence; what a segment itself refuses stays as it is."""
    try:
        yield
    except ConfigError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(refusal.replace("<error>", f"{type(error).__name__}: {error}")) from error


def _segment(item: Mapping[str, Any]) -> Segment:
    with _understood(
        "a segment in metadata.json is not understood (<error>); it needs labelID, SegmentLabel, "
        "SegmentedPropertyCategoryCodeSequence and SegmentedPropertyTypeCodeSequence"
    ):
        anatomy = item.get("AnatomicRegionSequence")
        colour = item.get("recommendedDisplayRGBValue")
        return Segment(
            number=int(item["labelID"]),
            label=str(item["SegmentLabel"]),
            category=_code(item["SegmentedPropertyCategoryCodeSequence"]),
            kind=_code(item["SegmentedPropertyTypeCodeSequence"]),
            anatomy=_code(anatomy) if anatomy else None,
            colour=tuple(int(part) for part in colour) if colour else None,  # type: ignore[arg-type]
        )


def _code(item: Mapping[str, Any]) -> Code:
    return Code(str(item["CodeValue"]), str(item["CodingSchemeDesignator"]), str(item["CodeMeaning"]))


def _from_channels(metadata: Mapping[str, Any], output: str) -> list[Segment]:
    with _understood(
        f"metadata.json has neither 'segments' nor network_data_format.outputs.{output}.channel_def, so nobody knows "
        "what the mask shows; add 'segments'"
    ):
        channels = metadata["network_data_format"]["outputs"][output]["channel_def"]
        return [Segment(int(number), str(name)) for number, name in channels.items() if int(number) > 0]
