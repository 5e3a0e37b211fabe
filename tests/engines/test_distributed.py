"""Handlers in a training by two processes."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import torch

from support import distributed_job
from support.processes import run_script


def test_two_processes_agree_leave_bad_batches_out_together_and_write_once(tmp_path: Path) -> None:
    done = run_script(distributed_job.__file__, tmp_path, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert "norm.running_var" in first["validated"]
    assert first["validated"] == second["validated"]  # the averaged network, with one rank's BatchNorm statistics
    assert first == second  # same weights, same mean losses, same averages on both
    assert torch.isfinite(torch.tensor(first["stem"])).all()
    assert all(math.isfinite(row["train_loss"]) for row in first["rows"])
    assert "the batch is left out" in done.stderr
    rows = list(csv.DictReader((tmp_path / "cases.csv").open()))
    assert [row["file"] for row in rows] == [
        f"case_{index:02d}.png" for index in range(5)
    ]  # padding's repeat is dropped
    assert torch.load(tmp_path / "training_state.pt", weights_only=True)["world_size"] == 2
    names = torch.load(tmp_path / "models" / "model.pt", weights_only=True).keys()
    assert "stem.weight" in names
