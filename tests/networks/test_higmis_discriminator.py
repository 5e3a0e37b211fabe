"""The patch discriminator of Hi-gMISnet against the published one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from msrf_monai.networks import (
    HiGMISNetGenerator,
    PatchDiscriminator,
)
from support.higmis import SMALL, count, on_meta


def test_discriminator_has_the_published_size_and_cost() -> None:
    net = on_meta(PatchDiscriminator)
    assert count(net) == 2_767_553
    statistics = sum(b.numel() for name, b in net.named_buffers() if "running" in name)
    assert count(net) + statistics == 2_769_345
    with FlopCounterMode(display=False) as counter:
        out = net(torch.empty(1, 3, 256, 256, device="meta"), torch.empty(1, 1, 256, 256, device="meta"))
    assert out.shape == (1, 1, 16, 16)
    assert counter.get_total_flops() / 1e9 == pytest.approx(3.36, abs=0.01)


@pytest.mark.parametrize("size", [(288, 384), (64, 96), (75, 41)])
def test_discriminator_has_a_patch_for_every_16_pixels(size: tuple[int, int]) -> None:
    judge = PatchDiscriminator(channels=(4, 8, 8, 8))
    scores = judge(torch.rand(2, 3, *size), torch.rand(2, 1, *size))
    assert scores.shape == (2, 1, -(-size[0] // 16), -(-size[1] // 16))
    assert ((scores > 0) & (scores < 1)).all()


@pytest.mark.parametrize("size", [(8, 6), (7, 9)])
def test_discriminator_pads_as_tensorflow_does(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    judge = PatchDiscriminator(channels=(2,)).double()
    image, mask = torch.randn(1, 3, *size).double(), torch.rand(1, 1, *size).double()

    def same(x: torch.Tensor, conv: nn.Conv2d) -> torch.Tensor:
        stride = conv.stride[0]
        totals = [max((-(-n // stride) - 1) * stride + 4 - n, 0) for n in x.shape[2:]]
        (top, bottom), (left, right) = ((t // 2, t - t // 2) for t in totals)
        return F.conv2d(F.pad(x, (left, right, top, bottom)), conv.weight, conv.bias, stride)

    hidden = F.leaky_relu(same(torch.cat([image, mask], dim=1), judge.convs[0]), 0.2)  # type: ignore[arg-type]
    torch.testing.assert_close(judge(image, mask), torch.sigmoid(same(hidden, judge.head)), rtol=0, atol=1e-12)


def test_generator_step_through_a_frozen_discriminator_changes_nothing_there() -> None:
    torch.manual_seed(0)
    judge = PatchDiscriminator(channels=(4, 8, 8)).train()
    generator = HiGMISNetGenerator(**SMALL)
    image = torch.rand(2, 3, 64, 64)
    open_scores = judge(image, torch.full((2, 1, 64, 64), 0.5))
    before = {name: tensor.clone() for name, tensor in judge.state_dict().items()}
    # Even an optimiser that has the discriminator's parameters, with weight decay, leaves them alone.
    optimizer = torch.optim.AdamW([*generator.parameters(), *judge.parameters()], lr=1e-2)
    with judge.frozen():
        assert torch.equal(judge(image, torch.full((2, 1, 64, 64), 0.5)), open_scores)  # by the batch's statistics
        (1 - judge(image, generator(image).mask)).mean().backward()
    optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in judge.state_dict().items())
    assert all(p.grad is not None for p in generator.head.parameters())
    assert all(p.requires_grad for p in judge.parameters())
    judge(image, torch.rand(2, 1, 64, 64))
    assert not torch.equal(judge.state_dict()["norms.1.running_mean"], before["norms.1.running_mean"])


def test_discriminator_can_be_scripted() -> None:
    judge = PatchDiscriminator(channels=(4, 8)).eval()
    image, mask = torch.rand(1, 3, 21, 34), torch.rand(1, 1, 21, 34)
    torch.testing.assert_close(torch.jit.script(judge)(image, mask), judge(image, mask))
