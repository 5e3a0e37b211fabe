"""NRRD files against the bytes that the format's definition asks for."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from msrf_monai.errors import DataError
from msrf_monai.transforms import LoadImage2D, LoadMask2D, read_picture

WIDTH, HEIGHT = 19, 12
MASK = (np.add.outer(np.arange(HEIGHT), 2 * np.arange(WIDTH)) % 7 < 3).astype(np.uint8)


def nrrd(path: Path, body: bytes, **fields: str) -> Path:
    """Write a file of the given fields; underscores stand for spaces."""
    known = {"type": "uint8", "dimension": "3", "sizes": f"{WIDTH} {HEIGHT} 1", "encoding": "raw"} | fields
    lines = ["NRRD0005", "# a comment", *(f"{key.replace('_', ' ')}: {value}" for key, value in known.items())]
    path.write_bytes("\n".join([*lines, "Segment0_Name:=lesion", "", ""]).encode() + body)
    return path


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("sizes", [f"{WIDTH} {HEIGHT}", f"{WIDTH} {HEIGHT} 1"], ids=["plane", "slice"])
def test_a_mask_is_read_with_the_first_axis_along_the_rows(tmp_path: Path, encoding: str, sizes: str) -> None:
    body = MASK.tobytes() if encoding == "raw" else gzip.compress(MASK.tobytes())

    mask = LoadMask2D()(nrrd(tmp_path / "label.seg.nrrd", body, encoding=encoding, sizes=sizes))

    np.testing.assert_array_equal(mask[0].numpy().T, MASK)


@pytest.mark.parametrize(("name", "endian", "code"), [("unsigned short", "little", "<u2"), ("short", "big", ">i2")])
def test_types_and_orders_of_bytes_are_minded(tmp_path: Path, name: str, endian: str, code: str) -> None:
    values = (MASK * np.uint8(200)).astype(code)

    image = LoadImage2D(channels=1)(nrrd(tmp_path / "image.nrrd", values.tobytes(), type=name, endian=endian))

    np.testing.assert_array_equal(image[0].numpy().T, MASK * np.uint8(200))


@pytest.mark.parametrize(
    ("fields", "body", "message"),
    [
        ({"sizes": f"{WIDTH} {HEIGHT} 2"}, b"", "one 2-D image was expected"),
        ({"type": "block"}, b"", "header cannot be read"),
        ({"encoding": "bzip2"}, b"", "encoding bzip2"),
        ({"data_file": "other.raw"}, b"", "of two files"),
        ({}, MASK.tobytes()[:-1], "cut short"),
        ({"encoding": "gzip"}, b"no gzip", "cannot be unpacked"),
        ({"sizes": "100000 100000 1"}, b"", "refused as too large"),
    ],
    ids=["volume", "type", "encoding", "detached", "short", "damaged", "huge"],
)
def test_other_files_are_refused_with_one_sentence(
    tmp_path: Path, fields: dict[str, str], body: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_picture(nrrd(tmp_path / "wrong.nrrd", body, **fields))
