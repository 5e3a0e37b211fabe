"""What a result folder holds, input by input, and ``summary.csv``: one line for each input and segment."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msrf_monai.clinical.ledger import Entry, Manifest, OpenManifest, open_manifest
from msrf_monai.clinical.statistics_record import FORMAT
from msrf_monai.files import atomic_write

__all__ = ["COLUMNS", "SUMMARY", "Result", "iter_results", "output_bytes", "write_summary"]

SUMMARY = "summary.csv"
"""Name of the file in the result folder."""

_OF_INPUT = ("input", "folder", "state", "code", "reason", "flags", "frames", "confidence_mean", "confidence_lowest")
_OF_SEGMENT = (
    "label",
    "frames_found",
    "pixels",
    "largest_frame_pixels",
    "share",
    "area_mm2",
    "largest_frame_area_mm2",
    "volume_mm3",
    "components",
    "confidence",
)
COLUMNS = (*_OF_INPUT, "segment", *_OF_SEGMENT, "rows", "columns", "spacing_is_real", "sha256")
"""Of ``summary.csv``; ``confidence`` is the segment's, ``sha256`` the input's."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Result:
    """One input of a run, with its numbers where they were written."""

    entry: Entry
    statistics: Mapping[str, Any] | None
    """What ``stats.json`` holds; None when it was not asked for, or is not what the run wrote."""
    has_changed: bool = False
    """True when ``stats.json`` is missing or not what the run wrote."""

    @property
    def segments(self) -> list[Mapping[str, Any]]:
        """The numbers of each segment."""
        return list(self.statistics["segments"]) if self.statistics else []

    @property
    def confidence(self) -> list[float]:
        """One a frame, those that are numbers."""
        return [value for value in (self.statistics or {}).get("confidence", ()) if value is not None]


def output_bytes(folder: Path, entry: Entry, kind: str) -> bytes | None:
    """Return a file that a run wrote for an input.

    Args:
        folder: the result folder.
        entry: the input.
        kind: which of its outputs.

    Returns:
        Its bytes; None when there is no such output, or the file is not what the run wrote.
    """
    root = folder.resolve()
    for output in entry.outputs:
        if output.kind == kind:
            path = (folder / output.path).resolve()
            try:
                # a manifest from elsewhere must not make us read, and then show, other files of this machine
                content = path.read_bytes() if path.is_relative_to(root) else b""
            except OSError:
                return None
            return content if hashlib.sha256(content).hexdigest() == output.sha256 else None
    return None


def iter_results(folder: str | os.PathLike[str], manifest: Manifest | OpenManifest) -> Iterator[Result]:
    """Yield every input of a run in the order of its name, with the numbers of one at a time in memory.

    Args:
        folder: the result folder.
        manifest: of that folder.

    Yields:
        Failed and skipped inputs too.
    """
    for entry in manifest.in_order():
        content = output_bytes(Path(folder), entry, "stats")
        is_promised = any(output.kind == "stats" for output in entry.outputs)
        found = json.loads(content) if content else {}
        # a slide's numbers have another form
        statistics = found if found.get("format") == FORMAT else None
        yield Result(entry, statistics, has_changed=is_promised and not content)


def write_summary(folder: str | os.PathLike[str]) -> Path:
    """Write ``summary.csv`` of a result folder: a line for each input and segment, and one for each input without.

    Args:
        folder: the result folder of a run that has ended or not.

    Returns:
        The file. The same results give the same bytes, whatever the order in which they were made.

    Raises:
        DataError: when the folder has no manifest that can be read.
        StorageError: when the file cannot be written.
    """
    path = Path(folder) / SUMMARY
    with open_manifest(folder) as manifest, atomic_write(path) as handle:
        text = io.TextIOWrapper(handle, encoding="utf-8", newline="")
        rows = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        rows.writeheader()
        for result in iter_results(folder, manifest):
            for segment in result.segments or [{}]:
                rows.writerow(_row(result, segment))
        text.flush()
        text.detach()
    return path


def _row(result: Result, segment: Mapping[str, Any]) -> dict[str, Any]:
    entry, confidence = result.entry, result.confidence
    image = (result.statistics or {}).get("image", {})
    row: dict[str, Any] = {name: getattr(entry, name) for name in ("input", "folder", "state", "code", "reason")}
    row |= {"flags": " ".join(entry.flags), "frames": entry.frames, "sha256": entry.digest}
    if confidence:
        row["confidence_mean"] = round(sum(confidence) / len(confidence), 6)
        row["confidence_lowest"] = min(confidence)
    if segment:
        row |= {"segment": segment["number"], **{name: segment[name] for name in _OF_SEGMENT}}
        row |= {name: image[name] for name in ("rows", "columns", "spacing_is_real")}
    return {name: _harmless(value) for name, value in row.items()}


def _harmless(value: Any) -> Any:
    """Keep spreadsheets from taking a text for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
