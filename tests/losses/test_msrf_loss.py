"""The loss of MSRF-Net against formulas written in NumPy, at its edges, and in its gradients."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from msrf_monai.errors import InputError
from msrf_monai.losses import MSRFLoss, clipped_cross_entropy
from msrf_monai.networks import MSRFNetOutput


def outputs(
    batch: int = 2, classes: int = 1, size: tuple[int, int] = (12, 20), dtype: torch.dtype = torch.float32
) -> MSRFNetOutput:
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(batch, classes, *size, generator=generator, dtype=dtype)
    maps = [torch.rand(batch, c, *size, generator=generator, dtype=dtype) * 0.98 + 0.01 for c in (1, classes, classes)]
    return MSRFNetOutput(logits, *maps)


def target(batch: int = 2, size: tuple[int, int] = (12, 20)) -> torch.Tensor:
    mask = torch.zeros(batch, 1, *size)
    mask[:, :, 3:9, 4:15] = 1
    mask[0, :, 5:7, 6:9] = 0
    edge = torch.zeros(batch, 1, *size)
    edge[:, :, 3, 4:15] = 1
    return torch.cat([mask, edge], dim=1)


def formula(p: np.ndarray, y: np.ndarray) -> float:
    """Cross-entropy of clipped probabilities and the smoothed Dice loss over the whole batch."""
    clipped = np.clip(p, 1e-7, 1 - 1e-7)
    entropy = -(y * np.log(clipped) + (1 - y) * np.log(1 - clipped)).mean()
    return float(entropy + 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1))


def test_terms_equal_the_formula_of_the_specification() -> None:
    out, truth = outputs(dtype=torch.float64), target().double()
    mask, edge = truth[:, :1].numpy(), truth[:, 1:].numpy()
    terms = MSRFLoss().terms(out, truth)
    assert terms["mask"].item() == pytest.approx(formula(torch.sigmoid(out.mask).numpy(), mask), rel=1e-6)
    assert terms["half"].item() == pytest.approx(formula(out.half.numpy(), mask), rel=1e-6)
    assert terms["quarter"].item() == pytest.approx(formula(out.quarter.numpy(), mask), rel=1e-6)
    e = out.edge.numpy()
    assert terms["edge"].item() == pytest.approx(-(edge * np.log(e) + (1 - edge) * np.log(1 - e)).mean(), rel=1e-6)


@pytest.mark.parametrize("weights", [(2, 1, 1, 1), (1, 1, 1, 1), (0, 3, 0, 0.5)])
def test_total_is_the_weighted_sum(weights: tuple[float, ...]) -> None:
    loss, out, truth = MSRFLoss(weights=weights), outputs(), target()
    expected = sum(w * t.item() for w, t in zip(weights, loss.terms(out, truth).values(), strict=True))
    assert loss(out, truth).item() == pytest.approx(expected, rel=1e-6)


def test_edges_come_from_the_mask_when_the_target_has_none() -> None:
    out, truth = outputs(), target()
    mask = truth[:, :1]
    # The batch is in MONAI's axis order for files (B, C, W, H); OpenCV wants rows first.
    edges = [cv2.Canny((m[0].numpy().T * 255).astype(np.uint8), 10, 1000).T / 255 for m in mask]
    with_edges = torch.cat([mask, torch.from_numpy(np.stack(edges)).float()[:, None]], dim=1)
    assert with_edges[:, 1].any()
    assert MSRFLoss()(out, mask).item() == pytest.approx(MSRFLoss()(out, with_edges).item(), rel=1e-6)


def test_dice_over_each_image_does_not_depend_on_how_the_batch_is_split() -> None:
    out, truth = outputs(batch=4), target(batch=4)
    truth[3, 0] = 0
    halves = [MSRFNetOutput(*(t[k : k + 2] for t in out)) for k in (0, 2)]
    for batch, is_invariant in ((False, True), (True, False)):
        loss = MSRFLoss(batch=batch)
        split = sum(loss(h, truth[k : k + 2]).item() for h, k in zip(halves, (0, 2), strict=True)) / 2
        assert (loss(out, truth).item() == pytest.approx(split, rel=1e-5)) is is_invariant


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_gradient_is_right(activation: Any) -> None:
    classes = 1 if activation == "sigmoid" else 3
    out = outputs(batch=2, classes=classes, size=(4, 5), dtype=torch.float64)
    truth = torch.nn.functional.one_hot(torch.randint(0, max(classes, 2), (2, 4, 5))).movedim(-1, 1).double()
    truth = torch.cat([truth[:, :classes], torch.randint(0, 2, (2, 1, 4, 5)).double()], dim=1)
    loss = MSRFLoss(activation=activation)
    leaves = tuple(t.clone().requires_grad_() for t in out)
    assert torch.autograd.gradcheck(lambda *maps: loss(MSRFNetOutput(*maps), truth), leaves)


def test_softmax_equals_cross_entropy_plus_dice_per_class() -> None:
    out = outputs(classes=3, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 12, 20))
    one_hot = torch.nn.functional.one_hot(labels).movedim(-1, 1).double()
    truth = torch.cat([one_hot, torch.zeros(2, 1, 12, 20)], dim=1)
    p = torch.softmax(out.mask, dim=1)
    dice = [1 - (2 * (p[:, k] * one_hot[:, k]).sum() + 1) / (p[:, k].sum() + one_hot[:, k].sum() + 1) for k in range(3)]
    expected = torch.nn.functional.nll_loss(p.log(), labels) + torch.stack(dice).mean()
    assert MSRFLoss(activation="softmax").terms(out, truth)["mask"].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_empty_and_full_masks_are_finite_and_a_perfect_answer_costs_nothing(fill: float) -> None:
    truth = torch.cat([torch.full((2, 1, 8, 8), fill), torch.zeros(2, 1, 8, 8)], dim=1)
    sure = torch.full((2, 1, 8, 8), 40.0 if fill else -40.0)
    perfect = MSRFNetOutput(sure, torch.zeros(2, 1, 8, 8), truth[:, :1], truth[:, :1])
    assert MSRFLoss()(perfect, truth).item() == pytest.approx(0.0, abs=1e-4)
    wrong = MSRFNetOutput(-sure, torch.ones(2, 1, 8, 8), 1 - truth[:, :1], 1 - truth[:, :1])
    assert math.isfinite(MSRFLoss()(wrong, truth).item())


def test_confident_errors_cost_what_clipping_allows() -> None:
    p, y = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert clipped_cross_entropy(p, y).item() == pytest.approx(-math.log(1e-7), rel=1e-6)


def test_nan_comes_through_so_that_a_guard_can_name_the_batch() -> None:
    out = outputs()
    for name in out._fields:
        spoilt = out._replace(**{name: torch.full_like(getattr(out, name), math.nan)})
        assert math.isnan(MSRFLoss()(spoilt, target()).item()), name


def test_half_precision_is_computed_in_float32() -> None:
    out, truth = outputs(), target()
    halves = MSRFNetOutput(*(t.to(torch.bfloat16) for t in out))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = MSRFLoss()(halves, truth)
    assert value.dtype == torch.float32
    expected = MSRFLoss()(MSRFNetOutput(*(t.float() for t in halves)), truth)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"weights": (1, 1, 1)}, "four numbers"),
        ({"weights": (1, -1, 1, 1)}, "at least 0"),
        ({"activation": "tanh"}, "'sigmoid', 'softmax'"),
    ],
)
def test_wrong_settings_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        MSRFLoss(**arguments)


def test_wrong_inputs_are_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match="forward_all"):
        MSRFLoss()(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"target has shape \(2, 1, 8, 8\); expected \(2, 1, 12, 20\)"):
        MSRFLoss()(outputs(), torch.zeros(2, 1, 8, 8))
