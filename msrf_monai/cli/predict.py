"""``msrf-monai predict``: clinical files in, verified results out."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msrf_monai.cli import pacs
from msrf_monai.cli.option_groups import with_option_groups
from msrf_monai.cli.predict_options import BundleArgument, PacsOptions, PredictionOptions
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
@with_option_groups
def predict(
    bundle: BundleArgument,
    prediction: PredictionOptions,
    outward: PacsOptions,
    output: Annotated[Path, typer.Option("--output", "-o", help="Result folder; new, empty, or see --resume.")],
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="INPUT...", help="Files, folders (searched) or patterns.")
    ] = None,
    part: Annotated[
        str | None, typer.Option(metavar="I/N", help="Do only part I of N; every part needs a folder of its own.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in a folder; what is done and intact stays.")] = False,
    from_dicomweb: Annotated[
        str | None, typer.Option(metavar="URL", help="Fetch the inputs from a DICOMweb server; see --query.")
    ] = None,
    query: Annotated[
        list[str] | None,
        typer.Option(metavar="KEYWORD=VALUE", help="Which studies to fetch, such as StudyDate=20240131; repeat."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done and why, and do nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show errors only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Predict DICOM, PNG, JPEG, TIFF and NIfTI files, or studies of a DICOMweb server, with a bundle.

    Exit code 0: all done; 3: some inputs failed or were flagged, see report.html, or some results could not be sent;
    2: wrong use; 1: the run has stopped.
    """

    def run() -> int:
        settings = {**prediction.settings(), "part": _part(part), "resume": resume}
        archive = _archive(from_dicomweb, query or [], outward, output, inputs or [])
        outward.check_sends(settings["outputs"])
        job = _Job(bundle, output, settings, inputs or [], archive, outward, quiet, as_json)
        return _show_plan(job) if dry_run else _run(job)

    raise typer.Exit(exit_code_of(run, as_json=as_json, quiet=quiet))


@dataclass(frozen=True)
class _Job:
    """What the command line asks for."""

    bundle: Path
    output: Path
    settings: dict[str, Any]
    """Of ``RunOptions``."""
    inputs: list[str]
    archive: pacs.Archive | None
    outward: PacsOptions
    quiet: bool
    as_json: bool


def _part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    number, _, parts = text.partition("/")
    if not (number.isdecimal() and parts.isdecimal()):
        raise ConfigError(f"--part {text!r}: expected I/N such as 2/4")
    return int(number), int(parts)


def _archive(
    url: str | None, query: list[str], outward: PacsOptions, output: Path, inputs: list[str]
) -> pacs.Archive | None:
    if url is None:
        if query:
            raise ConfigError("--query says which studies to fetch, and --from-dicomweb URL is missing")
        if not inputs:
            raise InputError("give INPUT, a file, a folder or a pattern, or --from-dicomweb URL with --query")
        if outward.received is not None or outward.keep_received:
            raise ConfigError(
                "--received and --keep-received are about what --from-dicomweb URL fetches, and that is missing"
            )
        return None
    if inputs:
        raise ConfigError("--from-dicomweb takes the place of INPUT; run the command twice, with two result folders")
    return pacs.Archive(url, pacs.query_of(query), outward.received_folder(output))


def _run(job: _Job) -> int:
    from msrf_monai.clinical.inputs import check_given
    from msrf_monai.clinical.pacs.service import courier_of
    from msrf_monai.clinical.pipeline import PredictionRun
    from msrf_monai.clinical.run_options import RunOptions

    settings, stop = RunOptions(**job.settings), threading.Event()
    if job.archive is None:
        check_given(job.inputs)
    with ended_by_signal(), progress_bar(job.quiet) as bar, job.outward.destinations() as destinations:
        watch = Watch(bar, quiet=job.quiet, is_endless=job.archive is not None)
        with (
            PredictionRun(job.bundle, job.output, settings, observer=watch) as run,
            courier_of(run, destinations, pacs.PATIENCE, stop) as courier,
        ):
            if job.archive is None:
                result = run.do(job.inputs).counted
            else:
                result = pacs.predict_from(job.archive, run, courier, stop, job.outward)
            run.report()
            delivered = courier.finish() if courier else []
    code = result.exit_code or (0 if all(each.is_complete for each in delivered) else SOME_FAILED)
    _tell(job, result, delivered, code)
    return code


def _tell(job: _Job, result: RunResult, delivered: list[Delivered], code: int) -> None:
    if job.as_json:
        said = {**asdict(result), "exit_code": code, "output": str(job.output)}
        typer.echo(json.dumps(said | ({"deliveries": [asdict(each) for each in delivered]} if delivered else {})))
    elif not job.quiet:
        kept = f" ({result.kept} of them before)" if result.kept else ""
        total = f"{result.done} done, {result.failed} failed, {result.skipped} skipped{kept}"
        typer.echo(f"{total}; {result.flagged} flagged; {job.output / 'report.html'}")
        for line in pacs.delivery_lines(delivered, "--resume"):
            typer.echo(line)


def _show_plan(job: _Job) -> int:
    from msrf_monai.clinical.preview import bundle_identity, preview

    if job.archive is not None:
        raise ConfigError("--dry-run looks into files that are here; leave out --from-dicomweb, or fetch them first")
    name, version = bundle_identity(job.bundle)
    planned = preview(job.inputs, job.output, **job.settings)
    code = SOME_FAILED if any(each.action == "refuse" for each in planned) else 0
    if job.as_json:
        taken_back = [each for each in planned if each.action == "take back"]
        found = {
            "bundle": name,
            "bundle_version": version,
            "inputs": [asdict(each) for each in planned if each not in taken_back],
            "taken_back": [asdict(each) for each in taken_back],
        }
        typer.echo(json.dumps({**found, "exit_code": code}))
    elif not job.quiet:
        for each in planned:
            typer.echo(_line(each))
        inputs = sum(each.action != "take back" for each in planned)
        typer.echo(f"{inputs} inputs for {name} {version}; nothing was done")
    return code


def _line(planned: Planned) -> str:
    about = ""
    if planned.kind:
        about = f" ({planned.kind}, {planned.rows} x {planned.columns}, {planned.frames} images)"
    why = ": ".join(part for part in (planned.code, planned.reason) if part)
    if planned.action == "predict":
        why = f"{', '.join(planned.outputs)} in {planned.folder}"
    flags = f" [{'; '.join(planned.flags)}]" if planned.flags else ""
    return f"{planned.action} {planned.path or planned.input}{about}: {why}{flags}"
