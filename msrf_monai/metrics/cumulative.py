"""MONAI metrics around the pure functions, for engines and for loops of one's own."""

from __future__ import annotations

from typing import Any

import torch
from monai.handlers.ignite_metric import IgniteMetricHandler
from monai.metrics.metric import CumulativeIterationMetric
from torch import Tensor

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.metrics.averages import batch_pooled
from msrf_monai.metrics.overlap import PIXEL_SCORES, Confusion, confusion

__all__ = [
    "BatchPooledScore",
    "BatchPooledScoreHandler",
    "MacroScore",
    "MacroScoreHandler",
    "PooledScore",
    "PooledScoreHandler",
]


class _OverlapMetric(CumulativeIterationMetric):
    """Collects the counts of every image, across processes too.

    Args:
        score: a name in ``PIXEL_SCORES``: ``"dice"``, ``"iou"``, ``"precision"``, ``"recall"``, ``"accuracy"``,
            ``"specificity"``, ``"npv"``, ``"matthews"`` or ``"mean_iou"``.
        channel: channel of (B, K, ...) that is scored.
    """

    def __init__(self, score: str = "dice", *, channel: int = 0) -> None:
        super().__init__()
        if score not in PIXEL_SCORES:
            raise ConfigError(f"score must be one of {', '.join(PIXEL_SCORES)}, got {score!r}")
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
        score: a name in ``PIXEL_SCORES``: ``"dice"``, ``"iou"``, ``"precision"``, ``"recall"``, ``"accuracy"``,
            ``"specificity"``, ``"npv"``, ``"matthews"`` or ``"mean_iou"``.
        channel: channel of (B, K, ...) that is scored.
    """

    def aggregate(self) -> Tensor:
        """Return the mean over all images seen, float64 scalar in [0, 1]."""
        return PIXEL_SCORES[self.score](self._counts()).mean()


class PooledScore(_OverlapMetric):
    """Score of the pixels of all images together, the paper's way for IoU, precision and recall.

    Args:
        score: a name in ``PIXEL_SCORES``: ``"dice"``, ``"iou"``, ``"precision"``, ``"recall"``, ``"accuracy"``,
            ``"specificity"``, ``"npv"``, ``"matthews"`` or ``"mean_iou"``.
        channel: channel of (B, K, ...) that is scored.
    """

    def aggregate(self) -> Tensor:
        """Return the score over all pixels seen, float64 scalar in [0, 1]."""
        return PIXEL_SCORES[self.score](self._counts().pooled())


class BatchPooledScore(_OverlapMetric):
    """Score pooled over consecutive images and averaged over these batches, the EUSIPCO 2024 paper's way for Dice.

    The batches are made of the images in the order in which they were seen, whatever the engine's own batches are:
    decollated images no longer know theirs. With several processes the images of one follow those of another, so the
    paper's value takes one process and a loader that does not shuffle.

    Args:
        score: a name in ``PIXEL_SCORES``.
        batch_size: images in a batch; the last one may have fewer and counts the same.
        channel: channel of (B, K, ...) that is scored.

    Raises:
        ConfigError: when the score is unknown or the batch size below 1.
    """

    def __init__(self, score: str = "dice", *, batch_size: int = 16, channel: int = 0) -> None:
        super().__init__(score, channel=channel)
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected 1 or more")
        self.batch_size = batch_size

    def aggregate(self) -> Tensor:
        """Return the mean of the batches' scores, float64 scalar in [0, 1]."""
        return batch_pooled(self._counts(), self.score, batch_size=self.batch_size)


class MacroScoreHandler(IgniteMetricHandler):
    """``MacroScore`` for an engine's ``key_val_metric``.

    Args:
        score: a name in ``PIXEL_SCORES``: ``"dice"``, ``"iou"``, ``"precision"``, ``"recall"``, ``"accuracy"``,
            ``"specificity"``, ``"npv"``, ``"matthews"`` or ``"mean_iou"``.
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


class BatchPooledScoreHandler(IgniteMetricHandler):
    """``BatchPooledScore`` for an engine's ``additional_metrics``.

    Args:
        score: a name in ``PIXEL_SCORES``.
        output_transform: as for ``MacroScoreHandler``.
        batch_size: images in a batch, see ``BatchPooledScore``.
        channel: channel that is scored.
    """

    def __init__(self, score: str = "dice", *, output_transform: Any, batch_size: int = 16, channel: int = 0) -> None:
        super().__init__(
            metric_fn=BatchPooledScore(score, batch_size=batch_size, channel=channel),
            output_transform=output_transform,
            save_details=False,
        )
