"""Gates of channels, by means, styles and frequencies, against their published formulas."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import scipy.fft
import torch
from monai.networks.blocks import ChannelSELayer

from msrf_monai.networks.blocks import (
    ChannelExcitation,
    FrequencyChannelAttention,
    SpatialChannelSqueezeExcitation,
    StyleRecalibration,
)
from support.recalibration import features, gate, largest, lively, naive_norm, times

# ---- channel gates


@pytest.mark.parametrize("size", [(12, 9), (6, 5, 7)])
def test_scse_keeps_the_larger_of_both_branches(size: tuple[int, ...]) -> None:
    x = torch.randn(2, 6, *size)
    block = lively(SpatialChannelSqueezeExcitation(6, len(size), reduction=3))
    by_channel = times(x, gate(block.excite, x.double().mean(tuple(range(2, x.dim())))))
    logits = torch.einsum("oc,bc...->bo...", block.place.weight.double().reshape(1, 6), x.double())
    by_place = x.double() * torch.sigmoid(logits + block.place.bias.double())
    assert largest(block(x), torch.where(by_channel > by_place, by_channel, by_place)) < 1e-6
    assert (by_channel > by_place).any()
    assert (by_channel < by_place).any()


def test_the_excitation_is_that_of_monai() -> None:
    theirs = lively(ChannelSELayer(2, 8, r=2))
    ours = ChannelExcitation(8, 2)
    ours.fc.load_state_dict(theirs.fc.state_dict())
    x = torch.randn(3, 8, 7, 5)
    assert largest(theirs(x), times(x, gate(ours, x.mean((2, 3))))) < 1e-6
    assert largest(theirs(x), times(x, ours(x.mean((2, 3))))) < 1e-6


def test_the_excitation_starts_glorot_uniform_without_bias() -> None:
    excite = ChannelExcitation(300, 2)
    for layer in (excite.fc[0], excite.fc[2]):
        limit = math.sqrt(6 / (300 + 150))
        assert layer.weight.abs().max().item() <= limit
        assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.02)
        assert not layer.bias.any()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("size", [(11, 8), (4, 5, 6)])
def test_srm_joins_mean_and_deviation(size: tuple[int, ...], shared: bool, training: bool) -> None:
    x = features(5, 6, *size)
    block = lively(StyleRecalibration(6, shared_weights=shared)).train(training)
    before = copy.deepcopy(block)
    pixels = x.double().flatten(2).numpy()
    deviation = np.sqrt(pixels.var(axis=2) + 1e-12)  # numpy's variance is the biased one
    weights = before.style_weights.detach().double().numpy()
    style = torch.from_numpy(pixels.mean(axis=2) * weights[:, 0] + deviation * weights[:, 1])
    normed = naive_norm(style, before.norm, (0,), 1)

    assert largest(block(x), times(x, torch.sigmoid(normed))) < 1e-5

    assert block.style_weights.shape == (1 if shared else 6, 2)
    share = 0.01 if training else 0.0
    expected = (1 - share) * before.norm.running_var.double() + share * style.var(dim=0, correction=0)
    assert largest(block.norm.running_var, expected) < 1e-6
    expected = (1 - share) * before.norm.running_mean.double() + share * style.mean(dim=0)
    assert largest(block.norm.running_mean, expected) < 1e-6


def test_srm_of_one_constant_image_has_finite_gradients() -> None:
    x = torch.full((1, 3, 4, 5), 0.7, requires_grad=True)
    StyleRecalibration(3).train()(x).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def frequencies_of(block: FrequencyChannelAttention, x: torch.Tensor) -> torch.Tensor:
    """Catch what the block hands to its gate."""
    caught: list[torch.Tensor] = []
    handle = block.excite.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    block(x)
    handle.remove()
    return caught[0]


# ---- frequencies


@pytest.mark.parametrize("size", [(24, 40), (7, 5), (6, 8, 10)])
def test_fca_takes_the_lowest_frequencies_of_the_cosine_transform(size: tuple[int, ...]) -> None:
    x = features(2, 32, *size)
    block = lively(FrequencyChannelAttention(32, len(size)))
    axes, per_axis = tuple(range(2, x.dim())), 4 if len(size) == 2 else 2
    spectrum = scipy.fft.dctn(x.double().numpy(), axes=axes) / np.prod([2 * length for length in size])
    group = 32 // per_axis ** len(size)
    expected = np.empty((2, 32))
    for number, frequency in enumerate(np.ndindex(*[per_axis] * len(size))):
        channels = slice(number * group, (number + 1) * group)
        scale = math.sqrt(2) ** np.count_nonzero(frequency)
        expected[:, channels] = spectrum[(slice(None), channels, *frequency)] * scale

    found = frequencies_of(block, x)

    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=2e-6)
    assert largest(block(x), times(x, gate(block.excite, torch.from_numpy(expected)))) < 5e-6


@pytest.mark.parametrize("size", [(24, 40), (7, 5)])
def test_fca_reference_takes_the_sums_of_the_printed_formula(size: tuple[int, int]) -> None:
    x = features(2, 32, *size)
    block = lively(FrequencyChannelAttention(32, basis="reference"))
    expected = np.empty((2, 32))
    for c in range(32):
        u, v = divmod(c // 2, 4)
        rows = np.cos(np.pi * np.arange(size[0]) * (u + 0.5) / size[0])
        columns = np.cos(np.pi * np.arange(size[1]) * (v + 0.5) / size[1])
        expected[:, c] = np.einsum("bij,i,j->b", x[:, c].double().numpy(), rows, columns)

    found = frequencies_of(block, x)

    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=2e-6, atol=2e-4)
    assert largest(block(x), times(x, gate(block.excite, torch.from_numpy(expected)))) < 1e-4


@pytest.mark.parametrize("size", [(24, 40), (6, 8, 10)])
def test_the_first_frequency_is_the_global_average(size: tuple[int, ...]) -> None:
    x = features(2, 16, *size)
    found = frequencies_of(FrequencyChannelAttention(16, len(size)), x)
    first = 1 if len(size) == 2 else 2
    torch.testing.assert_close(found[:, :first], x.flatten(2).mean(dim=2)[:, :first])


def test_one_frequency_makes_fca_a_squeeze_and_excitation() -> None:
    x = features(2, 6, 9, 13)
    block = lively(FrequencyChannelAttention(6, frequencies_per_axis=1))
    plain = ChannelSELayer(2, 6, r=2)
    plain.fc.load_state_dict(block.excite.fc.state_dict())
    torch.testing.assert_close(block(x), plain(x))
