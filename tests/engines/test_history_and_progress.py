"""History, curves and progress of a training."""

from __future__ import annotations

import csv
import json
import logging
import math
import statistics
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from PIL import Image

from msrf_monai.engines import History, Progress, TrainingCurves, draw_curves
from msrf_monai.engines.curves import _plot as plot
from msrf_monai.engines.history import loss_of, scalars
from msrf_monai.errors import MissingExtraError
from support.strict_json import strict_json


def test_each_epoch_has_one_row_with_the_mean_loss_rate_and_metric(tmp_path: Path, job: ModuleType) -> None:
    run = job.build(tmp_path, epochs=3)
    losses: list[float] = []
    rates: list[float] = []
    run["trainer"].add_event_handler(
        Events.ITERATION_COMPLETED, lambda: losses.append(run["trainer"].state.output[0]["loss"])
    )
    run["trainer"].add_event_handler(
        Events.ITERATION_STARTED, lambda: rates.append(run["optimizer"].param_groups[0]["lr"])
    )
    run["trainer"].run()
    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    for index, row in enumerate(rows):
        assert float(row["train_loss"]) == pytest.approx(statistics.mean(losses[3 * index : 3 * index + 3]))
        assert float(row["learning_rate"]) == pytest.approx(rates[3 * index])
        assert 0 <= float(row["val_dice"]) <= 1
    assert json.loads((tmp_path / "history.json").read_text()) == run["history"].rows
    assert list(rows[0]) == ["epoch", "train_loss", "learning_rate", "seconds", "val_dice"]


class Undefined:
    """Puts a metric among the evaluator's that has a value in the second epoch only."""

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        engine.state.metrics["val_mcc"] = 0.5 if engine.state.epoch == 2 else float("nan")


def test_an_undefined_metric_is_null_in_the_file_and_nan_for_its_readers(tmp_path: Path, job: ModuleType) -> None:
    job.build(tmp_path, epochs=2, validation_handlers=[Undefined()])["trainer"].run()
    rows = strict_json(tmp_path / "history.json")
    assert [row["val_mcc"] for row in rows] == [None, 0.5]
    assert [row["val_mcc"] for row in csv.DictReader((tmp_path / "history.csv").open())] == ["nan", "0.5"]

    resumed = job.build(tmp_path, epochs=3, resume=True, validation_handlers=[Undefined()])
    resumed["trainer"].run()
    assert [row["val_mcc"] for row in resumed["history"].rows] == pytest.approx([math.nan, 0.5, math.nan], nan_ok=True)
    assert strict_json(tmp_path / "history.json")[:2] == rows
    history = History(str(tmp_path))
    history.load_state_dict({"rows": rows})
    assert math.isnan(history.rows[0]["val_mcc"])
    assert history.rows[1] == rows[1]


def test_curves_have_a_gap_where_a_metric_is_undefined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, list[float]]] = []

    def watched(axes: Any, rows: Any, name: str, **style: Any) -> None:
        drawn.append((name, [row[name] for row in rows]))
        plot(axes, rows, name, **style)

    monkeypatch.setattr("msrf_monai.engines.curves._plot", watched)
    values = (0.4, None, 0.6, 0.7)
    for name, undefined in (("null", None), ("nan", math.nan)):
        draw_curves(
            [
                {"epoch": k, "train_loss": 1 / k, "val_mcc": undefined if value is None else value}
                for k, value in enumerate(values, 1)
            ],
            tmp_path / f"{name}.png",
        )
    assert [name for name, _ in drawn] == ["train_loss", "val_mcc"] * 2
    assert drawn[1][1] == pytest.approx([0.4, math.nan, 0.6, 0.7], nan_ok=True)
    assert (tmp_path / "null.png").read_bytes() == (tmp_path / "nan.png").read_bytes()


def test_epochs_without_validation_have_no_metric(tmp_path: Path, job: ModuleType) -> None:
    run = job.build(tmp_path, epochs=2)
    history = History(str(tmp_path / "own"), validator=run["evaluator"])
    history.attach(run["trainer"])
    run["evaluator"].run = lambda epoch: None
    run["trainer"].run()
    assert all("val_dice" not in row and "learning_rate" not in row for row in history.rows)


def test_other_ranks_losses_count_in_the_mean(tmp_path: Path, job: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(str(tmp_path))
    history._losses = [torch.tensor(1.0), torch.tensor(float("nan")), torch.tensor(3.0)]
    monkeypatch.setattr("msrf_monai.engines.history.idist.get_world_size", lambda: 2)
    monkeypatch.setattr("msrf_monai.engines.history.idist.all_reduce", lambda value: value + 2)  # the other has one: 2
    assert history._mean_loss() == pytest.approx((1 + 3 + 2) / (2 + 2))


def test_an_epoch_without_a_finite_loss_has_none(tmp_path: Path) -> None:
    assert History(str(tmp_path))._mean_loss() is None


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({"loss": torch.tensor(2.0)}, 2.0),
        ([{"loss": torch.tensor(2.0)}, {"loss": torch.tensor(2.0)}], 2.0),
        ([{"loss": 2.0}], 2.0),
        ({"pred": torch.tensor(2.0)}, None),
        ([], None),
        (None, None),
    ],
)
def test_the_loss_is_found_in_an_output(output: Any, expected: float | None) -> None:
    found = loss_of(output)
    assert (None if found is None else found.item()) == expected


def test_only_single_numbers_are_scalars() -> None:
    metrics = {"a": torch.tensor(0.5), "b": np.float32(2), "c": 3, "d": torch.zeros(2), "e": "x", "f": torch.ones(1)}
    assert scalars(metrics) == {"a": 0.5, "b": 2.0, "c": 3.0, "f": 1.0}


def test_curves_are_drawn_at_the_end_of_an_early_stopped_run(tmp_path: Path, job: ModuleType) -> None:
    run = job.build(tmp_path, epochs=9, patience=2, learning_rate=0.0)
    run["evaluator"].metric_cmp_fn = lambda now, best: False
    TrainingCurves(str(tmp_path), history=run["history"], validator=run["evaluator"]).attach(run["trainer"])
    run["trainer"].run()
    assert run["trainer"].state.epoch == 3
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG"
        assert len(set(picture.convert("RGB").get_flattened_data())) > 50


def test_curves_without_rates_or_metrics_or_with_negative_losses_are_drawn(tmp_path: Path) -> None:
    draw_curves([{"epoch": 1, "train_loss": -1.0}, {"epoch": 2, "train_loss": -2.0}], tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 1000


def test_no_epoch_gives_no_picture(tmp_path: Path, job: ModuleType) -> None:
    run = job.build(tmp_path, epochs=1)
    TrainingCurves(str(tmp_path), history=History(str(tmp_path)))(run["trainer"])
    assert not (tmp_path / "curves.png").exists()


def test_missing_matplotlib_shows_before_training(
    tmp_path: Path, job: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = job.build(tmp_path, epochs=1)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"msrf-monai\[train\]"):
        TrainingCurves(str(tmp_path), history=run["history"]).attach(run["trainer"])


def test_without_a_terminal_each_epoch_is_one_log_line(
    tmp_path: Path, job: ModuleType, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, logger="msrf_monai")
    run = job.build(tmp_path, epochs=2)
    Progress(validator=run["evaluator"]).attach(run["trainer"])
    run["trainer"].run()
    lines = [record.getMessage() for record in caplog.records if record.name == "msrf_monai.engines.progress"]
    assert len(lines) == 2
    assert lines[1].startswith("training epoch 2/2: loss 0.")
    assert "val_dice" in lines[1]
    assert capsys.readouterr().err == ""


def test_a_shown_bar_has_loss_and_metric_and_no_log_line(
    tmp_path: Path, job: ModuleType, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, logger="msrf_monai")
    run = job.build(tmp_path, epochs=2)
    Progress(validator=run["evaluator"], is_shown=True).attach(run["trainer"])
    run["trainer"].run()
    shown = capsys.readouterr().err
    assert "training epoch 2/2: 100%" in shown
    assert "3/3" in shown
    assert "loss 0." in shown
    assert "val_dice" in shown
    assert not [record for record in caplog.records if record.name == "msrf_monai.engines.progress"]


def test_an_evaluator_shows_its_description(
    tmp_path: Path, job: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    run = job.build(tmp_path, epochs=1)
    Progress(description="evaluation", is_shown=True).attach(run["evaluator"])
    run["evaluator"].run()
    assert "evaluation: 100%" in capsys.readouterr().err


def test_other_ranks_show_nothing(
    tmp_path: Path, job: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = job.build(tmp_path, epochs=1)
    Progress(validator=run["evaluator"], is_shown=True).attach(run["trainer"])
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    run["trainer"].run()
    assert capsys.readouterr().err == ""


def test_distances_are_left_out_of_the_scores_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plotted: list[str] = []

    def watched(axes: Any, rows: Any, name: str, **style: Any) -> None:
        plotted.append(name)
        plot(axes, rows, name, **style)

    monkeypatch.setattr("msrf_monai.engines.curves._plot", watched)
    draw_curves(
        [{"epoch": 1, "mean_hd95_px": 31.0, "val_dice": 0.9}, {"epoch": 2, "val_dice": 0.8}], tmp_path / "c.png"
    )
    assert plotted == ["train_loss", "val_dice"]
