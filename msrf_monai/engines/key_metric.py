"""The result of the last validation, for schedules that follow it."""

from __future__ import annotations

from typing import Any

from msrf_monai.errors import ConfigError

__all__ = ["KeyMetric"]


class KeyMetric:
    """Return an evaluator's key metric whenever it is called, with whatever argument.

    It is the ``step_transform`` of MONAI's ``LrScheduleHandler`` for ``torch.optim.lr_scheduler.ReduceLROnPlateau``;
    the handler stands after the ``ValidationHandler``.

    Args:
        validator: the evaluator.
    """

    def __init__(self, validator: Any) -> None:
        self.validator = validator

    def __call__(self, engine: Any = None) -> float:
        """Return the metric's last value.

        Raises:
            ConfigError: when the evaluator has no key metric, or has not run yet.
        """
        state = self.validator.state
        value = state.metrics.get(state.key_metric_name)
        if value is None:
            raise ConfigError(
                "the validator has no key metric yet; put ValidationHandler before the schedule, with an interval of 1"
            )
        return float(value)
