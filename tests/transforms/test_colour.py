"""The colour change against its closed form, Pillow's enhancers and colorsys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from PIL import Image, ImageEnhance

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.transforms import RandColorJitter, RandColorJitterd, shift_colours, to_planes, to_rows
from msrf_monai.transforms.colour import colour_matrix


def rgb() -> np.ndarray:
    return np.random.default_rng(4).integers(60, 180, (23, 31, 3), dtype=np.uint8)


def test_neutral_factors_change_nothing() -> None:
    planes = to_planes(rgb())

    out = shift_colours(planes)

    assert out.dtype == torch.uint8
    assert torch.equal(out, planes)


@pytest.mark.parametrize(
    ("options", "enhancer"),
    [({"brightness": 1.2}, "Brightness"), ({"saturation": 0.3}, "Color"), ({"contrast": 1.3}, "Contrast")],
)
def test_factors_are_those_of_pillow(options: dict[str, float], enhancer: str) -> None:
    factor = next(iter(options.values()))
    expected = np.asarray(getattr(ImageEnhance, enhancer)(Image.fromarray(rgb())).enhance(factor)).astype(int)

    out = to_rows(shift_colours(to_planes(rgb()), **options)).astype(int)

    assert np.abs(out - expected).max() <= 1  # Pillow rounds the grey before it blends


def test_hue_turns_colours_and_leaves_greys_and_luma() -> None:
    grey = to_planes(np.full((4, 5, 3), 120, np.uint8))
    luma = np.array([0.299, 0.587, 0.114])

    turned = to_rows(shift_colours(to_planes(rgb().astype(np.float32)), hue=0.05))

    assert torch.equal(shift_colours(grey, hue=0.3), grey)
    np.testing.assert_allclose(turned @ luma, rgb() @ luma, atol=0.1)
    assert np.abs(turned - rgb()).max() > 5
    np.testing.assert_allclose(colour_matrix(1, 1, 0.25) @ colour_matrix(1, 1, 0.75), np.eye(3), atol=1e-12)


def test_values_are_clipped_and_types_kept() -> None:
    bright = shift_colours(to_planes(rgb()), brightness=2)
    floating = shift_colours(to_planes(rgb()).float(), brightness=2)

    assert bright.max() == 255
    assert (bright.dtype, floating.dtype) == (torch.uint8, torch.float32)
    assert (bright.float() - floating).abs().max() <= 0.5


def test_draws_come_from_the_transforms_own_generator() -> None:
    planes = to_planes(rgb())
    first = RandColorJitterd("image", prob=1).set_random_state(3)
    second = RandColorJitterd("image", prob=1).set_random_state(3)
    other = RandColorJitterd("image", prob=1).set_random_state(4)

    results = [jitter({"image": planes})["image"] for jitter in (first, second, other)]

    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_all_keys_of_an_item_get_the_same_change_and_keep_metadata() -> None:
    image = MetaTensor(to_planes(rgb()), meta={"filename_or_obj": "a.png"})
    jitter = RandColorJitterd(["image", "second"], prob=1).set_random_state(1)

    out = jitter({"image": image, "second": image.clone()})

    assert torch.equal(out["image"], out["second"])
    assert out["image"].meta["filename_or_obj"] == "a.png"
    assert not torch.equal(out["image"], image)


def test_probability_zero_changes_nothing_and_one_always() -> None:
    planes = to_planes(rgb())

    assert RandColorJitter(0.0)(planes) is planes
    assert all(not torch.equal(RandColorJitter(1.0).set_random_state(seed)(planes), planes) for seed in range(5))


def test_draw_can_be_replayed() -> None:
    planes, jitter = to_planes(rgb()), RandColorJitter(1.0).set_random_state(0)
    first = jitter(planes)

    assert torch.equal(jitter(planes, randomize=False), first)
    assert torch.equal(shift_colours(planes, **jitter.drawn), first)


@pytest.mark.parametrize("options", [{"brightness": 1.5}, {"contrast": -0.1}, {"saturation": 2}, {"hue": 0.6}])
def test_wrong_widths_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        RandColorJitterd("image", **options)


@pytest.mark.parametrize("shape", [(1, 4, 4), (4, 4, 4), (3, 4)])
def test_images_without_three_channels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="RGB image"):
        shift_colours(torch.zeros(shape))
