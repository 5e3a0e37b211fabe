"""``msrf-monai predict``: clinical files in, verified results out."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msrf_monai.errors import CheckpointError, ConfigError, InputError, MsrfError

if TYPE_CHECKING:
    from msrf_monai.clinical.ledger import Entry
    from msrf_monai.clinical.preview import Planned

__all__ = ["app"]

# Everything that reads or computes is imported inside the command, so that the help does not wait for it.

app = typer.Typer(add_completion=False)

_FATAL, _USAGE, _SOME_FAILED = 1, 2, 3
_OUTPUTS = "mask, seg, labelmap, fractional, sr, overlay-sc, pr, nifti, prob, stats"


class _Backend(StrEnum):
    """What runs the network."""

    EAGER = "eager"
    TORCHSCRIPT = "torchscript"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files, folders (searched) or patterns.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Result folder; new, empty, or see --resume.")],
    outputs: Annotated[str, typer.Option(help=f"What to write, with commas between: {_OUTPUTS}.")] = "mask,seg,stats",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    backend: Annotated[_Backend, typer.Option(help="What runs the network.")] = _Backend.EAGER,
    tta: Annotated[bool, typer.Option("--tta", help="Average over mirror images: four times the computation.")] = False,
    threshold: Annotated[
        float | None, typer.Option(help="Probability from which a pixel counts (default: the bundle's).")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights instead of the bundle's own.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the network.")] = None,
    config: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the bundle's inference.json; may be repeated.")
    ] = None,
    series_rules: Annotated[
        Path | None, typer.Option(help="JSON of which DICOM images and volumes to take (default: all).")
    ] = None,
    limits: Annotated[
        str | None, typer.Option(help="JSON file, or NAME=NUMBER,…: file_bytes, inflated_bytes, frame_pixels, frames.")
    ] = None,
    slice_by_slice: Annotated[
        bool, typer.Option("--slice-by-slice", help="Take a series that is no clean volume as single images.")
    ] = False,
    convert_unusual: Annotated[
        bool, typer.Option("--convert-unusual", help="Convert CMYK and grey with alpha instead of refusing them.")
    ] = False,
    part: Annotated[
        str | None, typer.Option(metavar="I/N", help="Do only part I of N; every part needs a folder of its own.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in a folder; what is done and intact stays.")] = False,
    seg2d_geometry: Annotated[
        bool, typer.Option(help="Give segmentations of photographs a geometry, which viewers need.")
    ] = True,
    repeatable_uids: Annotated[
        bool, typer.Option(help="Same input and model, same UIDs and bytes; otherwise new ones in every run.")
    ] = True,
    thumbnails: Annotated[bool, typer.Option(help="Write small pictures of the inputs for the report.")] = True,
    source_list: Annotated[
        bool, typer.Option(help="Write sources.private.jsonl: which files each result is from.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done and why, and do nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show errors only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Predict DICOM, PNG, JPEG, TIFF and NIfTI files with a bundle.

    Exit code 0: all done; 3: some inputs failed or were flagged, see report.html; 2: wrong use; 1: the run has stopped.
    """
    _log_when_debugging()
    try:
        options = _options(outputs, part, limits, series_rules, config or [])
        options |= {"slice_by_slice": slice_by_slice, "convert_unusual": convert_unusual, "resume": resume}
        options |= {"seg2d_geometry": seg2d_geometry, "repeatable_uids": repeatable_uids, "source_list": source_list}
        options |= {"device": device, "backend": backend.value, "tta": tta, "threshold": threshold}
        options |= {"weights": weights, "num_threads": threads, "watch_crashes": True}
        options |= {"thumbnails": thumbnails}
        if dry_run:
            code = _show_plan(bundle, inputs, output, options, quiet=quiet, as_json=as_json)
        else:
            code = _run(bundle, inputs, output, options, quiet=quiet, as_json=as_json)
    except MsrfError as error:
        is_usage = isinstance(error, CheckpointError | ConfigError | InputError)
        code = _fail(str(error), _USAGE if is_usage else _FATAL, as_json)
    except (KeyboardInterrupt, _Ended):
        code = _fail("the run was ended; what is done stays: go on with --resume", _FATAL, as_json)
    except Exception as error:
        # its text may quote an input; main.py's --debug shows the lines of code instead
        from msrf_monai.clinical.privacy import where

        steps = f"\n{where(error)}" if _is_debugging() else "; run again as msrf-monai --debug predict … to see where"
        code = _fail(f"an unforeseen {type(error).__name__} ended the run{steps}", _FATAL, as_json)
    raise typer.Exit(code)


class _Ended(BaseException):
    """The system asked for the end."""


def _run(bundle: Path, inputs: list[str], output: Path, options: dict[str, Any], *, quiet: bool, as_json: bool) -> int:
    from tqdm import tqdm

    from msrf_monai.clinical.pipeline import predict as run

    hidden = True if quiet else None  # None: hidden where nobody watches
    with (
        _ended_by_signal(),
        tqdm(desc="predicting", unit=" images", disable=hidden, leave=False, dynamic_ncols=True) as bar,
    ):
        result = run(bundle, inputs, output, observer=_Watch(bar, quiet=quiet), **options)
    if as_json:
        typer.echo(json.dumps({**asdict(result), "exit_code": result.exit_code, "output": str(output)}))
    elif not quiet:
        kept = f" ({result.kept} of them before)" if result.kept else ""
        total = f"{result.done} done, {result.failed} failed, {result.skipped} skipped{kept}"
        typer.echo(f"{total}; {result.flagged} flagged; {output / 'report.html'}")
    return result.exit_code


class _Watch:
    """Shows a bar with the time left on stderr, and a line for each input that failed or is flagged."""

    def __init__(self, bar: Any, *, quiet: bool) -> None:
        self.bar = bar
        self.quiet = quiet

    def begin(self, inputs: int, frames: int) -> None:
        self.bar.total = frames
        self.bar.refresh()
        if not self.quiet:
            self.bar.write(f"{inputs} inputs, {frames} images or more", file=sys.stderr)

    def ended(self, entry: Entry, frames: int, is_new: bool) -> None:
        self.bar.total += max(0, entry.frames - frames)
        self.bar.update(max(entry.frames, frames))
        if self.quiet or not is_new:
            return
        if entry.state != "done":
            self.bar.write(f"{entry.state.upper()} {entry.input}: {entry.code}: {entry.reason}", file=sys.stderr)
        elif entry.is_flagged:
            self.bar.write(f"flagged {entry.input}: {', '.join(entry.flags)}", file=sys.stderr)


def _show_plan(
    bundle: Path, inputs: list[str], output: Path, options: dict[str, Any], *, quiet: bool, as_json: bool
) -> int:
    from msrf_monai.clinical.preview import bundle_identity, preview

    name, version = bundle_identity(bundle)
    planned = preview(inputs, output, **options)
    code = _SOME_FAILED if any(each.action == "refuse" for each in planned) else 0
    if as_json:
        found = {"bundle": name, "bundle_version": version, "inputs": [asdict(each) for each in planned]}
        typer.echo(json.dumps({**found, "exit_code": code}))
    elif not quiet:
        for each in planned:
            typer.echo(_line(each))
        typer.echo(f"{len(planned)} inputs for {name} {version}; nothing was done")
    return code


def _line(planned: Planned) -> str:
    about = ""
    if planned.kind:
        about = f" ({planned.kind}, {planned.rows} x {planned.columns}, {planned.frames} images)"
    why = ": ".join(part for part in (planned.code, planned.reason) if part)
    if planned.action == "predict":
        why = f"{', '.join(planned.outputs)} in {planned.folder}"
    flags = f" [{'; '.join(planned.flags)}]" if planned.flags else ""
    return f"{planned.action} {planned.input}{about}: {why}{flags}"


def _options(
    outputs: str, part: str | None, limits: str | None, series_rules: Path | None, config: list[str]
) -> dict[str, Any]:
    from msrf_monai.clinical.reading import Limits
    from msrf_monai.clinical.run_options import read_limits
    from msrf_monai.clinical.series_rules import SeriesRules

    return {
        "outputs": tuple(dict.fromkeys(name.strip() for name in outputs.split(",") if name.strip())),
        "part": None if part is None else _part(part),
        "limits": Limits() if limits is None else read_limits(limits),
        "series_rules": None if series_rules is None else SeriesRules.from_file(series_rules),
        "overrides": tuple(_override(word) for word in config),
    }


def _part(text: str) -> tuple[int, int]:
    number, _, parts = text.partition("/")
    if not (number.isdecimal() and parts.isdecimal()):
        raise ConfigError(f"--part {text!r}: expected I/N such as 2/4")
    return int(number), int(parts)


def _override(word: str) -> tuple[str, Any]:
    key, equals, value = word.removeprefix("--").partition("=")
    if not key or not equals:
        raise ConfigError(f"--set {word!r}: expected KEY=VALUE such as image_size=[320,320]")
    try:
        return key.replace("#", "::"), json.loads(value)
    except ValueError:
        return key.replace("#", "::"), value


def _fail(message: str, code: int, as_json: bool) -> int:
    typer.echo(f"error: {message}", err=True)
    if as_json:
        typer.echo(json.dumps({"error": message, "exit_code": code}))
    return code


def _is_debugging() -> bool:
    return "--debug" in sys.argv[1:]


def _log_when_debugging() -> None:
    """Let our own log lines through to stderr; what may name a patient has been taken out of them."""
    import logging

    if _is_debugging():
        logging.basicConfig(format="%(name)s: %(message)s")
        logging.getLogger("msrf_monai").setLevel(logging.DEBUG)


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Turn the signal that asks for the end into an exception, so that the result of the moment is written whole."""

    def leave(number: int, frame: Any) -> None:
        raise _Ended

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
