"""One progress bar, or one log line an epoch where nobody watches."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from tqdm import tqdm

from msrf_monai.engines.history import loss_of

__all__ = ["Progress"]

_LOGGER = logging.getLogger(__name__)


class Progress:
    """Show how far a trainer or an evaluator is.

    On a terminal a bar on standard error shows iterations, the loss and the last value of the key metric. Elsewhere,
    and only there, the log gets one line an epoch. Only the process of rank 0 shows anything.

    Args:
        validator: for a trainer, the evaluator whose key metric is shown; attach after the ``ValidationHandler``.
        description: first word of the bar and of the line.
        is_shown: whether to draw the bar; by default when standard error is a terminal.
    """

    def __init__(
        self, *, validator: Engine | None = None, description: str = "training", is_shown: bool | None = None
    ) -> None:
        self.validator = validator
        self.description = description
        self.is_shown = is_shown
        self._bar: Any = None
        self._started = 0.0
        self._loss = ""

    def attach(self, engine: Engine) -> None:
        """Register with a trainer or an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
        # The bar goes before anything else of the epoch's end speaks; the line waits for the validation.
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._close)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the epoch's line, unless a bar was shown or this is not rank 0."""
        if idist.get_rank() == 0 and not self._shows():
            text = ", ".join(part for part in (self._loss, self._metric()) if part)
            seconds = time.monotonic() - self._started
            _LOGGER.info("%s: %s, %.1f s", self._title(engine), text or "done", seconds)

    def _shows(self) -> bool:
        return sys.stderr.isatty() if self.is_shown is None else self.is_shown

    def _title(self, engine: Engine) -> str:
        if engine.state.max_epochs and self.validator is not None:
            return f"{self.description} epoch {engine.state.epoch}/{engine.state.max_epochs}"
        return self.description

    def _open(self, engine: Engine) -> None:
        self._started = time.monotonic()
        self._loss = ""
        if idist.get_rank() == 0 and self._shows():
            self._bar = tqdm(
                total=engine.state.epoch_length,
                desc=self._title(engine),
                postfix=self._metric(),
                file=sys.stderr,
                leave=True,
                dynamic_ncols=True,
            )

    def _advance(self, engine: Engine) -> None:
        if idist.get_rank() != 0:
            return
        is_last = engine.state.epoch_length and engine.state.iteration % engine.state.epoch_length == 0
        if self._bar is None and not is_last:
            return  # reading the loss waits for the GPU
        loss = loss_of(engine.state.output)
        self._loss = "" if loss is None else f"loss {loss.item():.4g}"
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(part for part in (self._loss, self._metric()) if part), refresh=False)
            self._bar.update()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _metric(self) -> str:
        if self.validator is None:
            return ""
        state: Any = self.validator.state
        value = state.metrics.get(state.key_metric_name) if state.key_metric_name else None
        if value is None:
            return ""
        best = f"best {float(state.best_metric):.4f}, epoch {state.best_metric_epoch}"
        return f"{state.key_metric_name} {float(value):.4f} ({best})"
