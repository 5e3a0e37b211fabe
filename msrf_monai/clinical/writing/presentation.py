"""Presentation states: the outlines of a mask over the source image, for viewers that know no segmentations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ImageCms
from pydicom.dataset import Dataset

from msrf_monai.clinical.writing.contours import outlines
from msrf_monai.clinical.writing.finish import CREATOR, common_arguments, digest_of, finish
from msrf_monai.clinical.writing.identity import Identity
from msrf_monai.clinical.writing.planes import binary_planes
from msrf_monai.clinical.writing.segments import Segment, check_segments
from msrf_monai.clinical.writing.source import DicomSource
from msrf_monai.clinical.writing.tolerance import guarded
from msrf_monai.optional import require

__all__ = ["build_presentation", "srgb_profile"]

_MOST_POINTS = 8000
"""Points of one line: the value of an element of explicit length ends at 65,534 bytes, 8 of them a point."""


def build_presentation(
    source: DicomSource, mask: npt.NDArray[Any], segments: Sequence[Segment], identity: Identity
) -> Dataset:
    """Build a presentation state with the outlines of every segment, one layer a segment, in the segment's colour.

    Grey images get a greyscale state with the source's own rescale and window, colour images a colour state. Outlines
    run along the edges of pixels, so that what they enclose is the mask.

    Args:
        source: what was predicted.
        mask: a decided mask as ``build_segmentation`` takes it.
        segments: one for each class.
        identity: who made it, and its UIDs.

    Returns:
        The object, complete but not yet written.

    Raises:
        InputError: when the mask does not fit, or the source's kind of image allows no presentation state.
        MissingExtraError: when highdicom is not installed.
    """
    highdicom = require("highdicom", "clinical")
    shape = (source.frames, source.rows, source.columns)
    planes = binary_planes(mask, shape, len(check_segments(segments)))
    arguments = common_arguments("pr", source, identity, digest_of(planes)) | {
        "content_label": "MSRF_MONAI",
        "content_description": ", ".join(segment.label for segment in segments)[:64],
        "content_creator_name": CREATOR,
        "series_description": "msrf-monai outlines",
    }
    with guarded("build the presentation state"):
        images = source.display_stand_ins()
        layers = [_layer(highdicom, segment) for segment in segments]
        annotations = [
            annotation
            for segment, layer in zip(segments, layers, strict=True)
            for annotation in _annotations(highdicom, source, images, planes, segment, layer, identity)
        ]
        drawn = {"graphic_layers": layers, "graphic_annotations": annotations} if annotations else {}
        made = _state(highdicom, source, images)(referenced_images=images, **arguments, **drawn)
        made.Laterality = source.laterality  # type 2C: there, though empty, where the source does not tell
        _show_true_proportions(made.DisplayedAreaSelectionSequence[0], source)
        finish(made, source, identity)
    return made  # type: ignore[no-any-return]


def srgb_profile() -> bytes:
    """Return an sRGB profile of the class that DICOM wants, that of a scanner; Pillow's is a monitor's."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[12:16] = b"scnr"
    # the date of its making, and the digest that covers it, would make every run's bytes different
    profile[24:36] = bytes(12)
    profile[84:100] = bytes(16)
    return bytes(profile)


def _state(highdicom: Any, source: DicomSource, images: Sequence[Dataset]) -> Any:
    if int(images[0].get("SamplesPerPixel") or 1) != 1:
        return _with(highdicom.pr.ColorSoftcopyPresentationState, icc_profile=srgb_profile())
    # the state, not the image's photometric interpretation, says which end of the greys is white
    shape = "INVERSE" if source.header.get("PhotometricInterpretation") == "MONOCHROME1" else "IDENTITY"
    lut = highdicom.PresentationLUTTransformation(presentation_lut_shape=shape)
    return _with(highdicom.pr.GrayscaleSoftcopyPresentationState, presentation_lut_transformation=lut)


def _show_true_proportions(area: Dataset, source: DicomSource) -> None:
    """Say how large pixels are, or at least their proportions: a viewer takes the state's word over the image's."""
    if source.spacing.source:
        del area.PresentationPixelAspectRatio
        area.PresentationPixelSpacing = [f"{source.spacing.rows_mm:.10g}", f"{source.spacing.columns_mm:.10g}"]
    elif source.header.get("PixelAspectRatio"):
        area.PresentationPixelAspectRatio = [int(part) for part in source.header.PixelAspectRatio]


def _with(kind: Any, **fixed: Any) -> Any:
    def build(**arguments: Any) -> Any:
        return kind(**fixed, **arguments)

    return build


def _layer(highdicom: Any, segment: Segment) -> Any:
    return highdicom.pr.GraphicLayer(
        layer_name=f"MSRF{segment.number}",
        order=segment.number,
        description=segment.label,
        display_color=highdicom.color.CIELabColor.from_rgb(*segment.rgb),
    )


def _annotations(
    highdicom: Any,
    source: DicomSource,
    images: Sequence[Dataset],
    planes: npt.NDArray[np.uint8],
    segment: Segment,
    layer: Any,
    identity: Identity,
) -> Iterator[Any]:
    uid = identity.uid("tracking", str(segment.number), *source.instance_uids)
    for frame in range(source.frames):
        lines = [
            highdicom.pr.GraphicObject(
                graphic_type="POLYLINE",
                graphic_data=line,
                units="PIXEL",
                tracking_id=segment.label,
                tracking_uid=uid,
            )
            for outline in outlines(planes[frame, :, :, segment.number - 1] > 0)
            for line in _pieces(outline)
        ]
        if not lines:
            continue
        image = images[frame if len(images) > 1 else 0]
        made = highdicom.pr.GraphicAnnotation([image], layer, graphic_objects=lines)
        if len(images) == 1 and source.frames > 1:
            made.ReferencedImageSequence[0].ReferencedFrameNumber = frame + 1
        yield made


def _pieces(outline: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
    """Cut a long outline into lines that each start where the one before ends."""
    for start in range(0, len(outline) - 1, _MOST_POINTS - 1):
        yield outline[start : start + _MOST_POINTS]
