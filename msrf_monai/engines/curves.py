"""A picture of how a training run went."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events

from msrf_monai.engines.history import History
from msrf_monai.files import atomic_write
from msrf_monai.json_files import nan_for_null
from msrf_monai.optional import require

__all__ = ["TrainingCurves", "draw_curves"]

_LOGGER = logging.getLogger(__name__)
_NOT_METRICS = {"epoch", "train_loss", "learning_rate", "seconds"}
_TERM = "train_loss_"
_PANELS = 2  # in a row of the picture


def draw_curves(rows: Sequence[Mapping[str, float | None]], path: str | Path, *, best_epoch: int | None = None) -> None:
    """Draw the loss, the learning rate and the validation metrics over the epochs into a PNG file.

    Metrics beyond 1, such as distances in pixels, would flatten the scores and are left to the history's table. Terms
    of the loss get panels below, one for all ``train_loss_GROUP_…`` of a group.

    Args:
        rows: as ``History`` keeps them: ``epoch`` and any of ``train_loss``, its terms, ``learning_rate`` and metrics
            by name. A metric that is NaN in an epoch, or None as in ``history.json``, leaves a gap there.
        path: the file to write.
        best_epoch: epoch to mark, None for no mark.

    Raises:
        MissingExtraError: when matplotlib is not installed.
        StorageError: when the file cannot be written.
    """
    figure_module = require("matplotlib.figure", "train")
    rows = nan_for_null(rows)
    terms = _grouped_terms(rows)
    lines = 1 + -(-len(terms) // _PANELS)
    figure = figure_module.Figure(figsize=(11, 4.2 * lines), dpi=110, layout="constrained")
    left, right, *panels = figure.subplots(lines, _PANELS, squeeze=False).flat
    _plot(left, rows, "train_loss", label="training loss", color="tab:blue")
    left.set(title="Training loss", xlabel="epoch", ylabel="loss")
    if all(row.get("train_loss", 1.0) > 0 for row in rows):
        left.set_yscale("log")
    if any("learning_rate" in row for row in rows):
        rate = left.twinx()
        _plot(rate, rows, "learning_rate", label="learning rate", color="tab:gray", linestyle=":", marker="")
        rate.set_ylabel("learning rate (dotted)", color="tab:gray")
        rate.set_ylim(bottom=0)
    names = sorted({name for row in rows for name in row if not name.startswith(_TERM)} - _NOT_METRICS)
    names = [name for name in names if not any(abs(row.get(name, 0.0)) > 1 for row in rows)]
    for name in names:
        _plot(right, rows, name, label=name)
    right.set(title="Validation", xlabel="epoch", ylabel="score")
    if names:
        right.legend(loc="best", fontsize="small")
    if best_epoch is not None and best_epoch > 0:
        for axes in (left, right):
            axes.axvline(best_epoch, color="tab:green", linestyle="--", linewidth=1)
        right.set_title(f"Validation (best: epoch {best_epoch})")
    _plot_terms(panels, rows, terms)
    for axes in (left, right, *panels):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    with atomic_write(path) as handle:
        figure.savefig(handle, format="png")


def _grouped_terms(rows: Sequence[dict[str, float]]) -> dict[str, list[str]]:
    """Return the names of a loss's terms by their first word, in the order in which they occur."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for row in rows for name in row if name.startswith(_TERM)):
        groups.setdefault(name.removeprefix(_TERM).partition("_")[0], []).append(name)
    return groups


def _plot_terms(panels: Sequence[Any], rows: Sequence[dict[str, float]], terms: dict[str, list[str]]) -> None:
    for axes, (group, found) in zip(panels, terms.items(), strict=False):
        for name in found:
            _plot(axes, rows, name, label=name.removeprefix(f"{_TERM}{group}_"))
        axes.set(title=f"Loss: {group}", xlabel="epoch", ylabel="weighted term")
        axes.legend(loc="best", fontsize="small")
    for axes in panels[len(terms) :]:
        axes.set_visible(False)


def _plot(axes: Any, rows: Sequence[dict[str, float]], name: str, **style: Any) -> None:
    points = [(row["epoch"], row[name]) for row in rows if name in row]
    if points:
        style.setdefault("marker", "." if len(points) < 60 else "")
        axes.plot(*zip(*points, strict=True), **style)


class TrainingCurves:
    """Draw ``curves.png`` when training ends, early stop included.

    Args:
        output_dir: folder of the picture.
        history: the handler that records the epochs.
        validator: the evaluator whose best epoch is marked.
        filename: name of the picture.
    """

    def __init__(
        self, output_dir: str, *, history: History, validator: Any = None, filename: str = "curves.png"
    ) -> None:
        self.path = Path(output_dir) / filename
        self.history = history
        self.validator = validator

    def attach(self, engine: Engine) -> None:
        """Register with the trainer.

        Raises:
            MissingExtraError: when matplotlib is not installed, so that this shows before hours of training.
        """
        require("matplotlib.figure", "train")
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Draw the picture; only the process of rank 0 does."""
        if idist.get_rank() != 0 or not self.history.rows:
            return
        best_epoch = None if self.validator is None else int(self.validator.state.best_metric_epoch)
        draw_curves(self.history.rows, self.path, best_epoch=best_epoch)
        _LOGGER.info("training curves: %s", self.path)
