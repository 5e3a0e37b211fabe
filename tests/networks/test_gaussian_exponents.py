"""Singularity exponents under Gaussian windows against their definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from msrf_monai.networks.blocks import (
    GaussianSingularityStrength,
)
from msrf_monai.networks.blocks.gaussian_measure import gaussian_window
from support.recalibration import features, largest


@pytest.mark.parametrize("whole_pixels", [False, True])
@pytest.mark.parametrize("size", range(1, 7))
def test_gaussian_windows_are_symmetric_densities(size: int, whole_pixels: bool) -> None:
    plane = gaussian_window(size, 2, whole_pixels=whole_pixels)
    volume = gaussian_window(size, 3, whole_pixels=whole_pixels)
    line = plane.sum(dim=1)
    assert plane.shape == (size, size)
    assert plane.sum().item() == pytest.approx(1, abs=1e-6)
    for mirrored in (plane.T, plane.flip(0), plane.flip(1)):
        torch.testing.assert_close(mirrored, plane)
    torch.testing.assert_close(plane, torch.outer(line, line))
    torch.testing.assert_close(volume, torch.einsum("i,j,k->ijk", line, line, line))
    assert plane.max() == plane[(size - 1) // 2, size // 2]


@pytest.mark.parametrize("size", range(1, 7))
def test_gaussian_windows_of_fenet_have_half_their_size_as_deviation(size: int) -> None:
    offsets = np.arange(size) - (size - 1) / 2
    expected = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * (size / 2) ** 2))
    window = gaussian_window(size, 2, whole_pixels=False)
    np.testing.assert_allclose(window.numpy(), expected / expected.sum(), rtol=0, atol=1e-7)


def test_gaussian_windows_of_both_variants_differ_by_the_known_amounts() -> None:
    differences = [
        largest(gaussian_window(size, 2, whole_pixels=True), gaussian_window(size, 2, whole_pixels=False))
        for size in range(1, 7)
    ]
    assert max(differences[i] for i in (0, 1, 2, 4)) <= 1e-9
    assert differences[3] == pytest.approx(9.4e-3, abs=5e-5)
    assert differences[5] == pytest.approx(3.3e-3, abs=5e-5)


@pytest.mark.parametrize(("variant", "offset"), [("ssr", 1e-7), ("fenet", 1.0)])
@pytest.mark.parametrize("size", [(15, 12), (8, 7, 6)])
def test_gaussian_exponents_are_slopes_of_weighted_masses(size: tuple[int, ...], variant: Any, offset: float) -> None:
    x = features(2, 3, *size)
    layer = GaussianSingularityStrength(3, len(size), norm_scope="batch", variant=variant).eval()
    values = x.double().numpy()
    axes = (0, *range(2, x.dim()))
    low, high = values.min(axis=axes, keepdims=True), values.max(axis=axes, keepdims=True)
    density = 1 + 255 * (values - low) / (high - low)
    logs = []
    for i in range(1, 7):
        half = (i - 1) // 2 if variant == "ssr" else (i - 1) / 2
        line = np.exp(-(np.linspace(-half, half, i) ** 2) / (2 * (i / 2) ** 2))
        line /= line.sum()
        mass = density
        for axis in range(2, x.dim()):  # correlate along each axis; what is missing of an even pad goes after the map
            pad = [(0, 0)] * x.dim()
            pad[axis] = ((i - 1) // 2, i // 2)
            windows = np.lib.stride_tricks.sliding_window_view(np.pad(mass, pad), i, axis=axis)
            mass = windows @ line
        logs.append(np.log(mass * i ** len(size) + offset))
    slopes = np.polyfit(np.log(np.arange(1, 7)), np.stack(logs).reshape(6, -1), 1)[0]

    alpha = layer.exponent(x)

    np.testing.assert_allclose(alpha.detach().numpy().ravel(), slopes, rtol=0, atol=1e-5)
    assert largest(layer(x), alpha / math.sqrt(1 + 1e-3)) < 1e-5  # the norm at its start


def test_gaussian_exponents_of_a_constant_map_are_its_dimension_away_from_the_border() -> None:
    for dims in (2, 3):
        alpha = GaussianSingularityStrength(1, dims).exponent(torch.ones(1, 1, *[10] * dims))
        middle = alpha[(0, 0, *[slice(3, -3)] * dims)]
        torch.testing.assert_close(middle, torch.full_like(middle, dims), rtol=0, atol=1e-5)


def test_gaussian_windows_are_shared_by_the_channels_and_trained_as_the_variant_says() -> None:
    trained = {
        (variant, asked): [
            w.requires_grad for w in GaussianSingularityStrength(4, variant=variant, trainable=asked).windows
        ]
        for variant in ("ssr", "fenet")
        for asked in (None, True, False)
    }
    for (variant, asked), flags in trained.items():
        assert flags == [variant == "ssr" if asked is None else asked] * 6
    layer = GaussianSingularityStrength(4)
    layer(features(2, 4, 12, 10)).square().mean().backward()
    for window in layer.windows[1:]:
        assert window.grad is not None
        assert window.grad.shape == window.shape
        assert window.grad.abs().sum() > 0
