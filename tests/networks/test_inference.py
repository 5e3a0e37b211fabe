"""The faster forms of a network give what the network gives."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn

from msrf_monai.errors import InputError, MissingExtraError
from msrf_monai.networks import MSRFNet
from msrf_monai.networks.blocks import DualScaleDenseFusion
from msrf_monai.networks.inference import OpenVINONetwork, fold_batch_norms, merge_convolutions, optimize_for_inference


def lively_net(**options: Any) -> MSRFNet:
    torch.manual_seed(0)
    net = MSRFNet(features=4, **options)
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
        norm.running_mean.normal_(std=0.2)
        norm.running_var.uniform_(0.5, 1.5)
    return net.eval()


@pytest.mark.parametrize("options", [{}, {"wiring": "head7"}, {"profile": "paper"}])
@pytest.mark.parametrize("make", [fold_batch_norms, optimize_for_inference])
def test_folded_network_gives_the_same_with_fewer_norms(make: Any, options: dict[str, Any]) -> None:
    net = lively_net(**options)
    count = sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    fast = make(net)
    x = torch.rand(2, 4, 41, 56)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), net(x), rtol=1e-4, atol=1e-5)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in fast.modules()) <= count - 12
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == count


def test_sequential_pairs_are_folded_and_others_left() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.BatchNorm2d(2))
    folded = fold_batch_norms(net)
    assert [type(m).__name__ for m in folded] == ["Conv2d", "Identity", "ReLU", "BatchNorm2d"]


@pytest.mark.parametrize("exchange_layers", [(0, 1, 3, 4), (1, 2, 3, 4), (0, 0, 0, 0)])
@pytest.mark.parametrize("low_first_conv", [False, True])
def test_merged_fusion_equals_the_block(exchange_layers: tuple[int, ...], low_first_conv: bool) -> None:
    torch.manual_seed(0)
    block = DualScaleDenseFusion(6, 10, 4, low_first_conv=low_first_conv, exchange_layers=exchange_layers).double()
    merged = merge_convolutions(block)
    x, y = torch.rand(2, 6, 12, 20).double() - 0.5, torch.rand(2, 10, 6, 10).double() - 0.5
    torch.testing.assert_close(merged(x, y), block(x, y), rtol=0, atol=1e-12)
    scripted = torch.jit.script(merged)
    torch.testing.assert_close(scripted(x, y), block(x, y), rtol=0, atol=1e-12)
    narrow = [m for m in block.modules() if isinstance(m, nn.Conv2d) and m.out_channels == 4]
    assert max(m.out_channels for m in merged.modules() if isinstance(m, nn.Conv2d)) == 4 * len(narrow[:4])


def test_merged_network_has_its_own_weights() -> None:
    net = lively_net(wiring="head7")
    x = torch.rand(1, 4, 24, 16)
    merged = merge_convolutions(net)
    with torch.inference_mode():
        expected = net(x)
        torch.testing.assert_close(merged(x), expected, rtol=1e-4, atol=1e-5)
        for parameter in merged.parameters():
            parameter.zero_()
        torch.testing.assert_close(net(x), expected, rtol=0, atol=0)


def test_openvino_gives_the_same_at_other_sizes() -> None:
    net = lively_net(wiring="head7")
    fast = OpenVINONetwork(net, torch.rand(1, 4, 40, 56), threads=1)
    for shape in ((1, 4, 40, 56), (2, 4, 61, 27)):
        x = torch.rand(shape)
        with torch.inference_mode():
            torch.testing.assert_close(fast(x), net(x), rtol=0, atol=1e-4)


def test_missing_openvino_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"msrf-monai\[export\]"):
        OpenVINONetwork(MSRFNet(features=2), torch.rand(1, 4, 16, 16))


def test_example_on_another_device_is_refused() -> None:
    with pytest.raises(InputError, match="expected a CPU tensor"):
        OpenVINONetwork(MSRFNet(features=2), torch.rand(1, 4, 16, 16, device="meta"))
