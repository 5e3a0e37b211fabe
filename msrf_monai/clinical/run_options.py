"""What a run can be told, and what it answers."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from msrf_monai.clinical.inputs import InputOptions
from msrf_monai.clinical.ledger import Entry
from msrf_monai.clinical.outputs import DEFAULT_OUTPUTS, OUTPUTS, OutputOptions
from msrf_monai.clinical.quality import QualityLimits
from msrf_monai.clinical.reading import Limits
from msrf_monai.clinical.series_rules import SeriesRules
from msrf_monai.errors import ConfigError

__all__ = ["ALL_DONE", "SOME_FAILED", "RunOptions", "RunResult", "read_limits"]

ALL_DONE, SOME_FAILED = 0, 3
"""Exit codes of a run that has ended; one that has not raises an error."""


@dataclass(frozen=True)
class RunOptions:
    """How a run is done.

    Raises:
        ConfigError: when an output or a backend is unknown, or a number makes no sense.
    """

    outputs: tuple[str, ...] = DEFAULT_OUTPUTS
    """What is written for each input; kinds of ``msrf_monai.clinical.outputs.OUTPUTS``."""
    device: str = "auto"
    backend: Literal["eager", "torchscript", "onnxruntime", "openvino", "tensorrt"] = "eager"
    tta: bool = False
    """Average over mirror images."""
    check_flips: bool = False
    """Predict each mirror image too, and flag what does not agree with it."""
    threshold: float | None = None
    """Probability from which a pixel counts as found; None for the bundle's own."""
    weights: Path | None = None
    """Weights instead of the bundle's own."""
    num_threads: int | None = None
    """Threads inside one operation of the network."""
    overrides: tuple[tuple[str, Any], ...] = ()
    """Config ids of ``inference.json`` and their values."""
    series_rules: SeriesRules | None = None
    limits: Limits = Limits()  # noqa: RUF009 (frozen)
    slice_by_slice: bool = False
    """Take the slices of a series that is no clean volume as single images."""
    convert_unusual: bool = False
    """Convert CMYK and grey with alpha instead of refusing them."""
    hide_names: bool = False
    """Name pictures by a hash, as DICOM files are, where their file names may identify patients."""
    part: tuple[int, int] | None = None
    """``(i, n)``: do only the i-th of n parts."""
    resume: bool = False
    """Go on in a folder that holds results of the same run."""
    seg2d_geometry: bool = True
    """See ``OutputOptions``."""
    repeatable_uids: bool = True
    """See ``OutputOptions``."""
    thumbnails: bool = True
    """Write the small pictures that the report shows; without them the results hold no pixel of an input."""
    readers: int = 0
    """Threads that read and preprocess; 0 for one, or two where there are four processors or more."""
    num_workers: int = 0
    """Workers that share the inputs, each with the network in its memory; 0: this process alone, with Ray as many as
    the cluster has GPUs or else computers."""
    engine: Literal["local", "ray"] = "local"
    """Where workers run: as processes of this computer, or as actors of a Ray cluster."""
    ray_address: str | None = None
    """Of a running Ray cluster; None starts Ray on this computer alone."""
    source_list: bool = True
    """Write the private list of the files behind each result."""
    watch_crashes: bool = False
    """Find inputs that bring the whole process down; takes over Python's fault handler, as the command does."""
    report: bool = True
    """Write ``summary.csv`` and ``report.html`` at the end."""

    def __post_init__(self) -> None:
        OutputOptions(outputs=self.outputs)
        if self.tta and self.check_flips:
            raise ConfigError(
                "tta averages over mirror images, which then always agree; give either tta or check_flips"
            )
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ConfigError(f"threshold must lie between 0 and 1, got {self.threshold}")
        if self.part is not None and not 1 <= self.part[0] <= self.part[1]:
            raise ConfigError(f"part {self.part[0]}/{self.part[1]}: give I/N with I from 1 to N, such as 2/4")
        if self.readers < 0:
            raise ConfigError(f"readers must be at least 1, or 0 to leave the choice, got {self.readers}")
        if self.num_workers < 0:
            raise ConfigError(f"num_workers must be at least 1, or 0 for this process alone, got {self.num_workers}")
        if self.engine not in ("local", "ray"):
            raise ConfigError(f"engine is {self.engine!r}; expected local or ray")
        if self.ray_address is not None and self.engine != "ray":
            raise ConfigError(f"the address of a Ray cluster ({self.ray_address}) goes with the engine ray")

    @property
    def has_workers(self) -> bool:
        """Whether others than this process do the work."""
        return self.num_workers > 0 or self.engine == "ray"

    @property
    def reader_count(self) -> int:
        """Threads that read."""
        return self.readers or (2 if (os.cpu_count() or 1) >= 4 else 1)

    @property
    def keeps_probabilities(self) -> bool:
        """Whether an output needs them."""
        return not {"fractional", "prob"}.isdisjoint(self.outputs)

    def input_options(self, root: Path) -> InputOptions:
        """Return what concerns finding inputs; ``root`` is the result folder, in which none are looked for."""
        return InputOptions(
            limits=self.limits,
            rules=self.series_rules,
            slice_by_slice=self.slice_by_slice,
            part=self.part,
            hide_names=self.hide_names,
            exclude=root,
        )

    def output_options(self, quality: QualityLimits | None = None) -> OutputOptions:
        """Return what concerns writing, with a bundle's bounds for flags."""
        return OutputOptions(
            outputs=self.outputs,
            seg2d_geometry=self.seg2d_geometry,
            repeatable_uids=self.repeatable_uids,
            thumbnail=self.thumbnails,
            quality=quality or QualityLimits(),
        )

    def deciding(self) -> dict[str, Any]:
        """Return what changes results, or which there are, as JSON can hold it; a resumed run must agree in it.

        Device and threads are not in it, nor is the part, since all parts may be done in one folder after each other.
        """
        return {
            "outputs": sorted(self.outputs, key=OUTPUTS.index),
            "backend": self.backend,
            "tta": self.tta,
            "check_flips": self.check_flips,
            "threshold": self.threshold,
            "overrides": json.loads(json.dumps(dict(self.overrides), default=str)),
            "series_rules": self.series_rules.digest if self.series_rules else "",
            "limits": asdict(self.limits),
            "slice_by_slice": self.slice_by_slice,
            "convert_unusual": self.convert_unusual,
            "seg2d_geometry": self.seg2d_geometry,
            "repeatable_uids": self.repeatable_uids,
            "thumbnails": self.thumbnails,
            "hide_names": self.hide_names,
        }


@dataclass(frozen=True)
class RunResult:
    """What became of the inputs of a run, those included that an earlier run had finished."""

    done: int
    failed: int
    flagged: int
    """Of those that are done: how many a person should look at."""
    skipped: int
    """Nothing is wrong with them, and they are not predicted: no image, a copy, left out by the rules."""
    kept: int = 0
    """Of all of them: how many an earlier run had finished."""

    @classmethod
    def of(cls, entries: Iterable[Entry], kept: int) -> RunResult:
        """Count the lines of inputs, of which an earlier run had finished ``kept``."""
        states = Counter[str]()
        flagged = 0
        for entry in entries:
            states[entry.state] += 1
            flagged += entry.state == "done" and entry.is_flagged
        return cls(states["done"], states["failed"], flagged, states["skipped"], kept)

    @property
    def exit_code(self) -> int:
        """0 when everything is done and nothing flagged, else 3."""
        return SOME_FAILED if self.failed or self.flagged else ALL_DONE


def read_limits(text: str) -> Limits:
    """Read limits as the command line gives them.

    Args:
        text: a JSON file, or ``name=number`` with commas between, such as ``"frames=100,frame_pixels=4000000"``.

    Raises:
        ConfigError: when a name or a number is wrong, or the file cannot be read.
    """
    given: Any
    if "=" in text:
        given = {name.strip(): value.strip() for name, _, value in (part.partition("=") for part in text.split(","))}
    else:
        try:
            given = json.loads(Path(text).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{text}: the limits cannot be read as JSON ({type(error).__name__})") from error
    names = [bound.name for bound in fields(Limits)]
    if not isinstance(given, Mapping) or set(given) - set(names):
        raise ConfigError(f"limits may hold {', '.join(names)}; got {text!r}")
    return Limits(**{name: _whole(name, value) for name, value in given.items()})


def _whole(name: str, value: Any) -> int:
    try:
        return int(value) if isinstance(value, str) else value
    except ValueError:
        raise ConfigError(f"limit {name} must be a whole number above 0, got {value!r}") from None
