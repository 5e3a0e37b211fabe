"""The averages of the singularity-strength papers against scikit-learn, closed forms, and Keras' own definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import from_engine
from sklearn.metrics import accuracy_score, auc, f1_score, jaccard_score, recall_score, roc_auc_score

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.metrics import (
    BatchPooledScore,
    BatchPooledScoreHandler,
    Confusion,
    KerasAUC,
    KerasAUCHandler,
    MacroScore,
    PooledScore,
    PooledScoreHandler,
    accuracy,
    batch_pooled,
    batch_pooled_dice,
    confusion,
    dice,
    exact_auc,
    iou,
    keras_auc,
    macro_dsc,
    mean_iou,
    pooled_accuracy,
    pooled_dice,
    pooled_iou,
    pooled_mean_iou,
    pooled_specificity,
    specificity,
)

EMPTY, FULL = torch.zeros(1, 3, 5), torch.ones(1, 3, 5)


def masks(count: int = 37) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    share = torch.linspace(0.02, 0.9, count)[:, None, None]
    label = torch.rand(count, 9, 14, generator=generator) < share
    return label ^ (torch.rand(count, 9, 14, generator=generator) < 0.5 - 0.4 * share), label


def pixels(*images: torch.Tensor) -> list[np.ndarray]:
    return [one.flatten().numpy() for one in images]


def test_scores_with_the_background_equal_scikit_learns() -> None:
    pred, label = masks()
    counts = confusion(pred, label)
    for index in range(len(pred)):
        one, other = pixels(label[index], pred[index])
        assert float(accuracy(counts)[index]) == pytest.approx(accuracy_score(one, other), abs=1e-12)
        assert float(specificity(counts)[index]) == pytest.approx(recall_score(one, other, pos_label=0), abs=1e-12)
        assert float(mean_iou(counts)[index]) == pytest.approx(jaccard_score(one, other, average="macro"), abs=1e-12)
    one, other = pixels(label, pred)
    assert float(pooled_accuracy(counts)) == pytest.approx(accuracy_score(one, other))
    assert float(pooled_specificity(counts)) == pytest.approx(recall_score(one, other, pos_label=0))
    assert float(pooled_mean_iou(counts)) == pytest.approx(jaccard_score(one, other, average="macro"))


@pytest.mark.parametrize("batch_size", [1, 5, 16, 32, 37, 100])
def test_batch_pooled_dice_is_the_mean_of_the_batches_f1_with_the_last_one_counting_the_same(batch_size: int) -> None:
    pred, label = masks()
    batches = [slice(start, start + batch_size) for start in range(0, len(pred), batch_size)]
    expected = np.mean([f1_score(*pixels(label[batch], pred[batch])) for batch in batches])

    assert float(batch_pooled_dice(confusion(pred, label), batch_size=batch_size)) == pytest.approx(expected)


def test_batches_are_of_sixteen_unless_said_otherwise_and_differ_from_the_other_averages() -> None:
    counts = confusion(*masks())
    assert torch.equal(batch_pooled_dice(counts), batch_pooled(counts, "dice", batch_size=16))
    assert torch.equal(batch_pooled_dice(counts, batch_size=1), macro_dsc(counts))
    assert torch.equal(batch_pooled_dice(counts, batch_size=37), pooled_dice(counts))
    for other in (macro_dsc(counts), pooled_dice(counts)):
        assert abs(float(batch_pooled_dice(counts)) - float(other)) > 5e-3


def test_specificity_of_batches_equals_scikit_learns() -> None:
    pred, label = masks()
    expected = np.mean(
        [recall_score(*pixels(label[k : k + 16], pred[k : k + 16]), pos_label=0) for k in range(0, 37, 16)]
    )
    assert float(batch_pooled(confusion(pred, label), "specificity")) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("pred", "label", "expected"),
    [
        (EMPTY, EMPTY, (1.0, 1.0, 1.0, 1.0, 1.0)),  # nothing there, nothing found
        (FULL, EMPTY, (0.0, 0.0, 0.0, 0.0, 0.0)),
        (EMPTY, FULL, (0.0, 0.0, 0.0, 0.0, 0.0)),  # specificity: no background there, but background found
        (FULL, FULL, (1.0, 1.0, 1.0, 1.0, 1.0)),
    ],
)
def test_empty_and_full_masks_follow_the_convention(
    pred: torch.Tensor, label: torch.Tensor, expected: tuple[float, ...]
) -> None:
    counts = confusion(pred, label)
    assert tuple(float(score(counts)) for score in (dice, iou, accuracy, specificity, mean_iou)) == expected


def test_an_empty_truth_counts_1_only_with_an_empty_prediction_and_is_diluted_in_a_batch() -> None:
    label, pred = torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)
    label[0, :2], pred[0, :2] = 1, 1  # found; the second image is rightly left empty
    pred[2, 0, :2] = 1  # 2 pixels where there is nothing
    counts = confusion(pred, label)
    assert dice(counts).tolist() == [1.0, 1.0, 0.0]
    assert float(batch_pooled_dice(counts)) == pytest.approx(2 * 8 / (10 + 8))
    assert float(batch_pooled_dice(counts, batch_size=2)) == pytest.approx((1.0 + 0.0) / 2)


def case(count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities with ties, zeros and ones, and labels that they tell of."""
    generator = torch.Generator().manual_seed(5)
    label = torch.rand(count, 2, 13, 17, generator=generator) < 0.3
    noise = torch.randn(label.shape, generator=generator)
    probabilities = torch.sigmoid(2 * noise + 3 * label - 2)
    probabilities[:, :, :4] = (probabilities[:, :, :4] * 8).round() / 8
    return probabilities, label


def test_exact_area_equals_scikit_learns_also_with_ties() -> None:
    probabilities, label = case()
    assert len(probabilities.unique()) < probabilities.numel()
    expected = roc_auc_score(*pixels(label, probabilities))
    assert float(exact_auc(probabilities, label)) == pytest.approx(expected, abs=1e-12)
    assert float(exact_auc(probabilities.double().logit().clamp(-50, 50), label.int())) == pytest.approx(expected)


@pytest.mark.parametrize("thresholds", [2, 3, 50, 200])
def test_keras_area_is_the_one_below_the_polygon_through_its_thresholds(thresholds: int) -> None:
    probabilities, label = case()
    true, p = pixels(label, probabilities)
    between = (np.arange(thresholds - 2) + 1) / (thresholds - 1)
    levels = np.concatenate([[-1e-7], between, [1 + 1e-7]])  # as Keras spaces them
    rates = [[(p[side] > level).mean() for level in levels] for side in (~true, true)]

    assert float(keras_auc(probabilities, label, thresholds=thresholds)) == pytest.approx(auc(*rates), abs=1e-12)


def test_a_sure_network_gets_less_from_keras_thresholds_than_it_deserves() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.rand(100_000, generator=generator) < 0.3
    logits = 6 * torch.randn(100_000, generator=generator) + torch.where(label, 9.0, -9.0)
    assert float(exact_auc(logits, label)) == pytest.approx(0.983, abs=1e-3)
    assert float(keras_auc(torch.sigmoid(logits), label)) == pytest.approx(0.979, abs=1e-3)


@pytest.mark.parametrize("area", [exact_auc, keras_auc])
def test_areas_of_perfect_reversed_and_blind_scores_are_1_0_and_a_half(area: Any) -> None:
    label = torch.tensor([0, 0, 1, 1])
    scores = torch.tensor([0.0, 0.2, 0.7, 1.0])
    assert [float(area(s, label)) for s in (scores, 1 - scores, torch.full((4,), 0.4))] == [1.0, 0.0, 0.5]
    assert np.isnan(float(area(scores, torch.zeros(4))))
    assert np.isnan(float(area(scores, torch.ones(4))))


def test_half_precision_is_not_rounded_further() -> None:
    probabilities, label = case()
    half = probabilities.half()
    assert torch.equal(keras_auc(half, label), keras_auc(half.float(), label))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (exact_auc, (torch.zeros(3), torch.zeros(4)), r"scores have shape \(3,\) and the label \(4,\)"),
        (exact_auc, (torch.zeros(3), torch.full((3,), 255)), "label must be a mask of 0 and 1"),
        (exact_auc, (torch.tensor([0.1, torch.nan]), torch.tensor([0, 1])), "scores hold NaN"),
        (keras_auc, (torch.tensor([0.1, 1.5]), torch.tensor([0, 1])), r"go from 0\.1.* to 1\.5: logits want a sigmoid"),
        (keras_auc, (torch.tensor([0.1, torch.nan]), torch.tensor([0, 1])), r"probabilities must be in \[0, 1\]"),
        (lambda *a: keras_auc(*a, thresholds=1), (torch.zeros(2), torch.zeros(2)), "thresholds is 1"),
        (batch_pooled_dice, (Confusion(*torch.zeros(4, 0).long()),), "no image to average"),
        (lambda c: batch_pooled(c, batch_size=0), (Confusion(*torch.ones(4, 1).long()),), "batch_size is 0"),
    ],
)
def test_wrong_arguments_are_refused(function: Any, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        function(*arguments)


def engine_batches() -> list[list[dict[str, torch.Tensor]]]:
    """Decollated batches of four and two images, as an evaluator of MONAI holds them."""
    probabilities, label = case()
    items = [
        {"probability": MetaTensor(p), "pred": MetaTensor(p >= 0.5).float(), "label": MetaTensor(y.float())}
        for p, y in zip(probabilities, label, strict=True)
    ]
    return [items[:4], items[4:]]


def test_handlers_put_the_papers_scores_among_the_engines_metrics() -> None:
    probabilities, label = case()
    counts = confusion(probabilities[:, 1] >= 0.5, label[:, 1])
    engine = Engine(lambda engine, batch: batch)
    decided, soft = from_engine(["pred", "label"]), from_engine(["probability", "label"])
    BatchPooledScoreHandler(output_transform=decided, batch_size=5, channel=1).attach(engine, "dice")
    PooledScoreHandler("mean_iou", output_transform=decided, channel=1).attach(engine, "mean_iou")
    KerasAUCHandler(output_transform=soft, channel=1).attach(engine, "auc")
    KerasAUCHandler(output_transform=soft, channel=1, thresholds=3).attach(engine, "coarse")

    metrics = engine.run(engine_batches()).metrics

    assert metrics["dice"] == pytest.approx(float(batch_pooled_dice(counts, batch_size=5)))
    assert metrics["mean_iou"] == pytest.approx(float(pooled_mean_iou(counts)))
    assert metrics["auc"] == pytest.approx(float(keras_auc(probabilities[:, 1], label[:, 1])))
    assert metrics["coarse"] == pytest.approx(float(keras_auc(probabilities[:, 1], label[:, 1], thresholds=3)))
    assert metrics["auc"] != pytest.approx(metrics["coarse"], abs=1e-3)


def test_metrics_take_the_new_scores_and_start_afresh_after_a_reset() -> None:
    pred, label = masks()
    counts = confusion(pred, label)
    for metric, expected in (
        (MacroScore("specificity"), specificity(counts).mean()),
        (PooledScore("accuracy"), pooled_accuracy(counts)),
        (PooledScore("iou"), pooled_iou(counts)),
        (BatchPooledScore("specificity"), batch_pooled(counts, "specificity")),
        (BatchPooledScore(batch_size=10), batch_pooled_dice(counts, batch_size=10)),
    ):
        metric(y_pred=~pred[:, None], y=label[:, None])
        metric.reset()
        for part in (slice(0, 7), slice(7, None)):
            metric(y_pred=pred[part, None], y=label[part, None])
        assert torch.equal(metric.aggregate(), expected)


def test_metrics_refuse_what_they_cannot_score() -> None:
    with pytest.raises(ConfigError, match="batch_size is 0"):
        BatchPooledScore(batch_size=0)
    with pytest.raises(ConfigError, match=r"score must be one of dice, .*, mean_iou, got 'auc'"):
        batch_pooled(confusion(*masks()), "auc")
    with pytest.raises(ConfigError, match="thresholds is 1"):
        KerasAUC(thresholds=1)
    with pytest.raises(InputError, match="KerasAUC compares with the true mask"):
        KerasAUC()(y_pred=torch.zeros(1, 1, 2, 2))
    with pytest.raises(InputError, match="KerasAUC has seen no image"):
        KerasAUC().aggregate()
