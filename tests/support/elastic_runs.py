"""Trainings of bundles by torchrun's elastic launcher, of which processes are killed."""

from __future__ import annotations

import json
import os
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from support.bundle_results import tensors
from support.bundle_runs import PROGRAM, ROOT, Bundle, Done, Overrides, arguments
from support.warm_programs import cold_path, warm_path

SPY = "tests.support.elastic_spy"
RESTARTS = 3


@dataclass(frozen=True)
class Elastic:
    """What a training left."""

    root: Path
    notes: Path
    done: Done

    def said(self, rank: int) -> list[dict[str, Any]]:
        """What a rank's spy noted, in all tries."""
        lines = (self.notes / f"rank{rank}.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def tries(self) -> int:
        """How often the processes were started."""
        return 1 + max(note["try"] for note in self.said(0))

    def wrote(self, rank: int) -> set[str]:
        """Files below the root that a rank touched."""
        return {note["wrote"] for note in self.said(rank) if "wrote" in note}

    def order(self, rank: int) -> dict[int, list[str]]:
        """The images that a rank learnt from in each epoch, in their order, in the try that ended the epoch."""
        seen: dict[tuple[int, int], list[str]] = defaultdict(list)
        for note in self.said(rank):
            if "saw" in note:
                epoch, names = note["saw"]
                seen[epoch, note["try"]] += names
        return {epoch: seen[epoch, last] for epoch, last in sorted(seen)}

    def state(self) -> dict[str, Any]:
        """Everything by which two trainings must agree: all that is saved for a resumption, but for its clock."""
        saved = torch.load(self.root / "models" / "state" / "training_state.pt", weights_only=True)
        for row in saved["objects"]["history"]["rows"]:
            row.pop("seconds")
        plain = {name: saved[name] for name in ("epoch", "iteration", "best", "world_size")}
        return plain | {"rows": saved["objects"]["history"]["rows"]}

    def weights(self) -> dict[str, torch.Tensor]:
        """Every tensor that is saved for a resumption, and those of the best weights."""
        found = {}
        for name in ("models/state/training_state.pt", "models/model.pt"):
            found |= tensors(torch.load(self.root / name, weights_only=True), name)
        return found


def train(
    bundle: Bundle, folder: Path, data: Path, *, kills: list[dict[str, int]], is_warm: bool = True, **more: Any
) -> Elastic:
    """Train a bundle by two processes, each restarted when one is killed."""
    root, notes = folder / "root", folder / "notes"
    for made in (root, notes):
        made.mkdir(parents=True)
    overlay = folder / "spy.json"
    handler = {"_target_": f"{SPY}.Spy", "kills": kills}
    overlay.write_text(json.dumps({"+imports": [f"$import {SPY}"], "+train#handlers": [handler]}))
    overrides: Overrides = {"bundle_root": root, "dataset_dir": data, "resume": "auto"}
    overrides |= bundle.small("train.json") | more
    words = arguments(bundle, "training", "train.json", "multi_gpu_train.json", str(overlay), **overrides)
    path = warm_path() if is_warm else cold_path()
    launcher = ["torchrun", "--standalone", "--nnodes=1", "--nproc_per_node=2", f"--max-restarts={RESTARTS}"]
    environment = {
        **os.environ,
        **{"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PATH": path},
        **{"MSRF_SPY_ROOT": str(root), "MSRF_SPY_NOTES": str(notes)},
    }
    command = ["/usr/bin/env", *launcher, "-m", PROGRAM, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT, timeout=900)
    return Elastic(root, notes, done)
