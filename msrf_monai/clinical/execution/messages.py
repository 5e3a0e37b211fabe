"""What a run and its workers tell each other, as plain values that JSON can hold; nothing is pickled.

An input goes to a worker with all that planning has found out about it, so that the worker opens no file a second time
to know it. Pixels never go through a pipe: the worker reads them from the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from msrf_monai.clinical.case import Case, ImageInfo, PixelSource, SopReference, Window
from msrf_monai.clinical.inputs import PlannedInput
from msrf_monai.clinical.ledger import Entry, OutputRecord
from msrf_monai.clinical.reading import Limits, RefusalCode, RefusedInput
from msrf_monai.clinical.reading.dicom import DicomFrames
from msrf_monai.clinical.reading.series import VolumeSlices
from msrf_monai.clinical.run_options import RunOptions
from msrf_monai.errors import ConfigError

__all__ = [
    "decode",
    "encode",
    "entry_from",
    "entry_message",
    "input_from",
    "input_message",
    "options_from",
    "options_message",
]

Message = dict[str, Any]

_OPTIONS = (
    *("outputs", "device", "backend", "tta", "check_flips", "threshold", "num_threads", "overrides", "convert_unusual"),
    *("seg2d_geometry", "repeatable_uids", "thumbnails", "readers"),
)
_AS_THEY_ARE = ("label", "folder", "skipped", "flags", "choice", "key", "instances", "is_slide", "shows_name")


def encode(message: Message) -> bytes:
    """Return a message as bytes."""
    return json.dumps(message, separators=(",", ":")).encode("ascii")


def decode(content: bytes) -> Message:
    """Return the message that ``encode`` was given, with lists in place of tuples."""
    message: Message = json.loads(content)
    return message


def input_message(planned: PlannedInput) -> Message:
    """Return an input as a message.

    Args:
        planned: of ``plan_inputs``; a case of it is a DICOM file or a volume of such files.
    """
    message: Message = {name: getattr(planned, name) for name in _AS_THEY_ARE}
    message["paths"] = planned.paths
    message["case"] = None if planned.case is None else _case_message(planned.case)
    message["refusal"] = None if planned.refusal is None else (planned.refusal.code, planned.refusal.sentence)
    return message


def input_from(message: Mapping[str, Any], limits: Limits) -> PlannedInput:
    """Return the input of a message.

    Args:
        message: of ``input_message``.
        limits: for reading its files.
    """
    case, refusal = message["case"], message["refusal"]
    return PlannedInput(
        paths=tuple(message["paths"]),
        case=None if case is None else _case_from(case, limits),
        refusal=None if refusal is None else RefusedInput(RefusalCode(refusal[0]), refusal[1]),
        **{name: _frozen(message[name]) for name in _AS_THEY_ARE},
    )


def entry_message(entry: Entry | None) -> Message | None:
    """Return a line of the manifest as a message."""
    return None if entry is None else asdict(entry)


def entry_from(message: Mapping[str, Any] | None) -> Entry | None:
    """Return the line of a message."""
    if message is None:
        return None
    outputs = tuple(OutputRecord(**each) for each in message["outputs"])
    return Entry(**{**message, "flags": tuple(message["flags"]), "outputs": outputs})


def options_message(settings: RunOptions) -> Message:
    """Return what a worker has to know of a run's options.

    Raises:
        ConfigError: when an override's value cannot be written as JSON.
    """
    message: Message = {name: getattr(settings, name) for name in _OPTIONS}
    message["limits"] = asdict(settings.limits)
    message["weights"] = None if settings.weights is None else str(settings.weights)
    try:
        encode(message)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            "overrides must be values that JSON can hold when num_workers is above 0, since they are sent to other "
            f"processes ({type(error).__name__}); give numbers, texts and lists, or run with num_workers=0"
        ) from None
    return message


def options_from(message: Mapping[str, Any]) -> RunOptions:
    """Return the options of a message."""
    given = {name: message[name] for name in _OPTIONS}
    given["outputs"] = tuple(message["outputs"])
    given["overrides"] = tuple((name, value) for name, value in message["overrides"])
    weights = None if message["weights"] is None else Path(message["weights"])
    return RunOptions(**given, limits=Limits(**message["limits"]), weights=weights)


def _case_message(case: Case) -> Message:
    slices = case.pixels.cases if isinstance(case.pixels, VolumeSlices) else None
    return {
        "digest": case.digest,
        "sources": [str(path) for path in case.sources],
        "info": {each.name: getattr(case.info, each.name) for each in fields(ImageInfo)}
        | {"windows": [asdict(each) for each in case.info.windows], "sop": [asdict(each) for each in case.info.sop]},
        "slices": None if slices is None else [(each.digest, each.info.dtype) for each in slices],
    }


def _case_from(message: Mapping[str, Any], limits: Limits) -> Case:
    told = {name: _frozen(value) for name, value in message["info"].items() if name not in ("windows", "sop")}
    info = ImageInfo(
        **told,
        windows=tuple(Window(**each) for each in message["info"]["windows"]),
        sop=tuple(SopReference(**each) for each in message["info"]["sop"]),
    )
    sources = tuple(map(Path, message["sources"]))
    pixels: PixelSource
    if message["slices"] is None:
        pixels = DicomFrames(sources[0], message["digest"], limits)
    else:
        pixels = VolumeSlices(
            [
                _slice(path, digest, dtype, info, limits)
                for path, (digest, dtype) in zip(sources, message["slices"], strict=True)
            ],
            info.dtype,
        )
    return Case(message["digest"], sources, info, pixels)


def _slice(path: Path, digest: str, dtype: Any, volume: ImageInfo, limits: Limits) -> Case:
    """Return one image of a volume; nothing but its pixels is asked of it."""
    info = ImageInfo("dicom", volume.rows, volume.columns, samples=volume.samples, dtype=dtype)
    return Case(digest, (path,), info, DicomFrames(path, digest, limits))


def _frozen(value: Any) -> Any:
    """Return a value with tuples in place of JSON's lists."""
    return tuple(_frozen(each) for each in value) if isinstance(value, list) else value
