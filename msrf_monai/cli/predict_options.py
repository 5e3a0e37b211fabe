"""The options of the commands that predict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msrf_monai.errors import ConfigError

if TYPE_CHECKING:
    from msrf_monai.clinical.pacs.delivery import Destination

__all__ = ["Backend", "BundleArgument", "PacsOptions", "PredictionOptions", "parse_override"]

_OUTPUTS = "mask, seg, labelmap, fractional, sr, overlay-sc, pr, nifti, prob, stats"

BundleArgument = Annotated[Path, typer.Argument(help="Folder of the bundle.")]


class Backend(StrEnum):
    """What runs the network."""

    EAGER = "eager"
    TORCHSCRIPT = "torchscript"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"


class Engine(StrEnum):
    """Where workers run."""

    LOCAL = "local"
    RAY = "ray"


@dataclass(frozen=True)
class PredictionOptions:
    """What is predicted and written, and how."""

    outputs: Annotated[str, typer.Option(help=f"What to write, with commas between: {_OUTPUTS}.")] = "mask,seg,stats"
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto"
    backend: Annotated[Backend, typer.Option(help="What runs the network.")] = Backend.EAGER
    tta: Annotated[bool, typer.Option("--tta", help="Average over mirror images: four times the computation.")] = False
    check_flips: Annotated[
        bool,
        typer.Option("--check-flips", help="Flag what a mirror image does not confirm: twice the computation."),
    ] = False
    threshold: Annotated[
        float | None, typer.Option(help="Probability from which a pixel counts (default: the bundle's).")
    ] = None
    weights: Annotated[Path | None, typer.Option(help="Weights instead of the bundle's own.")] = None
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the network.")] = None
    num_workers: Annotated[
        int, typer.Option(min=0, help="Processes that share the inputs, each with the network in memory; 0: this one.")
    ] = 0
    engine: Annotated[Engine, typer.Option(help="Where workers run: here, or in a Ray cluster.")] = Engine.LOCAL
    ray_address: Annotated[
        str | None, typer.Option(help="Of a running Ray cluster (default: Ray on this computer alone).")
    ] = None
    config: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the bundle's inference.json; may be repeated.")
    ] = None
    series_rules: Annotated[
        Path | None, typer.Option(help="JSON of which DICOM images and volumes to take (default: all).")
    ] = None
    limits: Annotated[
        str | None,
        typer.Option(help="JSON file, or NAME=NUMBER,…: file_bytes, inflated_bytes, frame_pixels, frames."),
    ] = None
    slice_by_slice: Annotated[
        bool, typer.Option("--slice-by-slice", help="Take a series that is no clean volume as single images.")
    ] = False
    convert_unusual: Annotated[
        bool, typer.Option("--convert-unusual", help="Convert CMYK and grey with alpha instead of refusing them.")
    ] = False
    hide_names: Annotated[
        bool, typer.Option("--hide-names", help="Name pictures by a hash too; their file names may identify patients.")
    ] = False
    seg2d_geometry: Annotated[
        bool, typer.Option(help="Give segmentations of photographs a geometry, which viewers need.")
    ] = True
    repeatable_uids: Annotated[
        bool, typer.Option(help="Same input and model, same UIDs and bytes; otherwise new ones in every run.")
    ] = True
    thumbnails: Annotated[bool, typer.Option(help="Write small pictures of the inputs for the report.")] = True
    source_list: Annotated[bool, typer.Option(help="Write sources.private.jsonl: which files each result is from.")] = (
        True
    )

    def settings(self) -> dict[str, Any]:
        """Return them as ``RunOptions`` takes them; raises ``ConfigError`` for what cannot be read."""
        from msrf_monai.clinical.reading import Limits
        from msrf_monai.clinical.run_options import read_limits
        from msrf_monai.clinical.series_rules import SeriesRules

        names = (
            *(
                "device",
                "tta",
                "check_flips",
                "threshold",
                "weights",
                "num_workers",
                "slice_by_slice",
                "convert_unusual",
            ),
            *("hide_names", "seg2d_geometry", "repeatable_uids", "thumbnails", "source_list", "ray_address"),
        )
        return {
            **{name: getattr(self, name) for name in names},
            "outputs": tuple(dict.fromkeys(name.strip() for name in self.outputs.split(",") if name.strip())),
            "backend": self.backend.value,
            "engine": self.engine.value,
            "num_threads": self.threads,
            "overrides": tuple(parse_override(word) for word in self.config or []),
            "limits": Limits() if self.limits is None else read_limits(self.limits),
            "series_rules": None if self.series_rules is None else SeriesRules.from_file(self.series_rules),
            "watch_crashes": True,
        }


@dataclass(frozen=True)
class PacsOptions:
    """What a PACS gives and gets."""

    received: Annotated[
        Path | None,
        typer.Option(help="Folder for received objects until they are predicted (default: OUTPUT-received)."),
    ] = None
    keep_received: Annotated[
        bool, typer.Option("--keep-received", help="Leave received objects there when they are predicted.")
    ] = False
    send_to: Annotated[
        list[str] | None,
        typer.Option(metavar="AET@HOST:PORT", help="Send DICOM results there by C-STORE; may be repeated."),
    ] = None
    to_dicomweb: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="Send DICOM results there by STOW-RS; may be repeated.")
    ] = None
    aet: Annotated[str, typer.Option(help="Our own AE title.")] = "MSRF_MONAI"
    ca_file: Annotated[
        Path | None, typer.Option(help="Certificates of authorities that DICOMweb servers may have.")
    ] = None

    def received_folder(self, output: Path) -> Path:
        """Return the folder for received objects; raises ``ConfigError`` when it and that of the results overlap."""
        received = self.received or output.with_name(f"{output.resolve().name}-received")
        if received.resolve().is_relative_to(output.resolve()) or output.resolve().is_relative_to(received.resolve()):
            raise ConfigError(
                f"received objects ({received}) and results ({output}) need folders of their own; "
                "name another one with --received"
            )
        return received

    def check_sends(self, outputs: tuple[str, ...]) -> None:
        """Refuse destinations that would get nothing.

        Args:
            outputs: kinds of output that are written.

        Raises:
            ConfigError: when there is a destination, and none of the kinds is a DICOM object.
        """
        from msrf_monai.clinical.pacs.delivery import DICOM_KINDS

        if (self.send_to or self.to_dicomweb) and not set(outputs) & set(DICOM_KINDS):
            raise ConfigError(
                "--send-to and --to-dicomweb send DICOM objects, and --outputs asks for none; "
                f"add one or more of {', '.join(DICOM_KINDS)}"
            )

    @contextmanager
    def destinations(self) -> Iterator[list[Destination]]:
        """Give the destinations while the block runs; raises ``ConfigError`` for one that makes no sense."""
        from msrf_monai.clinical.pacs.dimse import StoreDestination
        from msrf_monai.clinical.pacs.stow import StowDestination

        with ExitStack() as stack:
            found: list[Destination] = [
                StoreDestination.parse(each, calling_aet=self.aet) for each in self.send_to or ()
            ]
            found += [stack.enter_context(StowDestination(url, verify=self.ca_file)) for url in self.to_dicomweb or ()]
            yield found


def parse_override(word: str) -> tuple[str, Any]:
    """Return the config id and the value of one ``KEY=VALUE``; raises ``ConfigError`` for anything else."""
    key, equals, value = word.removeprefix("--").partition("=")
    if not key or not equals:
        raise ConfigError(f"--set {word!r}: expected KEY=VALUE such as image_size=[320,320]")
    try:
        return key.replace("#", "::"), json.loads(value)
    except ValueError:
        return key.replace("#", "::"), value
