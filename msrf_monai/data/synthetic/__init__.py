"""Drawn pictures with exact masks: no download, no patient, the same from the same seed."""

from __future__ import annotations

from msrf_monai.data.synthetic.dataset import (
    SyntheticCase,
    SyntheticKind,
    synthesize_case,
    synthesize_dataset,
    synthesize_image,
)

__all__ = ["SyntheticCase", "SyntheticKind", "synthesize_case", "synthesize_dataset", "synthesize_image"]
