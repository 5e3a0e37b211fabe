"""The plug is pulled at any moment: what is resumed ends in the same bytes, and nothing is done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import support.clinical_kills
from msrf_monai.clinical.ledger import MANIFEST, read_manifest
from support.clinical_runs import result_bytes
from support.dicom_files import as_bytes, image_dataset, pattern

INPUTS, MOMENTS, KILLS = 5, 8, 6


def dicom_inputs(folder: Path, count: int) -> Path:
    """Images that need neither torch nor a decoder, and one that is refused."""
    folder.mkdir()
    for number in range(count):
        dataset = image_dataset(pattern(20, 30, peak=120 + number), InstanceNumber=number)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}"
        (folder / f"{number}.dcm").write_bytes(as_bytes(dataset))
    (folder / "bad.dcm").write_bytes(b"no DICOM")
    return folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of all runs, and how they ended."""
    work = tmp_path_factory.mktemp("killed")
    settings = {"options": {}, "moments": MOMENTS, "kills": KILLS, "seed": 7}
    # one thread: what is forked must not have begun any
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(support.clinical_kills.__file__).parents[1]),
    }
    program = str(support.clinical_kills.__file__)
    arguments = [sys.executable, program, str(dicom_inputs(work / "in", INPUTS)), str(work), json.dumps(settings)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return work, json.loads(done.stdout)


def test_every_kill_happened_and_every_resumed_run_ended(killed: tuple[Path, dict[str, Any]]) -> None:
    _, said = killed

    assert len(said["ends"]) == MOMENTS
    for moment, status, resumed, found in said["ends"]:
        assert status == -signal.SIGKILL, moment
        assert resumed == 0, moment
        assert (found["done"], found["failed"]) == (INPUTS, 1), moment
    assert said["kills"] >= 3
    assert (said["last"][1]["done"], said["last"][1]["failed"]) == (INPUTS, 1)


def test_some_kills_came_before_and_some_after_the_first_result(killed: tuple[Path, dict[str, Any]]) -> None:
    kept = {found["kept"] for _, _, _, found in killed[1]["ends"]}

    assert min(kept) < 2
    assert max(kept) > INPUTS // 2


def test_resumed_runs_leave_the_same_bytes_as_an_undisturbed_one(killed: tuple[Path, dict[str, Any]]) -> None:
    work, said = killed
    expected = result_bytes(work / "undisturbed")

    assert len(expected) >= 3 * INPUTS
    for name in [*(f"killed-{end[0]}" for end in said["ends"]), "often"]:
        assert result_bytes(work / name) == expected, name
        assert {path.name for path in (work / name).iterdir()} == {
            path.name for path in (work / "undisturbed").iterdir()
        }


def test_nothing_is_done_twice(killed: tuple[Path, dict[str, Any]]) -> None:
    work, said = killed
    for name in [*(f"killed-{end[0]}" for end in said["ends"]), "often"]:
        lines = [json.loads(line) for line in (work / name / MANIFEST).read_bytes().splitlines()]
        counted = Counter(line["folder"] for line in lines[1:])
        assert set(counted.values()) == {1}, name
        assert len(counted) == INPUTS + 1


def test_manifests_say_the_same_but_for_the_seconds(killed: tuple[Path, dict[str, Any]]) -> None:
    work, said = killed

    def told(name: str) -> Any:
        manifest = read_manifest(work / name)
        return manifest.header, {entry.folder: {**vars(entry), "timings": None} for entry in manifest.entries}

    for moment, *_ in said["ends"]:
        assert told(f"killed-{moment}") == told("undisturbed")
