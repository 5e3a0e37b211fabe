"""Exact resume: everything a training run needs to go on as if it had never stopped."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events
from torch import nn

from msrf_monai.engines.best import versions
from msrf_monai.engines.events import ResumeEvents
from msrf_monai.engines.finite import refuse_non_finite
from msrf_monai.engines.plain import generator_states, plain, restore_generators
from msrf_monai.engines.weights import fit_error, read_tensors, unwrap
from msrf_monai.errors import CheckpointError, ConfigError
from msrf_monai.files import atomic_write

__all__ = ["TrainingState"]

_LOGGER = logging.getLogger(__name__)
_FORMAT = 1
# Settings of a schedule as opposed to its progress: on resume the present configuration's word counts for these.
_SCHEDULE_SETTINGS = (
    *("T_max", "eta_min", "gamma", "step_size", "milestones", "total_iters", "factor", "patience"),
    *("t_total", "warmup_steps", "warmup_multiplier", "cycles", "end_lr"),  # MONAI's WarmupCosineSchedule
)


class TrainingState:
    """Save a trainer's whole state after every epoch, and restore it.

    Put it last in the trainer's handlers, so that it restores after ``LoadWeights`` has run. Saving always comes after
    all other handlers of the epoch, wherever it stands. The newest file and the one before it are kept; at every moment
    at least one of them is whole. Together with ``SeedEpochs`` a run that is killed and resumed ends with weights
    bit-equal to those of the unbroken run on a CPU.

    Args:
        save_dir: folder of the file.
        save_dict: what to save by name: networks, optimisers, schedulers, the moving average, ``History``; all that has
            ``state_dict`` and ``load_state_dict``. The trainer's own counters and gradient scaler need no entry.
        validator: the evaluator whose best metric is kept.
        filename: name of the file; the previous one has ``.previous`` before its suffix.
        resume: True restores the saved state and refuses to start without one; ``"auto"`` restores it when there is
            one and starts afresh otherwise, as restarts by a scheduler need; False starts afresh.
        every: number of epochs between two saves; the last epoch is always saved.
    """

    def __init__(
        self,
        save_dir: str,
        *,
        save_dict: Mapping[str, Any],
        validator: Any = None,
        filename: str = "training_state.pt",
        resume: bool | str = False,
        every: int = 1,
    ) -> None:
        if resume not in (True, False, "auto"):
            raise ConfigError(f"resume must be true, false or 'auto', got {resume!r}")
        if every < 1:
            raise ConfigError(f"every must be a number of epochs, 1 or more, got {every}")
        for name, value in save_dict.items():
            if not (hasattr(value, "state_dict") and hasattr(value, "load_state_dict")):
                raise ConfigError(f"save_dict[{name!r}] is a {type(value).__name__}, which has no state to save")
        self.path = Path(save_dir) / filename
        self.previous = self.path.with_suffix(f".previous{self.path.suffix}")
        self.save_dict = dict(save_dict)
        self.validator = validator
        self.resume = resume
        self.every = every

    def attach(self, engine: Any) -> None:
        """Register with the trainer."""
        engine.register_events(*ResumeEvents)
        engine.add_event_handler(Events.STARTED, self._start)

    def _start(self, engine: Any) -> None:
        # Registered only now, behind every handler of the configuration: the epoch's validation, schedule and history.
        if not engine.has_event_handler(self, Events.EPOCH_COMPLETED):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        self._clear_unfinished()
        if self.resume is False:
            return
        if not (self.path.exists() or self.previous.exists()):
            if self.resume is True:
                raise CheckpointError(
                    f"there is no saved training at {self.path} to resume; start without resume, or use resume='auto'"
                )
            _LOGGER.info("no saved training at %s: starting afresh", self.path)
            return
        self.load(engine)
        engine.fire_event(ResumeEvents.RESUMED)

    def _clear_unfinished(self) -> None:
        """Remove what saves left that were killed on the way; a run that is killed often would fill the disk."""
        if idist.get_rank() == 0:
            for unfinished in self.path.parent.glob(f".{self.path.name}.*.part"):
                unfinished.unlink(missing_ok=True)

    def __call__(self, engine: Any) -> None:
        """Save at the end of an epoch.

        Raises:
            StorageError: when the file cannot be written; the files that were there stay.
            ConfigError: when an object's state holds more than tensors and plain values.
            NonFiniteLossError: when a weight is NaN or infinite; the files that were there stay.
        """
        state = engine.state
        if state.epoch % self.every == 0 or state.epoch == state.max_epochs or engine.should_terminate:
            self.save(engine)

    def save(self, engine: Any) -> None:
        """Write the state of the engine and of everything in ``save_dict``; only the process of rank 0 writes.

        Raises:
            NonFiniteLossError: when a parameter or buffer of a network or average is NaN or infinite.
        """
        if idist.get_rank() != 0:
            return
        kept = self.path if self.path.exists() or not self.previous.exists() else self.previous
        for name, value in self.save_dict.items():
            refuse_non_finite(_state_of(value), f"{name}.", epoch=int(engine.state.epoch), path=kept)
        content = {
            "format": _FORMAT,
            "versions": versions(),
            "epoch": int(engine.state.epoch),
            "iteration": int(engine.state.iteration),
            "epoch_length": engine.state.epoch_length,
            "world_size": idist.get_world_size(),
            "scaler": engine.scaler.state_dict() if getattr(engine, "scaler", None) is not None else None,
            "best": self._best(),
            "generators": generator_states(),
            "objects": {
                name: plain(_state_of(value), f"save_dict[{name!r}]") for name, value in self.save_dict.items()
            },
        }
        with atomic_write(self.path) as handle:
            torch.save(content, handle)
            handle.flush()
            os.fsync(handle.fileno())
            if self.path.exists():  # from here to the end of the block only the previous file is there, and it is whole
                self.path.replace(self.previous)

    def load(self, engine: Any) -> None:
        """Restore the engine and everything in ``save_dict`` from the newest readable file.

        Raises:
            CheckpointError: when no file can be read, or when it was saved by another network or configuration; then
                nothing has been changed, unless an optimiser or a scheduler refuses its part.
        """
        path, content = self._read()
        self._check(content, path)
        changed = [
            value
            for name, value in self.save_dict.items()
            if _restore(value, content["objects"][name], f"{name!r} of {path}")
        ]
        for schedule in changed:  # after all others: the optimiser has brought back the rate of the old settings
            _set_rates(schedule)
        if content["scaler"] and getattr(engine, "scaler", None) is not None:
            engine.scaler.load_state_dict(content["scaler"])
        if self.validator is not None and content["best"] is not None:
            self.validator.state.best_metric = content["best"]["metric"]
            self.validator.state.best_metric_epoch = content["best"]["epoch"]
        if idist.get_rank() == 0:  # the file holds rank 0's; SeedEpochs gives every rank its own
            restore_generators(content["generators"])
        self._set_counters(engine, content)
        _LOGGER.info("resuming after epoch %d of %s from %s", content["epoch"], engine.state.max_epochs, path)

    def _best(self) -> dict[str, float | int] | None:
        if self.validator is None:
            return None
        state = self.validator.state
        return {"metric": float(state.best_metric), "epoch": int(state.best_metric_epoch)}

    def _read(self) -> tuple[Path, dict[str, Any]]:
        """Read the newest file; only when that is impossible, the one before it."""
        try:
            return self.path, read_tensors(self.path)
        except CheckpointError as error:
            if not self.previous.exists():
                raise
            content = read_tensors(self.previous)
            _LOGGER.warning("%s; going back to %s", error, self.previous)
            return self.previous, content

    def _check(self, content: Any, path: Path) -> None:
        """Refuse what does not fit before anything is changed."""
        if not isinstance(content, Mapping) or content.get("format") != _FORMAT:
            raise CheckpointError(
                f"{path} is not a saved training of this version of msrf_monai; use LoadWeights for plain weights"
            )
        saved, asked = set(content["objects"]), set(self.save_dict)
        if saved != asked:
            raise CheckpointError(
                f"{path} holds {sorted(saved)} and this configuration asks for {sorted(asked)}; "
                "resume with the configuration that saved it"
            )
        for name, value in self.save_dict.items():
            if isinstance(value, nn.Module):
                problem = fit_error(unwrap(value), content["objects"][name])
                if problem is not None:
                    raise CheckpointError(f"{name!r} of {path} was saved by another network: {problem}")

    def _set_counters(self, engine: Any, content: Mapping[str, Any]) -> None:
        for name, now in (("epoch_length", engine.state.epoch_length), ("world_size", idist.get_world_size())):
            if content[name] != now:
                _LOGGER.warning(
                    "%s was %s when this training was saved and is %s now: it goes on, though not bit-equal",
                    name,
                    content[name],
                    now,
                )
        engine.state.epoch = content["epoch"]
        same_length = content["epoch_length"] == engine.state.epoch_length
        length = engine.state.epoch_length or 0
        engine.state.iteration = content["iteration"] if same_length else content["epoch"] * length


def _state_of(value: Any) -> Any:
    return unwrap(value).state_dict() if isinstance(value, nn.Module) else value.state_dict()


def _restore(value: Any, state: Any, what: str) -> bool:
    """Load one object's state; True for a schedule that keeps other settings, those of the present configuration."""
    is_schedule = isinstance(value, torch.optim.lr_scheduler.LRScheduler)
    before = value.state_dict() if is_schedule else {}
    try:
        (unwrap(value) if isinstance(value, nn.Module) else value).load_state_dict(state)
    except (ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{what} cannot be restored: {str(error).splitlines()[0]}") from error
    changed = [name for name in _SCHEDULE_SETTINGS if name in before and name in state and before[name] != state[name]]
    for name in changed:
        _LOGGER.warning("%s: %s was %s and is %s from now on", what, name, state[name], before[name])
        setattr(value, name, before[name])
    return bool(changed)


def _set_rates(schedule: Any) -> None:
    """Give the next epoch the learning rate of the new settings, where a schedule knows it without a step."""
    if not isinstance(schedule, torch.optim.lr_scheduler.LambdaLR):
        return  # the others go on from the present rate
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "To get the last learning rate", UserWarning)  # the next one is meant
        rates = schedule.get_lr()
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    schedule._last_lr = rates
