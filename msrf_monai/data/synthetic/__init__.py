"""Drawn pictures with exact masks, and fractals of known exponents: no download, the same from the same seed."""

from __future__ import annotations

from msrf_monai.data.synthetic.dataset import (
    SyntheticCase,
    SyntheticKind,
    synthesize_case,
    synthesize_dataset,
    synthesize_image,
)
from msrf_monai.data.synthetic.fractals import CascadeTruth, fractional_brownian_surface, multiplicative_cascade

__all__ = [
    "CascadeTruth",
    "SyntheticCase",
    "SyntheticKind",
    "fractional_brownian_surface",
    "multiplicative_cascade",
    "synthesize_case",
    "synthesize_dataset",
    "synthesize_image",
]
