"""A guard against losses that are not numbers."""

from __future__ import annotations

import json
import logging
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from torch import Tensor

from msrf_monai.engines.cases import case_names
from msrf_monai.engines.weights import unwrap
from msrf_monai.errors import ConfigError, NonFiniteLossError

__all__ = ["NaNGuard"]

_LOGGER = logging.getLogger(__name__)


class NaNGuard:
    """Stop training before a loss that is NaN or infinite reaches the weights, and name the batch's files.

    With ``max_consecutive`` above 1, single bad batches are left out: neither the weights nor the optimiser nor the
    BatchNorm statistics take part in them. Under a gradient scaler the scaler itself skips the step. In distributed
    training all processes decide alike, and all of them name the files of those whose loss is bad.

    Args:
        max_consecutive: number of consecutive batches with such a loss that stops training, 1 or more.
        loss_key: name of the loss in the trainer's output.
    """

    def __init__(self, *, max_consecutive: int = 1, loss_key: str = "loss") -> None:
        if max_consecutive < 1:
            raise ConfigError(f"max_consecutive must be 1 or more, got {max_consecutive}")
        self.max_consecutive = max_consecutive
        self.loss_key = loss_key
        self._consecutive = 0
        self._buffers: list[Tensor] = []
        self._skipped_loss: Tensor | None = None

    def attach(self, engine: Any) -> None:
        """Register with a MONAI trainer, which fires an event between the loss and its gradient."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)
        if self.max_consecutive > 1:
            engine.add_event_handler(Events.ITERATION_STARTED, self._remember)
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._clean_up)

    def __call__(self, engine: Any) -> None:
        """Check the loss of this iteration.

        Raises:
            NonFiniteLossError: when this is the last bad batch that is tolerated.
        """
        loss = engine.state.output[self.loss_key].detach()
        is_bad = not bool(torch.isfinite(loss).all())
        if not _any_rank(is_bad):
            self._consecutive = 0
            return
        self._consecutive += 1
        files = ", ".join(case_names(engine.state.batch))
        where = f"epoch {engine.state.epoch}, iteration {engine.state.iteration}, rank {idist.get_rank()}"
        here = f"{loss.mean().item():g} at {where} on the batch of {files}" if is_bad else ""
        what = f"the training loss is {' and '.join(_of_all_ranks(here))}"
        if self._consecutive >= self.max_consecutive:
            streak = f" ({self._consecutive} bad batches in a row)" if self.max_consecutive > 1 else ""
            raise NonFiniteLossError(
                f"{what}{streak}; training stopped before this batch touched the weights and the last saved checkpoint "
                "is kept. Look at these files, or lower the learning rate, and resume"
            )
        _LOGGER.warning(
            "%s; the batch is left out (%d of %d tolerated)", what, self._consecutive, self.max_consecutive - 1
        )
        self._leave_out(engine)

    def _remember(self, engine: Any) -> None:
        self._buffers = [buffer.detach().clone() for buffer in unwrap(engine.network).buffers()]

    def _leave_out(self, engine: Any) -> None:
        self._skipped_loss = engine.state.output[self.loss_key].detach()
        if getattr(engine, "scaler", None) is not None:
            return  # the gradients become NaN on every rank, and the scaler skips the step for that
        # A zero that depends on every parameter: DistributedDataParallel waits for the gradient of each.
        parameters = [p for p in unwrap(engine.network).parameters() if p.requires_grad]
        engine.state.output[self.loss_key] = torch.stack([p.sum() * 0.0 for p in parameters]).sum()

    def _clean_up(self, engine: Any) -> None:
        if self._skipped_loss is None:
            return
        if getattr(engine, "scaler", None) is None:
            engine.optimizer.zero_grad(set_to_none=True)  # without a gradient an optimiser leaves a parameter alone
        with torch.no_grad():
            for buffer, before in zip(unwrap(engine.network).buffers(), self._buffers, strict=True):
                buffer.copy_(before)
        engine.state.output[self.loss_key] = self._skipped_loss  # the truth, for whoever reports it
        self._skipped_loss = None


def _any_rank(is_bad: bool) -> bool:
    if idist.get_world_size() == 1:
        return is_bad
    return bool(idist.all_reduce(int(is_bad), op="MAX"))


def _of_all_ranks(text: str) -> list[str]:
    """Return the texts of all processes, in their order, without those that are empty."""
    if idist.get_world_size() == 1:
        return [text]
    gathered: Any = idist.all_gather(json.dumps(text))
    return [told for told in map(json.loads, gathered) if told]
