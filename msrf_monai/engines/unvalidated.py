"""The weights of a training run that has nothing to validate with."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Events

from msrf_monai.engines.best import save_with_record

__all__ = ["SaveUnvalidated"]

_LOGGER = logging.getLogger(__name__)


class SaveUnvalidated:
    """Save the last weights when the run ends and no validation has taken place, so that no training is in vain.

    ``SaveBest`` saves after validations only. MONAI Label trains without any when it is asked for a ``val_split`` of
    0, or when so few images have labels that none is left to validate with. Attach it to the trainer.

    Args:
        validator: the evaluator; its network is saved, the averaged one where validation uses it.
        save_dir: folder of the weights, such as a bundle's ``models``.
        filename: name of the weights; the JSON file beside them has the same name with ``.json``.
        seed: seed of the run, noted in the JSON file.
    """

    def __init__(self, *, validator: Any, save_dir: str, filename: str = "model.pt", seed: int | None = None) -> None:
        self.validator = validator
        self.path = Path(save_dir) / filename
        self.seed = seed

    def attach(self, engine: Any) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Save unless a validation has taken place; only the process of rank 0 writes.

        Raises:
            StorageError: when the files cannot be written.
            NonFiniteLossError: when a parameter or buffer is NaN or infinite; an older file stays.
        """
        state = self.validator.state
        # a resumed run that has nothing left to do knows its best epoch, and its validator has not run
        was_validated = state.iteration > 0 or state.best_metric_epoch > 0
        if was_validated or engine.state.iteration == 0 or idist.get_rank() != 0:
            return
        record = save_with_record(
            self.validator.network, self.path, epoch=int(engine.state.epoch), metric=None, value=None, seed=self.seed
        )
        _LOGGER.info("no validation took place; epoch %d was saved: %s", record["epoch"], self.path)
