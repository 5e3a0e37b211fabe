"""MetaImage files (.mha, and .mhd with .raw or .zraw) as cases of one frame a slice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.reading.limits import Limits
from msrf_monai.clinical.reading.refusal import RefusalCode, RefusedInput
from msrf_monai.clinical.reading.regular import check_inside, digest_of, read_head, read_regular
from msrf_monai.clinical.reading.volume_file import (
    Place,
    VolumeFrames,
    VoxelLayout,
    check_inflated,
    joint_digest,
    volume_info,
)
from msrf_monai.metaimage import LONGEST_HEADER, MetaImageFault, MetaImageHeader, parse_metaimage, voxel_bytes

__all__ = ["is_metaimage", "open_metaimage", "voxel_file"]

_KEYS = (b"ObjectType", b"NDims")
_REFUSALS = {
    "no_header": (RefusalCode.BAD_HEADER, "the header has no line ElementDataFile; export the file again"),
    "elsewhere": (
        RefusalCode.LINK_OUTSIDE,
        "the header asks for voxels in another folder; put header and voxels into one folder, or save it as .mha",
    ),
    "damaged": (RefusalCode.DECODE_FAILED, "the compressed voxels are damaged; copy or export the file again"),
    "short": (RefusalCode.TRUNCATED, "the file has fewer voxels than its header describes; copy or export it again"),
    "long": (RefusalCode.LENGTH_MISMATCH, "the file has more voxels than its header describes; export it again"),
}


def is_metaimage(head: bytes) -> bool:
    """Tell whether a file begins as a MetaImage header does; a comment may come first."""
    is_commented = head.startswith(b"Comment") and any(b"\n" + key in head for key in _KEYS)
    return is_commented or head.startswith(_KEYS)


def voxel_file(path: Path, limits: Limits) -> Path | None:
    """Return the file beside a header that holds its voxels, there or not; None when the header says none or nothing.

    Raises:
        RefusedInput: when the header itself may not be read.
    """
    try:
        name = _parsed(read_head(path, limits, LONGEST_HEADER)).data_name
    except RefusedInput as refusal:
        if refusal.code in (RefusalCode.BAD_HEADER, RefusalCode.UNSUPPORTED, RefusalCode.LINK_OUTSIDE):
            return None
        raise
    return None if name is None else path.parent / name


def open_metaimage(path: Path, limits: Limits | None = None, *, keep: bool = True) -> Case:
    """Open one MetaImage; see ``volume_file`` for what a frame is.

    Args:
        path: a ``.mha`` file or the ``.mhd`` header; the file of the voxels must lie in the same folder. Two or three
            axes, or more of length 1; one value a voxel, or three of 8 bits for RGB.
        limits: bounds; default ``Limits()``; ``inflated_bytes`` for compressed voxels.
        keep: hold the files in memory until their last slice has been read.

    Returns:
        The case; ``sources`` are the header and, where it is one of its own, the file of the voxels. Nothing is
        unpacked yet; how long the voxels are is known of uncompressed ones alone.

    Raises:
        RefusedInput: ``bad_header``, ``unsupported``, ``link_outside`` (voxels in another folder), ``missing`` (no such
            file of voxels), ``too_many_pixels``, ``too_many_frames``, ``inflate_bomb``, ``truncated``,
            ``length_mismatch``, and as ``read_regular``.
    """
    limits = limits or Limits()
    data = read_regular(path, limits)
    header = _parsed(data)
    layout = VoxelLayout(header.shape, header.dtype, header.channels)
    layout.check(limits)
    unit = np.diag([header.unit_mm] * 3 + [1.0])
    # the header's directions are DICOM's, a case's are NIfTI's
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ unit @ header.affine
    source = "ElementSpacing" if header.has_spacing else ""
    place = Place(affine, source, header.has_spacing, header.has_spacing)
    place.check()
    paths, files = [path], [data]
    if header.data_name is not None:
        paths.append(path.parent / header.data_name)
        files.append(_beside(path, header.data_name, limits))
    if header.is_compressed:
        check_inflated(layout.expected_bytes, limits)
    else:
        _voxels(header, files)
    digests = [digest_of(content) for content in files]
    frames = _MetaImageFrames(paths, digests, layout, limits, header)
    if keep:
        frames.keep(files)
    return Case(
        joint_digest(digests), tuple(paths), volume_info("metaimage", layout, place, header.element, ()), frames
    )


class _MetaImageFrames(VolumeFrames):
    def __init__(
        self,
        paths: Sequence[Path],
        digests: Sequence[str],
        layout: VoxelLayout,
        limits: Limits,
        header: MetaImageHeader,
    ) -> None:
        super().__init__(paths, digests, layout, limits)
        self._header = header

    def voxels(self, files: Sequence[bytes]) -> bytes | memoryview:
        """Return the voxels, unpacked."""
        return _voxels(self._header, files)


def _parsed(data: bytes) -> MetaImageHeader:
    try:
        header = parse_metaimage(data, dimensions=(2, 3, 4, 5), channels=(1, 3))
    except MetaImageFault as fault:
        raise _refusal(fault) from None
    if header.channels == 3 and header.dtype != np.dtype("u1"):
        raise RefusedInput(RefusalCode.UNSUPPORTED, "three values a voxel are read as RGB of 8 bits alone; convert it")
    return header


def _voxels(header: MetaImageHeader, files: Sequence[bytes]) -> bytes | memoryview:
    try:
        return voxel_bytes(header, files[1] if len(files) == 2 else memoryview(files[0])[header.length :])
    except MetaImageFault as fault:
        raise _refusal(fault) from None


def _refusal(fault: MetaImageFault) -> RefusedInput:
    """Say what is wrong without quoting the header, which may name a patient."""
    if fault.kind in _REFUSALS:
        return RefusedInput(*_REFUSALS[fault.kind])
    if fault.kind == "unsupported":
        return RefusedInput(
            RefusalCode.UNSUPPORTED, f"what {fault.key} says in the header cannot be read here; save the file anew"
        )
    return RefusedInput(
        RefusalCode.BAD_HEADER, f"{fault.key} in the header is missing or senseless; export the file again"
    )


def _beside(path: Path, name: str, limits: Limits) -> bytes:
    data_path = path.parent / name
    check_inside(data_path, path.parent)
    try:
        return read_regular(data_path, limits)
    except RefusedInput as refusal:
        if refusal.code != RefusalCode.MISSING:
            raise
        raise RefusedInput(
            RefusalCode.MISSING, "the file of voxels that the header names does not lie beside it; copy it there"
        ) from None
