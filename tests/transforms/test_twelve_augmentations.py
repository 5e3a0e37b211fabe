"""The augmentations of Hi-gMISnet against SciPy, OpenCV, colorsys and closed forms, and their order."""

from __future__ import annotations

import colorsys
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Compose
from numpy.random import RandomState
from scipy import ndimage
from torch.utils.data import DataLoader, Dataset

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.transforms import RandTwelveAugmentationsd, to_planes, to_rows
from msrf_monai.transforms.degrade import box_blur, cut_out, scale_and_shift, shift_hsv
from msrf_monai.transforms.twelve_augmentations import AUGMENTATION_CYCLE, augment, draw_augmentation
from msrf_monai.transforms.warps import affine_positions, distortion_positions, warp, zoom_matrix

HEIGHT, WIDTH = 24, 34
GEOMETRIC = {"zoom_out", "flip_horizontal", "flip_vertical", "optical_distortion", "rotate"}


def rgb() -> np.ndarray:
    """Rows of an image without any symmetry."""
    return np.random.default_rng(4).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def mask() -> np.ndarray:
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    drawn[5:15, 8:25] = 1
    drawn[15:20, 8:11] = 1
    return drawn


def drawn(kind: str, seed: int = 0) -> dict[str, float]:
    return draw_augmentation(kind, RandomState(seed))


def by_scipy(rows: np.ndarray, positions: torch.Tensor, order: int, mode: str) -> np.ndarray:
    x, y = positions.permute(0, 2, 1).numpy()  # (W, H) to rows and columns
    planes = [ndimage.map_coordinates(rows[..., c].astype(float), [y, x], order=order, mode=mode) for c in range(3)]
    return np.stack(planes, axis=-1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("kind", "scipy_mode", "padding_mode"),
    [
        ("rotate", "mirror", "reflection"),
        ("optical_distortion", "mirror", "reflection"),
        ("zoom_out", "grid-constant", "zeros"),
    ],
)
def test_pixels_are_fetched_as_scipy_fetches_them(kind: str, scipy_mode: str, padding_mode: Any, seed: int) -> None:
    size, numbers = (WIDTH, HEIGHT), drawn(kind, seed)
    if kind == "optical_distortion":
        positions = distortion_positions(size, numbers["strength"], (numbers["shift_x_px"], numbers["shift_y_px"]))
    else:
        degrees = ("rotation_deg", "shear_x_deg", "shear_y_deg")
        rotation, *shear = (np.deg2rad(numbers.get(name, 0)) for name in degrees)
        matrix = zoom_matrix(
            scale=(numbers.get("scale_x", 1), numbers.get("scale_y", 1)), rotation=rotation, shear=shear
        )
        shift = (0.2 * WIDTH, 0.2 * HEIGHT) if kind == "zoom_out" else (0, 0)
        positions = affine_positions(size, matrix, shift)

    out = to_rows(augment(to_planes(rgb().astype(np.float32)), kind, numbers))

    np.testing.assert_allclose(out, by_scipy(rgb(), positions, 1, scipy_mode), atol=0.02)
    nearest = to_rows(warp(to_planes(rgb()), positions, mode="nearest", padding_mode=padding_mode))
    agree = nearest == by_scipy(rgb(), positions, 0, scipy_mode)
    assert agree.mean() > 0.99  # positions halfway between two pixels may go to either


def test_points_go_where_the_matrix_says() -> None:
    matrix = zoom_matrix(scale=(0.5, 0.8), rotation=0.3, shear=(0.2, -0.4))
    middle = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])[:, None, None]

    came_from = affine_positions((WIDTH, HEIGHT), matrix, (2.0, -1.0)).numpy()

    went_to = middle + np.tensordot(matrix, came_from - middle, axes=1) + np.array([2.0, -1.0])[:, None, None]
    np.testing.assert_allclose(went_to, np.indices((WIDTH, HEIGHT)), atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_the_area_of_a_zoomed_object_is_the_product_of_its_scales(seed: int) -> None:
    numbers = drawn("zoom_out", seed)
    big = np.zeros((600, 800), np.uint8)
    big[250:350, 330:470] = 1

    out = augment(to_planes(big), "zoom_out", numbers, is_mask=True)

    assert set(out.unique().tolist()) == {0, 1}
    assert out.sum() / big.sum() == pytest.approx(numbers["scale_x"] * numbers["scale_y"], rel=0.03)
    x, y = (out[0].nonzero().float().mean(0) + 0.5).tolist()
    assert x == pytest.approx(400 + 160, abs=3)  # a fifth of the width to the right
    assert y == pytest.approx(300 + 120, abs=3)


@pytest.mark.parametrize("strength", [-1.0, -0.3, 0.7])
def test_distortion_is_that_of_opencv(strength: float) -> None:
    shift = (0.3, -0.4)
    camera = np.array([[WIDTH, 0, WIDTH / 2 + shift[0]], [0, HEIGHT, HEIGHT / 2 + shift[1]], [0, 0, 1]])
    lens = np.array([strength, strength, 0, 0, 0])
    x, y = cv2.initUndistortRectifyMap(camera, lens, None, camera, (WIDTH, HEIGHT), cv2.CV_32FC1)

    positions = distortion_positions((WIDTH, HEIGHT), strength, shift)

    np.testing.assert_allclose(positions[0].T, x, atol=1e-4)
    np.testing.assert_allclose(positions[1].T, y, atol=1e-4)


def test_a_quarter_turn_of_a_square_is_numpys() -> None:
    square = rgb()[:, :HEIGHT]

    out = to_rows(augment(to_planes(square), "rotate", {"rotation_deg": 90.0}))

    np.testing.assert_array_equal(out, np.rot90(square, -1))  # from x to y is clockwise, as rows run down


@pytest.mark.parametrize(("kind", "flip"), [("flip_horizontal", np.fliplr), ("flip_vertical", np.flipud)])
def test_flips_are_numpys(kind: str, flip: Any) -> None:
    np.testing.assert_array_equal(to_rows(augment(to_planes(rgb()), kind, {})), flip(rgb()))
    np.testing.assert_array_equal(to_rows(augment(to_planes(mask()), kind, {}, is_mask=True))[..., 0], flip(mask()))


@pytest.mark.parametrize("size", [1, 3, 11])
def test_box_blur_is_scipys(size: int) -> None:
    rows = rgb().astype(np.float32)

    out = to_rows(box_blur(to_planes(rows), size))

    np.testing.assert_allclose(out, ndimage.uniform_filter(rows, (size, size, 1), mode="mirror"), atol=1e-3)
    whole = to_rows(box_blur(to_planes(rgb()), size))
    assert whole.dtype == np.uint8
    assert np.abs(whole - out).max() <= 0.51


def test_box_sizes_are_the_odd_numbers_from_3_to_11() -> None:
    sizes = {2 * int(drawn("box_blur", seed)["radius_px"]) + 1 for seed in range(60)}

    assert sizes == {3, 5, 7, 9, 11}
    for size in (2, 0, -1):
        with pytest.raises(InputError, match="must be odd and at least 1"):
            box_blur(to_planes(rgb()), size)


def test_low_resolution_keeps_every_fourth_pixel() -> None:
    rows = rgb()[:, :32]

    out = to_rows(augment(to_planes(rows), "low_resolution", {}))

    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, np.repeat(np.repeat(rows[::4, ::4], 4, axis=0), 4, axis=1))


def test_holes_are_black_and_nothing_else_changes() -> None:
    out = to_rows(cut_out(to_planes(rgb()), [(-3, 2, 5, 9), (30, 20, 99, 99)]))

    expected = rgb()
    expected[2:9, :5] = 0
    expected[20:, 30:] = 0
    np.testing.assert_array_equal(out, expected)


def test_about_three_in_five_pixels_are_cut_out_whatever_the_size() -> None:
    white = torch.full((1, 128, 64), 255, dtype=torch.uint8)

    shares = [float((augment(white, "cut_out", drawn("cut_out", seed)) == 0).float().mean()) for seed in range(40)]

    assert 0.5 < np.mean(shares) < 0.7  # the specification counted about 60 %


@pytest.mark.parametrize(("contrast", "brightness"), [(0.7, 0.4), (1.3, -0.4), (1.0, 0.0)])
def test_brightness_and_contrast_are_their_closed_form(contrast: float, brightness: float) -> None:
    expected = np.clip(rgb().astype(float) * contrast + 255 * brightness, 0, 255)

    whole = to_rows(scale_and_shift(to_planes(rgb()), contrast=contrast, brightness=brightness))
    real = to_rows(scale_and_shift(to_planes(rgb().astype(np.float32)), contrast=contrast, brightness=brightness))

    assert (whole.dtype, real.dtype) == (np.uint8, np.float32)
    np.testing.assert_allclose(real, expected, atol=1e-3)
    assert np.abs(whole - expected).max() <= 0.501


@pytest.mark.parametrize(("hue", "saturation", "value"), [(0.3, 0.4, -0.3), (-0.3, -0.4, 0.3), (90, 0, 0), (0, 0, 0)])
def test_colours_are_those_of_colorsys(hue: float, saturation: float, value: float) -> None:
    rows = rgb()[:6, :6]
    expected = np.empty(rows.shape)
    for place in np.ndindex(6, 6):
        h, s, v = colorsys.rgb_to_hsv(*(rows[place] / 255))
        shifted = ((h + hue / 360) % 1, min(max(s + saturation, 0), 1), min(max(v + value, 0), 1))
        expected[place] = 255 * np.array(colorsys.hsv_to_rgb(*shifted))

    out = to_rows(shift_hsv(to_planes(rows), hue=hue, saturation=saturation, value=value))

    assert out.dtype == np.uint8
    assert np.abs(out - expected).max() <= 0.55


def test_images_of_other_channels_or_axes_are_refused() -> None:
    with pytest.raises(InputError, match=r"an RGB image \(3, W, H\) was expected, got the shape \(1, 8, 8\)"):
        shift_hsv(torch.zeros(1, 8, 8))
    with pytest.raises(InputError, match=r"an image \(C, W, H\) was expected"):
        augment(torch.zeros(8, 8), "none", {})
    with pytest.raises(InputError, match=r"positions \(2, W, H\) were expected"):
        warp(torch.zeros(3, 8, 8), torch.zeros(3, 8, 8))


@pytest.mark.parametrize("kind", sorted(set(AUGMENTATION_CYCLE)))
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_shapes_types_and_ranges_stay_and_masks_stay_binary(kind: str, dtype: torch.dtype) -> None:
    image, label = to_planes(rgb()).to(dtype), to_planes(mask()).to(dtype)

    out = augment(image, kind, drawn(kind, seed=5))
    moved = augment(label, kind, drawn(kind, seed=5), is_mask=True)

    assert (out.shape, out.dtype, moved.shape, moved.dtype) == (image.shape, dtype, label.shape, dtype)
    assert 0 <= out.min() <= out.max() <= 255
    assert set(moved.unique().tolist()) <= {0, 1}
    assert torch.equal(moved, label) == (kind not in GEOMETRIC)
    assert torch.equal(out, image) == (kind == "none")


@pytest.mark.parametrize("kind", sorted(GEOMETRIC))
def test_an_image_moves_with_its_mask(kind: str) -> None:
    rows = np.repeat(mask()[..., None] * np.uint8(255), 3, axis=2)
    item = {"image": to_planes(rows), "label": to_planes(mask())}
    transform = RandTwelveAugmentationsd("image", kinds=[kind]).set_random_state(3)

    out = transform(item)

    agree = (out["image"][0] > 127) == (out["label"][0] > 0)
    assert agree.float().mean() > 0.97


def test_the_published_order_is_the_same_for_a_batch_and_starts_anew_when_reseeded() -> None:
    transform = RandTwelveAugmentationsd("image", cyclic=True, batch_size=2)
    item = {"image": to_planes(rgb()), "label": to_planes(mask())}

    def kinds(count: int) -> list[str]:
        found = []
        for _ in range(count):
            transform(item)
            found.append(transform.kind)
        return found

    expected = [kind for kind in AUGMENTATION_CYCLE for _ in range(2)]
    assert kinds(28) == expected + expected[:4]
    Compose([transform]).set_random_state(seed=1)
    assert kinds(3) == expected[:3]


class Kinds(Dataset[str]):
    """Gives the kind that each item got."""

    def __init__(self, transform: RandTwelveAugmentationsd, items: int) -> None:
        self.transform, self.items = transform, items

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, index: int) -> str:
        self.transform({"image": to_planes(rgb()[:8, :8]), "label": to_planes(mask()[:8, :8])})
        return self.transform.kind


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_follow_the_order_with_and_without_workers(workers: int) -> None:
    data = Kinds(RandTwelveAugmentationsd("image", cyclic=True, batch_size=2), items=28)
    loader = DataLoader(data, batch_size=2, num_workers=workers, multiprocessing_context="fork" if workers else None)

    batches = list(loader)

    expected = [AUGMENTATION_CYCLE[step % 12] for step in range(14)]
    assert [tuple(batch) for batch in batches] == [(kind, kind) for kind in expected]


def test_by_default_every_item_draws_its_kind_and_rotation_comes_twice_as_often() -> None:
    transform = RandTwelveAugmentationsd("image").set_random_state(0)
    counts = dict.fromkeys(AUGMENTATION_CYCLE, 0)
    for _ in range(2400):
        transform.randomize()
        counts[transform.kind] += 1

    assert 330 < counts.pop("rotate") < 470
    assert all(140 < count < 260 for count in counts.values())


def test_draws_come_from_the_seed_can_be_replayed_and_keep_metadata() -> None:
    image = MetaTensor(to_planes(rgb()), meta={"filename_or_obj": "a.png"})
    item = {"image": image, "label": to_planes(mask()), "name": "a"}
    results = [RandTwelveAugmentationsd("image").set_random_state(seed)(item) for seed in (1, 1, 2)]
    transform = RandTwelveAugmentationsd("image").set_random_state(1)
    first = transform(item)

    assert torch.equal(results[0]["image"], results[1]["image"])
    assert not torch.equal(results[0]["image"], results[2]["image"])
    assert torch.equal(transform(item, randomize=False)["image"], first["image"])
    assert first["image"].meta["filename_or_obj"] == "a.png"
    assert first["name"] == "a"
    assert torch.equal(item["image"], to_planes(rgb()))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"kinds": ["blur"]}, "no augmentation is called 'blur'; the kinds are zoom_out"),
        ({"kinds": []}, "one kind or more"),
        ({"batch_size": 0}, "batch_size of 1 or more"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        RandTwelveAugmentationsd("image", **options)


def test_unknown_kinds_and_missing_keys_are_refused() -> None:
    with pytest.raises(ConfigError, match="no augmentation is called 'blur'"):
        augment(torch.zeros(3, 8, 8), "blur", {})
    with pytest.raises(KeyError, match="label"):
        RandTwelveAugmentationsd("image")({"image": torch.zeros(3, 8, 8)})
    alone = RandTwelveAugmentationsd("image", allow_missing_keys=True)({"image": torch.zeros(3, 8, 8)})
    assert alone.keys() == {"image"}
