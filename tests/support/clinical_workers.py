"""Runs with worker processes whose predictor needs no network: it is read from a folder that stands for a bundle."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.execution import engines, ray_workers, worker_handle, worker_process, worker_work
from msrf_monai.clinical.prediction import Prediction
from support.clinical_runs import ThresholdPredictor
from support.dicom_files import as_bytes, image_dataset, pattern

__all__ = ["PROGRAM", "StubActor", "StubPredictor", "children", "light_inputs", "main", "peak_kilobytes", "stub_bundle"]
__all__ += ["use_stubs"]

PROGRAM = "from support.clinical_workers import main; main()"
"""What a worker runs in place of the real program."""


class StubPredictor(ThresholdPredictor):
    """Marks bright pixels, of slides those that are not glass; does what its bundle says to the process."""

    metadata = {"slide_tiles": {"tile": [64, 80], "batch": 2}}  # noqa: RUF012

    def __init__(self, **behaviour: Any) -> None:
        self.behaviour = behaviour
        self.model_digest = behaviour.get("digest", ThresholdPredictor.model_digest)

    def prepare(self, case: Case, index: int) -> dict[Any, Any]:
        self._misbehave(case)
        pixels = case.frame(index)
        if case.info.samples == 3:
            return {"pixels": 250.0 - pixels[..., 1]}
        return {"pixels": pixels}

    def finish(self, items: Iterable[dict[Any, Any]]) -> Prediction:
        masks = np.stack([item["mask"] for item in items])
        return Prediction(masks, masks[:, None].astype(np.float16), (0.9,) * len(masks), 0.0)

    def infer(self, item: dict[Any, Any]) -> dict[Any, Any]:
        if self.behaviour.get("leaks"):
            warnings.warn("SECRET^NAME", stacklevel=1)
            if item["pixels"].shape[0] == 22:
                raise RuntimeError("SECRET^NAME")
        return super().infer(item)

    def _leak(self, case: Case) -> None:
        logging.getLogger("anything").warning("reading %s of SECRET^NAME", case.sources[0])
        logging.getLogger("msrf_monai.anything").error("reading %s, frame 0", case.sources[0])
        warnings.warn(f"Invalid value for VR DA: '19500131' in {case.sources[0]}", stacklevel=1)
        if case.info.rows == 20:
            raise ValueError(f"cannot read {case.sources[0]} of SECRET^NAME 4711-0815")

    def _misbehave(self, case: Case) -> None:
        if self.behaviour.get("leaks"):
            self._leak(case)
        if case.info.rows == self.behaviour.get("abort_rows"):
            os.abort()
        if case.info.rows == self.behaviour.get("die_rows"):
            os.kill(os.getpid(), signal.SIGKILL)
        if case.info.rows == self.behaviour.get("raises_rows"):
            raise RuntimeError(str(case.sources[0]))
        if self.behaviour.get("endless") in [source.name for source in case.sources]:
            threading.Event().wait()
        time.sleep(self.behaviour.get("seconds", 0.0))


def stub_bundle(folder: Path, **behaviour: Any) -> Path:
    """Make a folder that stands for a bundle.

    Args:
        folder: made when missing.
        behaviour: ``abort_rows`` and ``die_rows``: height of a picture that brings the process down; ``raises_rows``:
            of one that fails; ``endless``: name of a file that is never done with; ``seconds`` for each picture;
            ``digest`` of the model; ``fails`` or ``dies`` while it is loaded; ``leaks`` what is in a file into logs,
            warnings and errors; ``full_after``: so many times the disk can be synced; ``unsynced``: it is not waited
            for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stub.json").write_text(json.dumps(behaviour))
    return folder


def light_inputs(folder: Path, count: int) -> Path:
    """Save DICOM images, which need neither torch nor a decoder, so that a worker begins quickly."""
    folder.mkdir()
    for number in range(count):
        dataset = image_dataset(pattern(20, 30, peak=120 + number % 100), InstanceNumber=number)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}"
        (folder / f"{number:04}.dcm").write_bytes(as_bytes(dataset))
    return folder


def use_stubs() -> None:
    """Let runs of this process load stubs, here or in workers; in tests, what it sets is put back by them."""
    worker_handle.PROGRAM = PROGRAM
    ray_workers.ACTOR = StubActor
    engines.load_predictor = load  # type: ignore[assignment]


def load(bundle: Path, settings: Any, **more: Any) -> StubPredictor:
    """Load a stub."""
    behaviour = json.loads((bundle / "stub.json").read_text())
    if "fails" in behaviour:
        from msrf_monai import errors

        raise getattr(errors, behaviour["fails"][0], RuntimeError)(behaviour["fails"][1])
    if behaviour.get("dies"):
        os._exit(7)
    if "full_after" in behaviour:
        os.fsync = _full_disk(behaviour["full_after"])
    if behaviour.get("unsynced"):
        os.fsync = lambda descriptor: None
    return StubPredictor(**behaviour)


def _full_disk(most: int) -> Any:
    sync, calls = os.fsync, iter(range(most))

    def call(descriptor: int) -> None:
        if next(calls, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    return call


def main() -> None:
    """Be a worker."""
    worker_work.load_predictor = load  # type: ignore[assignment]
    worker_process.main()


class StubActor(ray_workers.WorkerActor):
    """A worker in a cluster."""

    def _serve(self) -> None:
        worker_work.load_predictor = load  # type: ignore[assignment]
        super()._serve()


def children(parent: int | None = None) -> list[int]:
    """Return the numbers of a process's children that are alive, without the server that starts programs for tests."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        is_child = int(fields[1]) == (parent or os.getpid()) and fields[0] != "Z"
        if is_child and b"warm_server" not in (path.parent / "cmdline").read_bytes():
            found.append(int(path.parent.name))
    return sorted(found)


def peak_kilobytes(process: int) -> int:
    """Return the most memory that a process has had so far."""
    (line,) = [each for each in Path(f"/proc/{process}/status").read_text().splitlines() if each.startswith("VmHWM")]
    return int(line.split()[1])


class _Peaks:
    """Notes at the end of a run how much memory this process and its workers have had."""

    def begin(self, inputs: int, frames: int) -> None:
        self.left = inputs

    def ended(self, entry: Any, frames: int, is_new: bool) -> None:
        self.left -= 1
        if self.left == 0:
            self.found = {"run": peak_kilobytes(os.getpid()), "workers": list(map(peak_kilobytes, children()))}


if __name__ == "__main__":
    # a run by itself, to be killed or measured: BUNDLE INPUTS OUTPUT JSON
    from msrf_monai.clinical.pipeline import predict

    use_stubs()
    peaks = _Peaks()
    done = predict(sys.argv[1], sys.argv[2], sys.argv[3], observer=peaks, **json.loads(sys.argv[4]))
    print(json.dumps({**vars(done), **peaks.found}))
