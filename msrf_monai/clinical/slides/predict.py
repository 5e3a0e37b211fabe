"""Predict a slide band by band: windows in, blended probabilities, class numbers out, whatever the slide's height."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.slides.ahead import read_ahead
from msrf_monai.clinical.slides.blend import RowBlender, window_weights
from msrf_monai.clinical.slides.grid import SlideGrid
from msrf_monai.clinical.slides.reading import Slide
from msrf_monai.clinical.slides.resample import read_grid
from msrf_monai.clinical.slides.sinks import MaskSink
from msrf_monai.clinical.slides.tiles import TileOptions, TilePlan, plan_tiles
from msrf_monai.clinical.writing import Written
from msrf_monai.errors import InputError

__all__ = ["RunTiles", "SlideResult", "decide", "predict_slide"]

RunTiles = Callable[[npt.NDArray[np.uint8]], Any]
"""RGB windows ``(B, H, W, 3)`` uint8 to probabilities of the foreground classes ``(B, K, H, W)`` float32."""

Progress = Callable[[int, int], None]
"""Gets the number of windows that are done and of all."""

_MOST_CLASSES = 255


@dataclass(frozen=True)
class SlideResult:
    """What became of a slide."""

    grid: SlideGrid
    """The pixels that the mask is on."""
    windows: int
    """Windows of the plan."""
    skipped: int
    """Those that showed nothing but glass."""
    pixels: tuple[int, ...]
    """Pixels of class 1, 2, …."""
    areas_mm2: tuple[float, ...] | None
    """The same in mm²; None when the slide does not tell its resolution."""
    confidence: float | None
    """Mean over the predicted pixels of the largest probability, background among them; None when all was glass."""
    seconds: float
    """Time in the network."""
    written: tuple[Written, ...]
    notes: tuple[str, ...] = ()
    """Of the slide and of the plan."""


def predict_slide(
    slide: Slide,
    run_tiles: RunTiles,
    sink: MaskSink,
    options: TileOptions | None = None,
    *,
    progress: Progress | None = None,
) -> SlideResult:
    """Predict a whole slide and write its mask while doing so.

    The slide is read by a thread of its own, a few windows ahead. At any time one band of windows is held: the
    probabilities over the slide's width and a window's height, and the stored tiles under it.

    Args:
        slide: the slide.
        run_tiles: the network with everything around it.
        sink: what the mask becomes; it is finished when all went well, and aborted when anything did not.
        options: resolution, windows and blending; default ``TileOptions()``.
        progress: called after each batch.

    Returns:
        Areas, counts and what was written.

    Raises:
        ConfigError: when options contradict each other.
        InputError: when the slide has no such resolution, or the network gives something else than probabilities.
        RefusedInput: when a tile is damaged, or the slide changed while it was read.
        StorageError: when a result cannot be written.
    """
    options = options or TileOptions()
    plan = plan_tiles(slide, options)
    slide.cache_bytes = _band_bytes(slide, plan)
    run = _Run(slide, plan, run_tiles, sink, options, progress)
    try:
        sink.begin(plan.grid)
        run.all_rows()
        slide.check_unchanged()
        written = sink.finish()
    except BaseException:
        sink.abort()
        raise
    pixels = tuple(int(count) for count in run.counts)
    area = plan.grid.pixel_mm2
    return SlideResult(
        grid=plan.grid,
        windows=plan.kept.size,
        skipped=plan.skipped,
        pixels=pixels,
        areas_mm2=None if area is None else tuple(count * area for count in pixels),
        confidence=run.certainty / run.covered if run.covered else None,
        seconds=run.seconds,
        written=written,
        notes=(*slide.info.notes, *plan.notes),
    )


def decide(
    probabilities: npt.NDArray[np.float32], threshold: float | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Turn probabilities of the foreground classes into class numbers.

    Args:
        probabilities: ``(K, h, w)`` in [0, 1]; what is missing to 1 is the background's.
        threshold: probability from which the most probable class is taken; None for 0.5 with one class and for more
            than the background's with several.

    Returns:
        ``(h, w)`` class numbers, 0 for background; and the largest probability, background's among them.
    """
    if len(probabilities) == 1:
        (only,) = probabilities
        is_there = only >= np.float32(0.5 if threshold is None else threshold)
        return is_there.view(np.uint8), np.maximum(only, 1 - only)
    best = probabilities.max(axis=0)
    background = np.clip(1 - probabilities.sum(axis=0), 0, 1)
    is_there = best > background if threshold is None else best >= np.float32(threshold)
    mask = np.where(is_there, probabilities.argmax(axis=0) + 1, 0).astype(np.uint8)
    return mask, np.maximum(best, background)


class _Run:
    """The state of one prediction."""

    def __init__(
        self,
        slide: Slide,
        plan: TilePlan,
        run_tiles: RunTiles,
        sink: MaskSink,
        options: TileOptions,
        progress: Progress | None,
    ) -> None:
        self._slide = slide
        self._plan = plan
        self._run_tiles = run_tiles
        self._sink = sink
        self._options = options
        self._progress = progress
        self._done = 0
        self.classes = 0
        weights = window_weights(plan.tile, options.blend, options.sigma_scale)
        self._blender = RowBlender((plan.grid.rows, plan.grid.columns), plan.tile, weights, options.halo)
        self.counts = np.zeros(0, dtype=np.int64)
        self.certainty = 0.0
        self.covered = 0
        self.seconds = 0.0

    def all_rows(self) -> None:
        """Predict every window and give every row to the sink."""
        total = self._plan.kept.size - self._plan.skipped
        with read_ahead(self._batches()) as batches:
            for index, lefts, windows in batches:
                if windows is None:
                    self._leave(index + 1)
                    continue
                top = self._plan.tops[index]
                for left, prediction in zip(lefts, self._predicted(windows), strict=True):
                    self._blender.add(top, left, prediction)
                self._done += len(lefts)
                if self._progress is not None:
                    self._progress(self._done, total)

    def _batches(self) -> Iterator[tuple[int, list[int], npt.NDArray[np.uint8] | None]]:
        """Yield the windows of each row in batches, and None behind the last one of a row."""
        for index, (top, lefts) in enumerate(self._plan.rows()):
            for first in range(0, len(lefts), self._options.batch):
                chosen = lefts[first : first + self._options.batch]
                yield index, chosen, np.stack([self._window(top, left) for left in chosen])
            yield index, [], None

    def _window(self, top: int, left: int) -> npt.NDArray[np.uint8]:
        return read_grid(self._slide, self._plan.grid, top, left, *self._plan.tile)

    def _predicted(self, windows: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        started = time.perf_counter()
        given = np.asarray(self._run_tiles(windows))
        self.seconds += time.perf_counter() - started
        classes = given.shape[1] if given.ndim == 4 else 0
        wanted = (len(windows), self.classes or classes, *self._plan.tile)
        if given.shape != wanted or not 1 <= classes <= _MOST_CLASSES or given.dtype.kind != "f":
            raise InputError(
                f"the network gave {given.shape} {given.dtype} for {windows.shape} windows; probabilities "
                f"(B, K, H, W) of the same B, H and W, and of as many classes each time, were expected"
            )
        # a comparison with NaN is False
        if not (given.min() >= -1e-6 and given.max() <= 1 + 1e-6):
            raise InputError("the network gave values outside of 0..1, or none that are numbers; give probabilities")
        if not self.classes:
            self.classes, self.counts = classes, np.zeros(classes, dtype=np.int64)
        return given.astype(np.float32, copy=False)

    def _leave(self, next_row: int) -> None:
        """Give the sink the rows that no later window reaches."""
        height, width = self._plan.grid.rows, self._plan.grid.columns
        end = self._plan.tops[next_row] if next_row < len(self._plan.tops) else height
        rows = np.zeros((end - self._blender.top, width), dtype=np.uint8)
        for first, means, covered in self._blender.leave(end):
            mask, certainty = decide(means, self._options.threshold)
            if not covered.all():
                mask, certainty = mask * covered, certainty * covered
            rows[:, first : first + mask.shape[1]] = mask
            self.counts += [int(np.count_nonzero(mask == number)) for number in range(1, self.classes + 1)]
            # sums of rows in float32 are exact enough, sums of them in float64
            self.certainty += float(certainty.sum(axis=1).sum(dtype=np.float64))
            self.covered += int(np.count_nonzero(covered))
        self._sink.write(rows)


def _band_bytes(slide: Slide, plan: TilePlan) -> int:
    """Return what the stored tiles under one row of windows need, so that each is decoded once."""
    level = slide.info.levels[plan.grid.level]
    down, across = level.grid
    reached = int(plan.tile[0] * plan.grid.factors[0]) // level.tile_rows + 2
    return min(reached, down) * across * level.tile_rows * level.tile_columns * 3
