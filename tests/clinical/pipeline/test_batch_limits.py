"""What a run costs and when it stops: memory does not grow with the inputs, and a full disk loses nothing."""

from __future__ import annotations

import errno
import gc
import os
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.ledger import read_manifest
from msrf_monai.clinical.pipeline import predict
from msrf_monai.clinical.reading import Limits
from msrf_monai.errors import StorageError
from support.clinical_runs import ThresholdPredictor, good_pictures, result_bytes
from support.dicom_files import as_bytes, image_dataset


class Watched(ThresholdPredictor):
    """Counts how many of its items are in memory at a time."""

    def __init__(self) -> None:
        self.items: list[weakref.ref[Any]] = []
        self.most = 0

    def prepare(self, case: Case, index: int) -> dict[Any, Any]:
        item = super().prepare(case, index)
        self.items.append(weakref.ref(item["pixels"]))
        self.most = max(self.most, sum(known() is not None for known in self.items))
        return item


def test_only_a_few_inputs_are_in_memory_at_a_time(tmp_path: Path, quick_disk: None) -> None:
    good_pictures(tmp_path / "in", 40)
    predictor = Watched()

    predict(predictor, tmp_path / "in", tmp_path / "out", outputs=("stats",), readers=2, report=False)

    assert predictor.most <= 8


def test_only_a_few_frames_of_a_clip_are_in_memory_at_a_time(tmp_path: Path, quick_disk: None) -> None:
    pixels = np.zeros((60, 20, 30), np.uint8)
    (tmp_path / "clip.dcm").write_bytes(as_bytes(image_dataset(pixels)))
    predictor = Watched()

    predict(predictor, tmp_path / "clip.dcm", tmp_path / "out", outputs=("stats",), readers=2, report=False)

    assert predictor.most <= 8


def test_files_of_finished_clips_do_not_stay_in_memory(tmp_path: Path, quick_disk: None) -> None:
    """Their headers are parsed again for writing, with the pixels, and the plan must not hold them."""
    (tmp_path / "in").mkdir()
    for number in range(16):
        dataset = image_dataset(np.full((5, 300, 400), number, np.uint8))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}"
        (tmp_path / "in" / f"{number}.dcm").write_bytes(as_bytes(dataset))
    peaks: list[int] = []

    class Measuring(ThresholdPredictor):
        def finish(self, items: Any) -> Any:
            found = super().finish(items)
            gc.collect()
            peaks.append(tracemalloc.get_traced_memory()[0])
            return found

    tracemalloc.start()
    try:
        predict(Measuring(), tmp_path / "in", tmp_path / "out", outputs=("stats",), report=False)
    finally:
        tracemalloc.stop()

    # a clip is 0.6 MB: were they kept, eight more would be 4.8; a few wait for a busy disk at any one time
    assert min(peaks[8:]) - min(peaks[:8]) < 2_400_000


def test_memory_does_not_grow_with_the_number_of_inputs(tmp_path: Path, quick_disk: None) -> None:
    def peak(count: int) -> int:
        folder = tmp_path / f"in{count}"
        folder.mkdir()
        for number in range(count):
            Image.fromarray(np.full((150, 200), 20 + number % 200, np.uint8)).save(folder / f"{number}.png")
        # a file is read into a buffer of its limit
        options: dict[str, Any] = {"outputs": ("stats",), "limits": Limits(file_bytes=100_000), "report": False}
        predict(ThresholdPredictor(), folder, tmp_path / f"warm{count}", part=(1, count), **options)
        tracemalloc.start()
        try:
            predict(ThresholdPredictor(), folder, tmp_path / f"out{count}", **options)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, *many = (peak(count) for count in (20, 100, 101))

    # the pixels of one picture are 30 kB, so that 80 more would be 2.4 MB; lines and paths are some 3 kB each
    # and what something else in this process allocates meanwhile is not there twice
    assert min(many) - few < 80 * 10_000


def full_disk(function: Callable[..., Any], number: int) -> Callable[..., Any]:
    """Let a function of the system fail from its call ``number`` on, as a full disk does."""
    calls = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return function(*arguments, **options)

    return call


@pytest.mark.parametrize(("name", "number"), [("fsync", 2), ("fsync", 40), ("fsync", 61), ("pwrite", 5), ("mkdir", 9)])
def test_a_full_disk_stops_the_run_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    good_pictures(tmp_path / "in", 12)
    predict(ThresholdPredictor(), tmp_path / "in", tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(os, name, full_disk(getattr(os, name), number))
        with pytest.raises(StorageError, match=r"No space left|the disk is full"):
            predict(ThresholdPredictor(), tmp_path / "in", tmp_path / "out")

    whole = result_bytes(tmp_path / "whole")
    kept = {name: content for name, content in result_bytes(tmp_path / "out").items() if ".part-" not in name}
    assert kept.items() <= whole.items()
    if name == "fsync" and number > 2:
        assert kept
        assert 0 < len(read_manifest(tmp_path / "out").entries) < 12
    found = predict(ThresholdPredictor(), tmp_path / "in", tmp_path / "out", resume=True)

    assert (found.done, found.failed) == (12, 0)
    assert result_bytes(tmp_path / "out") == whole


def test_another_fault_of_the_disk_ends_one_input_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good_pictures(tmp_path / "in", 3)
    write, calls = Path.mkdir, []

    def once(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name.startswith(".part-") and not calls:
            calls.append(path)
            raise OSError(errno.ENAMETOOLONG, "File name too long")
        write(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", once)

    found = predict(ThresholdPredictor(), tmp_path / "in", tmp_path / "out", report=False)

    assert (found.done, found.failed) == (2, 1)
