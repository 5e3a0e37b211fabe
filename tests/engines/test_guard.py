"""The guard against losses that are not numbers."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.engines import IterationEvents

from msrf_monai.engines import NaNGuard, case_names
from msrf_monai.engines.cases import UNKNOWN_FILE
from msrf_monai.errors import ConfigError, NonFiniteLossError


def _poisoned(job: ModuleType, *bad: int) -> list[dict[str, Any]]:
    """Training items of which some have a NaN in the image."""
    items = job.items(7, 1)
    for index in bad:
        items[index]["image"][0, 0, 0] = float("nan")
    return items


def _finite(network: torch.nn.Module) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in network.state_dict().values())


def test_a_nan_stops_training_names_the_files_and_spares_weights_and_checkpoint(
    tmp_path: Path, job: ModuleType
) -> None:
    job.build(tmp_path, epochs=1)["trainer"].run()
    before = (tmp_path / "training_state.pt").read_bytes()
    run = job.build(tmp_path, epochs=2, resume=True, extra=[NaNGuard()], train_items=_poisoned(job, 4))
    expected = (
        r"loss is nan at epoch 2, iteration \d, rank 0 on the batch of .*case_04\.png.* before this batch touched"
    )
    with pytest.raises(NonFiniteLossError, match=expected):
        run["trainer"].run()
    assert all(bool(torch.isfinite(parameter).all()) for parameter in run["network"].parameters())
    assert (tmp_path / "training_state.pt").read_bytes() == before


def test_tolerated_batches_leave_no_trace_in_weights_optimiser_or_statistics(
    tmp_path: Path, job: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[tuple[bool, dict[str, torch.Tensor]]] = []
    run = job.build(tmp_path, epochs=2, extra=[NaNGuard(max_consecutive=2)], train_items=_poisoned(job, 4))

    class Watch:
        def attach(self, engine: Any) -> None:
            from ignite.engine import Events

            engine.add_event_handler(Events.ITERATION_COMPLETED, self)

        def __call__(self, engine: Any) -> None:
            loss = engine.state.output[0]["loss"]
            state = {name: tensor.clone() for name, tensor in engine.network.state_dict().items()}
            seen.append((math.isfinite(loss), state))

    Watch().attach(run["trainer"])
    run["trainer"].run()

    bad = [index for index, (is_finite, _) in enumerate(seen) if not is_finite]
    assert len(bad) == 2  # once an epoch, and told as it was
    for index in bad:
        if index > 0:
            assert all(torch.equal(seen[index - 1][1][name], tensor) for name, tensor in seen[index][1].items())
    assert _finite(run["network"])
    assert not torch.equal(seen[0][1]["stem.weight"], seen[-1][1]["stem.weight"])
    assert all("train_loss" in row for row in run["history"].rows)
    assert "the batch is left out (1 of 1 tolerated)" in caplog.text


def test_as_many_bad_batches_in_a_row_as_allowed_stop_training(tmp_path: Path, job: ModuleType) -> None:
    run = job.build(tmp_path, epochs=1, extra=[NaNGuard(max_consecutive=3)], train_items=_poisoned(job, *range(7)))
    with pytest.raises(NonFiniteLossError, match=r"iteration 3, .*\(3 bad batches in a row\)"):
        run["trainer"].run()
    assert all(bool(torch.isfinite(parameter).all()) for parameter in run["network"].parameters())


def test_good_losses_pass(tmp_path: Path, job: ModuleType) -> None:
    plain, guarded = (
        job.build(tmp_path / name, epochs=2, extra=extra)
        for name, extra in (("plain", []), ("guarded", [NaNGuard(max_consecutive=2)]))
    )
    plain["trainer"].run()
    guarded["trainer"].run()
    assert torch.equal(plain["network"].stem.weight, guarded["network"].stem.weight)


def test_under_a_gradient_scaler_the_scaler_skips_the_step(tmp_path: Path, job: ModuleType) -> None:
    run = job.build(tmp_path, epochs=1, extra=[])
    trainer, guard = run["trainer"], NaNGuard(max_consecutive=2)
    guard.attach(trainer)
    trainer.scaler = torch.amp.GradScaler("cpu")
    network = run["network"]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    image = torch.full((1, 3, 4, 4), float("nan"))

    guard._remember(trainer)  # as at the start of an iteration
    loss = network(image).mean()
    trainer.state.batch = {"image": image}
    trainer.state.output = {"loss": loss}
    trainer.fire_event(IterationEvents.LOSS_COMPLETED)
    trainer.scaler.scale(trainer.state.output["loss"]).backward()
    trainer.fire_event(IterationEvents.BACKWARD_COMPLETED)
    trainer.scaler.step(run["optimizer"])
    trainer.scaler.update()

    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_zero_tolerance_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_consecutive must be 1 or more"):
        NaNGuard(max_consecutive=0)


@pytest.mark.parametrize(
    ("batch", "names"),
    [
        (
            {"image": MetaTensor(torch.zeros(2, 1, 3, 4), meta={"filename_or_obj": ["a.png", "b"]})},
            ["a.png", "b"],
        ),
        ([{"image": MetaTensor(torch.zeros(1, 3, 4), meta={"filename_or_obj": "a.png"})}], ["a.png"]),
        ({"image": torch.zeros(2, 1, 3, 4), "id": ["x", "y"]}, ["x", "y"]),
        ({"image": torch.zeros(2, 1, 3, 4), "image_meta_dict": {"filename_or_obj": ["p", "q"]}}, ["p", "q"]),
        ({"image": torch.zeros(2, 1, 3, 4)}, [UNKNOWN_FILE] * 2),
        ([{"image": torch.zeros(1, 3, 4)}, 5], [UNKNOWN_FILE] * 2),
        (torch.zeros(2, 1, 3, 4), [UNKNOWN_FILE]),
    ],
    ids=["collated", "decollated", "by id", "separate meta", "no meta", "no meta, decollated", "no dictionary"],
)
def test_files_of_a_batch_are_found(batch: Any, names: list[str]) -> None:
    assert case_names(batch) == names


def test_another_ranks_bad_loss_counts_here_too(
    tmp_path: Path, job: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, str]] = []
    other = "nan at epoch 1, iteration 1, rank 1 on the batch of far.png"

    def all_reduce(value: int, op: str) -> int:
        asked.append((value, op))
        return 1

    monkeypatch.setattr("msrf_monai.engines.guard.idist.get_world_size", lambda: 2)
    monkeypatch.setattr("msrf_monai.engines.guard.idist.all_reduce", all_reduce)
    monkeypatch.setattr("msrf_monai.engines.guard.idist.all_gather", lambda text: [text, json.dumps(other)])
    run = job.build(tmp_path, epochs=1, extra=[NaNGuard()])
    with pytest.raises(NonFiniteLossError, match=f"^the training loss is {other}; training stopped"):
        run["trainer"].run()
    assert asked == [(0, "MAX")]


def test_the_warning_goes_to_the_packages_logger(
    tmp_path: Path, job: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    run = job.build(tmp_path, epochs=1, extra=[NaNGuard(max_consecutive=9)], train_items=_poisoned(job, 0))
    run["trainer"].run()
    assert [r.levelno for r in caplog.records if r.name == "msrf_monai.engines.guard"] == [logging.WARNING]
