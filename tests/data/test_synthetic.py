"""Drawn pictures: exact, repeatable, and neither trivial nor hopeless to segment."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from msrf_monai.data import load_datalist, synthesize_case, synthesize_dataset, synthesize_image, verify_dataset
from msrf_monai.data.synthetic.noise import fractal_noise, smooth_noise, smooth_step
from msrf_monai.errors import DataError, InputError

KINDS = ["lesion", "nuclei", "vessels"]


def mean_dice(predictions: np.ndarray, truths: np.ndarray) -> float:
    shared = (predictions & truths).sum(axis=(1, 2))
    return float(np.mean(2 * shared / (predictions.sum(axis=(1, 2)) + truths.sum(axis=(1, 2)))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(96, 128), (200, 64), (32, 32)])
def test_image_and_mask_have_the_size_and_the_types_asked_for(kind: str, size: tuple[int, int]) -> None:
    image, mask = synthesize_image(kind, 3, size)

    assert (image.shape, image.dtype) == ((*size, 3), np.uint8)
    assert (mask.shape, mask.dtype) == (size, np.uint8)
    assert set(np.unique(mask)) == {0, 255}


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_draws_the_same_picture_whatever_was_drawn_before(kind: str) -> None:
    first = synthesize_image(kind, 5, (64, 80))
    synthesize_image(kind, 6, (64, 80))
    np.random.default_rng(0).random(7)
    again = synthesize_image(kind, 5, (64, 80))
    other = synthesize_image(kind, 6, (64, 80))

    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()


def test_lesions_are_one_or_two_and_of_a_lesions_size() -> None:
    for seed in range(30):
        _, mask = synthesize_image("lesion", seed, (96, 128))
        _, count = ndimage.label(mask)
        assert 0.005 < (mask > 0).mean() < 0.6
        assert 1 <= count <= 4


def test_no_global_threshold_finds_the_lesions() -> None:
    drawn = [synthesize_image("lesion", seed, (96, 128)) for seed in range(24)]
    truths = np.stack([mask > 0 for _, mask in drawn])
    colour_spaces = [np.stack([image for image, _ in drawn])]
    for code in (cv2.COLOR_RGB2HSV, cv2.COLOR_RGB2LAB):
        colour_spaces.append(np.stack([cv2.cvtColor(image, code) for image, _ in drawn]))

    best = max(
        max(mean_dice(channel > level, truths), mean_dice(channel <= level, truths))
        for space in colour_spaces
        for channel in np.moveaxis(space, -1, 0)
        for level in range(4, 252, 12)
    )

    assert best < 0.5


def test_the_rim_of_a_lesion_is_where_the_mask_says() -> None:
    # The outline must be the one that was drawn: moved masks meet weaker edges than the true ones.
    on_rim, moved = [], []
    for seed in range(30):
        image, mask = synthesize_image("lesion", seed, (128, 128))
        grey = cv2.GaussianBlur(image.astype(np.float32).mean(axis=2), (0, 0), 1)
        edges = np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1))
        inside = ndimage.binary_erosion(mask > 0, iterations=2)
        rim = ndimage.binary_dilation(mask > 0, iterations=2) & ~inside
        rim[:14], rim[-14:], rim[:, :14], rim[:, -14:] = False, False, False, False
        if rim.any():
            on_rim.append(np.mean(edges[rim]))
            moved.append(np.mean(edges[np.roll(rim, (9, 9), (0, 1))]))

    assert np.mean(on_rim) > 1.3 * np.mean(moved)


def test_nuclei_have_instances_that_touch_and_make_up_the_mask() -> None:
    touching = 0
    for seed in range(10):
        case = synthesize_case("nuclei", seed, (128, 160))
        assert case.instances is not None
        np.testing.assert_array_equal(case.mask > 0, case.instances > 0)
        numbers = np.unique(case.instances)
        np.testing.assert_array_equal(numbers, np.arange(numbers.size))
        touching += numbers.size - 1 - ndimage.label(case.mask, np.ones((3, 3)))[1]
    assert touching > 10


def test_vessels_are_thin_connected_and_inside_the_field_of_view() -> None:
    for seed in range(6):
        case = synthesize_case("vessels", seed, (256, 300))
        assert case.field_of_view is not None
        inside = case.field_of_view > 0
        vessels = case.mask > 0
        assert not (vessels & ~inside).any()
        assert 0.05 < vessels[inside].mean() < 0.35
        assert ndimage.distance_transform_edt(vessels).max() < 8
        parts, count = ndimage.label(vessels, np.ones((3, 3)))
        assert np.bincount(parts.ravel())[1:].max() > 0.6 * vessels.sum(), count
        row, column = np.argwhere(inside).mean(axis=0)
        assert (abs(row - 127.5), abs(column - 149.5)) < (1, 1)
        assert case.image[~ndimage.binary_dilation(inside, iterations=6)].mean() < 8
        assert case.image[vessels][:, 1].mean() < case.image[inside & ~vessels][:, 1].mean()


def test_a_data_set_is_laid_out_as_prepared_ones_are(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    folder = synthesize_dataset(
        "lesion",
        tmp_path / "set",
        counts=(5, 2, 1),
        size=(48, 64),
        size_jitter=0.2,
        seed=9,
        folds=3,
        progress=lambda *now: seen.append(now),
    )

    assert verify_dataset(folder) == 16
    assert seen == [(done, 8) for done in range(1, 9)]
    sizes = set()
    for part, count in (("training", 5), ("validation", 2), ("test", 1)):
        items = load_datalist(folder, part)
        assert len(items) == count
        for item in items:
            image, mask = Image.open(item["image"]), Image.open(item["label"])
            assert (image.mode, mask.mode, image.size) == ("RGB", "L", mask.size)
            sizes.add(image.size)
    assert len(sizes) > 1
    assert all(51 <= width <= 77 and 38 <= height <= 58 for width, height in sizes)
    assert len(load_datalist(folder, "validation", fold=2)) == 2


def test_a_data_set_is_the_same_from_the_same_seed_and_its_pictures_differ(tmp_path: Path) -> None:
    sums = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        folder = synthesize_dataset("nuclei", tmp_path / name, counts=(3, 0, 0), size=(32, 40), seed=seed, folds=0)
        sums.append(json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["sha256"])

    assert sums[0] == sums[1]
    assert not set(sums[0].values()) & set(sums[2].values())
    assert len(set(sums[0].values())) == 6


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"kind": "cat"}, "kind is 'cat'; expected one of lesion, nuclei, vessels"),
        ({"seed": -1}, "seed is -1"),
        ({"size": (31, 64)}, r"size is \(31, 64\)"),
        ({"counts": (0, 1, 1)}, r"counts is \(0, 1, 1\)"),
        ({"counts": (1, 1)}, r"counts is \(1, 1\)"),
        ({"size_jitter": 0.9}, "size_jitter is 0.9"),
        ({"folds": 1}, "folds is 1"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, arguments: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        synthesize_dataset(**{"kind": "lesion", "out": tmp_path / "set", **arguments})
    assert not (tmp_path / "set").exists()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    synthesize_dataset("lesion", tmp_path / "set", counts=(1, 0, 0), size=(32, 32))

    with pytest.raises(DataError, match="is not empty"):
        synthesize_dataset("lesion", tmp_path / "set", counts=(1, 0, 0), size=(32, 32))
    synthesize_dataset("lesion", tmp_path / "set", counts=(2, 0, 0), size=(32, 32), overwrite=True)
    assert len(load_datalist(tmp_path / "set", "training")) == 2


def test_noise_is_standardised_and_as_smooth_as_asked_for() -> None:
    rng = np.random.default_rng(0)
    rough, smooth = smooth_noise(rng, (80, 120), 2), smooth_noise(rng, (80, 120), 30)

    for noise in (rough, smooth, fractal_noise(rng, (80, 120), 20)):
        assert abs(float(noise.mean())) < 1e-3
        assert float(noise.std()) == pytest.approx(1, abs=0.01)
    assert np.abs(np.diff(rough)).mean() > 5 * np.abs(np.diff(smooth)).mean()


def test_smooth_step_is_the_cubic_between_its_ends() -> None:
    values = np.array([-1.0, 0.0, 0.25, 0.5, 1.0, 2.0], np.float32)

    np.testing.assert_allclose(smooth_step(values, 0, 1), [0, 0, 0.15625, 0.5, 1, 1])
    np.testing.assert_allclose(smooth_step(values, 1, 0), [1, 1, 0.84375, 0.5, 0, 0])
