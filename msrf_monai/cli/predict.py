"""``msrf-monai predict``: clinical files in, verified results out."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msrf_monai.cli import pacs
from msrf_monai.cli.pacs import Archive, Outward, delivery_lines, predict_from, query_of, received_folder
from msrf_monai.cli.predict_options import (
    Backend,
    BackendOption,
    BundleArgument,
    CallingAetOption,
    ConvertUnusualOption,
    DeviceOption,
    GeometryOption,
    KeepReceivedOption,
    LimitsOption,
    OutputsOption,
    QuietOption,
    ReceivedOption,
    RepeatableOption,
    SendToOption,
    SeriesRulesOption,
    SetOption,
    SliceBySliceOption,
    SourceListOption,
    ThreadsOption,
    ThresholdOption,
    ThumbnailsOption,
    ToDicomwebOption,
    TtaOption,
    VerifyOption,
    WeightsOption,
    outputs_of,
    overrides_of,
    part_of,
    rules_and_limits,
)
from msrf_monai.cli.running import SOME_FAILED, Watch, ended_by_signal, exit_code_of, progress_bar
from msrf_monai.errors import ConfigError, InputError

if TYPE_CHECKING:
    from msrf_monai.clinical.pacs.courier import Delivered
    from msrf_monai.clinical.preview import Planned
    from msrf_monai.clinical.run_options import RunResult

__all__ = ["app"]

# Everything that reads or computes is imported inside the command, so that the help does not wait for it.

app = typer.Typer(add_completion=False)


@app.command()
def predict(
    bundle: BundleArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Result folder; new, empty, or see --resume.")],
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="INPUT...", help="Files, folders (searched) or patterns.")
    ] = None,
    outputs: OutputsOption = "mask,seg,stats",
    device: DeviceOption = "auto",
    backend: BackendOption = Backend.EAGER,
    tta: TtaOption = False,
    threshold: ThresholdOption = None,
    weights: WeightsOption = None,
    threads: ThreadsOption = None,
    num_workers: Annotated[
        int, typer.Option(min=0, help="Processes that share the inputs, each with the network in memory; 0: this one.")
    ] = 0,
    config: SetOption = None,
    series_rules: SeriesRulesOption = None,
    limits: LimitsOption = None,
    slice_by_slice: SliceBySliceOption = False,
    convert_unusual: ConvertUnusualOption = False,
    part: Annotated[
        str | None, typer.Option(metavar="I/N", help="Do only part I of N; every part needs a folder of its own.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in a folder; what is done and intact stays.")] = False,
    seg2d_geometry: GeometryOption = True,
    repeatable_uids: RepeatableOption = True,
    thumbnails: ThumbnailsOption = True,
    source_list: SourceListOption = True,
    from_dicomweb: Annotated[
        str | None, typer.Option(metavar="URL", help="Fetch the inputs from a DICOMweb server; see --query.")
    ] = None,
    query: Annotated[
        list[str] | None,
        typer.Option(metavar="KEYWORD=VALUE", help="Which studies to fetch, such as StudyDate=20240131; repeat."),
    ] = None,
    received: ReceivedOption = None,
    keep_received: KeepReceivedOption = False,
    send_to: SendToOption = None,
    to_dicomweb: ToDicomwebOption = None,
    calling_aet: CallingAetOption = "MSRF_MONAI",
    ca_file: VerifyOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done and why, and do nothing.")] = False,
    quiet: QuietOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Predict DICOM, PNG, JPEG, TIFF and NIfTI files, or studies of a DICOMweb server, with a bundle.

    Exit code 0: all done; 3: some inputs failed or were flagged, see report.html, or some results could not be sent;
    2: wrong use; 1: the run has stopped.
    """

    def run() -> int:
        options = rules_and_limits(series_rules, limits)
        options |= {"outputs": outputs_of(outputs), "part": part_of(part), "overrides": overrides_of(config)}
        options |= {"slice_by_slice": slice_by_slice, "convert_unusual": convert_unusual, "resume": resume}
        options |= {"seg2d_geometry": seg2d_geometry, "repeatable_uids": repeatable_uids, "source_list": source_list}
        options |= {"device": device, "backend": backend.value, "tta": tta, "threshold": threshold}
        options |= {"weights": weights, "num_threads": threads, "num_workers": num_workers}
        options |= {"watch_crashes": True, "thumbnails": thumbnails}
        job = _Job(
            bundle,
            output,
            options,
            inputs=inputs or [],
            archive=_archive(from_dicomweb, query or [], received, output, keep_received, inputs or []),
            outward=Outward(tuple(send_to or ()), tuple(to_dicomweb or ()), calling_aet, ca_file),
            quiet=quiet,
            as_json=as_json,
        )
        return _show_plan(job) if dry_run else _run(job)

    raise typer.Exit(exit_code_of(run, as_json=as_json))


@dataclass(frozen=True)
class _Job:
    """What the command line asks for."""

    bundle: Path
    output: Path
    options: dict[str, Any]
    """Of ``RunOptions``."""
    inputs: list[str]
    archive: Archive | None = None
    outward: Outward = field(default_factory=Outward)
    quiet: bool = False
    as_json: bool = False


def _archive(
    url: str | None, query: list[str], received: Path | None, output: Path, keep: bool, inputs: list[str]
) -> Archive | None:
    if url is None:
        if query:
            raise ConfigError("--query says which studies to fetch, and --from-dicomweb URL is missing")
        if not inputs:
            raise InputError("give INPUT, a file, a folder or a pattern, or --from-dicomweb URL with --query")
        return None
    if inputs:
        raise ConfigError("--from-dicomweb takes the place of INPUT; run the command twice, with two result folders")
    return Archive(url, query_of(query), received_folder(received, output), keep)


def _run(job: _Job) -> int:
    from msrf_monai.clinical.pacs.service import courier_of
    from msrf_monai.clinical.pipeline import PredictionRun
    from msrf_monai.clinical.run_options import RunOptions

    stop = threading.Event()
    with ended_by_signal(), progress_bar(job.quiet) as bar, job.outward.destinations() as destinations:
        watch = Watch(bar, quiet=job.quiet, is_endless=job.archive is not None)
        with (
            PredictionRun(job.bundle, job.output, RunOptions(**job.options), observer=watch) as run,
            courier_of(run, destinations, pacs.PATIENCE, stop) as courier,
        ):
            if job.archive is None:
                result = run.do(job.inputs).counted
            else:
                result = predict_from(job.archive, run, courier, stop, job.outward)
            run.report()
            delivered = courier.finish() if courier else []
    _tell(job, result, delivered)
    return result.exit_code or (0 if all(each.is_complete for each in delivered) else SOME_FAILED)


def _tell(job: _Job, result: RunResult, delivered: list[Delivered]) -> None:
    if job.as_json:
        code = result.exit_code or (0 if all(each.is_complete for each in delivered) else SOME_FAILED)
        said = {**asdict(result), "exit_code": code, "output": str(job.output)}
        typer.echo(json.dumps(said | ({"deliveries": [asdict(each) for each in delivered]} if delivered else {})))
    elif not job.quiet:
        kept = f" ({result.kept} of them before)" if result.kept else ""
        total = f"{result.done} done, {result.failed} failed, {result.skipped} skipped{kept}"
        typer.echo(f"{total}; {result.flagged} flagged; {job.output / 'report.html'}")
        for line in delivery_lines(delivered):
            typer.echo(line)


def _show_plan(job: _Job) -> int:
    from msrf_monai.clinical.preview import bundle_identity, preview

    if job.archive is not None:
        raise ConfigError("--dry-run looks into files that are here; leave out --from-dicomweb, or fetch them first")
    name, version = bundle_identity(job.bundle)
    planned = preview(job.inputs, job.output, **job.options)
    code = SOME_FAILED if any(each.action == "refuse" for each in planned) else 0
    if job.as_json:
        found = {"bundle": name, "bundle_version": version, "inputs": [asdict(each) for each in planned]}
        typer.echo(json.dumps({**found, "exit_code": code}))
    elif not job.quiet:
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
