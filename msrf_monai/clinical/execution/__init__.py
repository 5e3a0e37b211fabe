"""Execution: who does the work of a run, and how reading, predicting and writing overlap."""

from msrf_monai.clinical.execution.local import LocalRun
from msrf_monai.clinical.execution.roles import Observer, SupportsPrediction, WriteResult, Written

__all__ = ["LocalRun", "Observer", "SupportsPrediction", "WriteResult", "Written"]
