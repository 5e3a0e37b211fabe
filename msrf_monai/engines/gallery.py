"""A page of validation images with the true and the predicted outline."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Events
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from msrf_monai.engines.cases import case_names
from msrf_monai.errors import ConfigError
from msrf_monai.files import atomic_write
from msrf_monai.metrics import confusion, dice

__all__ = ["GalleryCase", "PredictionGallery", "draw_gallery"]

_LOGGER = logging.getLogger(__name__)
_TRUTH_COLOUR = (0, 230, 64)
_PREDICTION_COLOUR = (255, 196, 0)
_MARGIN_PX = 6
_CAPTION_PX = 34
_HEADER_PX = 28
_FAILURES = "failures.png"


@dataclass(frozen=True)
class GalleryCase:
    """One image of the gallery.

    Args:
        name: what to call it, without folders.
        score: its Dice score.
        picture: uint8 RGB, (rows, columns, 3).
        truth: boolean, (rows, columns).
        prediction: boolean, (rows, columns).
    """

    name: str
    score: float
    picture: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    prediction: NDArray[np.bool_]


def draw_gallery(cases: Sequence[GalleryCase], path: str | Path, *, columns: int = 4, size_px: int = 256) -> None:
    """Draw images with outlines and scores into one PNG file.

    Args:
        cases: the images in the order in which they appear, at least one.
        path: the file to write.
        columns: number of images in a row.
        size_px: side of the square into which each image is fitted.

    Raises:
        ConfigError: when there is no image, or columns or size cannot be.
        StorageError: when the file cannot be written.
    """
    if not cases or columns < 1 or size_px < 16:
        raise ConfigError(
            f"a gallery needs images, columns and a size of 16 or more: {len(cases)}, {columns}, {size_px}"
        )
    columns = min(columns, len(cases))
    rows = -(-len(cases) // columns)
    cell = (size_px + 2 * _MARGIN_PX, size_px + _CAPTION_PX + _MARGIN_PX)
    page = Image.new("RGB", (max(cell[0] * columns, 300), cell[1] * rows + _HEADER_PX), (24, 24, 24))
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=13)
    draw.text((_MARGIN_PX, 6), "green: truth", fill=_TRUTH_COLOUR, font=font)
    draw.text((_MARGIN_PX + 100, 6), "yellow: prediction", fill=_PREDICTION_COLOUR, font=font)
    for index, case in enumerate(cases):
        left = (index % columns) * cell[0] + _MARGIN_PX
        top = (index // columns) * cell[1] + _HEADER_PX
        tile = _tile(case, size_px)
        page.paste(tile, (left + (size_px - tile.width) // 2, top + (size_px - tile.height) // 2))
        draw.text((left, top + size_px + 2), f"Dice {case.score:.3f}", fill=(255, 255, 255), font=font)
        draw.text((left, top + size_px + 17), _shortened(case.name, size_px // 7), fill=(170, 170, 170), font=font)
    with atomic_write(path) as handle:
        page.save(handle, format="PNG")


def _tile(case: GalleryCase, size_px: int) -> Image.Image:
    rows, columns = case.truth.shape
    scale = size_px / max(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))  # OpenCV takes width before height
    picture = cv2.resize(case.picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    for mask, colour in ((case.truth, _TRUTH_COLOUR), (case.prediction, _PREDICTION_COLOUR)):
        enlarged = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(enlarged, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, colour, 1, cv2.LINE_8)
    return Image.fromarray(picture)


def _shortened(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


class PredictionGallery:
    """Draw ``gallery.png`` from the best validation so far: its worst, middle and best images; its failures on request.

    Attach it to the evaluator. In training the picture is drawn anew whenever a validation is the best so far (so it
    is there after a crash and after an early stop), in a lone evaluation always. In distributed runs it shows images of
    the first process.

    Args:
        output_dir: folder of the picture.
        count: number of images, spread evenly from the worst Dice to the best.
        columns: number of images in a row.
        size_px: side of the square into which each image is fitted.
        channel: channel of prediction and truth that is drawn.
        max_cases: number of validation images, from the first, among which the picture's are chosen; each keeps at
            most 20 * size_px**2 bytes (1.3 MB) in memory until the epoch ends.
        filename: name of the picture.
        failures: number of images with the lowest Dice of all that ``failures.png`` in the same folder shows, worst
            first; 0: no such file.
    """

    def __init__(
        self,
        output_dir: str,
        *,
        count: int = 12,
        columns: int = 4,
        size_px: int = 256,
        channel: int = 0,
        max_cases: int = 200,
        filename: str = "gallery.png",
        failures: int = 0,
    ) -> None:
        if min(count, columns, max_cases) < 1 or failures < 0 or size_px < 16:
            raise ConfigError(
                "a gallery needs count, columns and max_cases of 1 or more, failures of 0 or more "
                "and size_px of 16 or more"
            )
        if failures and filename == _FAILURES:
            raise ConfigError(f"filename {filename!r} is the name of the picture of failures; choose another one")
        self.path = Path(output_dir) / filename
        self.count = count
        self.columns = columns
        self.size_px = size_px
        self.channel = channel
        self.max_cases = max_cases
        self.failures = failures
        self._cases: list[GalleryCase] = []
        self._worst: list[GalleryCase] = []

    def attach(self, engine: Any) -> None:
        """Register with an evaluator whose post-processing decides the masks."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._forget)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Draw the picture when this validation is the best so far."""
        state = engine.state
        is_best = state.key_metric_name is None or state.best_metric_epoch == state.epoch
        if is_best and self._cases and idist.get_rank() == 0:
            ranked = sorted(self._cases, key=_from_the_worst)
            places = np.linspace(0, len(ranked) - 1, min(self.count, len(ranked))).round().astype(int)
            self._draw([ranked[i] for i in places], self.path)
            if self._worst:
                self._draw(self._worst, self.path.with_name(_FAILURES))
        self._forget()

    def _forget(self) -> None:
        self._cases.clear()
        self._worst.clear()

    def _draw(self, cases: list[GalleryCase], path: Path) -> None:
        draw_gallery(cases, path, columns=self.columns, size_px=self.size_px)
        _LOGGER.info("pictures of predictions: %s", path)

    def _collect(self, engine: Any) -> None:
        if idist.get_rank() != 0:
            return
        names = case_names(engine.state.batch)
        for item, name in zip(engine.state.output, names, strict=True):
            is_early = len(self._cases) < self.max_cases
            if not is_early and not self.failures:
                return
            case = self._case(item, Path(name).name)
            if is_early:
                self._cases.append(case)
            self._worst = heapq.nsmallest(self.failures, [*self._worst, case], key=_from_the_worst)

    def _case(self, item: dict[str, Tensor], name: str) -> GalleryCase:
        # MONAI's axes are (C, columns, rows), the picture's are (rows, columns): hence the transpositions.
        truth = item["label"][self.channel].as_subclass(Tensor).T.cpu() > 0.5
        prediction = item["pred"][self.channel].as_subclass(Tensor).T.cpu() > 0.5
        score = float(dice(confusion(prediction[None], truth[None])))
        picture = _picture(item["image"].as_subclass(Tensor).detach().float().cpu())
        step = max(1, max(truth.shape) // self.size_px)  # large images are thinned before they are kept
        return GalleryCase(
            name=name,
            score=score,
            picture=np.ascontiguousarray(picture[::step, ::step]),
            truth=truth.numpy()[::step, ::step],
            prediction=prediction.numpy()[::step, ::step],
        )


def _from_the_worst(case: GalleryCase) -> tuple[float, str]:
    return case.score, case.name


def _picture(image: Tensor) -> NDArray[np.uint8]:
    """Return (rows, columns, 3) uint8 of an image (C, columns, rows); a fourth channel, such as edges, is not shown."""
    colours = image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
    low, high = float(colours.min()), float(colours.max())
    if low < 0 or high > 1:  # standardised intensities: show their whole range
        colours = (colours - low) / max(high - low, 1e-6)
    picture: NDArray[np.uint8] = (colours * 255).round().to(torch.uint8).permute(2, 1, 0).numpy()
    return picture
