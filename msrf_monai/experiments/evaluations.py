"""One evaluation of a trained network on one data set, in a process of its own, with a record of what was finished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msrf_monai.experiments.runner import Runner
from msrf_monai.experiments.steps import CASES, SUMMARY, Outcome, Step, run_steps

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


EvaluationOutcome = Outcome[EvaluationSpec]
"""How an evaluation has ended."""


def evaluate(spec: EvaluationSpec, runner: Runner, *, keep_open: Sequence[int] = ()) -> EvaluationOutcome:
    """Bring an evaluation to its end, or keep it where it is finished.

    Arguments, result and errors are those of ``run_steps``.
    """
    step = Step("evaluation", spec.command, (CASES, SUMMARY, REPORT))
    return run_steps(spec, (step,), runner, keep_open=keep_open)
