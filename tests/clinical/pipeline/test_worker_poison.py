"""Inputs, bundles and machines that bring workers down: found out, said, and no reason to lose anything else."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from msrf_monai.clinical.ledger import MANIFEST, Entry, read_manifest
from msrf_monai.clinical.pipeline import predict
from msrf_monai.errors import EngineError
from support.clinical_runs import result_bytes
from support.clinical_workers import PROGRAM, children, load, stub_bundle
from support.dicom_files import as_bytes, image_dataset, pattern

FEW: dict[str, Any] = {"outputs": ("mask", "stats"), "report": False}
POISON = {3: 22, 4: 22}
"""Height of two neighbours among the inputs; all others are 20 high."""


@pytest.fixture(autouse=True)
def _stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msrf_monai.clinical.execution.worker_handle.PROGRAM", PROGRAM)
    monkeypatch.setattr("msrf_monai.clinical.execution.engines.load_predictor", load)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for number in range(12):
        dataset = image_dataset(pattern(POISON.get(number, 20), 30, peak=120 + number))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}"
        (tmp_path / "in" / f"{number:02}.dcm").write_bytes(as_bytes(dataset))
    return tmp_path / "in"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["abort_rows", "die_rows"], ids=["aborts", "killed"])
def test_inputs_that_bring_workers_down_are_refused_and_all_others_done(inputs: Path, tmp_path: Path, way: str) -> None:
    bundle = stub_bundle(tmp_path / "bundle", **{way: 22})

    found = predict(bundle, inputs, tmp_path / "out", num_workers=2, **FEW)
    again = predict(bundle, inputs, tmp_path / "out", num_workers=1, resume=True, **FEW)

    assert (found.done, found.failed, again.kept) == (10, 2, 12)
    lines = [json.loads(line) for line in (tmp_path / "out" / MANIFEST).read_bytes().splitlines()][1:]
    assert set(Counter(line["folder"] for line in lines).values()) == {1}
    failed = [entry for entry in read_manifest(tmp_path / "out").entries if entry.state == "failed"]
    assert [entry.code for entry in failed] == ["crashed"] * 2
    assert all(entry.digest and not entry.outputs for entry in failed)
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".part-")]
    predict(stub_bundle(tmp_path / "harmless"), inputs, tmp_path / "whole", **FEW)
    assert result_bytes(tmp_path / "out").items() <= result_bytes(tmp_path / "whole").items()
    assert children() == []


def test_an_input_that_was_mended_is_done_after_all(inputs: Path, tmp_path: Path) -> None:
    bundle = stub_bundle(tmp_path / "bundle", abort_rows=22)
    for number in (0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11):
        (inputs / f"{number:02}.dcm").unlink()
    first = predict(bundle, inputs, tmp_path / "out", num_workers=1, **FEW)
    dataset = image_dataset(pattern(20, 30))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.4"
    (inputs / "03.dcm").write_bytes(as_bytes(dataset))

    second = predict(bundle, inputs, tmp_path / "out", num_workers=1, resume=True, **FEW)

    assert (first.failed, second.done, second.kept) == (1, 1, 0)


def test_workers_that_always_die_end_the_run(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msrf_monai.clinical.execution.workers._DEATHS_IN_A_ROW", 3)
    bundle = stub_bundle(tmp_path / "bundle", abort_rows=20)

    with pytest.raises(EngineError, match=r"3 worker processes died without one input finished in between .*-6"):
        predict(bundle, inputs, tmp_path / "out", num_workers=1, **FEW)

    assert children() == []


def test_workers_that_die_while_they_load_end_the_run(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"while they loaded the bundle .*status 7.* use fewer workers"):
        predict(stub_bundle(tmp_path / "bundle", dies=True), inputs, tmp_path / "out", num_workers=2, **FEW)

    assert children() == []


def test_a_bundle_that_changes_during_the_run_ends_it(inputs: Path, tmp_path: Path) -> None:
    bundle = stub_bundle(tmp_path / "bundle", seconds=0.05)

    class Changing:
        """Changes the bundle and kills the worker after the first input."""

        is_done = False

        def begin(self, inputs: int, frames: int) -> None:
            pass

        def ended(self, entry: Entry, frames: int, is_new: bool) -> None:
            if not self.is_done:
                self.is_done = True
                stub_bundle(bundle, digest="cd" * 32)
                os.kill(children()[0], signal.SIGKILL)

    with pytest.raises(EngineError, match="the bundle has changed during the run"):
        predict(bundle, inputs, tmp_path / "out", num_workers=1, observer=Changing(), **FEW)

    assert children() == []


def test_a_system_that_lets_no_process_begin_ends_the_run(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("subprocess.Popen", refuse)

    with pytest.raises(EngineError, match=r"cannot begin \(Resource temporarily unavailable\); use a smaller number"):
        predict(stub_bundle(tmp_path / "bundle"), inputs, tmp_path / "out", num_workers=2, **FEW)
