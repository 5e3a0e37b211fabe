"""The report of an evaluation: one row an image and a summary, as files."""

from __future__ import annotations

import csv
import io
import json
import logging
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Events
from torch import Tensor

from msrf_monai.engines.best import versions
from msrf_monai.engines.cases import UNKNOWN_FILE, case_names
from msrf_monai.engines.summary import case_row, summarise
from msrf_monai.errors import ConfigError, DataError
from msrf_monai.files import write_text

__all__ = ["SegmentationReport"]

_LOGGER = logging.getLogger(__name__)


class SegmentationReport:
    """Write ``cases.csv`` and ``summary.json`` at the end of an evaluation.

    Attach it to an evaluator whose post-processing decides the masks. Each image is scored once, also when several
    processes share the work or a sampler repeats images to make equal shares. The paper's averages (``macro_dsc``,
    ``pooled_iou``, ``pooled_precision``, ``pooled_recall``) and the means of the images' scores are put among the
    engine's metrics.

    Args:
        output_dir: folder of the two files.
        dataset_dir: files inside this folder are named relative to it, others by their name alone.
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
        self.dataset_dir = None if dataset_dir is None else Path(dataset_dir).resolve()
        self.channel = channel
        self.settings: dict[str, Any] = {"confidence": confidence, "samples": samples, "seed": seed, "worst": worst}
        self._rows: list[dict[str, Any]] = []

    def attach(self, engine: Any) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._rows.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Gather the rows of all processes, write the files and set the metrics.

        Raises:
            InputError: when no image was evaluated.
            StorageError: when a file cannot be written.
        """
        rows = _gathered(self._rows)
        summary = summarise(rows, **self.settings)
        summary["versions"] = versions()
        engine.state.metrics.update(summary["paper"])
        engine.state.metrics.update(
            {f"mean_{name}": found["mean"] for name, found in summary["per_image"].items() if found["mean"] is not None}
        )
        if idist.get_rank() == 0:
            self._write(rows, summary)

    def _collect(self, engine: Any) -> None:
        names = case_names(engine.state.batch)
        for item, name in zip(engine.state.output, names, strict=True):
            pred, label = (item[key][self.channel].detach().cpu().as_subclass(Tensor) for key in ("pred", "label"))
            if pred.shape != label.shape:
                raise DataError(
                    f"the prediction for {name} has shape {tuple(pred.shape)} and its mask {tuple(label.shape)}; "
                    "restore both to the same geometry before scoring"
                )
            self._rows.append({"file": self._shown(name), **case_row(pred, label)})

    def _shown(self, name: str) -> str:
        path = Path(name)
        if self.dataset_dir is not None and path.resolve().is_relative_to(self.dataset_dir):
            return path.resolve().relative_to(self.dataset_dir).as_posix()
        return path.name

    def _write(self, rows: list[dict[str, Any]], summary: dict[str, Any]) -> None:
        table = io.StringIO()
        writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.output_dir / "cases.csv", table.getvalue())
        write_text(self.output_dir / "summary.json", json.dumps(summary, indent=4, allow_nan=False) + "\n")
        numbers = ", ".join(f"{name} {value:.4f}" for name, value in summary["paper"].items())
        _LOGGER.info("%d images: %s; see %s", summary["images"], numbers, self.output_dir / "summary.json")


def _gathered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of all processes in the order of their files, each file once."""
    if idist.get_world_size() > 1:
        shares: Any = idist.all_gather(json.dumps(rows))
        rows = [row for share in shares for row in json.loads(share)]
    unique: dict[Any, dict[str, Any]] = {}
    for index, row in enumerate(rows):
        unique.setdefault(index if row["file"] == UNKNOWN_FILE else row["file"], row)
    return sorted(unique.values(), key=lambda row: str(row["file"]))
