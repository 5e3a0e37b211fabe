"""Send results to a PACS, each once: what it has answered about an object is on the disk before the next is asked."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

from msrf_monai.clinical.ledger import Entry, OutputRecord
from msrf_monai.clinical.line_file import LineFile
from msrf_monai.clinical.pacs.retry import Backoff, persistent
from msrf_monai.errors import DataError, PacsError
from msrf_monai.files import Closing, sha256_of

__all__ = ["DELIVERIES", "DICOM_KINDS", "Deliveries", "DeliveryResult", "Destination", "Sent"]

logger = logging.getLogger(__name__)

DELIVERIES = "deliveries.jsonl"
"""Name of the file in the result folder."""
DICOM_KINDS = ("seg", "labelmap", "fractional", "sr", "overlay-sc", "pr")
"""The kinds of output that are DICOM objects."""
_STATES = {True: "accepted", False: "refused"}


@dataclass(frozen=True)
class Sent:
    """What a PACS has answered about one object."""

    path: Path
    is_accepted: bool
    reason: str = ""
    """A stable code, a colon and a sentence that quotes nothing of the object; empty when it is accepted."""


class Destination(Protocol):
    """Where results are sent."""

    @property
    def name(self) -> str:
        """How people and ``deliveries.jsonl`` call it, without credentials."""
        ...  # pragma: no cover

    def send(self, paths: Sequence[Path]) -> Iterator[Sent]:
        """Send DICOM files.

        Args:
            paths: the files.

        Yields:
            What the PACS says about each, as soon as it has said it, in any order. What it may well accept later (it
            is out of space, it restarts) is no refusal but a ``PacsError``.

        Raises:
            PacsError: when the PACS cannot be reached, or breaks off; what was not yielded counts as not sent.
        """
        ...  # pragma: no cover


@dataclass(frozen=True)
class DeliveryResult:
    """What has become of the objects of one delivery."""

    accepted: int = 0
    refused: int = 0
    """Those that the PACS refused, and files that are no longer what the manifest says."""
    waiting: int = 0
    """Those that the PACS has not answered about; they are still outstanding."""
    reason: str = ""
    """Why some are waiting."""


@dataclass
class _Count:
    """A result in the making."""

    accepted: int = 0
    refused: int = 0

    def add(self, is_accepted: bool) -> None:
        self.accepted += is_accepted
        self.refused += not is_accepted


class Deliveries(Closing):
    """What has been sent from a result folder, and sending the rest; one process at a time.

    Args:
        folder: the result folder, which exists; it gets a ``deliveries.jsonl``, to which lines are only ever added.

    Raises:
        DataError: when the file is there and is damaged before its last line.
        StorageError: when it cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines = LineFile(folder / DELIVERIES)
        try:
            self._settled = _parse(self._lines.content, folder / DELIVERIES)
        except BaseException:
            self._lines.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._lines.close()

    def outstanding(self, entries: Iterable[Entry], destination: str) -> list[OutputRecord]:
        """Return the DICOM objects that a PACS has not accepted yet.

        What it has refused is among them once more in the next process: by then somebody may have mended the reason.

        Args:
            entries: of the manifest.
            destination: the ``name`` of the PACS.

        Returns:
            The objects of inputs that are done, in their order; an object that was made anew with other bytes counts
            as a new one.
        """
        objects = {
            (destination, output.path, output.sha256): output
            for entry in entries
            if entry.state == "done"
            for output in entry.outputs
            if output.kind in DICOM_KINDS
        }
        return [output for key, output in objects.items() if key not in self._settled]

    def deliver(
        self,
        destination: Destination,
        records: Sequence[OutputRecord],
        *,
        backoff: Backoff,
        stop: threading.Event | None = None,
        batch: int = 50,
    ) -> DeliveryResult:
        """Send objects, again and again where the PACS is away for a while.

        Each answer is a line on the disk before the next is waited for, so that nothing accepted is sent again,
        whatever happens to this process or to the PACS. Only an object whose answer itself was lost is sent again;
        it has the same UID, and the PACS keeps one.

        Args:
            destination: the PACS.
            records: what to send, of ``outstanding``. A file that is missing or has changed is not sent.
            backoff: how long to try while the PACS gives no sign of life; each answer begins that time anew.
            stop: set from outside to end soon.
            batch: how many objects the PACS is handed at once.

        Returns:
            How many it accepted and refused. A PACS that stays away is no exception: the rest is ``waiting``.

        Raises:
            StorageError: when a line cannot be written; what it is about counts as not sent.
            MissingExtraError: when the library for this destination is not installed.
        """
        count, rest = _Count(), iter(records)
        left, reason = 0, ""
        while chosen := list(islice(rest, batch)):
            pending = {self._folder / record.path: record for record in chosen}
            size = len(pending)
            try:
                self._send(destination, pending, count, backoff, stop)
            except PacsError as error:
                left, reason = left + len(pending), str(error)
                # where others of the batch were answered about, the PACS is there: single objects make trouble
                if pending and len(pending) == size:
                    left += sum(1 for _ in rest)
        return DeliveryResult(count.accepted, count.refused, left, reason)

    def _send(
        self,
        destination: Destination,
        pending: dict[Path, OutputRecord],
        count: _Count,
        backoff: Backoff,
        stop: threading.Event | None,
    ) -> None:
        """Send until nothing is pending; raises the ``PacsError`` that ends the attempts."""
        while pending:
            if stop is not None and stop.is_set():
                raise PacsError("the delivery was stopped; the next one goes on from there")
            persistent(partial(self._attempt, destination, pending, count), backoff, stop=stop)

    def _drop_changed(self, destination: str, pending: dict[Path, OutputRecord], count: _Count) -> None:
        """Refuse the files that are missing, or are not what the manifest said when they were chosen."""
        for path, record in list(pending.items()):
            try:
                is_intact = path.is_file() and path.stat().st_size == record.size and sha256_of(path) == record.sha256
            except OSError:
                is_intact = False
            if not is_intact:
                reason = "changed: the file is missing, or has changed since it was written; it was not sent"
                self._settle(destination, record, Sent(path, is_accepted=False, reason=reason))
                del pending[path]
                count.add(is_accepted=False)

    def _attempt(self, destination: Destination, pending: dict[Path, OutputRecord], count: _Count) -> None:
        """Send what is pending; break off without an error when at least one answer came, since that is progress."""
        # before each attempt: a result may have been made anew while the PACS was away
        self._drop_changed(destination.name, pending, count)
        before = len(pending)
        if not before:
            return
        try:
            for sent in destination.send(list(pending)):
                self._settle(destination.name, pending[sent.path], sent)
                del pending[sent.path]
                count.add(sent.is_accepted)
        except PacsError as error:
            if error.is_lasting or len(pending) == before:
                raise
        if len(pending) == before:
            raise PacsError(f"{destination.name} took what it was sent and said nothing about {before} objects")

    def _settle(self, destination: str, record: OutputRecord, sent: Sent) -> None:
        state = _STATES[sent.is_accepted]
        line = {"destination": destination, "path": record.path, "sha256": record.sha256}
        line |= {"state": state, "reason": sent.reason}
        self._lines.append(json.dumps(line, separators=(",", ":")).encode())
        self._settled.add((destination, record.path, record.sha256))
        if not sent.is_accepted:
            logger.warning("%s refused %s: %s", destination, record.path, sent.reason)


def _parse(content: bytes, path: Path) -> set[tuple[str, str, str]]:
    """Return destination, path and digest of everything that was accepted."""
    settled = set()
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            values = json.loads(line)
            if values["state"] not in _STATES.values():
                raise ValueError
            if values["state"] == _STATES[True]:
                settled.add((str(values["destination"]), str(values["path"]), str(values["sha256"])))
        except (ValueError, TypeError, KeyError):
            raise DataError(
                f"{path}: line {number} is damaged; put the file back from a copy, or remove it to send all again"
            ) from None
    return settled
