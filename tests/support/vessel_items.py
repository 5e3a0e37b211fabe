"""What an evaluator of vessels holds after its post-processing, drawn, and the files of a report on it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

Item = dict[str, Any]
SIZE = (40, 32)  # columns, rows
LEVELS = (32, 40)


def vessel_item(index: int, folder: str = "/data/set", *, observer: bool = True, fov: bool = True) -> Item:
    """Return an image with a cross of vessels, a network's probability, a round field of view and an observer."""
    rng = np.random.default_rng(index)
    label = np.zeros(SIZE, np.float32)
    label[5 + index : 8 + index, 4:28] = 1
    label[10:35, 15:17] = 1
    probability = np.clip(0.6 * label + rng.normal(0.2, 0.15, SIZE), 0, 1).astype(np.float32)
    columns, rows = np.mgrid[: SIZE[0], : SIZE[1]]
    inside = np.hypot(columns - 20, rows - 16) < 15
    image = MetaTensor(torch.rand(3, *SIZE), meta={"filename_or_obj": f"{folder}/images/c{index}.png"})
    item: Item = {"image": image, "probability": torch.from_numpy(probability)[None], "label": MetaTensor(label[None])}
    item["pred"] = (item["probability"] >= 0.5).to(torch.uint8)
    if fov:
        item["fov"] = torch.from_numpy(inside[None].astype(np.uint8))
    if observer:
        item["label2"] = torch.from_numpy(np.roll(label, 1, axis=1)[None])
    return item


def run_handler(handler: Any, items: list[Item]) -> Engine:
    """Run an engine with a handler over items in two batches."""

    def step(engine: Engine, batch: list[Item]) -> list[Item]:
        engine.state.batch = [{"image": item["image"]} for item in batch]
        return batch

    engine = Engine(step)
    handler.attach(engine)
    engine.run([items[:2], items[2:]] if len(items) > 2 else [items])
    return engine


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table."""
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def summary_of(folder: Path) -> dict[str, Any]:
    """Return what the report says in ``summary.json``."""
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def inside_of(items: list[Item], key: str) -> list[np.ndarray]:
    """Return the pixels in the field of view of each item."""
    return [item[key][0].numpy()[item["fov"][0].numpy() == 1] for item in items]
