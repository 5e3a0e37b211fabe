"""MetaImage volumes (.mhd with .raw, .mha), as PROMISE12 hands them out.

ITK reads them, too, but is a large optional library, and a short header decides everything here.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from msrf_monai.data.volumes.volume import MAX_VOXELS, Volume
from msrf_monai.errors import DataError

__all__ = ["read_metaimage"]

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
_LONGEST_HEADER = 2**16
_LOCAL = "LOCAL"
_IDENTITY = "1 0 0 0 1 0 0 0 1"


def read_metaimage(path: Path) -> Volume:
    """Read a three-dimensional MetaImage of one channel, binary or compressed with zlib.

    Args:
        path: the header (.mhd), beside which the data lies, or a file with both (.mha).

    Returns:
        The volume; without a direction in the header, the axes are taken to run to the left, back and head.

    Raises:
        DataError: when the header lacks something or contradicts itself, asks for a file in another folder, or the data
            is missing, damaged, too short or too long.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    header, rest = _header(content, path)
    shape = tuple(int(number) for number in _numbers(header, "DimSize", path, count=3))
    if min(shape) < 1 or math.prod(shape) > MAX_VOXELS:
        raise DataError(f"{path}: DimSize is {' x '.join(map(str, shape))}; expected 1 to {MAX_VOXELS} voxels in all")
    values = _values(header, shape, _data(header, rest, path), path)
    return Volume(values, _affine(header, path))


def _header(content: bytes, path: Path) -> tuple[dict[str, str], bytes]:
    """Return the keys of the header and what follows it."""
    found = re.search(rb"^[ \t]*ElementDataFile[ \t]*=[^\n]*(\n|$)", content[:_LONGEST_HEADER], re.MULTILINE)
    if found is None:
        raise DataError(f"{path}: is no MetaImage header: it has no line ElementDataFile")
    lines = content[: found.end()].decode("latin-1").splitlines()
    header = {key.strip(): value.strip() for key, equals, value in (line.partition("=") for line in lines) if equals}
    dimensions, channels = header.get("NDims", "3"), header.get("ElementNumberOfChannels", "1")
    if dimensions != "3" or channels != "1":
        raise DataError(
            f"{path}: has {dimensions} dimensions and {channels} channels; expected a volume of one channel"
        )
    if header.get("ElementType") not in _TYPES:
        raise DataError(f"{path}: ElementType is {header.get('ElementType')!r}; expected one of {', '.join(_TYPES)}")
    return header, content[found.end() :]


def _data(header: Mapping[str, str], rest: bytes, path: Path) -> bytes:
    name = header["ElementDataFile"]
    if name.upper() == _LOCAL:
        return rest
    if not name or name.split()[0].upper() == "LIST" or "%" in name:
        raise DataError(
            f"{path}: keeps its slices in several files ({name!r}); expected one data file: save it as .mha"
        )
    if Path(name).name != name or "\\" in name:
        raise DataError(f"{path}: asks for the data file {name!r}; expected the name of a file beside it")
    try:
        return (path.parent / name).read_bytes()
    except OSError as error:
        raise DataError(
            f"{path.parent / name}: cannot be read ({error.strerror or error}); {path.name} needs it"
        ) from error


def _values(
    header: Mapping[str, str], shape: tuple[int, ...], data: bytes, path: Path
) -> npt.NDArray[np.integer | np.floating]:
    is_big = _is_true(header, "BinaryDataByteOrderMSB") or _is_true(header, "ElementByteOrderMSB")
    dtype = np.dtype(_TYPES[header["ElementType"]]).newbyteorder(">" if is_big else "<")
    if not _is_true(header, "BinaryData", "True"):
        raise DataError(f"{path}: holds its values as text (BinaryData = False); expected binary ones: save it again")
    expected = math.prod(shape) * dtype.itemsize
    skipped = int(_numbers(header, "HeaderSize", path, count=1, default="0")[0])
    data = data[-expected:] if skipped == -1 else data[max(skipped, 0) :]
    if _is_true(header, "CompressedData"):
        try:
            data = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(data, expected + 1)
        except zlib.error as error:
            raise DataError(
                f"{path}: its data cannot be unpacked ({error}); the file is damaged: get it again"
            ) from error
    if len(data) != expected:
        raise DataError(
            f"{path}: its data holds {'more than ' if len(data) > expected else ''}{min(len(data), expected)} bytes; "
            f"expected {expected} for {' x '.join(map(str, shape))} values of {header['ElementType']}"
        )
    values = np.frombuffer(data, dtype).reshape(shape[::-1]).transpose(2, 1, 0)
    return values.astype(dtype.newbyteorder("="), copy=False)


def _affine(header: Mapping[str, str], path: Path) -> npt.NDArray[np.float64]:
    spacing = _numbers(header, "ElementSpacing", path, count=3, default=header.get("ElementSize", "1 1 1"))
    names = ("TransformMatrix", "Orientation", "Rotation")
    key = next((name for name in names if name in header), names[0])
    directions = np.reshape(_numbers(header, key, path, count=9, default=_IDENTITY), (3, 3))
    if min(spacing) <= 0 or abs(np.linalg.det(directions)) < 0.01:
        raise DataError(
            f"{path}: its spacing is {spacing} and its {key} {directions.tolist()}; expected a right-angled grid"
        )
    affine = np.eye(4)
    # one row of the matrix for each axis, as ITK writes it
    affine[:3, :3] = directions.T * spacing
    place = next((name for name in ("Offset", "Position", "Origin") if name in header), "Offset")
    affine[:3, 3] = _numbers(header, place, path, count=3, default="0 0 0")
    return affine


def _numbers(
    header: Mapping[str, str], key: str, path: Path, *, count: int, default: str | None = None
) -> tuple[float, ...]:
    text = header.get(key, default)
    try:
        numbers = tuple(float(part) for part in (text or "").split())
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise DataError(f"{path}: {key} is {text!r}; expected {count} number{'s' if count > 1 else ''}")
    return numbers


def _is_true(header: Mapping[str, str], key: str, default: str = "False") -> bool:
    return header.get(key, default).lower() in ("true", "1", "yes")
