"""Secondary captures: the picture with its mask drawn over it, which every viewer shows, clips frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID

from msrf_monai.clinical.writing.finish import common_arguments, digest_of, finish
from msrf_monai.clinical.writing.identity import Identity
from msrf_monai.clinical.writing.planes import binary_planes
from msrf_monai.clinical.writing.segments import Segment, check_segments
from msrf_monai.clinical.writing.source import DicomSource
from msrf_monai.clinical.writing.tolerance import guarded
from msrf_monai.errors import InputError
from msrf_monai.optional import require

__all__ = ["build_capture", "draw_segments"]

MULTI_FRAME_TRUE_COLOUR = "1.2.840.10008.5.1.4.1.1.7.4"


def draw_segments(
    pictures: npt.NDArray[np.uint8],
    mask: npt.NDArray[Any],
    segments: Sequence[Segment],
    *,
    opacity: float = 0.25,
) -> npt.NDArray[np.uint8]:
    """Draw each segment over the pictures: tinted and outlined in its colour.

    Args:
        pictures: RGB ``(H, W, 3)`` or ``(F, H, W, 3)``, as a person would see them; not changed.
        mask: a decided mask as ``build_segmentation`` takes it.
        segments: one for each class.
        opacity: of the tint, 0 (outline only) to 1.

    Returns:
        ``(F, H, W, 3)``.

    Raises:
        InputError: when the pictures are not RGB of 8 bits, or the mask has another size.
    """
    # imported here: torch and MONAI come with it
    from msrf_monai.transforms.overlay import draw_overlay

    pictures = pictures[None] if pictures.ndim == 3 else pictures
    if pictures.ndim != 4 or pictures.shape[3] != 3 or pictures.dtype != np.uint8:
        raise InputError(
            f"pictures are RGB (F, H, W, 3) uint8, got {pictures.shape} {pictures.dtype}; window them first"
        )
    planes = binary_planes(mask, pictures.shape[:3], len(check_segments(segments)))
    drawn = np.empty_like(pictures)
    for frame, picture in enumerate(pictures):
        for segment in segments:
            plane = np.ascontiguousarray(planes[frame, :, :, segment.number - 1])
            picture = draw_overlay(picture, plane, opacity=opacity, colours=[segment.rgb])
        drawn[frame] = picture
    return drawn


def build_capture(source: DicomSource, drawn: npt.NDArray[np.uint8], identity: Identity) -> Dataset:
    """Build a secondary capture of pictures that have been drawn upon.

    One frame becomes a plain secondary capture; several become one true colour multi-frame capture, a frame each.

    Args:
        source: what was predicted.
        drawn: RGB ``(F, H, W, 3)``, as ``draw_segments`` gives it.
        identity: who made it, and its UIDs.

    Returns:
        The object, complete but not yet written.

    Raises:
        InputError: when the pictures do not have the source's size.
        MissingExtraError: when highdicom is not installed.
    """
    highdicom = require("highdicom", "clinical")
    expected = (source.frames, source.rows, source.columns, 3)
    if drawn.shape != expected or drawn.dtype != np.uint8:
        raise InputError(f"the capture is {drawn.shape} {drawn.dtype}, and its source needs {expected} uint8")
    arguments = common_arguments("sc", source, identity, digest_of(drawn))
    header = source.header
    with guarded("build the secondary capture"):
        made = highdicom.sc.SCImage(
            pixel_array=drawn[0],
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "F"),
            study_instance_uid=str(header.StudyInstanceUID),
            series_description="msrf-monai overlay, not for measurement",
            **arguments,
        )
        made.PatientOrientation = header.get("PatientOrientation") or None
        made.Laterality = source.laterality
        made.BurnedInAnnotation = "NO" if header.get("BurnedInAnnotation") == "NO" else "YES"
        made.LossyImageCompression = "01" if header.get("LossyImageCompression") == "01" else "00"
        made.SourceImageSequence = DicomSequence([_reference(one) for one in source.headers])
        if source.frames > 1:
            _make_multi_frame(made, source, drawn)
        finish(made, source, identity)
    return made  # type: ignore[no-any-return]


def _reference(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = str(header.SOPClassUID)
    item.ReferencedSOPInstanceUID = str(header.SOPInstanceUID)
    return item


def _make_multi_frame(made: Dataset, source: DicomSource, drawn: npt.NDArray[np.uint8]) -> None:
    made.SOPClassUID = UID(MULTI_FRAME_TRUE_COLOUR)
    made.file_meta.MediaStorageSOPClassUID = UID(MULTI_FRAME_TRUE_COLOUR)
    made.NumberOfFrames = len(drawn)
    if source.layout == "clip" and source.header.get("FrameTime"):
        made.FrameIncrementPointer = 0x00181063
        made.FrameTime = str(source.header.FrameTime)
    else:
        made.FrameIncrementPointer = 0x00182001
        made.PageNumberVector = list(range(1, len(drawn) + 1))
    made.PlanarConfiguration = 0
    content = drawn.tobytes()
    made.PixelData = content + b"\0" * (len(content) % 2)
