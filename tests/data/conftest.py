"""Pictures and masks to build small data sets with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Maker = Callable[..., Path]


@pytest.fixture
def save_image() -> Maker:
    """Save an RGB picture that depends on the seed; non-square unless told otherwise."""

    def save(path: Path, *, seed: int = 0, size: tuple[int, int] = (12, 20), **options: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, **options)
        return path

    return save


@pytest.fixture
def save_mask() -> Maker:
    """Save a mask with a rectangle whose place depends on the seed."""

    def save(path: Path, *, seed: int = 0, size: tuple[int, int] = (12, 20), **options: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros(size, np.uint8)
        pixels[1 + seed % 5 : 8, 2 : 9 + seed % 7] = 255
        Image.fromarray(pixels).save(path, **options)
        return path

    return save


@pytest.fixture
def paired_source(tmp_path: Path, save_image: Maker, save_mask: Maker) -> Maker:
    """Make images/ + masks/ with so many pictures."""

    def make(count: int = 10, *, name: str = "source") -> Path:
        for index in range(count):
            save_image(tmp_path / name / "images" / f"case{index:02d}.png", seed=index)
            save_mask(tmp_path / name / "masks" / f"case{index:02d}.png", seed=index)
        return tmp_path / name

    return make
