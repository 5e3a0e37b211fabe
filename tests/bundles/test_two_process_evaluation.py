"""Evaluation by two processes, of as many images as they can share alike and of one more: the scores of one."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from msrf_monai.data import load_datalist
from support.bundle_runs import BUNDLES, Bundle, Train, finished, run_bundle

EVALUATION = ("train.json", "evaluate.json")
TOLERANCE = 1e-6


def _numbers(value: Any, name: str = "") -> dict[str, Any]:
    """Return every value of a nested summary by its path."""
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in _numbers(part, f"{name}/{key}").items()}
    if isinstance(value, list):
        return {k: v for place, part in enumerate(value) for k, v in _numbers(part, f"{name}/{place}").items()}
    return {name: value}


def _cases(folder: Path) -> list[dict[str, str]]:
    with (folder / "cases.csv").open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.extended
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_two_processes_score_each_image_once_and_as_one_process_does(
    bundle: Bundle, count: int, trained: Train, tmp_path: Path
) -> None:
    job = trained(bundle)
    content = json.loads((job.data / "dataset.json").read_text())
    content["test"] = content["test"][:count]
    data = tmp_path / "data"
    data.mkdir()
    for part in job.data.iterdir():
        if part.name != "dataset.json":
            (data / part.name).symlink_to(part)
    (data / "dataset.json").write_text(json.dumps(content))
    common = {"bundle_root": job.root, "dataset_dir": data, **bundle.small(*EVALUATION)}

    one, two = tmp_path / "one", tmp_path / "two"
    finished(run_bundle(bundle, "evaluating", *EVALUATION, **common, output_dir=one))
    shared = (*EVALUATION, "multi_gpu_evaluate.json")
    finished(run_bundle(bundle, "evaluating", *shared, torchrun=2, **common, output_dir=two))

    files = [row["file"] for row in _cases(two)]
    assert len(set(files)) == len(load_datalist(data, "test")) == count
    assert files == [row["file"] for row in _cases(one)]
    assert _cases(one) == _cases(two)
    numbers = [_numbers(json.loads((folder / "summary.json").read_text())) for folder in (one, two)]
    assert numbers[0].keys() == numbers[1].keys()
    assert len(numbers[0]) > 20
    for name, value in numbers[0].items():
        if isinstance(value, int | float):
            assert numbers[1][name] == pytest.approx(value, abs=TOLERANCE), name
