"""``report.html``: one page about a run that fetches nothing from elsewhere, made of the result folder alone."""

from __future__ import annotations

import importlib.resources
import os
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from msrf_monai.clinical.ledger import Entry, open_manifest
from msrf_monai.clinical.quality import FLAGS
from msrf_monai.clinical.report_pictures import draw_histogram, histogram_of, png_uri
from msrf_monai.clinical.summary import Result, iter_results, output_bytes
from msrf_monai.files import atomic_write
from msrf_monai.optional import require

__all__ = ["MOST_PICTURES", "MOST_ROWS", "REPORT", "write_report"]

REPORT = "report.html"
"""Name of the file in the result folder."""
MOST_PICTURES = 60
"""Inputs that are shown as pictures: all that fit of the flagged ones, then others spread over the rest."""
MOST_ROWS = 300
"""Lines of a table; ``summary.csv`` has all of them."""

_NOTES = {
    "unusual_high_bit": "the DICOM header's high bit is unusual; the pixels were read all the same",
    "rescale_slope_zero": "the DICOM header's rescale slope is 0, so all values are one",
    "excess_padding": "there are more bytes than pixels, all of them 0",
    "colour_marker_disagrees": "the compressed picture and the DICOM header name different colours",
    "alpha_dropped": "the picture may be transparent in parts, which was left out",
    "series_divided": "a DICOM series held several volumes or images and was divided",
    "not_a_volume": "slices that make no clean volume were taken one by one",
}
"""What reading tolerated, in the words of ``ImageInfo.notes``."""


@dataclass
class _Areas:
    """How large one segment is over all inputs."""

    number: int
    label: str
    colour: tuple[int, int, int]
    inputs: int = 0
    empty: int = 0
    shares: array[float] = field(default_factory=lambda: array("d"))
    """Of the frame, in percent, in the frame where it is largest; only inputs where it was found."""
    square_millimetres: array[float] = field(default_factory=lambda: array("d"))
    """The same in mm², only where the spacing is real."""
    millilitres: array[float] = field(default_factory=lambda: array("d"))
    components: array[float] = field(default_factory=lambda: array("d"))

    def add(self, segment: Mapping[str, Any], frame_pixels: int) -> None:
        self.inputs += 1
        if not segment["pixels"]:
            self.empty += 1
            return
        self.shares.append(100 * segment["largest_frame_pixels"] / frame_pixels)
        self.components.append(segment["components"] / segment["frames_found"])
        if segment["largest_frame_area_mm2"] is not None:
            self.square_millimetres.append(segment["largest_frame_area_mm2"])
        if segment["volume_mm3"] is not None:
            self.millilitres.append(segment["volume_mm3"] / 1000)

    @property
    def lines(self) -> list[tuple[str, int, list[str]]]:
        """What is measured, of how many inputs, and its minimum, quartiles and maximum."""
        measured = (
            ("share of the frame, %", self.shares),
            ("area, mm²", self.square_millimetres),
            ("volume, ml", self.millilitres),
            ("parts a frame", self.components),
        )
        return [
            (name, len(values), [f"{part:.4g}" for part in np.percentile(values, [0, 25, 50, 75, 100])])
            for name, values in measured
            if values
        ]

    @property
    def drawings(self) -> list[str]:
        """A histogram of each kind of area that is known."""
        drawn = []
        for name, axis, values in (
            ("share", f"{self.label}: share of the frame, %", self.shares),
            ("area", f"{self.label}: area, mm²", self.square_millimetres),
        ):
            if values:
                title = f"Histogram of the {name} of {self.label} over {len(values)} inputs"
                drawn.append(draw_histogram(histogram_of(values), title=title, axis=axis, colour=self.colour))
        return drawn


@dataclass
class _Overview:
    """What one reading of all results gathers; of each input only its name and a few numbers stay."""

    total: int = 0
    states: Counter[str] = field(default_factory=Counter)
    images: int = 0
    problems: Counter[tuple[str, str]] = field(default_factory=Counter)
    """State and code of what was not done."""
    refused: list[Entry] = field(default_factory=list)
    """The first of them."""
    flags: Counter[str] = field(default_factory=Counter)
    flagged: list[str] = field(default_factory=list)
    """Folders of inputs that are done, and of which a flag asks for a look."""
    others: list[str] = field(default_factory=list)
    """Folders of those that are done without such a flag."""
    areas: dict[tuple[int, str], _Areas] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)
    unknown: int = 0
    """Results that are done and have no statistics."""
    changed: int = 0

    def add(self, result: Result) -> None:
        entry = result.entry
        self.total += 1
        self.states[entry.state] += 1
        self.images += entry.frames
        # what a rule decided is told in other words for each input, and the manifest has them
        self.flags.update("rule" if flag.startswith("rule:") else flag for flag in entry.flags)
        self.changed += result.has_changed
        if entry.state == "done":
            (self.flagged if entry.is_flagged else self.others).append(entry.folder)
            self._add_done(result)
            return
        self.problems[entry.state, entry.code] += 1
        if len(self.refused) < MOST_ROWS:
            self.refused.append(entry)

    def _add_done(self, result: Result) -> None:
        self.unknown += result.statistics is None
        image = (result.statistics or {}).get("image", {})
        for segment in result.segments:
            key = segment["number"], segment["label"]
            if key not in self.areas:
                self.areas[key] = _Areas(*key, colour=tuple(segment["colour"]))
            self.areas[key].add(segment, image["rows"] * image["columns"])
        if len(self.lines) < MOST_ROWS:
            confidence = result.confidence
            self.lines.append(
                {
                    "entry": result.entry,
                    "image": image,
                    "segments": [_shown(segment) for segment in result.segments],
                    "confidence": f"{min(confidence):.3f}" if confidence else "–",
                }
            )


def write_report(folder: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` of a result folder.

    The page says how many inputs there were and what became of them, why the others failed, what is flagged, shows
    pictures of at most 60 inputs, how large the segments are, and which versions made it. It holds no time, so the
    same results give the same page.

    Args:
        folder: the result folder of a run that has ended or not.

    Returns:
        The file.

    Raises:
        DataError: when the folder has no manifest that can be read.
        MissingExtraError: when Jinja2 is not installed.
        StorageError: when the file cannot be written.
    """
    folder = Path(folder)
    path = folder / REPORT
    overview = _Overview()
    with open_manifest(folder) as manifest:
        for result in iter_results(folder, manifest):
            overview.add(result)
        shown = _worth_showing(overview)
        page = _template().stream(
            header=manifest.header,
            later=manifest.later,
            states=overview.states,
            total=overview.total,
            flagged=len(overview.flagged),
            images=overview.images,
            problems=_problems(overview.problems),
            refused=overview.refused,
            flags=_flags(overview.flags),
            pictures=(
                {"entry": entry, "png": _picture(folder, entry)} for entry in map(manifest.entries.__getitem__, shown)
            ),
            shown=len(shown),
            overview=overview,
            areas=[overview.areas[key] for key in sorted(overview.areas)],
            most_rows=MOST_ROWS,
        )
        with atomic_write(path) as handle:
            page.dump(handle, encoding="utf-8")
    return path


def _template() -> Any:
    jinja2 = require("jinja2", "clinical")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(link=quote, asked=_asked, plain=_plain)
    source = importlib.resources.files("msrf_monai.clinical").joinpath("report.html.j2").read_text("utf-8")
    return environment.from_string(source)


def _asked(flags: Sequence[str]) -> list[str]:
    """Return the flags that ask for a look."""
    return [flag for flag in flags if not flag.startswith(("rule:", "not_written:"))]


def _plain(value: Any) -> str:
    """Return an option as people read it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(each) for each in value) or "none"
    if value is None or isinstance(value, bool):
        return "not set" if value is None else "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _worth_showing(overview: _Overview) -> list[str]:
    """Return the folders of inputs whose pictures are shown."""
    flagged, others = overview.flagged, overview.others
    return (_spread(flagged, MOST_PICTURES) + _spread(others, MOST_PICTURES - len(flagged)))[:MOST_PICTURES]


def _spread(names: Sequence[str], most: int) -> list[str]:
    """Return at most so many names, spread evenly from the first to the last."""
    if most <= 0 or not names:
        return []
    return [names[int(place)] for place in np.unique(np.linspace(0, len(names) - 1, most).round().astype(int))]


def _picture(folder: Path, entry: Entry) -> str:
    content = output_bytes(folder, entry, "thumbnail")
    return png_uri(content) if content else ""


def _problems(counts: Mapping[tuple[str, str], int]) -> list[tuple[str, str, int]]:
    """Return each state and code of what was not done, and how often it came, the most frequent first."""
    return [
        (state, code, number) for (state, code), number in sorted(counts.items(), key=lambda each: (-each[1], each))
    ]


def _flags(counts: Mapping[str, int]) -> list[tuple[str, str, int]]:
    """Return each flag, what it says, and how many inputs have it, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda each: (not _asked([each[0]]) or each[0] == "rule", -each[1], each[0]))
    return [(flag, _meaning(flag), number) for flag, number in ordered[:MOST_ROWS]]


def _meaning(flag: str) -> str:
    if flag.startswith("not_written:"):
        return "such an output was asked for, and these inputs cannot have it; stats.json says why"
    return (FLAGS | _NOTES | {"rule": "a rule chose the series; manifest.jsonl tells which and why"}).get(flag, "")


def _shown(segment: Mapping[str, Any]) -> dict[str, Any]:
    area = segment["largest_frame_area_mm2"]
    return {
        "label": segment["label"],
        "pixels": f"{segment['largest_frame_pixels']:,}",
        "area": "" if area is None else f"{area:,.{1 if area >= 10 else 3}f} mm²",
        "frames_found": segment["frames_found"],
        "components": segment["components"],
    }
