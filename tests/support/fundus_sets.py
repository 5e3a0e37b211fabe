"""Retinas with masks of two observers and fields of view, drawn and saved in the formats that vessel sets come in."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from msrf_monai.data import synthesize_case
from support.prepared_sets import all_items

Truth = dict[str, dict[str, np.ndarray]]
Maker = Callable[..., tuple[Path, Truth]]
SIZE = (44, 60)


@cache
def picture(seed: int, size: tuple[int, int] = SIZE) -> dict[str, np.ndarray]:
    """Draw a retina with two observers' masks, the second one's shifted by a pixel, and a field of view."""
    case = synthesize_case("vessels", seed, size)
    assert case.field_of_view is not None
    return {
        "image": case.image,
        "label": case.mask > 0,
        "label2": np.roll(case.mask > 0, 1, axis=1),
        "fov": case.field_of_view > 0,
    }


def as_palette(mask: np.ndarray) -> Image.Image:
    """A palette picture whose index 1 is white, as a GIF stores a mask."""
    image = Image.fromarray(mask.astype(np.uint8), mode="L").convert("P")
    image.putdata(mask.astype(np.uint8).ravel().tolist())
    image.putpalette([0, 0, 0, 255, 255, 255])
    return image


def save(image: Image.Image, path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        buffer = io.BytesIO()
        image.save(buffer, format="PPM")
        path.write_bytes(gzip.compress(buffer.getvalue(), mtime=0))
    else:
        image.save(path, **options)


def grey(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * 255)


def check_masks(folder: Path, truth: Truth, keys: tuple[str, ...]) -> None:
    """Every mask is an 8-bit PNG of 0 and 255 and holds what was drawn, row by row."""
    for item in all_items(folder):
        for key in keys:
            image = Image.open(folder / str(item[key]))
            assert (image.format, image.mode) == ("PNG", "L")
            np.testing.assert_array_equal(np.asarray(image), truth[str(item["id"])][key] * 255)
