"""Singularity strength and multifractal recalibration against their formulas, written out without short cuts."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from msrf_monai.networks.blocks import (
    LocalSingularityStrength,
    MultifractalRecalibration,
    SingularityStrengthRecalibration,
    SoftLevelSets,
)
from support.recalibration import features, gate, largest, lively, make, naive_norm, times


def naive_exponent(x: torch.Tensor, layer: LocalSingularityStrength) -> torch.Tensor:
    """Compute the exponents by the published steps in float64: stretch, convolutions of ones, slope."""
    values = x.double()
    dims = tuple(range(2, x.dim())) + ((0,) if layer.norm_scope == "batch" else ())
    low, high = values.amin(dims, keepdim=True), values.amax(dims, keepdim=True)
    density = 1 + 255 * (values - low) / (high - low).clamp(1e-7, 1e9)
    axes, channels = x.dim() - 2, x.shape[1]
    convolve = F.conv3d if axes == 3 else F.conv2d
    logs = []
    for size in (2 ** (j + 1) for j in range(layer.max_scale)):
        ones = torch.ones(channels, 1, *[size] * axes, dtype=torch.float64)
        padded = F.pad(density, [size // 2 - 1, size // 2] * axes)
        mass = convolve(padded, ones, groups=channels)
        if layer.normalize_borders:
            inside = F.pad(torch.ones_like(density), [size // 2 - 1, size // 2] * axes)
            mass = mass * size**axes / convolve(inside, ones, groups=channels)
        logs.append(torch.log(mass + 1e-7))
    sizes = torch.log(2.0 ** torch.arange(1, layer.max_scale + 1, dtype=torch.float64))
    from_mean = sizes - sizes.mean()
    weights = torch.ones(layer.max_scale, dtype=torch.float64)
    if layer.scale_logits is not None:
        weights = torch.sigmoid(layer.scale_logits.double())
    mass_logs = torch.stack(logs, dim=-1)
    rise = (weights * (mass_logs - mass_logs.mean(dim=-1, keepdim=True)) * from_mean).sum(dim=-1)
    return rise / (weights * from_mean**2).sum()


def naive_multifractal(block: MultifractalRecalibration, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the block's output and the memberships, ``(…, levels)``, with a tensor that holds all levels."""
    places = (0, *range(2, x.dim()))
    alpha = naive_norm(naive_exponent(x, block.strength), block.strength.norm, places, 1)
    sets = block.level_sets
    groups = (1, -1, *[1] * (x.dim() - 2), sets.anchors.shape[1])
    anchors, widths = sets.anchors.double().reshape(groups), sets.widths.double().reshape(groups)
    memberships = torch.softmax(-torch.relu(widths) * (alpha.unsqueeze(-1) - anchors) ** 2, dim=-1)
    level_axis = x.dim()
    levels = torch.relu(naive_norm(memberships, sets.norm, tuple(range(level_axis)), level_axis))
    return x.double() + torch.sigmoid(levels.sum(dim=-1)), memberships


# ---- singularity strength and the block


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("scope", ["sample", "batch"])
@pytest.mark.parametrize(
    ("size", "max_scale", "borders"), [((19, 14), 3, False), ((9, 30), 4, True), ((7, 9, 8), 2, False)]
)
def test_ssr_equals_its_formula(
    size: tuple[int, ...], max_scale: int, borders: bool, scope: Any, training: bool
) -> None:
    x = features(3, 6, *size)
    block = SingularityStrengthRecalibration(
        6, len(size), reduction=3, max_scale=max_scale, norm_scope=scope, normalize_borders=borders
    )
    lively(block).train(training)
    places = (0, *range(2, x.dim()))
    strength = naive_exponent(x, block.strength)
    normed = naive_norm(strength, block.strength.norm, places, 1)
    expected = times(x, gate(block.excite, normed.mean(places[1:])))

    assert largest(block.strength.exponent(x), strength) < 5e-6
    assert largest(copy.deepcopy(block).strength(x), normed) < 1e-4
    assert largest(copy.deepcopy(block).strength.channel_means(x), normed.mean(places[1:])) < 2e-5
    assert largest(block(x), expected) < 2e-5


@pytest.mark.parametrize("momentum", [0.01, 0.3, None])
@pytest.mark.parametrize("dims", [2, 3])
def test_running_statistics_equal_those_of_torch_on_the_exponents(dims: int, momentum: float | None) -> None:
    layer = LocalSingularityStrength(4, dims)
    layer.norm.momentum = momentum
    theirs = copy.deepcopy(layer.norm)
    for _ in range(3):
        x = features(2, 4, *[9, 11, 10][:dims])
        means = layer.channel_means(x)
        normed = theirs(layer.exponent(x))
        torch.testing.assert_close(means, normed.flatten(2).mean(dim=2), rtol=0, atol=2e-5)
    assert theirs.running_mean is not None
    assert theirs.running_var is not None
    torch.testing.assert_close(layer.norm.running_mean, theirs.running_mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(layer.norm.running_var, theirs.running_var, rtol=1e-5, atol=1e-6)
    assert layer.norm.num_batches_tracked == theirs.num_batches_tracked == 3


def test_the_norm_may_go_without_running_statistics() -> None:
    layer = LocalSingularityStrength(4)
    layer.norm = nn.BatchNorm2d(4, eps=1e-3, track_running_stats=False)
    layer.eval()
    x = features(3, 4, 12, 10)
    expected = layer(x).mean((2, 3))
    torch.testing.assert_close(layer.channel_means(x), expected, rtol=0, atol=2e-5)


def test_the_norm_may_keep_its_values_to_itself_in_double() -> None:
    layer = LocalSingularityStrength(3).double().train()
    x = features(2, 3, 12, 10).double()
    other = copy.deepcopy(layer)
    torch.testing.assert_close(layer.channel_means(x), other(x).mean((2, 3)), rtol=0, atol=1e-12)
    torch.testing.assert_close(layer.norm.running_var, other.norm.running_var, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["ssr", "multifractal"])
@pytest.mark.parametrize("training", [False, True])
def test_a_synchronised_norm_on_one_process_changes_nothing(name: str, training: bool) -> None:
    x = features(2, 16, 12, 10)
    block = make(name).train(training)
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(block)).train(training)
    assert isinstance(synchronised.strength.norm, nn.SyncBatchNorm)
    with torch.no_grad():
        torch.testing.assert_close(synchronised(x), block(x), rtol=0, atol=2e-5)
    for ours, theirs in zip(block.buffers(), synchronised.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


# ---- multifractal


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(
    ("scope", "size", "max_scale"), [("sample", (13, 18), 3), ("batch", (13, 18), 4), ("batch", (6, 7, 9), 2)]
)
def test_multifractal_equals_its_formula_with_all_gradients(
    scope: Any, size: tuple[int, ...], max_scale: int, per_channel: bool, training: bool
) -> None:
    x = features(2, 3, *size).requires_grad_()
    block = MultifractalRecalibration(3, len(size), 7, per_channel, max_scale, scope)
    lively(block).train(training)
    twin = copy.deepcopy(block)
    target = torch.randn(x.shape)

    out = block(x)
    (out * target).sum().backward()
    ours = {name: p.grad for name, p in block.named_parameters()} | {"x": x.grad}
    x.grad = None
    expected, memberships = naive_multifractal(twin, x)
    (expected * target).sum().backward()
    theirs = {name: p.grad for name, p in twin.named_parameters()} | {"x": x.grad}

    assert block.level_sets.anchors.shape == (3 if per_channel else 1, 7)
    assert largest(out, expected) < 2e-5
    for name, gradient in theirs.items():
        assert gradient is not None
        assert largest(ours[name], gradient) < 2e-3 * (1 + gradient.abs().max().item()), name
    if training:
        each = memberships.detach().reshape(-1, 7)
        before = twin.level_sets.norm
        mean = 0.99 * before.running_mean + 0.01 * each.mean(dim=0)
        variance = 0.99 * before.running_var + 0.01 * each.var(dim=0, correction=0)
        assert largest(block.level_sets.norm.running_mean, mean) < 1e-6
        assert largest(block.level_sets.norm.running_var, variance) < 1e-6


def test_the_level_norm_takes_in_the_biased_variance() -> None:
    alpha = torch.tensor([-1.0, 0.5]).reshape(1, 1, 1, 2)  # two values: the unbiased variance would be twice as large
    sets = SoftLevelSets(1, levels=3, norm_momentum=1.0)
    with torch.no_grad():
        sets.widths.copy_(torch.tensor([[1.0, 2.0, 0.5]]))
        sets.anchors.copy_(torch.tensor([[-1.0, 0.0, 1.0]]))
    sets.train()(alpha)
    memberships = torch.softmax(-sets.widths * (alpha.reshape(2, 1) - sets.anchors) ** 2, dim=1).detach().numpy()
    np.testing.assert_allclose(sets.norm.running_var.numpy(), memberships.var(axis=0), rtol=1e-5)
    np.testing.assert_allclose(sets.norm.running_mean.numpy(), memberships.mean(axis=0), rtol=1e-6)


def test_multifractal_raises_every_value_by_a_half_to_one_and_starts_at_the_sigmoid_of_one() -> None:
    x = features(2, 4, 20, 16)
    rise = make("multifractal", 4).eval()(x) - x
    assert rise.min().item() >= 0.5 - 1e-6
    assert rise.max().item() <= 1.0 + 1e-6
    # The memberships' sum is 1, and a new norm leaves them all but alone.
    fresh = MultifractalRecalibration(4).eval()(x) - x
    expected = 1 / (1 + math.exp(-1 / math.sqrt(1 + 1e-3)))
    assert largest(fresh, torch.full_like(fresh, expected)) < 1e-6


def test_widths_below_zero_get_no_gradient() -> None:
    block = make("multifractal", 4)
    block(features(2, 4, 14, 16)).square().sum().backward()
    widths = block.level_sets.widths
    assert widths.grad is not None
    assert (widths <= 0).any()
    assert (widths.grad[widths <= 0] == 0).all()
    assert (widths.grad[widths > 0] != 0).all()


def test_far_exponents_do_not_overflow_the_levels() -> None:
    sets = SoftLevelSets(1, levels=4)
    with torch.no_grad():
        sets.widths.fill_(100.0)
        sets.anchors.copy_(torch.tensor([[-1.0, 0.0, 1.0, 2.0]]))
    alpha = torch.tensor([-1e4, -30.0, 0.1, 1e4]).reshape(1, 1, 2, 2).requires_grad_()
    for training in (False, True):
        out = sets.train(training)(alpha)
        out.sum().backward()
        assert torch.isfinite(out).all()
        assert alpha.grad is not None
        assert torch.isfinite(alpha.grad).all()
    with torch.no_grad():
        torch.testing.assert_close(sets.eval()(alpha), sets._level_by_level(alpha))
