"""Experiments: variants of a bundle compared by cross-validation, and trained networks on several data sets."""

from __future__ import annotations

from msrf_monai.experiments.cross_dataset import (
    CrossDataset,
    CrossPlan,
    EvaluationObserver,
    TrainedModel,
    TrainedNetwork,
    evaluate_across,
    plan_cross_dataset,
)
from msrf_monai.experiments.cross_validation import CrossValidation, Plan, cross_validate, plan_cross_validation
from msrf_monai.experiments.evaluations import EvaluationOutcome, EvaluationSpec
from msrf_monai.experiments.folds import FoldSplit, make_folds
from msrf_monai.experiments.pictures import Picture, PreparedPictures, read_pictures
from msrf_monai.experiments.runner import ProcessRunner, Runner
from msrf_monai.experiments.runs import RunSpec
from msrf_monai.experiments.singularity_maps import draw_singularity_maps, singularity_maps
from msrf_monai.experiments.statistics import (
    MeanTest,
    clustered_interval,
    compare,
    corrected_resampled_t,
    holm,
    paired_t,
)
from msrf_monai.experiments.steps import Observer, Outcome

__all__ = [
    "CrossDataset",
    "CrossPlan",
    "CrossValidation",
    "EvaluationObserver",
    "EvaluationOutcome",
    "EvaluationSpec",
    "FoldSplit",
    "MeanTest",
    "Observer",
    "Outcome",
    "Picture",
    "Plan",
    "PreparedPictures",
    "ProcessRunner",
    "RunSpec",
    "Runner",
    "TrainedModel",
    "TrainedNetwork",
    "clustered_interval",
    "compare",
    "corrected_resampled_t",
    "cross_validate",
    "draw_singularity_maps",
    "evaluate_across",
    "holm",
    "make_folds",
    "paired_t",
    "plan_cross_dataset",
    "plan_cross_validation",
    "read_pictures",
    "singularity_maps",
]
