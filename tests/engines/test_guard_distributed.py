"""The guard against losses that are not numbers, in two processes of which one has the bad images."""

from __future__ import annotations

from pathlib import Path

import torch

from support import guard_job
from support.processes import run_script


def test_bad_losses_of_one_process_stop_both_and_name_its_files_alone(tmp_path: Path) -> None:
    done = run_script(guard_job.__file__, tmp_path)

    assert done.returncode == 0, done.stderr[-3000:]  # both came to their end: neither waits for the other
    first, second = ((tmp_path / f"rank{rank}.txt").read_text() for rank in range(2))
    assert first == second
    files = "/data/set/images/case_05.png, /data/set/images/case_07.png"
    expected = f"the training loss is nan at epoch 2, iteration 4, rank 1 on the batch of {files} (2 bad batches in a"
    assert first.startswith(expected)
    assert done.stderr.count("the batch is left out (1 of 1 tolerated)") == 2
    kept = torch.load(tmp_path / "training_state.pt", weights_only=True)
    assert kept["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in kept["objects"]["network"].values())
    assert not (tmp_path / "training_state.previous.pt").exists()
