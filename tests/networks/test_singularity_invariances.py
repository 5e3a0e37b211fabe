"""What the singularity strength does not depend on, and four ways to count boxes that agree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from msrf_monai.networks.blocks import (
    LocalSingularityStrength,
    box_sums,
    rescale_range,
    singularity_exponent,
)
from support.singularity import QUICK, as_map, boxes_by_convolution, boxes_by_integral_image


def boxes_by_pooling(x: torch.Tensor, max_scale: int) -> list[torch.Tensor]:
    found = []
    for size in (2 ** (j + 1) for j in range(max_scale)):
        before, after = size // 2 - 1, size // 2
        found.append(F.avg_pool2d(F.pad(x, (before, after, before, after)), size, stride=1) * size**2)
    return found


def boxes_by_loop(x: np.ndarray, max_scale: int) -> list[np.ndarray]:
    """Sum boxes pixel by pixel for a single plane or volume."""
    found = []
    for size in (2 ** (j + 1) for j in range(max_scale)):
        sums = np.zeros_like(x)
        for place in np.ndindex(x.shape):
            window = tuple(slice(max(0, p - (size // 2 - 1)), p + size // 2 + 1) for p in place)
            sums[place] = x[window].sum()
        found.append(sums)
    return found


# ---- invariances


@pytest.mark.parametrize(("scale", "shift"), [(1e-3, 0.0), (0.5, -7.0), (255.0, 3.0), (1e5, -1e4)])
def test_brightness_and_contrast_of_a_channel_do_not_matter(scale: float, shift: float) -> None:
    x = torch.randn(2, 3, 33, 40, dtype=torch.float64)
    torch.testing.assert_close(singularity_exponent(scale * x + shift), singularity_exponent(x), rtol=0, atol=1e-5)
    single = singularity_exponent((scale * x + shift).float())
    torch.testing.assert_close(single.double(), singularity_exponent(x), rtol=0, atol=1e-5 if scale > 1 else 1e-4)


def test_channels_are_stretched_each_by_itself() -> None:
    x = torch.randn(2, 3, 24, 30)
    factors = torch.tensor([1.0, 50.0, 0.02]).view(1, 3, 1, 1)
    for scope in ("sample", "batch"):
        first, second = (singularity_exponent(values, norm_scope=scope) for values in (x, x * factors))
        torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


def test_an_image_does_not_feel_its_batch_mates_in_sample_scope() -> None:
    image, mate = torch.randn(1, 4, 30, 41), 10 * torch.rand(3, 4, 30, 41)
    layer = LocalSingularityStrength(4).eval()
    alone, together = layer.exponent(image), layer.exponent(torch.cat([image, mate]))[:1]
    assert torch.equal(alone, together)
    shared = singularity_exponent(torch.cat([image, mate]), norm_scope="batch")[:1]
    assert (alone - shared).abs().max().item() > 1e-2


def test_batch_scope_is_a_stretch_by_the_batch_s_own_range() -> None:
    x = torch.randn(3, 2, 12, 10, dtype=torch.float64)
    values = x.numpy()
    low, high = values.min(axis=(0, 2, 3), keepdims=True), values.max(axis=(0, 2, 3), keepdims=True)
    np.testing.assert_allclose(rescale_range(x, "batch").numpy(), 1 + 255 * (values - low) / (high - low), rtol=1e-12)
    for i in range(3):
        alone = 1 + 255 * (values[i] - values[i].min((1, 2), keepdims=True)) / np.ptp(values[i], (1, 2), keepdims=True)
        np.testing.assert_allclose(rescale_range(x)[i].numpy(), alone, rtol=1e-12)


# ---- four ways to add up boxes


@pytest.mark.parametrize("other", [boxes_by_convolution, boxes_by_pooling, boxes_by_integral_image])
@pytest.mark.parametrize("max_scale", [3, 5])
def test_box_sums_agree_however_they_are_added_up(
    other: Callable[[torch.Tensor, int], list[torch.Tensor]], max_scale: int
) -> None:
    density = rescale_range(torch.randn(2, 3, 45, 64))
    ours = box_sums(density, max_scale)
    theirs = other(density, max_scale)
    assert len(ours) == len(theirs) == max_scale
    for box, expected in zip(ours, theirs, strict=True):
        assert box.dtype == torch.float32
        torch.testing.assert_close(box.double(), expected.double(), rtol=1e-5, atol=0)
    exponents = [0.5 * torch.log2(boxes[2].double() / boxes[0].double()) for boxes in (ours, theirs)]
    torch.testing.assert_close(exponents[0], exponents[1], rtol=0, atol=1e-5)


SIZES = st.one_of(
    st.tuples(st.integers(1, 20)),
    st.tuples(st.integers(1, 11), st.integers(1, 11)),
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
)


@QUICK
@given(SIZES, st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_box_sums_of_any_size_equal_a_loop_over_the_pixels(size: tuple[int, ...], max_scale: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=size)
    for box, expected in zip(
        box_sums(as_map(values, torch.float64), max_scale), boxes_by_loop(values, max_scale), strict=True
    ):
        np.testing.assert_allclose(box[0, 0].numpy(), expected, rtol=0, atol=1e-12)


@QUICK
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    st.integers(1, 4),
    st.integers(1, 15),
    st.integers(0, 2**32 - 1),
)
def test_gradients_of_box_sums_equal_those_of_a_convolution(
    shape: tuple[int, ...], max_scale: int, used: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    weights = torch.randn((max_scale, *shape), generator=generator, dtype=torch.float64)
    # Not every box need take part in the loss: the bits of ``used`` say which do.
    chosen = [j for j in range(max_scale) if used >> j & 1] or [max_scale - 1]
    gradients = []
    for boxes_of in (box_sums, boxes_by_convolution):
        leaf = x.clone().requires_grad_()
        boxes = boxes_of(leaf, max_scale)
        torch.stack([(boxes[j] * weights[j]).sum() for j in chosen]).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-10)


def test_gradients_of_box_sums_of_a_volume_equal_those_of_a_convolution() -> None:
    x = torch.randn(1, 1, 5, 7, 6, dtype=torch.float64, requires_grad=True)
    target = torch.randn_like(x)
    (box_sums(x, 2)[1] * target).sum().backward()
    leaf = x.detach().clone().requires_grad_()
    boxes = F.conv3d(F.pad(leaf, (1, 2) * 3), torch.ones(1, 1, 4, 4, 4, dtype=torch.float64))
    (boxes * target).sum().backward()
    torch.testing.assert_close(x.grad, leaf.grad, rtol=0, atol=1e-10)
