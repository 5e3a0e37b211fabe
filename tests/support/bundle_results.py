"""Readers of what a bundle's job leaves in its folders."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image


def table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def history(root: Path) -> list[dict[str, float]]:
    """Return the rows of the history that a training left in a bundle root."""
    rows: list[dict[str, float]] = json.loads((root / "eval" / "history.json").read_text())
    return rows


def kept(root: Path) -> dict[str, Any]:
    """Return the record of the weights that a training kept."""
    record: dict[str, Any] = json.loads((root / "models" / "model.json").read_text())
    return record


def weights_of(root: Path) -> dict[str, torch.Tensor]:
    """Return the weights that a training kept."""
    weights: dict[str, torch.Tensor] = torch.load(root / "models" / "model.pt", weights_only=True)
    return weights


def training_state(root: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of the state that a training left for its resumption, by its path."""
    return tensors(torch.load(root / "models" / "state" / "training_state.pt", weights_only=True))


def tensors(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    """Return every tensor of a nested state by its path."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {k: v for key, part in items for k, v in tensors(part, f"{name}/{key}").items()}


def read_mask(path: str | Path) -> np.ndarray:
    """Return a mask's pixels, (H, W), as booleans."""
    return np.asarray(Image.open(path)) > 127
