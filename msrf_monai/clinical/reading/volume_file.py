"""What NIfTI and MetaImage files have in common: slices along the third axis, one run of bytes, and one matrix.

A voxel array ``data`` as nibabel gives it (and ``GetArrayFromImage(…).T`` of SimpleITK) becomes frames by one rule::

    frame(k) == data[:, :, k].T

so a frame is ``(H, W)``, its columns run along the first axis and its rows along the second, whatever the matrix says:
nothing is turned for display, and a mask of the same frames lies on the same voxels.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.case import ImageInfo, Vector
from msrf_monai.clinical.reading.dicom_info import direction_cosines
from msrf_monai.clinical.reading.limits import Limits
from msrf_monai.clinical.reading.refusal import RefusalCode, RefusedInput
from msrf_monai.clinical.reading.regular import digest_of, read_regular

__all__ = ["Place", "VolumeFrames", "VoxelLayout", "check_inflated", "joint_digest", "volume_info"]

Affine = npt.NDArray[np.float64]
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class VoxelLayout:
    """How the voxels of one file are stored."""

    shape: tuple[int, ...]
    """The array's shape as the file states it: two axes or more, all beyond the third of length 1."""
    dtype: np.dtype[Any]
    """Type of a stored value, with its byte order."""
    samples: int = 1
    """1, or 3 for colours, which then run fastest."""
    scale: tuple[float, float] | None = None
    """Slope and intercept; None when values mean what they are."""

    @property
    def columns(self) -> int:
        """Length of the first axis."""
        return self.shape[0]

    @property
    def rows(self) -> int:
        """Length of the second axis."""
        return self.shape[1]

    @property
    def slices(self) -> int:
        """Length of the third axis; 1 where there is none."""
        return self.shape[2] if len(self.shape) > 2 else 1

    @property
    def slice_bytes(self) -> int:
        """Bytes of one slice."""
        return self.rows * self.columns * self.samples * self.dtype.itemsize

    @property
    def expected_bytes(self) -> int:
        """Bytes of all voxels."""
        return self.slice_bytes * self.slices

    @property
    def values(self) -> Literal["uint8", "uint16", "float32"]:
        """Type of the frames: as stored for unsigned values of at most 16 bits without a scale, else float32."""
        if self.scale is None and self.dtype.kind == "u" and self.dtype.itemsize <= 2:
            return "uint8" if self.dtype.itemsize == 1 else "uint16"
        return "float32"

    def check(self, limits: Limits) -> None:
        """Hold the claims of the header against the limits, and refuse series of volumes.

        Raises:
            RefusedInput: ``bad_header``, ``too_many_pixels``, ``too_many_frames`` or ``unsupported``.
        """
        if len(self.shape) < 2:
            raise RefusedInput(RefusalCode.BAD_HEADER, "the header states fewer than two axes; export the file again")
        limits.check_size(self.rows, self.columns, self.slices)
        if math.prod(self.shape[3:]) != 1:
            raise RefusedInput(
                RefusalCode.UNSUPPORTED,
                f"the file has {len(self.shape)} axes and more than one volume; save the wanted volume by itself",
            )


class VolumeFrames:
    """The slices of one file; raises ``changed`` when it is no longer the one that was opened.

    Args:
        paths: the file, or the header and the file of its voxels.
        digests: their SHA-256 when they were opened.
        layout: how the voxels are stored.
        limits: bounds, held again whenever the files are read again.
    """

    def __init__(self, paths: Sequence[Path], digests: Sequence[str], layout: VoxelLayout, limits: Limits) -> None:
        self._paths = tuple(paths)
        self._digests = tuple(digests)
        self._layout = layout
        self._limits = limits
        self._files: tuple[bytes, ...] | None = None
        self._voxels: bytes | memoryview | None = None

    def keep(self, files: Sequence[bytes]) -> None:
        """Hold the content of the files until the last slice has been read."""
        self._files = tuple(files)

    def frame(self, index: int) -> npt.NDArray[Any]:
        """Return one slice; see ``Case.frame``."""
        layout = self._layout
        voxels = self._unpacked() if self._voxels is None else self._voxels
        # a volume is read once for all its slices, and need not stay in memory after the last one
        self._voxels = voxels if index < layout.slices - 1 else None
        count = layout.rows * layout.columns * layout.samples
        stored = np.frombuffer(voxels, layout.dtype, count, index * layout.slice_bytes)
        shape = (layout.rows, layout.columns) + ((3,) if layout.samples == 3 else ())
        return self._meant(stored.reshape(shape), index)

    def _unpacked(self) -> bytes | memoryview:
        files, self._files = self._files, None
        if files is None:
            files = tuple(read_regular(path, self._limits) for path in self._paths)
            if any(digest_of(data) != digest for data, digest in zip(files, self._digests, strict=True)):
                raise RefusedInput(RefusalCode.CHANGED, "the file has changed since it was opened; run again")
        return self.voxels(files)

    def voxels(self, files: Sequence[bytes]) -> bytes | memoryview:
        """Find and unpack the bytes of all voxels, ``expected_bytes`` of them at least, in the content of the files."""
        raise NotImplementedError

    def _meant(self, stored: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is refused below
            if self._layout.scale is not None:
                slope, intercept = self._layout.scale
                stored = stored.astype(np.float64)
                stored *= slope
                stored += intercept
            pixels = stored.astype(self._layout.values)
        if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
            raise RefusedInput(
                RefusalCode.NOT_FINITE,
                f"slice {index} holds NaN, infinite or far too large values; give them the value of the background",
            )
        return pixels


@dataclass(frozen=True)
class Place:
    """Where the voxels lie."""

    affine: Affine
    """``(4, 4)``, from voxel indices to millimetres to the right, front and head, as NIfTI has it."""
    source: str
    """What the spacing comes from, such as ``"sform"``; empty when the file states none."""
    is_placed: bool
    """False when the file states spacings at most, so that origin and directions are a convention."""
    is_measured: bool
    """False when the file does not say in which unit its spacings are, if any."""

    def check(self) -> None:
        """Refuse a matrix that lays several voxels on one spot, or none anywhere.

        Raises:
            RefusedInput: ``bad_header``.
        """
        with np.errstate(all="ignore"):
            lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
            volume = abs(float(np.linalg.det(self.affine[:3, :3] / lengths))) if lengths.all() else 0.0
        if not (np.isfinite(self.affine).all() and np.isfinite(lengths).all() and volume > 1e-3):
            raise RefusedInput(
                RefusalCode.BAD_HEADER, "the header's matrix is not that of a grid in space; export the file again"
            )

    @property
    def is_real(self) -> bool:
        """False also for 1 x 1 along the axes at the origin, which is what writers state that know no spacing."""
        is_unit = np.array_equal(np.abs(self.affine[:3, :2]), np.eye(3)[:, :2])
        is_default = is_unit and not (self.is_placed and self.affine[:3, 3].any())
        return self.is_measured and not is_default


def volume_info(
    kind: Literal["nifti", "metaimage"], layout: VoxelLayout, place: Place, stored_type: str, notes: tuple[str, ...]
) -> ImageInfo:
    """Describe a volume.

    Args:
        kind: which format.
        layout: how its voxels are stored.
        place: where they lie.
        stored_type: the format's name of the stored type, such as ``"MET_SHORT"``.
        notes: as ``ImageInfo.notes``.

    Returns:
        The description. Directions and positions are DICOM's (to the left, back and head), the affine NIfTI's.
    """
    lps = _TO_LPS @ place.affine
    lengths = np.linalg.norm(lps[:3, :3], axis=0)
    normal = np.cross(lps[:3, 0], lps[:3, 1])
    orientation = direction_cosines((lps[:3, :2] / lengths[:2]).T.ravel().tolist()) if place.is_placed else None
    starts = lps[:3, 3] + np.arange(layout.slices)[:, None] * lps[:3, 2]
    return ImageInfo(
        kind=kind,
        rows=layout.rows,
        columns=layout.columns,
        frames=layout.slices,
        samples=layout.samples,
        dtype=layout.values,
        photometric=stored_type,
        white=255.0 if layout.samples == 3 else None,
        spacing_mm=(float(lengths[1]), float(lengths[0])) if place.source else None,
        spacing_is_real=place.is_real,
        spacing_source=place.source,
        slice_spacing_mm=float(abs(normal @ lps[:3, 2]) / np.linalg.norm(normal)) if layout.slices > 1 else None,
        orientation=orientation,
        positions_mm=None if orientation is None else tuple(cast(Vector, tuple(start)) for start in starts.tolist()),
        affine=cast(Any, tuple(tuple(row) for row in place.affine.tolist())),
        stored_shape=layout.shape,
        notes=notes,
    )


def check_inflated(size: int, limits: Limits) -> None:
    """Hold the bytes that a compressed file announces against the limit, before it is inflated.

    Raises:
        RefusedInput: ``inflate_bomb``.
    """
    if size > limits.inflated_bytes:
        raise RefusedInput(
            RefusalCode.INFLATE_BOMB,
            f"the compressed file becomes {size} bytes, and the limit is {limits.inflated_bytes}; "
            "raise inflated_bytes if that is meant",
        )


def joint_digest(digests: Sequence[str]) -> str:
    """Return the digest of a case: that of its one file, or the SHA-256 of its files' digests in order."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
