"""TIFFs that lack strips or tiles are refused by both readers; colours in planes and turned pictures are right."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from msrf_monai.clinical.reading import RefusedInput, open_case
from msrf_monai.errors import DataError
from msrf_monai.transforms.raster import read_raster

tifffile = pytest.importorskip("tifffile", reason="needs tifffile of the extra slides")

_LAYOUTS: dict[str, dict[str, Any]] = {
    "one strip": {},
    "strips": {"rowsperstrip": 8},
    "tiles": {"tile": (16, 16)},
    "strips of planes": {"rowsperstrip": 8, "planarconfig": "separate"},
    "tiles of planes": {"tile": (16, 16), "planarconfig": "separate"},
}
_KINDS = {"grey": ((40, 30), "u1"), "deep": ((40, 30), "u2"), "float": ((40, 30), "f4"), "deep colour": (None, "u2")}
_COLOUR = (40, 30, 3)


def _file(layout: str, shape: tuple[int, ...], dtype: str, compression: str | None) -> tuple[np.ndarray, bytes]:
    pixels = np.random.default_rng(7).integers(1, 250, shape).astype(dtype)
    stored = np.moveaxis(pixels, -1, 0) if "planes" in layout else pixels
    file = io.BytesIO()
    kind = "rgb" if len(shape) == 3 else "minisblack"
    tifffile.imwrite(file, stored, compression=compression, photometric=kind, metadata=None, **_LAYOUTS[layout])
    return pixels, file.getvalue()


def _with_tag(data: bytes, tag: int, value: int) -> bytes:
    """The file with another value in a tag of its only page; little-endian, as tifffile writes here."""
    assert data[:4] == b"II*\0"
    table = struct.unpack_from("<I", data, 4)[0]
    changed = bytearray(data)
    for place in range(table + 2, table + 2 + 12 * struct.unpack_from("<H", data, table)[0], 12):
        if struct.unpack_from("<H", data, place)[0] == tag:
            form = {3: "<H", 4: "<I"}[struct.unpack_from("<H", data, place + 2)[0]]
            struct.pack_into(form, changed, place + 8, value)
            return bytes(changed)
    raise AssertionError(f"no tag {tag}")


def _png(pixels: np.ndarray, orientation: int) -> bytes:
    """A PNG whose EXIF says how it is turned."""
    whole = cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes()
    tags = b"eXIf" + b"II*\0" + struct.pack("<IHHHIII", 8, 1, 274, 3, 1, orientation, 0)
    end = whole.index(b"IDAT") - 4
    return whole[:end] + struct.pack(">I", len(tags) - 4) + tags + struct.pack(">I", zlib.crc32(tags)) + whole[end:]


def _refused(data: bytes, folder: Path) -> str:
    """What both readers say; they must both refuse."""
    path = folder / "picture.tif"
    path.write_bytes(data)
    with pytest.raises(RefusedInput) as refusal:
        open_case(path)
    with pytest.raises(DataError) as error:
        read_raster(data, "picture.tif")
    assert "picture.tif" in str(error.value)
    return f"{refusal.value.code.value}: {error.value}"


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", list(_KINDS))
@pytest.mark.parametrize("layout", ["one strip", "strips", "tiles"])
def test_missing_strips_and_tiles_are_refused(layout: str, kind: str, compression: str | None, tmp_path: Path) -> None:
    shape, dtype = _KINDS[kind]
    pixels, data = _file(layout, shape or _COLOUR, dtype, compression)

    assert "is cut short" in _refused(_with_tag(data, 257, 56), tmp_path)
    (tmp_path / "picture.tif").write_bytes(data)
    np.testing.assert_array_equal(open_case(tmp_path / "picture.tif").frame(0), pixels)


@pytest.mark.parametrize("layout", ["strips of planes", "tiles of planes"])
def test_colours_in_planes_are_right(layout: str, tmp_path: Path) -> None:
    pixels, data = _file(layout, _COLOUR, "u1", None)
    (tmp_path / "picture.tif").write_bytes(data)

    np.testing.assert_array_equal(open_case(tmp_path / "picture.tif").frame(0), pixels)
    np.testing.assert_array_equal(read_raster(data, "picture.tif").rows, pixels)
    assert "is cut short" in _refused(_with_tag(data, 257, 56), tmp_path)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("layout", ["strips of planes", "tiles of planes"])
@pytest.mark.parametrize("colours", ["rgb", "rgba", "cmyk"])
def test_sixteen_bits_in_planes_are_refused(colours: str, layout: str, compression: str | None, tmp_path: Path) -> None:
    # Pillow and OpenCV give other pixels than are stored, without a word
    pixels = np.random.default_rng(7).integers(1, 60_000, (len(colours), 40, 30)).astype(np.uint16)
    more = {"photometric": "separated" if colours == "cmyk" else "rgb", **_LAYOUTS[layout]}
    if colours == "rgba":
        more["extrasamples"] = ["unassalpha"]
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, compression=compression, metadata=None, **more)

    said = _refused(file.getvalue(), tmp_path)
    assert said.startswith("unsupported") or "cut short or damaged" in said  # where Pillow itself does not open it
    if colours != "cmyk":
        assert "plane by plane" in said


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "f4"])
def test_big_endian_numbers_are_right_or_refused(
    dtype: str, compression: str | None, byteorder: str, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(7).integers(1, 100, (40, 30)).astype(dtype)
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, compression=compression, byteorder=byteorder, metadata=None)

    if compression and byteorder == ">" and dtype in ("i2", "i4", "f4"):
        # Pillow gives them with their bytes swapped
        assert "big-endian" in _refused(file.getvalue(), tmp_path)
        return
    (tmp_path / "picture.tif").write_bytes(file.getvalue())
    np.testing.assert_array_equal(open_case(tmp_path / "picture.tif").frame(0), pixels)
    np.testing.assert_array_equal(read_raster(file.getvalue(), "picture.tif").rows[..., 0], pixels)


@pytest.mark.parametrize("extra", [(262, 3, 2, (1, 1), True), (324, 4, 1, 8, True)], ids=["two photometrics", "stray"])
def test_tags_that_nobody_needs_do_no_harm(extra: tuple[Any, ...], tmp_path: Path) -> None:
    pixels = np.arange(1, 241, dtype=np.uint8).reshape(40, 6)
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, rowsperstrip=8, metadata=None, extratags=[extra])
    (tmp_path / "picture.tif").write_bytes(file.getvalue())

    np.testing.assert_array_equal(open_case(tmp_path / "picture.tif").frame(0), pixels)
    np.testing.assert_array_equal(read_raster(file.getvalue(), "picture.tif").rows[..., 0], pixels)


@pytest.mark.parametrize(("layout", "tag"), [("strips", 278), ("tiles", 323)])
def test_strips_and_tiles_of_no_rows_are_refused(layout: str, tag: int, tmp_path: Path) -> None:
    assert "cut short or damaged" in _refused(_with_tag(_file(layout, (40, 30), "u1", None)[1], tag, 0), tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("shape", "dtype"), [((40, 6), "u1"), ((40, 6, 3), "u1"), ((40, 6, 3), "u2")])
@pytest.mark.parametrize("kind", ["tif", "png"])
def test_turned_pictures_are_whole_and_upright(
    kind: str, shape: tuple[int, ...], dtype: str, orientation: int, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(9).integers(1, 250, shape).astype(dtype)
    file = io.BytesIO()
    if kind == "tif":
        colour = "rgb" if len(shape) == 3 else "minisblack"
        turn = [(274, 3, 1, orientation, True)]
        tifffile.imwrite(file, pixels, photometric=colour, rowsperstrip=8, metadata=None, extratags=turn)
        data = file.getvalue()
    else:
        data = _png(pixels, orientation)
    (tmp_path / "picture").write_bytes(data)

    upright = {
        1: pixels,
        2: np.fliplr(pixels),
        3: np.rot90(pixels, 2),
        4: np.flipud(pixels),
        5: np.swapaxes(pixels, 0, 1),
        6: np.rot90(pixels, -1),
        7: np.rot90(np.swapaxes(pixels, 0, 1), 2),
        8: np.rot90(pixels),
    }[orientation]
    np.testing.assert_array_equal(open_case(tmp_path / "picture").frame(0), upright)
    np.testing.assert_array_equal(read_raster(data, "picture").rows.reshape(upright.shape), upright)


def test_a_turn_that_only_xmp_tells_is_the_same_in_both_readers(tmp_path: Path) -> None:
    """Pillow from 12 on hears of it, OpenCV never does."""
    pixels = np.random.default_rng(9).integers(1, 60_000, (40, 6, 3)).astype(np.uint16)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, photometric="rgb", metadata=None, extratags=[(700, 1, len(xmp), xmp, True)])
    (tmp_path / "picture.tif").write_bytes(file.getvalue())

    case = open_case(tmp_path / "picture.tif")

    upright = np.rot90(pixels, 2) if case.info.exif_orientation == 3 else pixels
    np.testing.assert_array_equal(case.frame(0), upright)
    np.testing.assert_array_equal(read_raster(file.getvalue(), "picture.tif").rows, upright)


@pytest.mark.parametrize("orientation", [0, 9, 10, 13, 65535])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_turns_that_do_not_exist_are_none(dtype: str, orientation: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(9).integers(1, 250, (40, 6, 3)).astype(dtype)
    (tmp_path / "picture.png").write_bytes(_png(pixels, orientation))

    np.testing.assert_array_equal(open_case(tmp_path / "picture.png").frame(0), pixels)
    np.testing.assert_array_equal(read_raster(_png(pixels, orientation), "picture.png").rows, pixels)


@pytest.mark.parametrize("kind", ["tif", "png"])
def test_sixteen_bit_colour_with_transparency_keeps_its_bits_and_is_refused_when_cut(kind: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(9).integers(1, 60_000, (40, 30, 4)).astype(np.uint16)
    file = io.BytesIO()
    if kind == "tif":
        tifffile.imwrite(file, pixels, photometric="rgb", extrasamples=["unassalpha"], metadata=None)
        data = file.getvalue()
    else:
        data = cv2.imencode(".png", pixels[..., [2, 1, 0, 3]])[1].tobytes()
    (tmp_path / "picture").write_bytes(data)

    np.testing.assert_array_equal(open_case(tmp_path / "picture").frame(0), pixels[..., :3])
    np.testing.assert_array_equal(read_raster(data, "picture").rows, pixels[..., :3])
    (tmp_path / "picture").write_bytes(data[: len(data) // 2])
    with pytest.raises(RefusedInput):
        open_case(tmp_path / "picture").frame(0)
    with pytest.raises(DataError):
        read_raster(data[: len(data) // 2], "picture")
