"""What reading gives and writing needs: one image or volume, all that is known about it, and its pixels lazily.

Everywhere in ``msrf_monai.clinical`` pixels are rows and columns as DICOM and NumPy speak of them: ``(H, W)`` or
``(H, W, 3)``; only the predictor turns them into MONAI's ``(C, W, H)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from msrf_monai.errors import InputError

__all__ = ["Case", "ImageInfo", "ImageKind", "PixelSource", "SopReference", "Vector", "Window"]

ImageKind = Literal["dicom", "dicom-volume", "raster", "nifti", "metaimage", "slide"]
"""What the input is; told by content, never by the file's name."""

Vector = tuple[float, float, float]
"""A point or a direction in the patient's coordinates, in millimetres where it is a point."""


@dataclass(frozen=True)
class SopReference:
    """The DICOM object that one or all frames of a case come from."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


@dataclass(frozen=True)
class Window:
    """A window that the file proposes; it is never applied by reading, because the bundle decides."""

    centre: float
    width: float
    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"] = "LINEAR"


@dataclass(frozen=True)
class ImageInfo:
    """What is known about a case before a pixel is decoded. Nothing here names a patient."""

    kind: ImageKind
    rows: int
    """Height of the pixels as ``Case.frame`` gives them (upright, that is after the EXIF orientation)."""
    columns: int
    """Width of the same."""
    frames: int = 1
    """Frames of a file or slices of a volume; each is one item for a 2-D network."""
    samples: int = 1
    """1: frames are ``(H, W)``; 3: frames are RGB ``(H, W, 3)``."""
    dtype: Literal["uint8", "uint16", "float32"] = "uint8"
    """Type of the frames; float32 wherever values are rescaled, signed or deeper than 16 bits."""
    photometric: str = ""
    """As stored: DICOM's photometric interpretation, or the raster file's mode (``"RGB"``, ``"P"``, ``"1"``, …)."""
    white: float | None = None
    """The value that stands for white (255, 4095, …); None when values carry a unit or the file does not say."""
    value_unit: str = ""
    """Unit of rescaled values as the file gives it, such as ``"HU"``; empty when it does not."""
    modality: str = ""
    """DICOM modality (``"CT"``, ``"OP"``, …); empty outside DICOM."""
    spacing_mm: tuple[float, float] | None = None
    """Distance between rows, then between columns, of the pixels as given; None when the file tells nothing."""
    spacing_is_real: bool = False
    """True when ``spacing_mm`` holds in the patient; False for a detector's or scanner's plane, and when it is None."""
    spacing_source: str = ""
    """The attribute that ``spacing_mm`` comes from, such as ``"PixelSpacing"``."""
    slice_spacing_mm: float | None = None
    """Distance between neighbouring slices of a volume."""
    orientation: tuple[Vector, Vector] | None = None
    """Direction of a row (along increasing columns), then of a column; unit vectors; the same for all frames."""
    positions_mm: tuple[Vector, ...] | None = None
    """Centre of the first pixel, for each frame."""
    frame_of_reference_uid: str | None = None
    affine: tuple[tuple[float, float, float, float], ...] | None = None
    """NIfTI and MetaImage: the voxel-to-world matrix (4 x 4) in NIfTI's axes (RAS, mm); NIfTI's own is unchanged."""
    stored_shape: tuple[int, ...] = ()
    """NIfTI and MetaImage: the file's array shape, to write results of the same shape."""
    exif_orientation: int = 1
    """1..8: how the stored picture was turned to give the pixels; 1 is not at all. Writers turn masks back."""
    windows: tuple[Window, ...] = ()
    sop: tuple[SopReference, ...] = ()
    """One for the file, or one for each slice of a volume; empty outside DICOM."""
    transfer_syntax_uid: str = ""
    is_lossy: bool = False
    """True when a compression that changes values has been applied, as far as the file says."""
    not_a_picture: str = ""
    """What a DICOM object is instead of a picture of a patient, such as ``"a segmentation"``; else empty."""
    notes: tuple[str, ...] = ()
    """Stable words for what was unusual and tolerated, such as ``"unusual_high_bit"``; see the reading page."""


class PixelSource(Protocol):
    """Where a case's frames come from; reading has one for each kind of input."""

    def frame(self, index: int) -> npt.NDArray[Any]:
        """Return frame ``index`` as ``ImageInfo`` describes it."""
        ...  # pragma: no cover


@dataclass(frozen=True)
class Case:
    """One input that can be predicted: a single image, a clip, or a checked volume."""

    digest: str
    """SHA-256 (hexadecimal) of the file; of a volume, of its files' digests in slice order."""
    sources: tuple[Path, ...]
    """The file; of a volume, one file a slice, in slice order."""
    info: ImageInfo
    pixels: PixelSource = field(repr=False, compare=False)

    def frame(self, index: int = 0) -> npt.NDArray[Any]:
        """Decode one frame.

        Args:
            index: 0 to ``info.frames - 1``.

        Returns:
            ``(H, W)`` or ``(H, W, 3)`` (RGB) of ``info.dtype``; the caller may write into it.

        Raises:
            InputError: when there is no such frame.
            RefusedInput: when the file is damaged, has changed since it was opened, or breaks a limit.
        """
        if not 0 <= index < self.info.frames:
            raise InputError(f"frame {index} was asked for, and this case has the frames 0 to {self.info.frames - 1}")
        pixels = self.pixels.frame(index)
        shape = (self.info.rows, self.info.columns) + ((3,) if self.info.samples == 3 else ())
        if pixels.shape != shape or pixels.dtype != np.dtype(self.info.dtype):
            raise InputError(
                f"frame {index} came as {pixels.shape} {pixels.dtype}, and {shape} {self.info.dtype} was announced; "
                "this is a fault of the reader: please report it"
            )
        return pixels

    def iter_frames(self) -> Iterator[npt.NDArray[Any]]:
        """Yield every frame in order, one in memory at a time; raises as ``frame`` does."""
        for index in range(self.info.frames):
            yield self.frame(index)
