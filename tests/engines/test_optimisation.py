"""Which parameters decay, and how long a step's gradient may be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from msrf_monai.engines import GradientClip, decay_groups
from msrf_monai.errors import ConfigError


def small_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1, bias=False))


def test_only_weights_with_several_axes_decay() -> None:
    net = small_net()
    net[2].weight.requires_grad_(False)

    decayed, kept = decay_groups(net, 0.1)

    assert decayed["weight_decay"] == 0.1
    assert kept["weight_decay"] == 0.0
    assert [p is q for p, q in zip(decayed["params"], [net[0].weight], strict=True)] == [True]
    assert {id(p) for p in kept["params"]} == {id(net[0].bias), id(net[1].weight), id(net[1].bias)}


def test_a_step_without_gradients_shrinks_weights_alone() -> None:
    net = small_net()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = torch.optim.AdamW(decay_groups(net, 0.5), lr=0.1)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)

    optimizer.step()

    for name, p in net.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] * (0.95 if p.ndim > 1 else 1.0))


@pytest.mark.parametrize(("length", "expected"), [(30.0, 2.0), (0.5, 0.5)])
def test_gradients_of_all_groups_are_shortened_together(length: float, expected: float) -> None:
    net = small_net()
    optimizer = torch.optim.SGD(decay_groups(net, 0.0), lr=1.0)
    handler = GradientClip(optimizer, max_norm=2.0)
    handler.attach(None)
    handler.attach(None)  # a second attachment does not clip twice
    before = torch.cat([p.detach().flatten().clone() for p in net.parameters()])
    gradient = torch.randn_like(before)
    gradient *= length / gradient.norm()
    for p, part in zip(net.parameters(), gradient.split([p.numel() for p in net.parameters()]), strict=True):
        p.grad = part.reshape(p.shape).clone()

    optimizer.step()

    moved = before - torch.cat([p.detach().flatten() for p in net.parameters()])
    torch.testing.assert_close(moved, gradient * (expected / length), rtol=1e-4, atol=1e-6)


def test_out_of_range_settings_are_refused() -> None:
    net = small_net()
    with pytest.raises(ConfigError, match="weight_decay is -1"):
        decay_groups(net, -1)
    with pytest.raises(ConfigError, match="max_norm is 0"):
        GradientClip(torch.optim.SGD(net.parameters(), lr=1.0), max_norm=0)
