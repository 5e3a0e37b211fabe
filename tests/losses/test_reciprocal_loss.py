"""The reciprocal loss against its formula in NumPy, SSIM of other libraries, and by its gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.losses import SSIMLoss
from skimage.metrics import structural_similarity

from msrf_monai.errors import InputError
from msrf_monai.losses import ReciprocalLoss
from msrf_monai.networks import HiGMISNet


def case(dtype: torch.dtype = torch.float64, size: tuple[int, int] = (24, 31)) -> dict[str, torch.Tensor]:
    """Images, blocks as masks, and probabilities that are partly wrong."""
    generator = torch.Generator().manual_seed(4)
    mask = torch.zeros(2, 1, *size, dtype=dtype)
    mask[0, :, 5:15, 8:20] = 1
    mask[1, :, 2:20, 3:9] = 1
    noise = torch.rand(2, 2, *size, generator=generator, dtype=dtype)
    return {
        "lesion": 0.6 * mask + 0.4 * noise[:, :1],
        "background": 0.7 * (1 - mask) + 0.3 * noise[:, 1:],
        "image": torch.rand(2, 3, *size, generator=generator, dtype=dtype),
        "mask": mask,
    }


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over whole windows only, as scikit-image computes before it fills up the border."""
    values = []
    for x, y in zip(first.reshape(-1, *first.shape[2:]), second.reshape(-1, *second.shape[2:]), strict=True):
        _, full = structural_similarity(
            x, y, gaussian_weights=True, sigma=1.5, truncate=3.5, use_sample_covariance=False, data_range=1, full=True
        )
        values.append(full[5:-5, 5:-5].mean())
    return float(np.mean(values))


def formula(p: np.ndarray, q: np.ndarray, not_q: np.ndarray, image: np.ndarray, mask: np.ndarray) -> list[float]:
    shown = image * (p + q - p * q)
    agreed = p * not_q
    square = ((image - shown) ** 2).mean()
    edges = 0.0
    for axis in (2, 3):
        total = np.abs(np.diff(mask, axis=axis)).sum() - np.abs(np.diff(agreed, axis=axis)).sum()
        edges += abs(total) / mask.size
    return [0.6 * square - 0.4 * math.log(ssim(image, shown)), np.abs(mask - agreed).mean(), edges]


@pytest.mark.parametrize("form", ["soft", "hard"])
def test_loss_equals_the_formula(form: Any) -> None:
    inputs = case()
    arrays = {name: value.numpy() for name, value in inputs.items()}
    p, q = arrays["lesion"], arrays["background"]
    p, q, not_q = (np.round(p), np.round(q), np.round(1 - q)) if form == "hard" else (p, q, 1 - q)
    expected = formula(p, q, not_q, arrays["image"], arrays["mask"])

    loss = ReciprocalLoss(form)
    assert [term.item() for term in loss.terms(**inputs).values()] == pytest.approx(expected, rel=1e-9)
    assert loss(**inputs).item() == pytest.approx(5 * expected[0] + 2 * expected[1] + 5 * expected[2], rel=1e-9)
    other = ReciprocalLoss(form, weights=(0, 1, 3))(**inputs)
    assert other.item() == pytest.approx(expected[1] + 3 * expected[2], rel=1e-9)


def test_similarity_is_monais() -> None:
    inputs = case(torch.float32)
    union = 1 - (1 - inputs["lesion"]) * (1 - inputs["background"])
    shown = inputs["image"] * union
    similarity = 1 - SSIMLoss(spatial_dims=2, data_range=1.0, win_size=11, kernel_sigma=1.5)(inputs["image"], shown)
    expected = 0.6 * (inputs["image"] - shown).square().mean() - 0.4 * similarity.log()
    assert ReciprocalLoss().terms(**inputs)["image"].item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("form", ["soft", "hard"])
@pytest.mark.parametrize("fill", [None, 0.0, 1.0])
def test_right_predictions_cost_nothing(form: Any, fill: float | None) -> None:
    inputs = case()
    mask = inputs["mask"] if fill is None else torch.full_like(inputs["mask"], fill)
    loss = ReciprocalLoss(form)(mask, 1 - mask, inputs["image"], mask)
    assert loss.item() == pytest.approx(0.0, abs=1e-12)


def test_forms_agree_on_decided_probabilities_and_wrong_ones_cost() -> None:
    inputs = case()
    inputs["lesion"], inputs["background"] = inputs["lesion"].round(), (1 - inputs["lesion"]).round().flip(2)
    soft, hard = (ReciprocalLoss(form)(**inputs).item() for form in ("soft", "hard"))  # type: ignore[arg-type]
    assert soft == hard > 0.1


def test_soft_form_has_the_right_gradient_and_reaches_both_predictions() -> None:
    inputs = case(size=(12, 13))
    p, q = inputs["lesion"].requires_grad_(), inputs["background"].requires_grad_()
    loss = ReciprocalLoss()
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, inputs["image"], inputs["mask"]), (p, q))
    gradients = torch.autograd.grad(loss(**inputs), (p, q))
    assert all(g.abs().min() > 0 for g in gradients)


def test_soft_form_trains_both_generators() -> None:
    pair = HiGMISNet(features=4, backbones=())
    image, mask = torch.rand(2, 3, 64, 64), (torch.rand(2, 1, 64, 64) > 0.7).float()
    outputs = pair(image)
    ReciprocalLoss()(outputs.lesion.mask, outputs.background.mask, image, mask).backward()
    for generator in (pair.lesion, pair.background):
        for part in (generator.head, generator.side.refine3, generator.encoder[0].convs.conv3):
            assert all(p.grad is not None and p.grad.isfinite().all() for p in part.parameters())
            assert sum(p.grad.abs().sum() for p in part.parameters()) > 0


def test_hard_form_has_no_gradient() -> None:
    inputs = case()
    p, q = inputs["lesion"].requires_grad_(), inputs["background"].requires_grad_()
    gradients = torch.autograd.grad(ReciprocalLoss("hard")(**inputs), (p, q))
    assert all(g.abs().max() == 0 for g in gradients)


@pytest.mark.parametrize("lesion", [0.0, 1.0])
@pytest.mark.parametrize("background", [0.0, 1.0])
def test_extreme_predictions_and_contrary_images_stay_finite(lesion: float, background: float) -> None:
    checker = (torch.arange(16)[:, None] + torch.arange(20)) % 2
    image = checker.float().expand(1, 3, 16, 20).clone()
    p, q = (torch.full((1, 1, 16, 20), v, requires_grad=True) for v in (lesion, background))
    for picture in (image, torch.zeros_like(image)):
        loss = ReciprocalLoss()(p, q, picture, torch.zeros(1, 1, 16, 20))
        gradients = torch.autograd.grad(loss, (p, q))
        assert torch.isfinite(loss)
        assert all(torch.isfinite(g).all() for g in gradients)


def test_half_precision_is_computed_in_single() -> None:
    inputs = {name: value.bfloat16() for name, value in case(torch.float32).items()}
    expected = ReciprocalLoss()(**{name: value.float() for name, value in inputs.items()})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ReciprocalLoss()(**inputs)
    assert found.dtype == torch.float32
    assert found.item() == expected.item()


def test_the_image_tensors_of_monai_give_a_plain_scalar() -> None:
    inputs = case()
    found = ReciprocalLoss()(**{name: MetaTensor(value) for name, value in inputs.items()})
    assert type(found) is torch.Tensor
    assert found.item() == ReciprocalLoss()(**inputs).item()


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(InputError, match="form is 'firm'; expected one of 'soft', 'hard'"):
        ReciprocalLoss("firm")  # type: ignore[arg-type]
    for weights in ((1, 2), (1, 2, -3), (1, 2, math.nan)):
        with pytest.raises(InputError, match="expected three numbers of at least 0"):
            ReciprocalLoss(weights=weights)
    inputs = case()
    with pytest.raises(InputError, match=r"shapes \(1, 1, 24, 31\), \(2, 1, 24, 31\), .* expected \(B, 1, H, W\)"):
        ReciprocalLoss()(**{**inputs, "lesion": inputs["lesion"][:1]})
    with pytest.raises(InputError, match=r"the image is \(10, 31\) pixels; the window of SSIM needs at least 11"):
        ReciprocalLoss()(**{name: value[:, :, :10] for name, value in inputs.items()})
