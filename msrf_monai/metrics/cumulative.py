"""MONAI metrics around the pure functions, for engines and for loops of one's own."""

from __future__ import annotations

from typing import Any

import torch
from monai.handlers.ignite_metric import IgniteMetricHandler
from monai.metrics.metric import CumulativeIterationMetric
from torch import Tensor

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.metrics.overlap import OVERLAP_SCORES, Confusion, confusion

__all__ = ["MacroScore", "MacroScoreHandler", "PooledScore", "PooledScoreHandler"]


class _OverlapMetric(CumulativeIterationMetric):
    """Collects the counts of every image, across processes too.

    Args:
        score: ``"dice"``, ``"iou"``, ``"precision"`` or ``"recall"``.
        channel: channel of (B, K, ...) that is scored.
    """

    def __init__(self, score: str = "dice", *, channel: int = 0) -> None:
        super().__init__()
        if score not in OVERLAP_SCORES:
            raise ConfigError(f"score must be one of {', '.join(OVERLAP_SCORES)}, got {score!r}")
        self.score = score
        self.channel = channel

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        if y is None:
            raise InputError(f"{type(self).__name__} compares with the true mask, and none was given")
        counts = confusion(y_pred[:, self.channel], y[:, self.channel])
        return torch.stack(tuple(counts), dim=1)  # (B, 4)

    def _counts(self) -> Confusion:
        buffer = self.get_buffer()  # type: ignore[no-untyped-call]
        if not isinstance(buffer, Tensor) or buffer.numel() == 0:
            raise InputError(f"{type(self).__name__} has seen no image")
        return Confusion(*buffer.as_subclass(Tensor).long().unbind(1))


class MacroScore(_OverlapMetric):
    """Mean of the images' scores: both masks empty counts 1 (``macro_dsc`` with ``score="dice"``).

    MONAI's ``DiceMetric`` leaves images with an empty truth out by default.

    Args:
        score: ``"dice"``, ``"iou"``, ``"precision"`` or ``"recall"``.
        channel: channel of (B, K, ...) that is scored.
    """

    def aggregate(self) -> Tensor:
        """Return the mean over all images seen, float64 scalar in [0, 1]."""
        return OVERLAP_SCORES[self.score](self._counts()).mean()


class PooledScore(_OverlapMetric):
    """Score of the pixels of all images together, the paper's way for IoU, precision and recall.

    Args:
        score: ``"dice"``, ``"iou"``, ``"precision"`` or ``"recall"``.
        channel: channel of (B, K, ...) that is scored.
    """

    def aggregate(self) -> Tensor:
        """Return the score over all pixels seen, float64 scalar in [0, 1]."""
        return OVERLAP_SCORES[self.score](self._counts().pooled())


class MacroScoreHandler(IgniteMetricHandler):
    """``MacroScore`` for an engine's ``key_val_metric``.

    Args:
        score: ``"dice"``, ``"iou"``, ``"precision"`` or ``"recall"``.
        channel: channel that is scored.
        output_transform: takes the decided mask and the truth from the engine's output, such as
            ``monai.handlers.from_engine(["pred", "label"])``.
    """

    def __init__(self, score: str = "dice", *, output_transform: Any, channel: int = 0) -> None:
        super().__init__(
            metric_fn=MacroScore(score, channel=channel), output_transform=output_transform, save_details=False
        )


class PooledScoreHandler(IgniteMetricHandler):
    """``PooledScore`` for an engine's ``additional_metrics``; arguments as ``MacroScoreHandler``."""

    def __init__(self, score: str = "iou", *, output_transform: Any, channel: int = 0) -> None:
        super().__init__(
            metric_fn=PooledScore(score, channel=channel), output_transform=output_transform, save_details=False
        )
