"""The choice of how Hi-gMISnet's two predictions become one: by validation images, kept in the network."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast, get_args

import torch
from monai.handlers.ignite_metric import IgniteMetricHandler
from monai.metrics.metric import CumulativeIterationMetric
from torch import Tensor

from msrf_monai.engines.weights import unwrap
from msrf_monai.errors import ConfigError, InputError
from msrf_monai.metrics import PIXEL_SCORES, Confusion, confusion
from msrf_monai.networks.nets.higmis_net import FusionMode, HiGMISNet, fuse_probabilities

__all__ = ["ChooseFusion", "FusionScore"]

_LOGGER = logging.getLogger(__name__)


class FusionScore(CumulativeIterationMetric):
    """Mean of the images' scores for each way of fusing two predictions; the result is the best way's.

    Args:
        score: a name in ``msrf_monai.metrics.PIXEL_SCORES``.
        modes: the ways to compare, see ``msrf_monai.networks.fuse_probabilities``; of equal ones the first counts.
        threshold: fused probability from which a pixel is foreground.

    Raises:
        ConfigError: when the score or a mode is unknown, or the threshold is not in (0, 1).
    """

    def __init__(
        self, score: str = "dice", *, modes: Sequence[FusionMode] = get_args(FusionMode), threshold: float = 0.5
    ) -> None:
        super().__init__()
        if score not in PIXEL_SCORES:
            raise ConfigError(f"score must be one of {', '.join(PIXEL_SCORES)}, got {score!r}")
        if isinstance(modes, str) or not modes or not set(modes) <= set(get_args(FusionMode)):
            raise ConfigError(f"modes is {modes!r}; expected a list with some of {', '.join(get_args(FusionMode))}")
        if not 0 < threshold < 1:
            raise ConfigError(f"threshold must lie between 0 and 1, got {threshold}")
        self.score = score
        self.modes = tuple(modes)
        self.threshold = threshold

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Count the pixels of ``(B, 2, W, H)`` probabilities of foreground and of background for each mode."""
        if y is None or y_pred.shape[1] != 2:
            raise InputError(
                f"FusionScore got predictions of shape {tuple(y_pred.shape)}; expected two planes, of lesion and of "
                "background, as GeneratorPairInferer gives them, and the true mask"
            )
        counts = []
        for mode in self.modes:
            fused = fuse_probabilities(y_pred[:, 0], y_pred[:, 1], mode) >= self.threshold
            counts.append(torch.stack(tuple(confusion(fused, y[:, 0])), dim=1))
        return torch.stack(counts, dim=1)  # (B, modes, 4)

    def scores(self) -> dict[str, float]:
        """Return the mean score of all images seen, on all processes, for each mode.

        Raises:
            InputError: when no image was seen.
        """
        buffer = self.get_buffer()  # type: ignore[no-untyped-call]
        if not isinstance(buffer, Tensor) or buffer.numel() == 0:
            raise InputError("FusionScore has seen no image")
        counts = buffer.as_subclass(Tensor).long().unbind(1)
        score = PIXEL_SCORES[self.score]
        return {
            mode: float(score(Confusion(*count.unbind(1))).mean())
            for mode, count in zip(self.modes, counts, strict=True)
        }

    def aggregate(self) -> Tensor:
        """Return the score of the best mode, float64 scalar in [0, 1]."""
        return torch.tensor(max(self.scores().values()), dtype=torch.float64)


class ChooseFusion(IgniteMetricHandler):
    """Key metric of a validation that chooses the fusion: the score of the best mode, which the network then has.

    The network keeps the choice among its weights, so that evaluation and inference use what validation has chosen, and
    ``SaveBest`` names it beside them. Scores of fused masks and pictures are made while the choice is open, so those of
    an epoch show the choice of the epoch before. The score of each mode is among the engine's metrics as ``NAME_MODE``.
    Never attach it to an evaluator of test images.

    Args:
        score: see ``FusionScore``.
        output_transform: takes the two planes and the true mask from the engine's output, such as
            ``monai.handlers.from_engine(["pair", "label"])``.
        modes: see ``FusionScore``; one mode chooses nothing.
        threshold: see ``FusionScore``.

    Raises:
        ConfigError: as ``FusionScore``.
    """

    def __init__(
        self,
        score: str = "dice",
        *,
        output_transform: Any,
        modes: Sequence[FusionMode] = get_args(FusionMode),
        threshold: float = 0.5,
    ) -> None:
        super().__init__(
            metric_fn=FusionScore(score, modes=modes, threshold=threshold),
            output_transform=output_transform,
            save_details=False,
        )

    def completed(self, engine: Any, name: str) -> None:
        """Set the metrics of the engine and the fusion of its network.

        Raises:
            InputError: when no image was seen, or the network is no ``HiGMISNet``.
        """
        super().completed(engine, name)
        network = unwrap(engine.network)
        if not isinstance(network, HiGMISNet):
            raise InputError(f"the evaluator's network is a {type(network).__name__}; expected HiGMISNet")
        scores = cast("FusionScore", self.metric_fn).scores()
        engine.state.metrics.update({f"{name}_{mode}": score for mode, score in scores.items()})
        best = max(scores, key=scores.__getitem__)
        if best != network.fusion:
            _LOGGER.info("fusion: %s (%s %.4f) in place of %s", best, name, scores[best], network.fusion)
        network.fusion = cast("FusionMode", best)
