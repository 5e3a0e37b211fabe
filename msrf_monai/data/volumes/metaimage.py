"""MetaImage volumes (.mhd with .raw, .mha), as PROMISE12 hands them out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from msrf_monai.data.volumes.volume import MAX_VOXELS, Volume
from msrf_monai.errors import DataError
from msrf_monai.metaimage import MetaImageFault, parse_metaimage, voxel_bytes

__all__ = ["read_metaimage"]


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
    try:
        header = parse_metaimage(content)
        shape = header.shape
        if min(shape) < 1 or math.prod(shape) > MAX_VOXELS:
            raise DataError(
                f"{path}: DimSize is {' x '.join(map(str, shape))}; expected 1 to {MAX_VOXELS} voxels in all"
            )
        rest = content[header.length :] if header.data_name is None else _data(path, header.data_name)
        stored = np.frombuffer(voxel_bytes(header, rest), header.dtype)
    except MetaImageFault as fault:
        raise DataError(f"{path}: {fault}") from fault
    values = stored.reshape(shape[::-1]).transpose(2, 1, 0)
    return Volume(values.astype(header.dtype.newbyteorder("="), copy=False), header.affine)


def _data(path: Path, name: str) -> bytes:
    try:
        return (path.parent / name).read_bytes()
    except OSError as error:
        raise DataError(
            f"{path.parent / name}: cannot be read ({error.strerror or error}); {path.name} needs it"
        ) from error
