"""Inferers: how a network is run on images that are larger than its window."""

from __future__ import annotations

from msrf_monai.inferers.flip_averaging import FlipAveragingInferer
from msrf_monai.inferers.generator_pair import GeneratorPairInferer
from msrf_monai.inferers.mask_sliding_window import MaskSlidingWindowInferer

__all__ = ["FlipAveragingInferer", "GeneratorPairInferer", "MaskSlidingWindowInferer"]
