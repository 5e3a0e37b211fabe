"""What the commands share that speak to a PACS."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msrf_monai.clinical.pacs.retry import Backoff
from msrf_monai.errors import ConfigError

if TYPE_CHECKING:
    from msrf_monai.clinical.pacs.courier import Courier, Delivered
    from msrf_monai.clinical.pacs.delivery import Destination
    from msrf_monai.clinical.pipeline import PredictionRun
    from msrf_monai.clinical.run_options import RunResult

__all__ = ["PATIENCE", "Archive", "Outward", "delivery_lines", "predict_from", "query_of", "received_folder"]

PATIENCE = Backoff()
"""How long a run waits for a PACS that is away."""


@dataclass(frozen=True)
class Outward:
    """Where results are sent."""

    send_to: tuple[str, ...] = ()
    """``AET@host:port`` of each C-STORE peer."""
    to_dicomweb: tuple[str, ...] = ()
    """Address of each DICOMweb server."""
    calling_aet: str = "MSRF_MONAI"
    ca_file: Path | None = None

    @contextmanager
    def destinations(self) -> Iterator[list[Destination]]:
        """Give the destinations while the block runs; raises ``ConfigError`` for one that makes no sense."""
        from msrf_monai.clinical.pacs.dimse import StoreDestination
        from msrf_monai.clinical.pacs.stow import StowDestination

        with ExitStack() as stack:
            found: list[Destination] = [
                StoreDestination.parse(each, calling_aet=self.calling_aet) for each in self.send_to
            ]
            found += [stack.enter_context(StowDestination(url, verify=self.ca_file)) for url in self.to_dicomweb]
            yield found


@dataclass(frozen=True)
class Archive:
    """Where studies are fetched."""

    url: str
    query: dict[str, str]
    received: Path
    """Folder of what is fetched, until it is predicted."""
    keep_received: bool = False


def query_of(words: Sequence[str]) -> dict[str, str]:
    """Read ``KEYWORD=VALUE`` words; raises ``ConfigError``."""
    query: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals or key in query:
            raise ConfigError(
                f"--query {word!r}: expected KEYWORD=VALUE, each keyword once, such as StudyDate=20240131"
            )
        query[key] = value
    return query


def received_folder(given: Path | None, output: Path) -> Path:
    """Return the folder for received objects; raises ``ConfigError`` when it lies within that of the results."""
    received = given or output.with_name(f"{output.resolve().name}-received")
    if received.resolve().is_relative_to(output.resolve()) or output.resolve().is_relative_to(received.resolve()):
        raise ConfigError(
            f"received objects ({received}) and results ({output}) need folders of their own; "
            "name another one with --received"
        )
    return received


def predict_from(
    archive: Archive, run: PredictionRun, courier: Courier | None, stop: threading.Event, outward: Outward
) -> RunResult:
    """Predict the studies of an archive.

    Args:
        archive: where they are, and which.
        run: open.
        courier: takes results further, or None.
        stop: ends the fetching.
        outward: with the certificates that are trusted.

    Returns:
        How many inputs are done, failed, flagged and skipped.
    """
    from msrf_monai.clinical.pacs.fetching import predict_archive
    from msrf_monai.clinical.pacs.service import Service, ServiceOptions, open_inbox
    from msrf_monai.clinical.pacs.web import WebArchive

    options = ServiceOptions(settle=0.0, keep_received=archive.keep_received)
    with (
        WebArchive(archive.url, verify=outward.ca_file) as web,
        open_inbox(archive.received) as inbox,
    ):
        service = Service(run, inbox, courier, options, stop=stop)
        try:
            return predict_archive(
                web, archive.query, run=run, service=service, inbox=inbox, backoff=PATIENCE, stop=stop
            )
        except BaseException:
            stop.set()  # the thread that fetches must not go on trying
            raise


def delivery_lines(delivered: Sequence[Delivered]) -> list[str]:
    """Return what people are told about each destination."""
    lines = []
    for each in delivered:
        parts = [f"{each.accepted} sent"]
        parts += [f"{each.refused} refused, see deliveries.jsonl"] if each.refused else []
        parts += [f"{each.waiting} waiting ({each.reason}); --resume sends them"] if each.waiting else []
        lines.append(f"{each.destination}: {', '.join(parts)}")
    return lines
