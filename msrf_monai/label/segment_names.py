"""What the segments of a DICOM segmentation are called and coded: by the bundle that knows, not by MONAI Label's guess.

MONAI Label names each segment by the label and codes all of them as 78961009, whose meaning is "Splenic structure".
The bundles' own metadata have the right codes for the same labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msrf_monai.clinical.writing.segments import TISSUE, Segment, segments_from_metadata
from msrf_monai.errors import DataError, MsrfError
from msrf_monai.json_files import read_json

__all__ = ["BundleName", "described_segments", "read_object"]

_GUESSED = "78961009"
_UNNAMED = "AIName"


@dataclass(frozen=True)
class BundleName:
    """The model, as the object names it."""

    name: str
    version: str


_UNKNOWN = BundleName("MONAI Label", "unknown")


def described_segments(
    template: Mapping[str, Any], app: Path | None
) -> tuple[tuple[int, ...], tuple[Segment, ...], BundleName]:
    """Return the segments of a segmentation.

    Args:
        template: dcmqi's JSON, as MONAI Label fills it in.
        app: the app's folder, whose bundles are asked; None where there is none.

    Returns:
        For each segment the label number that it has in the mask; the segments, numbered 1, 2, …; and the model.

    Raises:
        DataError: when the template has no segments.
    """
    attributes = [item for group in template.get("segmentAttributes") or [] for item in group]
    if not attributes:
        raise DataError("the description of the segments names none; send label_info with the label")
    named = str(template.get("SeriesDescription") or "")
    known = [each for each in _bundles(app) if each[0] == named] or list(_bundles(app))
    segments, models = [], []
    for number, item in enumerate(attributes, start=1):
        label = _plain(str(item.get("SegmentLabel") or "")) or f"segment {number}"
        model, segment = _known(label, known)
        segments.append(_segment(item, number, label, segment))
        models.append(model)
    return tuple(int(item["labelID"]) for item in attributes), tuple(segments), _model(models, named)


def read_object(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file.

    Args:
        path: the file.

    Raises:
        DataError: when it is missing, no JSON, or holds something else.
    """
    content = read_json(path, "MONAI Label or a bundle wrote it; start the server again")
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no JSON object; start the server again")
    return content


def _bundles(app: Path | None) -> Iterator[tuple[str, BundleName, Sequence[Segment]]]:
    for path in sorted(app.glob("model/*/configs/metadata.json")) if app else ():
        try:
            metadata = read_object(path)
            model = BundleName(str(metadata.get("name") or path.parents[1].name), str(metadata.get("version") or "0"))
            yield path.parents[1].name, model, segments_from_metadata(metadata)
        except MsrfError:
            continue  # a bundle that says nothing of its segments


def _known(
    label: str, known: Sequence[tuple[str, BundleName, Sequence[Segment]]]
) -> tuple[BundleName | None, Segment | None]:
    """Return the bundle and the segment of a label; nothing when two bundles mean different things by it."""
    found = [
        (model, segment)
        for _, model, segments in known
        for segment in segments
        if segment.label.lower() == label.lower()
    ]
    return found[0] if len(found) == 1 else (None, None)


def _segment(item: Mapping[str, Any], number: int, label: str, known: Segment | None) -> Segment:
    code = (item.get("SegmentedPropertyTypeCodeSequence") or {}).get("CodeValue")
    if code != _GUESSED:
        try:
            return replace(segments_from_metadata({"segments": [{**item, "labelID": 1}]})[0], number=number)
        except MsrfError:
            pass  # codes that DICOM would not take
    if known is not None:
        return replace(known, number=number)
    return Segment(number, label, TISSUE, TISSUE)


def _model(models: Sequence[BundleName | None], named: str) -> BundleName:
    found = {model for model in models if model is not None}
    if len(found) == 1:
        return found.pop()
    plain = _plain(named)
    return BundleName(plain, "unknown") if plain and plain != _UNNAMED else _UNKNOWN


def _plain(text: str) -> str:
    return re.sub(r"[^\x20-\x7e]|\\", " ", text).strip()[:64].strip()
