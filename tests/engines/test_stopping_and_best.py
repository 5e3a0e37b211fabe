"""Early stop and best weights, across resume."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import ModuleType

import pytest
import torch

from msrf_monai.engines import EarlyStop, SaveBest, save_weights
from msrf_monai.engines.finite import refuse_non_finite
from msrf_monai.engines.training_state import TrainingState
from msrf_monai.errors import ConfigError, NonFiniteLossError
from msrf_monai.files import sha256_of
from support.strict_json import strict_json


def _stuck(job: ModuleType, folder: Path, *, epochs: int, patience: int, resume: bool = False) -> dict:
    """A training that cannot get better after its first epoch."""
    return job.build(folder, epochs=epochs, patience=patience, resume=resume, learning_rate=0.0)


def test_training_stops_when_the_patience_is_used_up(
    tmp_path: Path, job: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="msrf_monai")
    run = _stuck(job, tmp_path, epochs=9, patience=2)
    run["evaluator"].metric_cmp_fn = lambda now, best: False  # no epoch after the first counts as better
    run["trainer"].run()
    assert run["trainer"].state.epoch == 3
    assert "no better validation since epoch 1 (patience 2)" in caplog.text
    assert torch.load(tmp_path / "training_state.pt", weights_only=True)["epoch"] == 3


def test_a_stopped_run_that_is_resumed_stays_stopped_and_goes_on_with_more_patience(
    tmp_path: Path, job: ModuleType
) -> None:
    for patience, epochs in ((2, 3), (2, 3), (4, 5)):
        run = _stuck(job, tmp_path, epochs=9, patience=patience, resume=(tmp_path / "training_state.pt").exists())
        run["evaluator"].metric_cmp_fn = lambda now, best: False
        run["trainer"].run()
        assert run["trainer"].state.epoch == epochs


@pytest.mark.parametrize("patience", [0, None])
def test_no_patience_never_stops(tmp_path: Path, job: ModuleType, patience: int | None) -> None:
    run = _stuck(job, tmp_path, epochs=4, patience=0)
    EarlyStop(run["evaluator"], patience=patience).attach(run["trainer"])
    run["trainer"].run()
    assert run["trainer"].state.epoch == 4


def test_negative_patience_is_refused() -> None:
    with pytest.raises(ConfigError, match="patience must be"):
        EarlyStop(None, patience=-1)


def test_the_best_file_holds_the_averaged_weights_of_the_best_epoch(tmp_path: Path, job: ModuleType) -> None:
    run = job.build(tmp_path, epochs=3)
    run["evaluator"].metric_cmp_fn = lambda now, best: False
    states = []

    class Watch:
        def attach(self, engine: object) -> None: ...

    from ignite.engine import Events

    run["trainer"].add_event_handler(
        Events.EPOCH_COMPLETED,
        lambda: states.append({name: tensor.clone() for name, tensor in run["ema"].state_dict().items()}),
    )
    run["trainer"].run()
    saved = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(saved[name], tensor) for name, tensor in states[0].items())
    assert not torch.equal(states[0]["stem.weight"], states[2]["stem.weight"])
    record = json.loads((tmp_path / "models" / "model.json").read_text())
    assert record["epoch"] == 1
    assert record["metric"] == "val_dice"
    assert record["seed"] == 3
    assert record["value"] == pytest.approx(run["history"].rows[0]["val_dice"])
    assert record["sha256"] == sha256_of(tmp_path / "models" / "model.pt")
    assert record["versions"]["torch"] == torch.__version__


def test_the_last_weights_are_kept_by_a_recipe_that_chooses_nothing(tmp_path: Path, job: ModuleType) -> None:
    saver = SaveBest(str(tmp_path / "last"), seed=3, last=True)
    run = job.build(tmp_path, epochs=3, validation_handlers=[saver])
    run["evaluator"].metric_cmp_fn = lambda now, best: False  # the first epoch stays the best

    run["trainer"].run()

    saved = torch.load(tmp_path / "last" / "model.pt", weights_only=True)
    assert all(torch.equal(saved[name], tensor) for name, tensor in run["ema"].state_dict().items())
    last, best = (json.loads((tmp_path / name / "model.json").read_text()) for name in ("last", "models"))
    assert (last["epoch"], best["epoch"]) == (3, 1)
    assert last["value"] == pytest.approx(run["history"].rows[2]["val_dice"])
    assert last["value"] != best["value"]
    assert last["sha256"] == sha256_of(tmp_path / "last" / "model.pt")


def test_an_undefined_metric_of_the_last_weights_is_null_beside_them(tmp_path: Path, job: ModuleType) -> None:
    evaluator = job.build(tmp_path, epochs=1)["evaluator"]
    evaluator.state.epoch, evaluator.state.best_metric_epoch = 4, 1
    evaluator.state.metrics["val_dice"] = float("nan")

    SaveBest(str(tmp_path), last=True)(evaluator)

    record = strict_json(tmp_path / "model.json")
    assert (record["epoch"], record["metric"], record["value"]) == (4, "val_dice", None)


@pytest.mark.parametrize(("name", "value"), [("stem.weight", float("nan")), ("norm.running_var", float("inf"))])
def test_the_best_file_is_never_one_with_values_that_are_not_finite(
    tmp_path: Path, job: ModuleType, name: str, value: float
) -> None:
    run = job.build(tmp_path, epochs=1)
    evaluator, path = run["evaluator"], tmp_path / "models" / "model.pt"
    saver = SaveBest(str(tmp_path / "models"))
    evaluator.state.epoch = evaluator.state.best_metric_epoch = 4
    evaluator.state.metrics["val_dice"] = 0.5
    good = {key: tensor.clone() for key, tensor in evaluator.network.state_dict().items()}
    with torch.no_grad():
        evaluator.network.state_dict()[name].view(-1)[0] = value

    with pytest.raises(NonFiniteLossError, match=f"^{name} is not finite after epoch 4.* nothing has been saved yet"):
        saver(evaluator)
    assert not path.exists()

    save_weights(job.ToyNet(), path)
    before = path.read_bytes()
    with pytest.raises(NonFiniteLossError, match=r"saved before, .*model\.pt, is kept"):
        saver(evaluator)
    assert path.read_bytes() == before

    evaluator.network.load_state_dict(good)
    saver(evaluator)
    assert path.read_bytes() != before


def test_large_finite_weights_whose_sum_overflows_are_saved(tmp_path: Path) -> None:
    state = {"weight": torch.full((4,), 3e38), "count": torch.tensor(3), "setting": "x"}
    refuse_non_finite(state, epoch=1, path=tmp_path / "model.pt")
    state["weight"][2] = float("-inf")
    with pytest.raises(NonFiniteLossError, match=r"^net\.weight is not finite after epoch 1"):
        refuse_non_finite(state, "net.", epoch=1, path=tmp_path / "model.pt")


def test_other_ranks_write_nothing(tmp_path: Path, job: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    run = job.build(tmp_path, epochs=1)
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    run["trainer"].run()
    assert not list(tmp_path.iterdir())


def test_a_compiled_network_is_saved_by_its_own_names(tmp_path: Path, job: ModuleType) -> None:
    network = job.ToyNet(2)
    save_weights(torch.compile(network), tmp_path / "model.pt")
    assert torch.load(tmp_path / "model.pt", weights_only=True).keys() == network.state_dict().keys()


def test_a_training_without_a_validator_is_saved_too(tmp_path: Path, job: ModuleType) -> None:
    run = job.build(tmp_path, epochs=1)
    run["state"].validator = None
    run["trainer"].run()
    state = TrainingState(str(tmp_path), save_dict=run["state"].save_dict, resume=True)
    state.load(run["trainer"])
    assert torch.load(tmp_path / "training_state.pt", weights_only=True)["best"] is None
