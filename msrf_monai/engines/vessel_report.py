"""The report of an evaluation of retinal vessels: two protocols side by side, calibration, and coloured pictures."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from torch import Tensor

from msrf_monai.engines.best import versions
from msrf_monai.engines.cases import UNKNOWN_FILE, case_names
from msrf_monai.engines.report_parts import EvaluationHandler, absolute_folder, absolute_path, as_csv, names_to_show
from msrf_monai.engines.vessel_report_cases import (
    PixelCounts,
    VesselMaps,
    about_fov,
    evaluated_items,
    protocols_for,
    score_case,
)
from msrf_monai.engines.vessel_report_overlay import (
    background_picture,
    draw_vessel_overlay,
    with_legend,
)
from msrf_monai.engines.vessel_report_page import contact_sheet, draw_reliability, render_page
from msrf_monai.engines.vessel_report_tables import (
    case_table,
    report_notes,
    row_of,
    score_table,
    summarise_vessels,
)
from msrf_monai.engines.vessel_report_threshold import ChooseThreshold, read_threshold
from msrf_monai.errors import ConfigError, DataError, MsrfError
from msrf_monai.files import write_bytes, write_text
from msrf_monai.json_files import write_json
from msrf_monai.optional import require
from msrf_monai.transforms import SafeFolderLayout
from msrf_monai.transforms.encode import encode_png

__all__ = ["VesselReport"]

_LOGGER = logging.getLogger(__name__)
_PLANES = {"probability": "the probability", "label": "the mask", "fov": "the field of view", "label2": "label2"}


class VesselReport(EvaluationHandler):
    """Write ``cases.csv``, ``tables.csv``, ``summary.json``, ``report.html`` and pictures when an evaluation ends.

    Attach it to an evaluator whose items have, all in one geometry, ``"probability"`` (K, X, Y) in [0, 1], ``"label"``
    and, where there are any, ``"fov"`` (field of view) and ``"label2"`` (the second observer's mask). Masks are decided
    here, at the chosen threshold and at 0.5, so that ``"pred"`` is not looked at.

    The primary protocol counts pixels inside the field of view; the legacy one counts whole images at 0.5. The primary
    pooled scores are put among the engine's metrics as ``pooled_f1``, …, and the means over images as ``mean_f1``, ….
    Each image is scored once, also when several processes share the work or a sampler repeats images. Pictures, one a
    source image in its full size, go into ``overlays``, which are written as the images come.

    Args:
        output_dir: folder of the files.
        dataset_dir: files inside this folder are named relative to it, others by their name and as many folders as tell
            them apart; the title of the page is the data set's name.
        threshold: a number; the path of a file that ``ChooseThreshold`` wrote, read when the evaluation begins; or the
            ``ChooseThreshold`` itself. It must not have been chosen on the images that are evaluated.
        topology: whether to score clDice and Betti errors, which take most of the time.
        overlays: whether to write the pictures.
        pictures: of the contact sheet on the page, at most.
        channel: channel (K, X, Y) of probability and masks that is scored.
        confidence: of the intervals.
        samples: resamples of the bootstrap.
        seed: seed of the bootstrap.

    Raises:
        ConfigError: when a number is out of range.
        MissingExtraError: when matplotlib, Jinja2 or, for the topology, scikit-image is missing.
    """

    def __init__(
        self,
        output_dir: str,
        *,
        dataset_dir: str | None = None,
        threshold: float | str | os.PathLike[str] | ChooseThreshold = 0.5,
        topology: bool = True,
        overlays: bool = True,
        pictures: int = 24,
        channel: int = 0,
        confidence: float = 0.95,
        samples: int = 2000,
        seed: int = 0,
    ) -> None:
        if not 0 < confidence < 1 or samples < 1 or pictures < 0:
            raise ConfigError(
                f"expected confidence in (0, 1), samples of 1 or more, pictures of 0 or more: "
                f"{confidence}, {samples}, {pictures}"
            )
        if isinstance(threshold, (int, float)) and not 0 <= threshold <= 1:
            raise ConfigError(f"threshold is {threshold}; expected a probability in [0, 1], or the path of a file")
        for module in ("matplotlib.figure", "jinja2", *(["skimage.morphology"] if topology else [])):
            require(module, "train")  # now, and not after the evaluation
        self.output_dir = Path(output_dir)
        self.dataset_dir = absolute_folder(dataset_dir)
        self.threshold = threshold
        self.topology = topology
        self.overlays = overlays
        self.pictures = pictures
        self.channel = channel
        self.settings: dict[str, Any] = {"confidence": confidence, "samples": samples, "seed": seed}
        self._layout = SafeFolderLayout(self.output_dir / "overlays", "vessels", ".png", self.dataset_dir or "")
        self._value = 0.5
        self._source = ""
        self._cases: list[dict[str, Any]] = []
        self._pixels: list[PixelCounts] = []

    def __call__(self, engine: Any) -> None:
        """Gather the rows of all processes, write the files and set the metrics.

        Raises:
            InputError: when no image was evaluated.
            StorageError: when a file cannot be written.
        """
        cases, pixels = self._gathered()
        self._cases, self._pixels = [], []
        cases = self._named(cases)
        has_observer = any(row["protocol"] == "fov_observer" for case in cases for row in case["rows"])
        protocols = protocols_for(self._value, has_observer=has_observer, topology=self.topology)
        summary = {
            "dataset": _dataset_name(self.dataset_dir),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "threshold": self._value,
            "threshold_source": self._source,
            **summarise_vessels(cases, pixels, protocols, **self.settings),
            "notes": report_notes(cases, has_observer=has_observer),
            "versions": versions(),
        }
        summary["pictures"] = _ranked_pictures(cases, summary)
        primary = summary["protocols"][summary["primary"]]
        means = {f"mean_{name}": found["mean"] for name, found in primary["per_image"].items()}
        metrics = {f"pooled_{name}": value for name, value in primary["pooled"].items()} | means
        engine.state.metrics.update({name: value for name, value in metrics.items() if value is not None})
        if idist.get_rank() == 0:
            self._write(cases, summary)

    def _begin(self) -> None:
        self._cases, self._pixels = [], []
        if isinstance(self.threshold, ChooseThreshold):
            if self.threshold.value is None:
                raise ConfigError("the threshold is not chosen yet: run the evaluator of the validation images first")
            self._value, self._source = self.threshold.value, "chosen on validation images"
        elif isinstance(self.threshold, (int, float)):
            self._value, self._source = float(self.threshold), "given"
        else:
            self._value, self._source = read_threshold(self.threshold), "chosen on validation images"

    def _collect(self, engine: Any) -> None:
        known = {case["path"] for case in self._cases} - {UNKNOWN_FILE}
        for item, name in zip(evaluated_items(engine), case_names(engine.state.batch), strict=True):
            path = absolute_path(name)
            if path in known:
                continue
            known |= {path} - {UNKNOWN_FILE}
            maps = self._maps(item, path)
            try:
                rows = score_case(maps, protocols_for(self._value, has_observer=True, topology=self.topology))
                self._pixels.append(PixelCounts.of(maps))
            except MsrfError as error:
                raise DataError(f"{path}: cannot be scored: {error}") from error
            case = {"path": path, "rows": rows, "overlay": None, **about_fov(maps)}
            if self.overlays:
                case |= self._draw(item, maps, path, rows[0])
            self._cases.append(case)

    def _maps(self, item: Mapping[str, Any], path: str) -> VesselMaps:
        missing = [key for key in ("probability", "label") if item.get(key) is None]
        if missing:
            raise DataError(
                f"{path}: the evaluator's output has no {missing[0]!r} for it; the post-processing must keep the "
                "probability and the mask beside the decision"
            )
        found: dict[str, Tensor] = {}
        for key in _PLANES:
            if item.get(key) is not None:
                planes = item[key]
                found[key] = (
                    planes[self.channel if planes.shape[0] > self.channel else 0].detach().cpu().as_subclass(Tensor)
                )
        shapes = {key: tuple(plane.shape) for key, plane in found.items()}
        if len(set(shapes.values())) > 1:
            sizes = ", ".join(f"{_PLANES[key]} {shape}" for key, shape in shapes.items())
            raise DataError(f"{path}: the maps have different shapes ({sizes}); restore them to one geometry first")
        return VesselMaps(found["probability"].float(), found["label"], found.get("fov"), found.get("label2"))

    def _draw(self, item: Mapping[str, Any], maps: VesselMaps, path: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """Write the picture of one image, and return where it is and how high without its legend."""
        # MONAI's axes are (columns, rows), the picture's are (rows, columns): hence the transpositions.
        label, pred = (mask.T.bool().numpy() for mask in (maps.label, maps.probability >= self._value))
        fov = None if maps.fov is None else maps.fov.T.bool().numpy()
        picture = background_picture(path, item.get("image"), label.shape)
        drawn = draw_vessel_overlay(picture, pred, label, fov)
        score = "–" if row["f1"] is None else f"{row['f1']:.4f}"
        subject = path if path != UNKNOWN_FILE else f"unknown-{idist.get_rank()}-{len(self._cases):05d}.png"
        target = self._layout.filename(subject=subject)
        whole = with_legend(drawn, f"{Path(subject).name}: F1 {score} at {self._value:.3g}")
        write_bytes(target, encode_png(np.ascontiguousarray(whole)))
        return {"overlay": Path(target).relative_to(self.output_dir).as_posix(), "height": drawn.shape[0]}

    def _gathered(self) -> tuple[list[dict[str, Any]], PixelCounts]:
        """Return cases and pixels of all processes, each image once."""
        total = PixelCounts.none()
        if idist.get_world_size() == 1:
            return self._cases, sum(self._pixels, total)
        gathered: Any = idist.all_gather(json.dumps(self._cases))
        shares = [json.loads(share) for share in gathered]
        rank = idist.get_rank()
        before = {case["path"] for share in shares[:rank] for case in share} - {UNKNOWN_FILE}
        for case, pixels in zip(self._cases, self._pixels, strict=True):
            total += PixelCounts.none() if case["path"] in before else pixels
        levels, bins = (_summed(counts) for counts in (total.levels, total.bins))
        cases, seen = [], set()
        for case in (case for share in shares for case in share):
            if case["path"] == UNKNOWN_FILE or case["path"] not in seen:
                cases.append(case)
            seen.add(case["path"])
        return cases, PixelCounts(levels, bins)

    def _named(self, cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Put a name to show beside the path, and sort by it."""
        shown = names_to_show({case["path"] for case in cases}, self.dataset_dir)
        return sorted(({**case, "file": shown[case["path"]]} for case in cases), key=lambda case: str(case["file"]))

    def _write(self, cases: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
        rows = [{"file": case["file"], "row": row_of(case, summary["primary"])} for case in cases]
        row_by_file = {each["file"]: each["row"] for each in rows}
        sheet = contact_sheet(self.output_dir, summary["pictures"], self.pictures, rows=row_by_file)
        reliability = draw_reliability(summary["calibration"])
        page = render_page(summary, rows, sheet, reliability=reliability)
        write_text(self.output_dir / "cases.csv", as_csv(case_table(cases)))
        write_text(self.output_dir / "tables.csv", as_csv(score_table(summary)))
        write_bytes(self.output_dir / "reliability.png", reliability)
        write_json(self.output_dir / "summary.json", summary)
        write_text(self.output_dir / "report.html", page)
        pooled = summary["protocols"][summary["primary"]]["pooled"]
        numbers = ", ".join(f"{name} {pooled[name]:.4f}" for name in ("f1", "auc_roc") if pooled[name] is not None)
        _LOGGER.info("%d images: pooled %s; see %s", summary["images"], numbers, self.output_dir / "report.html")


def _ranked_pictures(cases: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return where the pictures are, from the lowest primary F1 to the highest."""
    rows = [(row_of(case, summary["primary"])["f1"], case) for case in cases if case["overlay"] is not None]
    rows.sort(key=lambda each: (-1.0 if each[0] is None else each[0], each[1]["file"]))
    return [{"file": case["file"], "f1": f1, "overlay": case["overlay"], "height": case["height"]} for f1, case in rows]


def _dataset_name(folder: Path | None) -> str:
    try:
        name = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["name"] if folder else None
    except (OSError, ValueError, KeyError, TypeError):
        name = None
    return str(name) if name else (folder.name if folder else "evaluation")


def _summed(counts: Tensor) -> Tensor:
    total: Any = idist.all_reduce(counts.to(idist.device()))
    return total.cpu()  # type: ignore[no-any-return]
