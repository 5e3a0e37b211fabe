"""The report of an evaluation with tables of its groups: targets by size, and the data sets of a pool."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from msrf_monai.engines.evaluation import SegmentationReport
from msrf_monai.engines.report_parts import as_csv
from msrf_monai.errors import ConfigError
from msrf_monai.files import write_text
from msrf_monai.metrics import average_surface_distance, hausdorff

__all__ = ["GroupedSegmentationReport", "group_by_target_size", "table_of_groups"]

_LOGGER = logging.getLogger(__name__)
_SCORES = ("dice", "iou", "precision", "recall", "hd_px", "assd_px")
_EMPTY = "no target"


class GroupedSegmentationReport(SegmentationReport):
    """Write ``by_target_size.csv``, and ``by_dataset.csv`` for a pool of data sets, beside ``SegmentationReport``'s.

    ``cases.csv`` gets the columns of the article's tables that it has not yet: the Hausdorff distance ``hd_px`` and the
    mean distance of the outlines ``assd_px``, both in pixels at the size at which the masks are compared, empty where
    one mask is; and ``dataset``, where the items come from ``msrf_monai.data.load_pool``.

    Args:
        output_dir: folder of the files.
        size_edges: shares of the image, ascending in (0, 1), at which targets are divided into groups; the default is
            0.5, 1 and 5 per cent.
        **settings: those of ``SegmentationReport``.

    Raises:
        ConfigError: when the edges are not ascending shares.
    """

    def __init__(self, output_dir: str, *, size_edges: Sequence[float] = (0.005, 0.01, 0.05), **settings: Any) -> None:
        super().__init__(output_dir, **settings)
        if list(size_edges) != sorted(set(size_edges)) or not all(0 < edge < 1 for edge in size_edges):
            raise ConfigError(
                f"size_edges is {list(size_edges)}; expected ascending shares such as [0.005, 0.01, 0.05]"
            )
        self.size_edges = tuple(size_edges)

    def _collect(self, engine: Any) -> None:
        before = len(self._rows)
        super()._collect(engine)
        for row, item, given in zip(self._rows[before:], engine.state.output, engine.state.batch, strict=True):
            pred, label = (item[key][self.channel].detach().cpu()[None] for key in ("pred", "label"))
            # no distance, and not 0, where both are empty: these images would make the mean look better
            is_empty = row["truth_area_px"] == 0 or row["pred_area_px"] == 0
            row["hd_px"] = None if is_empty else float(hausdorff(pred, label))
            row["assd_px"] = None if is_empty else float(average_surface_distance(pred, label))
            if "dataset" in given:
                row["dataset"] = str(given["dataset"])

    def _write(self, rows: list[dict[str, Any]], summary: dict[str, Any]) -> None:
        super()._write(rows, summary)
        self._write_table(
            "by_target_size.csv", "target share of the image", group_by_target_size(rows, self.size_edges)
        )
        if all("dataset" in row for row in rows):
            names = sorted({row["dataset"] for row in rows})
            groups = {name: [row for row in rows if row["dataset"] == name] for name in names}
            self._write_table("by_dataset.csv", "dataset", groups)

    def _write_table(self, filename: str, title: str, groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        table = table_of_groups(groups)
        for name, scores in table.items():
            shown = "none" if scores["dice"] is None else f"{scores['dice']:.4f}"
            _LOGGER.info("%s %s: %d images, mean Dice %s", title, name, scores["images"], shown)
        write_text(self.output_dir / filename, as_csv({title: name, **scores} for name, scores in table.items()))


def group_by_target_size(
    rows: Sequence[Mapping[str, Any]], edges: Sequence[float] = (0.005, 0.01, 0.05)
) -> dict[str, list[Mapping[str, Any]]]:
    """Divide images by the share of the image that the true target covers.

    Args:
        rows: of ``msrf_monai.engines.case_row``.
        edges: ascending shares in (0, 1); an image whose share is an edge belongs to the group above it.

    Returns:
        The rows of each group by its name, from the smallest targets to the largest; first those without a target,
        when there are any.
    """
    bounds = [0.0, *edges]
    between = [f"{100 * low:g} - {100 * high:g} %" for low, high in pairwise(edges)]
    kinds = [f"< {100 * edges[0]:g} %", *between, f">= {100 * edges[-1]:g} %"]
    groups: dict[str, list[Mapping[str, Any]]] = {kind: [] for kind in kinds}
    empty: list[Mapping[str, Any]] = []
    for row in rows:
        share = row["truth_area_px"] / sum(row[count] for count in ("tp", "fp", "fn", "tn"))
        if share == 0:
            empty.append(row)
        else:
            groups[kinds[int(np.searchsorted(bounds, share, side="right")) - 1]].append(row)
    return ({_EMPTY: empty} if empty else {}) | groups


def table_of_groups(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, float | int | None]]:
    """Average the scores of each group's images.

    Args:
        groups: rows by name of the group.

    Returns:
        For each group the number of ``images`` and, of each score, the mean and the standard deviation (``…_std``) of
        the images that have it; None where there is none, and the deviation of one image is 0. ``dice`` is the F1 of
        an image.
    """
    return {name: _averages(rows) for name, rows in groups.items()}


def _averages(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | int | None]:
    averages: dict[str, float | int | None] = {"images": len(rows)}
    for score in _SCORES:
        values = np.array([row[score] for row in rows if row.get(score) is not None], dtype=np.float64)
        deviation = values.std(ddof=1) if len(values) > 1 else 0.0
        averages[score] = round(float(values.mean()), 6) if len(values) else None
        averages[f"{score}_std"] = round(float(deviation), 6) if len(values) else None
    return averages
