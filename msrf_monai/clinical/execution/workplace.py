"""What a run sees of those who work for it, wherever they are: processes of this computer, or actors of a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

from msrf_monai.clinical.execution.messages import Message, entry_message, input_message
from msrf_monai.clinical.inputs import PlannedInput
from msrf_monai.clinical.ledger import Entry

__all__ = ["Worker", "Workplace"]


class Worker(ABC):
    """One who has a predictor and is given inputs."""

    def __init__(self) -> None:
        self.is_ready = False
        """It has loaded the predictor."""
        self.in_work: dict[str, PlannedInput] = {}
        """What it was given and has not finished, by folder."""

    def give(self, planned: PlannedInput, before: Entry | None) -> None:
        """Give it an input, and what earlier runs have said of it."""
        self.in_work[planned.folder] = planned
        self._send({"kind": "do", "input": input_message(planned), "before": entry_message(before)})

    def ask_to_end(self) -> None:
        """Tell it that nothing more will come."""
        self._send({"kind": "end"})

    @abstractmethod
    def receive(self) -> Message | None:
        """Wait for its next message; None when it has ended, and it has for certain."""

    @abstractmethod
    def end(self) -> None:
        """Wait until it has ended as it was asked to; not for ever."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once, and wait until it is gone."""

    @property
    @abstractmethod
    def status(self) -> str:
        """How it has ended, in a few words."""

    @abstractmethod
    def _send(self, message: Message) -> None:
        """Tell it something; that it has ended shows when it is listened to."""


class Workplace(Protocol):
    """Where workers begin, and where they are listened to."""

    def count(self, asked: int) -> int:
        """Return how many workers there are to be when so many are asked for, 0 for as many as make sense."""
        ...  # pragma: no cover

    def threads(self, count: int) -> int:
        """Return the threads of one operation in each of so many workers, when nobody has said."""
        ...  # pragma: no cover

    def begin(self, setup: Message, threads: int) -> Worker:
        """Begin a worker.

        Args:
            setup: its first message.
            threads: of one operation in it.

        Raises:
            OSError: when the system lets none begin.
        """
        ...  # pragma: no cover

    def with_news(self, workers: Sequence[Any]) -> Sequence[Worker]:
        """Wait until workers have said something or have ended, and return those: ``receive`` does not wait then.

        Args:
            workers: of this workplace.
        """
        ...  # pragma: no cover

    def close(self) -> None:
        """Give back what the workers needed; they have ended."""
        ...  # pragma: no cover
