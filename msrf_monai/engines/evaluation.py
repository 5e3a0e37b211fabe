"""The report of an evaluation: one row an image and a summary, as files."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from torch import Tensor

from msrf_monai.engines.best import versions
from msrf_monai.engines.cases import UNKNOWN_FILE, case_names
from msrf_monai.engines.report_parts import EvaluationHandler, absolute_folder, absolute_path, as_csv, names_to_show
from msrf_monai.engines.summary import case_row, summarise
from msrf_monai.errors import ConfigError, DataError
from msrf_monai.files import write_text
from msrf_monai.json_files import write_json

__all__ = ["SegmentationReport"]

_LOGGER = logging.getLogger(__name__)
_PATH = "_path"  # of a row: what tells images apart, and is not written


class SegmentationReport(EvaluationHandler):
    """Write ``cases.csv`` and ``summary.json`` at the end of an evaluation.

    Attach it to an evaluator whose post-processing decides the masks. Each image is scored once, also when several
    processes share the work or a sampler repeats images to make equal shares. The paper's averages (``macro_dsc``,
    ``pooled_iou``, ``pooled_precision``, ``pooled_recall``) and the means of the images' scores are put among the
    engine's metrics.

    Args:
        output_dir: folder of the two files.
        dataset_dir: files inside this folder are named relative to it, others by their name and as many folders as
            tell them apart.
        channel: channel of prediction and truth (K, X, Y) that is scored.
        confidence: of the intervals.
        samples: resamples of the bootstrap.
        seed: seed of the bootstrap.
        worst: number of images with the lowest Dice that the summary names.
    """

    def __init__(
        self,
        output_dir: str,
        *,
        dataset_dir: str | None = None,
        channel: int = 0,
        confidence: float = 0.95,
        samples: int = 2000,
        seed: int = 0,
        worst: int = 10,
    ) -> None:
        if not 0 < confidence < 1 or samples < 1 or worst < 0:
            raise ConfigError(
                f"confidence must be in (0, 1), samples 1 or more, worst 0 or more: {confidence}, {samples}, {worst}"
            )
        self.output_dir = Path(output_dir)
        self.dataset_dir = absolute_folder(dataset_dir)
        self.channel = channel
        self.settings: dict[str, Any] = {"confidence": confidence, "samples": samples, "seed": seed, "worst": worst}
        self._rows: list[dict[str, Any]] = []

    def __call__(self, engine: Any) -> None:
        """Gather the rows of all processes, write the files and set the metrics.

        Raises:
            InputError: when no image was evaluated.
            StorageError: when a file cannot be written.
        """
        rows = self._named(_gathered(self._rows))
        summary = summarise(rows, **self.settings)
        summary["versions"] = versions()
        engine.state.metrics.update(summary["paper"])
        engine.state.metrics.update(
            {f"mean_{name}": found["mean"] for name, found in summary["per_image"].items() if found["mean"] is not None}
        )
        if idist.get_rank() == 0:
            self._write(rows, summary)

    def _begin(self) -> None:
        self._rows.clear()

    def _collect(self, engine: Any) -> None:
        names = case_names(engine.state.batch)
        for item, name in zip(engine.state.output, names, strict=True):
            pred, label = (item[key][self.channel].detach().cpu().as_subclass(Tensor) for key in ("pred", "label"))
            if pred.shape != label.shape:
                raise DataError(
                    f"the prediction for {name} has shape {tuple(pred.shape)} and its mask {tuple(label.shape)}; "
                    "restore both to the same geometry before scoring"
                )
            self._rows.append({_PATH: absolute_path(name), **case_row(pred, label)})

    def _named(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Put the name to show in the place of the path, and sort by it."""
        shown = names_to_show({row[_PATH] for row in rows}, self.dataset_dir)
        named = [
            {"file": shown[row[_PATH]], **{key: value for key, value in row.items() if key != _PATH}} for row in rows
        ]
        return sorted(named, key=lambda row: str(row["file"]))

    def _write(self, rows: list[dict[str, Any]], summary: dict[str, Any]) -> None:
        write_text(self.output_dir / "cases.csv", as_csv(rows))
        write_json(self.output_dir / "summary.json", summary)
        numbers = ", ".join(f"{name} {value:.4f}" for name, value in summary["paper"].items())
        _LOGGER.info("%d images: %s; see %s", summary["images"], numbers, self.output_dir / "summary.json")


def _gathered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of all processes, each file once."""
    if idist.get_world_size() > 1:
        shares: Any = idist.all_gather(json.dumps(rows))
        rows = [row for share in shares for row in json.loads(share)]
    unique: dict[Any, dict[str, Any]] = {}
    for index, row in enumerate(rows):
        unique.setdefault(index if row[_PATH] == UNKNOWN_FILE else row[_PATH], row)
    return list(unique.values())
