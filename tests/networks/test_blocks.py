"""Blocks against the layers of PyTorch and TensorFlow's padding rule, written out by hand."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from msrf_monai.errors import InputError
from msrf_monai.networks.blocks import (
    AttentionGate,
    DownConv,
    DualScaleDenseFusion,
    SparseUpConv,
    SqueezeExcitation,
    UpConv,
)


def test_down_conv_pads_only_after_the_map() -> None:
    conv, x = DownConv(2, 3), torch.rand(1, 2, 6, 10)
    expected = F.conv2d(F.pad(x, (0, 1, 0, 1)), conv.conv.weight, conv.conv.bias, stride=2)
    torch.testing.assert_close(conv(x), expected)
    # An impulse at the first pixel reaches the first output through the kernel's first weight alone.
    impulse = torch.zeros(1, 2, 6, 10)
    impulse[0, 1, 0, 0] = 1
    answer = conv(impulse) - conv(torch.zeros_like(impulse))
    torch.testing.assert_close(answer[0, :, 0, 0], conv.conv.weight[:, 1, 0, 0])


def test_up_conv_is_the_adjoint_of_down_conv() -> None:
    up, down = UpConv(3, 2), DownConv(2, 3)
    down.conv.weight.data.copy_(up.conv.weight.data)
    for layer in (up.conv, down.conv):
        nn.init.zeros_(layer.bias)
    x, y = torch.rand(1, 3, 4, 5), torch.rand(1, 2, 8, 10)
    assert (up(x) * y).sum().item() == pytest.approx((x * down(y)).sum().item(), rel=1e-5)


@pytest.mark.parametrize("channels", [(4, 2), (16, 8), (3, 5)])
def test_sparse_up_conv_equals_the_transposed_convolution(channels: tuple[int, int]) -> None:
    layer = SparseUpConv(*channels)
    plain = nn.ConvTranspose2d(*channels, 1, stride=2, output_padding=1)
    plain.load_state_dict(layer.state_dict())
    x = torch.rand(2, channels[0], 5, 7)
    torch.testing.assert_close(layer(x), plain(x))
    gradients = []
    for module in (layer, plain):
        image = x.clone().requires_grad_()
        module(image).square().sum().backward()
        gradients.append((image.grad, module.weight.grad, module.bias.grad))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_sparse_up_conv_trains_in_channels_last_without_harming_memory() -> None:
    # PyTorch's own form dies here ("corrupted size" or a segmentation fault), so this runs in a process of its own.
    code = (
        "import torch\n"
        "from msrf_monai.networks.blocks import SparseUpConv\n"
        "layer = SparseUpConv(16, 8).to(memory_format=torch.channels_last)\n"
        "for _ in range(4):\n"
        "    x = torch.rand(4, 16, 32, 32).to(memory_format=torch.channels_last).requires_grad_()\n"
        "    layer(x).sum().backward()\n"
        "print('alive')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "alive", result.stderr[-500:]


# (channels and growth, convolution in the low branch's first layer, parameters): table of the specification.
FUSION_COUNTS = [
    ((32, 64, 16), False, 286_032),
    ((64, 128, 32), False, 1_143_456),
    ((128, 256, 64), False, 4_572_480),
    ((32, 64, 16), True, 239_968),
    ((64, 128, 32), True, 959_168),
    ((128, 256, 64), True, 3_835_264),
]


@pytest.mark.parametrize(("sizes", "low_first_conv", "count"), FUSION_COUNTS)
def test_fusion_block_has_the_parameters_of_the_specification(
    sizes: tuple[int, int, int], low_first_conv: bool, count: int
) -> None:
    block = DualScaleDenseFusion(*sizes, low_first_conv=low_first_conv)
    assert sum(p.numel() for p in block.parameters()) == count


def test_fusion_block_without_weights_returns_its_input() -> None:
    block = DualScaleDenseFusion(4, 8, 2)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x, y = torch.rand(1, 4, 8, 12), torch.rand(1, 8, 4, 6)
    out_x, out_y = block(x, y)
    assert torch.equal(out_x, x)
    assert torch.equal(out_y, y)


@pytest.mark.parametrize("layers", [(0, 1, 3), (2, 1, 3, 4), (0, 1, 3, 5), (0, -1, 3, 4)])
def test_fusion_block_refuses_layers_that_do_not_exist_yet(layers: Any) -> None:
    with pytest.raises(InputError, match="exchange_layers"):
        DualScaleDenseFusion(4, 8, 2, exchange_layers=layers)


@pytest.mark.parametrize(("channels", "hidden"), [(8, 1), (24, 1), (32, 2), (256, 16)])
def test_squeeze_excitation_keeps_a_hidden_unit(channels: int, hidden: int) -> None:
    assert SqueezeExcitation(channels).fc[0].out_features == hidden


def test_attention_gate_closes_with_the_small_eps() -> None:
    gate = AttentionGate(4, 8).eval()
    assert gate.norm.eps == 1e-5
    assert gate(torch.rand(1, 4, 8, 12), torch.rand(1, 8, 4, 6)).shape == (1, 4, 8, 12)
