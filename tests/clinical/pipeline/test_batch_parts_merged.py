"""``--part i/n``: whatever n is and in whatever order they run, all parts together are one run."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msrf_monai.clinical.ledger import MANIFEST, Entry, read_manifest
from msrf_monai.clinical.pipeline import predict
from support.clinical_runs import ThresholdPredictor, result_bytes
from support.clinical_workers import light_inputs
from support.volume_files import save_dicom_series, scan_values

OPTIONS: dict[str, Any] = {"outputs": ("mask", "stats"), "report": False}
INPUTS = 14
"""Images, a volume and a file that is refused."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs of several kinds, and the results of one run over all of them."""
    folder = tmp_path_factory.mktemp("parts")
    light_inputs(folder / "in", INPUTS - 2)
    save_dicom_series(folder / "in" / "ct", scan_values(), StudyInstanceUID="2.25.500", FrameOfReferenceUID="2.25.501")
    (folder / "in" / "bad.dcm").write_bytes(b"no DICOM")
    predict(ThresholdPredictor(), folder / "in", folder / "whole", **OPTIONS)
    assert len(read_manifest(folder / "whole").entries) == INPUTS
    return folder


def told(output: Path) -> list[Entry]:
    """Return what a manifest says, without the seconds."""
    return [replace(entry, timings={}) for entry in read_manifest(output).entries]


def by_folder(entries: list[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda each: each.folder)


@pytest.mark.usefixtures("quick_disk")
@pytest.mark.parametrize("count", [1, 2, 3, 17])
def test_all_parts_together_are_one_run(work: Path, tmp_path: Path, count: int) -> None:
    numbers = list(range(1, count + 1))
    random.Random(count).shuffle(numbers)

    for number in numbers:
        predict(ThresholdPredictor(), work / "in", tmp_path / f"{number}", part=(number, count), **OPTIONS)

    parts = [tmp_path / f"{number}" for number in numbers]
    merged = [entry for part in parts for entry in told(part)]
    assert by_folder(merged) == by_folder(told(work / "whole"))
    files = [result_bytes(part) for part in parts]
    assert sum(map(len, files)) == len(result_bytes(work / "whole"))
    assert {name: content for each in files for name, content in each.items()} == result_bytes(work / "whole")
    assert all(read_manifest(part).header == read_manifest(work / "whole").header for part in parts)


@pytest.mark.usefixtures("quick_disk")
def test_a_part_that_is_run_again_checks_what_is_there_and_does_the_rest(work: Path, tmp_path: Path) -> None:
    output = tmp_path / "1"
    first = predict(ThresholdPredictor(), work / "in", output, part=(1, 2), **OPTIONS)
    lines = (output / MANIFEST).read_bytes()
    before = result_bytes(output)

    again = predict(ThresholdPredictor(), work / "in", output, part=(1, 2), resume=True, **OPTIONS)

    assert (again.done, again.failed, again.kept) == (first.done, first.failed, first.done + first.failed)
    assert (output / MANIFEST).read_bytes() == lines
    damaged = output / next(name for name in before if name.endswith("stats.json"))
    damaged.write_bytes(damaged.read_bytes().replace(b"0", b"1"))
    mended = predict(ThresholdPredictor(), work / "in", output, part=(1, 2), resume=True, **OPTIONS)
    assert mended.kept == again.kept - 1
    assert result_bytes(output) == before
    attempts = [json.loads(line)["attempt"] for line in (output / MANIFEST).read_bytes().splitlines()[1:]]
    assert sorted(attempts)[-2:] == [1, 2]
