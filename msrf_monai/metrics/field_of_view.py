"""A MONAI metric of decided masks that counts the pixels inside a field of view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ignite.metrics.metric import reinit__is_reduced
from monai.handlers.ignite_metric import IgniteMetricHandler
from monai.metrics.metric import CumulativeIterationMetric
from torch import Tensor

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.metrics.overlap import Confusion, confusion
from msrf_monai.metrics.regions import plain
from msrf_monai.metrics.vessels import VESSEL_PIXEL_SCORES, vessel_pixel_scores

__all__ = ["FieldOfViewScore", "FieldOfViewScoreHandler"]

_AVERAGES = ("pooled", "mean")


class FieldOfViewScore(CumulativeIterationMetric):
    """A score of ``VESSEL_PIXEL_SCORES`` over the pixels inside the field of view of all images seen.

    Call it as MONAI's metrics with ``y_pred``, ``y`` and ``fov``: tensors (B, K, ...), or lists of (K, ...) whose sizes
    may differ. The field of view has one channel, or as many as the masks. Without ``fov`` whole images count.

    Args:
        score: ``"sensitivity"``, ``"specificity"``, ``"ppv"``, ``"npv"``, ``"f1"``, ``"accuracy"`` or ``"mcc"``.
        average: ``"pooled"`` counts the pixels of all images together; ``"mean"`` scores each image and takes the mean
            of those whose score is defined.
        channel: channel of (B, K, ...) that is scored.

    Raises:
        ConfigError: when the score or the average is unknown.
    """

    def __init__(self, score: str = "f1", *, average: str = "pooled", channel: int = 0) -> None:
        super().__init__()
        for name, value, known in (("score", score, VESSEL_PIXEL_SCORES), ("average", average, _AVERAGES)):
            if value not in known:
                raise ConfigError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        self.score = score
        self.average = average
        self.channel = channel

    def aggregate(self) -> Tensor:
        """Return the score over all images seen, float64 scalar; NaN where it divides 0 by 0.

        Raises:
            InputError: when no image was seen.
        """
        buffer = self.get_buffer()  # type: ignore[no-untyped-call]
        if not isinstance(buffer, Tensor) or buffer.numel() == 0:
            raise InputError(f"{type(self).__name__} has seen no image")
        counts = Confusion(*plain(buffer).long().unbind(1))
        if self.average == "pooled":
            return vessel_pixel_scores(counts.pooled())[self.score]
        return vessel_pixel_scores(counts)[self.score].nanmean()

    def _compute_list(
        self, y_pred: Tensor | Sequence[Tensor], y: Tensor | Sequence[Tensor] | None = None, **kwargs: Any
    ) -> Tensor:
        if y is None:
            return self._compute_tensor(y_pred[0])
        fov = kwargs.get("fov")
        regions = [None] * len(y) if fov is None else fov
        if not len(y_pred) == len(y) == len(regions):
            raise InputError(
                f"expected as many predictions, labels and fields of view, got {len(y_pred)}, {len(y)}, {len(regions)}"
            )
        images = zip(y_pred, y, regions, strict=True)
        return torch.cat(
            [self._compute_tensor(p[None], t[None], fov=None if r is None else r[None]) for p, t, r in images]
        )

    def _compute_tensor(
        self, y_pred: Tensor, y: Tensor | None = None, *, fov: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        if y is None:
            raise InputError(f"{type(self).__name__} compares with the true mask, and none was given")
        region = None if fov is None else plain(fov)[:, self.channel if fov.shape[1] > 1 else 0]
        counts = confusion(plain(y_pred)[:, self.channel], plain(y)[:, self.channel], region=region)
        return torch.stack(tuple(counts), dim=1)  # (B, 4)


class FieldOfViewScoreHandler(IgniteMetricHandler):
    """``FieldOfViewScore`` for an engine's ``key_val_metric`` or ``additional_metrics``.

    Args:
        score: as for ``FieldOfViewScore``, as are the other arguments but one.
        output_transform: takes the decided mask, the truth and the field of view from the engine's output, such as
            ``monai.handlers.from_engine(["pred", "label", "fov"])``; without a field of view, whole images count.
        average: ``"pooled"`` or ``"mean"``.
        channel: channel that is scored.
    """

    def __init__(self, score: str = "f1", *, output_transform: Any, average: str = "pooled", channel: int = 0) -> None:
        super().__init__(
            metric_fn=FieldOfViewScore(score, average=average, channel=channel),
            output_transform=output_transform,
            save_details=False,
        )
        # ignite would cut lists of images into pairs of prediction and truth, which three lists are not
        self._skip_unrolling = True

    @reinit__is_reduced
    def update(self, output: Sequence[Any]) -> None:
        """Take the images of one iteration.

        Args:
            output: prediction, truth and field of view, or prediction and truth.

        Raises:
            InputError: when there are more or fewer.
        """
        if len(output) not in (2, 3):
            raise InputError(f"expected prediction, truth and field of view of an iteration, got {len(output)} values")
        y_pred, y, *rest = output
        self.metric_fn(y_pred, y, fov=rest[0] if rest else None)
