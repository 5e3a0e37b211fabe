"""Reading of pictures and masks, against Pillow and against arrays that we wrote."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msrf_monai.data.pictures import encode_png, large_pictures_allowed, read_mask, read_picture
from msrf_monai.errors import DataError

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


def test_opaque_alpha_keeps_the_bytes_and_transparent_pixels_become_black() -> None:
    alpha = np.full((6, 9, 1), 255, np.uint8)
    opaque = read_picture(encoded(Image.fromarray(np.concatenate([RAMP, alpha], axis=2))), HERE)
    alpha[2, 3] = 0
    clear = read_picture(encoded(Image.fromarray(np.concatenate([RAMP, alpha], axis=2))), HERE)

    expected = RAMP.copy()
    expected[2, 3] = 0
    assert opaque.replacement is None
    np.testing.assert_array_equal(clear.replacement, expected)


@pytest.mark.parametrize(("bits", "value"), [(8, 200), (10, 1000), (12, 3000), (14, 16000), (16, 65535)])
def test_16_bit_grey_is_scaled_from_the_bits_that_are_in_use(bits: int, value: int) -> None:
    values = np.array([[0, value], [value // 2, value // 4]], np.uint16)

    picture = read_picture(encoded(Image.fromarray(values)), HERE)

    expected = np.rint(values / (2**bits - 1) * 255)
    np.testing.assert_allclose(picture.replacement[..., 1], expected, atol=1)


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
