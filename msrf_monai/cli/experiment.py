"""``msrf-monai experiment``: cross-validate variants of a bundle, or evaluate trained networks across data sets."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from msrf_monai.experiments import (
        CrossPlan,
        EvaluationOutcome,
        EvaluationSpec,
        Outcome,
        Plan,
        RunSpec,
        TrainedModel,
    )

__all__ = ["app"]

SOME_FAILED = 3

app = typer.Typer(help="Compare variants of a bundle, or data sets.", no_args_is_help=True, add_completion=False)


@app.callback()
def _group() -> None:
    """Compare variants of a bundle, or data sets."""


@app.command("cross-validate")
def cross_validate_command(
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    dataset: Annotated[str, typer.Option(help="Prepared data set: its folder, or its name in data/.")],
    recalibration: Annotated[
        str,
        typer.Option(
            "--recalibration",
            "--variants",
            help="Overlays to compare, the baseline first: names in configs/recalibration, FOLDER/NAME of another "
            "folder, or default for none.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder of all results; an interrupted run goes on in it.")],
    folds: Annotated[int, typer.Option(help="Number of folds.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the folds; fold k trains with seed + k.")] = 42,
    overlay: Annotated[
        list[str] | None, typer.Option(help="Overlay of every run, such as recipes/eusipco2024; may be repeated.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE of the configuration, for every run; may be repeated.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Variant to compare with, if it is not the first.")] = None,
    score: Annotated[str, typer.Option(help="Score to compare: dice, iou, precision or recall.")] = "dice",
    parts: Annotated[
        str | None, typer.Option(help="Parts of the data set to take, such as training or training,validation.")
    ] = None,
    dev_share: Annotated[float, typer.Option(help="Share of each training part that chooses the checkpoint.")] = 0.1,
    stratify: Annotated[
        bool | None, typer.Option("--stratify/--no-stratify", help="Spread strata evenly (default: if there are any).")
    ] = None,
    group: Annotated[
        bool | None, typer.Option("--group/--no-group", help="Keep groups in one fold (default: if there are any).")
    ] = None,
    shuffle: Annotated[
        bool, typer.Option("--shuffle/--no-shuffle", help="Draw the folds, or take consecutive images as the articles.")
    ] = True,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on in a folder that holds the same cross-validation.")
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show failures and the page's path only.")] = False,
) -> None:
    """Train and test every variant on every fold, then compare them. Exit code 3 when some runs failed."""
    from msrf_monai.errors import ConfigError, InputError
    from msrf_monai.experiments import CrossValidation, ProcessRunner, cross_validate, plan_cross_validation

    try:
        plan = plan_cross_validation(
            CrossValidation(
                bundle=bundle,
                dataset=dataset,
                variants=_names(recalibration),
                output=output,
                folds=folds,
                seed=seed,
                baseline=baseline,
                overlays=overlay or (),
                overrides=_overrides(override or []),
                parts=None if parts is None else _names(parts),
                stratify=stratify,
                group=group,
                shuffle=shuffle,
                dev_share=dev_share,
                score=score,
                resume=resume,
            )
        )
        with _shown(plan, quiet=quiet) as watch, _ended_by_signal():
            runner = ProcessRunner(waiting=watch.waiting)
            outcomes = cross_validate(plan, runner=runner, observer=watch, command_line=["msrf-monai", *sys.argv[1:]])
    except (ConfigError, InputError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    _report(plan, outcomes, quiet=quiet)


@app.command("cross-dataset")
def cross_dataset_command(
    bundle: Annotated[list[Path], typer.Option(help="Folder of the bundle; once for all weights, or once for each.")],
    weights: Annotated[list[Path], typer.Option(help="Trained weights; may be repeated.")],
    trained_on: Annotated[
        list[str], typer.Option(help="Prepared data set that the weights were trained on; once for each weights.")
    ],
    dataset: Annotated[
        list[str], typer.Option(help="Prepared data set to evaluate on: its folder, or its name in data/; repeat it.")
    ],
    output: Annotated[Path, typer.Option(help="Folder of all results; an interrupted run goes on in it.")],
    name: Annotated[
        list[str] | None, typer.Option(help="What to call the weights; by default the data set of --trained-on.")
    ] = None,
    overlay: Annotated[
        list[str] | None, typer.Option(help="Overlay of every evaluation, such as widths/quarter; may be repeated.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE of the configuration, for every evaluation; may be repeated.")
    ] = None,
    parts: Annotated[
        str | None,
        typer.Option(help="Parts of every data set to take (default: test of the one trained on, all of others)."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on in a folder that holds the same comparison.")
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show failures and the page's path only.")] = False,
) -> None:
    """Evaluate trained networks on several data sets, into one table. Exit code 3 when some evaluations failed."""
    from msrf_monai.errors import CheckpointError, ConfigError, InputError
    from msrf_monai.experiments import CrossDataset, ProcessRunner, evaluate_across, plan_cross_dataset

    try:
        plan = plan_cross_dataset(
            CrossDataset(
                models=_models(bundle, weights, trained_on, name),
                datasets=dataset,
                output=output,
                overlays=overlay or (),
                overrides=_overrides(override or []),
                parts=None if parts is None else _names(parts),
                resume=resume,
            )
        )
        with _shown_across(plan, quiet=quiet) as watch, _ended_by_signal():
            runner = ProcessRunner()
            outcomes = evaluate_across(plan, runner=runner, observer=watch, command_line=["msrf-monai", *sys.argv[1:]])
    except (CheckpointError, ConfigError, InputError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    _report_across(plan, outcomes, quiet=quiet)


class _Watch:
    """Shows a bar over all runs on stderr, and a line for each run that ends."""

    def __init__(self, bar: Any, *, quiet: bool) -> None:
        self.bar = bar
        self.quiet = quiet
        self.current: RunSpec | None = None

    def begin(self, total: int) -> None:
        self.bar.total = total
        self.bar.refresh()

    def started(self, spec: RunSpec) -> None:
        self.current = spec
        self.bar.set_postfix_str(f"{spec.variant}, fold {spec.fold}")

    def waiting(self) -> None:
        if self.current is not None:
            epochs = _epochs(self.current.folder / "training" / "history.csv")
            self.bar.set_postfix_str(f"{self.current.variant}, fold {self.current.fold}, epoch {epochs}")

    def ended(self, outcome: Outcome) -> None:
        self.current = None
        self.bar.update()
        spec = outcome.spec
        if outcome.state == "failed":
            lines = "".join(f"\n    {line}" for line in outcome.lines)
            self._say(f"FAILED {spec.variant}, fold {spec.fold}: {outcome.message}; see {outcome.log}{lines}")
        elif not self.quiet:
            how = "was finished before" if outcome.state == "reused" else f"done in {outcome.seconds:.0f} s"
            self._say(f"{spec.variant}, fold {spec.fold}: {how}")

    def _say(self, text: str) -> None:
        self.bar.write(text, file=sys.stderr)


@contextmanager
def _shown(plan: Plan, *, quiet: bool) -> Iterator[_Watch]:
    from tqdm import tqdm

    if not quiet:
        for note in plan.notes:
            typer.echo(f"note: {note}", err=True)
        how = [f"{len(plan.pictures.pictures)} images of {plan.pictures.name}", f"{len(plan.splits)} folds"]
        how += ["strata spread evenly"] * plan.is_stratified + ["groups kept together"] * plan.is_grouped
        typer.echo(f"{', '.join(how)}; {', '.join(variant.name for variant in plan.variants)}", err=True)
    hidden = True if quiet else None  # None: hidden where nobody watches
    with tqdm(desc="cross-validation", unit=" runs", disable=hidden, leave=False, dynamic_ncols=True) as bar:
        yield _Watch(bar, quiet=quiet)


class _AcrossWatch:
    """Shows a bar over all evaluations on stderr, and a line for each that ends."""

    def __init__(self, bar: Any, *, quiet: bool) -> None:
        self.bar = bar
        self.quiet = quiet

    def begin(self, total: int) -> None:
        self.bar.total = total
        self.bar.refresh()

    def started(self, spec: EvaluationSpec) -> None:
        self.bar.set_postfix_str(f"{spec.model} on {spec.dataset}")

    def ended(self, outcome: EvaluationOutcome) -> None:
        self.bar.update()
        pair = f"{outcome.spec.model} on {outcome.spec.dataset}"
        if outcome.failure is not None:
            failure = outcome.failure
            lines = "".join(f"\n    {line}" for line in failure.lines)
            self._say(f"FAILED {pair}: {failure.message}; see {failure.log}{lines}")
        elif not self.quiet:
            how = "was finished before" if outcome.state == "reused" else f"done in {outcome.seconds:.0f} s"
            self._say(f"{pair}: {how}")

    def _say(self, text: str) -> None:
        self.bar.write(text, file=sys.stderr)


@contextmanager
def _shown_across(plan: CrossPlan, *, quiet: bool) -> Iterator[_AcrossWatch]:
    from tqdm import tqdm

    if not quiet:
        for note in plan.notes:
            typer.echo(f"note: {note}", err=True)
        pairs = (f"{spec.model} on {spec.dataset} ({spec.images} images)" for spec in plan.runs)
        typer.echo(", ".join(pairs), err=True)
    hidden = True if quiet else None  # None: hidden where nobody watches
    with tqdm(desc="across data sets", unit=" runs", disable=hidden, leave=False, dynamic_ncols=True) as bar:
        yield _AcrossWatch(bar, quiet=quiet)


def _report_across(plan: CrossPlan, outcomes: list[EvaluationOutcome], *, quiet: bool) -> None:
    from msrf_monai.experiments.cross_dataset_report import CROSS_REPORT_NAME, headline

    failed = sum(outcome.state == "failed" for outcome in outcomes)
    if failed < len(outcomes):
        if not quiet:
            for line in headline(plan.output):
                typer.echo(line)
        typer.echo(f"{plan.output / CROSS_REPORT_NAME}")
    if failed:
        typer.echo(f"{failed} of {len(outcomes)} evaluations failed; the same command tries them again", err=True)
        raise typer.Exit(SOME_FAILED)


def _models(
    bundles: list[Path], weights: list[Path], trained_on: list[str], names: list[str] | None
) -> list[TrainedModel]:
    from msrf_monai.experiments import TrainedModel

    count = len(weights)
    if len(bundles) not in (1, count) or len(trained_on) != count or len(names or weights) != count:
        raise typer.BadParameter(
            f"{count} weights need {count} --trained-on, one or {count} --bundle, and none or {count} --name; "
            f"got {len(trained_on)}, {len(bundles)} and {len(names or [])}",
            param_hint="--weights",
        )
    folders = bundles * count if len(bundles) == 1 else bundles
    given_names: list[str | None] = list(names) if names else [None] * count
    return [
        TrainedModel(weights=file, trained_on=data, bundle=folder, name=name)
        for folder, file, data, name in zip(folders, weights, trained_on, given_names, strict=True)
    ]


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Turn the signal that asks for the end into an exception, so that the training of the moment is ended, too."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _report(plan: Plan, outcomes: list[Outcome], *, quiet: bool) -> None:
    from msrf_monai.experiments.report import REPORT_NAME, verdicts

    failed = sum(outcome.state == "failed" for outcome in outcomes)
    if failed < len(outcomes):
        if not quiet:
            for line in verdicts(plan.output):
                typer.echo(line)
        typer.echo(f"{plan.output / REPORT_NAME}")
    if failed:
        typer.echo(f"{failed} of {len(outcomes)} runs failed; the same command tries them again", err=True)
        raise typer.Exit(SOME_FAILED)


def _epochs(history: Path) -> int:
    try:
        return max(0, history.read_bytes().count(b"\n") - 1)
    except OSError:
        return 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _overrides(words: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"{word!r}: expected KEY=VALUE such as max_epochs=20", param_hint="--override")
        found[key.replace("#", "::")] = value
    return found
