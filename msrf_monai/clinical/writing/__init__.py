"""Write results as objects that hospitals can keep: verified, atomic, with the patient taken from the source.

highdicom is imported when a DICOM object is built, not before.
"""

from msrf_monai.clinical.writing.capture import build_capture, draw_segments
from msrf_monai.clinical.writing.finish import encode
from msrf_monai.clinical.writing.identity import Identity, Producer
from msrf_monai.clinical.writing.masks import (
    affine_of,
    as_stored,
    check_nifti,
    check_png,
    encode_nifti,
    encode_png_mask,
)
from msrf_monai.clinical.writing.measurements import Flags, areas, build_report, reported_areas
from msrf_monai.clinical.writing.presentation import build_presentation
from msrf_monai.clinical.writing.segmentation import SegmentationKind, build_segmentation, stored_planes
from msrf_monai.clinical.writing.segments import Code, Segment, segments_from_metadata
from msrf_monai.clinical.writing.source import DicomSource
from msrf_monai.clinical.writing.spacing import Spacing, spacing_of
from msrf_monai.clinical.writing.store import Written, write_verified
from msrf_monai.clinical.writing.verify import (
    check_numbers,
    check_outlines,
    check_pixels,
    check_segmentation,
    read_planes,
)

__all__ = [
    "Code",
    "DicomSource",
    "Flags",
    "Identity",
    "Producer",
    "Segment",
    "SegmentationKind",
    "Spacing",
    "Written",
    "affine_of",
    "areas",
    "as_stored",
    "build_capture",
    "build_presentation",
    "build_report",
    "build_segmentation",
    "check_nifti",
    "check_numbers",
    "check_outlines",
    "check_pixels",
    "check_png",
    "check_segmentation",
    "draw_segments",
    "encode",
    "encode_nifti",
    "encode_png_mask",
    "read_planes",
    "reported_areas",
    "segments_from_metadata",
    "spacing_of",
    "stored_planes",
    "write_verified",
]
