"""Pictures as cases: every kind of pixel by the table, limits first, and damage told from a cut."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from msrf_monai.clinical.reading import Limits, RefusedInput, kind_of, open_case, open_raster
from support.dicom_files import as_bytes, image_dataset, pattern

GREY, RGB = pattern(6, 8), pattern(6, 8, samples=3)


def saved(image: Any, tmp_path: Path, suffix: str = "png", **options: Any) -> Path:
    path = tmp_path / f"picture.{suffix}"
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def code_of(path: Path, **options: Any) -> str:
    with pytest.raises(RefusedInput) as caught:
        open_case(path, **options).frame()
    return caught.value.code.value


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "pgm"])
def test_8_bit_grey_comes_as_it_is(tmp_path: Path, suffix: str) -> None:
    case = open_case(saved(GREY, tmp_path, suffix))
    assert np.array_equal(case.frame(), GREY)
    assert (case.info.kind, case.info.photometric, case.info.white, case.info.samples) == ("raster", "L", 255, 1)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "ppm", "webp"])
def test_rgb_comes_as_it_is(tmp_path: Path, suffix: str) -> None:
    case = open_case(saved(RGB, tmp_path, suffix, **({"lossless": True} if suffix == "webp" else {})))
    assert np.array_equal(case.frame(), RGB)
    assert case.info.spacing_mm is None


def test_single_bits_are_0_and_1(tmp_path: Path) -> None:
    bits = GREY > 100
    case = open_case(saved(Image.fromarray(bits), tmp_path))
    assert np.array_equal(case.frame(), bits.astype(np.uint8))
    assert case.info.white == 1


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_its_bits(tmp_path: Path, suffix: str) -> None:
    deep = pattern(peak=65535, dtype=np.uint16)
    case = open_case(saved(deep, tmp_path, suffix))
    assert case.frame().dtype == np.uint16
    assert np.array_equal(case.frame(), deep)
    assert case.info.white == 65535


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_16_bit_colour_keeps_its_bits(tmp_path: Path, suffix: str, has_alpha: bool) -> None:
    deep = pattern(samples=3, peak=65535, dtype=np.uint16)
    stored = np.dstack([deep[..., ::-1], np.full((6, 8), 65535, np.uint16)]) if has_alpha else deep[..., ::-1]
    path = tmp_path / f"deep.{suffix}"
    assert cv2.imwrite(str(path), stored)
    case = open_case(path)
    assert (case.info.dtype, case.info.samples) == ("uint16", 3)
    assert np.array_equal(case.frame(), deep)


def test_float_pictures_have_no_white(tmp_path: Path) -> None:
    values = pattern(dtype=np.float32) / np.float32(3)
    case = open_case(saved(values, tmp_path, "tif"))
    assert np.array_equal(case.frame(), values)
    assert (case.info.dtype, case.info.white) == ("float32", None)


def test_palettes_give_colours_and_not_indices(tmp_path: Path) -> None:
    image = Image.fromarray(RGB).quantize(16)
    case = open_case(saved(image, tmp_path))
    assert np.array_equal(case.frame(), np.asarray(image.convert("RGB")))
    assert (case.info.photometric, case.info.samples) == ("P", 3)


def test_alpha_of_colour_is_dropped_and_noted(tmp_path: Path) -> None:
    clear = np.dstack([RGB, GREY])
    case = open_case(saved(clear, tmp_path))
    assert np.array_equal(case.frame(), RGB)
    assert case.info.notes == ("alpha_dropped",)


def test_grey_with_alpha_and_cmyk_need_to_be_allowed(tmp_path: Path) -> None:
    grey = saved(Image.fromarray(np.dstack([GREY, GREY[::-1]])), tmp_path)
    assert code_of(grey) == "has_alpha"
    assert np.array_equal(open_case(grey, convert_unusual=True).frame(), GREY)
    cmyk = saved(Image.fromarray(RGB).convert("CMYK"), tmp_path, "tif")
    assert code_of(cmyk) == "cmyk"
    assert np.array_equal(open_case(cmyk, convert_unusual=True).frame(), RGB)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("is_deep", [False, True])
def test_the_exif_orientation_is_applied_and_recorded(tmp_path: Path, orientation: int, is_deep: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(RGB)
    path = saved(image, tmp_path, exif=exif)
    expected: Any = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    if is_deep:
        chunk = b"eXIf" + exif.tobytes()[6:]
        data = cv2.imencode(".png", RGB[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
        framed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        path.write_bytes(data[:33] + framed + data[33:])
        expected = expected.astype(np.uint16) * 257
    case = open_case(path)
    assert np.array_equal(case.frame(), expected)
    assert case.info.exif_orientation == orientation
    assert (case.info.rows, case.info.columns) == ((6, 8) if orientation < 5 else (8, 6))


def oriented_text(way: str) -> bytes:
    """Return a text chunk that says that the picture is to be turned by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = f"\nexif\n{len(exif.tobytes())}\n{exif.tobytes().hex()}".encode()
    content = {
        "tEXt": b"tEXtRaw profile type exif\0" + profile,
        "zTXt": b"zTXtRaw profile type exif\0\0" + zlib.compress(profile),
        "iTXt": b'iTXtXML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>',
        "exif": b"tEXtexif\0" + exif.tobytes(),
    }[way]
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))


@pytest.mark.parametrize("way", ["tEXt", "zTXt", "iTXt", "exif"])
@pytest.mark.parametrize("is_behind", [False, True], ids=["before", "behind"])
def test_an_orientation_in_a_png_text_is_applied_too(tmp_path: Path, way: str, is_behind: bool) -> None:
    path = saved(RGB, tmp_path)
    data = path.read_bytes()
    place = len(data) - 12 if is_behind else 33
    path.write_bytes(data[:place] + oriented_text(way) + data[place:])
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert expected.shape == (8, 6, 3)

    case = open_case(path)

    assert (case.info.exif_orientation, case.info.rows, case.info.columns) == (6, 8, 6)
    assert np.array_equal(case.frame(), expected)


def test_other_texts_in_a_png_turn_nothing(tmp_path: Path) -> None:
    path = saved(RGB, tmp_path)
    data = path.read_bytes()
    content = b"tEXtComment\0Raw profile type exif"
    path.write_bytes(
        data[:33] + struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content)) + data[33:]
    )

    case = open_case(path)

    assert case.info.exif_orientation == 1
    assert np.array_equal(case.frame(), RGB)


def test_jpeg_pixels_are_those_of_pillow_and_lossy(tmp_path: Path) -> None:
    path = saved(pattern(40, 48, samples=3), tmp_path, "jpg", quality=80)
    case = open_case(path)
    assert np.array_equal(case.frame(), np.asarray(Image.open(path)))
    assert case.info.is_lossy


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("exif_rot6.jpg", (80, 40)),
        ("palette.png", (64, 64)),
        ("rgba.png", (64, 64)),
        ("la.png", "has_alpha"),
        ("trunc.png", "truncated"),
        ("nii_huge_header.nii.gz", "too_many_pixels"),
        ("text.dcm", "not_dicom"),
        ("no_preamble.dcm", "not_dicom"),
        ("zero_byte.dcm", "empty_file"),
    ],
)
def test_bad_pictures_of_the_samples(data_root: Path, name: str, outcome: Any) -> None:
    path = data_root / "dicom_samples" / "bad" / name
    if isinstance(outcome, str):
        assert code_of(path) == outcome
    else:
        assert open_case(path).frame().shape == (*outcome, 3)


def _png_claiming(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    parts = [
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in (header, data, b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_pixel_bombs_are_refused_by_their_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    for size in ((13000, 14000), (60000, 60000)):
        path.write_bytes(_png_claiming(*size))
        assert code_of(path) == "too_many_pixels"
    assert code_of(saved(GREY, tmp_path), limits=Limits(frame_pixels=47)) == "too_many_pixels"


@pytest.mark.parametrize(("suffix", "kept"), [("png", -30), ("jpg", -30)])
def test_cut_pictures_are_truncated(tmp_path: Path, suffix: str, kept: int) -> None:
    path = saved(pattern(64, 80, samples=3), tmp_path, suffix)
    path.write_bytes(path.read_bytes()[:kept])
    assert code_of(path) == "truncated"


def test_damage_inside_is_told_from_a_cut(tmp_path: Path) -> None:
    path = saved(pattern(64, 80, samples=3), tmp_path)
    data = bytearray(path.read_bytes())
    data[60:80] = bytes(20)
    path.write_bytes(data)
    assert code_of(path) == "decode_failed"


def test_several_pages_are_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(GREY), Image.fromarray(GREY[::-1])]
    path = tmp_path / "pages.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    assert code_of(path) == "unsupported"


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    png = saved(GREY, tmp_path).read_bytes()
    (tmp_path / "named.dcm").write_bytes(png)
    (tmp_path / "named.png").write_bytes(as_bytes(image_dataset(GREY)))
    assert open_case(tmp_path / "named.dcm").info.kind == "raster"
    assert open_case(tmp_path / "named.png").info.kind == "dicom"


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("notes.txt", b"dear colleague", "unknown_format"),
        ("image", b"dear colleague", "not_dicom"),
        ("a.tar", bytes(257) + b"ustar" + bytes(300), "archive"),
        ("a.nii.gz", gzip.compress(bytes(400), mtime=0), "unsupported"),
        ("a.mhd", b"ObjectType = Image\n", "bad_header"),
    ],
    ids=["text", "no suffix", "tar", "gzip", "metaimage"],
)
def test_other_files_are_named_for_what_they_are(tmp_path: Path, name: str, data: bytes, code: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert code_of(tmp_path / name) == code


def test_zip_files_are_never_opened(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../evil", "x")
    (tmp_path / "study.zip").write_bytes(buffer.getvalue())
    assert code_of(tmp_path / "study.zip") == "archive"
    assert kind_of(bytes(344) + b"n+1\0") == "nifti"


def test_a_picture_that_changes_after_it_was_opened_is_refused(tmp_path: Path) -> None:
    path = saved(GREY, tmp_path)
    case = open_raster(path, keep=False)
    saved(GREY[::-1], tmp_path)
    with pytest.raises(RefusedInput, match="changed"):
        case.frame()
