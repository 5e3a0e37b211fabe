"""MetaImage files (.mhd with .raw or .zraw, .mha): what the header says, checked, and the bytes of the voxels.

ITK reads them, too, but is a large optional library, and a short header decides everything here. Two rooms build on
this: data sets, whose errors name the file and quote its header, and the clinic, whose errors may quote nothing; a
``MetaImageFault`` therefore has a kind and a key beside its sentence.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["LONGEST_HEADER", "FaultKind", "MetaImageFault", "MetaImageHeader", "parse_metaimage", "voxel_bytes"]

FaultKind = Literal["no_header", "header", "unsupported", "elsewhere", "damaged", "short", "long"]

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
LONGEST_HEADER = 2**16
"""Bytes within which a header ends."""
_LOCAL = "LOCAL"
_MILLIMETRES = {"um": 1e-3, "mm": 1.0, "cm": 10.0}


class MetaImageFault(ValueError):  # noqa: N818 - what is wrong with a file, which each room says in its own error
    """What is wrong with a MetaImage file.

    Args:
        kind: which kind of fault.
        text: a sentence that may quote the header.
        key: the line of the header that is meant, where there is one.
    """

    def __init__(self, kind: FaultKind, text: str, key: str = "") -> None:
        super().__init__(text)
        self.kind = kind
        self.key = key


@dataclass(frozen=True)
class MetaImageHeader:
    """A header that makes sense in itself; nothing of its size has been held against a limit yet."""

    shape: tuple[int, ...]
    """DimSize: columns, rows, slices, …; whole numbers of any size."""
    channels: int
    element: str
    """ElementType, such as ``"MET_SHORT"``."""
    dtype: np.dtype[Any]
    """Type of a stored value, with its byte order."""
    data_name: str | None
    """Name of the file beside the header that holds the voxels; None when they follow the header."""
    length: int
    """Bytes of the header."""
    skipped: int
    """Bytes to skip before the voxels; -1 when they are the last ones of their file."""
    is_compressed: bool
    affine: npt.NDArray[np.float64]
    """``(4, 4)``, from voxel indices to the header's unit, in DICOM's directions: to the left, the back, the head."""
    has_spacing: bool
    """False when the header states no spacing, which the affine then takes as 1."""
    unit_mm: float
    """Length of the header's unit; ITK takes every unit as a millimetre."""

    @property
    def expected_bytes(self) -> int:
        """Bytes of all voxels, unpacked."""
        return math.prod(self.shape) * self.channels * self.dtype.itemsize


def parse_metaimage(
    content: bytes, *, dimensions: tuple[int, ...] = (3,), channels: tuple[int, ...] = (1,)
) -> MetaImageHeader:
    """Read a header.

    Args:
        content: the beginning of the file; headers end within 64 KiB.
        dimensions: numbers of axes that the caller takes.
        channels: numbers of values a voxel that the caller takes.

    Returns:
        The header; without directions in it, the axes are taken to run to the left, back and head.

    Raises:
        MetaImageFault: ``no_header``, ``header`` (a line is missing or senseless), ``unsupported``, or ``elsewhere``
            when it asks for a file in another folder.
    """
    lines, length = _lines(content)
    found, depth = lines.get("NDims", "3"), lines.get("ElementNumberOfChannels", "1")
    if found not in map(str, dimensions) or depth not in map(str, channels):
        raise MetaImageFault(
            "unsupported", f"has {found} dimensions and {depth} channels; expected a volume of one channel", "NDims"
        )
    element = lines.get("ElementType", "")
    if element not in _TYPES:
        known = ", ".join(_TYPES)
        raise MetaImageFault(
            "unsupported", f"ElementType is {lines.get('ElementType')!r}; expected one of {known}", "ElementType"
        )
    if not _is_true(lines, "BinaryData", "True"):
        text = "holds its values as text (BinaryData = False); expected binary ones: save it again"
        raise MetaImageFault("unsupported", text, "BinaryData")
    axes = int(found)
    is_big = _is_true(lines, "BinaryDataByteOrderMSB") or _is_true(lines, "ElementByteOrderMSB")
    return MetaImageHeader(
        shape=_shape(lines, axes),
        channels=int(depth),
        element=element,
        dtype=np.dtype(_TYPES[element]).newbyteorder(">" if is_big else "<"),
        data_name=_data_name(lines["ElementDataFile"]),
        length=length,
        skipped=max(int(_numbers(lines, "HeaderSize", 1, "0")[0]), -1),
        is_compressed=_is_true(lines, "CompressedData"),
        affine=_affine(lines, axes),
        has_spacing="ElementSpacing" in lines or "ElementSize" in lines,
        unit_mm=_MILLIMETRES.get(lines.get("DistanceUnits", "mm"), 1.0),
    )


def voxel_bytes(header: MetaImageHeader, data: bytes | memoryview) -> bytes | memoryview:
    """Return the bytes of all voxels, unpacked; hold ``expected_bytes`` against a limit first.

    Args:
        header: from ``parse_metaimage``.
        data: the data file, or what follows the header.

    Returns:
        ``header.expected_bytes`` bytes; x runs fastest, and channels before it.

    Raises:
        MetaImageFault: ``damaged``, ``short`` or ``long``.
    """
    expected = header.expected_bytes
    found: bytes | memoryview = memoryview(data)
    found = found[-expected:] if header.skipped == -1 and not header.is_compressed else found[max(header.skipped, 0) :]
    if header.is_compressed:
        stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        try:
            found = stream.decompress(found, expected + 1)
        except zlib.error as error:
            text = f"its data cannot be unpacked ({error}); the file is damaged: get it again"
            raise MetaImageFault("damaged", text) from None
    if len(found) != expected:
        is_long = len(found) > expected
        raise MetaImageFault(
            "long" if is_long else "short",
            f"its data holds {'more than ' if is_long else ''}{min(len(found), expected)} bytes; "
            f"expected {expected} for {' x '.join(map(str, header.shape))} values of {header.element}",
        )
    return found


def _lines(content: bytes) -> tuple[dict[str, str], int]:
    found = re.search(rb"^[ \t]*ElementDataFile[ \t]*=[^\n]*(\n|$)", content[:LONGEST_HEADER], re.MULTILINE)
    if found is None:
        raise MetaImageFault("no_header", "is no MetaImage header: it has no line ElementDataFile", "ElementDataFile")
    lines = content[: found.end()].decode("latin-1").splitlines()
    pairs = (line.partition("=") for line in lines)
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}, found.end()


def _shape(lines: Mapping[str, str], axes: int) -> tuple[int, ...]:
    sizes = _numbers(lines, "DimSize", axes)
    if not all(size.is_integer() for size in sizes):
        raise MetaImageFault("header", f"DimSize is {lines['DimSize']!r}; expected {axes} whole numbers", "DimSize")
    return tuple(int(size) for size in sizes)


def _data_name(name: str) -> str | None:
    if name.upper() == _LOCAL:
        return None
    if not name or name.split()[0].upper() == "LIST" or "%" in name:
        raise MetaImageFault(
            "unsupported",
            f"keeps its slices in several files ({name!r}); expected one data file: save it as .mha",
            "ElementDataFile",
        )
    if name in (".", "..") or PurePath(name).name != name or "\\" in name or "\0" in name:
        text = f"asks for the data file {name!r}; expected the name of a file beside it"
        raise MetaImageFault("elsewhere", text, "ElementDataFile")
    return name


def _affine(lines: Mapping[str, str], axes: int) -> npt.NDArray[np.float64]:
    spacing = _numbers(lines, "ElementSpacing", axes, lines.get("ElementSize", " ".join(["1"] * axes)))
    names = ("TransformMatrix", "Orientation", "Rotation")
    key = next((name for name in names if name in lines), names[0])
    identity = " ".join(f"{number:g}" for number in np.eye(axes).ravel())
    directions = np.reshape(_numbers(lines, key, axes * axes, identity), (axes, axes))
    if min(spacing) <= 0 or abs(np.linalg.det(directions)) < 0.01:
        text = f"its spacing is {spacing} and its {key} {directions.tolist()}; expected a right-angled grid"
        raise MetaImageFault("header", text, key)
    place = next((name for name in ("Offset", "Position", "Origin") if name in lines), "Offset")
    spatial = min(axes, 3)
    affine = np.eye(4)
    # one row of the matrix for each axis, as ITK writes it
    affine[:spatial, :spatial] = (directions.T * spacing)[:spatial, :spatial]
    affine[:spatial, 3] = _numbers(lines, place, axes, " ".join(["0"] * axes))[:spatial]
    return affine


def _numbers(lines: Mapping[str, str], key: str, count: int, default: str | None = None) -> tuple[float, ...]:
    text = lines.get(key, default)
    try:
        numbers = tuple(float(part) for part in (text or "").split())
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        expected = f"{count} number{'s' if count > 1 else ''}"
        raise MetaImageFault("header", f"{key} is {text!r}; expected {expected}", key)
    return numbers


def _is_true(lines: Mapping[str, str], key: str, default: str = "False") -> bool:
    return lines.get(key, default).lower() in ("true", "1", "yes")
