"""Structured reports (TID 1500): how large what was found is, each number tied to the mask that it was counted in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code as DicomCode
from pydicom.uid import ExplicitVRLittleEndian

from msrf_monai.clinical.writing.finish import common_arguments, digest_of, finish
from msrf_monai.clinical.writing.identity import Identity
from msrf_monai.clinical.writing.planes import binary_planes
from msrf_monai.clinical.writing.segmentation import coded
from msrf_monai.clinical.writing.segments import Segment, check_segments
from msrf_monai.clinical.writing.source import DicomSource
from msrf_monai.clinical.writing.tolerance import guarded
from msrf_monai.clinical.writing.verify import frame_of
from msrf_monai.errors import InputError
from msrf_monai.optional import require

__all__ = ["Flags", "areas", "build_report", "reported_areas"]

Flags = Mapping[int | None, Sequence[str]]
"""Quality flags of frames (from 0), and under None those of the whole case."""

OWN_SCHEME = "99MSRF"
"""Of codes that are ours: DICOM has none for these flags."""
QUALITY_FLAG = DicomCode("quality_flag", OWN_SCHEME, "Quality flag")

AREA = DicomCode("42798000", "SCT", "Area")
PIXELS = DicomCode("{pixels}", "UCUM", "pixels")
SQUARE_MILLIMETRES = DicomCode("mm2", "UCUM", "square millimeter")
IMAGING_PROCEDURE = DicomCode("363679005", "SCT", "Imaging procedure")
"""What was done to get the image, in the widest sense of context group 100: a header says no more."""


def areas(source: DicomSource, mask: npt.NDArray[Any], segments: Sequence[Segment]) -> tuple[npt.NDArray[Any], str]:
    """Return the area of each segment in each frame.

    Args:
        source: what was predicted.
        mask: a decided mask as ``build_segmentation`` takes it.
        segments: one for each class.

    Returns:
        ``(F, S)`` float64, and the unit: ``"mm2"`` when the spacing holds in the patient, else ``"{pixels}"``.

    Raises:
        InputError: when the mask does not fit the source or the segments.
    """
    shape = (source.frames, source.rows, source.columns)
    counts = binary_planes(mask, shape, len(check_segments(segments))).sum(axis=(1, 2), dtype=np.float64)
    size = source.spacing.pixel_mm2
    return (counts, PIXELS.value) if size is None else (counts * size, SQUARE_MILLIMETRES.value)


def reported_areas(values: npt.NDArray[Any]) -> list[float]:
    """Return the areas in the order in which a report lists them.

    Args:
        values: ``(F, S)`` as ``areas`` gives them.

    Returns:
        Those above 0, segment by segment, and one 0 for a segment found in no frame.
    """
    return [float(value) for column in values.T for value in (column[column > 0] if column.any() else [0.0])]


def build_report(
    source: DicomSource,
    seg: Dataset,
    mask: npt.NDArray[Any],
    segments: Sequence[Segment],
    identity: Identity,
    flags: Flags | None = None,
) -> Dataset:
    """Build a structured report of the areas in a mask.

    Each segment has one measurement group for each frame in which it was found, with a reference to the frame of the
    segmentation; a segment found nowhere has one group that says so with the area 0. A group carries the quality flags
    of its frame, and the group of a segment found nowhere those of the whole case, as qualitative evaluations.

    Args:
        source: what was predicted.
        seg: its binary segmentation, as ``build_segmentation`` gives it.
        mask: the mask in it.
        segments: one for each class.
        identity: who made it, and its UIDs.
        flags: names of quality flags, of at most 16 characters each; default none.

    Returns:
        The object, complete but not yet written.

    Raises:
        InputError: when the mask does not fit, or ``seg`` is not its binary segmentation.
        MissingExtraError: when highdicom is not installed.
    """
    highdicom = require("highdicom", "clinical")
    if seg.get("SegmentationType") != "BINARY" or not str(seg.SOPInstanceUID):
        raise InputError("a report refers to a binary segmentation, whose frames each show one segment")
    values, unit = areas(source, mask, segments)
    flags = flags or {}
    told = "".join(f" {frame}: {' '.join(flags[frame])}" for frame in _frames_with_groups(values) if flags.get(frame))
    arguments = common_arguments("sr", source, identity, digest_of(values) + str(seg.SOPInstanceUID) + told)
    with guarded("build the report"):
        groups = list(_groups(highdicom, source, seg, segments, identity, values, unit, flags))
        report = highdicom.sr.MeasurementReport(
            observation_context=_observer(highdicom, identity),
            procedure_reported=IMAGING_PROCEDURE,
            imaging_measurements=groups,
            title=DicomCode("126000", "DCM", "Imaging Measurement Report"),
        )
        made = highdicom.sr.Comprehensive3DSR(
            evidence=[*source.stand_ins(), _reference_to(seg, source)],
            content=report,
            is_complete=True,
            is_verified=False,
            series_description="msrf-monai measurements",
            **arguments,
        )
        finish(made, source, identity)
    return made  # type: ignore[no-any-return]


def _groups(
    highdicom: Any,
    source: DicomSource,
    seg: Dataset,
    segments: Sequence[Segment],
    identity: Identity,
    values: npt.NDArray[Any],
    unit: str,
    flags: Flags,
) -> Iterator[Any]:
    frames = _frames_of(seg, source)
    for segment in segments:
        column = values[:, segment.number - 1]
        found = [int(frame) for frame in np.flatnonzero(column)]
        for frame in found:
            common = _common(highdicom, segment, identity, source, float(column[frame]), unit, frame)
            yield highdicom.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                referenced_segment=_segment_frame(highdicom, source, seg, frames, segment.number, frame),
                qualitative_evaluations=_evaluations(highdicom, flags.get(frame, ())),
                **common,
            )
        if not found:
            common = _common(highdicom, segment, identity, source, 0.0, unit, None)
            yield highdicom.sr.MeasurementsAndQualitativeEvaluations(
                source_images=_sources(highdicom, source),
                qualitative_evaluations=_evaluations(highdicom, flags.get(None, ())),
                **common,
            )


def _common(
    highdicom: Any,
    segment: Segment,
    identity: Identity,
    source: DicomSource,
    value: float,
    unit: str,
    frame: int | None,
) -> dict[str, Any]:
    parts = (str(segment.number), *source.instance_uids)
    # a segment of a still image is the thing that its segmentation tracks under the same UID
    parts = parts if frame is None or source.frames == 1 else (*parts, str(frame))
    algorithm = highdicom.sr.AlgorithmIdentification(
        name=identity.producer.short_model, version=identity.producer.short_version
    )
    named = SQUARE_MILLIMETRES if unit == SQUARE_MILLIMETRES.value else PIXELS
    sites = [highdicom.sr.FindingSite(anatomic_location=coded(segment.anatomy))] if segment.anatomy else None
    return {
        "tracking_identifier": highdicom.sr.TrackingIdentifier(
            uid=identity.uid("tracking", *parts), identifier=segment.label
        ),
        "finding_type": coded(segment.kind),
        "finding_sites": sites,
        "measurements": [highdicom.sr.Measurement(name=AREA, value=value, unit=named, algorithm_id=algorithm)],
    }


def _frames_with_groups(values: npt.NDArray[Any]) -> list[int | None]:
    """Return frames in order, and None at the end when there is a group of a segment found nowhere."""
    frames: list[int | None] = [int(frame) for frame in np.flatnonzero(values.any(axis=1))]
    return frames if values.any(axis=0).all() else [*frames, None]


def _evaluations(highdicom: Any, flags: Sequence[str]) -> list[Any] | None:
    return [
        highdicom.sr.QualitativeEvaluation(QUALITY_FLAG, DicomCode(flag, OWN_SCHEME, flag.replace("_", " ")))
        for flag in flags
    ] or None


def _segment_frame(
    highdicom: Any, source: DicomSource, seg: Dataset, frames: dict[tuple[int, int], int], segment: int, frame: int
) -> Any:
    header = source.headers[frame if len(source.headers) > 1 else 0]
    item = highdicom.sr.ReferencedSegmentationFrame(
        sop_class_uid=str(seg.SOPClassUID),
        sop_instance_uid=str(seg.SOPInstanceUID),
        frame_number=frames[segment, frame],
        segment_number=segment,
        source_image=highdicom.sr.SourceImageForSegmentation(
            str(header.SOPClassUID),
            str(header.SOPInstanceUID),
            [frame + 1] if len(source.headers) == 1 and source.frames > 1 else None,
        ),
    )
    # the standard allows the number of the frame or of the segment, not both
    del item[0].ReferencedSOPSequence[0].ReferencedSegmentNumber
    return item


def _frames_of(seg: Dataset, source: DicomSource) -> dict[tuple[int, int], int]:
    """Return, for each segment and frame of the source, the number of the segmentation's frame."""
    return {
        (int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber), frame_of(group, source)): number
        for number, group in enumerate(seg.PerFrameFunctionalGroupsSequence, start=1)
    }


def _sources(highdicom: Any, source: DicomSource) -> list[Any]:
    return [
        highdicom.sr.SourceImageForMeasurementGroup(str(header.SOPClassUID), str(header.SOPInstanceUID))
        for header in source.headers
    ]


def _observer(highdicom: Any, identity: Identity) -> Any:
    producer = identity.producer
    device = highdicom.sr.DeviceObserverIdentifyingAttributes(
        uid=identity.uid("device"),
        name=producer.short_model,
        manufacturer_name=producer.manufacturer,
        model_name=producer.short_model,
        serial_number=producer.serial_number,
    )
    return highdicom.sr.ObservationContext(
        observer_device_context=highdicom.sr.ObserverContext(
            observer_type=DicomCode("121007", "DCM", "Device"), observer_identifying_attributes=device
        )
    )


def _reference_to(seg: Dataset, source: DicomSource) -> Dataset:
    """Return what a report needs of a segmentation, without the patient."""
    made = source.stand_ins(placed=False)[0]
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for name in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality"):
        setattr(made, name, str(seg[name].value))
    return made
