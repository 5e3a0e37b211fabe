"""DICOM segmentations: of photographs, clips, CT and MR slices, so that viewers open them and the bits come back."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.coding import Code as DicomCode

from msrf_monai.clinical.writing.finish import CREATOR, common_arguments, digest_of, finish
from msrf_monai.clinical.writing.identity import Identity
from msrf_monai.clinical.writing.planes import FRACTION_OF_ONE, binary_planes, fraction_planes, label_frames
from msrf_monai.clinical.writing.segments import Code, Segment, check_segments
from msrf_monai.clinical.writing.source import DicomSource
from msrf_monai.clinical.writing.tolerance import guarded
from msrf_monai.errors import ConfigError
from msrf_monai.optional import require

__all__ = ["SegmentationKind", "build_segmentation", "coded", "describe_segment", "stored_planes"]

SegmentationKind = Literal["binary", "fractional", "labelmap"]
"""``binary``: one bit a pixel and segment, what every viewer opens; ``fractional``: probabilities in steps of 1/255;
``labelmap``: class numbers, small, and not yet known to many viewers."""

_ROLES = {"binary": "seg", "fractional": "fractional", "labelmap": "labelmap"}


def stored_planes(
    source: DicomSource, mask: npt.NDArray[Any], segments: Sequence[Segment], kind: SegmentationKind = "binary"
) -> npt.NDArray[np.uint8]:
    """Return what a segmentation of ``mask`` stores, to be compared with what is read back.

    Args:
        source: what was predicted.
        mask: see ``build_segmentation``.
        segments: one for each class.
        kind: of segmentation.

    Returns:
        ``(F, H, W, S)`` uint8: 0 and 1, or 0 to 255 for ``fractional``.

    Raises:
        ConfigError: when ``kind`` is unknown, or the segments are not numbered 1, 2, ….
        InputError: when the mask does not fit the source or the segments.
    """
    if kind not in _ROLES:
        raise ConfigError(f"a segmentation is binary, fractional or labelmap, got {kind!r}")
    shape = (source.frames, source.rows, source.columns)
    count = len(check_segments(segments))
    if kind == "fractional":
        return fraction_planes(mask, shape, count)
    planes = binary_planes(mask, shape, count)
    if kind == "labelmap":
        label_frames(planes)
    return planes


def build_segmentation(
    source: DicomSource,
    mask: npt.NDArray[Any],
    segments: Sequence[Segment],
    identity: Identity,
    *,
    kind: SegmentationKind = "binary",
    viewer_geometry: bool = True,
) -> Dataset:
    """Build a DICOM segmentation object of a mask or a probability map.

    Args:
        source: what was predicted.
        mask: class numbers ``(H, W)`` or ``(F, H, W)``, or ``(F, H, W, S)`` of 0 and 1 where segments may overlap; for
            ``fractional`` probabilities in [0, 1], ``(H, W)``, ``(F, H, W)`` or ``(F, H, W, S)``.
        segments: one for each class, numbered 1, 2, ….
        identity: who made it, and its UIDs.
        kind: of segmentation.
        viewer_geometry: give a still image that has no place in the patient one on its own grid, without which OHIF
            and 3D Slicer refuse its segmentation. The standard means those attributes for real places, so the series
            description says so. Never done for a clip: OHIF would paint all its frames onto the first.

    Returns:
        The object, complete but not yet written.

    Raises:
        ConfigError: when ``kind`` is unknown, or the segments are not numbered 1, 2, ….
        InputError: when the mask does not fit, or the source cannot be referred to.
        MissingExtraError: when highdicom is not installed.
    """
    highdicom = require("highdicom", "clinical")
    planes = stored_planes(source, mask, segments, kind)
    role = _ROLES[kind]
    gridded = viewer_geometry and source.layout == "image"
    arguments = common_arguments(role, source, identity, digest_of(planes))
    arguments |= {
        "segmentation_type": kind.upper(),
        "segment_descriptions": [describe_segment(highdicom, segment, source, identity) for segment in segments],
        "max_fractional_value": FRACTION_OF_ONE,
        "content_label": "MSRF_MONAI",
        "content_description": ", ".join(segment.label for segment in segments)[:64],
        "content_creator_name": CREATOR,
        "series_description": f"msrf-monai {role}" + (" (geometry: pixel grid)" if gridded else ""),
    }
    with guarded("build the segmentation"):
        if source.layout == "clip":
            seg = _of_clip(highdicom, source, planes, kind, arguments)
        else:
            seg = highdicom.seg.Segmentation(source.stand_ins(), _pixels(planes, kind), **arguments)
        _identify_each_frame(seg)
        if gridded:
            _place_on_grid(seg, source)
        elif source.layout != "slices":
            # type 2C: there is no plane orientation
            seg.PatientOrientation = source.header.get("PatientOrientation") or None
        finish(seg, source, identity, specimen=True)
    return seg  # type: ignore[no-any-return]


def coded(code: Code) -> DicomCode:
    """Return a code in pydicom's form."""
    return DicomCode(code.value, code.scheme, code.meaning)


def describe_segment(highdicom: Any, segment: Segment, source: DicomSource, identity: Identity) -> Any:
    """Return what highdicom wants to know of a segment: its number, label and codes, and the model that found it."""
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=identity.producer.short_model,
        version=identity.producer.short_version,
        family=DicomCode("123110", "DCM", "Artificial Intelligence"),
    )
    return highdicom.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.label,
        segmented_property_category=coded(segment.category),
        segmented_property_type=coded(segment.kind),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        tracking_uid=identity.uid("tracking", str(segment.number), *source.instance_uids),
        tracking_id=segment.label,
        anatomic_regions=[coded(segment.anatomy)] if segment.anatomy else None,
        display_color=highdicom.color.CIELabColor.from_rgb(*segment.rgb),
    )


def _pixels(planes: npt.NDArray[np.uint8], kind: SegmentationKind) -> npt.NDArray[Any]:
    if kind == "labelmap":
        return label_frames(planes)
    if kind == "fractional":
        # exactly the stored numbers: highdicom rounds 255 times this value
        return planes.astype(np.float64) / FRACTION_OF_ONE
    return planes


def _identify_each_frame(seg: Dataset) -> None:
    """Say of each frame which segment it shows: highdicom may say it once for all, where few readers look."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    for name in ("SegmentIdentificationSequence", "DerivationImageSequence"):
        if name in shared:
            value = shared[name].value
            del shared[name]
            for item in seg.PerFrameFunctionalGroupsSequence:
                setattr(item, name, copy.deepcopy(value))


def _place_on_grid(seg: Dataset, source: DicomSource) -> None:
    header = source.header
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing = [f"{source.spacing.rows_mm:.10g}", f"{source.spacing.columns_mm:.10g}"]
    measures.SliceThickness = "1"
    measures.SpacingBetweenSlices = "1"
    # an image may have a place though it names no frame of reference
    has_place = header.get("ImageOrientationPatient") and header.get("ImagePositionPatient")
    orientation.ImageOrientationPatient = list(header.ImageOrientationPatient) if has_place else [1, 0, 0, 0, 1, 0]
    shared = seg.SharedFunctionalGroupsSequence[0]
    shared.PixelMeasuresSequence = DicomSequence([measures])
    shared.PlaneOrientationSequence = DicomSequence([orientation])
    for item in seg.PerFrameFunctionalGroupsSequence:
        position = Dataset()
        position.ImagePositionPatient = list(header.ImagePositionPatient) if has_place else [0, 0, 0]
        item.PlanePositionSequence = DicomSequence([position])


def _of_clip(
    highdicom: Any,
    source: DicomSource,
    planes: npt.NDArray[np.uint8],
    kind: SegmentationKind,
    arguments: dict[str, Any],
) -> Any:
    """Build a segmentation of one frame, which highdicom can, and repeat its groups for each frame of the clip."""
    dummy = np.ones((1, *planes.shape[1:]), dtype=np.uint8)
    if kind == "labelmap":
        dummy[..., 1:] = 0
    seg = highdicom.seg.Segmentation(source.stand_ins(), _pixels(dummy, kind), **arguments)
    overlap = bool(planes.shape[3] > 1 and ((planes > 0).sum(axis=3) > 1).any())
    seg.SegmentsOverlap = ("UNDEFINED" if kind == "fractional" else "YES") if overlap else "NO"
    _identify_each_frame(seg)
    prototypes = list(seg.PerFrameFunctionalGroupsSequence)
    stack = label_frames(planes)[..., None] if kind == "labelmap" else planes
    chosen = [(s, f) for s in range(stack.shape[3]) for f in range(len(stack)) if stack[f, :, :, s].any()]
    chosen = chosen or [(s, f) for s in range(stack.shape[3]) for f in range(len(stack))]
    _index_by_time(seg, by_segment=kind != "labelmap")
    seg.PerFrameFunctionalGroupsSequence = DicomSequence(
        [_clip_frame(prototypes[s], s + 1, f + 1, by_segment=kind != "labelmap") for s, f in chosen]
    )
    seg.NumberOfFrames = len(chosen)
    frames = np.stack([stack[f, :, :, s] for s, f in chosen])
    packed = np.packbits(frames.ravel(), bitorder="little").tobytes() if kind == "binary" else frames.tobytes()
    seg.PixelData = packed + b"\0" * (len(packed) % 2)
    seg["PixelData"].VR = "OB"
    return seg


def _index_by_time(seg: Dataset, *, by_segment: bool) -> None:
    index = Dataset()
    index.DimensionOrganizationUID = seg.DimensionOrganizationSequence[0].DimensionOrganizationUID
    # a pointer to the referenced frame number itself breaks highdicom's reader
    index.DimensionIndexPointer = 0x00209128
    index.FunctionalGroupPointer = 0x00209111
    index.DimensionDescriptionLabel = "Temporal Position Index"
    seg.DimensionIndexSequence = DicomSequence([*(seg.DimensionIndexSequence if by_segment else ()), index])


def _clip_frame(prototype: Dataset, segment: int, frame: int, *, by_segment: bool) -> Dataset:
    item = copy.deepcopy(prototype)
    content = item.FrameContentSequence[0]
    content.DimensionIndexValues = [segment, frame] if by_segment else [frame]
    content.TemporalPositionIndex = frame
    item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = frame
    return item
