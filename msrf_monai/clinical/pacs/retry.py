"""Try again, more and more slowly, what a PACS could not do just now."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeVar

from msrf_monai.errors import ConfigError, PacsError

__all__ = ["Backoff", "persistent"]

T = TypeVar("T")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backoff:
    """How long to wait between attempts, and for how long to make them.

    Raises:
        ConfigError: when a time is negative or the factor is below 1.
    """

    first: float = 1.0
    """Seconds before the second attempt."""
    factor: float = 2.0
    """Each wait is so many times the one before."""
    longest: float = 60.0
    """No wait is longer, in seconds: a server that is back should not be kept waiting."""
    give_up_after: float = 300.0
    """Seconds since the first attempt after which no other is made; 0: only one attempt."""

    def __post_init__(self) -> None:
        for field in fields(self):
            least = 1 if field.name == "factor" else 0
            if not getattr(self, field.name) >= least:
                raise ConfigError(f"{field.name} must be at least {least}, got {getattr(self, field.name)!r}")

    def wait(self, attempt: int) -> float:
        """Return the seconds to wait after an attempt that failed: half of its turn or more, drawn by chance.

        Args:
            attempt: number of the attempt, from 0.
        """
        try:
            turn = min(self.longest, self.first * self.factor**attempt)
        except OverflowError:
            turn = self.longest
        return turn * random.uniform(0.5, 1.0)  # many clients of a server that stood still must not come all at once


def persistent(
    call: Callable[[], T],
    backoff: Backoff,
    *,
    stop: threading.Event | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] | None = None,
) -> T:
    """Call until it works, waiting in between.

    Args:
        call: what may raise a temporary ``PacsError``; anything else that it raises is not caught.
        backoff: waits, and when to give up. The last attempt is made when that time is over.
        stop: ends a wait at once when it is set, and lets no further attempt begin.
        clock: seconds that never go back.
        sleep: waits so many seconds; by default a wait that ``stop`` ends.

    Returns:
        What ``call`` returned.

    Raises:
        PacsError: the last one, when it is lasting, time is over or ``stop`` is set.
    """
    stop = stop or threading.Event()
    sleep = sleep or stop.wait
    begun = clock()
    attempt = 0
    while True:
        try:
            return call()
        except PacsError as error:
            left = backoff.give_up_after - (clock() - begun)
            if error.is_lasting or left <= 0 or stop.is_set():
                raise
            wait = min(left, backoff.wait(attempt))
            _logger.info("attempt %d failed (%s); the next one is in %.1f s", attempt + 1, error, wait)
            sleep(wait)
            if stop.is_set():
                raise
        attempt += 1
