"""Hi-gMISnet in use: batches, windows, sizes, backgrounds, dropout, training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.inferers import SlidingWindowInferer
from torch import nn

from msrf_monai.networks import (
    HiGMISNet,
    HiGMISNetGenerator,
)
from msrf_monai.networks.inference import fold_batch_norms, merge_convolutions
from msrf_monai.networks.nets.higmis_net import fuse_probabilities
from support.higmis import MODES, SMALL, bright_waves, lively

# ---- batches, windows, sizes, backgrounds


@pytest.mark.parametrize("norm", ["instance", "batch", "batch_always"])
def test_optimized_network_gives_the_same(norm: str) -> None:
    net = lively(norm=norm, backbones=("densenet201",))
    optimized = merge_convolutions(fold_batch_norms(net))
    with torch.inference_mode():
        torch.testing.assert_close(optimized(bright_waves(64, 64)), net(bright_waves(64, 64)), rtol=0, atol=1e-8)
    left = [m for m in optimized.modules() if isinstance(m, nn.BatchNorm2d)]
    # Norms stay that have no convolution right before them: of each dense layer and transition of the trunk one, of
    # each of 11 MultiRes blocks two, of each of 11 steps of the skips' paths one, and the head's.
    assert len(left) == 6 + 12 + 48 + 3 + (2 * 11 + 11 + 1 if norm == "batch" else 0)


@pytest.mark.parametrize("kind", [HiGMISNetGenerator, HiGMISNet])
def test_only_norms_of_the_batch_let_images_meet(kind: Any) -> None:
    x = torch.cat([bright_waves(64, 96), 0.2 * torch.rand(1, 3, 64, 96).double()])
    for norm, differs in (("instance", False), ("batch", False), ("batch_always", True)):
        net = lively(kind, norm=norm)
        with torch.inference_mode():
            alone, together = net(x[:1]), net(x)[:1]
        assert ((alone - together).abs().max() > 1e-2) if differs else ((alone - together).abs().max() < 1e-12), norm


def test_instance_norm_of_one_image_is_the_released_batch_norm() -> None:
    ours, released = lively(), lively(norm="batch_always")
    released.load_state_dict(ours.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(released(bright_waves(64, 96)), ours(bright_waves(64, 96)), rtol=0, atol=1e-9)


def test_windows_of_a_batch_change_nothing() -> None:
    net = lively(HiGMISNet)
    with torch.inference_mode():
        one, many = (
            SlidingWindowInferer(64, sw_batch_size=k, overlap=0.25)(bright_waves(100, 130), net) for k in (1, 5)
        )
    assert one.std() > 0.01
    torch.testing.assert_close(one, many, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(288, 384), (75, 41), (3, 5)])
def test_other_sizes_are_padded_by_repetition_and_cropped(size: tuple[int, int]) -> None:
    net = lively()
    x = bright_waves(*size)
    by_hand = torch.from_numpy(np.pad(x.numpy(), [(0, 0), (0, 0), *((0, -s % 32) for s in size)], mode="edge"))
    with torch.inference_mode():
        ours, padded = net.forward_all(x), net.forward_all(by_hand)
    for k, (small, large) in enumerate(zip(ours, padded, strict=True)):
        factor = (1, 1, 1, 2, 2, 4, 4)[k]
        height, width = (-(-s // factor) for s in size)
        assert small.shape == (1, 1, height, width)
        torch.testing.assert_close(small, large[:, :, :height, :width], rtol=0, atol=1e-12)


def test_grey_images_are_repeated_to_three_channels() -> None:
    grey = lively(in_channels=1)
    colour = lively()
    colour.load_state_dict(grey.state_dict())
    x = bright_waves(64, 64)[:, :1]
    with torch.inference_mode():
        assert torch.equal(grey(x), colour(x.expand(1, 3, 64, 64)))


def test_an_image_can_be_all_background_only_without_the_norm_of_the_head() -> None:
    free, normed = (lively(head_norm=flag) for flag in (False, True))
    main: dict[str, torch.Tensor] = {}
    for net in (free, normed):
        nn.init.constant_(net.head.bias, -1e3)
        net.head_norm.register_forward_hook(lambda _m, _i, out: main.update(logits=out))
    with torch.inference_mode():
        assert free(bright_waves(64, 96)).max() < 1e-6
        normed(bright_waves(64, 96))
    assert main["logits"].max() > 0  # by the main map alone, some place is always foreground
    assert main["logits"].mean().abs() < 1e-9


def test_an_all_background_image_can_be_learnt() -> None:
    torch.manual_seed(0)
    net = HiGMISNet(**SMALL, head_norm=False)
    image, empty = torch.rand(1, 3, 32, 64), torch.zeros(1, 1, 32, 64)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        lesion, background = net(image)
        loss = F.binary_cross_entropy(lesion.mask, empty) + F.binary_cross_entropy(background.mask, 1 - empty)
        loss.backward()
        optimizer.step()
    for mode in MODES:
        net.fusion = mode
        with torch.inference_mode():
            assert net.eval()(image).max() < 0.5, mode


# ---- dropout


def test_evaluation_has_no_dropout_and_training_has() -> None:
    net = lively()
    x = bright_waves(64, 64)
    with torch.no_grad():
        assert torch.equal(net(x), net(x))
        first, second = (net.train()(x).mask for _ in range(2))
    assert not torch.equal(first, second)


def test_dropout_of_evaluation_is_an_option() -> None:
    x = bright_waves(64, 64)
    with torch.inference_mode():
        net = lively(mc_dropout=True)
        assert not torch.equal(net(x), net(x))
        assert "p=0.5, always_on=True" in repr(net)

        pair = lively(HiGMISNet, mc_samples=3)
        torch.manual_seed(5)
        mean = pair(x)
        torch.manual_seed(5)
        passes = [fuse_probabilities(pair.lesion(x), pair.background(x), "and") for _ in range(3)]
    assert not torch.equal(passes[0], passes[1])
    torch.testing.assert_close(mean, sum(passes) / 3)


def test_dropout_is_in_the_three_coarsest_levels_only() -> None:
    net = HiGMISNetGenerator(**SMALL)
    assert [getattr(level.dropout, "p", 0.0) for level in net.decoder] == [0.5, 0.5, 0.5, 0.0, 0.0]


# ---- training


def test_one_step_of_both_generators_with_published_widths_of_the_trunks() -> None:
    torch.manual_seed(0)
    net = HiGMISNetGenerator(features=4)  # both trunks, narrow elsewhere
    output = net(torch.rand(2, 3, 64, 64))
    sum(m.square().mean() for m in output).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.extended
def test_fourteen_steps_at_base_32_learn_two_images() -> None:
    from msrf_monai.losses import HiGMISGeneratorLoss, ReciprocalLoss

    torch.manual_seed(0)
    image, mask = torch.rand(2, 3, 64, 64) * 0.3, torch.zeros(2, 1, 64, 64)
    mask[0, :, 10:34, 20:50] = 1
    mask[1, :, 30:55, 8:30] = 1
    image = image + 0.5 * mask
    pair = HiGMISNet(backbones=())
    optimizer = torch.optim.Adam(pair.parameters(), lr=4e-4, betas=(0.5, 0.999))
    losses = {"lesion": HiGMISGeneratorLoss("lesion"), "background": HiGMISGeneratorLoss("background")}
    couple = ReciprocalLoss()
    first = last = torch.zeros(())
    for step in range(14):
        optimizer.zero_grad()
        outputs = pair(image)
        last = couple(outputs.lesion.mask, outputs.background.mask, image, mask)
        first = last if step == 0 else first
        total = losses["lesion"](outputs.lesion, mask) + losses["background"](outputs.background, mask) + last
        total.backward()
        optimizer.step()
    with torch.inference_mode():
        decided = pair.eval()(image) > 0.5
    iou = (decided & (mask > 0)).sum() / (decided | (mask > 0)).sum()
    assert iou > 0.9
    assert last < 0.5 * first
