"""Exact resume, and what it says when it cannot."""

from __future__ import annotations

import json
import logging
import math
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.optimizers import WarmupCosineSchedule
from torch import nn

from msrf_monai.engines import TrainingState
from msrf_monai.engines.plain import generator_states, plain, restore_generators
from msrf_monai.errors import CheckpointError, ConfigError, NonFiniteLossError, StorageError
from support.processes import run_script


@pytest.mark.parametrize("workers", [0, 2])
def test_two_and_two_epochs_equal_four_bit_for_bit(tmp_path: Path, job: ModuleType, workers: int) -> None:
    whole = job.build(tmp_path / "whole", epochs=4, workers=workers)
    whole["trainer"].run()
    job.build(tmp_path / "parts", epochs=2, workers=workers)["trainer"].run()
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002 - the global generator is meant
    torch.manual_seed(99)  # whatever the second process drew before
    second = job.build(tmp_path / "parts", epochs=4, workers=workers, resume=True)
    second["trainer"].run()
    assert job.result(tmp_path / "parts", second) == job.result(tmp_path / "whole", whole)
    assert len(second["history"].rows) == 4


def test_another_seed_gives_other_weights(tmp_path: Path, job: ModuleType) -> None:
    runs = [job.build(tmp_path / str(seed), epochs=1, seed=seed) for seed in (3, 4)]
    for run in runs:
        run["trainer"].run()
    assert not torch.equal(runs[0]["network"].stem.weight, runs[1]["network"].stem.weight)


def _exit_codes(
    script: Path, folder: Path, kills: list[dict[str, int]], *, epochs: int, workers: int = 0
) -> tuple[list[int], list[int]]:
    """Train once with kills and once without, in ``folder/broken`` and ``folder/whole``; return the exit codes."""
    broken, whole = folder / "broken", folder / "whole"
    for made in (broken, whole):
        made.mkdir()
    plan = {"epochs": epochs, "workers": workers, "attempts": {str(broken): [*kills, None], str(whole): [None]}}
    done = run_script(script, json.dumps(plan))
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout)
    return codes[str(broken)], codes[str(whole)]


def _outcomes(folder: Path) -> list[Any]:
    return [json.loads((folder / name / "result.json").read_text()) for name in ("broken", "whole")]


def test_a_run_killed_in_epochs_and_during_a_save_ends_like_the_unbroken_one(tmp_path: Path, job_script: Path) -> None:
    kills = [{"iterations": 2}, {"iterations": 5}, {"in_save": 2}, {"iterations": 4}]  # an epoch has 3 iterations
    broken, whole = _exit_codes(job_script, tmp_path, kills, epochs=5)
    assert broken == [-9, -9, -9, -9, 0]
    assert whole == [0]
    after_kills, unbroken = _outcomes(tmp_path)
    assert after_kills == unbroken


@pytest.mark.slow
def test_a_run_killed_at_twenty_random_moments_ends_like_the_unbroken_one(tmp_path: Path, job_script: Path) -> None:
    draw = random.Random(5)
    kills = [
        {"iterations": draw.randint(1, 6)} if draw.random() < 0.6 else {"in_save": draw.randint(1, 2)}
        for _ in range(20)
    ]
    broken, whole = _exit_codes(job_script, tmp_path, kills, epochs=20)
    assert broken == [-9] * 20 + [0]
    assert whole == [0]
    after_kills, unbroken = _outcomes(tmp_path)
    assert after_kills == unbroken


def test_the_best_metric_survives_so_a_worse_epoch_is_no_new_best(tmp_path: Path, job: ModuleType) -> None:
    first = job.build(tmp_path, epochs=2)
    first["trainer"].run()
    saved = torch.load(tmp_path / "training_state.pt", weights_only=True)
    saved["best"] = {"metric": 2.0, "epoch": 1}  # no Dice can beat it
    torch.save(saved, tmp_path / "training_state.pt")
    before = (tmp_path / "models" / "model.pt").read_bytes()

    second = job.build(tmp_path, epochs=3, resume=True)
    second["trainer"].run()

    assert second["evaluator"].state.best_metric_epoch == 1
    assert second["evaluator"].state.best_metric == 2.0
    assert (tmp_path / "models" / "model.pt").read_bytes() == before


def test_resume_without_a_saved_run_is_refused(tmp_path: Path, job: ModuleType) -> None:
    with pytest.raises(CheckpointError, match=r"no saved training at .*training_state\.pt"):
        job.build(tmp_path, epochs=1, resume=True)["trainer"].run()


def test_auto_resume_without_a_saved_run_starts_afresh_and_says_so(
    tmp_path: Path, job: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="msrf_monai")
    run = job.build(tmp_path, epochs=1, resume="auto")
    run["trainer"].run()
    assert run["trainer"].state.epoch == 1
    assert "starting afresh" in caplog.text


def test_a_finished_run_resumes_to_nothing(tmp_path: Path, job: ModuleType) -> None:
    job.build(tmp_path, epochs=2)["trainer"].run()
    before = (tmp_path / "training_state.pt").read_bytes()
    again = job.build(tmp_path, epochs=2, resume=True)
    again["trainer"].run()
    assert again["trainer"].state.epoch == 2
    assert len(again["history"].rows) == 2
    assert (tmp_path / "training_state.pt").read_bytes() == before


def test_resume_with_another_width_names_the_tensor_and_the_width(tmp_path: Path, job: ModuleType) -> None:
    job.build(tmp_path, epochs=1, features=8)["trainer"].run()
    other = job.build(tmp_path, epochs=2, features=4, resume=True)
    before = {name: tensor.clone() for name, tensor in other["network"].state_dict().items()}
    with pytest.raises(CheckpointError, match=r"stem\.weight has shape \(8, 3, 3, 3\).*\(4, 3, 3, 3\).*features=8"):
        other["trainer"].run()
    assert all(torch.equal(before[name], tensor) for name, tensor in other["network"].state_dict().items())


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_damaged_newest_file_falls_back_to_the_previous_and_says_so(
    tmp_path: Path, job: ModuleType, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    whole = job.build(tmp_path / "whole", epochs=3)
    whole["trainer"].run()
    job.build(tmp_path / "parts", epochs=2)["trainer"].run()
    newest = tmp_path / "parts" / "training_state.pt"
    content = bytearray(newest.read_bytes())
    if damage == "cut":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)
    else:
        newest.unlink()

    second = job.build(tmp_path / "parts", epochs=3, resume=True)
    second["trainer"].run()

    assert "going back to" in caplog.text
    assert "training_state.previous.pt" in caplog.text
    assert job.result(tmp_path / "parts", second) == job.result(tmp_path / "whole", whole)


def test_with_both_files_damaged_the_run_is_refused(tmp_path: Path, job: ModuleType) -> None:
    job.build(tmp_path, epochs=2)["trainer"].run()
    for name in ("training_state.pt", "training_state.previous.pt"):
        (tmp_path / name).write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        job.build(tmp_path, epochs=3, resume=True)["trainer"].run()


def test_plain_weights_are_not_taken_for_a_saved_run(tmp_path: Path, job: ModuleType) -> None:
    torch.save(job.ToyNet().state_dict(), tmp_path / "training_state.pt")
    with pytest.raises(CheckpointError, match="not a saved training"):
        job.build(tmp_path, epochs=1, resume=True)["trainer"].run()


def test_a_full_disk_keeps_the_last_good_file(tmp_path: Path, job: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    job.build(tmp_path, epochs=1)["trainer"].run()
    before = (tmp_path / "training_state.pt").read_bytes()
    run = job.build(tmp_path, epochs=2, resume=True)

    def full(content: Any, handle: Any) -> None:
        handle.write(b"part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("msrf_monai.engines.best.SaveBest.__call__", lambda self, engine: None)
    monkeypatch.setattr("msrf_monai.engines.training_state.torch.save", full)
    with pytest.raises(StorageError, match="No space left on device"):
        run["trainer"].run()
    assert (tmp_path / "training_state.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*.part"))


def test_a_longer_schedule_on_resume_wins_and_is_announced(
    tmp_path: Path, job: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    job.build(tmp_path, epochs=2, schedule_length=2)["trainer"].run()
    second = job.build(tmp_path, epochs=4, schedule_length=8, resume=True)
    second["trainer"].run()
    assert "T_max was 2 and is 8" in caplog.text
    assert second["scheduler"].T_max == 8


@pytest.mark.parametrize("optimizer_first", [True, False])
@pytest.mark.parametrize("rate_is_tensor", [False, True])
def test_a_longer_warm_up_cosine_goes_on_along_its_own_curve(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, optimizer_first: bool, rate_is_tensor: bool
) -> None:
    def make(t_total: int) -> tuple[Any, Any, TrainingState]:
        rate: Any = torch.tensor(0.1, dtype=torch.float64) if rate_is_tensor else 0.1
        optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=rate)
        schedule = WarmupCosineSchedule(optimizer, warmup_steps=2, t_total=t_total, end_lr=1e-6, warmup_multiplier=0.1)
        objects = {"optimizer": optimizer, "schedule": schedule}
        order = objects if optimizer_first else dict(reversed(objects.items()))
        return optimizer, schedule, TrainingState(str(tmp_path), save_dict=order)

    def steps(optimizer: Any, schedule: Any, count: int) -> list[float]:
        rates = []
        for _ in range(count):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            schedule.step()
        return rates

    engine = Engine(lambda engine, batch: None)
    engine.state.max_epochs, engine.state.epoch_length = 20, 1
    short = make(10)
    steps(*short[:2], 10)
    engine.state.epoch = engine.state.iteration = 10
    short[2].save(engine)
    longer = make(20)

    longer[2].load(engine)
    last = float(longer[1].get_last_lr()[0])
    resumed = steps(*longer[:2], 10)

    curve = [0.1 * 0.5 * (1 + math.cos(math.pi * (epoch - 2) / 18)) for epoch in range(10, 20)]
    assert resumed == pytest.approx(curve)
    assert last == pytest.approx(curve[0])
    assert "t_total was 10 and is 20" in caplog.text


def test_weights_that_are_not_finite_are_not_saved_and_the_file_before_is_kept(tmp_path: Path, job: ModuleType) -> None:
    run = job.build(tmp_path, epochs=2)
    state, trainer = run["state"], run["trainer"]

    def spoil(engine: Any) -> None:
        if engine.state.epoch == 2:
            with torch.no_grad():
                run["network"].stem.bias[0] = float("nan")

    trainer.add_event_handler(Events.EPOCH_COMPLETED, spoil)
    expected = r"^network\.stem\.bias is not finite after epoch 2, .*training_state\.pt, is kept"
    with pytest.raises(NonFiniteLossError, match=expected):
        trainer.run()
    assert torch.load(state.path, weights_only=True)["epoch"] == 1

    state.path.replace(state.previous)
    with pytest.raises(NonFiniteLossError, match=r"training_state\.previous\.pt, is kept"):
        state.save(trainer)
    state.previous.unlink()
    with pytest.raises(NonFiniteLossError, match="nothing has been saved yet"):
        state.save(trainer)
    assert not state.path.exists()


def test_an_average_that_is_not_finite_is_not_saved(tmp_path: Path, job: ModuleType) -> None:
    run = job.build(tmp_path, epochs=1)
    run["ema"].ema_model.norm.running_mean[1] = float("inf")
    with pytest.raises(NonFiniteLossError, match=r"^ema\.norm\.running_mean is not finite"):
        run["state"].save(run["trainer"])


def test_saving_comes_after_a_handler_that_stands_behind_it(tmp_path: Path, job: ModuleType) -> None:
    run = job.build(tmp_path, epochs=1)
    saved_when_called = []

    class Late:
        def attach(self, engine: Any) -> None:
            from ignite.engine import Events

            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

        def __call__(self, engine: Any) -> None:
            saved_when_called.append((tmp_path / "training_state.pt").exists())

    Late().attach(run["trainer"])
    run["trainer"].run()
    assert saved_when_called == [False]
    assert (tmp_path / "training_state.pt").exists()


def test_every_second_epoch_is_saved_and_the_last(tmp_path: Path, job: ModuleType) -> None:
    run = job.build(tmp_path, epochs=3)
    run["state"].every = 2
    run["trainer"].run()
    newest = torch.load(tmp_path / "training_state.pt", weights_only=True)
    previous = torch.load(tmp_path / "training_state.previous.pt", weights_only=True)
    assert (newest["epoch"], previous["epoch"]) == (3, 2)


def test_another_epoch_length_goes_on_from_the_epoch_with_a_warning(
    tmp_path: Path, job: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    job.build(tmp_path, epochs=1)["trainer"].run()
    second = job.build(tmp_path, epochs=2, resume=True, train_items=job.items(4, 1))
    second["trainer"].run()
    assert second["trainer"].state.epoch == 2
    assert second["trainer"].state.iteration == 4  # 2 batches of up to 3 images in each of 2 epochs
    assert "epoch_length was 3" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"save_dict": {"x": object()}}, "no state to save"),
        ({"save_dict": {}, "resume": "yes"}, "resume must be"),
        ({"save_dict": {}, "every": 0}, "every must be"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingState(str(tmp_path), **arguments)


def test_another_set_of_objects_is_refused(tmp_path: Path, job: ModuleType) -> None:
    job.build(tmp_path, epochs=1)["trainer"].run()
    second = job.build(tmp_path, epochs=2, resume=True)
    second["state"].save_dict.pop("ema")
    with pytest.raises(CheckpointError, match="resume with the configuration that saved it"):
        second["trainer"].run()


def test_another_optimiser_is_refused_by_name(tmp_path: Path, job: ModuleType) -> None:
    job.build(tmp_path, epochs=1)["trainer"].run()
    second = job.build(tmp_path, epochs=2, resume=True)
    second["state"].save_dict["optimizer"] = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(CheckpointError, match=r"'optimizer' of .* cannot be restored"):
        second["trainer"].run()


def test_the_gradient_scaler_is_saved_and_restored(tmp_path: Path, job: ModuleType) -> None:
    first = job.build(tmp_path, epochs=1)
    first["trainer"].run()
    first["trainer"].scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
    first["state"].save(first["trainer"])
    second = job.build(tmp_path, epochs=2, resume=True)
    second["trainer"].scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    second["state"].load(second["trainer"])
    assert second["trainer"].scaler.get_scale() == 512.0


def test_generators_go_on_where_they_were_saved() -> None:
    states = generator_states()
    drawn = (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002 - the global one is meant
    restore_generators(states)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == drawn  # noqa: NPY002


def test_plain_makes_numpy_scalars_plain_and_refuses_objects() -> None:
    assert plain({"a": np.float64(0.5), "b": [np.int64(3), (True, None)]}, "x") == {"a": 0.5, "b": [3, (True, None)]}
    assert type(plain(np.float64(0.5), "x")) is float
    with pytest.raises(ConfigError, match=r"x\['a'\]\[1\] is a \w*Path"):
        plain({"a": [1, Path("b")]}, "x")


@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4]),
        lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer),
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9),
        lambda optimizer: torch.optim.lr_scheduler.SequentialLR(
            optimizer,
            [
                torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=2),
                torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5),
            ],
            [2],
        ),
    ],
    ids=["multi-step", "plateau", "one-cycle", "warm-up"],
)
def test_schedules_survive_a_file_of_plain_values(tmp_path: Path, make: Any) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = make(optimizer)
    torch.save(plain(scheduler.state_dict(), "s"), tmp_path / "s.pt")
    again = make(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1))
    again.load_state_dict(torch.load(tmp_path / "s.pt", weights_only=True))
    assert again.state_dict().keys() == scheduler.state_dict().keys()
