"""Masks in every form that data sets store them, and those that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from msrf_monai.errors import ConfigError, DataError
from msrf_monai.transforms import LoadImage2Dd, LoadMask2D, LoadMask2Dd


def disc(height: int = 80, width: int = 120) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return ((rows - 35) ** 2 + (columns - 70) ** 2 < 20**2).astype(np.uint8)


def saved(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "pixels", "options"),
    [
        ("zero_one.png", disc(), {}),
        ("zero_255.png", disc() * 255, {}),
        ("sixteen.png", disc().astype(np.uint16) * 65535, {}),
        ("sixteen_255.png", disc().astype(np.uint16) * 255, {}),
        ("sixteen_one.tif", disc().astype(np.uint16), {}),
        ("float.tif", disc().astype(np.float32), {}),
        ("rgb.png", np.repeat(disc()[..., None] * 255, 3, 2), {}),
        ("blue.png", np.stack([disc() * 0, disc() * 0, disc() * 255], 2), {}),
        ("rgba.png", np.dstack([np.repeat(disc()[..., None] * 255, 3, 2), np.full_like(disc(), 255)]), {}),
        ("bit.png", disc().astype(bool), {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_binary_masks_load_as_zero_and_one(tmp_path: Path, name: str, pixels: np.ndarray, options: Any) -> None:
    mask = LoadMask2D()(saved(tmp_path / name, pixels, **options))

    assert mask.dtype == torch.uint8
    assert mask.shape == (1, 120, 80)
    np.testing.assert_array_equal(mask[0].numpy().T, disc())


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("is_colour", [False, True])
def test_jpeg_masks_are_thresholded(tmp_path: Path, quality: int, is_colour: bool) -> None:
    grey = disc() * 255
    path = saved(tmp_path / "m.jpg", np.repeat(grey[..., None], 3, 2) if is_colour else grey, quality=quality)
    assert len(np.unique(np.asarray(Image.open(path)))) > 2
    expected = np.asarray(Image.open(path).convert("L")) > 127

    mask = LoadMask2D()(path)

    np.testing.assert_array_equal(mask[0].numpy().T, expected)
    assert (disc() != mask[0].numpy().T).mean() < 0.005


def test_mask_with_a_blurred_border_is_thresholded(tmp_path: Path) -> None:
    blurred = cv2.GaussianBlur(disc(200, 300) * 255, (0, 0), 2)

    mask = LoadMask2D()(saved(tmp_path / "m.png", blurred))

    np.testing.assert_array_equal(mask[0].numpy().T, blurred > 127)


@pytest.mark.parametrize("value", [0, 1, 255])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_uniform_masks_are_empty_or_full(tmp_path: Path, value: int, suffix: str) -> None:
    path = saved(tmp_path / f"m.{suffix}", np.full((16, 24), value, np.uint8))

    assert (LoadMask2D()(path) == (value > 0)).all()


@pytest.mark.parametrize("quality", [75, 95, 100])
@pytest.mark.parametrize("is_colour", [False, True])
def test_jpeg_masks_of_zero_and_one_are_not_taken_for_empty(tmp_path: Path, quality: int, is_colour: bool) -> None:
    pixels = np.repeat(disc()[..., None], 3, 2) if is_colour else disc()
    path = saved(tmp_path / "label.jpg", pixels, quality=quality)

    mask = LoadMask2D()(path)[0].numpy().T

    np.testing.assert_array_equal(mask, cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) >= 1)
    # what JPEG keeps of a step of 1 in 255: the disc, with a ragged border at low quality
    dice = 2 * (mask & disc()).sum() / (mask.sum() + disc().sum())
    assert dice > (0.9 if quality == 75 else 0.98)


@pytest.mark.parametrize("quality", [75, 95, 100])
def test_empty_jpeg_masks_stay_empty(tmp_path: Path, quality: int) -> None:
    path = saved(tmp_path / "label.jpg", disc() * 0, quality=quality)

    assert not LoadMask2D()(path).any()


@pytest.mark.parametrize("quality", [75, 95, 100])
@pytest.mark.parametrize("value", [6, 12, 20])
def test_dark_jpeg_masks_are_refused_unless_a_threshold_is_asked_for(tmp_path: Path, value: int, quality: int) -> None:
    path = saved(tmp_path / "dark.jpg", disc() * value, quality=quality)
    assert 4 <= np.asarray(Image.open(path)).max() < 32

    with pytest.raises(DataError, match=r"dark\.jpg is no binary mask: it holds \d+ values \(0, "):
        LoadMask2D()(path)

    assert not LoadMask2D(strict=False)(path).any()
    assert LoadMask2D(strict=False, threshold=value // 2)(path).any()


def test_palette_mask_is_read_by_its_indices(tmp_path: Path) -> None:
    image = Image.fromarray(disc()).convert("P")
    image.putpalette([0, 0, 0, 0, 128, 0])
    image.save(tmp_path / "m.png")

    np.testing.assert_array_equal(
        LoadMask2D()(tmp_path / "m.png")[0].numpy().T, np.asarray(Image.open(tmp_path / "m.png"))
    )


def three_levels(low: int, middle: int, high: int) -> np.ndarray:
    mask = np.full((60, 90), low, np.uint8)
    mask[10:30, 10:40] = middle
    mask[35:50, 50:80] = high
    return mask


@pytest.mark.parametrize(
    "pixels",
    [three_levels(0, 128, 255), three_levels(0, 1, 2), three_levels(0, 2, 2), three_levels(0, 128, 128)],
    ids=["0-128-255", "0-1-2", "0-2", "0-128"],
)
def test_ambiguous_masks_are_refused_with_their_values(tmp_path: Path, pixels: np.ndarray) -> None:
    path = saved(tmp_path / "classes.png", pixels)
    values = ", ".join(str(value) for value in np.unique(pixels))

    with pytest.raises(DataError, match=rf"classes\.png is no binary mask: it holds \d values \({values}\)"):
        LoadMask2D()(path)


def test_photograph_as_mask_is_refused(tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (50, 60), dtype=np.uint8)

    with pytest.raises(DataError, match=r"holds 256 values \(0, 1, 2, 3, 4, 5, 6, 7, …\)"):
        LoadMask2D()(saved(tmp_path / "photo.jpg", photo, quality=100))


def test_plain_threshold_is_there_for_those_who_ask(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.png", three_levels(0, 128, 255))
    deep = saved(tmp_path / "deep.png", three_levels(0, 128, 255).astype(np.uint16) * 257)
    bit = saved(tmp_path / "bit.png", disc().astype(bool))

    low, high = (LoadMask2D(strict=False, threshold=limit)(path).sum() for limit in (127, 128))

    assert (low, high) == (20 * 30 + 15 * 30, 15 * 30)
    assert LoadMask2D(strict=False, threshold=128)(deep).sum() == 15 * 30
    np.testing.assert_array_equal(LoadMask2D(strict=False)(bit)[0].numpy().T, disc())


@pytest.mark.parametrize("suffix", ["png", "nii.gz"])
def test_class_numbers_are_kept(tmp_path: Path, suffix: str) -> None:
    pixels, path = three_levels(0, 1, 2), tmp_path / f"m.{suffix}"
    if suffix == "png":
        saved(path, pixels)
    else:
        nibabel.save(nibabel.Nifti1Image(pixels.T.astype(np.float32), np.eye(4)), path)

    mask = LoadMask2D(num_classes=3)(path)

    assert mask.dtype == torch.uint8
    np.testing.assert_array_equal(mask[0].numpy().T, pixels)


def test_class_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"m\.png holds the value\(s\) 2, and class numbers 0\.\.1"):
        LoadMask2D(num_classes=2)(saved(tmp_path / "m.png", three_levels(0, 1, 2)))


def test_class_numbers_in_grey_rgb_are_read_and_colours_refused(tmp_path: Path) -> None:
    pixels = three_levels(0, 1, 2)
    grey = saved(tmp_path / "grey.png", np.repeat(pixels[..., None], 3, 2))
    colour = saved(tmp_path / "colour.png", np.stack([pixels, pixels * 0, pixels], 2))

    np.testing.assert_array_equal(LoadMask2D(num_classes=3)(grey)[0].numpy().T, pixels)
    with pytest.raises(DataError, match=r"colour\.png is a colour image"):
        LoadMask2D(num_classes=3)(colour)


@pytest.mark.parametrize("number", [1, 0, 257])
def test_number_of_classes_is_checked(number: int) -> None:
    with pytest.raises(ConfigError, match="num_classes"):
        LoadMask2D(number)


def test_mask_of_another_size_than_its_image_is_refused(tmp_path: Path) -> None:
    image = saved(tmp_path / "image.png", np.zeros((80, 121, 3), np.uint8))
    item = LoadImage2Dd("image")({"image": image, "label": saved(tmp_path / "mask.png", disc())})

    with pytest.raises(DataError, match=r"mask\.png is 120 x 80 pixels and its image .*image\.png is 121 x 80"):
        LoadMask2Dd("label")(item)
    assert LoadMask2Dd("label", image_key=None)(item)["label"].shape == (1, 120, 80)


def test_mask_of_the_size_of_its_image_is_accepted(tmp_path: Path) -> None:
    image = saved(tmp_path / "image.png", np.zeros((80, 120, 3), np.uint8))
    item = LoadImage2Dd("image")({"image": image, "label": saved(tmp_path / "mask.png", disc())})

    assert LoadMask2Dd("label")(item)["label"].sum() == disc().sum()


def test_mask_alone_is_accepted(tmp_path: Path) -> None:
    item = {"label": saved(tmp_path / "mask.png", disc()), "image": "not loaded yet"}

    assert LoadMask2Dd("label")(item)["label"].sum() == disc().sum()


@pytest.mark.realdata
def test_real_masks_are_binary(data_root: Path) -> None:
    paths = sorted(data_root.glob("*/masks/*.png"))[::60]
    if not paths:
        pytest.skip("no masks below MSRF_DATA_DIR")

    assert all(set(np.unique(LoadMask2D()(path))) <= {0, 1} for path in paths)
