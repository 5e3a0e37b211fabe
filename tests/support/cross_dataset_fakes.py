"""Prepared data sets of tiny files and a runner that takes no time, for tests of comparisons of data sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from msrf_monai.data import load_datalist
from msrf_monai.engines import VesselReport
from msrf_monai.experiments import CrossDataset, TrainedModel
from support.experiment_fakes import options_of

Ask = Callable[..., CrossDataset]


def make_set(folder: Path, *, name: str | None = None, count: int = 6, test: int = 2, extras: bool = True) -> Path:
    """Write a prepared data set of tiny files; the last ``test`` are its test part, the two before its validation."""
    parts: dict[str, list[dict[str, Any]]] = {"training": [], "validation": [], "test": []}
    digests = {}
    for index in range(count):
        item: dict[str, Any] = {"id": f"{folder.name}{index}", "fold": index % 2}
        for key in ("image", "label", *(("fov", "label2") if extras else ())):
            item[key] = f"{key}s/{folder.name}{index}.png"
            path = folder / item[key]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{key} {folder.name} {index}")
            digests[item[key]] = hashlib.sha256(path.read_bytes()).hexdigest()
        part = "test" if index >= count - test else "validation" if index >= count - test - 2 else "training"
        parts[part].append(item)
    header = {"name": name or folder.name, "licence": "CC <BY>", "citation": "A & B"}
    (folder / "dataset.json").write_text(json.dumps({**header, **parts, "sha256": digests}))
    return folder


class FakeEvaluation:
    """Reports on made-up maps, as the bundle's evaluation would on those of a network.

    Args:
        fail: called with network and data set; returns an exit code.
    """

    def __init__(self, fail: Callable[[str, str], int] = lambda model, dataset: 0) -> None:
        self.fail = fail
        self.calls: list[tuple[str, str]] = []
        self.options: list[dict[str, str]] = []
        self.topology = False

    def __call__(self, command: Sequence[str], log: Path, *, keep_open: Sequence[int] = ()) -> int:
        pair = (log.parent.parent.name, log.parent.name)
        self.calls.append(pair)
        options = options_of(command)
        self.options.append(options)
        log.write_text("evaluating\nerror: the last line\n")
        if self.fail(*pair):
            return self.fail(*pair)
        weights = Path(options["weights"]).read_text()
        names = [item["image"] for item in load_datalist(options["dataset_dir"], "test")]

        def step(engine: Engine, name: str) -> list[dict[str, Any]]:
            engine.state.batch = [made_up_item(name, weights)]
            return engine.state.batch  # type: ignore[no-any-return]

        engine = Engine(step)
        chosen = 0.3 if "chase" in options["calibration_dir"] else 0.5
        report = VesselReport(options["output_dir"], threshold=chosen, topology=self.topology, samples=50)
        report.attach(engine)
        engine.run(names)
        return 0


def made_up_item(name: str, weights: str) -> dict[str, Any]:
    """Return an image as an evaluator holds it, which name and weights decide."""
    rng = np.random.default_rng(int(hashlib.sha256(f"{Path(name).name}{weights}".encode()).hexdigest()[:6], 16))
    label = (rng.random((16, 12)) > 0.7).astype(np.float32)
    said = np.clip(0.5 * label + rng.normal(0.25, 0.15, label.shape), 0, 1).astype(np.float32)
    image = MetaTensor(torch.zeros(3, 16, 12), meta={"filename_or_obj": name})
    maps = {"label": label, "probability": said, "fov": np.ones_like(label), "label2": np.roll(label, 1)}
    return {"image": image, **{key: torch.from_numpy(each)[None] for key, each in maps.items()}}


def both_networks(tmp_path: Path, bundle: Path) -> list[TrainedModel]:
    """Return the networks of CHASE and STARE."""
    return [TrainedModel(tmp_path / f"{name}.pt", tmp_path / name, bundle) for name in ("chase", "stare")]


def results_of(tmp_path: Path) -> dict[str, Any]:
    """Return what the comparison wrote."""
    return json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]
