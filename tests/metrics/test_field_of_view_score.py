"""The metric inside a field of view, alone and in engines of ignite and MONAI."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.handlers import from_engine
from sklearn.metrics import f1_score, recall_score

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.metrics import FieldOfViewScore, FieldOfViewScoreHandler

Item = dict[str, torch.Tensor]


def items() -> list[Item]:
    """Five images of different sizes, two channels each, one field of view an image."""
    generator = torch.Generator().manual_seed(5)
    made = []
    for index in range(5):
        shape = (9 + index, 14)
        label = torch.rand(2, *shape, generator=generator) < 0.3
        pred = label ^ (torch.rand(2, *shape, generator=generator) < 0.2)
        fov = torch.rand(1, *shape, generator=generator) < 0.7
        made.append(
            {
                "pred": MetaTensor(pred.to(torch.uint8)),
                "label": MetaTensor(label.float()),
                "fov": MetaTensor(fov.to(torch.uint8)),
            }
        )
    return made


def inside(item: Item, channel: int) -> tuple[np.ndarray, np.ndarray]:
    region = item["fov"][0].numpy() > 0
    return item["label"][channel].numpy()[region] > 0, item["pred"][channel].numpy()[region] > 0


def expected(score: Any, average: str, channel: int) -> float:
    pixels = [inside(item, channel) for item in items()]
    if average == "mean":
        return float(np.mean([score(*pair) for pair in pixels]))
    return float(score(*(np.concatenate(parts) for parts in zip(*pixels, strict=True))))


@pytest.mark.parametrize("channel", [0, 1])
@pytest.mark.parametrize("average", ["pooled", "mean"])
def test_an_engine_gets_the_score_inside_the_field_of_view(average: str, channel: int) -> None:
    engine = Engine(lambda engine, batch: batch)
    FieldOfViewScoreHandler(
        output_transform=from_engine(["pred", "label", "fov"]), average=average, channel=channel
    ).attach(engine, "f1")
    FieldOfViewScoreHandler(
        "sensitivity", output_transform=from_engine(["pred", "label", "fov"]), average=average, channel=channel
    ).attach(engine, "sensitivity")

    metrics = engine.run([items()[:2], items()[2:]]).metrics

    assert metrics["f1"] == pytest.approx(expected(f1_score, average, channel))
    assert metrics["sensitivity"] == pytest.approx(expected(recall_score, average, channel))


def test_a_second_epoch_starts_afresh() -> None:
    engine = Engine(lambda engine, batch: batch)
    FieldOfViewScoreHandler(output_transform=from_engine(["pred", "label", "fov"])).attach(engine, "f1")
    engine.run([items()[:2]])
    assert engine.run([items()]).metrics["f1"] == pytest.approx(expected(f1_score, "pooled", 0))


def test_without_a_field_of_view_the_whole_image_counts() -> None:
    engine = Engine(lambda engine, batch: batch)
    FieldOfViewScoreHandler(output_transform=from_engine(["pred", "label"])).attach(engine, "f1")
    pairs = [[item[key][0].numpy().ravel() for key in ("label", "pred")] for item in items()]
    wanted = f1_score(*(np.concatenate(parts) for parts in zip(*pairs, strict=True)))
    assert engine.run([items()]).metrics["f1"] == pytest.approx(wanted)


def test_batches_of_tensors_and_fields_of_view_with_as_many_channels_work_too() -> None:
    generator = torch.Generator().manual_seed(1)
    pred, label, fov = (torch.rand(3, 2, 8, 11, generator=generator) < 0.5 for _ in range(3))
    metric = FieldOfViewScore(channel=1)
    metric(pred, label, fov=fov)
    region = fov[:, 1].numpy()
    assert float(metric.aggregate()) == pytest.approx(f1_score(label[:, 1].numpy()[region], pred[:, 1].numpy()[region]))


def test_the_mean_leaves_images_out_whose_score_is_undefined() -> None:
    pred, label = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    pred[0, 0, 0], label[0, 0, :2] = 1, 1  # half is found; the second image has no vessel
    mean, pooled = FieldOfViewScore("sensitivity", average="mean"), FieldOfViewScore("sensitivity")
    for metric in (mean, pooled):
        metric(pred, label, fov=torch.ones_like(label))
    assert float(mean.aggregate()) == float(pooled.aggregate()) == 0.5
    nothing = FieldOfViewScore()
    nothing(pred, label, fov=torch.zeros_like(label))
    assert np.isnan(float(nothing.aggregate()))


def test_a_configuration_builds_the_handler_by_its_dotted_name() -> None:
    parser = ConfigParser(
        {
            "imports": ["$from monai.handlers import from_engine"],
            "metric": {
                "_target_": "msrf_monai.metrics.FieldOfViewScoreHandler",
                "output_transform": "$from_engine(['pred', 'label', 'fov'])",
            },
        }
    )
    handler = parser.get_parsed_content("metric")
    assert isinstance(handler, FieldOfViewScoreHandler)
    assert (handler.metric_fn.score, handler.metric_fn.average) == ("f1", "pooled")


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"score must be one of sensitivity, .*, mcc, got 'cldice'"):
        FieldOfViewScore("cldice")
    with pytest.raises(ConfigError, match="average must be one of pooled, mean, got 'macro'"):
        FieldOfViewScore(average="macro")
    with pytest.raises(InputError, match="has seen no image"):
        FieldOfViewScore().aggregate()
    mask = torch.zeros(1, 1, 2, 2)
    with pytest.raises(InputError, match="compares with the true mask"):
        FieldOfViewScore()(mask)
    with pytest.raises(InputError, match="compares with the true mask"):
        FieldOfViewScore()([mask[0]])
    with pytest.raises(InputError, match="got 1, 2, 2"):
        FieldOfViewScore()([mask[0]], [mask[0], mask[0]])
    with pytest.raises(InputError, match="region has shape"):
        FieldOfViewScore()(mask, mask, fov=torch.ones(1, 1, 3, 2))
    handler = FieldOfViewScoreHandler(output_transform=from_engine(["pred", "label", "fov"]))
    with pytest.raises(InputError, match="got 1 values"):
        handler.update([mask])
