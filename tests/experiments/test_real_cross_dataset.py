"""The command for several data sets with the real vessel bundle, as small as it gets."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from msrf_monai.data import synthesize_dataset
from msrf_monai.networks import IMFFNet

BUNDLE = "bundles/imff_net_retinal_vessel_segmentation"
WIDTHS = (4, 4, 8, 8, 8)


@pytest.mark.slow
def test_one_network_on_two_drawn_data_sets_through_the_bundle(tmp_path: Path, repository: Path) -> None:
    for seed, name in enumerate(("here", "elsewhere")):
        synthesize_dataset("vessels", tmp_path / "data" / name, counts=(1, 1, 1), size=(72, 64), seed=seed)
        path = tmp_path / "data" / name / "dataset.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "name": name}))
    torch.manual_seed(0)
    torch.save(IMFFNet(features=WIDTHS).state_dict(), tmp_path / "model.pt")
    words = ["--bundle", str(repository / BUNDLE), "--weights", "model.pt", "--trained-on", "here"]
    words += ["--dataset", "here", "--dataset", "elsewhere", "--output", "out"]
    words += ["--override", f"features={list(WIDTHS)}".replace(" ", ""), "--override", "window_size=[64,64]"]
    command = [sys.executable, "-m", "msrf_monai.cli.main", "experiment", "cross-dataset", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=600)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "out" / "report.html")
    with (tmp_path / "out" / "results.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [(row["dataset"], row["images"]) for row in rows] == [("here", "1"), ("elsewhere", "3")]
    chosen = [
        json.loads((tmp_path / "out" / "runs" / "here" / name / "evaluation" / "threshold.json").read_text())
        for name in ("here", "elsewhere")
    ]
    assert chosen[0]["threshold"] == chosen[1]["threshold"] == float(rows[1]["threshold"])
    assert chosen[0]["images"] == 1  # the validation part of the data set that it was trained on
    assert chosen[0]["pixels"] == "in the field of view"
    assert len(list((tmp_path / "out" / "runs" / "here" / "elsewhere" / "evaluation" / "overlays").rglob("*.png"))) == 3
