"""Whole slides in a run: windows through the bundle's own chain, the mask written band by band."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.case import Case, ImageInfo
from msrf_monai.clinical.execution.roles import SupportsPrediction, Written
from msrf_monai.clinical.ledger import OutputRecord
from msrf_monai.clinical.outputs import DEFAULT_OUTPUTS
from msrf_monai.clinical.quality import QualityLimits
from msrf_monai.clinical.run_options import RunOptions
from msrf_monai.clinical.slides import (
    MaskSink,
    PyramidSink,
    SegmentationSink,
    SinkGroup,
    Slide,
    SlideResult,
    TileOptions,
    predict_slide,
)
from msrf_monai.clinical.writing import Identity, Producer, Segment
from msrf_monai.errors import ConfigError, InputError
from msrf_monai.files import sha256_of, write_bytes

__all__ = ["SlideWriter", "WindowNetwork", "tile_options"]

_WRITTEN = ("mask", "seg", "labelmap", "stats")


def tile_options(metadata: Mapping[str, Any], threshold: float | None) -> TileOptions:
    """Read how a bundle wants slides cut into windows.

    Args:
        metadata: the parsed metadata.json; its ``slide_tiles``, when there, names fields of ``TileOptions``, such as
            ``{"tile": [512, 512], "mpp": 0.5}``. Without it, windows of 512 x 512 of the finest level.
        threshold: of the predictor.

    Raises:
        ConfigError: when it names a field that there is not.
    """
    given = metadata.get("slide_tiles") or {}
    known = [each.name for each in fields(TileOptions) if each.name != "threshold"]
    if not isinstance(given, Mapping) or set(given) - set(known):
        raise ConfigError(f"slide_tiles in metadata.json may hold {', '.join(known)}; got {given!r}")
    return TileOptions(**{**given, "tile": tuple(given.get("tile", (512, 512)))}, threshold=threshold)


class WindowNetwork:
    """A predictor as what a slide needs: RGB windows to probabilities.

    Args:
        predictor: a ``Predictor`` is made to keep its probabilities.
    """

    def __init__(self, predictor: SupportsPrediction) -> None:
        self._predictor = _keeping_probabilities(predictor)

    def __call__(self, windows: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return probabilities ``(B, K, H, W)`` for windows ``(B, H, W, 3)``."""
        return np.stack([self._one(window) for window in windows])

    def _one(self, window: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        rows, columns = window.shape[:2]
        info = ImageInfo("raster", rows, columns, samples=3, photometric="RGB", white=255.0)
        case = Case("", (), info, _Window(window))
        item = self._predictor.infer(self._predictor.prepare(case, 0))
        maps = self._predictor.finish([item]).probabilities
        if maps is None:
            raise InputError("the predictor keeps no probabilities, which windows of a slide are blended by")
        return np.asarray(maps[0], dtype=np.float32)


def _keeping_probabilities(predictor: Any) -> Any:
    options = getattr(predictor, "options", None)
    if not is_dataclass(predictor) or not is_dataclass(options):
        return predictor
    return replace(predictor, options=replace(options, keep_probabilities=True, check_flips=False))  # type: ignore[type-var]


@dataclass(frozen=True)
class _Window:
    """Pixels that have been read already."""

    pixels: npt.NDArray[np.uint8]

    def frame(self, index: int) -> npt.NDArray[Any]:
        """Return the window; see ``Case.frame``."""
        return self.pixels.copy()


class SlideWriter:
    """Predicts a slide and writes its mask while doing so, in the thread of the network.

    Args:
        predictor: with ``segments``, ``threshold``, ``metadata`` and what names it.
        settings: of the run.
    """

    def __init__(self, predictor: Any, settings: RunOptions) -> None:
        self._predictor = predictor
        self._settings = settings

    def __call__(self, slide: Slide, digest: str, folder: Path) -> Written:
        """Write everything of one slide into ``folder``.

        Args:
            slide: the slide, open.
            digest: of its files.
            folder: for its results; made already.

        Raises:
            MsrfError: as ``predict_slide``.
        """
        predictor, wanted = self._predictor, set(self._settings.outputs)
        producer = Producer(predictor.name, predictor.version or "0", model_digest=predictor.model_digest)
        identity = (Identity.repeatable if self._settings.repeatable_uids else Identity.fresh)(producer)
        sinks: list[tuple[str, MaskSink]] = []
        if "mask" in wanted:
            sinks.append(("mask", PyramidSink(folder / "mask.ome.tif")))
        if wanted & {"seg", "labelmap"} and slide.info.kind == "dicom-wsi":
            kind = "seg" if "seg" in wanted else "labelmap"
            sinks.append((kind, SegmentationSink(folder / "seg.dcm", slide, predictor.segments, identity)))
        options = tile_options(predictor.metadata, predictor.threshold)
        found = predict_slide(slide, WindowNetwork(predictor), SinkGroup([sink for _, sink in sinks]), options)
        outputs = [
            OutputRecord(kind, each.path.name, each.sha256, each.path.stat().st_size)
            for (kind, _), each in zip(sinks, found.written, strict=True)
        ]
        if "stats" in wanted:
            outputs.append(_areas(folder / "areas.json", found, predictor.segments, digest))
        return Written(tuple(outputs), self._flags(found, {kind for kind, _ in sinks} | {"stats"}))

    def _flags(self, found: SlideResult, written: set[str]) -> tuple[str, ...]:
        flags = list(found.notes)
        limits = QualityLimits.from_metadata(self._predictor.metadata)
        if not any(found.pixels):
            flags.append("empty_mask")
        if found.confidence is not None and found.confidence < limits.low_confidence:
            flags.append("low_confidence")
        if set(self._settings.outputs) != set(DEFAULT_OUTPUTS):
            flags += [f"not_written:{kind}" for kind in self._settings.outputs if kind not in written]
        return tuple(flags)


def _areas(path: Path, found: SlideResult, segments: tuple[Segment, ...], digest: str) -> OutputRecord:
    areas = found.areas_mm2 or (None,) * len(found.pixels)
    record = {
        "rows": found.grid.rows,
        "columns": found.grid.columns,
        "segments": [
            {"number": segment.number, "label": segment.label, "pixels": pixels, "area_mm2": area}
            for segment, pixels, area in zip(segments, found.pixels, areas, strict=False)
        ],
        "windows": found.windows,
        "windows_of_glass": found.skipped,
        "confidence": found.confidence,
        "input_sha256": digest,
    }
    content = (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()
    write_bytes(path, content)
    if sha256_of(path) != hashlib.sha256(content).hexdigest():
        raise InputError("the areas came back from the disk changed; check the disk, then run again")
    return OutputRecord("areas", path.name, sha256_of(path), len(content))
