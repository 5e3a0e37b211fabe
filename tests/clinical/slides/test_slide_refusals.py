"""Hostile and broken slides are refused with a stable code before they cost anything."""

from __future__ import annotations

import os
import struct
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
import tifffile
from pydicom.dataset import Dataset

from msrf_monai.clinical.reading import RefusalCode, RefusedInput
from msrf_monai.clinical.slides import SlideLimits, open_slide
from msrf_monai.errors import ConfigError
from support.slide_files import APERIO, compressed, halved, read_all, stained, write_tiff, write_wsi

PICTURE = stained(150, 230)
HUGE = 4_000_000_000


def refusal(path: Path, limits: SlideLimits | None = None) -> str:
    """Return the code that a slide is refused with."""
    with pytest.raises(RefusedInput) as caught:
        read_all(path, limits)
    shown = "".join(traceback.format_exception(caught.value))
    assert "SECRET" not in shown.replace(str(path), "")
    assert str(path) not in str(caught.value)
    return caught.value.code.value


def patched(path: Path, tag: int, value: int, *, page: int = 0) -> None:
    """Overwrite the value of a tag of a classic TIFF."""
    with tifffile.TiffFile(path) as file:
        place, kind = file.pages[page].tags[tag].offset, file.pages[page].tags[tag].dtype
    data = bytearray(path.read_bytes())
    if kind == 3:
        struct.pack_into("<H", data, place + 2, 4)
    struct.pack_into("<I", data, place + 8, value)
    path.write_bytes(data)


def pointed(path: Path, target: int) -> None:
    """Make the first directory's successor lie at ``target``."""
    data = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * count, first if target < 0 else target)
    path.write_bytes(data)


TIFF_HEADERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "next directory is the same": (lambda path: pointed(path, -1), "bad_header"),
    "next directory beyond the end": (lambda path: pointed(path, 0x7FFFFFFF), "truncated"),
    "next directory in the pixels": (lambda path: pointed(path, 9000), "bad_header"),
    "huge width": (lambda path: patched(path, 256, HUGE), "too_many_pixels"),
    "huge width and length": (lambda path: (patched(path, 256, HUGE), patched(path, 257, HUGE)), "too_many_pixels"),  # type: ignore[func-returns-value]
    "huge tiles": (lambda path: patched(path, 322, 1 << 28), "too_many_pixels"),
    "tiles of no width": (lambda path: patched(path, 322, 0), "bad_header"),
    "no length": (lambda path: patched(path, 257, 0), "bad_header"),
    "one pixel a tile": (lambda path: (patched(path, 322, 1), patched(path, 323, 1)), "bad_header"),  # type: ignore[func-returns-value]
    "unknown compression": (lambda path: patched(path, 259, 4711), "unsupported"),
    "palette": (lambda path: patched(path, 262, 3), "unsupported"),
    "planar": (lambda path: patched(path, 284, 2), "unsupported"),
    "offsets beyond the end": (lambda path: patched(path, 324, 0x7FFFFFF0), "truncated"),
    "lengths beyond the end": (lambda path: patched(path, 325, 0x7FFFFFF0), "truncated"),
    "zero bytes": (lambda path: path.write_bytes(b""), "empty_file"),  # type: ignore[arg-type,return-value]
    "header only": (lambda path: path.write_bytes(b"II*\0\x08\0\0\0"), "truncated"),  # type: ignore[arg-type,return-value]
    "no directory": (lambda path: path.write_bytes(b"II*\0\0\0\0\0"), "bad_header"),  # type: ignore[arg-type,return-value]
    "text": (lambda path: path.write_text("hello"), "unknown_format"),  # type: ignore[arg-type,return-value]
}


@pytest.mark.parametrize("case", TIFF_HEADERS)
def test_broken_tiff_headers_are_refused(tmp_path: Path, case: str) -> None:
    write_tiff(tmp_path / "a.svs", PICTURE, description=APERIO)
    change, code = TIFF_HEADERS[case]
    change(tmp_path / "a.svs")

    found = refusal(tmp_path / "a.svs")
    assert found == code


def test_sub_directories_in_a_circle_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_tiff(path, PICTURE, sub=True, levels=2)
    with tifffile.TiffFile(path) as file:
        first = file.pages[0].offset
    patched(path, 330, first)

    assert refusal(path) == "bad_header"


def test_more_pictures_than_the_limit_are_refused(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", PICTURE, extra=[PICTURE[:8, :8]] * 20)

    assert refusal(tmp_path / "a.tif", SlideLimits(levels=16)) == "bad_header"


@pytest.mark.parametrize("name", ["file_bytes", "level_pixels", "tile_pixels", "tiles"])
def test_every_limit_is_held(tmp_path: Path, name: str) -> None:
    write_tiff(tmp_path / "a.tif", PICTURE)
    codes = {"file_bytes": "too_large", "tiles": "too_many_frames"}

    assert refusal(tmp_path / "a.tif", SlideLimits(**{name: 7})) == codes.get(name, "too_many_pixels")


@pytest.mark.parametrize("options", [{}, {"compression": "adobe_deflate"}, {"compression": "jpeg"}], ids=str)
def test_slide_that_is_cut_short_is_refused(tmp_path: Path, options: dict) -> None:
    path = tmp_path / "a.tif"
    write_tiff(path, PICTURE, levels=1, bigtiff=True, **options)
    data = path.read_bytes()

    for part in (0.2, 0.6, 0.95):
        path.write_bytes(data[: int(len(data) * part)])
        assert refusal(path) == "truncated"


def tiff_of(path: Path, tile: bytes, compression: object) -> None:
    """Write a slide of one level whose every tile is ``tile``."""
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            iter([tile] * 4),
            shape=(128, 128, 3),
            dtype=np.uint8,
            tile=(64, 64),
            photometric="rgb",
            compression=compression,
            metadata=None,
        )


BIG = np.zeros((3000, 2000, 3), np.uint8)
TILES = {
    "deflate bomb": (zlib.compress(bytes(50_000_000)), "adobe_deflate", "decode_failed"),
    "zstd bomb": (imagecodecs.zstd_encode(bytes(50_000_000)), "zstd", "decode_failed"),
    "short deflate": (zlib.compress(b"short"), "adobe_deflate", "length_mismatch"),
    "noise as deflate": (bytes(range(256)), "adobe_deflate", "decode_failed"),
    "short raw": (bytes(100), None, "length_mismatch"),
    "jpeg of another size": (imagecodecs.jpeg8_encode(BIG), "jpeg", "codestream_size"),
    "wavelet of another size": (imagecodecs.jpeg2k_encode(BIG, codecformat="j2k"), 33005, "codestream_size"),
    "no jpeg": (b"\xff\xd8 nothing", "jpeg", "decode_failed"),
    "jpeg without an end": (imagecodecs.jpeg8_encode(BIG[:64, :64])[:-40], "jpeg", "truncated"),
}


@pytest.mark.parametrize("case", TILES)
def test_tiles_that_are_not_what_the_header_says_are_refused(tmp_path: Path, case: str) -> None:
    tile, compression, code = TILES[case]
    tiff_of(tmp_path / "a.tif", tile, compression)

    assert refusal(tmp_path / "a.tif") == code


def test_tile_of_absurd_length_is_refused_before_it_is_read(tmp_path: Path) -> None:
    tiff_of(tmp_path / "a.tif", bytes(2_000_000), "adobe_deflate")

    with pytest.raises(RefusedInput, match="bad_header: a tile claims 2000000 bytes"):
        open_slide(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("dtype", "options"), [("uint16", {}), ("uint8", {"planarconfig": "separate"}), ("uint8", {"tile": None})], ids=str
)
def test_tiffs_that_are_no_rgb_slides_are_unsupported(tmp_path: Path, dtype: str, options: dict) -> None:
    picture = np.moveaxis(PICTURE, 2, 0) if "planarconfig" in options else PICTURE
    write_tiff(tmp_path / "a.tif", picture.astype(dtype), levels=1, **options)

    assert refusal(tmp_path / "a.tif") == "unsupported"


def _spread(header: Dataset) -> None:
    header.TotalPixelMatrixRows = header.TotalPixelMatrixColumns = 4_000_000_000


def _paths(header: Dataset) -> None:
    header.NumberOfOpticalPaths = 3


def _fewer(header: Dataset) -> None:
    header.NumberOfFrames = 5


def _many(header: Dataset) -> None:
    header.NumberOfFrames = 2_000_000_000


def _label(header: Dataset) -> None:
    header.ImageType = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]


def _sizeless(header: Dataset) -> None:
    del header.TotalPixelMatrixColumns


def _wide(header: Dataset) -> None:
    header.Rows = header.Columns = 65535


def _unpacked(header: Dataset) -> None:
    header.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0" + b"\xfe\xff\x00\xe0\xff\xff\xff\x7f"


def _offsets(header: Dataset) -> None:
    header.PixelData = b"\xfe\xff\x00\xe0\x04\0\0\0\0\0\0\0" + b"\xfe\xff\x00\xe0\0\0\0\0" * 3


def _no_pixels(header: Dataset) -> None:
    del header.PixelData


DICOM_HEADERS = {
    _spread: "too_many_pixels",
    _paths: "unsupported",
    _fewer: "bad_header",
    _many: "too_many_frames",
    _label: "not_an_image",
    _sizeless: "bad_header",
    _wide: "too_many_pixels",
    _unpacked: "bad_encapsulation",
    _offsets: "bad_encapsulation",
    _no_pixels: "truncated",
}


@pytest.mark.parametrize("change", DICOM_HEADERS, ids=lambda change: change.__name__)
def test_broken_dicom_headers_are_refused(tmp_path: Path, change: Callable[[Dataset], None]) -> None:
    header = write_wsi(tmp_path / "a.dcm", PICTURE)
    change(header)
    pydicom.dcmwrite(tmp_path / "a.dcm", header, enforce_file_format=True)

    assert refusal(tmp_path / "a.dcm") == DICOM_HEADERS[change]


@pytest.mark.parametrize("kind", ["raw", "jpeg", "rle"])
def test_dicom_slide_that_is_cut_short_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.dcm"
    write_wsi(path, PICTURE, kind=kind)
    data = path.read_bytes()

    for part in (0.15, 0.5, 0.97):
        path.write_bytes(data[: int(len(data) * part)])
        assert refusal(path) in ("truncated", "bad_encapsulation")


def test_frame_larger_than_the_header_says_is_refused(tmp_path: Path) -> None:
    header = write_wsi(tmp_path / "a.dcm", PICTURE)
    frames = [compressed(BIG, "jpeg")] * int(header.NumberOfFrames)
    header.PixelData = pydicom.encaps.encapsulate(frames)
    pydicom.dcmwrite(tmp_path / "a.dcm", header, enforce_file_format=True)

    assert refusal(tmp_path / "a.dcm") == "codestream_size"


def test_header_larger_than_the_limit_is_refused_while_it_is_read(tmp_path: Path) -> None:
    header = write_wsi(tmp_path / "a.dcm", PICTURE)
    header.add_new(0x00091010, "OB", bytes(3_000_000))
    pydicom.dcmwrite(tmp_path / "a.dcm", header, enforce_file_format=True)

    assert refusal(tmp_path / "a.dcm", SlideLimits(header_bytes=1_000_000)) == "too_large"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, "unsupported"),  # two files of one size: focal planes or optical paths
        ({"SOPInstanceUID": "2.25.771"}, "duplicate_uid"),
        ({"SeriesInstanceUID": "2.25.999"}, "unsupported"),
    ],
    ids=str,
)
def test_files_that_are_not_the_levels_of_one_slide_are_refused(tmp_path: Path, changes: dict, code: str) -> None:
    write_wsi(tmp_path / "a.dcm", PICTURE)
    write_wsi(tmp_path / "b.dcm", PICTURE, number=1, **changes)

    assert refusal(tmp_path) == code


@pytest.mark.parametrize("places", [(1, 1), (33, 1), (6401, 1)], ids=str)
def test_sparse_frames_out_of_place_are_refused(tmp_path: Path, places: tuple[int, int]) -> None:
    header = write_wsi(tmp_path / "a.dcm", PICTURE, kind="raw", left_out=[])
    place = header.PerFrameFunctionalGroupsSequence[3].PlanePositionSlideSequence[0]
    place.RowPositionInTotalImagePixelMatrix, place.ColumnPositionInTotalImagePixelMatrix = places
    pydicom.dcmwrite(tmp_path / "a.dcm", header, enforce_file_format=True)

    assert refusal(tmp_path / "a.dcm") == ("unsupported" if places[0] == 33 else "bad_header")


def test_sparse_frames_without_a_place_are_refused(tmp_path: Path) -> None:
    header = write_wsi(tmp_path / "a.dcm", PICTURE, kind="raw", left_out=[])
    del header.PerFrameFunctionalGroupsSequence[2].PlanePositionSlideSequence
    pydicom.dcmwrite(tmp_path / "a.dcm", header, enforce_file_format=True)

    assert refusal(tmp_path / "a.dcm") == "bad_header"


def test_pipes_missing_files_and_empty_folders_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    codes = {"pipe": "not_regular_file", "nothing": "missing", "empty": "not_dicom"}

    assert {name: refusal(tmp_path / name) for name in codes} == codes


def test_neighbours_that_cannot_be_read_are_no_part_of_the_slide(tmp_path: Path) -> None:
    write_wsi(tmp_path / "a.dcm", PICTURE)
    write_wsi(tmp_path / "b.dcm", halved(PICTURE), number=1)
    (tmp_path / "junk.dcm").write_bytes(bytes(128) + b"DICM" + bytes(range(200)))
    (tmp_path / "notes.txt").write_text("SECRET")

    with open_slide(tmp_path / "a.dcm") as slide:
        assert len(slide.info.levels) == 2
        assert len(slide.sources) == 2


def test_random_damage_is_refused_or_read_and_nothing_else(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    write_tiff(tmp_path / "t", PICTURE, description=APERIO, compression="jpeg", levels=2)
    write_wsi(tmp_path / "d", PICTURE)
    originals = {name: (tmp_path / name).read_bytes() for name in "td"}
    refused = set()

    for turn in range(300):
        data = bytearray(originals["td"[turn % 2]])
        # headers are where the harm is done
        for place in random.integers(0, 3000 if turn % 3 else len(data), size=4):
            data[place] = random.integers(0, 256)
        if turn % 7 == 0:
            data[-400:] = random.integers(0, 256, 400, dtype=np.uint8).tobytes()
        (tmp_path / "x").mkdir(exist_ok=True)
        (tmp_path / "x" / "a").write_bytes(data)
        try:
            read_all(tmp_path / "x" / "a", SlideLimits(level_pixels=1 << 22))
        except RefusedInput as refusal_:
            refused.add(refusal_.code)

    assert RefusalCode.BAD_HEADER in refused
    assert len(refused) > 4


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "1"], ids=repr)
def test_limits_are_whole_numbers_above_0(value: object) -> None:
    with pytest.raises(ConfigError, match="limit tiles"):
        SlideLimits(tiles=value)  # type: ignore[arg-type]
