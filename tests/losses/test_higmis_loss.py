"""Losses of Hi-gMISnet's generators and discriminators against PyTorch's own and the published table of targets."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor

from msrf_monai.errors import InputError
from msrf_monai.losses import HiGMISDiscriminatorLoss, HiGMISGeneratorLoss, supervision_targets
from msrf_monai.networks import HiGMISNetGenerator, HiGMISNetGeneratorOutput

BRANCHES: Any = pytest.mark.parametrize("branch", ["lesion", "background"])
KINDS: Any = pytest.mark.parametrize("kind", ["released", "uniform"])


def mask_case(size: tuple[int, int] = (16, 24)) -> torch.Tensor:
    mask = torch.zeros(2, 1, *size, dtype=torch.float64)
    mask[0, :, 3:9, 5:14] = 1
    mask[1, :, 1:6, 2:7] = 1
    return mask


def output_case(size: tuple[int, int] = (16, 24)) -> HiGMISNetGeneratorOutput:
    generator = torch.Generator().manual_seed(4)
    factors = (1, 1, 1, 2, 2, 4, 4)
    sizes = [tuple(-(-s // f) for s in size) for f in factors]
    return HiGMISNetGeneratorOutput(*(torch.rand(2, 1, *s, generator=generator, dtype=torch.float64) for s in sizes))


def half(x: torch.Tensor) -> torch.Tensor:
    """Halved bilinearly without antialiasing, which is the mean of each 2x2 cell."""
    return x.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))


def quarter(x: torch.Tensor) -> torch.Tensor:
    """Quartered bilinearly without antialiasing, which is the mean of the four middle pixels of each 4x4 cell."""
    return x.unfold(2, 4, 4).unfold(3, 4, 4)[..., 1:3, 1:3].mean((4, 5))


def test_released_targets_are_those_of_the_published_table() -> None:
    y = mask_case()
    not_y = 1 - y
    table = {
        "lesion": (y, y, y, half(y), half(not_y), quarter(y), quarter(y)),
        "background": (not_y, not_y, not_y, half(y), half(not_y), quarter(not_y), quarter(not_y)),
    }
    for branch, expected in table.items():
        for found, target in zip(supervision_targets(y, branch, "released"), expected, strict=True):  # type: ignore[arg-type]
            torch.testing.assert_close(found, target, rtol=0, atol=1e-12)


@BRANCHES
def test_uniform_targets_are_the_branchs_own_at_every_size(branch: Any) -> None:
    y = mask_case()
    own = y if branch == "lesion" else 1 - y
    expected = (own, own, own, half(own), half(own), quarter(own), quarter(own))
    for found, target in zip(supervision_targets(y, branch, "uniform"), expected, strict=True):
        torch.testing.assert_close(found, target, rtol=0, atol=1e-12)


@KINDS
@pytest.mark.parametrize("size", [(37, 50), (33, 31), (32, 41)])
def test_targets_have_the_shapes_of_the_generators_maps(kind: Any, size: tuple[int, int]) -> None:
    output = HiGMISNetGenerator(features=4, backbones=())(torch.rand(1, 3, *size))
    targets = supervision_targets(torch.zeros(1, 1, *size), "lesion", kind)
    assert [t.shape for t in targets] == [m.shape for m in output]
    assert torch.isfinite(HiGMISGeneratorLoss(targets=kind)(output, torch.zeros(1, 1, *size)))


@BRANCHES
@KINDS
def test_loss_is_the_published_sum_of_cross_entropies(branch: Any, kind: Any) -> None:
    output, mask, scores = output_case(), mask_case(), torch.rand(2, 1, 1, 2, dtype=torch.float64)
    targets = supervision_targets(mask, branch, kind)
    entropies = [F.binary_cross_entropy(m, t) for m, t in zip(output, targets, strict=True)]
    maps = sum(w * e for w, e in zip((25, 5, 5, 5, 5, 3, 3), entropies, strict=True))
    adversarial = F.binary_cross_entropy(scores, torch.ones_like(scores))

    loss = HiGMISGeneratorLoss(branch, kind)
    assert loss(output, mask).item() == pytest.approx(float(maps), rel=1e-9)
    assert loss(output, mask, scores).item() == pytest.approx(float(maps + adversarial), rel=1e-9)
    plain = HiGMISGeneratorLoss(branch, kind, weights=(25, 0, 0, 0, 0, 0, 0), adversarial_weight=2)
    assert plain(output, mask, scores).item() == pytest.approx(float(25 * entropies[0] + 2 * adversarial), rel=1e-9)
    terms = loss.terms(output, mask, scores)
    assert list(terms) == [*output._fields, "adversarial"]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_sure_maps_and_scores_stay_finite(value: float) -> None:
    maps = [torch.full(m.shape, value, requires_grad=True) for m in output_case()]
    scores = torch.full((2, 1, 1, 2), value, requires_grad=True)
    loss = HiGMISGeneratorLoss()(HiGMISNetGeneratorOutput(*maps), mask_case().float(), scores)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(m.grad is not None and torch.isfinite(m.grad).all() for m in (*maps, scores))


def test_discriminator_loss_is_half_the_mean_distance() -> None:
    scores = torch.rand(2, 1, 18, 24, requires_grad=True)
    loss = HiGMISDiscriminatorLoss()
    for is_real, target in ((True, torch.ones_like(scores)), (False, torch.zeros_like(scores))):
        assert loss(scores, is_real).item() == pytest.approx(0.5 * F.l1_loss(scores, target).item())
    assert HiGMISDiscriminatorLoss(25)(torch.full((1, 1, 2, 3), 0.25), is_real=False).item() == 6.25
    assert torch.autograd.grad(loss(scores, True), scores)[0].abs().sum().item() == pytest.approx(0.5)


def test_half_precision_is_computed_in_single() -> None:
    maps = [m.bfloat16() for m in output_case()]
    expected = HiGMISGeneratorLoss()(HiGMISNetGeneratorOutput(*(m.float() for m in maps)), mask_case())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = HiGMISGeneratorLoss()(HiGMISNetGeneratorOutput(*maps), mask_case().bfloat16())
        judged = HiGMISDiscriminatorLoss()(torch.full((2, 2), 0.25).bfloat16(), True)
    assert found.dtype == judged.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_image_tensors_of_monai_give_a_plain_scalar() -> None:
    output, mask = output_case(), mask_case()
    found = HiGMISGeneratorLoss()(HiGMISNetGeneratorOutput(*map(MetaTensor, output)), MetaTensor(mask))
    assert type(found) is torch.Tensor
    assert found.item() == HiGMISGeneratorLoss()(output, mask).item()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"branch": "front"}, "branch is 'front'; expected one of 'lesion', 'background'"),
        ({"targets": "mine"}, "targets is 'mine'; expected one of 'released', 'uniform'"),
        ({"weights": (1, 2)}, r"weights is \(1, 2\).*expected 7 numbers of at least 0 \(of mask, alpha1"),
        ({"weights": (-1, 0, 0, 0, 0, 0, 0)}, "expected 7 numbers of at least 0"),
        ({"adversarial_weight": math.inf}, "adversarial_weight inf"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        HiGMISGeneratorLoss(**options)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(InputError, match="weight is -1; expected a number of at least 0"):
        HiGMISDiscriminatorLoss(-1)
    with pytest.raises(InputError, match=r"got a Tensor; expected the seven maps.*call net\.forward_all"):
        HiGMISGeneratorLoss()(torch.zeros(1, 1, 8, 8), mask_case())  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"target has shape \(2, 1, 8, 8\); expected that of the mask, \(2, 1, 16, 2"):
        HiGMISGeneratorLoss()(output_case(), mask_case((8, 8)))
    with pytest.raises(InputError, match="kind is 'mine'"):
        supervision_targets(mask_case(), "lesion", "mine")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"the mask has shape \(2, 3, 8, 8\); expected \(B, 1, H, W\)"):
        supervision_targets(torch.zeros(2, 3, 8, 8))
