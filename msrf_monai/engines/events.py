"""Events of our own on an ignite engine."""

from __future__ import annotations

from ignite.engine import EventEnum

__all__ = ["ResumeEvents"]


class ResumeEvents(EventEnum):
    """Fired by ``TrainingState``: ``RESUMED`` once, after a saved run was restored and before its next epoch."""

    RESUMED = "training_state_resumed"
