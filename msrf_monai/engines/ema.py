"""An exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from torch import Tensor, nn

from msrf_monai.engines.shared_buffers import share_buffers
from msrf_monai.engines.weights import unwrap
from msrf_monai.errors import ConfigError

__all__ = ["ExponentialMovingAverage"]


class ExponentialMovingAverage(EMAHandler):
    """ignite's ``EMAHandler``, made fit for exact resume and for fine-tuning.

    After every iteration ``average = (1 - momentum) * average + momentum * weights``. Departures from ignite's
    handler, each with its reason: buffers are copied by value (ignite makes the two networks share their storage); the
    warm-up follows the trainer's iteration (ignite's counter is in no state dictionary); the average starts from the
    weights that the network has at the first iteration (ignite takes those it has when the configuration is read,
    before a checkpoint is loaded); in distributed training every rank takes rank 0's buffers at the end of an epoch,
    since each has its own BatchNorm statistics and only rank 0's are saved; buffers that a network lists in
    ``decided_buffers`` stay as validation has set them in the average. Put the handler before ``ValidationHandler``, so
    that all ranks validate the network that is saved.

    Args:
        model: the network in training.
        momentum: share of the new weights in each update, in (0, 1).
        momentum_warmup: share at the first iteration; it then moves linearly to ``momentum``. None for no warm-up.
        warmup_iters: number of iterations of the warm-up.
        handle_buffers: ``"copy"`` takes the buffers (BatchNorm statistics) of the network, ``"update"`` averages the
            floating-point ones as well.

    Attributes:
        ema_model: the averaged network in eval mode: validate with it and save it.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        momentum: float = 0.002,
        momentum_warmup: float | None = None,
        warmup_iters: int | None = None,
        handle_buffers: str = "copy",
    ) -> None:
        if not 0 < momentum < 1 or (momentum_warmup is not None and not 0 < momentum_warmup <= 1):
            raise ConfigError(f"momentum must be in (0, 1), got {momentum} with momentum_warmup {momentum_warmup}")
        if (momentum_warmup is None) != (warmup_iters is None):
            raise ConfigError("momentum_warmup and warmup_iters are given together or not at all")
        if handle_buffers not in ("copy", "update"):
            raise ConfigError(f"handle_buffers must be 'copy' or 'update', got {handle_buffers!r}")
        super().__init__(unwrap(model), momentum=momentum, handle_buffers=handle_buffers)
        self.ema_model.requires_grad_(False)
        self.momentum_warmup = momentum_warmup
        self.warmup_iters = warmup_iters

    def momentum_at(self, iteration: int) -> float:
        """Return the momentum at an iteration, counted from 1."""
        if self.momentum_warmup is None or self.warmup_iters is None:
            return float(self.momentum)
        share = min(1.0, (iteration - 1) / max(1, self.warmup_iters - 1))
        return float(self.momentum_warmup + (self.momentum - self.momentum_warmup) * share)

    def attach(
        self,
        engine: Engine,
        name: str = "ema_momentum",
        warn_if_exists: bool = True,
        event: Any = Events.ITERATION_COMPLETED,
    ) -> None:
        """Register with a trainer; see ignite for the arguments.

        Args:
            engine: the trainer.
            name: attribute of ``engine.state`` that shows the current momentum.
            warn_if_exists: accepted as in ignite and not needed, since nothing is kept in the attribute.
            event: when the average is updated.
        """
        setattr(engine.state, name, self.momentum_at(1))
        engine.add_event_handler(Events.ITERATION_STARTED(once=1), self._start)
        engine.add_event_handler(event, self._update_ema_model, name)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._share_buffers)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged network's state."""
        state: dict[str, Tensor] = self.ema_model.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the averaged network; the momentum follows from the trainer's iteration."""
        self.ema_model.load_state_dict(state)

    def _start(self) -> None:
        self.ema_model.load_state_dict(self.model.state_dict())

    def _share_buffers(self) -> None:
        share_buffers(self.ema_model)

    @torch.no_grad()
    def _update_ema_model(self, engine: Engine, name: str) -> None:
        momentum = self.momentum_at(engine.state.iteration)
        setattr(engine.state, name, momentum)
        averages: list[Tensor] = list(self.ema_model.parameters())
        weights: list[Tensor] = list(self.model.parameters())
        if averages:
            torch._foreach_lerp_(averages, weights, momentum)
        decided = getattr(self.model, "decided_buffers", ())
        for (buffer_name, average), buffer in zip(self.ema_model.named_buffers(), self.model.buffers(), strict=True):
            if buffer_name in decided:
                continue
            if self.handle_buffers == "update" and average.is_floating_point():
                average.lerp_(buffer, momentum)
            else:
                average.copy_(buffer)
