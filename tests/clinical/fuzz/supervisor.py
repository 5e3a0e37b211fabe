"""Run the worker in batches; a worker that dies or stands still is a finding, and the next one goes on behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Outcome", "run_inputs"]

_BATCH = 25_000
"""Inputs of one process, whose start takes as long as a thousand of them."""
_PATIENCE = 120.0
"""Seconds after which a worker without progress is taken for hung in a decoder; above any pause of a busy machine."""


@dataclass
class Outcome:
    """What came of a run."""

    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)
    peak_mib: int = 0
    """Largest resident size of a worker."""


def run_inputs(samples: dict[str, bytes], beside: dict[str, bytes], seed: int, count: int, folder: Path) -> Outcome:
    """Open damaged inputs.

    Args:
        samples: files by name.
        beside: files that lie beside each input, by path.
        seed: of the run; the same seed gives the same inputs.
        count: how many.
        folder: an empty folder to work in.

    Returns:
        The outcome; it has no findings when every input was read or refused in order.
    """
    store, report = folder / "samples", folder / "report"
    store.mkdir()
    report.mkdir()
    for name, data in samples.items():
        (store / name.replace("/", "_")).write_bytes(data)
    for name, data in beside.items():
        (report / name).parent.mkdir(exist_ok=True)
        (report / name).write_bytes(data)
    outcome = Outcome()
    first = 0
    while first < count:
        first = _batch(store, report, seed, first, min(_BATCH, count - first), outcome)
    outcome.inputs = first
    return outcome


def _batch(store: Path, report: Path, seed: int, first: int, count: int, outcome: Outcome) -> int:
    """Run one worker, and return the number of the first input that it did not get to."""
    (report / "report.json").unlink(missing_ok=True)
    (report / "progress").write_bytes((first).to_bytes(8, "little"))
    arguments = [str(store), str(seed), str(first), str(count), str(report)]
    tests = Path(__file__).resolve().parents[2]
    places = (str(tests), str(tests.parent), os.environ.get("PYTHONPATH", ""))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
    with (report / "stderr").open("wb") as errors:
        worker = subprocess.Popen(
            [sys.executable, "-m", "clinical.fuzz.worker", *arguments], stderr=errors, env=environment
        )
        end = _wait(worker, report / "progress")
    if end == 0:
        content = json.loads((report / "report.json").read_text(encoding="utf-8"))
        outcome.outcomes.update(content["outcomes"])
        outcome.findings += content["findings"]
        outcome.peak_mib = max(outcome.peak_mib, content["peak_mib"])
        return first + count
    number = _progress(report / "progress")
    tail = (report / "stderr").read_text(encoding="utf-8", errors="replace")[-500:]
    outcome.findings.append({"number": number, "error": f"the process ended by {end}", "trace": [tail]})
    return number + 1


def _wait(worker: subprocess.Popen[bytes], progress: Path) -> int:
    """Wait for the end of a worker while it makes progress; kill it when it does not."""
    before = -1
    while True:
        try:
            return worker.wait(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            now = _progress(progress)
            if now == before:
                worker.kill()
                return worker.wait()
            before = now


def _progress(path: Path) -> int:
    return int.from_bytes(path.read_bytes(), "little")
