"""The files of a finished comparison of data sets: one table of all, as CSV, JSON and a page with pictures."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msrf_monai.bundle.manifest import git_commit
from msrf_monai.engines.report_parts import as_csv
from msrf_monai.engines.vessel_report_page import SheetPicture, contact_sheet, render_vessel_page, score_text
from msrf_monai.engines.vessel_report_tables import AGGREGATES, DEFINITIONS, aggregate_of
from msrf_monai.errors import DataError
from msrf_monai.experiments.evaluations import EvaluationOutcome, EvaluationSpec
from msrf_monai.experiments.steps import SUMMARY
from msrf_monai.files import write_text
from msrf_monai.json_files import write_json
from msrf_monai.metrics import VESSEL_SCORES
from msrf_monai.runtime import versions

if TYPE_CHECKING:
    from msrf_monai.experiments.cross_dataset import CrossPlan

__all__ = ["CROSS_REPORT_NAME", "headline", "write_cross_results"]

_LOGGER = logging.getLogger(__name__)

CROSS_REPORT_NAME = "report.html"
_RESULTS = "results.json"
_PROTOCOLS = ("fov_chosen", "fov_0.5", "fov_observer", "full_0.5", "full_observer")
_IN_TABLE = tuple(name for name in AGGREGATES if name in ("pooled", "mean", "std", "interval_low", "interval_high"))
_PICTURES = 3  # of each pair


def write_cross_results(
    plan: CrossPlan, outcomes: Sequence[EvaluationOutcome], *, command_line: Sequence[str] = ()
) -> Path:
    """Write results.csv, results.json and the page.

    Args:
        plan: the comparison.
        outcomes: of its evaluations; those that failed are listed, the others are read.
        command_line: the command that asked for all this.

    Returns:
        The page.

    Raises:
        DataError: when the files of a finished evaluation cannot be read, or are no vessel report.
        MissingExtraError: when Jinja2 is missing.
        StorageError: when a file cannot be written.
    """
    done = [outcome.spec for outcome in outcomes if outcome.state != "failed"]
    results = [_result(plan, spec) for spec in done]
    summary = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(command_line),
        "networks": [
            {
                "name": network.name,
                "bundle": network.configs.root.name,
                "git_commit": git_commit(network.configs.root),
                "weights": network.weights.name,
                "trained_on": network.trained_on.name,
                "digest": network.digest,
            }
            for network in plan.networks
        ],
        "datasets": {
            name: {
                "licence": each.content.get("licence"),
                "citation": each.content.get("citation"),
                "sha256": each.sha256,
            }
            for name, each in plan.sets.items()
        },
        "options": dict(plan.options),
        "results": results,
        "failed": [outcome.about_failure() for outcome in outcomes if outcome.state == "failed"],
        "notes": [*plan.notes, *_common_notes(results)],
        "definitions": DEFINITIONS,
        "versions": versions(),
    }
    pictures = {f"{spec.model} {spec.dataset}": _pictures(plan.output, spec) for spec in done}
    write_text(plan.output / "results.csv", _csv(results))
    write_json(plan.output / _RESULTS, summary, ascii_only=False)
    path = plan.output / CROSS_REPORT_NAME
    write_text(path, _page(summary, pictures, {f"{spec.model} {spec.dataset}": spec.command for spec in done}))
    _LOGGER.info("results of %d evaluations: %s", len(done), path)
    return path


def headline(output: Path) -> list[str]:
    """Return the result of each pair of a finished comparison, a line for each.

    Args:
        output: its folder.
    """
    summary = json.loads((output / _RESULTS).read_text(encoding="utf-8"))
    lines = []
    for result in summary["results"]:
        pooled = result["protocols"]["fov_chosen"]["pooled"]
        f1, auc = (score_text(pooled.get(name)) for name in ("f1", "auc_roc"))
        lines.append(
            f"{result['model']} on {result['dataset']} ({result['images']} images): pooled F1 {f1}, AUC {auc} "
            f"in the field of view at {result['threshold']:.3g}"
        )
    return lines


def _result(plan: CrossPlan, spec: EvaluationSpec) -> dict[str, Any]:
    path = spec.folder / SUMMARY
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        protocols = dict(summary["protocols"])
        found = {
            "threshold": float(summary["threshold"]),
            "calibration": summary["calibration"],
            "pictures": list(summary["pictures"]),
            "notes": list(summary["notes"]),
        }
        primary = protocols[summary["primary"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: is no summary of a vessel report ({error!r}); the bundle's evaluate.json must use "
            "msrf_monai.engines.VesselReport; remove the run's folder and run again"
        ) from error
    if summary["images"] != spec.images:
        raise DataError(
            f"{path}: {summary['images']} images were evaluated, expected {spec.images}; an override must not leave "
            "images out"
        )
    trained_on = {network.name: network.trained_on.name for network in plan.networks}[spec.model]
    # where 0.5 itself was chosen, the report has it once
    return {
        "model": spec.model,
        "trained_on": trained_on,
        "dataset": spec.dataset,
        "is_own": spec.is_own,
        "images": spec.images,
        **found,
        "report": (spec.folder / "evaluation" / "report.html").relative_to(plan.output).as_posix(),
        "protocols": {"fov_chosen": primary, **protocols},
    }


def _common_notes(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return each note of the pairs once, with the pairs that have it."""
    pairs: dict[str, list[str]] = {}
    for result in results:
        for note in result["notes"]:
            pairs.setdefault(note, []).append(f"{result['model']} on {result['dataset']}")
    return [
        f"{'all pairs' if len(found) == len(results) else ', '.join(found)}: {note}" for note, found in pairs.items()
    ]


def _csv(results: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        {
            **{key: result[key] for key in ("model", "trained_on", "dataset", "images", "threshold")},
            **{
                f"{protocol}.{aggregate}.{score}": _cell(result, protocol, aggregate, score)
                for protocol in _PROTOCOLS
                for aggregate in _IN_TABLE
                for score in VESSEL_SCORES
            },
        }
        for result in results
    ]
    kept = [column for column in rows[0] if any(row[column] is not None for row in rows)]
    return as_csv(rows, kept)


def _cell(result: Mapping[str, Any], protocol: str, aggregate: str, score: str) -> Any:
    found = result["protocols"].get(protocol)
    return None if found is None else aggregate_of(found, aggregate, score)


def _pictures(output: Path, spec: EvaluationSpec) -> list[SheetPicture]:
    """Return the pictures of the lowest, a middle and the highest F1 of a pair."""
    found = json.loads((spec.folder / SUMMARY).read_text(encoding="utf-8"))["pictures"]
    return contact_sheet(spec.folder / "evaluation", found, _PICTURES, linked_from=output, longest_px=380)


def _page(
    summary: Mapping[str, Any],
    pictures: Mapping[str, Sequence[SheetPicture]],
    commands: Mapping[str, Sequence[str]],
) -> str:
    shown = {pair: shlex.join(command) for pair, command in commands.items()}
    return render_vessel_page(
        "msrf_monai.experiments", "cross_dataset.html.j2", summary=summary, pictures=pictures, commands=shown
    )
