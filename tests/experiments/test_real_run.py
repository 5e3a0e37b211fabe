"""A cross-validation of the real bundle through ``python -m monai.bundle``, as small as it gets."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from msrf_monai.data import prepare_dataset, synthesize_dataset
from msrf_monai.experiments import make_folds, read_pictures

BUNDLE = "bundles/ssr_unet_skin_lesion_segmentation"
SMALL = {
    "network_def::features": "[4,4,8,8]",
    "image_size": "[64,64]",
    "patch_size": "[64,64]",
    "max_epochs": "2",
    "batch_size": "4",
    "use_ema": "False",
}


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "msrf_monai.cli.main", "experiment", "cross-validate", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=600)


@pytest.mark.slow
def test_two_folds_of_two_variants_through_the_bundle(tmp_path: Path, repository: Path) -> None:
    synthesize_dataset("lesion", tmp_path / "data" / "drawn", counts=(14, 2, 2), size=(64, 64), seed=1)
    words = ["--bundle", str(repository / BUNDLE), "--dataset", "drawn", "--recalibration", "none,ssr", "--folds", "2"]
    words += ["--output", "out", *(word for key, value in SMALL.items() for word in ("--override", f"{key}={value}"))]

    done = run(*words, folder=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("done in") == 4
    assert done.stdout.splitlines()[-1] == str(tmp_path / "out" / "report.html")
    with (tmp_path / "out" / "per_image.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 2 * len({row["image"] for row in rows}) == 32
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert list(summary["variants"]) == ["none", "ssr"]
    for variant in ("none", "ssr"):
        for fold in range(2):
            folder = tmp_path / "out" / "runs" / variant / f"fold_{fold}"
            manifest = json.loads((folder / "training" / "run.json").read_text())
            assert manifest["seed"] == 42 + fold
            assert manifest["config"]["network_def"]["recalibration"] == (None if variant == "none" else variant)
            assert manifest["config"]["network_def"]["features"] == [4, 4, 8, 8]
            with (folder / "training" / "history.csv").open(newline="") as handle:
                assert len(list(csv.DictReader(handle))) == 2

    again = run(*words, "--quiet", folder=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")


@pytest.mark.realdata
def test_busi_has_its_classes_spread_over_the_folds(data_root: Path, tmp_path: Path) -> None:
    prepare_dataset("busi", data_root / "BUSI", tmp_path / "busi", images="reference")

    prepared = read_pictures(tmp_path / "busi")
    splits = make_folds(prepared.groups, folds=5, seed=42, strata=prepared.strata, dev_share=0.2)

    assert prepared.strata is not None
    for stratum in ("benign", "malignant"):
        counts = [sum(prepared.strata[name] == stratum for name in split.test) for split in splits]
        assert max(counts) - min(counts) <= 1
        assert min(counts) > 0
