"""Who a run works with: the predictor, the one who writes, and the one who watches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.ledger import Entry, OutputRecord
from msrf_monai.clinical.prediction import Prediction
from msrf_monai.clinical.slides import Slide

__all__ = ["Observer", "SupportsPrediction", "WriteResult", "WriteSlide", "Written"]


class SupportsPrediction(Protocol):
    """What a run needs of a predictor; see ``Predictor``."""

    def prepare(self, case: Case, index: int) -> dict[Any, Any]:
        """Read and preprocess one frame; called by several threads."""
        ...  # pragma: no cover

    def infer(self, item: dict[Any, Any]) -> dict[Any, Any]:
        """Run the network; called by one thread."""
        ...  # pragma: no cover

    def finish(self, items: Iterable[dict[Any, Any]]) -> Prediction:
        """Return the prediction of all frames."""
        ...  # pragma: no cover


class Observer(Protocol):
    """Who watches a run; called by one thread at a time."""

    def begin(self, inputs: int, frames: int) -> None:
        """The plan is made: so many inputs, and so many images in them as far as that is known."""
        ...  # pragma: no cover

    def ended(self, entry: Entry, frames: int, is_new: bool) -> None:
        """An input is finished, for which ``begin`` counted ``frames``; not new: an earlier run had done it."""
        ...  # pragma: no cover


@dataclass(frozen=True)
class Written:
    """What a result has become."""

    outputs: tuple[OutputRecord, ...]
    """Paths relative to the input's own folder."""
    flags: tuple[str, ...] = ()


WriteResult = Callable[[Case, Prediction, Path], Written]
"""Writes everything of one input into a folder; in one thread."""

WriteSlide = Callable[[Slide, str, Path], Written]
"""Predicts a slide of a digest and writes everything of it into a folder; in the network's thread."""
