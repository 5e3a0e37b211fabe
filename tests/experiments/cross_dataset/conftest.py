"""One network and two data sets, which the tests of comparisons change by keywords."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msrf_monai.experiments import CrossDataset, TrainedModel
from support.cross_dataset_fakes import Ask, make_set
from support.experiment_fakes import make_bundle


@pytest.fixture(autouse=True)
def _no_diagram(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the diagrams of the pairs, which take most of the time."""
    monkeypatch.setattr("msrf_monai.engines.vessel_report.draw_reliability", lambda calibration: b"png")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle whose evaluation can choose its threshold on another data set."""
    root = make_bundle(tmp_path / "bundle")
    path = root / "configs" / "evaluate.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "calibration_dir": "@dataset_dir"}))
    return root


@pytest.fixture
def ask(tmp_path: Path, bundle: Path) -> Ask:
    """One network of CHASE on CHASE and STARE, to be changed by keywords."""
    for name in ("chase", "stare"):
        make_set(tmp_path / name)
        (tmp_path / f"{name}.pt").write_text(f"weights of {name}")

    def asked(**changes: Any) -> CrossDataset:
        settings = CrossDataset(
            models=[TrainedModel(tmp_path / "chase.pt", tmp_path / "chase", bundle)],
            datasets=[tmp_path / "chase", tmp_path / "stare"],
            output=tmp_path / "out",
        )
        return replace(settings, **changes)

    return asked
