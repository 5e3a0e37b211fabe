"""Betti numbers and clDice against closed forms and scikit-image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from skimage.measure import euler_number
from skimage.measure import label as components_of
from skimage.morphology import skeletonize

from msrf_monai.errors import InputError, MissingExtraError
from msrf_monai.metrics import BettiErrors, betti_errors, betti_numbers, centreline_dice
from msrf_monai.metrics import topology as module


def picture(*rows: str) -> torch.Tensor:
    return torch.tensor([[mark == "#" for mark in row] for row in rows])


def grid(lines: int, gap: int = 5) -> torch.Tensor:
    """Lines of one pixel, as many across as down, that leave (lines - 1) squared holes."""
    side = (lines - 1) * (gap + 1) + 1
    mask = torch.zeros(side + 4, side + 7, dtype=torch.bool)
    mask[2 : side + 2 : gap + 1, 3 : side + 3] = True
    mask[2 : side + 2, 3 : side + 3 : gap + 1] = True
    return mask


def blobs(shape: tuple[int, int], seed: int, share: float = 0.5) -> torch.Tensor:
    """Smooth random shapes with arms, islands and holes."""
    noise = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.avg_pool2d(noise, 5, stride=1, padding=2)[0, 0]
    return smooth > smooth.quantile(1 - share)


RING = picture(
    ".......",
    ".####..",
    ".#..#..",
    ".####..",
    ".......",
)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (torch.zeros(4, 6), (0, 0)),  # empty
        (torch.ones(4, 6), (1, 0)),  # full
        (torch.ones(1, 1), (1, 0)),  # an image of one pixel
        (picture("...", ".#.", "..."), (1, 0)),  # one pixel
        (RING, (1, 1)),
        (picture("###", "#.#", "###"), (1, 1)),  # a ring that fills the image
        (picture("##.", "#.#", "###"), (1, 1)),  # closed by a corner: foreground is 8-connected, background is not
        (picture(".#.", "#.#", ".#."), (1, 1)),  # corners alone
        (picture("#..", "#.#", "###"), (1, 0)),  # open at the border
        (picture("#..", ".#.", "..#"), (1, 0)),  # a diagonal line is one component
        (picture("#.#", "...", "#.#"), (4, 0)),
        (picture("#####", "#.#.#", "##.##", "#.#.#", "#####"), (1, 5)),  # holes that meet at corners are many
        (grid(5), (1, 16)),
        (grid(2), (1, 1)),
    ],
)
def test_betti_numbers_of_known_shapes(mask: torch.Tensor, expected: tuple[int, int]) -> None:
    assert betti_numbers(mask) == expected
    assert betti_numbers(mask.T) == expected


def test_a_ring_in_a_ring_has_two_components_and_two_holes() -> None:
    mask = torch.zeros(11, 13)
    mask[1:10, 1:12] = 1
    mask[2:9, 2:11] = 0
    mask[4:7, 4:9] = 1
    mask[5, 5:8] = 0
    assert betti_numbers(mask) == (2, 2)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.8])
def test_betti_numbers_of_noise_equal_scikit_images_labels_and_euler_number(share: float) -> None:
    for seed in range(5):
        noise = torch.rand(23, 31, generator=torch.Generator().manual_seed(seed)) < share
        components = int(components_of(noise.numpy(), connectivity=2).max())
        holes = components - int(euler_number(noise.numpy(), connectivity=2))
        assert betti_numbers(noise) == (components, holes)


def test_the_field_of_view_comes_first_so_that_a_ring_it_cuts_is_no_ring() -> None:
    fov = torch.ones_like(RING)
    fov[:, 4:] = False
    assert betti_errors(RING, torch.zeros_like(RING), fov) == BettiErrors(1.0, 0.0, 1.0, 0.0)
    assert betti_errors(RING, torch.zeros_like(RING)) == BettiErrors(1.0, 1.0, 1.0, 1.0)


def test_what_is_predicted_outside_the_field_of_view_is_nothing() -> None:
    label, fov = blobs((40, 56), 1), torch.zeros(40, 56, dtype=torch.bool)
    fov[5:30, 8:50] = True
    noisy = torch.where(fov, label, blobs((40, 56), 2))
    assert betti_errors(noisy, label, fov, patch_size=16) == BettiErrors(0.0, 0.0, 0.0, 0.0)
    assert centreline_dice(noisy, label, fov) == 1.0
    assert centreline_dice(noisy, label) < 1.0


def test_errors_of_a_vessel_broken_at_known_places() -> None:
    label = torch.zeros(64, 128)
    label[30, 4:124] = 1  # one vessel through two patches of 64
    pred = label.clone()
    pred[30, [20, 40, 100]] = 0  # three pieces in the first patch, two in the second
    assert betti_errors(pred, label) == BettiErrors(betti0=3.0, betti1=0.0, patch_betti0=(2 + 1) / 2, patch_betti1=0.0)
    assert betti_errors(pred, label, patch_size=128) == BettiErrors(3.0, 0.0, 3.0, 0.0)


def test_patches_without_field_of_view_do_not_count_and_the_last_ones_may_be_smaller() -> None:
    pred, label = torch.zeros(20, 25), torch.zeros(20, 25)
    pred[18, 22:25] = 1  # in the last patch of both axes, 4 x 9 pixels
    assert betti_errors(pred, label, patch_size=16).patch_betti0 == 1 / 4
    fov = torch.zeros(20, 25)
    fov[17:, 23:] = 1
    assert betti_errors(pred, label, fov, patch_size=16).patch_betti0 == 1.0
    fov[0, 0] = 1  # one pixel is enough
    assert betti_errors(pred, label, fov, patch_size=16).patch_betti0 == 1 / 2


@pytest.mark.parametrize("min_size", [0, 1, 8])
def test_errors_equal_a_loop_over_patches_with_scikit_image(min_size: int) -> None:
    pred, label = blobs((50, 75), 3, 0.3), blobs((50, 75), 4, 0.25)
    fov = torch.zeros(50, 75, dtype=torch.bool)
    fov[3:41, 18:70] = True
    masks = []
    for mask in (pred, label):
        inside = (mask & fov).numpy()
        named = components_of(inside, connectivity=2)
        for name in range(1, named.max() + 1):
            if (named == name).sum() < min_size:
                inside[named == name] = False
        masks.append(inside)

    def numbers(mask: np.ndarray) -> np.ndarray:
        framed = np.pad(mask, 1)
        return np.array([components_of(framed, connectivity=2).max(), components_of(~framed, connectivity=1).max() - 1])

    errors = []
    for row in range(0, 50, 16):
        for column in range(0, 75, 16):
            place = (slice(row, row + 16), slice(column, column + 16))
            if fov.numpy()[place].any():
                errors.append(np.abs(numbers(masks[0][place]) - numbers(masks[1][place])))
    expected = [*np.abs(numbers(masks[0]) - numbers(masks[1])), *np.mean(errors, axis=0)]

    found = betti_errors(pred, label, fov, patch_size=16, min_size=min_size)

    assert [found.betti0, found.betti1, found.patch_betti0, found.patch_betti1] == pytest.approx(expected)
    assert len(errors) == 12
    assert sum(expected) > 1


def test_small_components_go_before_patches_are_cut_and_from_both_masks() -> None:
    label = torch.zeros(8, 32)
    label[3, 6:30] = 1  # 24 pixels, of which two are in the first patch of 8
    pred = label.clone()
    pred[6, 1] = 1
    label[0, 20:25] = 1
    assert betti_errors(pred, label, patch_size=8, min_size=6) == BettiErrors(0.0, 0.0, 0.0, 0.0)
    assert betti_errors(pred, label, patch_size=8, min_size=5).betti0 == 1.0  # five pixels are not fewer than five
    assert betti_errors(pred, label, patch_size=8).patch_betti0 == (1 + 1 + 1) / 4


def test_cldice_of_half_a_line_is_two_thirds() -> None:
    label, pred = torch.zeros(9, 30), torch.zeros(9, 30)
    label[4, 5:25] = 1
    pred[4, 5:15] = 1  # all of it is right, half of the truth is found
    assert centreline_dice(pred, label) == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert centreline_dice(label, pred) == pytest.approx(2 * 1 * 0.5 / 1.5)


def test_cldice_forgives_width_and_not_gaps() -> None:
    label = torch.zeros(21, 80)
    label[9:12, 5:75] = 1
    thick = torch.zeros(21, 80)
    thick[8:13, 5:75] = 1
    assert centreline_dice(thick, label) == 1.0
    gap = label.clone()
    gap[:, 30:50] = 0
    assert centreline_dice(gap, label) < 0.9


@pytest.mark.parametrize("seed", range(4))
def test_cldice_equals_its_formula_on_scikit_images_skeletons(seed: int) -> None:
    pred, label = blobs((60, 83), seed, 0.2), blobs((60, 83), seed + 10, 0.3)
    fov = torch.ones(60, 83, dtype=torch.bool)
    fov[:7] = False
    p, t = (pred & fov).numpy(), (label & fov).numpy()
    precision, recall = t[skeletonize(p)].mean(), p[skeletonize(t)].mean()
    expected = 2 / (1 / precision + 1 / recall)
    assert 0.05 < expected < 0.95
    assert centreline_dice(pred, label, fov) == pytest.approx(expected, abs=1e-12)


def test_cldice_of_masks_that_lie_apart_or_are_empty() -> None:
    left, right, nothing = (torch.zeros(9, 20) for _ in range(3))
    left[2:5, 2:8] = 1
    right[2:5, 12:18] = 1
    assert centreline_dice(left, right) == 0.0
    assert centreline_dice(left, nothing) == 0.0
    assert centreline_dice(nothing, left) == 0.0
    assert np.isnan(centreline_dice(nothing, nothing))
    assert np.isnan(centreline_dice(left, left, nothing))


def test_a_single_pixel_is_its_own_skeleton() -> None:
    dot = picture("....", ".#..", "....")
    assert centreline_dice(dot, dot) == 1.0
    assert centreline_dice(torch.ones(5, 7), torch.ones(5, 7)) == 1.0


def test_a_field_of_view_without_pixels_has_no_topology() -> None:
    errors = betti_errors(RING, RING, torch.zeros_like(RING))
    assert np.isnan([errors.betti0, errors.betti1, errors.patch_betti0, errors.patch_betti1]).all()


def test_a_channel_and_metadata_do_no_harm() -> None:
    pred, label = blobs((40, 30), 5), blobs((40, 30), 6)
    monai = [MetaTensor(mask[None].to(torch.uint8)) for mask in (pred, label)]
    assert betti_numbers(monai[0]) == betti_numbers(pred)
    assert betti_errors(*monai) == betti_errors(pred, label)
    assert centreline_dice(*monai) == centreline_dice(pred, label)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (betti_numbers, (torch.zeros(2, 4, 5),), r"mask must be one image \(H, W\), got shape \(2, 4, 5\)"),
        (betti_numbers, (torch.zeros(4),), r"mask must be one image"),
        (betti_numbers, (torch.full((4, 5), 255),), "mask must be a decided mask of 0 and 1"),
        (betti_errors, (torch.zeros(4, 5), torch.zeros(5, 4)), r"pred has shape \(4, 5\), expected .* \(5, 4\)"),
        (betti_errors, (RING, RING, torch.ones(2, 2)), r"fov has shape \(2, 2\)"),
        (centreline_dice, (torch.full((4, 5), 0.3), torch.zeros(4, 5)), "pred must be a decided mask"),
        (lambda *a: betti_errors(*a, patch_size=0), (RING, RING), "patch_size must be 1 or more"),
        (lambda *a: betti_errors(*a, min_size=-1), (RING, RING), "min_size 0 or more"),
    ],
)
def test_wrong_arguments_are_refused(function: Any, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        function(*arguments)


def test_cldice_without_scikit_image_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("msrf_monai.optional.importlib.import_module", missing)
    with pytest.raises(MissingExtraError, match=r"msrf-monai\[train\]"):
        module.centreline_dice(RING, RING)
