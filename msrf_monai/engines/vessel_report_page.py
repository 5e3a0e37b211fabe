"""The page of a vessel report: one HTML file that fetches nothing from elsewhere, and its reliability diagram."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from msrf_monai.engines.html_page import data_uri, render_template
from msrf_monai.engines.vessel_report_overlay import LEGEND, thumbnail_of
from msrf_monai.metrics import VESSEL_TOPOLOGY_SCORES
from msrf_monai.optional import require

__all__ = [
    "SCORE_TITLES",
    "SheetPicture",
    "contact_sheet",
    "draw_reliability",
    "render_page",
    "render_vessel_page",
    "score_text",
    "worth_showing",
]

SCORE_TITLES = {
    "f1": "F1 (Dice)",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "accuracy": "accuracy",
    "mcc": "MCC",
    "auc_roc": "AUC-ROC",
    "auc_pr": "AUC-PR",
    "ece": "ECE",
    "cldice": "clDice",
    "betti0_error": "β0 error",
    "betti1_error": "β1 error",
    "betti0_error_64": "β0, 64 px",
    "betti1_error_64": "β1, 64 px",
    "betti0_error_min20": "β0, ≥ 20 px",
    "betti1_error_min20": "β1, ≥ 20 px",
}
"""Scores in the order of the page's columns, and their titles."""

COUNTED = tuple(name for name in VESSEL_TOPOLOGY_SCORES if name != "cldice")
PIXEL_COLUMNS = tuple(name for name in SCORE_TITLES if name not in VESSEL_TOPOLOGY_SCORES)
_DPI = 110


@dataclass(frozen=True)
class SheetPicture:
    """One picture of the contact sheet.

    Attributes:
        file: what to call it.
        jpeg: the small picture.
        link: the large one, relative to the page; None where there is none.
        row: its scores by name under the primary protocol.
    """

    file: str
    jpeg: bytes
    link: str | None
    row: Mapping[str, Any]


def render_page(
    summary: Mapping[str, Any],
    cases: Sequence[Mapping[str, Any]],
    pictures: Sequence[SheetPicture],
    *,
    reliability: bytes,
) -> str:
    """Return the page.

    Args:
        summary: of ``summarise_vessels``, with ``dataset``, ``notes``, ``threshold_source`` and ``versions``.
        cases: ``file`` and ``row`` (of the primary protocol) of each image.
        pictures: of the contact sheet.
        reliability: the diagram of ``draw_reliability``.

    Raises:
        MissingExtraError: when Jinja2 is missing.
    """
    return render_vessel_page(
        "msrf_monai.engines",
        "vessel_report.html.j2",
        summary=summary,
        cases=cases,
        pictures=pictures,
        reliability=data_uri(reliability, "image/png"),
    )


def render_vessel_page(package: str, name: str, **values: Any) -> str:
    """Return a page of vessels: its template is given the legend, the titles and the columns of the scores, too.

    Args:
        package: the package that has the template.
        name: file of the template.
        **values: what the template shows.

    Raises:
        MissingExtraError: when Jinja2 is missing.
    """
    return render_template(
        package,
        name,
        {"score": score_text, "protocol": protocol_title, "jpeg": _jpeg, "link": quote},
        legend=LEGEND,
        titles=SCORE_TITLES,
        pixel_columns=PIXEL_COLUMNS,
        topology_columns=VESSEL_TOPOLOGY_SCORES,
        **values,
    )


def score_text(value: float | None, name: str = "f1") -> str:
    """Return a score as the page prints it: Betti errors with one digit, or three over patches; a dash for None."""
    if value is None:
        return "–"
    digits = 4 if name not in COUNTED else 3 if name.endswith("_64") else 1
    return f"{value:.{digits}f}"


def protocol_title(name: str, protocol: Mapping[str, Any]) -> str:
    """Return what the page calls a protocol."""
    if protocol["reader"] == "observer":
        return "second observer"
    chosen = " (chosen)" if name == "fov_chosen" else ""
    return f"model, threshold {protocol['threshold']:.3g}{chosen}"


def contact_sheet(
    folder: Path,
    pictures: Sequence[Mapping[str, Any]],
    most: int,
    *,
    rows: Mapping[str, Mapping[str, Any]] | None = None,
    linked_from: Path | None = None,
    longest_px: int = 460,
) -> list[SheetPicture]:
    """Return small pictures of a report, spread evenly from the worst to the best.

    Args:
        folder: folder of the report.
        pictures: ``pictures`` of its summary. Those that are not there are left out: another machine of a distributed
            evaluation may have written them where this one cannot read.
        most: number of pictures.
        rows: scores by file; None for the F1 alone.
        linked_from: folder of the page, inside which the report is; None for the report's own.
        longest_px: of the longer side of each picture.
    """
    drawn = [each for each in pictures if (folder / each["overlay"]).is_file()]
    sheet = []
    for place in worth_showing(len(drawn), most):
        each = drawn[place]
        path = folder / each["overlay"]
        with Image.open(path) as whole:
            overlay = np.asarray(whole.convert("RGB"))[: each["height"]]  # without the legend
        link = path.relative_to(folder if linked_from is None else linked_from).as_posix()
        row = {"f1": each["f1"]} if rows is None else rows[each["file"]]
        sheet.append(SheetPicture(each["file"], thumbnail_of(overlay, longest_px=longest_px), link, row))
    return sheet


def worth_showing(count: int, most: int) -> list[int]:
    """Return the places of at most ``most`` of ``count`` ranked pictures, spread evenly from the first to the last."""
    return sorted({int(place) for place in np.linspace(0, count - 1, min(count, most)).round()}) if count else []


def draw_reliability(calibration: Mapping[str, Any]) -> bytes:
    """Draw the reliability diagram and the number of pixels in each bin, as the bytes of a PNG file.

    Args:
        calibration: of ``summarise_vessels``.

    Raises:
        MissingExtraError: when matplotlib is missing.
    """
    figure = require("matplotlib.figure", "train").Figure(figsize=(5.2, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bins = [each for each in calibration["bins"] if each["pixels"]]
    said, seen = ([each[name] for each in bins] for name in ("mean_probability", "vessel_share"))
    upper.plot([0, 1], [0, 1], color="#777777", linewidth=1, linestyle="--", label="perfectly calibrated")
    upper.vlines(said, said, seen, color="#dd8452", linewidth=5, alpha=0.6, label="gap")
    upper.plot(said, seen, marker="o", color="#1f4e79", linewidth=1.6, label="model")
    upper.set(ylabel="share of vessel pixels", xlim=(0, 1), ylim=(0, 1), title="Reliability inside the field of view")
    ece = calibration["ece"]
    upper.text(0.97, 0.05, f"ECE {score_text(ece)}", ha="right", transform=upper.transAxes)
    upper.legend(loc="upper left", frameon=False, fontsize="small")
    upper.grid(alpha=0.3)
    width = bins[0]["to"] - bins[0]["from"] if bins else 1.0
    centres = [(each["from"] + each["to"]) / 2 for each in bins]
    lower.bar(centres, [each["pixels"] for each in bins], width=0.92 * width, color="#1f4e79")
    if bins:
        lower.set_yscale("log")
    lower.set(xlabel="predicted probability of a vessel", ylabel="pixels")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    return content.getvalue()


def _jpeg(content: bytes) -> str:
    return data_uri(content, "image/jpeg")
