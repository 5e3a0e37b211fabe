"""Areas under the ROC and the precision-recall curve over pixels: exact, and from few thresholds as Keras does it."""

from __future__ import annotations

from typing import Any

import torch
from monai.handlers.ignite_metric import IgniteMetricHandler
from monai.metrics.metric import CumulativeIterationMetric
from torch import Tensor

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.metrics.regions import check_probabilities

__all__ = ["KerasAUC", "KerasAUCHandler", "areas", "average_precision", "exact_auc", "keras_auc"]


def exact_auc(scores: Tensor, label: Tensor) -> Tensor:
    """Return the area under the ROC curve over all pixels together.

    It is the chance that a pixel of the object has a higher score than one of the background, ties counting half. All
    scores are sorted: about 2 s for ten million pixels.

    Args:
        scores: probabilities or logits of any shape.
        label: the truth, boolean or {0, 1}, same shape.

    Returns:
        float64 scalar in [0, 1]; NaN where the truth has no object or no background, since there is nothing to rank.

    Raises:
        InputError: when shapes differ, the label is not binary or a score is NaN.
    """
    return _area(*_counts_of_values(scores, label))


def average_precision(scores: Tensor, label: Tensor) -> Tensor:
    """Return the average precision, the area under the precision-recall curve by scikit-learn's sum of steps.

    The sum over all thresholds of precision times the recall gained, without interpolation, which would flatter. A
    blind guess scores the share of the object. As ``exact_auc`` it sorts all scores.

    Args:
        scores: probabilities or logits of any shape.
        label: the truth, boolean or {0, 1}, same shape.

    Returns:
        float64 scalar in [0, 1]; NaN where the truth has no object.

    Raises:
        InputError: when shapes differ, the label is not binary or a score is NaN.
    """
    return _steps(*_counts_of_values(scores, label))


def areas(scores: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``exact_auc`` and ``average_precision`` for the price of sorting once."""
    counts = _counts_of_values(scores, label)
    return _area(*counts), _steps(*counts)


def keras_auc(probabilities: Tensor, label: Tensor, *, thresholds: int = 200) -> Tensor:
    """Return the area under the ROC curve over all pixels as ``keras.metrics.AUC`` does: from a few thresholds.

    Probabilities that lie between the same two of the evenly spaced thresholds count as ties. So a confident network,
    most of whose pixels are below the second threshold or above the last but one, mostly gets a lower value than
    ``exact_auc``: 0.979 instead of 0.983 for logits normal around -9 and 9 with a deviation of 6.

    Args:
        probabilities: float in [0, 1], any shape.
        label: the truth, boolean or {0, 1}, same shape.
        thresholds: from 0 to 1, both included, 2 or more; 200 in Keras.

    Returns:
        float64 scalar in [0, 1]; NaN where the truth has no object or no background, where Keras says 0.

    Raises:
        InputError: when shapes differ, the label is not binary, a probability is outside [0, 1], or there are too few
            thresholds.
    """
    return _area(*_counts_between_thresholds(probabilities[None], label[None], thresholds)[0])


class KerasAUC(CumulativeIterationMetric):
    """``keras_auc`` over all images seen: it keeps the counts between thresholds, not the pixels.

    Unlike the other metrics it takes **probabilities**, so its ``output_transform`` must pick what the engine holds
    before the mask is decided.

    Args:
        thresholds: see ``keras_auc``. The more of them, the closer the value is to ``exact_auc``.
        channel: channel of (B, K, ...) that is scored.

    Raises:
        ConfigError: when there are too few thresholds.
    """

    def __init__(self, *, thresholds: int = 200, channel: int = 0) -> None:
        super().__init__()
        if thresholds < 2:
            raise ConfigError(f"thresholds is {thresholds}; expected 2 or more")
        self.thresholds = thresholds
        self.channel = channel

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        if y is None:
            raise InputError(f"{type(self).__name__} compares with the true mask, and none was given")
        return _counts_between_thresholds(y_pred[:, self.channel], y[:, self.channel], self.thresholds)

    def aggregate(self) -> Tensor:
        """Return the area over all pixels seen, float64 scalar in [0, 1] or NaN."""
        buffer = self.get_buffer()  # type: ignore[no-untyped-call]
        if not isinstance(buffer, Tensor) or buffer.numel() == 0:
            raise InputError(f"{type(self).__name__} has seen no image")
        return _area(*buffer.as_subclass(Tensor).sum(0))


class KerasAUCHandler(IgniteMetricHandler):
    """``KerasAUC`` for an engine's ``additional_metrics``.

    Args:
        output_transform: takes the probabilities and the truth from the engine's output, such as
            ``monai.handlers.from_engine(["probability", "label"])``.
        thresholds: see ``KerasAUC``.
        channel: channel that is scored.
    """

    def __init__(self, *, output_transform: Any, thresholds: int = 200, channel: int = 0) -> None:
        super().__init__(
            metric_fn=KerasAUC(thresholds=thresholds, channel=channel),
            output_transform=output_transform,
            save_details=False,
        )


def _counts_between_thresholds(probabilities: Tensor, label: Tensor, thresholds: int) -> Tensor:
    """Count the pixels of each image between neighbouring thresholds: int64 (B, object and background, thresholds - 1).

    Pixels in place i are above threshold i and not above the next; those of probability 0 are in place 0.
    """
    if thresholds < 2:
        raise InputError(f"thresholds is {thresholds}; expected 2 or more")
    _check(probabilities, label)
    check_probabilities(probabilities)
    places = thresholds - 1
    wide = probabilities.to(torch.promote_types(probabilities.dtype, torch.float32))  # half has no 200 steps near 1
    place = (wide.flatten(1) * places).ceil().long().sub(1).clamp(min=0)
    image = torch.arange(len(label), device=label.device)[:, None]
    row = 2 * image + (~label.bool().flatten(1)).long()
    counts = torch.bincount((row * places + place).flatten(), minlength=len(label) * 2 * places)
    return counts.reshape(len(label), 2, places)


def _counts_of_values(scores: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Count the pixels of the object and of the background at each score that occurs, scores rising."""
    _check(scores, label)
    if bool(torch.isnan(scores).any()):
        raise InputError("scores hold NaN, which has no rank: look for what made them")
    true = label.bool().flatten()
    values, place = torch.unique(scores.flatten(), return_inverse=True)
    of_object, of_background = (torch.bincount(place[true == side], minlength=len(values)) for side in (True, False))
    return of_object, of_background


def _steps(of_object: Tensor, of_background: Tensor) -> Tensor:
    """Return the average precision from the numbers of pixels at each score, scores rising."""
    gained = of_object.flip(0)
    found = gained.cumsum(0)
    precision = found.double() / (found + of_background.flip(0).cumsum(0))
    return (precision * gained).sum() / gained.sum()


def _area(of_object: Tensor, of_background: Tensor) -> Tensor:
    """Return the area under the curve from the numbers of pixels in each place of a rising scale."""
    below = of_background.cumsum(0).double() - of_background.double() / 2
    pairs = of_object.sum().double() * of_background.sum().double()
    return (of_object.double() * below).sum() / pairs


def _check(scores: Tensor, label: Tensor) -> None:
    if scores.shape != label.shape:
        raise InputError(f"the scores have shape {tuple(scores.shape)} and the label {tuple(label.shape)}")
    if label.dtype != torch.bool and not bool(((label == 0) | (label == 1)).all()):
        raise InputError(f"label must be a mask of 0 and 1, its values go from {label.min()} to {label.max()}")
