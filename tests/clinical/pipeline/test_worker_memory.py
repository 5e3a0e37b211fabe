"""The memory of a run and of its workers does not grow with the number of inputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import support.clinical_workers
from support.clinical_workers import stub_bundle
from support.dicom_files import as_bytes, image_dataset, pattern

SIZE = 160


def peaks(folder: Path, count: int) -> dict[str, Any]:
    """Return the most memory, in kB, of a run over so many inputs and of its workers, in processes of their own."""
    inputs = folder / f"in{count}"
    inputs.mkdir()
    dataset = image_dataset(pattern(SIZE, SIZE))
    for number in range(count):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}"
        (inputs / f"{number}.dcm").write_bytes(as_bytes(dataset))
    script = Path(support.clinical_workers.__file__)
    bundle = stub_bundle(folder / "bundle", unsynced=True)
    options = {"outputs": ("stats",), "report": False, "thumbnails": False, "source_list": False, "num_workers": 2}
    done = subprocess.run(
        [sys.executable, str(script), str(bundle), str(inputs), str(folder / f"out{count}"), json.dumps(options)],
        env={**os.environ, "PYTHONPATH": str(script.parents[1]), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["done"] == count
    assert len(found["workers"]) == 2
    return found


@pytest.mark.slow
def test_memory_is_flat_from_30_to_600_inputs(tmp_path: Path) -> None:
    few, many = peaks(tmp_path, 30), peaks(tmp_path, 600)

    # the pixels of 570 more inputs are 15 MB as they are stored, and 60 MB as the network has them
    assert max(many["workers"]) - max(few["workers"]) < 8_000
    # of each input the plan holds its header, and the manifest its line
    assert many["run"] - few["run"] < 570 * 16
