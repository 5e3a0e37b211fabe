"""What the commands share that speak to a PACS."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msrf_monai.cli.predict_options import PacsOptions
from msrf_monai.clinical.pacs.retry import Backoff
from msrf_monai.errors import ConfigError

if TYPE_CHECKING:
    from msrf_monai.clinical.pacs.courier import Courier, Delivered
    from msrf_monai.clinical.pipeline import PredictionRun
    from msrf_monai.clinical.run_options import RunResult

__all__ = ["PATIENCE", "Archive", "delivery_lines", "predict_from", "query_of"]

PATIENCE = Backoff()
"""How long a run waits for a PACS that is away."""


@dataclass(frozen=True)
class Archive:
    """Where studies are fetched."""

    url: str
    query: dict[str, str]
    received: Path
    """Folder of what is fetched, until it is predicted."""


def query_of(words: Sequence[str]) -> dict[str, str]:
    """Read ``KEYWORD=VALUE`` words; raises ``ConfigError``."""
    query: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            # not quoted: it may name a patient
            raise ConfigError("--query takes KEYWORD=VALUE, such as StudyDate=20240131, and one has no keyword or no =")
        if key in query:
            raise ConfigError(f"--query {key}=… is given twice; give each keyword once")
        query[key] = value
    return query


def predict_from(
    archive: Archive, run: PredictionRun, courier: Courier | None, stop: threading.Event, outward: PacsOptions
) -> RunResult:
    """Predict the studies of an archive.

    Args:
        archive: where they are, and which.
        run: open.
        courier: takes results further, or None.
        stop: ends the fetching.
        outward: which certificates are trusted, and whether to keep what was received.

    Returns:
        How many inputs are done, failed, flagged and skipped.
    """
    from msrf_monai.clinical.pacs.fetching import predict_archive
    from msrf_monai.clinical.pacs.service import Service, ServiceOptions, open_inbox
    from msrf_monai.clinical.pacs.web import WebArchive

    options = ServiceOptions(settle=0.0, keep_received=outward.keep_received, keep_failed=False)
    with (
        WebArchive(archive.url, verify=outward.ca_file, limits=run.settings.limits) as web,
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


def delivery_lines(delivered: Sequence[Delivered], later: str) -> list[str]:
    """Return what people are told about each destination; ``later`` is what sends what waits."""
    lines = []
    for each in delivered:
        parts = [f"{each.accepted} sent"]
        parts += [f"{each.refused} refused, see deliveries.jsonl"] if each.refused else []
        parts += [f"{each.waiting} waiting ({each.reason}); {later} sends them"] if each.waiting else []
        lines.append(f"{each.destination}: {', '.join(parts)}")
    return lines
