"""Read an object back from its bytes and compare it with what was meant, before it counts as written."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset

from msrf_monai.clinical.writing.contours import filled
from msrf_monai.clinical.writing.source import DicomSource
from msrf_monai.clinical.writing.tolerance import REFUSALS, without_validation
from msrf_monai.errors import StorageError

__all__ = ["check_numbers", "check_outlines", "check_pixels", "check_segmentation", "frame_of", "read_planes"]


def read_planes(content: bytes, source: DicomSource, segments: int) -> npt.NDArray[np.uint8]:
    """Return what a segmentation shows of each frame of its source.

    Each stored frame is put where its own reference to the source says, never where its order suggests; frames that
    were left out because they are empty come back as zeros.

    Args:
        content: the bytes of the file.
        source: what was predicted.
        segments: how many segments there are.

    Returns:
        ``(F, H, W, S)`` uint8 as stored.

    Raises:
        StorageError: when the object cannot be read, or refers to something else.
    """
    try:
        with without_validation():
            seg = pydicom.dcmread(io.BytesIO(content))
            stored = seg.pixel_array.reshape(-1, source.rows, source.columns)
            planes = np.zeros((source.frames, source.rows, source.columns, segments), dtype=np.uint8)
            groups = seg.PerFrameFunctionalGroupsSequence
            for pixels, group in zip(stored, groups, strict=True):
                frame = frame_of(group, source)
                if seg.SegmentationType == "LABELMAP":
                    planes[frame] = pixels[..., None] == np.arange(1, segments + 1)
                else:
                    number = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
                    planes[frame, :, :, number - 1] = pixels
            return planes
    except REFUSALS as error:
        raise StorageError(
            f"the segmentation cannot be read back ({type(error).__name__}); it was not kept. Please report this"
        ) from None


def check_segmentation(content: bytes, source: DicomSource, expected: npt.NDArray[np.uint8]) -> None:
    """Compare a segmentation, bit for bit, with what it was made from.

    Args:
        content: the bytes of the file.
        source: what was predicted.
        expected: ``(F, H, W, S)`` as ``stored_planes`` gives it.

    Raises:
        StorageError: when one pixel, one frame's reference or one position differs.
    """
    planes = read_planes(content, source, expected.shape[3])
    different = int(np.count_nonzero(planes != expected))
    if different:
        raise StorageError(
            f"{different} of {expected.size} pixels of the segmentation came back changed; it was not kept. "
            "Check the disk and the memory, then run again"
        )


def check_pixels(content: bytes, expected: npt.NDArray[Any]) -> None:
    """Compare the pixels of an uncompressed object with what they were made from.

    Raises:
        StorageError: when it cannot be read, or one pixel differs.
    """
    try:
        with without_validation():
            pixels = pydicom.dcmread(io.BytesIO(content)).pixel_array
    except REFUSALS as error:
        raise StorageError(f"the object cannot be read back ({type(error).__name__}); it was not kept") from None
    if not np.array_equal(pixels.reshape(expected.shape), expected):
        raise StorageError(
            "the pixels of the object came back changed; it was not kept. Check the disk, then run again"
        )


def check_numbers(content: bytes, expected: Sequence[float]) -> None:
    """Compare the numbers of a structured report with those that it was made from.

    Args:
        content: the bytes of the file.
        expected: the numbers, in the order of the report.

    Raises:
        StorageError: when it cannot be read, or a number is missing or differs by more than DICOM's 16 digits may.
    """
    try:
        with without_validation():
            found = list(_numbers(pydicom.dcmread(io.BytesIO(content))))
    except REFUSALS as error:
        raise StorageError(f"the report cannot be read back ({type(error).__name__}); it was not kept") from None
    if len(found) != len(expected) or not np.allclose(found, list(expected), rtol=1e-9, atol=0):
        raise StorageError("the numbers of the report came back changed; it was not kept. Check the disk, run again")


def check_outlines(content: bytes, source: DicomSource, expected: npt.NDArray[np.uint8]) -> None:
    """Fill the outlines of a presentation state and compare them, pixel for pixel, with the mask.

    Args:
        content: the bytes of the file.
        source: what was predicted.
        expected: ``(F, H, W, S)`` of 0 and 1, as ``stored_planes`` gives it.

    Raises:
        StorageError: when it cannot be read, or encloses other pixels.
    """
    planes = np.zeros_like(expected)
    try:
        with without_validation():
            for item in pydicom.dcmread(io.BytesIO(content)).get("GraphicAnnotationSequence", []):
                segment = int(str(item.GraphicLayer).removeprefix("MSRF")) - 1
                lines = [np.reshape(one.GraphicData, (-1, 2)) for one in item.GraphicObjectSequence]
                frame = _drawn_frame(item.ReferencedImageSequence[0], source)
                planes[frame, :, :, segment] = filled(lines, source.rows, source.columns)
    except REFUSALS as error:
        raise StorageError(f"the outlines cannot be read back ({type(error).__name__}); they were not kept") from None
    if not np.array_equal(planes, expected):
        raise StorageError("the outlines enclose other pixels than the mask; they were not kept. Please report this")


def _drawn_frame(reference: Dataset, source: DicomSource) -> int:
    if len(source.headers) == 1 and source.frames > 1:
        return int(reference.ReferencedFrameNumber) - 1
    return source.instance_uids.index(str(reference.ReferencedSOPInstanceUID))


def _numbers(item: Dataset) -> Iterator[float]:
    for value in item.get("MeasuredValueSequence", []):
        yield float(value.NumericValue)
    for child in item.get("ContentSequence", []):
        yield from _numbers(child)


def frame_of(group: Dataset, source: DicomSource) -> int:
    """Return the frame of the source that a frame of a segmentation is about.

    Args:
        group: its item of the per-frame functional groups.
        source: what was predicted.

    Returns:
        The frame's index, from 0.

    Raises:
        ValueError: when it refers to something else.
    """
    references: Sequence[Dataset] = group.DerivationImageSequence[0].SourceImageSequence
    if len(references) != 1:
        raise ValueError("a frame refers to several frames of the source")
    reference = references[0]
    index = source.instance_uids.index(str(reference.ReferencedSOPInstanceUID))
    header = source.headers[index]
    if str(reference.ReferencedSOPClassUID) != str(header.SOPClassUID):
        raise ValueError("a frame refers to another kind of object")
    if len(source.headers) == 1 and source.frames > 1:
        return int(reference.ReferencedFrameNumber) - 1
    if source.layout == "slices" and "ImagePositionPatient" in header:
        _check_position(group, header)
    return index


def _check_position(group: Dataset, header: Dataset) -> None:
    written = np.array([float(part) for part in group.PlanePositionSequence[0].ImagePositionPatient])
    if not np.allclose(written, [float(part) for part in header.ImagePositionPatient], rtol=0, atol=1e-3):
        raise ValueError("a frame stands at another position than its source")
