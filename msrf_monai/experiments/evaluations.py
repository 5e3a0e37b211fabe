"""One evaluation of a trained network on one data set, in a process of its own, with a record of what was finished."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from msrf_monai.experiments.runner import Runner
from msrf_monai.experiments.runs import CASES, SUMMARY, Failure, begin, is_whole, read_record, run_step

__all__ = ["REPORT", "EvaluationOutcome", "EvaluationSpec", "evaluate"]

REPORT = "evaluation/report.html"


@dataclass(frozen=True)
class EvaluationSpec:
    """What is to be evaluated.

    Attributes:
        model: name of the trained network.
        dataset: name of the data set.
        folder: folder of the run's files.
        command: command that writes ``evaluation`` in the folder.
        digest: of everything that decides the result.
        images: number of images.
        is_own: whether this is the data set that the network was trained on.
    """

    model: str
    dataset: str
    folder: Path
    command: tuple[str, ...]
    digest: str
    images: int
    is_own: bool

    @property
    def identity(self) -> dict[str, Any]:
        """Model and data set."""
        return {"model": self.model, "dataset": self.dataset}


@dataclass(frozen=True)
class EvaluationOutcome:
    """How an evaluation has ended.

    Attributes:
        spec: the evaluation.
        state: "finished" now, "reused" from an earlier call, or "failed".
        seconds: wall time now, 0 for one that was reused.
        failure: why it failed.
    """

    spec: EvaluationSpec
    state: Literal["finished", "reused", "failed"]
    seconds: float = 0.0
    failure: Failure | None = None


def evaluate(spec: EvaluationSpec, runner: Runner, *, keep_open: Sequence[int] = ()) -> EvaluationOutcome:
    """Bring an evaluation to its end, or keep it where it is finished.

    Args:
        spec: the evaluation.
        runner: what runs the command.
        keep_open: file descriptors that the process inherits.

    Returns:
        How it ended. A command that fails makes a failed outcome, not an error.

    Raises:
        StorageError: when a record or a log cannot be written.
    """
    record = read_record(spec)
    if record is not None and is_whole(spec, record, "evaluation"):
        return EvaluationOutcome(spec, "reused")
    started = time.monotonic()
    record = begin(spec, keep=False)
    failure = run_step(spec, record, "evaluation", spec.command, (CASES, SUMMARY, REPORT), runner, keep_open)
    seconds = time.monotonic() - started
    return EvaluationOutcome(spec, "finished" if failure is None else "failed", seconds, failure)
