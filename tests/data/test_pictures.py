"""Reading of pictures and masks, against Pillow and against arrays that we wrote."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from msrf_monai.data import load_datalist, prepare_dataset
from msrf_monai.data.pictures import encode_png, large_pictures_allowed, read_mask, read_picture
from msrf_monai.errors import DataError
from msrf_monai.transforms import LoadImage2Dd
from msrf_monai.transforms.raster import read_raster

HERE = Path("here.png")
RAMP = np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checked = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + checked + struct.pack(">I", 5) + b"IDAT" + bytes(9)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_upright_8_bit_pictures_keep_their_bytes(mode: str) -> None:
    picture = read_picture(encoded(Image.fromarray(RAMP).convert(mode)), HERE)

    assert (picture.height_px, picture.width_px) == (6, 9)
    assert picture.replacement is None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_applied_to_the_pixels(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(np.full((6, 9, 3), 70, np.uint8)), kind, exif=exif)

    picture = read_picture(content, HERE)

    assert (picture.height_px, picture.width_px) == ((6, 9) if orientation < 5 else (9, 6))
    assert (picture.replacement is None) == (orientation == 1)


def test_a_picture_turned_by_exif_equals_the_array_turned_by_numpy() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown after a quarter turn clockwise

    picture = read_picture(encoded(Image.fromarray(RAMP), exif=exif), HERE)

    np.testing.assert_array_equal(picture.replacement, np.rot90(RAMP, -1))


def varied_alpha(mode: str) -> Image.Image:
    image = Image.fromarray(RAMP).convert(mode)
    image.putalpha(Image.fromarray(RAMP[::-1, :, 1].copy()))
    return image


def deep_rgb() -> bytes:
    values = RAMP.astype(np.uint16) * 13 + 5
    done, content = cv2.imencode(".png", values)
    assert done
    return content.tobytes()


def turned(orientation: int = 6) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


RAW = {
    "L.png": encoded(Image.fromarray(RAMP[..., 0].copy())),
    "RGB.png": encoded(Image.fromarray(RAMP)),
    "RGBA.png": encoded(varied_alpha("RGB")),
    "LA.png": encoded(varied_alpha("L")),
    "P.png": encoded(Image.fromarray(RAMP).convert("P")),
    "P_transparent.png": encoded(Image.fromarray(RAMP).convert("P"), transparency=3),
    "12_bits.png": encoded(Image.fromarray(RAMP[..., 0].astype(np.uint16) * 25)),
    "16_bits.tif": encoded(Image.fromarray(RAMP[..., 0].astype(np.uint16) * 400), "TIFF"),
    "16_bits.pgm": encoded(Image.fromarray(RAMP[..., 0].astype(np.uint16) * 400), "PPM"),
    "16_bits_rgb.png": deep_rgb(),
    "CMYK.jpg": encoded(Image.fromarray(RAMP).convert("CMYK"), "JPEG"),
    "turned.jpg": encoded(Image.fromarray(RAMP), "JPEG", exif=turned()),
    "turned_L.png": encoded(Image.fromarray(RAMP[..., 0].copy()), exif=turned()),
    "turned_1.png": encoded(Image.fromarray(RAMP[..., 0] > 60), exif=turned()),
    "turned_RGBA.png": encoded(varied_alpha("RGB"), exif=turned()),
    "turned_16_bits.png": encoded(Image.fromarray(RAMP[..., 0].astype(np.uint16) * 400 + 3), exif=turned()),
}


@pytest.mark.parametrize("name", RAW)
def test_a_prepared_picture_is_loaded_as_the_raw_one_is(tmp_path: Path, name: str) -> None:
    raw = tmp_path / "source" / "images" / name
    raw.parent.mkdir(parents=True)
    raw.write_bytes(RAW[name])
    load = LoadImage2Dd(keys="image")
    expected = np.asarray(load({"image": str(raw)})["image"])
    (tmp_path / "source" / "masks").mkdir()
    mask = np.zeros(expected.shape[:0:-1], np.uint8)
    Image.fromarray(mask).save(tmp_path / "source" / "masks" / f"{raw.stem}.png")

    prepare_dataset("paired", tmp_path / "source", tmp_path / "out")

    prepared = load_datalist(tmp_path / "out", "training")[0]
    np.testing.assert_array_equal(np.asarray(load(prepared)["image"]), expected)
    assert expected.max() > expected.min()


@pytest.mark.parametrize("name", [name for name in RAW if "turned" not in name and "CMYK" not in name])
def test_upright_pictures_of_16_bits_and_with_alpha_keep_their_bytes(name: str) -> None:
    assert read_picture(RAW[name], HERE).replacement is None


def test_cmyk_becomes_rgb_as_pillow_converts_it() -> None:
    image = Image.fromarray(RAMP).convert("CMYK")

    picture = read_picture(encoded(image, "TIFF"), HERE)

    np.testing.assert_array_equal(picture.replacement, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("size", [(1, 1), (1, 10000), (10000, 1)])
def test_pictures_of_one_pixel_or_ten_thousand_columns_are_read(size: tuple[int, int]) -> None:
    content = encode_png(np.full((*size, 3), 9, np.uint8))

    picture = read_picture(content, HERE)

    assert (picture.height_px, picture.width_px) == size


def test_a_picture_above_pillows_warning_limit_is_read_without_a_warning() -> None:
    content = encoded(Image.new("1", (10_000, 9_000)))

    with warnings.catch_warnings(), large_pictures_allowed():
        warnings.simplefilter("error", UserWarning)
        picture = read_picture(content, HERE)

    assert picture.width_px == 10_000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"a text, no picture", "is not a picture"),
        (encode_png(RAMP)[:60], "damaged"),
        (encoded(Image.fromarray(RAMP), "JPEG")[:-60], "damaged"),
        (png_header(20_000, 20_000), "more than the 134217728"),
        (png_header(12_000, 12_000), "more than the 134217728"),
        (encoded(Image.new("F", (3, 2)), "TIFF"), "floating-point"),
        (encoded(Image.fromarray(np.full((2, 2), -5, np.int32)), "TIFF"), "from -5 to -5"),
        (encoded(Image.fromarray(np.full((2, 2), 256, np.int32)), "TIFF"), "from 256 to 256"),
        (encoded(Image.new("L", (3, 2)), "TIFF", save_all=True, append_images=[Image.new("L", (3, 2))]), "2 frames"),
    ],
)
def test_what_is_no_sound_picture_is_refused_with_its_name_and_the_reason(content: bytes, reason: str) -> None:
    with large_pictures_allowed(), pytest.raises(DataError, match=f"here.png: .*{reason}"):
        read_picture(content, HERE)


@pytest.mark.parametrize("foreground", [1, 38, 127, 128, 255])
def test_a_mask_of_two_values_is_binary_whatever_the_values(foreground: int) -> None:
    truth = RAMP[..., 0] % 4 == 0

    mask = read_mask(encode_png((truth * foreground).astype(np.uint8)), HERE)

    np.testing.assert_array_equal(mask, truth)


@pytest.mark.parametrize("value", [0, 1, 255])
def test_a_mask_of_one_value_is_empty_or_full(value: int) -> None:
    mask = read_mask(encode_png(np.full((4, 5), value, np.uint8)), HERE)

    assert (mask == (value > 0)).all()


def test_a_jpeg_mask_is_cut_above_127() -> None:
    truth = np.zeros((64, 96), np.uint8)
    truth[16:48, 24:72] = 255
    content = encoded(Image.fromarray(truth), "JPEG", quality=75)

    mask = read_mask(content, HERE)

    np.testing.assert_array_equal(mask, np.asarray(Image.open(io.BytesIO(content))) > 127)
    np.testing.assert_array_equal(mask, truth > 0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "1", "LA"])
def test_colour_palette_and_alpha_masks_are_read_as_grey(mode: str) -> None:
    truth = RAMP[..., 0] % 3 == 0
    image = Image.fromarray(truth.astype(np.uint8) * 255).convert(mode)

    np.testing.assert_array_equal(read_mask(encoded(image), HERE), truth)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("grey", [0, 255])
def test_a_mask_whose_shape_is_in_alpha_alone_is_refused(mode: str, grey: int) -> None:
    image = Image.new("L", (9, 6), grey).convert(mode)
    image.putalpha(Image.fromarray(RAMP[..., 0] % 2 * np.uint8(255)))

    with pytest.raises(DataError, match=r"here.png: has one grey level and a shape in its alpha channel only"):
        read_mask(encoded(image), HERE)


def broken_exif(tag: int, kind: int, value: bytes) -> bytes:
    """A JPEG to be turned, with a further EXIF tag of a type that does not fit it."""
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHI", tag, kind, 1) + value
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + bytes(4)
    return encoded(Image.fromarray(RAMP), "JPEG", exif=exif)


def tiff_without(tag: int) -> bytes:
    content = bytearray(encoded(Image.fromarray(RAMP), "TIFF"))
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from("<H", content, place) == (tag,):
            struct.pack_into("<H", content, place, 0x7FFF)
    return bytes(content)


BROKEN = {
    "attribute": broken_exif(0x010F, 11, bytes(4)),
    "type": broken_exif(0x011A, 2, bytes(4)),
    "struct": broken_exif(0x0111, 4, b"\xff" * 4),
    "width": tiff_without(0x0100),
    "height": tiff_without(0x0101),
    "strips": tiff_without(0x0111),
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", BROKEN)
def test_broken_metadata_is_an_error_that_names_the_file(name: str) -> None:
    reason = r"here\.png:? (is not a|is not an|cannot be decoded|is cut short or damaged)"

    for read in (read_picture, read_mask):
        with pytest.raises(DataError, match=reason):
            read(BROKEN[name], HERE)
    with pytest.raises(DataError, match=reason):
        read_raster(BROKEN[name], str(HERE))


@pytest.mark.parametrize(
    "error", [TypeError, AttributeError, OverflowError, struct.error, zlib.error], ids=lambda error: error.__module__
)
def test_whatever_a_decoder_raises_is_an_error_that_names_the_file(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    content = encoded(Image.fromarray(RAMP), "BMP")

    def fail(*_: object) -> None:
        raise error("the decoder gave up")

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    for read in (read_picture, read_mask, lambda data, path: read_raster(data, str(path))):
        with pytest.raises(DataError, match=r"here\.png.*the decoder gave up"):
            read(content, HERE)


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 1], [2, 3]], np.uint8),
        np.array([[0, 90], [160, 255]], np.uint8),
        np.full((3, 3), 140, np.uint8),
        np.full((3, 3), 20, np.uint8),
        np.arange(12, dtype=np.uint16).reshape(3, 4),
    ],
)
def test_label_maps_and_grey_pictures_are_no_masks(values: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"here.png: is not a binary mask: it has \d+ values"):
        read_mask(encoded(Image.fromarray(values)), HERE)


def test_16_bit_masks_are_read() -> None:
    truth = RAMP[..., 0] % 5 == 0

    mask = read_mask(encoded(Image.fromarray(truth.astype(np.uint16) * 65535)), HERE)

    np.testing.assert_array_equal(mask, truth)


def test_a_floating_point_mask_is_refused() -> None:
    with pytest.raises(DataError, match="floating-point"):
        read_mask(encoded(Image.new("F", (3, 2)), "TIFF"), HERE)
