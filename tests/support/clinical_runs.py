"""Runs of the clinical pipeline with a predictor that needs no network, and inputs that are small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.ledger import Entry, read_manifest
from msrf_monai.clinical.prediction import Prediction
from msrf_monai.clinical.writing import Segment

__all__ = [
    "PLANTED",
    "ThresholdPredictor",
    "entries_of",
    "good_pictures",
    "planted_words",
    "result_bytes",
    "run_in_process",
    "save_picture",
]


class ThresholdPredictor:
    """Marks every pixel that is brighter than 100; the confidence is always 0.9."""

    name = "threshold"
    version = "1.0"
    model_digest = "ab" * 32
    segments = (Segment(1, "bright"),)
    metadata: ClassVar[dict[str, Any]] = {}
    threshold = 0.5

    def prepare(self, case: Case, index: int) -> dict[Any, Any]:
        pixels = case.frame(index)
        return {"pixels": pixels if pixels.ndim == 2 else pixels.mean(axis=2)}

    def infer(self, item: dict[Any, Any]) -> dict[Any, Any]:
        return {"mask": (item["pixels"] > 100).astype(np.uint8)}

    def finish(self, items: Iterable[dict[Any, Any]]) -> Prediction:
        masks = np.stack([item["mask"] for item in items])
        return Prediction(masks, None, (0.9,) * len(masks), 0.0)


def save_picture(path: Path, seed: int = 0, size: tuple[int, int] = (24, 32)) -> Path:
    """Save a grey picture of rows x columns with a bright, asymmetric patch away from the border."""
    rows, columns = size
    pixels = np.random.default_rng(seed).integers(0, 90, size, dtype=np.uint8)
    pixels[4 : 6 + seed % (rows - 12), 5 : columns // 2] = 200
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def good_pictures(folder: Path, count: int) -> Path:
    """Save pictures that differ from each other."""
    for number in range(count):
        save_picture(folder / f"image{number:04}.png", number)
    return folder


def entries_of(output: Path) -> dict[str, Entry]:
    """Return the entries of a result folder by what people see of the input."""
    return {entry.input: entry for entry in read_manifest(output).entries}


def result_bytes(output: Path) -> dict[str, bytes]:
    """Return every result file, without what tells how the run went."""
    apart = {".lock", "manifest.jsonl", "sources.private.jsonl", "sources.hashed.jsonl", "sources.key"}
    files = [path for path in sorted(output.rglob("*")) if path.is_file() and path.name not in apart]
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def run_in_process(inputs: Path, output: Path, before: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the pipeline with the stand-in in a process of its own.

    Args:
        inputs: the input folder.
        output: the result folder.
        before: code that runs first, to break something or to end the process.
        options: of the run.
    """
    program = "\n".join(
        [
            "import json, os, signal, sys",
            "from pathlib import Path",
            "import msrf_monai.clinical.pipeline as pipeline",
            "from support.clinical_runs import ThresholdPredictor",
            before,
            "found = pipeline.predict(ThresholdPredictor(), sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))",
            "print(json.dumps(vars(found)))",
        ]
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    arguments = [sys.executable, "-c", program, str(inputs), str(output), json.dumps(options)]
    return subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)


PLANTED = ("SECRET", "Geheim", "19500131", "1950-01-31", "4711-0815", "2.25.777")
"""What names the patients of the fixture ``planted``."""


def planted_words(root: Path, done: subprocess.CompletedProcess[str], *more: Path) -> list[str]:
    """Return the planted words that somebody is told who should not be.

    Args:
        root: of the fixture ``planted``; results are in its folder ``out``.
        done: the program that has run.
        more: further folders in which nothing may stand.
    """
    told = [done.stdout, done.stderr]
    for folder in (root / "out", *more):
        for path in folder.rglob("*"):
            told.append(str(path.relative_to(folder)))
            if path.is_file() and path.suffix != ".dcm" and path.name != "sources.private.jsonl":
                told.append(path.read_bytes().decode("latin-1"))
    return [word for word in PLANTED if any(word in text for text in told)]
