"""What a prediction leaves in the result folder: which files an input can have, and writing them, verified."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from msrf_monai.clinical.artefacts import Artefact, dicom_artefacts, grid_artefacts, mask_values
from msrf_monai.clinical.case import Case, ImageInfo
from msrf_monai.clinical.prediction import Prediction
from msrf_monai.clinical.quality import QualityLimits, flags_of, frame_flags
from msrf_monai.clinical.statistics import CaseStatistics, measure
from msrf_monai.clinical.statistics_record import statistics_record
from msrf_monai.clinical.thumbnail import draw_thumbnail
from msrf_monai.clinical.writing import Flags, Identity, Producer, Segment, write_verified
from msrf_monai.clinical.writing.segments import check_segments
from msrf_monai.errors import ConfigError, MsrfError, StorageError

__all__ = [
    "DEFAULT_OUTPUTS",
    "OUTPUTS",
    "OutputFile",
    "OutputOptions",
    "OutputPlan",
    "Skipped",
    "plan_outputs",
    "write_outputs",
]

OUTPUTS = ("mask", "seg", "labelmap", "fractional", "sr", "overlay-sc", "pr", "nifti", "prob", "stats")
"""Every kind of output that can be asked for."""

DEFAULT_OUTPUTS = ("mask", "seg", "stats")

_DICOM_ONLY = ("seg", "labelmap", "fractional", "sr", "overlay-sc", "pr")
_OF_PROBABILITIES = ("fractional", "prob")


@dataclass(frozen=True)
class OutputOptions:
    """What is written for each input.

    Raises:
        ConfigError: when a kind of output is unknown, or none is named.
    """

    outputs: tuple[str, ...] = DEFAULT_OUTPUTS
    """Kinds, of ``OUTPUTS``."""
    seg2d_geometry: bool = True
    """Give segmentations of images without a place one on their pixel grid, which OHIF and 3D Slicer need."""
    repeatable_uids: bool = True
    """The same input, model and options give the same bytes; otherwise every run has UIDs and a time of its own."""
    thumbnail: bool = True
    """Write the small picture that the report shows; without it the result folder holds no source pixel at all."""
    quality: QualityLimits = field(default_factory=QualityLimits)
    """The bounds that raise flags."""

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.outputs if kind not in OUTPUTS]
        if unknown or not self.outputs:
            raise ConfigError(f"outputs are one or more of {', '.join(OUTPUTS)}; got {', '.join(unknown) or 'none'}")


@dataclass(frozen=True)
class OutputFile:
    """One file that was written."""

    kind: str
    """One of ``OUTPUTS``, or ``"thumbnail"``, the small picture for the report."""
    path: str
    """Relative to the folder of this input's results."""
    sha256: str
    size: int
    """In bytes."""


@dataclass(frozen=True)
class Skipped:
    """A kind of output that an input cannot have."""

    kind: str
    reason: str
    """One sentence without anything of the input's."""


@dataclass(frozen=True)
class OutputPlan:
    """What will be written for an input, and what was asked for in vain."""

    kinds: tuple[str, ...]
    """In the order of ``OUTPUTS``; ``seg`` is among them when ``sr`` is, since a report refers to it."""
    skipped: tuple[Skipped, ...] = ()
    """Empty when nobody chose the outputs, that is when the options name the default set."""


def plan_outputs(info: ImageInfo, options: OutputOptions, *, probabilities: bool) -> OutputPlan:
    """Decide what can be written for an input.

    Args:
        info: of the input.
        options: what was asked for.
        probabilities: whether the predictor keeps them.

    Returns:
        The plan; the same for every run of the same input.
    """
    wanted = set(options.outputs) | ({"seg"} if "sr" in options.outputs else set())
    refused = {kind: _why_not(kind, info, probabilities) for kind in OUTPUTS if kind in wanted}
    # the default set is meant for every kind of input; who names kinds wants to know what became of each
    is_chosen = set(options.outputs) != set(DEFAULT_OUTPUTS)
    return OutputPlan(
        tuple(kind for kind, reason in refused.items() if not reason),
        tuple(
            Skipped(kind, reason)
            for kind, reason in refused.items()
            if reason and is_chosen and kind in options.outputs
        ),
    )


def write_outputs(
    case: Case,
    prediction: Prediction,
    *,
    folder: Path,
    predictor_identity: Producer,
    segments: Sequence[Segment],
    options: OutputOptions | None = None,
    statistics: CaseStatistics | None = None,
) -> tuple[OutputFile, ...]:
    """Write everything that ``plan_outputs`` plans, each file checked before it counts, and a thumbnail.

    Args:
        case: what was predicted; its headers are read again, and a frame for the thumbnail.
        prediction: of it, on its own pixels.
        folder: for the files of this input only; made when missing. Files of the same names are replaced.
        predictor_identity: the model, as DICOM objects name it.
        segments: one for each class.
        options: what to write; default ``OutputOptions()``.
        statistics: of ``measure``, when they have been measured already.

    Returns:
        One entry for each kind, in the order of ``OUTPUTS``, and one for the thumbnail. ``mask`` and ``nifti`` of an
        input with several frames are one file.

    Raises:
        InputError: when the prediction does not fit, or the source cannot be referred to.
        RefusedInput: when the source has changed or cannot be decoded again.
        StorageError: when the disk refuses or gives back other bytes. Whatever is raised, none of the files that this
            call wrote stays.
        MissingExtraError: when highdicom is needed and not installed.
    """
    options = options or OutputOptions()
    segments = check_segments(segments)
    statistics = statistics or measure(case.info, prediction, len(segments))
    plan = plan_outputs(case.info, options, probabilities=prediction.probabilities is not None)
    make = Identity.repeatable if options.repeatable_uids else Identity.fresh
    kinds = tuple(kind for kind in plan.kinds if kind != "stats")
    flags: Flags = frame_flags(statistics, options.quality) | {None: flags_of(statistics, options.quality)}
    written: list[OutputFile] = []
    try:
        for artefact in itertools.chain(
            grid_artefacts(case, prediction, segments, kinds),
            dicom_artefacts(case, prediction, segments, make(predictor_identity), kinds, options.seg2d_geometry, flags),
            [draw_thumbnail(case, prediction, segments)] if options.thumbnail else [],
        ):
            written += _keep(folder, artefact)
        if "stats" in plan.kinds:
            record = statistics_record(case.info, statistics, segments, options.quality)
            record |= {
                "model": _model(predictor_identity),
                "input_sha256": case.digest,
                "mask_values": mask_values(case.info, len(segments)),
                "skipped": [{"kind": each.kind, "reason": each.reason} for each in plan.skipped],
            }
            written += _keep(folder, _as_json(record))
    except MsrfError:
        for done in written:
            (folder / done.path).unlink(missing_ok=True)
        raise
    order = (*OUTPUTS, "thumbnail")
    return tuple(sorted(written, key=lambda done: (order.index(done.kind), done.path)))


def _why_not(kind: str, info: ImageInfo, probabilities: bool) -> str:
    """Return why an input cannot have a kind of output, or nothing when it can."""
    if info.kind == "slide":
        return "a whole slide is written tile by tile, not as a file of this kind"
    if kind in _DICOM_ONLY and info.kind not in ("dicom", "dicom-volume"):
        return "it refers to a DICOM object, and the input is none; mask and nifti work for every input"
    if kind in _OF_PROBABILITIES and not probabilities:
        return "the predictor did not keep probabilities; tell it to"
    return ""


def _keep(folder: Path, artefact: Artefact) -> list[OutputFile]:
    done = write_verified(folder / artefact.name, artefact.content, artefact.check)
    return [OutputFile(kind, artefact.name, done.sha256, len(artefact.content)) for kind in artefact.kinds]


def _model(producer: Producer) -> dict[str, str]:
    return {
        "name": producer.model,
        "version": producer.version,
        "digest": producer.model_digest,
        "options_digest": producer.options_digest,
        "software": f"{producer.manufacturer} {producer.software_version}",
    }


def _as_json(record: dict[str, Any]) -> Artefact:
    content = (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()
    return Artefact(("stats",), "stats.json", content, partial(_check_json, expected=record))


def _check_json(content: bytes, expected: dict[str, Any]) -> None:
    if json.loads(content) != expected:
        raise StorageError("the statistics came back changed; they were not kept. Check the disk, then run again")
