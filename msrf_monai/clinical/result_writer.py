"""Predictions as the files that a run was asked for, with the flags that a person should see."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.execution.roles import Written
from msrf_monai.clinical.ledger import OutputRecord
from msrf_monai.clinical.outputs import plan_outputs, write_outputs
from msrf_monai.clinical.prediction import Prediction
from msrf_monai.clinical.quality import QualityLimits, flags_of
from msrf_monai.clinical.run_options import RunOptions
from msrf_monai.clinical.statistics import measure
from msrf_monai.clinical.writing import Producer

if TYPE_CHECKING:
    from msrf_monai.clinical.predictor import Predictor

__all__ = ["ResultWriter"]


class ResultWriter:
    """Writes a prediction as the outputs that were asked for, and raises flags.

    Args:
        predictor: what gives the predictions; objects name it.
        settings: of the run.
    """

    def __init__(self, predictor: Predictor, settings: RunOptions) -> None:
        self._segments = predictor.segments
        self._identity = Producer(
            predictor.name, predictor.version or "0", model_digest=predictor.model_digest, options_digest=""
        )
        self._options = settings.output_options(QualityLimits.from_metadata(predictor.metadata))

    def __call__(self, case: Case, prediction: Prediction, folder: Path) -> Written:
        """Write everything of one input into ``folder``; raises as ``write_outputs``."""
        statistics = measure(case.info, prediction, len(self._segments))
        files = write_outputs(
            case,
            prediction,
            folder=folder,
            predictor_identity=self._identity,
            segments=self._segments,
            options=self._options,
            statistics=statistics,
        )
        plan = plan_outputs(case.info, self._options, probabilities=prediction.probabilities is not None)
        return Written(
            tuple(OutputRecord(file.kind, file.path, file.sha256, file.size) for file in files),
            (*flags_of(statistics, self._options.quality), *(f"not_written:{each.kind}" for each in plan.skipped)),
        )
