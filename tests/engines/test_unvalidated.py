"""A training without validation keeps its weights all the same."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from msrf_monai.engines import SaveUnvalidated
from msrf_monai.errors import NonFiniteLossError
from msrf_monai.files import sha256_of


def attached(job: ModuleType, folder: Path, *, epochs: int = 2, resume: bool = False) -> dict:
    run = job.build(folder, epochs=epochs, resume=resume)
    SaveUnvalidated(validator=run["evaluator"], save_dir=str(folder / "models"), seed=3).attach(run["trainer"])
    return run


@pytest.mark.filterwarnings("ignore:.dataloader. is empty")
def test_the_last_averaged_weights_are_saved_when_there_is_nothing_to_validate_with(
    tmp_path: Path, job: ModuleType
) -> None:
    run = attached(job, tmp_path)
    run["evaluator"].state.epoch_length = 0

    run["trainer"].run()

    path = tmp_path / "models" / "model.pt"
    saved = torch.load(path, weights_only=True)
    assert saved.keys() == run["ema"].state_dict().keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in run["ema"].state_dict().items())
    record = json.loads((tmp_path / "models" / "model.json").read_text())
    assert (record["epoch"], record["metric"], record["seed"]) == (2, None, 3)
    assert record["sha256"] == sha256_of(path)


def test_the_best_weights_stay_when_a_validation_took_place(tmp_path: Path, job: ModuleType) -> None:
    run = attached(job, tmp_path)
    run["evaluator"].metric_cmp_fn = lambda now, best: False  # no epoch after the first counts as better

    run["trainer"].run()

    assert json.loads((tmp_path / "models" / "model.json").read_text())["epoch"] == 1


def test_a_resumed_run_that_is_over_leaves_the_best_weights_alone(tmp_path: Path, job: ModuleType) -> None:
    attached(job, tmp_path)["trainer"].run()
    before = sha256_of(tmp_path / "models" / "model.pt")

    again = attached(job, tmp_path, resume=True)
    again["trainer"].run()

    assert again["evaluator"].state.iteration == 0
    assert sha256_of(tmp_path / "models" / "model.pt") == before


@pytest.mark.filterwarnings("ignore:.dataloader. is empty")
def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path, job: ModuleType) -> None:
    run = attached(job, tmp_path)
    run["evaluator"].state.epoch_length = 0
    with torch.no_grad():
        run["network"].stem.weight.fill_(float("nan"))

    with pytest.raises(NonFiniteLossError):
        run["trainer"].run()

    assert not (tmp_path / "models" / "model.pt").exists()
