"""The files of a finished cross-validation: tables, summary, figures, and one page that holds them all."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msrf_monai.bundle.manifest import git_commit
from msrf_monai.engines.html_page import data_uri, render_template
from msrf_monai.engines.report_parts import as_csv
from msrf_monai.experiments.figures import draw_boxes, draw_differences, draw_folds, draw_learning_curves
from msrf_monai.experiments.results import TABLE_SCORES, Results, collect, summarise_results
from msrf_monai.experiments.runs import RunSpec
from msrf_monai.experiments.steps import Outcome, read_record
from msrf_monai.files import write_bytes, write_text
from msrf_monai.json_files import write_json
from msrf_monai.runtime import versions

if TYPE_CHECKING:
    from msrf_monai.experiments.cross_validation import Plan

__all__ = ["REPORT_NAME", "verdict", "verdicts", "write_results"]

_LOGGER = logging.getLogger(__name__)

REPORT_NAME = "report.html"
SIGNIFICANT = 0.05
_CONFIDENCE = 0.95
_SAMPLES = 2000
_SCORE_NAMES = {"dice": "Dice", "iou": "IoU", "precision": "precision", "recall": "recall", "hd95_px": "HD95 (px)"}
METHODS = {
    "nadeau_bengio_t": "The default test: corrected resampled t-test of Nadeau and Bengio (2003) over the folds' mean "
    "differences. The training parts of a cross-validation share most of their images, so that its folds are not "
    "independent; the test makes up for that by the variance (1/K + n_test/n_train) s².",
    "paired_t": "The plain paired t-test over folds that the articles use. It takes the folds for independent and "
    "finds too many differences; it is here for comparison with them.",
    "p_holm": "p-values corrected by Holm's method for the number of comparisons with the baseline.",
    "bootstrap_interval_by_fold": "Percentile bootstrap of the mean difference over images that draws whole folds. "
    "With few folds it is too narrow.",
    "bootstrap_interval_by_image": "The same drawing images, or groups of images where the data set has groups. It "
    "takes the trained networks as given, so that it does not cover how a training varies.",
}


def write_results(plan: Plan, outcomes: Sequence[Outcome[RunSpec]], *, command_line: Sequence[str] = ()) -> Path:
    """Write per_fold.csv, per_image.csv, summary.json, the figures and the page.

    Args:
        plan: the cross-validation.
        outcomes: of its runs; those that failed are listed, the others are read.
        command_line: the command that asked for all this.

    Returns:
        The page.

    Raises:
        DataError: when the files of a finished run cannot be read.
        MissingExtraError: when matplotlib or Jinja2 is missing.
        StorageError: when a file cannot be written.
    """
    settings = plan.settings
    names = [variant.name for variant in plan.variants]
    done = [outcome.spec for outcome in outcomes if outcome.state != "failed"]
    done.sort(key=lambda spec: (names.index(spec.variant), spec.fold))
    results = collect(done, plan.pictures.pictures, plan.splits, baseline=plan.baseline, score=settings.score)
    ratio = sum(len(split.test) for split in plan.splits) / sum(len(split.training) for split in plan.splits)
    found = summarise_results(
        results,
        variants=names,
        baseline=plan.baseline,
        ratio=ratio,
        score=settings.score,
        confidence=_CONFIDENCE,
        samples=_SAMPLES,
    )
    summary = {
        **_about(plan, command_line),
        **found,
        "statistics": {"test_to_training_ratio": ratio, "confidence": _CONFIDENCE, "bootstrap_samples": _SAMPLES}
        | METHODS,
        "failed": [outcome.about_failure() for outcome in outcomes if outcome.state == "failed"],
        "notes": [*plan.notes, *_version_notes(outcomes)],
    }
    figures = _figures(results, found, names, settings.score)
    write_text(plan.output / "per_image.csv", as_csv(results.images))
    write_text(plan.output / "per_fold.csv", as_csv(results.folds))
    write_json(plan.output / "summary.json", summary)
    for name, content in figures.items():
        write_bytes(plan.output / "figures" / f"{name}.png", content)
    path = plan.output / REPORT_NAME
    write_text(path, _page(summary, results, figures, [outcome for outcome in outcomes if outcome.state != "failed"]))
    _LOGGER.info("results of %d runs: %s", len(done), path)
    return path


def verdict(comparison: Mapping[str, Any]) -> str:
    """Say in words what a comparison shows, and no more than that.

    Args:
        comparison: one of those of ``summarise_results``.
    """
    test, name, baseline = comparison["nadeau_bengio_t"], comparison["variant"], comparison["baseline"]
    if test is None:
        return f"{name} and {baseline}: one fold is too few for a test"
    low, high = test["interval"]
    span = f"{test['mean']:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}, corrected p = {p_text(test['p_holm'])}"
    if test["p_holm"] >= SIGNIFICANT:
        return f"{name} and {baseline}: no difference is shown ({span})"
    return f"{name} is {'higher' if test['mean'] > 0 else 'lower'} than {baseline} ({span})"


def verdicts(output: Path) -> list[str]:
    """Return what the comparisons of a finished cross-validation show, a sentence for each.

    Args:
        output: its folder.
    """
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    return [verdict(comparison) for comparison in summary["comparisons"]]


def p_text(p: float | None) -> str:
    """Return a p-value as it is printed."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _about(plan: Plan, command_line: Sequence[str]) -> dict[str, Any]:
    pictures = plan.pictures
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(command_line),
        "bundle": plan.configs.root.name,
        "git_commit": git_commit(plan.configs.root),
        "dataset": {
            "name": pictures.name,
            "pictures": len(pictures.pictures),
            "parts": list(pictures.parts),
            "groups": len({group for group in pictures.groups.values() if group is not None}),
            "strata": sorted(set((pictures.strata or {}).values())),
            "licence": pictures.header.get("licence"),
            "citation": pictures.header.get("citation"),
            "sha256": pictures.sha256,
        },
        "baseline": plan.baseline,
        "score": plan.settings.score,
        "options": dict(plan.options),
        "folds": [
            {
                "fold": split.index,
                "training": len(split.training),
                "validation": len(split.validation),
                "test": len(split.test),
                "seed": plan.settings.seed + split.index,
            }
            for split in plan.splits
        ],
        "versions": {**versions(), **{name: metadata.version(name) for name in ("scipy", "matplotlib")}},
    }


def _version_notes(outcomes: Sequence[Outcome[RunSpec]]) -> list[str]:
    """Say when runs were made by different versions."""
    seen: dict[str, set[str]] = {}
    for outcome in outcomes:
        for package, version in ((read_record(outcome.spec) or {}).get("versions") or {}).items():
            seen.setdefault(package, set()).add(version)
    return [
        f"the runs were made with several versions of {package}: {', '.join(sorted(found))}"
        for package, found in sorted(seen.items())
        if len(found) > 1
    ]


def _figures(results: Results, found: Mapping[str, Any], names: Sequence[str], score: str) -> dict[str, bytes]:
    present = [name for name in names if name in found["variants"]]
    title = _SCORE_NAMES[score]
    images = {name: [row[score] for row in results.images if row["variant"] == name] for name in present}
    folds = {name: {row["fold"]: row[score] for row in results.folds if row["variant"] == name} for name in present}
    figures = {"boxes": draw_boxes(images, score=title), "folds": draw_folds(folds, score=title)}
    if found["comparisons"]:
        figures["differences"] = draw_differences(found["comparisons"], score=title)
    figures["learning_curves"] = draw_learning_curves(results.histories)
    return figures


def _page(
    summary: Mapping[str, Any], results: Results, figures: Mapping[str, bytes], done: Sequence[Outcome[RunSpec]]
) -> str:
    commands = [
        {"run": f"{outcome.spec.variant}, fold {outcome.spec.fold}", "lines": [shlex.join(outcome.spec.training),
         shlex.join(outcome.spec.evaluation)]}
        for outcome in done
    ]  # fmt: skip
    return render_template(
        "msrf_monai.experiments",
        "report.html.j2",
        {"number": _number, "signed": _signed, "p": p_text, "verdict": verdict, "minutes": _minutes},
        summary=summary,
        folds=results.folds,
        scores=[(name, _SCORE_NAMES[name]) for name in TABLE_SCORES],
        score_name=_SCORE_NAMES[summary["score"]],
        figures={name: data_uri(png, "image/png") for name, png in figures.items()},
        commands=commands,
        methods=METHODS,
    )


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}"
