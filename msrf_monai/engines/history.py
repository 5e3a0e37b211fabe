"""The numbers of every epoch, kept in memory, in two files and across resume."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from msrf_monai.engines.report_parts import as_csv
from msrf_monai.files import write_text
from msrf_monai.json_files import nan_for_null, write_json

__all__ = ["History", "loss_of", "loss_terms", "scalars"]

_FIRST_COLUMNS = ("epoch", "train_loss", "learning_rate", "seconds")
_TERM = "loss_"


def loss_of(output: Any, *, key: str = "loss") -> Tensor | None:
    """Return the loss in a MONAI trainer's output, a dictionary or the list that decollating makes of it."""
    loss = _first(output).get(key)
    return None if loss is None else _number(loss)


def loss_terms(output: Any) -> dict[str, Tensor]:
    """Return what a trainer's output holds by names that begin with ``loss_``: the terms that a loss is made of."""
    return {name: _number(value) for name, value in _first(output).items() if str(name).startswith(_TERM)}


def _first(output: Any) -> Mapping[str, Any]:
    first = output[0] if isinstance(output, list) and output else output
    return first if isinstance(first, Mapping) else {}


def _number(value: Any) -> Tensor:
    return torch.as_tensor(value).detach().float().mean()  # decollating makes plain numbers of tensors


def scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are single numbers, as floats."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, bool | int | float | np.generic) or (isinstance(value, Tensor) and value.numel() == 1)
    }


class History:
    """Record loss, learning rate, time and validation metrics of each epoch.

    Attach it to the trainer after the ``ValidationHandler`` and give it to ``TrainingState`` in ``save_dict``. After
    each epoch ``history.csv`` and ``history.json`` are written anew, whole or not at all. The loss is the mean over the
    epoch's batches and over all processes; batches whose loss is not finite are left out of it. Where the trainer's
    output holds the terms of its loss as ``loss_NAME`` (``CoupledGanTrainer``), their means are ``train_loss_NAME``. A
    metric that is undefined, such as a score of images without any object, is NaN here and null in ``history.json``.

    Args:
        output_dir: folder of the two files.
        validator: the evaluator whose metrics are recorded; epochs without a validation get none.
        optimizer: its first group's learning rate is recorded, as it was during the epoch.
    """

    def __init__(
        self, output_dir: str, *, validator: Engine | None = None, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        self.output_dir = Path(output_dir)
        self.validator = validator
        self.optimizer = optimizer
        self.rows: list[dict[str, float]] = []
        self._losses: list[Tensor] = []
        self._terms: dict[str, list[Tensor]] = {}
        self._learning_rate: float | None = None
        self._started = 0.0

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far."""
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the rows; None in them, as ``history.json`` has it, is NaN."""
        self.rows = nan_for_null(state["rows"])

    def __call__(self, engine: Engine) -> None:
        """Add the row of the epoch that ends, and write the files.

        Raises:
            StorageError: when they cannot be written.
        """
        row: dict[str, float] = {"epoch": int(engine.state.epoch)}
        means = {"loss": self._mean_loss()} | {name: _mean(values) for name, values in self._terms.items()}
        row.update({f"train_{name}": mean for name, mean in means.items() if mean is not None})
        if self._learning_rate is not None:
            row["learning_rate"] = self._learning_rate
        row["seconds"] = round(time.monotonic() - self._started, 3)
        if self.validator is not None and self.validator.state.epoch == engine.state.epoch:
            row.update(scalars(self.validator.state.metrics))
        self.rows.append(row)
        if idist.get_rank() == 0:
            self._write()

    def _start_epoch(self) -> None:
        self._losses = []
        self._terms = {}
        self._started = time.monotonic()
        if self.optimizer is not None:
            self._learning_rate = float(self.optimizer.param_groups[0]["lr"])

    def _collect(self, engine: Engine) -> None:
        loss = loss_of(engine.state.output)
        if loss is not None:
            self._losses.append(loss)
        for name, value in loss_terms(engine.state.output).items():
            self._terms.setdefault(name, []).append(value)

    def _mean_loss(self) -> float | None:
        return _mean(self._losses)

    def _write(self) -> None:
        columns = [*_FIRST_COLUMNS, *sorted({name for row in self.rows for name in row} - set(_FIRST_COLUMNS))]
        write_text(self.output_dir / "history.csv", as_csv(self.rows, columns))
        write_json(self.output_dir / "history.json", self.rows)


def _mean(losses: list[Tensor]) -> float | None:
    """Return the mean of the finite ones over all processes, None when there is none."""
    values = torch.stack(losses).cpu().double() if losses else torch.zeros(0, dtype=torch.float64)
    values = values[torch.isfinite(values)]
    total, count = float(values.sum()), float(len(values))
    if idist.get_world_size() > 1:
        total, count = float(idist.all_reduce(total)), float(idist.all_reduce(count))
    return total / count if count else None
