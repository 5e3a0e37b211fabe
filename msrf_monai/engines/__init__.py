"""Handlers for MONAI's trainers and evaluators: exact resume, best weights, guards, progress, pictures and reports."""

from __future__ import annotations

from msrf_monai.engines.best import SaveBest, save_weights, versions
from msrf_monai.engines.cases import case_names
from msrf_monai.engines.curves import TrainingCurves, draw_curves
from msrf_monai.engines.elastic import rejoin_processes
from msrf_monai.engines.ema import ExponentialMovingAverage
from msrf_monai.engines.evaluation import SegmentationReport
from msrf_monai.engines.events import ResumeEvents
from msrf_monai.engines.gallery import GalleryCase, PredictionGallery, draw_gallery
from msrf_monai.engines.gan_fusion import ChooseFusion, FusionScore
from msrf_monai.engines.gan_trainer import CoupledGanTrainer
from msrf_monai.engines.grouped_report import GroupedSegmentationReport, group_by_target_size, table_of_groups
from msrf_monai.engines.guard import NaNGuard
from msrf_monai.engines.history import History
from msrf_monai.engines.key_metric import KeyMetric
from msrf_monai.engines.optimisation import GradientClip, decay_groups
from msrf_monai.engines.progress import Progress
from msrf_monai.engines.reuse import use_handler
from msrf_monai.engines.seeding import SeedEpochs, epoch_seed
from msrf_monai.engines.stopping import EarlyStop
from msrf_monai.engines.summary import case_row, summarise
from msrf_monai.engines.training_state import TrainingState
from msrf_monai.engines.unvalidated import SaveUnvalidated
from msrf_monai.engines.vessel_report import VesselReport
from msrf_monai.engines.vessel_report_overlay import draw_vessel_overlay
from msrf_monai.engines.vessel_report_threshold import ChooseThreshold, read_threshold
from msrf_monai.engines.weights import LoadWeights, load_weights, read_weights, verified_file

__all__ = [
    "ChooseFusion",
    "ChooseThreshold",
    "CoupledGanTrainer",
    "EarlyStop",
    "ExponentialMovingAverage",
    "FusionScore",
    "GalleryCase",
    "GradientClip",
    "GroupedSegmentationReport",
    "History",
    "KeyMetric",
    "LoadWeights",
    "NaNGuard",
    "PredictionGallery",
    "Progress",
    "ResumeEvents",
    "SaveBest",
    "SaveUnvalidated",
    "SeedEpochs",
    "SegmentationReport",
    "TrainingCurves",
    "TrainingState",
    "VesselReport",
    "case_names",
    "case_row",
    "decay_groups",
    "draw_curves",
    "draw_gallery",
    "draw_vessel_overlay",
    "epoch_seed",
    "group_by_target_size",
    "load_weights",
    "read_threshold",
    "read_weights",
    "rejoin_processes",
    "save_weights",
    "summarise",
    "table_of_groups",
    "use_handler",
    "verified_file",
    "versions",
]
