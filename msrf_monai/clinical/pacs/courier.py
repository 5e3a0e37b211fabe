"""Send results on while others are still being made, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from msrf_monai.clinical.ledger import Entries
from msrf_monai.clinical.pacs.delivery import Deliveries, DeliveryResult, Destination
from msrf_monai.clinical.pacs.retry import Backoff
from msrf_monai.files import Closing

__all__ = ["Courier", "Delivered"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivered:
    """What a courier has achieved at one destination so far."""

    destination: str
    accepted: int = 0
    refused: int = 0
    waiting: int = 0
    """Objects that the last attempt could not bring; the next run on this folder sends them."""
    reason: str = ""
    """Why they wait."""

    @property
    def is_complete(self) -> bool:
        """True when nothing was refused and nothing waits."""
        return not self.refused and not self.waiting

    def plus(self, result: DeliveryResult) -> Delivered:
        """Return what holds after another delivery."""
        return replace(
            self,
            accepted=self.accepted + result.accepted,
            refused=self.refused + result.refused,
            waiting=result.waiting,
            reason=result.reason,
        )


class Courier(Closing):
    """Brings every DICOM result of a folder to every destination, and tries again while one is away.

    The destinations are served in turn, so that one which is away keeps the others waiting for no longer than
    ``backoff.give_up_after``.

    Args:
        deliveries: of the result folder; only this courier uses it until it is closed.
        destinations: where to.
        entries: returns the manifest's lines; called in the courier's thread.
        backoff: how long to try a destination before the next one has its turn.
        stop: set from outside to end soon, with the rest left waiting.
        interval: seconds between two looks for new results.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        destinations: Sequence[Destination],
        entries: Callable[[], Entries],
        *,
        backoff: Backoff,
        stop: threading.Event,
        interval: float = 5.0,
    ) -> None:
        self._deliveries = deliveries
        self._destinations = destinations
        self._entries = entries
        self._backoff = backoff
        self._stop = stop
        self._interval = interval
        self._wake = threading.Event()
        self._last = threading.Event()
        self._error: BaseException | None = None
        self._delivered = {each.name: Delivered(each.name) for each in destinations}
        self._brought = dict.fromkeys(self._delivered, 0)
        """Up to where in the manifest nothing is left to be brought."""
        self._thread = threading.Thread(target=self._work, name="courier", daemon=True)
        self._thread.start()

    @property
    def delivered(self) -> list[Delivered]:
        """What has been achieved so far, a record for each destination."""
        return list(self._delivered.values())

    def check(self) -> None:
        """Raise what has ended the courier, such as a full disk."""
        if self._error is not None:
            raise self._error

    def wake(self) -> None:
        """Look for new results now; raises as ``check`` does."""
        self.check()
        self._wake.set()

    def finish(self) -> list[Delivered]:
        """Wait until everything is brought or the destinations have been tried for long enough.

        Returns:
            What was achieved.

        Raises:
            StorageError: when what a PACS has answered could not be kept.
        """
        self._last.set()
        self._wake.set()
        self._thread.join()
        self.check()
        return self.delivered

    def close(self) -> None:
        """End soon; what has not been sent is left waiting."""
        self._stop.set()
        self._last.set()
        self._wake.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            is_last = False
            while not is_last:
                self._wake.wait(self._interval)
                self._wake.clear()
                is_last = self._last.is_set()
                self._round()
        except BaseException as error:
            self._error = error

    def _round(self) -> None:
        for destination in self._destinations:
            entries = self._entries()
            end = entries.end
            records = self._deliveries.outstanding(entries.since(self._brought[destination.name]), destination.name)
            before = self._delivered[destination.name]
            if not records:
                self._brought[destination.name] = end
                self._delivered[destination.name] = replace(before, waiting=0, reason="")
                continue
            result = self._deliveries.deliver(destination, records, backoff=self._backoff, stop=self._stop)
            self._delivered[destination.name] = before.plus(result)
            if result.waiting and result.reason != before.reason:
                logger.warning("%d objects wait for %s: %s", result.waiting, destination.name, result.reason)
