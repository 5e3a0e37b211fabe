"""Loading, against Pillow and MONAI's own reader, for every mode and every kind of broken file."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from monai.data.image_reader import PILReader
from monai.data.meta_obj import set_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms.io.array import LoadImage
from monai.transforms.io.dictionary import LoadImaged
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from msrf_monai.errors import ConfigError, DataError
from msrf_monai.transforms import LoadImage2D, LoadImage2Dd, read_picture, to_rows

HEIGHT, WIDTH = 30, 47


def rgb(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    rng = np.random.default_rng(5)
    smooth = cv2.GaussianBlur(rng.random((height, width, 3)).astype(np.float32), (0, 0), 3)
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


def luma() -> np.ndarray:
    return np.asarray(Image.fromarray(rgb()).convert("L"))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "ppm", "webp"])
def test_rgb_files_equal_what_monai_reads_through_pillow(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(rgb()).save(path)
    expected = LoadImage(PILReader, ensure_channel_first=True)(path)

    image = LoadImage2D()(path)

    assert isinstance(image, MetaTensor)
    assert image.dtype == torch.uint8
    assert image.shape == (3, WIDTH, HEIGHT)
    assert torch.equal(image.as_tensor().float(), expected.as_tensor())


def test_metadata_is_what_monai_and_monai_label_expect(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(rgb()).save(path)

    image = LoadImage2D()(path)

    assert isinstance(image.meta["spatial_shape"], np.ndarray)
    assert image.meta["spatial_shape"].tolist() == [WIDTH, HEIGHT]
    assert image.meta["original_channel_dim"] == 0
    assert image.meta["filename_or_obj"] == str(path)
    assert torch.equal(image.affine, torch.eye(4, dtype=torch.float64))


def test_pixels_are_a_view_of_contiguous_rows(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(rgb()).save(path)
    image = LoadImage2D()(path)

    rows = to_rows(image)

    assert rows.flags.c_contiguous
    assert np.shares_memory(rows, image.as_tensor().numpy())


# mode as saved -> what Pillow's own conversion of the original gives
MODES: list[tuple[str, str, Callable[[Image.Image], np.ndarray]]] = [
    ("L", "png", lambda image: np.asarray(image.convert("L").convert("RGB"))),
    ("L", "jpg", lambda image: np.asarray(image.convert("L").convert("RGB"))),
    ("LA", "png", lambda image: np.asarray(image.convert("L").convert("RGB"))),
    ("1", "png", lambda image: np.asarray(image.convert("1").convert("RGB"))),
    ("P", "png", lambda image: np.asarray(image.convert("P").convert("RGB"))),
    ("P", "gif", lambda image: np.asarray(image.convert("P").convert("RGB"))),
    ("RGBA", "png", lambda image: np.asarray(image)),
    ("CMYK", "tif", lambda image: np.asarray(image.convert("CMYK").convert("RGB"))),
]


@pytest.mark.parametrize(("mode", "suffix", "convert"), MODES, ids=[f"{mode}-{suffix}" for mode, suffix, _ in MODES])
def test_modes_become_rgb(tmp_path: Path, mode: str, suffix: str, convert: Any) -> None:
    path = tmp_path / f"image.{suffix}"
    converted = Image.fromarray(rgb()).convert(mode)
    if mode == "RGBA":
        converted.putalpha(Image.fromarray(luma()))
    converted.save(path, **({"quality": 100} if suffix == "jpg" else {}))
    tolerance = 3 if suffix == "jpg" else 0

    rows = to_rows(LoadImage2D()(path))

    assert rows.dtype == np.uint8
    assert np.abs(rows.astype(int) - convert(Image.fromarray(rgb()))).max() <= tolerance


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_one_channel_of_rgb_is_pillows_luma(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(rgb()).save(path)

    image = LoadImage2D(channels=1)(path)

    assert image.shape == (1, WIDTH, HEIGHT)
    np.testing.assert_array_equal(image[0].numpy().T, luma())


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_maps_the_full_range_to_255(tmp_path: Path, suffix: str) -> None:
    values = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(values).save(path)

    image = LoadImage2D(channels=1)(path)

    assert image.dtype == torch.float32
    np.testing.assert_allclose(image[0].numpy().T, values / 257, rtol=1e-6)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bit_colour_keeps_its_precision(tmp_path: Path, suffix: str) -> None:
    values = (rgb().astype(np.uint16) * 257) ^ np.uint16(5)
    path = tmp_path / f"image{suffix}"
    assert cv2.imwrite(str(path), cv2.cvtColor(values, cv2.COLOR_RGB2BGR))

    image = LoadImage2D()(path)

    np.testing.assert_allclose(to_rows(image), values / 257, rtol=1e-6)
    np.testing.assert_allclose(
        LoadImage2D(channels=1)(path)[0].numpy().T, values @ [0.299, 0.587, 0.114] / 257, atol=0.01
    )


def test_minmax_stretches_the_range_of_the_image(tmp_path: Path) -> None:
    values = (1000 + 7 * np.arange(HEIGHT * WIDTH)).astype(np.uint16).reshape(HEIGHT, WIDTH)
    path = tmp_path / "image.png"
    Image.fromarray(values).save(path)

    image = LoadImage2D(channels=1, intensity="minmax")(path)

    expected = np.linspace(0, 255, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    np.testing.assert_allclose(image[0].numpy().T, expected, atol=1e-3)


@pytest.mark.parametrize(("scale", "factor"), [(1.0, 255.0), (200.0, 1.0)])
def test_float_tiff_is_taken_as_fraction_or_as_255(tmp_path: Path, scale: float, factor: float) -> None:
    values = (np.random.default_rng(0).random((HEIGHT, WIDTH)) * scale).astype(np.float32)
    path = tmp_path / "image.tif"
    Image.fromarray(values).save(path)

    np.testing.assert_allclose(LoadImage2D(channels=1)(path)[0].numpy().T, values * factor, rtol=1e-5)


def test_values_without_a_known_white_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ct.tif"
    Image.fromarray(np.linspace(-1000, 2000, 600, dtype=np.float32).reshape(20, 30)).save(path)

    with pytest.raises(DataError, match=r'ct\.tif holds values from -1000 to 2000.*intensity="minmax"'):
        LoadImage2D()(path)
    assert LoadImage2D(intensity="minmax")(path).max() == 255


def test_nan_pixels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.tif"
    Image.fromarray(np.full((4, 5), np.nan, np.float32)).save(path)

    with pytest.raises(DataError, match="NaN or infinite"):
        LoadImage2D()(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_orientation_is_applied_as_viewers_do(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(rgb()).save(path, exif=exif)
    with Image.open(path) as stored:
        raw = np.asarray(stored)
    turned = {
        1: raw,
        2: raw[:, ::-1],
        3: raw[::-1, ::-1],
        4: raw[::-1],
        5: raw.swapaxes(0, 1),
        6: np.rot90(raw, -1),
        7: raw[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(raw),
    }

    np.testing.assert_array_equal(to_rows(LoadImage2D()(path)), turned[orientation])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 10000), (10000, 8), (1, 300)])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_extreme_sizes_load(tmp_path: Path, height: int, width: int, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(np.full((height, width, 3), 77, np.uint8)).save(path)

    image = LoadImage2D()(path)

    assert image.shape == (3, width, height)
    assert (image == 77).all()


def test_first_view_of_a_telephones_mpo_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.fromarray(rgb()).save(path, "MPO", save_all=True, append_images=[Image.fromarray(255 - rgb())], quality=100)

    assert np.abs(to_rows(LoadImage2D()(path)).astype(int) - rgb()).max() < 12


# -- files that are no image -----------------------------------------------------------------------------------------


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        LoadImage2D()(tmp_path / "gone.png")


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        LoadImage2D()(tmp_path)


def test_unreadable_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        LoadImage2D()(tmp_path / ("x" * 300 + ".png"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.png", b"", r"empty\.png is empty"),
        ("text.png", b"patient,label\n1,polyp\n", r"text\.png is not an image"),
        ("junk.nii.gz", b"not nifti at all", r"junk\.nii\.gz cannot be read as a NIfTI"),
        ("junk.dcm", b"\0" * 128 + b"DICM" + b"nonsense", r"junk\.dcm cannot be read as a DICOM"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(DataError, match=message):
        LoadImage2D()(tmp_path / name)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "gif"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, part: float) -> None:
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(rgb(120, 90)).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])

    with pytest.raises(DataError, match=r"cut\.\w+ is (cut short|not an image)"):
        LoadImage2D()(path)


def test_damaged_png_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "damaged.png"
    Image.fromarray(rgb()).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)

    with pytest.raises(DataError, match=r"damaged\.png is cut short or damaged"):
        LoadImage2D()(path)


@pytest.mark.parametrize("suffix", ["gif", "tif", "png"])
def test_several_frames_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film.{suffix}"
    frames = [Image.fromarray(rgb()), Image.fromarray(255 - rgb())]
    frames[0].save(path, save_all=True, append_images=frames[1:])

    with pytest.raises(DataError, match=r"film\.\w+ holds 2 frames"):
        LoadImage2D()(path)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [10_000, 60_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(side, side))

    with pytest.raises(DataError, match=r"bomb\.png is refused as too large"):
        LoadImage2D()(path)


def test_max_pixels_is_an_option(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(rgb()).save(path)

    with pytest.raises(DataError, match="47 x 30 pixels are more than max_pixels=1000"):
        LoadImage2D(max_pixels=1000)(path)
    assert LoadImage2D(max_pixels=47 * 30)(path).shape == (3, 47, 30)


def test_interlaced_and_palette_png_go_through_pillow(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(rgb()).quantize(16).save(buffer, "PNG", transparency=0)
    path = tmp_path / "palette.png"
    path.write_bytes(buffer.getvalue())

    expected = np.asarray(Image.open(path).convert("RGB"))

    np.testing.assert_array_equal(to_rows(LoadImage2D()(path)), expected)


# -- NIfTI and DICOM ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(WIDTH, HEIGHT, 3), (WIDTH, HEIGHT, 1, 3), (WIDTH, HEIGHT, 1, 1, 3)])
def test_colour_nifti_as_monai_label_writes_it_equals_the_png(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "image.nii.gz"
    array = rgb().transpose(1, 0, 2)
    if len(shape) == 3:  # NIfTI's own RGB type
        array = np.ascontiguousarray(array).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    else:
        nibabel.save(nibabel.Nifti1Image(array.reshape(shape).astype(np.float32), np.eye(4)), path)

    image = LoadImage2D()(path)

    assert image.dtype == torch.uint8
    np.testing.assert_array_equal(to_rows(image), rgb())


def test_grey_nifti_keeps_its_affine(tmp_path: Path) -> None:
    path = tmp_path / "image.nii"
    affine = np.diag([-0.5, -0.5, 2.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(luma().T.astype(np.int16)[..., None], affine), path)

    image = LoadImage2D(channels=1)(path)

    np.testing.assert_array_equal(image[0].numpy().T, luma())
    np.testing.assert_allclose(image.affine.numpy(), affine)


@pytest.mark.parametrize("shape", [(8, 9, 4), (8, 9, 3), (8, 9, 1, 2), (8,), (8, 9, 2, 3)])
def test_volumes_and_series_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "volume.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.float32), np.eye(4)), path)

    with pytest.raises(DataError, match=r"volume\.nii holds"):
        LoadImage2D()(path)


def test_nifti_header_that_claims_a_huge_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((30, 20), np.uint8), np.eye(4)), path)

    with pytest.raises(DataError, match="refused as too large"):
        read_picture(path, max_pixels=599)


def dicom(path: Path, pixels: np.ndarray, **tags: Any) -> Path:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits, bits - 1, 0
    dataset.PixelData = pixels.tobytes() + (b"\0" if pixels.nbytes % 2 else b"")
    dataset["PixelData"].VR = "OW"
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path)
    return path


def test_rgb_dicom_equals_its_pixels(tmp_path: Path) -> None:
    np.testing.assert_array_equal(to_rows(LoadImage2D()(dicom(tmp_path / "a.dcm", rgb()))), rgb())


def test_ybr_dicom_becomes_rgb(tmp_path: Path) -> None:
    ybr = np.asarray(Image.fromarray(rgb()).convert("YCbCr"))
    path = dicom(tmp_path / "a.dcm", ybr, PhotometricInterpretation="YBR_FULL")

    assert np.abs(to_rows(LoadImage2D()(path)).astype(int) - rgb()).max() <= 3  # two roundings to 8 bits


def test_eight_bit_monochrome_stays_as_it_is_and_monochrome1_is_turned(tmp_path: Path) -> None:
    plain = LoadImage2D(channels=1)(dicom(tmp_path / "a.dcm", luma()))
    turned = LoadImage2D(channels=1)(dicom(tmp_path / "b.dcm", luma(), PhotometricInterpretation="MONOCHROME1"))

    np.testing.assert_array_equal(plain[0].numpy().T, luma())
    np.testing.assert_array_equal(turned[0].numpy().T, 255 - luma())


def test_window_and_rescale_are_applied(tmp_path: Path) -> None:
    pixels = np.linspace(0, 4095, 600).astype(np.uint16).reshape(20, 30)
    path = dicom(
        tmp_path / "a.dcm", pixels, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=[1000, 5], WindowWidth=400
    )

    image = LoadImage2D(channels=1)(path)

    expected = np.clip((pixels * 2.0 - 100 - 800) / 400 * 255, 0, 255)
    np.testing.assert_allclose(image[0].numpy().T, expected, atol=1e-3)


def test_deep_monochrome_without_window_uses_its_own_range(tmp_path: Path) -> None:
    pixels = np.linspace(100, 900, 600).astype(np.uint16).reshape(20, 30)

    image = LoadImage2D(channels=1)(dicom(tmp_path / "a.dcm", pixels, PhotometricInterpretation="MONOCHROME1"))

    assert image.dtype == torch.float32
    assert image[0, 0, 0] == 255
    assert image[0, -1, -1] == 0


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"NumberOfFrames": 2}, "holds 2 frames"),
        ({"Rows": 60000, "Columns": 60000}, "60000 x 60000"),
        ({"Rows": 31}, "cannot be read as a DICOM image"),
    ],
)
def test_dicom_that_is_no_single_sound_image_is_refused(tmp_path: Path, tags: dict[str, Any], message: str) -> None:
    path = dicom(tmp_path / "bad.dcm", luma(), **tags)

    with pytest.raises(DataError, match=message):
        LoadImage2D()(path)


def test_sixteen_bit_colour_dicom_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not 8-bit RGB"):
        LoadImage2D()(dicom(tmp_path / "deep.dcm", rgb().astype(np.uint16)))


def test_pydicom_2_conversion_of_ybr_is_used_where_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ybr = np.asarray(Image.fromarray(rgb()).convert("YCbCr"))
    path = dicom(tmp_path / "a.dcm", ybr, PhotometricInterpretation="YBR_FULL")
    monkeypatch.setattr("msrf_monai.transforms.dicom._GIVES_RGB", False)
    monkeypatch.setattr(pydicom.dataset.Dataset, "pixel_array", property(lambda _: ybr))

    assert np.abs(to_rows(LoadImage2D()(path)).astype(int) - rgb()).max() <= 3  # two roundings to 8 bits


# -- the MONAI side -------------------------------------------------------------------------------------------------


def test_dictionary_form_is_a_loadimaged_whose_image_only_can_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(rgb()).save(path)
    loader = LoadImage2Dd("image")
    assert isinstance(loader, LoadImaged)

    only = loader({"image": path, "id": 1})
    loader._loader.image_only = False
    both = loader({"image": str(path)})

    assert set(only) == {"image", "id"}
    assert both["image_meta_dict"]["spatial_shape"].tolist() == [WIDTH, HEIGHT]
    assert torch.equal(both["image"], only["image"])


def test_metadata_tracking_can_be_off(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(rgb()).save(path)
    set_track_meta(False)
    try:
        image = LoadImage2D()(path)
    finally:
        set_track_meta(True)

    assert not isinstance(image, MetaTensor)
    assert image.shape == (3, WIDTH, HEIGHT)


def test_readers_of_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes no reader"):
        LoadImage2Dd("image").register(PILReader())
    with pytest.raises(ConfigError, match="takes no reader"):
        LoadImage2D()(tmp_path / "a.png", PILReader())


@pytest.mark.parametrize("given", [["a.png", "b.png"], 3, []])
def test_anything_but_one_path_is_refused(given: Any) -> None:
    with pytest.raises(DataError, match="one path"):
        LoadImage2D()(given)


@pytest.mark.parametrize("options", [{"channels": 2}, {"intensity": "auto"}, {"meta_keys": ["a", "b"]}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        LoadImage2Dd("image", **options)


@pytest.mark.realdata
def test_fast_decoding_equals_pillow_on_real_images(data_root: Path) -> None:
    paths = [path for kind in ("jpg", "png") for path in sorted(data_root.glob(f"*/images/*.{kind}"))[::40]][:30]
    if not paths:
        pytest.skip("no images below MSRF_DATA_DIR")

    for path in paths:
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(to_rows(LoadImage2D()(path)), expected, err_msg=path.name)
