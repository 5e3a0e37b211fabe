"""``msrf-monai calibrate``: bounds of the quality flags by the data that a bundle was trained and validated on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from msrf_monai.cli.lint import bundle_folder
from msrf_monai.cli.predict_options import parse_override
from msrf_monai.errors import DataError

__all__ = ["app"]

app = typer.Typer(help="Fit the bounds of a bundle's quality flags to its data.", add_completion=False)


@app.command()
def calibrate(
    bundle: Annotated[str, typer.Argument(help="Folder of a bundle, or its name in the folder bundles.")],
    dataset: Annotated[Path, typer.Argument(help="Prepared data set that it was trained on.")],
    right_dice: Annotated[float, typer.Option(help="Dice from which a result is right.")] = 0.7,
    false_alarms: Annotated[float, typer.Option(help="Share of right results that may be flagged.")] = 0.05,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(help="A trait that is not to be judged, such as shorter_side; may be repeated."),
    ] = None,
    flips: Annotated[
        bool, typer.Option(help="Calibrate the agreement of mirror images too; takes twice the time.")
    ] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    config: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the bundle's inference.json; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be stored, and store nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Choose the bounds and store them in the bundle's metadata.json.

    Areas and looks of the training images give the ranges beyond which a result or an image is unusual. On the
    validation images the other bounds are chosen, so that few of those that are predicted right are flagged.
    """
    # torch takes seconds to load, and a usage error should not
    from msrf_monai.clinical.calibration import CalibrationOptions, author_limits, calibrate, store_calibration
    from msrf_monai.clinical.predictor import Predictor, PredictorOptions

    folder = bundle_folder(bundle)
    options = CalibrationOptions(right_dice, false_alarms, tuple(leave_out or ()))
    predictor = Predictor.from_bundle(
        folder,
        PredictorOptions(
            device=device, check_flips=flips, overrides=tuple(parse_override(word) for word in config or [])
        ),
    )
    options = replace(options, base=author_limits(predictor.metadata))
    with tqdm(unit=" images", disable=None) as bar:

        def show(part: str, done: int, total: int) -> None:
            bar.set_description(part)
            bar.total, bar.n = total, done
            bar.refresh()

        found = calibrate(predictor, dataset, options, progress=show)
    name = dataset.resolve().name
    if as_json:
        record = {"quality_limits": found.limits.as_metadata(), "quality_calibration": found.as_metadata()}
        typer.echo(json.dumps({"dataset": name, **record}, indent=2))
    else:
        rate = f"{found.false_alarm_rate:.1%} of the {found.right} right results"
        typer.echo(f"flagged: {found.false_alarms} ({rate}), and {found.caught} of the {found.wrong} wrong ones")
        for flag, (right, wrong) in found.raised.items():
            typer.echo(f"  {flag:<16} {right} right, {wrong} wrong")
        for limit, value in found.limits.as_metadata().items():
            typer.echo(f"  {limit} = {json.dumps(value)}")
    if found.false_alarm_rate > false_alarms:
        raise DataError(
            f"{found.false_alarm_rate:.1%} of the right results are flagged with the best bounds there are, more than "
            f"{false_alarms:.0%}; nothing is stored: allow more with --false-alarms, or leave a trait out"
        )
    if dry_run:
        return
    path = store_calibration(folder, found, name)
    if not as_json:
        typer.echo(f"stored in {path}; record the bundle's digests again with msrf-monai verify {bundle} --record")
