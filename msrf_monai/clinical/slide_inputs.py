"""Tell whole slides from pictures and DICOM images, from their headers alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from msrf_monai.clinical.reading import Limits, RefusedInput
from msrf_monai.clinical.slides import SlideLimits, open_slide
from msrf_monai.clinical.slides.dicom import WsiIdentity, identity_of
from msrf_monai.clinical.slides.files import SlideFile
from msrf_monai.clinical.slides.makers import makers_slide, may_be_makers
from msrf_monai.clinical.slides.tiff_structure import is_tiff
from msrf_monai.errors import MissingExtraError

__all__ = ["PART_OF_ANOTHER", "DicomSlide", "dicom_slides", "files_of_slide", "head_limits", "is_dicom_slide"]

PART_OF_ANOTHER = "part_of_another"
"""The code of a file that another one names as a part of its own, such as a slide its pictures."""
_SOP_CLASS = b"1.2.840.10008.5.1.4.1.1.77.1.6"


def head_limits(limits: Limits) -> Limits:
    """Return bounds to look at the beginning of a file with: a slide may be larger than what is read as a whole."""
    return replace(limits, file_bytes=max(limits.file_bytes, SlideLimits().file_bytes))


def is_dicom_slide(head: bytes) -> bool:
    """Return whether a DICOM file's first 512 bytes, which hold its class, say that it is of a whole slide."""
    return _SOP_CLASS in head


@dataclass(frozen=True)
class DicomSlide:
    """The files of a whole slide, which is a series in a folder."""

    files: tuple[str, ...]
    instances: tuple[str, ...]
    """SOP Instance UID of each file; empty where it has none."""

    @property
    def key(self) -> str:
        """What names it wherever its files lie, and tells it from a part of it."""
        return f"slide:{' '.join(sorted(self.instances))}" if all(self.instances) else ""


def dicom_slides(paths: Iterable[Path]) -> list[DicomSlide]:
    """Group DICOM files of whole slides.

    Args:
        paths: the files.

    Returns:
        Each slide, its files sorted.
    """
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for path in paths:
        found = identity_of(path, SlideLimits()) or WsiIdentity(str(path), "")
        groups.setdefault((str(path.parent), found.series), []).append((str(path), found.instance))
    return [DicomSlide(*zip(*sorted(slide), strict=True)) for slide in groups.values()]


def files_of_slide(path: Path, head: bytes, limits: Limits) -> tuple[str, ...]:
    """Return the files of a slide that is no DICOM, this one first; nothing when the file is none.

    Args:
        path: the file.
        head: its first bytes.
        limits: of pictures.

    Raises:
        RefusedInput: when it is in a maker's format, and files of it are missing or its settings make no sense.
    """
    if not may_be_makers(path, head):
        return ()
    of_slide = SlideLimits()
    with SlideFile(path, of_slide) as file:
        makers = makers_slide(file, of_slide)
    if makers is not None:
        return str(path), *map(str, makers.companions)
    return (str(path),) if _is_tiff_slide(path, head, limits) else ()


def _is_tiff_slide(path: Path, head: bytes, limits: Limits) -> bool:
    """Return whether a file is a tiled TIFF that has several levels, or is no picture by its size."""
    if not is_tiff(head):
        return False
    try:
        with open_slide(path) as slide:
            finest = slide.info.levels[0]
            return len(slide.info.levels) > 1 or finest.rows * finest.columns > limits.frame_pixels
    except (RefusedInput, MissingExtraError):
        return False  # it is opened as a picture, which says what is wrong with it
