"""Our losses and scores against those that the code of the two papers computed (TensorFlow)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from msrf_monai.losses import BatchDiceBCELoss, ImageDiceBCELoss
from msrf_monai.metrics import BatchPooledScore, batch_pooled_dice, confusion, dice, macro_dsc

TOLERANCE = 1e-5  # of the fixtures' description


@pytest.fixture(scope="module")
def fixture_root(parity_root: Path) -> Path:
    return parity_root / "ssr"


def tensors(arrays: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and masks, (B, 1, H, W); the logits in float64, so that only the loss rounds."""
    p, t = (torch.from_numpy(arrays[key].astype(np.float64)).permute(0, 3, 1, 2) for key in ("p", "t"))
    return torch.logit(p), t


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("clip", [None, 1e-7])
@pytest.mark.parametrize(
    ("file", "kind", "key"),
    [
        ("losses_ssr_repo.npz", BatchDiceBCELoss, "dice_loss_batch"),
        ("losses_mfr_repo.npz", ImageDiceBCELoss, "dice_loss_persample"),
    ],
)
def test_losses_equal_the_originals(
    fixture_root: Path, file: str, kind: Any, key: str, clip: float | None, dtype: torch.dtype
) -> None:
    arrays = np.load(fixture_root / file)
    logits, truth = tensors(arrays)
    loss = kind(clip=clip)

    terms = loss.terms(logits.to(dtype), truth.to(dtype))

    assert terms["cross_entropy"].item() == pytest.approx(float(arrays["bce"]), abs=TOLERANCE)
    assert terms["dice"].item() == pytest.approx(float(arrays[key]), abs=TOLERANCE)
    total = loss(logits.to(dtype), truth.to(dtype)).item()
    assert total == pytest.approx(float(arrays["weighted"]), abs=TOLERANCE)


def test_dice_pooled_over_a_batch_equals_the_originals(fixture_root: Path) -> None:
    arrays = np.load(fixture_root / "losses_ssr_repo.npz")
    logits, truth = tensors(arrays)
    expected = float(arrays["dice_metric_batch"])

    metric = BatchPooledScore("dice")
    metric(y_pred=logits >= 0, y=truth)

    assert batch_pooled_dice(confusion(logits >= 0, truth)).item() == pytest.approx(expected, abs=TOLERANCE)
    assert metric.aggregate().item() == pytest.approx(expected, abs=TOLERANCE)


def test_dice_of_each_image_equals_the_originals_also_where_the_mask_is_empty(fixture_root: Path) -> None:
    arrays = np.load(fixture_root / "losses_mfr_repo.npz")
    logits, truth = tensors(arrays)
    assert (truth.flatten(1).sum(1) == 0).any()

    counts = confusion(logits >= 0, truth)

    np.testing.assert_allclose(dice(counts).numpy(), arrays["dice_metric_persample"], atol=TOLERANCE)
    assert macro_dsc(counts).item() == pytest.approx(float(arrays["dice_metric_persample"].mean()), abs=TOLERANCE)
