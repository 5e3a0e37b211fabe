"""The vessel report by two processes: the same numbers as by one, each image once, each file written once."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.processes import exit_as_two, join_two, run_script

SIZES = [(24, 20), (24, 26), (30, 20), (24, 20), (26, 26)]


def _item(index: int) -> dict[str, Any]:
    from monai.data import MetaTensor

    rng = np.random.default_rng(index)
    label = (rng.random(SIZES[index]) > 0.8).astype(np.float32)
    probability = np.clip(0.5 * label + rng.normal(0.25, 0.2, SIZES[index]), 0, 1).astype(np.float32)
    image = MetaTensor(torch.zeros(3, *SIZES[index]), meta={"filename_or_obj": f"/data/c{index}.png"})
    fov = torch.ones(1, *SIZES[index])
    fov[:, :4] = 0
    return {
        "image": image,
        "label": torch.from_numpy(label)[None],
        "fov": fov,
        "probability": torch.from_numpy(probability)[None],
    }


def _evaluate(output: Path, places: list[int]) -> dict[str, float]:
    """Choose a threshold and report, both on the items of these places."""
    from ignite.engine import Engine

    from msrf_monai.engines import ChooseThreshold, VesselReport

    def step(engine: Any, index: int) -> list[dict[str, Any]]:
        engine.state.batch = [_item(index)]
        return [_item(index)]

    metrics: dict[str, float] = {}
    report = VesselReport(str(output), threshold=output / "threshold.json", topology=False)
    for handler in (ChooseThreshold(str(output)), report):
        engine = Engine(step)
        handler.attach(engine)
        engine.run(places)
        metrics |= engine.state.metrics
    return metrics


def _process(rank: int, folder: Path) -> None:
    join_two(rank, folder)
    # a sampler shares five images as three and three: the first one is repeated
    metrics = _evaluate(folder / "two", [[0, 2, 4], [1, 3, 0]][rank])
    (folder / f"rank{rank}.json").write_text(json.dumps(metrics))
    torch.distributed.destroy_process_group()


def test_two_processes_report_what_one_does(tmp_path: Path) -> None:
    done = run_script(__file__, tmp_path, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = _evaluate(tmp_path / "one", [0, 1, 2, 3, 4])

    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first == pytest.approx(alone)
    one, two = (list(csv.DictReader((tmp_path / name / "cases.csv").open(newline=""))) for name in ("one", "two"))
    assert one == two
    assert len(one) == 5 * 3
    tables = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("one", "two")]
    assert tables[0]["calibration"]["bins"][3]["pixels"] == tables[1]["calibration"]["bins"][3]["pixels"]
    assert tables[0]["pictures"] == tables[1]["pictures"]
    assert json.loads((tmp_path / "two" / "threshold.json").read_text())["images"] == 5
    assert not list((tmp_path / "two").glob(".*"))


if __name__ == "__main__":
    exit_as_two(_process, Path(sys.argv[1]))
