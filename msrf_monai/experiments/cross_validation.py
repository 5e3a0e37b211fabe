"""Cross-validation of a bundle's variants: checked before it starts, resumable run by run, reported at its end."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from msrf_monai.errors import InputError
from msrf_monai.experiments.folds import FoldSplit, make_folds
from msrf_monai.experiments.pictures import PreparedPictures, find_dataset, read_pictures, write_fold
from msrf_monai.experiments.report import write_results
from msrf_monai.experiments.runner import ProcessRunner, Runner
from msrf_monai.experiments.runs import RunSpec, perform
from msrf_monai.experiments.steps import Observer, Outcome, perform_all
from msrf_monai.experiments.variants import BundleConfigs, Variant, check_commands, find_bundle, refuse_overrides
from msrf_monai.experiments.workplace import digest_of, workplace
from msrf_monai.files import sha256_of
from msrf_monai.optional import require

__all__ = ["CrossValidation", "Plan", "cross_validate", "plan_cross_validation"]

_LOGGER = logging.getLogger(__name__)

SCORES = ("dice", "iou", "precision", "recall")
_OURS = ("bundle_root", "dataset_dir", "ckpt_dir", "output_dir", "seed", "fold", "resume", "split", "weights")
"""Keys that a cross-validation sets itself."""


@dataclass(frozen=True)
class CrossValidation:
    """What is to be compared, and how.

    Attributes:
        bundle: folder of the bundle.
        dataset: a prepared data set: its folder, or its name.
        variants: names of overlays (see ``BundleConfigs.variant``), at least one.
        output: folder of all results.
        folds: number of folds.
        seed: chooses the folds; fold k trains with seed + k, the same for every variant.
        baseline: the variant that the others are compared with; None for the first.
        overlays: names of configurations that every run takes, such as "recipes/eusipco2024".
        overrides: keys of the configuration and their values, as on a command line.
        parts: parts of the data set whose pictures are taken; None: see ``read_pictures``.
        stratify: spread strata evenly over the folds; None: where the data set has strata.
        group: keep groups in one fold; None: where the data set has groups.
        shuffle: False for the articles' KFold of consecutive pictures.
        dev_share: share of each training part that chooses the checkpoint.
        score: the score that is tested, one of "dice", "iou", "precision", "recall".
        resume: go on in a folder that holds the same cross-validation.
    """

    bundle: str | os.PathLike[str]
    dataset: str | os.PathLike[str]
    variants: Sequence[str]
    output: str | os.PathLike[str]
    folds: int = 10
    seed: int = 42
    baseline: str | None = None
    overlays: Sequence[str] = ()
    overrides: Mapping[str, str] = field(default_factory=dict)
    parts: Sequence[str] | None = None
    stratify: bool | None = None
    group: bool | None = None
    shuffle: bool = True
    dev_share: float = 0.1
    score: str = "dice"
    resume: bool = True


@dataclass(frozen=True)
class Plan:
    """A cross-validation that was checked and can begin.

    Attributes:
        settings: what was asked for.
        output: its folder, absolute.
        configs: the bundle.
        variants: the variants, in the order asked for.
        baseline: name of the variant that the others are compared with.
        pictures: the data set.
        is_stratified: whether strata were spread evenly.
        is_grouped: whether groups were kept together.
        splits: the folds.
        options: what decides the results, for the record.
        runs: all runs, fold by fold.
        notes: what the user should know.
    """

    settings: CrossValidation
    output: Path
    configs: BundleConfigs
    variants: tuple[Variant, ...]
    baseline: str
    pictures: PreparedPictures
    is_stratified: bool
    is_grouped: bool
    splits: tuple[FoldSplit, ...]
    options: Mapping[str, Any]
    runs: tuple[RunSpec, ...]
    notes: tuple[str, ...]


def plan_cross_validation(settings: CrossValidation) -> Plan:
    """Read and check everything that a cross-validation needs, and write nothing.

    Args:
        settings: what is asked for.

    Returns:
        The plan, for ``cross_validate``.

    Raises:
        InputError: for an unknown variant, baseline, score or part, too many folds, or contradicting arguments.
        ConfigError: when the bundle is missing or broken, or an override names no key.
        DataError: when the data set is missing or broken.
    """
    bundle = find_bundle(settings.bundle)
    dataset_dir = find_dataset(settings.dataset, bundle.root)
    pictures = read_pictures(dataset_dir, parts=settings.parts)
    configs = bundle.having(settings.overlays, dataset=pictures.name)
    variants, baseline = _variants(configs, settings)
    _check_overrides(settings)
    strata = pictures.strata if settings.stratify is not False else None
    groups = pictures.groups if settings.group is not False else dict.fromkeys(pictures.groups)
    is_grouped = any(group is not None for group in groups.values())
    if settings.stratify and strata is None:
        raise InputError(f"{dataset_dir}: has no strata to spread over the folds; leave the option out")
    if settings.group and not is_grouped:
        raise InputError(f"{dataset_dir}: has no groups to keep together; leave the option out")
    splits = make_folds(
        groups,
        folds=settings.folds,
        seed=settings.seed,
        strata=strata,
        shuffle=settings.shuffle,
        dev_share=settings.dev_share,
    )
    output = Path(settings.output).expanduser().resolve()
    options = _options(settings, pictures, configs, variants, strata is not None, is_grouped)
    runs = [_run(settings, output, configs, options, split, variant) for split in splits for variant in variants]
    check_commands(command for spec in runs[: len(variants)] for command in (spec.training, spec.evaluation))
    return Plan(
        settings=settings,
        output=output,
        configs=configs,
        variants=variants,
        baseline=baseline,
        pictures=pictures,
        is_stratified=strata is not None,
        is_grouped=is_grouped,
        splits=tuple(splits),
        options=options,
        runs=tuple(runs),
        notes=tuple(_notes(pictures, splits)),
    )


def cross_validate(
    plan: Plan,
    *,
    runner: Runner | None = None,
    observer: Observer[RunSpec] | None = None,
    command_line: Sequence[str] = (),
) -> list[Outcome[RunSpec]]:
    """Do all runs that are not finished yet, then write tables, figures and the page.

    A run that fails does not stop the others. What was finished by an earlier call is kept; an interrupted training
    goes on from its last epoch where the bundle can resume, and begins again otherwise.

    Args:
        plan: of ``plan_cross_validation``.
        runner: what runs a command; each in a process of its own by default.
        observer: is told of every run.
        command_line: the command that asked for all this, for the page.

    Returns:
        How each run ended, in the order of the plan. Without a finished one there are no results.

    Raises:
        InputError: when the output folder is in use, or belongs to something else.
        MissingExtraError: when matplotlib or Jinja2 is missing; this shows before the first run.
        StorageError: when something cannot be written.
    """
    for module in ("matplotlib.figure", "jinja2"):
        require(module, "train")
    runner = runner or ProcessRunner()
    with workplace(plan.output, plan.options, resume=plan.settings.resume) as lock:
        for split in plan.splits:
            write_fold(fold_folder(plan.output, split.index), plan.pictures, split)
        outcomes = perform_all(plan.runs, partial(perform, runner=runner, keep_open=(lock,)), observer)
        if any(outcome.state != "failed" for outcome in outcomes):
            write_results(plan, outcomes, command_line=command_line)
    return outcomes


def fold_folder(output: Path, fold: int) -> Path:
    """Return the folder of a fold's data set."""
    return output / "folds" / f"fold_{fold}"


def _variants(configs: BundleConfigs, settings: CrossValidation) -> tuple[tuple[Variant, ...], str]:
    names = list(settings.variants)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not names or twice:
        raise InputError(
            f"the variant {twice[0]!r} is given twice" if twice else "no variant is given; name one or more"
        )
    variants = tuple(configs.variant(name) for name in names)
    baseline = settings.baseline or names[0]
    if baseline not in names:
        raise InputError(f"the baseline {baseline!r} is none of the variants, {', '.join(names)}")
    return variants, baseline


def _check_overrides(settings: CrossValidation) -> None:
    refuse_overrides(settings.overrides, _OURS, "a cross-validation sets it for each run")
    if settings.score not in SCORES:
        raise InputError(f"the score is {settings.score!r}; expected one of {', '.join(SCORES)}")


def _options(
    settings: CrossValidation,
    pictures: PreparedPictures,
    configs: BundleConfigs,
    variants: Sequence[Variant],
    is_stratified: bool,
    is_grouped: bool,
) -> dict[str, Any]:
    """Return all that decides the results; files by their digests, so that folders may move."""
    return {
        "dataset": {"name": pictures.name, "dataset.json": pictures.sha256, "parts": ",".join(pictures.parts)},
        "folds": settings.folds,
        "seed": settings.seed,
        "shuffle": settings.shuffle,
        "stratify": is_stratified,
        "group": is_grouped,
        "dev_share": settings.dev_share,
        "overlays": ",".join(settings.overlays),
        "overrides": dict(settings.overrides),
        "configs": configs.digests(),
        "variants": {each.name: sha256_of(each.overlay) if each.overlay is not None else None for each in variants},
    }


def _run(
    settings: CrossValidation,
    output: Path,
    configs: BundleConfigs,
    options: Mapping[str, Any],
    split: FoldSplit,
    variant: Variant,
) -> RunSpec:
    folder = output / "runs" / variant.folder_name / f"fold_{split.index}"
    can_resume = configs.takes("resume")
    common = {
        "dataset_dir": str(fold_folder(output, split.index)),
        "ckpt_dir": str(folder / "models"),
        "seed": str(settings.seed + split.index),
        **settings.overrides,
    }
    training = {"output_dir": str(folder / "training"), **common, **({"resume": "auto"} if can_resume else {})}
    evaluation = {"output_dir": str(folder / "evaluation"), **common}
    decides = {**options, "variants": options["variants"][variant.name], "fold": [split.training, split.validation]}
    return RunSpec(
        variant=variant.name,
        fold=split.index,
        folder=folder,
        training=tuple(configs.command("training", configs.training_files(variant), training)),
        evaluation=tuple(configs.command("evaluating", configs.evaluation_files(variant), evaluation)),
        digest=digest_of({**decides, "test": split.test}),
        can_resume=can_resume,
    )


def _notes(pictures: PreparedPictures, splits: Sequence[FoldSplit]) -> list[str]:
    notes = []
    fold_of = {name: split.index for split in splits for name in split.test}
    torn = sum(len({fold_of[name] for name in names}) > 1 for names in pictures.copies().values())
    if torn:
        notes.append(
            f"{torn} pictures lie in more than one fold, byte for byte the same: scores will be too good; "
            "groups keep them together"
        )
    return notes
