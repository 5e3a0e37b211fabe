"""The files that a prediction can become: their names, their bytes, and how each is checked."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import nibabel
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from msrf_monai.clinical.case import Case, ImageInfo
from msrf_monai.clinical.display import Display
from msrf_monai.clinical.prediction import Prediction
from msrf_monai.clinical.writing import (
    DicomSource,
    Flags,
    Identity,
    Segment,
    areas,
    as_stored,
    build_capture,
    build_presentation,
    build_report,
    build_segmentation,
    check_nifti,
    check_numbers,
    check_outlines,
    check_pixels,
    check_png,
    check_segmentation,
    draw_segments,
    encode,
    encode_nifti,
    encode_png_mask,
    reported_areas,
    stored_planes,
)
from msrf_monai.errors import StorageError

__all__ = ["Artefact", "dicom_artefacts", "grid_affine", "grid_artefacts", "mask_values"]

MOST_PROBABLE = 65535
"""What a 16-bit PNG stores for probability 1."""

Affine = npt.NDArray[np.float64]
_PLAIN_GRIDS = ("nifti", "metaimage")


@dataclass(frozen=True)
class Artefact:
    """A file that is made and not yet written."""

    kinds: tuple[str, ...]
    """The outputs that it is; a mask of several frames is ``mask`` and ``nifti`` in one."""
    name: str
    content: bytes
    check: Callable[[bytes], None]
    """Raises an error when the bytes read back are not what was meant."""


def mask_values(info: ImageInfo, segments: int) -> dict[str, int]:
    """Return the value of each class in the file ``mask``.

    Args:
        info: of the input.
        segments: how many there are.

    Returns:
        ``"0"`` (background), ``"1"``, … to the stored value: a PNG of one class holds 0 and 255, so that people see
        it; several classes, and every NIfTI file, hold the numbers of the classes.
    """
    if segments == 1 and _as_picture(info):
        return {"0": 0, "1": 255}
    return {str(number): number for number in range(segments + 1)}


def grid_artefacts(
    case: Case, prediction: Prediction, segments: Sequence[Segment], kinds: Collection[str]
) -> Iterator[Artefact]:
    """Make masks and probabilities on the source's own pixels: PNG for a single picture, NIfTI for all else.

    Args:
        case: what was predicted.
        prediction: of it.
        segments: one for each class.
        kinds: those of ``mask``, ``nifti`` and ``prob`` that are wanted; others are passed over.

    Yields:
        Each file; pictures lie on the stored pixels, that is before the EXIF orientation was applied.
    """
    info = case.info
    mask = prediction.mask
    if "mask" in kinds and _as_picture(info):
        stored = as_stored(mask[0], info.exif_orientation)
        stored = stored * np.uint8(mask_values(info, len(segments))["1"])
        yield Artefact(("mask",), "mask.png", encode_png_mask(stored), partial(check_png, expected=stored))
    in_one = tuple(kind for kind in ("mask", "nifti") if kind in kinds and not (kind == "mask" and _as_picture(info)))
    if in_one:
        yield _nifti(in_one, "mask.nii.gz", info, mask)
    if "prob" in kinds and prediction.probabilities is not None:
        for segment in segments:
            plane = prediction.probabilities[:, segment.number - 1].astype(np.float32)
            name = "prob" if len(segments) == 1 else f"prob_{segment.number}"
            yield (
                _png_of_probability(name, info, plane)
                if _as_picture(info)
                else _nifti(("prob",), f"{name}.nii.gz", info, plane)
            )


def dicom_artefacts(
    case: Case,
    prediction: Prediction,
    segments: Sequence[Segment],
    identity: Identity,
    kinds: Collection[str],
    viewer_geometry: bool,
    flags: Flags | None = None,
) -> Iterator[Artefact]:
    """Make the DICOM objects of an input that came as DICOM.

    Args:
        case: what was predicted; its headers are read again.
        prediction: of it.
        segments: one for each class.
        identity: who made it, and its UIDs.
        kinds: those of ``seg``, ``labelmap``, ``fractional``, ``sr``, ``pr`` and ``overlay-sc`` that are wanted;
            others are passed over. ``sr`` needs ``seg``.
        viewer_geometry: see ``build_segmentation``.
        flags: see ``build_report``.

    Yields:
        Each file.

    Raises:
        InputError: when the source's headers cannot be referred to.
        MissingExtraError: when highdicom is not installed.
    """
    if not set(kinds) & {"seg", "labelmap", "fractional", "sr", "pr", "overlay-sc"}:
        return
    source = DicomSource.of_case(case)
    mask = prediction.mask
    if "seg" in kinds:
        seg = build_segmentation(source, mask, segments, identity, viewer_geometry=viewer_geometry)
        yield _segmentation("seg", seg, source, stored_planes(source, mask, segments))
        if "sr" in kinds:
            numbers = reported_areas(areas(source, mask, segments)[0])
            report = build_report(source, seg, mask, segments, identity, flags)
            yield Artefact(("sr",), "sr.dcm", encode(report), partial(check_numbers, expected=numbers))
    if "labelmap" in kinds:
        labels = build_segmentation(source, mask, segments, identity, kind="labelmap", viewer_geometry=viewer_geometry)
        yield _segmentation("labelmap", labels, source, stored_planes(source, mask, segments, "labelmap"))
    if "fractional" in kinds and prediction.probabilities is not None:
        fractions = np.moveaxis(prediction.probabilities, 1, 3).astype(np.float32)
        made = build_segmentation(
            source, fractions, segments, identity, kind="fractional", viewer_geometry=viewer_geometry
        )
        yield _segmentation("fractional", made, source, stored_planes(source, fractions, segments, "fractional"))
    if "pr" in kinds:
        outlined = build_presentation(source, mask, segments, identity)
        planes = stored_planes(source, mask, segments)
        yield Artefact(("pr",), "pr.dcm", encode(outlined), partial(check_outlines, source=source, expected=planes))
    if "overlay-sc" in kinds:
        drawn = _drawn(case, prediction, segments)
        capture = build_capture(source, drawn, identity)
        yield Artefact(("overlay-sc",), "overlay-sc.dcm", encode(capture), partial(check_pixels, expected=drawn))


def grid_affine(info: ImageInfo) -> Affine:
    """Return the matrix from (column, row, frame) to millimetres right, anterior and superior of a NIfTI mask.

    Args:
        info: of the input. Its own matrix is kept where it came as NIfTI; frames of DICOM that lie behind each other
            at equal distances keep their place; all others lie on their own pixels, at the spacing that is stated.

    Returns:
        4x4.
    """
    if info.affine is not None:
        return np.array(info.affine, dtype=np.float64)
    lps = np.eye(4)
    if info.spacing_mm is not None:
        lps[0, 0], lps[1, 1] = info.spacing_mm[1], info.spacing_mm[0]
        step = _step(info)
        if info.orientation is not None and info.positions_mm is not None and step is not None:
            lps[:3, 0] = np.array(info.orientation[0]) * info.spacing_mm[1]
            lps[:3, 1] = np.array(info.orientation[1]) * info.spacing_mm[0]
            lps[:3, 2] = step
            lps[:3, 3] = info.positions_mm[0]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def _step(info: ImageInfo) -> npt.NDArray[np.float64] | None:
    """Return the way from one frame to the next, or None when no one way leads from each to the next."""
    if info.orientation is None or info.positions_mm is None:
        return None
    along_row, along_column = (np.array(direction) for direction in info.orientation)
    if info.frames == 1:
        return np.asarray(np.cross(along_row, along_column) * (info.slice_spacing_mm or 1.0))
    positions = np.array(info.positions_mm)
    step = (positions[-1] - positions[0]) / (info.frames - 1)
    straight = positions[0] + np.arange(info.frames)[:, None] * step
    length = float(np.linalg.norm(step))
    is_straight = np.allclose(positions, straight, rtol=0, atol=0.01 * length + 1e-6)
    return step if is_straight and length > 0 else None


def _as_picture(info: ImageInfo) -> bool:
    return info.frames == 1 and info.kind not in _PLAIN_GRIDS


def _png_of_probability(name: str, info: ImageInfo, plane: npt.NDArray[np.float32]) -> Artefact:
    stored = as_stored(np.rint(plane[0] * MOST_PROBABLE).astype(np.uint16), info.exif_orientation)
    _, content = cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return Artefact(("prob",), f"{name}.png", bytes(content), partial(check_png, expected=stored))


def _nifti(kinds: tuple[str, ...], name: str, info: ImageInfo, frames: npt.NDArray[np.generic]) -> Artefact:
    if info.frames == 1 and info.exif_orientation != 1:
        frames = as_stored(frames[0], info.exif_orientation)[None]
    affine = grid_affine(info)
    if len(info.stored_shape) in (0, 3):
        return Artefact(kinds, name, encode_nifti(frames, affine), partial(check_nifti, expected=frames, affine=affine))
    voxels = np.reshape(frames.transpose(2, 1, 0), info.stored_shape, order="F")
    image: Any = nibabel.Nifti1Image(voxels, affine)  # type: ignore[no-untyped-call]
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1, strip_shears=True)
    image.header.set_xyzt_units("mm")
    content = gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)
    return Artefact(kinds, name, content, partial(_check_voxels, expected=voxels, affine=affine))


def _check_voxels(content: bytes, expected: npt.NDArray[np.generic], affine: Affine) -> None:
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    is_same = np.array_equal(np.asarray(image.dataobj), expected)
    if not (is_same and np.allclose(image.affine, affine, rtol=1e-6, atol=1e-4)):
        raise StorageError("the mask or its place came back changed; it was not kept. Check the disk, then run again")


def _segmentation(kind: str, made: Dataset, source: DicomSource, planes: npt.NDArray[np.uint8]) -> Artefact:
    return Artefact((kind,), f"{kind}.dcm", encode(made), partial(check_segmentation, source=source, expected=planes))


def _drawn(case: Case, prediction: Prediction, segments: Sequence[Segment]) -> npt.NDArray[np.uint8]:
    display = Display.of_case(case)
    drawn = np.empty((*prediction.mask.shape, 3), dtype=np.uint8)
    for index, frame in enumerate(case.iter_frames()):
        drawn[index] = draw_segments(display.picture(frame), prediction.mask[index], segments)[0]
    return drawn
