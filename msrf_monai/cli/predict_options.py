"""The options of the commands that predict, each said once."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from msrf_monai.errors import ConfigError

_OUTPUTS = "mask, seg, labelmap, fractional, sr, overlay-sc, pr, nifti, prob, stats"


class Backend(StrEnum):
    """What runs the network."""

    EAGER = "eager"
    TORCHSCRIPT = "torchscript"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"


BundleArgument = Annotated[Path, typer.Argument(help="Folder of the bundle.")]
OutputsOption = Annotated[str, typer.Option(help=f"What to write, with commas between: {_OUTPUTS}.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
BackendOption = Annotated[Backend, typer.Option(help="What runs the network.")]
TtaOption = Annotated[bool, typer.Option("--tta", help="Average over mirror images: four times the computation.")]
ThresholdOption = Annotated[
    float | None, typer.Option(help="Probability from which a pixel counts (default: the bundle's).")
]
WeightsOption = Annotated[Path | None, typer.Option(help="Weights instead of the bundle's own.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="CPU threads of the network.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="KEY=VALUE of the bundle's inference.json; may be repeated.")
]
SeriesRulesOption = Annotated[
    Path | None, typer.Option(help="JSON of which DICOM images and volumes to take (default: all).")
]
LimitsOption = Annotated[
    str | None, typer.Option(help="JSON file, or NAME=NUMBER,…: file_bytes, inflated_bytes, frame_pixels, frames.")
]
SliceBySliceOption = Annotated[
    bool, typer.Option("--slice-by-slice", help="Take a series that is no clean volume as single images.")
]
ConvertUnusualOption = Annotated[
    bool, typer.Option("--convert-unusual", help="Convert CMYK and grey with alpha instead of refusing them.")
]
GeometryOption = Annotated[bool, typer.Option(help="Give segmentations of photographs a geometry, which viewers need.")]
RepeatableOption = Annotated[
    bool, typer.Option(help="Same input and model, same UIDs and bytes; otherwise new ones in every run.")
]
ThumbnailsOption = Annotated[bool, typer.Option(help="Write small pictures of the inputs for the report.")]
SourceListOption = Annotated[bool, typer.Option(help="Write sources.private.jsonl: which files each result is from.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Show errors only.")]
SendToOption = Annotated[
    list[str] | None,
    typer.Option(metavar="AET@HOST:PORT", help="Send DICOM results there by C-STORE; may be repeated."),
]
ToDicomwebOption = Annotated[
    list[str] | None, typer.Option(metavar="URL", help="Send DICOM results there by STOW-RS; may be repeated.")
]
ReceivedOption = Annotated[
    Path | None,
    typer.Option(help="Folder for received objects until they are predicted (default: OUTPUT-received)."),
]
KeepReceivedOption = Annotated[
    bool, typer.Option("--keep-received", help="Leave received objects there when they are predicted.")
]
CallingAetOption = Annotated[str, typer.Option(help="Our own AE title.")]
VerifyOption = Annotated[
    Path | None, typer.Option("--ca-file", help="Certificates of authorities that DICOMweb servers may have.")
]

__all__ = ["Backend", "outputs_of", "overrides_of", "part_of", "rules_and_limits"]
__all__ += [name for name in dir() if name.endswith(("Option", "Argument"))]


def outputs_of(text: str) -> tuple[str, ...]:
    """Return the kinds of output that a text with commas names."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def rules_and_limits(series_rules: Path | None, limits: str | None) -> dict[str, Any]:
    """Read the rules for series and the limits, as ``RunOptions`` takes them; raises ``ConfigError``."""
    from msrf_monai.clinical.reading import Limits
    from msrf_monai.clinical.run_options import read_limits
    from msrf_monai.clinical.series_rules import SeriesRules

    return {
        "limits": Limits() if limits is None else read_limits(limits),
        "series_rules": None if series_rules is None else SeriesRules.from_file(series_rules),
    }


def part_of(text: str | None) -> tuple[int, int] | None:
    """Read ``I/N``; raises ``ConfigError``."""
    if text is None:
        return None
    number, _, parts = text.partition("/")
    if not (number.isdecimal() and parts.isdecimal()):
        raise ConfigError(f"--part {text!r}: expected I/N such as 2/4")
    return int(number), int(parts)


def overrides_of(words: list[str] | None) -> tuple[tuple[str, Any], ...]:
    """Read ``KEY=VALUE`` words; a value that is no JSON is a text. Raises ``ConfigError``."""
    return tuple(_override(word) for word in words or [])


def _override(word: str) -> tuple[str, Any]:
    key, equals, value = word.removeprefix("--").partition("=")
    if not key or not equals:
        raise ConfigError(f"--set {word!r}: expected KEY=VALUE such as image_size=[320,320]")
    try:
        return key.replace("#", "::"), json.loads(value)
    except ValueError:
        return key.replace("#", "::"), value
