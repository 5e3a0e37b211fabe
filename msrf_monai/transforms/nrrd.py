"""2-D NRRD files as pixels: what 3D Slicer writes, and what MONAI Label makes of a DICOM segmentation."""

from __future__ import annotations

import math
import zlib

import numpy as np

from msrf_monai.errors import DataError
from msrf_monai.transforms.picture import Picture

__all__ = ["is_nrrd", "read_nrrd"]

_TYPES = {
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("short", "short int", "signed short", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    "float": "f4",
    "double": "f8",
}


def is_nrrd(data: bytes) -> bool:
    """Tell whether the bytes begin as an NRRD file does."""
    return data.startswith(b"NRRD000")


def read_nrrd(data: bytes, name: str, *, max_pixels: int) -> Picture:
    """Read one 2-D image whose data is in the file itself, raw or packed with gzip.

    Args:
        data: the file's bytes.
        name: the file, for errors.
        max_pixels: largest allowed width times height.

    Returns:
        ``(H, W, 1)``; uint8 where every value is a whole number within 0..255, otherwise the file's own type.

    Raises:
        DataError: when the file is damaged, too large, a volume, or of a kind that is not read here.
    """
    try:
        head, _, body = data.partition(b"\n\n")
        lines = [line.split(": ", 1) for line in head.decode("ascii", "replace").splitlines() if ": " in line]
        fields = {key.strip().lower(): value.strip() for key, value in (line for line in lines)}
        sizes = [int(size) for size in fields["sizes"].split()]
        dtype = np.dtype(_TYPES[fields["type"].lower()]).newbyteorder("<" if fields.get("endian") != "big" else ">")
        encoding = fields["encoding"].lower()
    except (KeyError, ValueError) as error:
        raise DataError(f"{name} is a NRRD file whose header cannot be read ({error}); export it again") from error
    if encoding not in ("raw", "gzip", "gz") or "data file" in fields or "datafile" in fields:
        raise DataError(f"{name} is a NRRD file of the encoding {encoding}, or of two files; save it as one, with gzip")
    if len(sizes) not in (2, 3) or math.prod(sizes[2:]) != 1 or min(sizes) < 1:
        raise DataError(f"{name} holds an array of {' x '.join(map(str, sizes))}, and one 2-D image was expected")
    if sizes[0] * sizes[1] > max_pixels:
        raise DataError(f"{name} is refused as too large: {sizes[0]} x {sizes[1]} pixels, max_pixels is {max_pixels}")
    values = np.frombuffer(_unpacked(body, encoding, math.prod(sizes) * dtype.itemsize, name), dtype)
    rows = values.astype(dtype.newbyteorder("=")).reshape(sizes[1], sizes[0], 1)
    small = rows.astype(np.uint8)
    return Picture(small if np.array_equal(small, rows) else rows, None, depth=1 if len(sizes) == 3 else None)


def _unpacked(body: bytes, encoding: str, length: int, name: str) -> bytes:
    if encoding != "raw":
        try:
            # no more than was announced, so that a small file cannot become a huge one
            body = zlib.decompressobj(wbits=31).decompress(body, length)
        except zlib.error as error:
            raise DataError(f"{name} is damaged: its pixels cannot be unpacked ({error}); export it again") from error
    if len(body) < length:
        raise DataError(f"{name} is cut short: {len(body)} bytes of pixels, and {length} were expected; copy it again")
    return body[:length]
