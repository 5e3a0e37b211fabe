"""The end of a run that no longer gets better."""

from __future__ import annotations

import logging
from typing import Any

from ignite.engine import Engine, Events

from msrf_monai.engines.events import ResumeEvents
from msrf_monai.errors import ConfigError

__all__ = ["EarlyStop"]

_LOGGER = logging.getLogger(__name__)


class EarlyStop:
    """Stop the trainer when the best validation is too many epochs old.

    Attach it to the trainer after the ``ValidationHandler``. It keeps no counter: the best epoch is read from the
    evaluator, which ``TrainingState`` restores, so a resumed run stops where the unbroken one would have stopped.

    Args:
        validator: the evaluator whose key metric decides.
        patience: number of epochs without a new best after which training stops; None or 0 never stops it.
    """

    def __init__(self, validator: Any, *, patience: int | None) -> None:
        if patience is not None and patience < 0:
            raise ConfigError(f"patience must be a number of epochs, or 0 or None for no early stop, got {patience}")
        self.validator = validator
        self.patience = patience or 0

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        if self.patience:
            engine.register_events(*ResumeEvents)
            engine.add_event_handler(ResumeEvents.RESUMED, self)  # the saved run may have stopped by itself
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Ask the engine to stop when the patience is used up."""
        best_epoch = self.validator.state.best_metric_epoch
        if best_epoch >= 0 and engine.state.epoch - best_epoch >= self.patience:
            _LOGGER.info(
                "stopping after epoch %d: no better validation since epoch %d (patience %d)",
                engine.state.epoch,
                best_epoch,
                self.patience,
            )
            engine.terminate()
