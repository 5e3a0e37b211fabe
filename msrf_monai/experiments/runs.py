"""One run of a cross-validation: a training and an evaluation, each in its own process."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msrf_monai.experiments.runner import Runner
from msrf_monai.experiments.steps import CASES, SUMMARY, Outcome, Step, run_steps

__all__ = ["HISTORY", "WEIGHTS", "RunSpec", "perform"]

WEIGHTS = "models/model.pt"
STATE = "models/state"
HISTORY = "training/history.csv"


@dataclass(frozen=True)
class RunSpec:
    """What is to be run for one variant and one fold.

    Attributes:
        variant: name of the variant.
        fold: number of the fold.
        folder: folder of the run's files.
        training: command that trains; it writes ``models`` and ``training`` in the folder.
        evaluation: command that scores the fold; it writes ``evaluation``.
        digest: of everything that decides the result; a record with another digest is not this run's.
        can_resume: whether the training command goes on with an interrupted training.
    """

    variant: str
    fold: int
    folder: Path
    training: tuple[str, ...]
    evaluation: tuple[str, ...]
    digest: str
    can_resume: bool

    @property
    def identity(self) -> dict[str, Any]:
        """Variant and fold."""
        return {"variant": self.variant, "fold": self.fold}


def perform(spec: RunSpec, runner: Runner, *, keep_open: Sequence[int] = ()) -> Outcome[RunSpec]:
    """Bring a run to its end: what is finished is kept, an interrupted training goes on or begins again.

    Arguments, result and errors are those of ``run_steps``.
    """
    steps = (
        Step("training", spec.training, (WEIGHTS, HISTORY)),
        Step("evaluation", spec.evaluation, (CASES, SUMMARY)),
    )
    outcome = run_steps(spec, steps, runner, keep=spec.can_resume, keep_open=keep_open)
    if outcome.state == "finished":
        shutil.rmtree(spec.folder / STATE, ignore_errors=True)  # for resume only, and three times as large as weights
    return outcome
