"""The losses of the recalibrated networks against formulas written in NumPy, at their edges, and in their gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from msrf_monai.errors import InputError
from msrf_monai.losses import BatchDiceBCELoss, ImageDiceBCELoss

BOTH = [BatchDiceBCELoss, ImageDiceBCELoss]
HALF_LOG = 0.5 * math.log(2)


def case(
    batch: int = 3, classes: int = 1, size: tuple[int, ...] = (12, 20), dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and masks of very different areas."""
    generator = torch.Generator().manual_seed(4)
    logits = 2 * torch.randn(batch, classes, *size, generator=generator, dtype=dtype)
    share = torch.linspace(0.05, 0.8, batch).reshape(-1, *[1] * (len(size) + 1))
    return logits, (torch.rand(batch, classes, *size, generator=generator) < share).to(dtype)


def soft_dice(p: np.ndarray, y: np.ndarray) -> float:
    return float((2 * (p * y).sum() + 1e-12) / (p.sum() + y.sum() + 1e-12))


def entropy(p: np.ndarray, y: np.ndarray) -> float:
    return float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())


@pytest.mark.parametrize("size", [(12, 20), (5, 6, 7)])
def test_losses_equal_the_formula_of_the_specification(size: tuple[int, ...]) -> None:
    logits, truth = case(size=size)
    p, y = torch.sigmoid(logits).numpy(), truth.numpy()
    pooled = soft_dice(p, y)
    of_images = np.mean([soft_dice(one, other) for one, other in zip(p, y, strict=True)])
    assert abs(pooled - of_images) > 0.05

    batch, image = BatchDiceBCELoss()(logits, truth), ImageDiceBCELoss()(logits, truth)

    assert batch.item() == pytest.approx(0.5 * entropy(p, y) + 0.5 * (1 - pooled), rel=1e-9)
    assert image.item() == pytest.approx(0.5 * entropy(p, y) + 0.5 * (1 - of_images), rel=1e-9)


def test_masks_between_0_and_1_are_taken_as_they_are() -> None:
    logits, truth = case()
    truth = truth * 0.97 + 0.01
    p, y = torch.sigmoid(logits).numpy(), truth.numpy()
    expected = 0.5 * entropy(p, y) + 0.5 * (1 - soft_dice(p, y))
    assert BatchDiceBCELoss()(logits, truth).item() == pytest.approx(expected, rel=1e-9)


def test_only_the_loss_of_each_image_is_the_mean_over_the_parts_of_a_batch() -> None:
    logits, truth = case(batch=4)
    for loss, is_invariant in ((ImageDiceBCELoss(), True), (BatchDiceBCELoss(), False)):
        parts = sum(loss(logits[k : k + 2], truth[k : k + 2]).item() for k in (0, 2)) / 2
        assert (loss(logits, truth).item() == pytest.approx(parts, rel=1e-9)) is is_invariant


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_a_perfect_prediction_costs_nothing(kind: Any, fill: float) -> None:
    truth = torch.full((2, 1, 8, 8), fill)
    assert kind()(torch.full_like(truth, 200.0 if fill else -200.0), truth).item() == 0.0
    _, mixed = case(dtype=torch.float32)
    assert kind()(400 * mixed - 200, mixed).item() == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("kind", BOTH)
def test_undecided_logits_on_an_empty_mask_cost_half_of_log_2_and_a_half(kind: Any) -> None:
    loss = kind()(torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8))
    assert loss.item() == pytest.approx(HALF_LOG + 0.5, rel=1e-6)


def test_an_empty_mask_among_others_costs_its_image_alone() -> None:
    truth = torch.zeros(2, 1, 8, 8)
    truth[0, :, :4] = 1
    logits = torch.zeros_like(truth)
    # Images: Dice 2·16/(32+32) = 1/2, and 0; together 2·16/(64+32) = 1/3.
    assert ImageDiceBCELoss()(logits, truth).item() == pytest.approx(HALF_LOG + 0.5 * 0.75, rel=1e-6)
    assert BatchDiceBCELoss()(logits, truth).item() == pytest.approx(HALF_LOG + 0.5 * 2 / 3, rel=1e-6)


def classes_case() -> tuple[torch.Tensor, torch.Tensor]:
    logits, _ = case(classes=3)
    labels = torch.randint(0, 3, (3, 12, 20), generator=torch.Generator().manual_seed(1))
    return logits, torch.nn.functional.one_hot(labels).movedim(-1, 1).double()


@pytest.mark.parametrize("first", [0, 1])
def test_softmax_equals_cross_entropy_plus_dice_of_each_class(first: int) -> None:
    logits, truth = classes_case()
    p, y = torch.softmax(logits, dim=1).numpy(), truth.numpy()
    cross = torch.nn.functional.cross_entropy(logits, truth.argmax(1)).item()
    pooled = np.mean([soft_dice(p[:, k], y[:, k]) for k in range(first, 3)])
    of_images = np.mean([soft_dice(p[i, k], y[i, k]) for i in range(3) for k in range(first, 3)])

    for kind, dice in ((BatchDiceBCELoss, pooled), (ImageDiceBCELoss, of_images)):
        loss = kind(activation="softmax", include_background=first == 0)(logits, truth)
        assert loss.item() == pytest.approx(0.5 * cross + 0.5 * (1 - dice), rel=1e-9)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("clip", [None, 1e-3])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_gradient_is_right(kind: Any, activation: Any, clip: float | None) -> None:
    logits, truth = case(size=(4, 5)) if activation == "sigmoid" else classes_case()
    logits, truth = logits[:2, :, :4, :5].clone().requires_grad_(), truth[:2, :, :4, :5]
    assert torch.autograd.gradcheck(lambda x: kind(activation=activation, clip=clip)(x, truth), logits)


@pytest.mark.parametrize("kind", BOTH)
def test_clipping_limits_the_cost_of_a_sure_error_and_takes_its_gradient(kind: Any) -> None:
    logits = torch.full((1, 1, 4, 4), 40.0, requires_grad=True)
    truth = torch.zeros(1, 1, 4, 4)
    stable, clipped = kind().terms(logits, truth), kind(clip=1e-7).terms(logits, truth)
    assert stable["cross_entropy"].item() == pytest.approx(40.0)
    assert clipped["cross_entropy"].item() == pytest.approx(-math.log(1e-7), rel=1e-6)
    assert torch.autograd.grad(stable["cross_entropy"], logits)[0].sum().item() == pytest.approx(1.0)
    assert torch.autograd.grad(clipped["cross_entropy"], logits)[0].abs().max() == 0


def test_clipping_of_classes_equals_the_formula() -> None:
    logits, truth = classes_case()
    logits = 5 * logits
    p = torch.softmax(logits, dim=1).numpy().clip(1e-3, 1 - 1e-3)
    found = BatchDiceBCELoss(activation="softmax", clip=1e-3).terms(logits, truth)["cross_entropy"]
    assert found.item() == pytest.approx(-(truth.numpy() * np.log(p)).sum(1).mean(), rel=1e-9)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_autocast_changes_nothing(kind: Any, activation: Any) -> None:
    logits, truth = classes_case()
    expected = kind(activation=activation)(logits.bfloat16().float(), truth.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = kind(activation=activation)(logits.bfloat16(), truth.bfloat16())
    assert found.dtype == torch.float32
    assert found.item() == expected.item()


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("value", [-1e4, -28.0, -20.0, 1e4])
def test_gradients_stay_finite_for_extreme_logits_on_an_empty_mask(kind: Any, value: float) -> None:
    logits = torch.full((2, 1, 8, 8), value, requires_grad=True)
    kind()(logits, torch.zeros(2, 1, 8, 8)).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_image_tensors_of_monai_give_a_plain_scalar() -> None:
    logits, truth = case()
    found = ImageDiceBCELoss()(MetaTensor(logits), MetaTensor(truth))
    assert type(found) is torch.Tensor
    assert found.item() == ImageDiceBCELoss()(logits, truth).item()


@pytest.mark.parametrize("kind", BOTH)
def test_wrong_arguments_are_named(kind: Any) -> None:
    with pytest.raises(InputError, match="activation is 'relu'; expected one of"):
        kind(activation="relu")
    for clip in (0.0, 0.5, math.nan):
        with pytest.raises(InputError, match=r"clip is .*; expected a number between 0 and 0\.5"):
            kind(clip=clip)
    with pytest.raises(InputError, match=r"logits have shape \(2, 1, 8, 8\) and the target \(2, 8, 8\)"):
        kind()(torch.zeros(2, 1, 8, 8), torch.zeros(2, 8, 8))
    with pytest.raises(InputError, match="expected one shape"):
        kind()(torch.zeros(2, 1), torch.zeros(2, 1))
