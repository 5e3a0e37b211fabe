"""The vessel loss against formulas written in NumPy, against MONAI's losses, and in its gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.handlers import ParamSchedulerHandler
from monai.losses import DiceLoss, SoftclDiceLoss

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.losses import VesselLoss

LOG2 = math.log(2)


def case(batch: int = 3, size: tuple[int, int] = (24, 20)) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and masks with very different shares of vessels."""
    generator = torch.Generator().manual_seed(5)
    target = torch.zeros(batch, 1, *size)
    for k in range(batch):
        target[k, :, :, 3 : 5 + 4 * k] = 1
        target[k, :, 6:9] = 1
    return 2 * torch.randn(target.shape, generator=generator), target


def soft_dice(p: np.ndarray, y: np.ndarray) -> float:
    return float((2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1))


def entropy(p: np.ndarray, y: np.ndarray) -> float:
    return float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())


def numbers() -> tuple[np.ndarray, np.ndarray]:
    logits, target = case()
    return torch.sigmoid(logits.double()).numpy(), target.double().numpy()


@pytest.mark.parametrize("weights", [(0.5, 0.5), (1.0, 0.0), (0.0, 1.0), (0.3, 2.0)])
def test_it_is_cross_entropy_and_the_dice_of_the_whole_batch(weights: tuple[float, float]) -> None:
    p, y = numbers()

    loss = VesselLoss(*weights)(*case())

    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(weights[0] * entropy(p, y) + weights[1] * (1 - soft_dice(p, y)), rel=1e-5)


def test_dice_of_each_image_is_the_mean_of_their_own() -> None:
    p, y = numbers()
    of_images = np.mean([soft_dice(one, other) for one, other in zip(p, y, strict=True)])
    assert abs(soft_dice(p, y) - of_images) > 0.01

    assert VesselLoss(0, 1, batch=False)(*case()).item() == pytest.approx(1 - of_images, rel=1e-5)


def test_parts_are_those_of_monai() -> None:
    logits, target = case()
    p = torch.sigmoid(logits)
    for batch in (True, False):
        expected = DiceLoss(batch=batch, smooth_nr=1, smooth_dr=1)(p, target)
        torch.testing.assert_close(VesselLoss(0, 1, batch=batch)(logits, target), expected)
    torch.testing.assert_close(VesselLoss(0, 0, 1, iterations=4)(logits, target), SoftclDiceLoss(iter_=4)(p, target))


def test_the_weighted_parts_add_up() -> None:
    parts = [VesselLoss(*weights)(*case()).item() for weights in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]

    whole = VesselLoss(0.2, 0.5, 0.3)(*case()).item()

    assert whole == pytest.approx(0.2 * parts[0] + 0.5 * parts[1] + 0.3 * parts[2], rel=1e-6)


@pytest.mark.parametrize("cldice", [0.0, 0.3])
def test_with_dice_of_each_image_the_loss_does_not_depend_on_the_division_of_a_batch(cldice: float) -> None:
    logits, target = case(batch=4)
    for batch, is_independent in ((False, True), (True, False)):
        loss = VesselLoss(0.5, 0.5, cldice, batch=batch)
        parts = sum(loss(logits[k : k + 2], target[k : k + 2]).item() for k in (0, 2)) / 2
        assert (loss(logits, target).item() == pytest.approx(parts, rel=1e-5)) is is_independent


def test_undecided_logits_have_the_loss_of_the_closed_form() -> None:
    target = torch.zeros(2, 1, 10, 10)
    target[0, :, :4] = 1  # 40 of 200 pixels: Dice (40 + 1) / (100 + 40 + 1)
    assert VesselLoss()(torch.zeros_like(target), target).item() == pytest.approx(0.5 * LOG2 + 0.5 * (1 - 41 / 141))


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_a_perfect_prediction_costs_nothing(fill: float) -> None:
    target = torch.full((2, 1, 16, 12), fill)
    assert VesselLoss(0.4, 0.4, 0.2)(400 * target - 200, target).item() == pytest.approx(0, abs=2e-5)


def test_centre_lines_are_rewarded_for_having_no_gap() -> None:
    target = torch.zeros(1, 1, 32, 48)
    target[:, :, 14:17] = 1
    broken, thin = target.clone(), target.clone()
    broken[..., 23:25] = 0  # 6 pixels less, in a gap
    thin[..., 14, 20:26] = 0  # 6 pixels less, at the rim
    for weights, tells_apart in (((0, 1, 0), False), ((0, 0, 1), True)):
        costs = [VesselLoss(*weights)(40 * mask - 20, target).item() for mask in (broken, thin)]
        assert (costs[0] > costs[1] + 1e-3) is tells_apart


def test_the_gradient_of_cldice_flows_through_one_channel() -> None:
    logits, target = case()
    logits.requires_grad_()

    VesselLoss(0, 0, 1)(logits, target).backward()

    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad != 0).float().mean() > 0.05


def test_gradients_are_finite_at_extreme_logits() -> None:
    _, target = case()
    for sign in (-1, 1):
        logits = torch.full_like(target, sign * 1e4, requires_grad=True)
        loss = VesselLoss(0.4, 0.4, 0.2)(logits, target)
        loss.backward()
        assert torch.isfinite(loss)
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()


def test_soft_targets_are_taken_as_they_are() -> None:
    logits, target = case()
    target = 0.1 + 0.8 * target
    p, y = torch.sigmoid(logits.double()).numpy(), target.double().numpy()
    expected = 0.5 * entropy(p, y) + 0.5 * (1 - soft_dice(p, y))
    assert VesselLoss()(logits, target).item() == pytest.approx(expected, rel=1e-5)


def test_half_precision_is_computed_in_single_precision() -> None:
    logits, target = case()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = VesselLoss(0.4, 0.4, 0.2)(logits.bfloat16(), target.to(torch.uint8))
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, VesselLoss(0.4, 0.4, 0.2)(logits.bfloat16().float(), target))


def test_tensors_with_metadata_give_a_plain_loss() -> None:
    logits, target = case()
    loss = VesselLoss(cldice_weight=0.1)(MetaTensor(logits), MetaTensor(target))
    assert type(loss) is torch.Tensor
    assert loss.item() == VesselLoss(cldice_weight=0.1)(logits, target).item()


def test_the_weight_of_cldice_can_change_during_training() -> None:
    loss = VesselLoss()
    without = loss(*case()).item()
    loss.set_cldice_weight(0.3)
    assert loss(*case()).item() == pytest.approx(without + 0.3 * VesselLoss(0, 0, 1)(*case()).item(), rel=1e-5)
    loss.set_cldice_weight(0)
    assert loss(*case()).item() == without


def test_monais_scheduler_raises_the_weight_after_some_epochs() -> None:
    from ignite.engine import Engine, Events

    loss, weights = VesselLoss(), []
    settings = {"initial_value": 0.0, "step_constant": 2, "step_max_value": 4, "max_value": 0.3}
    engine = Engine(lambda engine, batch: None)
    handler = ParamSchedulerHandler(
        loss.set_cldice_weight, "linear", settings, epoch_level=True, event=Events.EPOCH_STARTED
    )
    handler.attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: weights.append(loss.cldice_weight))

    engine.run([0], max_epochs=6)

    assert weights == pytest.approx([0, 0, 0.15, 0.3, 0.3, 0.3])


@pytest.mark.parametrize("weights", [(0, 0, 0), (-0.1, 1, 0), (1, -1, 0), (1, 1, -1)])
def test_weights_that_make_no_loss_are_refused(weights: Any) -> None:
    with pytest.raises(ConfigError, match="expected none below 0 and one above"):
        VesselLoss(*weights)


def test_other_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="iterations is 0; expected 1 or more"):
        VesselLoss(iterations=0)
    with pytest.raises(ConfigError, match=r"weight of the clDice loss is -0\.5; expected 0 or more"):
        VesselLoss().set_cldice_weight(-0.5)


@pytest.mark.parametrize(
    ("of_logits", "of_target"),
    [((2, 1, 8, 8), (2, 1, 8, 9)), ((2, 2, 8, 8), (2, 2, 8, 8)), ((1, 8, 8), (1, 8, 8)), ((2, 1, 8, 8), (2, 8, 8))],
)
def test_shapes_that_do_not_fit_are_refused(of_logits: tuple[int, ...], of_target: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(B, 1, H, W\) for both"):
        VesselLoss()(torch.zeros(of_logits), torch.zeros(of_target))


def test_a_configuration_builds_it_by_its_dotted_name() -> None:
    config = {"loss": {"_target_": "msrf_monai.losses.VesselLoss", "bce_weight": 0.0, "dice_weight": 1.0}}
    loss = ConfigParser(config).get_parsed_content("loss")
    assert isinstance(loss, VesselLoss)
    assert (loss.bce_weight, loss.dice_weight, loss.cldice_weight) == (0.0, 1.0, 0.0)
