"""NIfTI-1 and NIfTI-2 files, plain and gzipped, as cases of one frame a slice.

nibabel reads the header's types and matrices; sizes are held against the limits before a voxel is unpacked, and a
gzipped file is inflated piece by piece into no more room than its header announces.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.reading.limits import Limits
from msrf_monai.clinical.reading.refusal import RefusalCode, RefusedInput
from msrf_monai.clinical.reading.regular import digest_of, read_regular
from msrf_monai.clinical.reading.volume_file import Place, VolumeFrames, VoxelLayout, check_inflated, volume_info

__all__ = ["GZIP", "inflated_head", "is_nifti", "open_nifti"]

GZIP = b"\x1f\x8b"
_ONE, _PAIR, _TWO = b"n+1\0", b"ni1\0", (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")
_SIZES = {1: 348, 2: 540}
_TYPES = {
    **{2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8"},
    **{256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"},
}
_RGB24 = 128
_MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 1e-3}
_PIECE, _MOST = 1 << 16, 1 << 20
_MOST_MEMBERS = 1 << 16
"""gzip files may be several in a row; bgzip writes one for each 64 KiB."""


def is_nifti(head: bytes) -> bool:
    """Tell whether a file, inflated where it is gzipped, begins as NIfTI does; 348 bytes decide."""
    return head[344:348] in (_ONE, _PAIR) or head[4:12] in _TWO


def open_nifti(path: Path, limits: Limits | None = None, *, data: bytes | None = None, keep: bool = True) -> Case:
    """Open one NIfTI file; see ``volume_file`` for what a frame is.

    Args:
        path: a ``.nii`` or ``.nii.gz`` file of up to three axes, further ones of length 1.
        limits: bounds; default ``Limits()``; ``inflated_bytes`` for gzipped files.
        data: its bytes, when they have been read already.
        keep: hold the file in memory until its last slice has been read.

    Returns:
        The case. Only the header has been inflated; how long the voxels are is known of plain files alone.

    Raises:
        RefusedInput: ``bad_header``, ``unsupported``, ``too_many_pixels``, ``too_many_frames``, ``inflate_bomb``,
            ``truncated``, ``length_mismatch``, and as ``read_regular``.
    """
    limits = limits or Limits()
    data = read_regular(path, limits) if data is None else data
    is_gzipped = data.startswith(GZIP)
    head = inflated_head(data) if is_gzipped else data[: _SIZES[2]]
    try:
        layout, place, offset = _parsed(head, limits)
    except RefusedInput:
        raise
    except Exception as error:  # nibabel raises what broken numbers lead it to
        raise RefusedInput(
            RefusalCode.BAD_HEADER, f"the header cannot be read ({type(error).__name__}); export the file again"
        ) from None
    frames = _NiftiFrames((path,), (digest_of(data),), layout, limits, offset)
    if is_gzipped:
        check_inflated(offset + layout.expected_bytes, limits)
        notes: tuple[str, ...] = ()
    else:
        notes = _check_length(len(data) - offset, layout)
    if keep:
        frames.keep((data,))
    stored_type = "RGB24" if layout.samples == 3 else layout.dtype.name
    return Case(digest_of(data), (path,), volume_info("nifti", layout, place, stored_type, notes), frames)


def inflated_head(data: bytes) -> bytes:
    """Inflate the first 540 bytes of a gzipped file, or all of a shorter one.

    Raises:
        RefusedInput: ``decode_failed`` or ``truncated`` when even that is damaged.
    """
    head = b""
    for piece in _inflated(data, _PIECE):
        head += piece
        if len(head) >= _SIZES[2]:
            break
    return head[: _SIZES[2]]


class _NiftiFrames(VolumeFrames):
    def __init__(
        self, paths: Sequence[Path], digests: Sequence[str], layout: VoxelLayout, limits: Limits, offset: int
    ) -> None:
        super().__init__(paths, digests, layout, limits)
        self._offset = offset

    def voxels(self, files: Sequence[bytes]) -> memoryview:
        """Return what lies behind the header, inflated."""
        (data,) = files
        if not data.startswith(GZIP):
            return memoryview(data)[self._offset :]
        # room for one slice more than announced: enough to see that the file does not end where it should
        room = bytearray(self._offset + self._layout.expected_bytes + max(self._layout.slice_bytes, 2))
        filled = 0
        for piece in _inflated(data, _MOST):
            fitting = piece[: len(room) - filled]
            room[filled : filled + len(fitting)] = fitting
            filled += len(fitting)
            if filled == len(room):
                break
        _check_length(filled - self._offset, self._layout)
        return memoryview(room)[self._offset :]


def _parsed(head: bytes, limits: Limits) -> tuple[VoxelLayout, Place, int]:
    import nibabel  # here, for it is large and most inputs are others

    version = 2 if head[4:12] in _TWO else 1
    if head[344:348] == _PAIR or head[4:12] == _TWO[1]:
        raise RefusedInput(
            RefusalCode.UNSUPPORTED, "the header's voxels are in a file of their own (.hdr and .img); save it as .nii"
        )
    if len(head) < _SIZES[version]:
        raise RefusedInput(RefusalCode.TRUNCATED, "the file ends within its header; copy or export it again")
    kind: Any = nibabel.Nifti2Header if version == 2 else nibabel.Nifti1Header
    header = kind(head[: _SIZES[version]], check=False)
    layout = _layout(header)
    layout.check(limits)
    offset = float(header["vox_offset"])
    # in version 1 it is a floating number; four bytes behind the header say whether extensions follow
    if not (offset.is_integer() and _SIZES[version] + 4 <= offset <= limits.file_bytes):
        raise RefusedInput(
            RefusalCode.BAD_HEADER, "the header does not say where the voxels begin; export the file again"
        )
    place = _place(header)
    place.check()
    return layout, place, int(offset)


def _layout(header: Any) -> VoxelLayout:
    axes = int(header["dim"][0])
    if not 1 <= axes <= 7:
        raise RefusedInput(RefusalCode.BAD_HEADER, "the header states no number of axes; export the file again")
    shape = tuple(int(size) for size in header["dim"][1 : axes + 1])
    code = int(header["datatype"])
    if code == _RGB24:
        return VoxelLayout(shape, np.dtype("u1"), samples=3)
    if code not in _TYPES:
        raise RefusedInput(
            RefusalCode.UNSUPPORTED,
            f"voxels of NIfTI's type {code} cannot be read; save the file as whole or as 32-bit floating numbers",
        )
    slope, intercept = header.get_slope_inter()  # None and None where the header has no scale
    scale = None if slope is None else (float(slope), float(intercept))
    dtype = np.dtype(_TYPES[code]).newbyteorder(header.endianness)
    return VoxelLayout(shape, dtype, scale=None if scale == (1.0, 0.0) else scale)


def _place(header: Any) -> Place:
    unit = _MILLIMETRES.get(int(header["xyzt_units"]) & 7)
    source = "sform" if header["sform_code"] > 0 else "qform" if header["qform_code"] > 0 else ""
    affine = np.asarray(header.get_best_affine(), np.float64)
    return Place(np.diag([unit or 1.0] * 3 + [1.0]) @ affine, source or "pixdim", bool(source), bool(source or unit))


def _check_length(found: int, layout: VoxelLayout) -> tuple[str, ...]:
    if found < layout.expected_bytes:
        raise RefusedInput(
            RefusalCode.TRUNCATED,
            f"the file has {max(found, 0)} of {layout.expected_bytes} bytes of voxels; copy or export it again",
        )
    excess = found - layout.expected_bytes
    # some writers fill up a block; a whole slice more means that the header is about other voxels
    if excess >= max(layout.slice_bytes, 2):
        raise RefusedInput(
            RefusalCode.LENGTH_MISMATCH,
            f"the file has more bytes of voxels than the {layout.expected_bytes} that its header describes; "
            "export it again",
        )
    return ("excess_padding",) if excess else ()


def _inflated(data: bytes, most: int) -> Iterator[bytes]:
    """Yield a gzipped file in pieces of at most ``most`` bytes; one byte in a piece costs no more than itself."""
    source = io.BytesIO(data)
    stream, members, pending = zlib.decompressobj(zlib.MAX_WBITS | 16), 1, source.read(_PIECE)
    try:
        while pending:
            if stream.eof:
                if not pending.strip(b"\0"):  # zeros may fill up a block
                    pending = source.read(_PIECE)
                    continue
                members += 1
                stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
            if members > _MOST_MEMBERS:
                raise RefusedInput(
                    RefusalCode.INFLATE_BOMB, f"the file is more than {_MOST_MEMBERS} gzip files in a row; pack it anew"
                )
            yield stream.decompress(pending, most)
            pending = (stream.unused_data if stream.eof else stream.unconsumed_tail) or source.read(_PIECE)
    except zlib.error:
        raise RefusedInput(
            RefusalCode.DECODE_FAILED, "the gzipped data is damaged; copy or export the file again"
        ) from None
    if not stream.eof:
        raise RefusedInput(
            RefusalCode.TRUNCATED, "the gzipped file is cut short: its end is missing; copy or export it again"
        )
