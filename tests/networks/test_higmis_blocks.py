"""The blocks of Hi-gMISnet against closed forms, PyWavelets, and formulas written out with PyTorch's functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from msrf_monai.errors import InputError
from msrf_monai.networks.blocks import (
    DualModeAttentionGate,
    HaarDWT2d,
    MultiResBlock,
    PartialDecoder,
    ReceptiveFieldBlock,
    ResPath,
    ReverseAttention,
    WaveBlock,
    feature_norm,
    haar_low_pass,
    haar_sub_bands,
)
from msrf_monai.networks.blocks.multi_res import multi_res_channels

SIZES = [(8, 12), (7, 12), (8, 13), (9, 5), (1, 6), (1, 1)]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def norm(x: torch.Tensor) -> torch.Tensor:
    """Instance norm with eps 1e-3, written out."""
    mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
    return (x - mean) / (var + 1e-3).sqrt()


# --- Haar wavelet


def haar_matrix(size: int) -> np.ndarray:
    """The orthonormal matrix of one level along one axis: sums in the upper half, differences in the lower."""
    half = size // 2
    matrix = np.zeros((size, size))
    for k in range(half):
        matrix[k, [2 * k, 2 * k + 1]] = 1, 1
        matrix[half + k, [2 * k, 2 * k + 1]] = 1, -1
    return matrix / np.sqrt(2)


@pytest.mark.parametrize("size", SIZES)
def test_haar_transform_is_the_product_with_the_orthonormal_matrices(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    even = np.pad(x.numpy(), [(0, 0), (0, 0), (0, size[0] % 2), (0, size[1] % 2)], mode="symmetric")
    product = haar_matrix(even.shape[2]) @ even @ haar_matrix(even.shape[3]).T
    h, w = even.shape[2] // 2, even.shape[3] // 2
    expected = np.concatenate(
        [product[..., :h, :w], product[..., h:, :w], product[..., :h, w:], product[..., h:, w:]], axis=1
    )
    np.testing.assert_allclose(HaarDWT2d()(x).numpy(), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("size", SIZES)
def test_haar_transform_equals_pywavelets(size: tuple[int, int]) -> None:
    pywt = pytest.importorskip("pywt", reason="PyWavelets is in the extra dev")
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    low, details = pywt.dwt2(x.numpy(), "haar", mode="symmetric", axes=(2, 3))
    np.testing.assert_allclose(HaarDWT2d()(x).numpy(), np.concatenate([low, *details], axis=1), rtol=0, atol=1e-14)


def test_haar_transform_keeps_energy_and_doubles_the_range_of_the_low_pass() -> None:
    x = torch.rand(1, 2, 16, 24, dtype=torch.float64)
    bands = haar_sub_bands(x)
    assert sum(band.square().sum() for band in bands).item() == pytest.approx(x.square().sum().item(), rel=1e-12)
    torch.testing.assert_close(haar_low_pass(x), bands[0], rtol=0, atol=1e-14)
    white = torch.ones(1, 1, 16, 24)
    for level in (2.0, 4.0, 8.0):
        white = haar_low_pass(white)
        assert (white == level).all()


def test_haar_transform_is_differentiable_scriptable_and_exportable() -> None:
    dwt = HaarDWT2d()
    assert torch.autograd.gradcheck(dwt, torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True))
    auto = torch.export.Dim.AUTO
    program = torch.export.export(dwt, (torch.rand(2, 3, 8, 9),), dynamic_shapes=({0: auto, 2: auto, 3: auto},))
    traced = torch.jit.trace(dwt, torch.rand(1, 3, 8, 9))
    x = torch.rand(3, 3, 11, 6)
    for form in (torch.jit.script(dwt), traced, program.module()):
        assert torch.equal(form(x), dwt(x))


def test_wave_block_equals_transform_and_convolutions_one_after_the_other() -> None:
    torch.manual_seed(0)
    block = WaveBlock(6, width=4).double()
    x = torch.randn(2, 6, 12, 20, dtype=torch.float64)
    y = block.project(HaarDWT2d()(x))
    assert y.shape == (2, 8, 6, 10)
    branches = [F.relu(norm(F.conv2d(y, b[0].weight, b[0].bias, padding="same"))) for b in (block.fine, block.coarse)]
    expected = block.join(torch.cat(branches, dim=1))
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-12)


def test_wave_block_sends_its_gradient_through_the_transform() -> None:
    torch.manual_seed(0)
    block = WaveBlock(3, width=2).double()
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    gradients = []
    for y in (block.project(HaarDWT2d()(x)), F.conv2d(x, block.cell_kernel(), block.project.bias, stride=2)):
        gradients.append(torch.autograd.grad(y.square().sum(), [block.project.weight, block.project.bias]))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


# --- MultiRes blocks and paths

WIDTHS = {
    32: (8, 17, 26),
    64: (17, 35, 53),
    128: (35, 71, 106),
    256: (71, 142, 213),
    512: (142, 284, 427),
    1024: (285, 569, 855),
}


def test_channels_of_multi_res_blocks_are_the_published_ones() -> None:
    assert {width: multi_res_channels(width) for width in WIDTHS} == WIDTHS
    assert [sum(channels) for channels in WIDTHS.values()] == [51, 105, 212, 426, 853, 1709]


def test_multi_res_block_equals_the_formula() -> None:
    torch.manual_seed(0)
    block = MultiResBlock(5, width=32).double()
    nn.init.normal_(block.shortcut[0].weight)
    x = torch.randn(2, 5, 9, 12, dtype=torch.float64)

    def convolve(layers: Any, features: torch.Tensor) -> torch.Tensor:
        return norm(F.conv2d(features, layers[0].weight, layers[0].bias, padding="same"))

    p = F.relu(convolve(block.conv3, x))
    q = F.relu(convolve(block.conv5, p))
    r = F.relu(convolve(block.conv7, q))
    expected = norm(F.relu(convolve(block.shortcut, x) + norm(torch.cat([p, q, r], dim=1))))
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-12)


def test_path_of_a_skip_equals_the_formula() -> None:
    torch.manual_seed(0)
    path = ResPath(5, 4, steps=3).double()
    expected = x = torch.randn(2, 5, 9, 12, dtype=torch.float64)
    for step in path:
        straight, conv = step.shortcut[0], step.conv[0]
        beside = F.relu(norm(F.conv2d(expected, conv.weight, conv.bias, padding=1)))
        expected = norm(F.relu(norm(F.conv2d(expected, straight.weight, straight.bias)) + beside))
    assert len(path) == 3
    torch.testing.assert_close(path(x), expected, rtol=0, atol=1e-12)


def test_convolutions_of_multi_res_blocks_start_small() -> None:
    for block in (MultiResBlock(64, width=64), ResPath(64, 64, steps=2)):
        weights = torch.cat([m.weight.flatten() for m in block.modules() if isinstance(m, nn.Conv2d)])
        assert weights.std().item() == pytest.approx(0.02, rel=0.02)
        assert all((m.bias == 0).all() for m in block.modules() if isinstance(m, nn.Conv2d))


# --- attention gate


def test_gate_equals_the_formula() -> None:
    torch.manual_seed(0)
    gate = DualModeAttentionGate(6).double()
    x = torch.randn(2, 6, 8, 12, dtype=torch.float64)
    g = torch.randn(2, 6, 4, 6, dtype=torch.float64)

    def mode(layers: Any, half: slice, sign: int) -> torch.Tensor:
        signal = layers.phi[1](layers.phi[0](g[:, half]))
        small = torch.sigmoid(layers.psi(F.relu(layers.theta(x[:, half]) + sign * signal)))
        return small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    alpha, beta = mode(gate.foreground, slice(0, 3), 1), 1 - mode(gate.background, slice(3, 6), -1)
    joined = F.conv2d(torch.cat([alpha * x[:, :3], beta * x[:, 3:]], dim=1), gate.join[0].weight, gate.join[0].bias)
    for ours, expected in zip(gate(x, g), (F.relu(norm(joined)), alpha, beta), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def test_background_mode_without_input_is_one_minus_sigmoid_of_the_bias() -> None:
    gate = DualModeAttentionGate(8)
    for layer in gate.background.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.zeros_(layer.bias)
    nn.init.constant_(gate.background.psi.bias, 0.7)
    x, g = torch.randn(1, 8, 8, 8), torch.randn(1, 8, 4, 4)
    x[:, 4:] = g[:, 4:] = 0
    _, alpha, beta = gate(x, g)
    assert alpha.std() > 0
    torch.testing.assert_close(beta, torch.full_like(beta, 1 - 1 / (1 + np.exp(-0.7))))


@pytest.mark.parametrize(("width", "expected"), [(512, 2_100_738), (32, 32 * 256 + 14 * 16 + 2)])
def test_gate_has_the_published_number_of_parameters(width: int, expected: int) -> None:
    with torch.device("meta"):
        assert count(DualModeAttentionGate(width)) == expected


# --- side branch


def test_receptive_field_block_sees_as_far_as_its_largest_branch() -> None:
    block = ReceptiveFieldBlock(4, 3, norm="batch").double().eval()  # running statistics: no cell sees the whole map
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 0.1)
    x = torch.zeros(1, 4, 41, 41, dtype=torch.float64)
    blank = block(x)
    x[:, :, 20, 20] = 1
    rows, columns = ((block(x) - blank).abs().sum((0, 1)) > 0).nonzero().unbind(1)
    reach = 3 + 7 + 1  # half of the kernel of 7, the dilation of 7, the joining 3x3
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20 - reach, 20 + reach, 20 - reach, 20 + reach)


def test_receptive_field_block_takes_nothing_from_negative_values() -> None:
    block = ReceptiveFieldBlock(4, 3)
    x = torch.randn(2, 4, 9, 12)
    assert torch.equal(block(x), block(x.clamp(min=0)))
    assert (block(x) >= 0).all()


def test_side_blocks_have_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert sum(count(ReceptiveFieldBlock(width)) for width in (512, 256, 128)) == 431_936
        assert count(PartialDecoder()) == 305_185
        refine = (
            ReverseAttention(512, 256, kernels=(1, 5, 5, 5, 1)),
            ReverseAttention(256, 64, kernels=(1, 3, 3, 3)),
            ReverseAttention(128, 64, kernels=(1, 3, 3, 3)),
        )
        assert sum(map(count, refine)) == 5_222_534


def test_partial_decoder_multiplies_coarse_into_fine() -> None:
    decode = PartialDecoder(4, norm="batch").double().eval()
    maps = [torch.rand(1, 4, 16 >> k, 24 >> k, dtype=torch.float64) for k in (0, 1, 2)]
    nothing = decode(*(torch.zeros_like(m) for m in maps))
    only_fine = decode(maps[0], torch.zeros_like(maps[1]), torch.zeros_like(maps[2]))
    torch.testing.assert_close(only_fine, nothing, rtol=0, atol=1e-12)
    assert (decode(*maps) - nothing).abs().max() > 1e-3


def test_reverse_attention_looks_only_where_the_prediction_is_background_and_only_raises() -> None:
    torch.manual_seed(0)
    refine = ReverseAttention(4, 8, kernels=(1, 1, 1), norm="batch").eval()
    features = torch.randn(1, 4, 6, 8)
    logits = torch.full((1, 1, 6, 8), -60.0)
    logits[..., :4] = 60.0  # foreground on the left
    changed = features.clone()
    changed[..., :4] += 1
    assert torch.equal(refine(logits, features), refine(logits, changed))
    assert (refine(torch.zeros_like(logits), features) >= 0).all()


# --- norms


def test_norms_take_the_statistics_that_their_names_say() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4, 6, 8, dtype=torch.float64) * torch.tensor([1.0, 5.0, 9.0]).reshape(3, 1, 1, 1)
    instance, live, running = (feature_norm(kind, 4).double() for kind in ("instance", "batch_always", "batch"))  # type: ignore[arg-type]
    torch.testing.assert_close(instance(x), norm(x))
    pooled = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-3).sqrt()
    for layer in (live, running):
        torch.testing.assert_close(layer(x), pooled)
    torch.testing.assert_close(live.eval()(x), pooled)
    torch.testing.assert_close(live.eval()(x[:1]), instance.eval()(x)[:1])
    assert not torch.allclose(running.eval()(x), pooled)


def test_norms_of_one_cell_give_the_bias() -> None:
    for kind in ("instance", "batch_always"):
        layer = feature_norm(kind, 3)  # type: ignore[arg-type]
        nn.init.normal_(layer.bias)
        x = torch.randn(1, 3, 1, 1, requires_grad=True)
        out = layer(x)
        torch.testing.assert_close(out.flatten(), layer.bias)
        out.sum().backward()
        assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: feature_norm("layer", 4), "norm is 'layer'; expected one of 'instance', 'batch_always', 'batch'"),  # type: ignore[arg-type]
        (lambda: MultiResBlock(3, width=3), "width is 3; expected at least 4"),
        (lambda: ResPath(3, 4, steps=0), "steps is 0; expected at least 1"),
        (lambda: WaveBlock(3, width=0), "width is 0; expected at least 1"),
        (lambda: DualModeAttentionGate(5), "channels is 5; expected an even number"),
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence(build: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
