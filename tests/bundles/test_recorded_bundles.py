"""Every bundle has weights and is what was recorded of it, in every form that the network is run in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msrf_monai.bundle.stored_io import STORED_IO
from msrf_monai.bundle.verify import BACKENDS, SUMS
from msrf_monai.cli.main import app
from msrf_monai.clinical.quality import QualityLimits
from support.bundle_runs import BUNDLES

each_bundle = pytest.mark.parametrize("bundle", [ours.folder for ours in BUNDLES], ids=lambda each: each.name)
MAX_WEIGHTS_MB = 25


@each_bundle
def test_a_bundle_has_weights_and_is_recorded_and_calibrated(bundle: Path) -> None:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))

    assert (bundle / "models" / "model.pt").stat().st_size <= MAX_WEIGHTS_MB * 10**6
    assert metadata["eval_metrics"]
    assert (bundle / STORED_IO).is_file()
    assert (bundle / SUMS).is_file()
    assert metadata["quality_calibration"]["false_alarm_rate"] <= 0.05
    limits = QualityLimits.from_metadata(metadata)
    assert limits.area is not None
    assert limits.traits


@each_bundle
def test_it_gives_its_stored_outputs_in_every_form(bundle: Path) -> None:
    done = CliRunner().invoke(app, ["verify", str(bundle), "--json"])

    content = json.loads(done.stdout)["bundles"][0]
    assert content["problems"] == []
    assert done.exit_code == 0
    assert content["not_checked"] == []
    assert {(each["backend"], each["n"]) for each in content["outputs"]} == {
        (name, n) for name in BACKENDS for n in range(3)
    }
