"""The report on five images, which most tests of it read."""

from __future__ import annotations

from pathlib import Path

import pytest

from msrf_monai.engines import VesselReport
from support.vessel_items import Item, run_handler, vessel_item


@pytest.fixture(autouse=True)
def _no_diagram(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the diagram, which takes most of the time; the report of ``folder`` has it."""
    monkeypatch.setattr("msrf_monai.engines.vessel_report.draw_reliability", lambda calibration: b"png")


@pytest.fixture(scope="session")
def items() -> list[Item]:
    """Five images with second observers and fields of view."""
    return [vessel_item(index) for index in range(5)]


@pytest.fixture(scope="session")
def folder(items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on these images at the threshold 0.4."""
    out = tmp_path_factory.mktemp("report")
    run_handler(VesselReport(str(out), dataset_dir="/data/set", threshold=0.4), items)
    return out
