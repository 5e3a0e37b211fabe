"""Confidence intervals, and MONAI metrics around the pure functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.handlers import from_engine

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.metrics import (
    MacroScore,
    MacroScoreHandler,
    PooledScore,
    PooledScoreHandler,
    bootstrap_interval,
    confusion,
    macro_dsc,
    pooled_iou,
)


def test_the_interval_of_a_mean_equals_the_normal_one_for_many_values() -> None:
    values = np.random.default_rng(0).normal(0.8, 0.1, 4000)
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    low, high = bootstrap_interval(values, samples=4000)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_a_higher_confidence_is_wider_and_a_seed_repeats() -> None:
    values = np.random.default_rng(0).random(50)
    narrow, wide = (bootstrap_interval(values, confidence=confidence, seed=4) for confidence in (0.8, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert bootstrap_interval(values, seed=4) == bootstrap_interval(values, seed=4)
    assert bootstrap_interval(values, seed=4) != bootstrap_interval(values, seed=5)


def test_a_pooled_statistic_resamples_images_and_keeps_their_counts_together() -> None:
    parts = np.array([1.0, 50.0, 3.0, 80.0])
    wholes = np.array([2.0, 100.0, 6.0, 160.0])  # every image has the ratio 0.5, so every resample has

    def ratio(part: Any, whole: Any, axis: int) -> Any:
        return part.sum(axis) / whole.sum(axis)

    assert bootstrap_interval([parts, wholes], statistic=ratio) == (0.5, 0.5)


@pytest.mark.parametrize(("values", "expected"), [([0.7], 0.7), ([0.3, 0.3, 0.3], 0.3), ([np.nan, 0.2], 0.2)])
def test_images_that_are_all_alike_have_no_width(values: list[float], expected: float) -> None:
    assert bootstrap_interval(values) == (pytest.approx(expected), pytest.approx(expected))


def test_no_image_has_no_interval() -> None:
    assert np.isnan(bootstrap_interval([np.nan])).all()
    assert np.isnan(bootstrap_interval([])).all()


@pytest.mark.parametrize("arguments", [{"confidence": 0.0}, {"confidence": 1.0}, {"samples": 0}])
def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="confidence must be"):
        bootstrap_interval([1.0, 2.0], **arguments)


def test_a_block_of_numbers_is_refused() -> None:
    with pytest.raises(InputError, match="one or more arrays"):
        bootstrap_interval(np.zeros((2, 3, 4)))


def _batches() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(2)
    masks = (torch.rand(2, 5, 2, 8, 12, generator=generator) > 0.6).float()
    return [{"pred": masks[0, rows], "label": masks[1, rows]} for rows in (slice(0, 3), slice(3, 5))]


def test_metrics_do_not_depend_on_how_images_are_batched() -> None:
    batches = _batches()
    counts = confusion(
        torch.cat([batch["pred"][:, 1] for batch in batches]), torch.cat([batch["label"][:, 1] for batch in batches])
    )
    macro, pooled = MacroScore("dice", channel=1), PooledScore("iou", channel=1)
    for batch in batches:
        macro(y_pred=batch["pred"], y=batch["label"])
        pooled(y_pred=batch["pred"], y=batch["label"])
    assert float(macro.aggregate()) == pytest.approx(float(macro_dsc(counts)))
    assert float(pooled.aggregate()) == pytest.approx(float(pooled_iou(counts)))


def test_handlers_put_the_scores_among_the_engines_metrics() -> None:
    engine = Engine(lambda engine, batch: batch)
    transform = from_engine(["pred", "label"])
    MacroScoreHandler("dice", output_transform=transform).attach(engine, "macro")
    PooledScoreHandler("precision", output_transform=transform).attach(engine, "pooled")
    engine.run(_batches())
    batches = _batches()
    counts = confusion(
        torch.cat([batch["pred"][:, 0] for batch in batches]), torch.cat([batch["label"][:, 0] for batch in batches])
    )
    assert float(engine.state.metrics["macro"]) == pytest.approx(float(macro_dsc(counts)))
    assert float(engine.state.metrics["pooled"]) == pytest.approx(
        float(counts.tp.sum() / (counts.tp + counts.fp).sum())
    )


def test_unknown_scores_missing_truths_and_no_images_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"score must be one of dice, iou, precision, recall, accuracy, .*, got 'f2'"):
        MacroScore("f2")
    with pytest.raises(InputError, match="compares with the true mask"):
        MacroScore()(y_pred=torch.zeros(1, 1, 2, 2))
    metric = PooledScore()
    metric.reset()
    with pytest.raises(InputError, match="has seen no image"):
        metric.aggregate()
