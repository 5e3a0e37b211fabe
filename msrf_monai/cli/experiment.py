"""``msrf-monai experiment``: cross-validate variants of a bundle, or evaluate trained networks across data sets."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from msrf_monai.experiments import CrossPlan, Outcome, Plan, TrainedModel

__all__ = ["app"]

SOME_FAILED = 3

Output = Annotated[Path, typer.Option(help="Folder of all results; an interrupted run goes on in it.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show failures and the page's path only.")]

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
    output: Output,
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
    quiet: Quiet = False,
) -> None:
    """Train and test every variant on every fold, then compare them. Exit code 3 when some runs failed."""
    from msrf_monai.errors import ConfigError, InputError
    from msrf_monai.experiments import CrossValidation, ProcessRunner, cross_validate, plan_cross_validation
    from msrf_monai.experiments.report import REPORT_NAME, verdicts

    with _wrong_use(ConfigError, InputError):
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
    _report(outcomes, "runs", plan.output, REPORT_NAME, None if quiet else verdicts)


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
    output: Output,
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
    quiet: Quiet = False,
) -> None:
    """Evaluate trained networks on several data sets, into one table. Exit code 3 when some evaluations failed."""
    from msrf_monai.errors import CheckpointError, ConfigError, InputError
    from msrf_monai.experiments import CrossDataset, ProcessRunner, evaluate_across, plan_cross_dataset
    from msrf_monai.experiments.cross_dataset_report import CROSS_REPORT_NAME, headline

    with _wrong_use(CheckpointError, ConfigError, InputError):
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
    _report(outcomes, "evaluations", plan.output, CROSS_REPORT_NAME, None if quiet else headline)


class _Watch:
    """Shows a bar over all runs on stderr, and a line for each run that ends."""

    def __init__(self, bar: Any, *, quiet: bool) -> None:
        self.bar = bar
        self.quiet = quiet
        self.current: Any = None

    def title(self, spec: Any) -> str:
        return f"{spec.variant}, fold {spec.fold}"

    def begin(self, total: int) -> None:
        self.bar.total = total
        self.bar.refresh()

    def started(self, spec: Any) -> None:
        self.current = spec
        self.bar.set_postfix_str(self.title(spec))

    def waiting(self) -> None:
        if self.current is not None:
            epochs = _epochs(self.current.folder / "training" / "history.csv")
            self.bar.set_postfix_str(f"{self.title(self.current)}, epoch {epochs}")

    def ended(self, outcome: Outcome[Any]) -> None:
        self.current = None
        self.bar.update()
        title = self.title(outcome.spec)
        if outcome.state == "failed":
            lines = "".join(f"\n    {line}" for line in outcome.lines)
            self._say(f"FAILED {title}: {outcome.message}; see {outcome.log}{lines}")
        elif not self.quiet:
            how = "was finished before" if outcome.state == "reused" else f"done in {outcome.seconds:.0f} s"
            self._say(f"{title}: {how}")

    def _say(self, text: str) -> None:
        self.bar.write(text, file=sys.stderr)


class _AcrossWatch(_Watch):
    """The same for evaluations across data sets."""

    def title(self, spec: Any) -> str:
        return f"{spec.model} on {spec.dataset}"


@contextmanager
def _shown(plan: Plan, *, quiet: bool) -> Iterator[_Watch]:
    how = [f"{len(plan.pictures.pictures)} images of {plan.pictures.name}", f"{len(plan.splits)} folds"]
    how += ["strata spread evenly"] * plan.is_stratified + ["groups kept together"] * plan.is_grouped
    about = f"{', '.join(how)}; {', '.join(variant.name for variant in plan.variants)}"
    with _bar("cross-validation", plan.notes, about, quiet=quiet) as bar:
        yield _Watch(bar, quiet=quiet)


@contextmanager
def _shown_across(plan: CrossPlan, *, quiet: bool) -> Iterator[_AcrossWatch]:
    about = ", ".join(f"{spec.model} on {spec.dataset} ({spec.images} images)" for spec in plan.runs)
    with _bar("across data sets", plan.notes, about, quiet=quiet) as bar:
        yield _AcrossWatch(bar, quiet=quiet)


@contextmanager
def _bar(title: str, notes: Sequence[str], about: str, *, quiet: bool) -> Iterator[Any]:
    """Show what begins, unless it is to be quiet, and yield a bar for its runs."""
    from tqdm import tqdm

    if not quiet:
        for note in notes:
            typer.echo(f"note: {note}", err=True)
        typer.echo(about, err=True)
    hidden = True if quiet else None  # None: hidden where nobody watches
    with tqdm(desc=title, unit=" runs", disable=hidden, leave=False, dynamic_ncols=True) as bar:
        yield bar


@contextmanager
def _wrong_use(*errors: type[Exception]) -> Iterator[None]:
    """Make one sentence and exit code 2 of these errors."""
    try:
        yield
    except errors as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


def _report(
    outcomes: Sequence[Outcome[Any]], what: str, output: Path, page: str, findings: Callable[[Path], list[str]] | None
) -> None:
    """Show what was found, unless it is to be quiet, and where the page is; exit with code 3 when some failed."""
    failed = sum(outcome.state == "failed" for outcome in outcomes)
    if failed < len(outcomes):
        for line in [] if findings is None else findings(output):
            typer.echo(line)
        typer.echo(f"{output / page}")
    if failed:
        typer.echo(f"{failed} of {len(outcomes)} {what} failed; the same command tries them again", err=True)
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
