"""Gradients of the singularity strength and its blocks against finite differences."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck

from msrf_monai.networks.blocks import (
    LocalSingularityStrength,
    MultifractalRecalibration,
    SingularityStrengthRecalibration,
    SoftLevelSets,
    rescale_range,
    singularity_exponent,
)


def distinct(*shape: int) -> torch.Tensor:
    """Make a float64 map without ties, whose smallest and largest values stand apart from the others."""
    ranks = torch.stack([torch.randperm(math.prod(shape[2:])) for _ in range(shape[0] * shape[1])])
    return (ranks.reshape(shape).double() / math.prod(shape[2:]) - 0.4).requires_grad_()


@pytest.mark.parametrize("options", [{}, {"norm_scope": "batch"}, {"max_scale": 4, "normalize_borders": True}])
@pytest.mark.parametrize("weighted", [False, True])
def test_exponents_have_the_gradients_of_finite_differences(options: dict[str, object], weighted: bool) -> None:
    x = distinct(2, 2, 5, 6)
    if options.get("norm_scope") == "batch":
        x = (x.detach() + torch.tensor([0.0, 0.003]).double().view(2, 1, 1, 1)).requires_grad_()
    layer = LocalSingularityStrength(2, weighted=weighted, **options).double()  # type: ignore[arg-type]
    logits = [] if layer.scale_logits is None else [layer.scale_logits]
    assert gradcheck(lambda x, *_: layer.exponent(x), (x, *logits))


@pytest.mark.parametrize("training", [False, True])
def test_channel_means_have_the_gradients_of_finite_differences(training: bool) -> None:
    layer = LocalSingularityStrength(3).double().train(training)
    assert gradcheck(lambda x, *_: layer.channel_means(x), (distinct(2, 3, 5, 4), *layer.parameters()))


@pytest.mark.parametrize("training", [False, True])
def test_ssr_block_has_the_gradients_of_finite_differences(training: bool) -> None:
    block = SingularityStrengthRecalibration(4).double().train(training)
    assert gradcheck(lambda x, *_: block(x), (distinct(2, 4, 4, 5), *block.parameters()))


@pytest.mark.parametrize("per_channel", [False, True])
def test_multifractal_block_has_the_gradients_of_finite_differences(
    per_channel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msrf_monai.networks.blocks.multifractal._TRAIN_PIECE", 9)  # several pieces, the last ragged
    block = multifractal_away_from_kinks(per_channel).eval()
    assert gradcheck(lambda x, *_: block(x), (distinct(2, 2, 4, 5), *block.parameters()))


@pytest.mark.parametrize("per_channel", [False, True])
def test_multifractal_block_has_the_gradients_of_finite_differences_in_training(
    per_channel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msrf_monai.networks.blocks.multifractal._TRAIN_PIECE", 9)
    block = multifractal_away_from_kinks(per_channel).train()
    assert gradcheck(lambda x, *_: block(x), (distinct(2, 2, 4, 5), *block.parameters()))


def multifractal_away_from_kinks(per_channel: bool) -> MultifractalRecalibration:
    block = MultifractalRecalibration(2, levels=3, per_channel=per_channel).double()
    with torch.no_grad():
        widths = torch.linspace(0.2, 0.7, block.level_sets.widths.numel())
        block.level_sets.widths.copy_(widths.reshape(block.level_sets.widths.shape))
        block.level_sets.anchors.normal_()
        block.level_sets.norm.weight.fill_(0.1)
        block.level_sets.norm.bias.fill_(0.6)  # above all ReLUs' kinks, and the sigmoid is not saturated
    return block


def awkward_inputs() -> dict[str, torch.Tensor]:
    one_hot = torch.zeros(2, 16, 20, 24)
    one_hot[:, :, 9, 7] = 1.0
    return {
        "constant": torch.full((2, 16, 20, 24), 0.3),
        "zero": torch.zeros(2, 16, 20, 24),
        "one-hot": one_hot,
        "huge": 1e6 * torch.randn(2, 16, 20, 24),
        "beyond the clip": 1e12 * torch.randn(2, 16, 20, 24),
        "tiny": 1e-12 * torch.randn(2, 16, 20, 24),
    }


@pytest.mark.parametrize("name", list(awkward_inputs()))
@pytest.mark.parametrize("block_type", [SingularityStrengthRecalibration, MultifractalRecalibration])
@pytest.mark.parametrize("training", [False, True])
def test_gradients_of_awkward_maps_are_finite(name: str, block_type: type[torch.nn.Module], training: bool) -> None:
    x = awkward_inputs()[name].requires_grad_()
    block = block_type(16).train(training)
    out = block(x)
    out.mean().backward()
    assert torch.isfinite(out).all()
    for gradient in (x.grad, *(p.grad for p in block.parameters())):
        assert gradient is not None
        assert torch.isfinite(gradient).all()


def test_equal_extremes_share_their_gradient() -> None:
    x = torch.full((1, 1, 6, 7), 0.5, dtype=torch.float64)
    x[0, 0, 0, :2] = 0.0
    x[0, 0, 3:5, 3:5] = 1.0
    x.requires_grad_()
    rescale_range(x)[0, 0, 5, 6].backward()  # 1 + 255 (value - low) / (high - low)
    expected = torch.zeros(6, 7, dtype=torch.float64)
    expected[0, :2] = -255 * 0.5 / 2
    expected[3:5, 3:5] = -255 * 0.5 / 4
    expected[5, 6] = 255.0
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0, 0], expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("scope", ["sample", "batch"])
@pytest.mark.parametrize("max_scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 9), (37, 22)])
def test_channel_means_without_gradients_are_the_means_of_the_exponents(
    size: tuple[int, int], max_scale: int, scope: Any, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    x = (torch.randn(2, 6, *size) * 40).to(memory_format=layout)
    strength = LocalSingularityStrength(6, max_scale=max_scale, norm_scope=scope).eval()
    expected = singularity_exponent(x, max_scale, scope).mean(dim=(2, 3)) / (1 + strength.norm.eps) ** 0.5

    with torch.no_grad():
        means = strength.channel_means(x)

    torch.testing.assert_close(means, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("kind", [SingularityStrengthRecalibration, MultifractalRecalibration])
def test_channels_last_layout_changes_neither_result_nor_gradient(kind: Any) -> None:
    torch.manual_seed(0)
    block = kind(6).train()
    plain = torch.randn(3, 6, 21, 18, requires_grad=True)
    last = plain.detach().to(memory_format=torch.channels_last).requires_grad_()

    outputs = [block(x) for x in (plain, last)]
    for output in outputs:
        (output * torch.linspace(-1, 1, 18)).sum().backward()

    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-6, rtol=1e-6)
    assert last.grad.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last.grad, plain.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("widest", [0.0, 3.0, 400.0])
def test_level_sums_without_gradients_equal_those_with(widest: float) -> None:
    torch.manual_seed(0)
    levels = SoftLevelSets(4).eval()
    torch.nn.init.uniform_(levels.widths, 0.5 * widest, widest)  # all positive: no level has the membership's largest
    torch.nn.init.uniform_(levels.norm.weight, -1, 1)
    alpha = torch.randn(2, 4, 9, 14) * 3

    with torch.no_grad():
        fast = levels(alpha)

    torch.testing.assert_close(fast, levels(alpha).detach(), atol=1e-5, rtol=1e-5)
