"""Trained networks on several data sets: each pair evaluated on its own, resumable, with one table of all."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from msrf_monai.data.splits import PARTS
from msrf_monai.errors import CheckpointError, ConfigError, InputError
from msrf_monai.experiments.cross_dataset_report import write_cross_results
from msrf_monai.experiments.evaluations import EvaluationOutcome, EvaluationSpec, evaluate
from msrf_monai.experiments.pictures import check_parts
from msrf_monai.experiments.prepared_sets import PreparedSet, open_set
from msrf_monai.experiments.runner import ProcessRunner, Runner
from msrf_monai.experiments.steps import Observer, perform_all
from msrf_monai.experiments.variants import BundleConfigs, check_commands, find_bundle, refuse_overrides
from msrf_monai.experiments.workplace import digest_of, workplace
from msrf_monai.files import sha256_of
from msrf_monai.optional import require

__all__ = [
    "THRESHOLD_KEY",
    "CrossDataset",
    "CrossPlan",
    "EvaluationObserver",
    "TrainedModel",
    "TrainedNetwork",
    "evaluate_across",
    "plan_cross_dataset",
]

_LOGGER = logging.getLogger(__name__)

THRESHOLD_KEY = "calibration_dir"
"""Key of a bundle's evaluation: the data set whose validation part chooses the threshold."""

WHAT = "comparison of data sets"
_OURS = ("bundle_root", "dataset_dir", "output_dir", "weights", "split", THRESHOLD_KEY)


@dataclass(frozen=True)
class TrainedModel:
    """A trained network, as it is asked for.

    Attributes:
        weights: file of its weights.
        trained_on: the prepared data set that it was trained on: its folder, or its name. Its validation part chooses
            the threshold.
        bundle: folder of its bundle.
        name: what to call it; None for the name of the data set that it was trained on.
    """

    weights: str | os.PathLike[str]
    trained_on: str | os.PathLike[str]
    bundle: str | os.PathLike[str]
    name: str | None = None


@dataclass(frozen=True)
class CrossDataset:
    """What is to be evaluated, and how.

    Attributes:
        models: the trained networks, at least one.
        datasets: prepared data sets, by folder or name, at least one.
        output: folder of all results.
        overlays: names of configurations that every evaluation takes, such as "widths/quarter".
        overrides: keys of the configuration and their values, as on a command line.
        parts: parts of every data set whose pictures are taken. None: the test part of the data set that a network was
            trained on, and all pictures of others.
        resume: go on in a folder that holds the same comparison.
    """

    models: Sequence[TrainedModel]
    datasets: Sequence[str | os.PathLike[str]]
    output: str | os.PathLike[str]
    overlays: Sequence[str] = ()
    overrides: Mapping[str, str] = field(default_factory=dict)
    parts: Sequence[str] | None = None
    resume: bool = True


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network that was found and checked.

    Attributes:
        name: unique among those compared.
        configs: its bundle with the overlays.
        weights: file of its weights, absolute.
        trained_on: the data set that it was trained on.
        digest: of weights, configurations and that data set.
    """

    name: str
    configs: BundleConfigs
    weights: Path
    trained_on: PreparedSet
    digest: str


@dataclass(frozen=True)
class CrossPlan:
    """A comparison that was checked and can begin.

    Attributes:
        settings: what was asked for.
        output: its folder, absolute.
        networks: the trained networks.
        sets: the data sets by the names that they have here.
        options: what decides the results, for the record.
        runs: all evaluations, network by network.
        notes: what the user should know.
    """

    settings: CrossDataset
    output: Path
    networks: tuple[TrainedNetwork, ...]
    sets: Mapping[str, PreparedSet]
    options: Mapping[str, Any]
    runs: tuple[EvaluationSpec, ...]
    notes: tuple[str, ...]


EvaluationObserver = Observer[EvaluationSpec]
"""Who is told of each evaluation; each method may do nothing."""


def plan_cross_dataset(settings: CrossDataset) -> CrossPlan:
    """Read and check everything that the evaluations need, and write nothing.

    Args:
        settings: what is asked for.

    Returns:
        The plan, for ``evaluate_across``.

    Raises:
        InputError: for an unknown overlay or part, names that are not unique, or contradicting arguments.
        ConfigError: when a bundle is missing, broken, or cannot choose its threshold on another data set.
        DataError: when a data set is missing or broken.
        CheckpointError: when a file of weights is missing.
    """
    _check(settings)
    networks = tuple(_network(model, settings.overlays) for model in settings.models)
    twice = [name for name, count in Counter(network.name for network in networks).items() if count > 1]
    if twice:
        raise InputError(f"two networks are called {twice[0]!r}; give each a name of its own")
    sets = _named_sets([open_set(each, networks[0].configs.root) for each in settings.datasets])
    output = Path(settings.output).expanduser().resolve()
    options = {
        "kind": WHAT,
        "parts": ",".join(settings.parts) if settings.parts else None,
        "overlays": ",".join(settings.overlays),
        "overrides": dict(settings.overrides),
        "variants": {
            **{f"network {network.name}": network.digest for network in networks},
            **{f"data set {name}": each.sha256 for name, each in sets.items()},
        },
    }
    pairs = [(network, name, each) for network in networks for name, each in sets.items()]
    specs = [_spec(settings, output, *pair) for pair in pairs]
    runs = tuple(spec for spec in specs if spec.images)
    if not runs:
        raise InputError("none of the data sets has a picture in the wanted parts; name other parts")
    check_commands(spec.command for spec in _first_of_each(runs))
    notes = [
        f"{spec.model} was trained on {spec.dataset}, which has no picture in its test part: left out"
        if spec.is_own
        else f"{spec.dataset} has no picture in the wanted parts: left out"
        for spec in specs
        if not spec.images
    ]
    return CrossPlan(settings, output, networks, sets, options, runs, tuple(notes))


def evaluate_across(
    plan: CrossPlan,
    *,
    runner: Runner | None = None,
    observer: EvaluationObserver | None = None,
    command_line: Sequence[str] = (),
) -> list[EvaluationOutcome]:
    """Do all evaluations that are not finished yet, then write tables and the page.

    One that fails does not stop the others. What was finished by an earlier call is kept.

    Args:
        plan: of ``plan_cross_dataset``.
        runner: what runs a command; each in a process of its own by default.
        observer: is told of every evaluation.
        command_line: the command that asked for all this, for the page.

    Returns:
        How each ended, in the order of the plan. Without a finished one there are no results.

    Raises:
        InputError: when the output folder is in use, or belongs to something else.
        DataError: when the results of a finished evaluation cannot be used.
        MissingExtraError: when Jinja2 is missing; this shows before the first evaluation.
        StorageError: when something cannot be written.
    """
    require("jinja2", "train")
    runner = runner or ProcessRunner()
    with workplace(plan.output, plan.options, resume=plan.settings.resume, what=WHAT) as lock:
        for spec in plan.runs:
            _write_test_set(plan, spec)
        outcomes = perform_all(plan.runs, partial(evaluate, runner=runner, keep_open=(lock,)), observer)
        if any(outcome.state != "failed" for outcome in outcomes):
            write_cross_results(plan, outcomes, command_line=command_line)
    return outcomes


def _check(settings: CrossDataset) -> None:
    if not settings.models or not settings.datasets:
        raise InputError("one trained network and one data set are needed at least")
    refuse_overrides(settings.overrides, _OURS, "it is set for each evaluation")
    check_parts(settings.parts or ())


def _network(model: TrainedModel, overlays: Sequence[str]) -> TrainedNetwork:
    bundle = find_bundle(model.bundle)
    configs = bundle.having(overlays)
    if not (bundle.takes(THRESHOLD_KEY) or bundle.takes(THRESHOLD_KEY, config="evaluate")):
        raise ConfigError(
            f"{bundle.root}: neither train.json nor evaluate.json has the key {THRESHOLD_KEY}, the data set whose "
            "validation part chooses the threshold; a threshold chosen on test images would be too good"
        )
    weights = Path(model.weights).expanduser().resolve()
    if not weights.is_file():
        raise CheckpointError(f"{weights}: this file of weights does not exist; give that of a trained network")
    trained_on = open_set(model.trained_on, bundle.root)
    if not trained_on.count(["validation"]) and not _has_folds(trained_on):
        raise InputError(f"{trained_on.folder}: has no validation part, on which the threshold is chosen")
    decides = {
        "weights": sha256_of(weights),
        "configs": configs.digests(),
        "trained_on": trained_on.sha256,
    }
    name = model.name or trained_on.name
    if not name or any(character in name for character in '/\\:*?"<>|\0') or name.startswith("."):
        raise InputError(f"a network cannot be called {name!r}, since a folder is named after it")
    return TrainedNetwork(name, configs, weights, trained_on, digest_of(decides))


def _has_folds(prepared: PreparedSet) -> bool:
    return any("fold" in item for item in prepared.content.get("training") or ())


def _named_sets(sets: Sequence[PreparedSet]) -> dict[str, PreparedSet]:
    """Return the data sets by name; those of one name are called after their folders."""
    count = Counter(each.name for each in sets)
    named = {each.name if count[each.name] == 1 else each.folder.name: each for each in sets}
    if len(named) < len(sets):
        raise InputError(f"two data sets are called alike: {', '.join(each.folder.name for each in sets)}")
    return named


def _spec(
    settings: CrossDataset, output: Path, network: TrainedNetwork, name: str, dataset: PreparedSet
) -> EvaluationSpec:
    is_own = dataset.sha256 == network.trained_on.sha256
    parts = _parts(settings, is_own=is_own)
    folder = output / "runs" / network.name / name
    values = {
        "dataset_dir": str(_test_folder(output, name, parts)),
        "weights": str(network.weights),
        "output_dir": str(folder / "evaluation"),
        THRESHOLD_KEY: str(network.trained_on.folder),
        **settings.overrides,
    }
    root = network.configs.root / "configs"
    files = [root / "train.json", *network.configs.overlays, root / "evaluate.json"]
    decides = {
        "network": network.digest,
        "dataset": dataset.sha256,
        "parts": parts,
        "overrides": dict(settings.overrides),
    }
    return EvaluationSpec(
        model=network.name,
        dataset=name,
        folder=folder,
        command=tuple(network.configs.command("evaluating", files, values)),
        digest=digest_of(decides),
        images=dataset.count(parts),
        is_own=is_own,
    )


def _parts(settings: CrossDataset, *, is_own: bool) -> list[str]:
    return list(settings.parts) if settings.parts else (["test"] if is_own else list(PARTS))


def _test_folder(output: Path, name: str, parts: Sequence[str]) -> Path:
    return output / "datasets" / f"{name}-{'+'.join(parts) if len(parts) < len(PARTS) else 'all'}"


def _write_test_set(plan: CrossPlan, spec: EvaluationSpec) -> None:
    parts = _parts(plan.settings, is_own=spec.is_own)
    plan.sets[spec.dataset].write_test_set(_test_folder(plan.output, spec.dataset, parts), parts)


def _first_of_each(runs: Sequence[EvaluationSpec]) -> Iterator[EvaluationSpec]:
    seen = set()
    for spec in runs:
        if spec.model not in seen:
            seen.add(spec.model)
            yield spec
