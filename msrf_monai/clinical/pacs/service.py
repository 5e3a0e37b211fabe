"""Predict what arrives in an inbox, and hand the results to a courier.

What has been received stays in the inbox until its results are on the disk and in the manifest. An object that could
not be predicted stays there for good: it is tried again when its study gets something new, or by the next run.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msrf_monai.clinical.lock import hold
from msrf_monai.clinical.pacs.courier import Courier, Delivered
from msrf_monai.clinical.pacs.delivery import Deliveries, Destination
from msrf_monai.clinical.pacs.inbox import Inbox
from msrf_monai.clinical.pacs.retry import Backoff
from msrf_monai.clinical.pipeline import Batch, PredictionRun
from msrf_monai.errors import ConfigError

__all__ = ["Service", "ServiceOptions", "courier_of", "open_inbox"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServiceOptions:
    """How a service works.

    Raises:
        ConfigError: when a number makes no sense.
    """

    settle: float = 10.0
    """Seconds for which a study must have received nothing before it is predicted: volumes must be complete."""
    batch: int = 20
    """Studies that are predicted together."""
    keep_received: bool = False
    """Leave in the inbox what has been predicted."""
    keep_failed: bool = True
    """Leave there what could not be predicted; False where it can be had again."""
    poll: float = 1.0
    """Seconds between two looks at the inbox while nothing arrives."""

    def __post_init__(self) -> None:
        if not self.settle >= 0 or not self.poll > 0 or self.batch < 1:
            raise ConfigError(
                f"settle must be at least 0, poll above 0 and batch at least 1, got {self.settle}, {self.poll} and "
                f"{self.batch}"
            )


@contextmanager
def open_inbox(root: Path) -> Iterator[Inbox]:
    """Hold an inbox for this process while the block runs, without what a process that was killed left half-written.

    Args:
        root: its folder; made when missing.

    Yields:
        The inbox.

    Raises:
        StorageError: when it cannot be made, or another process holds it.
    """
    inbox = Inbox(root)
    with hold(root):
        inbox.clean()
        yield inbox


@contextmanager
def courier_of(
    run: PredictionRun, destinations: Sequence[Destination], backoff: Backoff, stop: threading.Event
) -> Iterator[Courier | None]:
    """Give a courier for a run's results, which ends with the block; None when there is nowhere to send them.

    Args:
        run: open.
        destinations: where to.
        backoff: how long to try one before the next one has its turn.
        stop: ends it soon.

    Yields:
        The courier.
    """
    if not destinations:
        yield None
        return
    with Deliveries(run.folder) as deliveries:
        courier = Courier(deliveries, destinations, lambda: run.entries, backoff=backoff, stop=stop)
        with courier:
            yield courier


class Service:
    """Predicts studies of an inbox.

    Args:
        run: open; its observer sees every input.
        inbox: what has been received.
        courier: takes the results further; None leaves them in the result folder.
        options: how.
        stop: ends ``serve`` when it is set.
    """

    def __init__(
        self,
        run: PredictionRun,
        inbox: Inbox,
        courier: Courier | None,
        options: ServiceOptions,
        *,
        stop: threading.Event,
    ) -> None:
        self._run = run
        self._inbox = inbox
        self._courier = courier
        self._options = options
        self._stop = stop
        self._tried: dict[Path, int] = {}
        """Studies with nothing new since they were tried, and when they were last changed."""

    def serve(self) -> list[Delivered]:
        """Predict whatever arrives until ``stop`` is set.

        Returns:
            What has been delivered by then; the rest waits for the next run.

        Raises:
            StorageError: when the disk takes nothing more; what has been acknowledged stays in the inbox.
        """
        self._wake_courier()  # for what an earlier run has left
        report = _Report(self._run)
        while not self._stop.is_set():
            ready = self._ready()
            if ready:
                self.work(ready)
                report.is_due = True
                continue
            report.write_when_cheap()
            if self._courier is not None:
                self._courier.check()
            self._stop.wait(self._options.poll)
        if report.is_due:
            self._run.report()
        return self._courier.delivered if self._courier else []

    def work(self, studies: Sequence[Path]) -> Batch:
        """Predict the objects that some studies hold now.

        Args:
            studies: folders of the inbox.

        Returns:
            What became of them.

        Raises:
            StorageError: when the disk takes nothing more.
        """
        files = {study: self._inbox.files(study) for study in studies}
        seen = {path: _changed(path) for paths in files.values() for path in paths}
        batch = self._run.do(seen, with_sources=True)
        failed = {
            Path(path)
            for entry, paths in zip(batch.entries, batch.sources, strict=True)
            if entry.state == "failed"
            for path in paths
        }
        for study, paths in files.items():
            if not self._options.keep_received:
                kept = failed if self._options.keep_failed else set()
                self._inbox.remove(study, [path for path in paths if path not in kept])
            changed = _changed(study)
            if all(seen.get(path) == _changed(path) for path in self._inbox.files(study)):
                self._tried[study] = changed
        if failed and self._options.keep_failed:
            logger.warning("%d objects could not be predicted and stay in the inbox; see the report", len(failed))
        self._wake_courier()
        return batch

    def _ready(self) -> list[Path]:
        """Return the studies whose turn it is."""
        quiet = self._inbox.quiet(self._options.settle)
        gone = self._tried.keys() - set(quiet)
        ready = [study for study in quiet if self._tried.get(study) != _changed(study)]
        for study in gone:
            del self._tried[study]
        return ready[: self._options.batch]

    def _wake_courier(self) -> None:
        if self._courier is not None:
            self._courier.wake()


class _Report:
    """Writes the report of a folder that grows, so that it takes a twentieth of the time at most."""

    def __init__(self, run: PredictionRun) -> None:
        self._run = run
        self._not_before = 0.0
        self.is_due = False

    def write_when_cheap(self) -> None:
        begun = time.monotonic()
        if self.is_due and begun >= self._not_before:
            self._run.report()
            self.is_due = False
            self._not_before = begun + 20 * (time.monotonic() - begun)


def _changed(path: Path) -> int:
    """Return when a file, or a folder's list of files, was last changed; -1 when it is gone."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return -1
