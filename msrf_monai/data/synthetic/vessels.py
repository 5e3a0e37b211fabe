"""Pictures as a fundus camera takes them: a round field of view, the optic disc, the macula, and vessel trees."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from msrf_monai.data.synthetic.noise import (
    Floats,
    blur,
    coordinates,
    fractal_noise,
    smooth_noise,
    smooth_step,
    to_uint8,
)

__all__ = ["draw_vessels"]

_FINE = 4  # the trees are drawn so many times as large as the picture, then counted down to coverage
_DEEPEST = 6


@dataclass(frozen=True)
class _Branch:
    """A piece of vessel in coordinates whose short side runs from -1 to 1: points (x, y) and widths."""

    points: NDArray[np.float64]
    widths: NDArray[np.float64]
    is_artery: bool


def draw_vessels(
    rng: np.random.Generator, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a retina.

    Args:
        rng: source of all numbers.
        size: height and width in pixels.

    Returns:
        RGB uint8 (H, W, 3); the vessels, pixels that a vessel covers by half or more, uint8 {0, 255} (H, W); and the
        field of view, uint8 {0, 255} (H, W).
    """
    x, y = coordinates(size)
    side = 1 if rng.random() < 0.5 else -1
    disc = (side * float(rng.uniform(0.35, 0.6)), float(rng.uniform(-0.1, 0.1)))
    branches = _trees(rng, disc, side, 2.0 / min(size))
    arteries, veins = (_coverage([b for b in branches if b.is_artery is kind], size) for kind in (True, False))
    field_of_view = np.hypot(x, y) < float(rng.uniform(0.9, 0.97))
    mask = (np.maximum(arteries, veins) >= 0.5) & field_of_view
    rgb = _retina(rng, size, x, y, disc, side)
    soft = max(0.6, min(size) / 512)
    for cover, depth in ((veins, (0.30, 0.58, 0.45)), (arteries, (0.16, 0.46, 0.36))):
        seen = blur(cover, soft)
        strength = np.array(depth, np.float32) * float(rng.uniform(0.75, 1.1))
        rgb *= 1 - seen[..., None] * strength
    rgb = rgb * blur(field_of_view, soft)[..., None]
    return to_uint8(rng, rgb, 0.008), mask.astype(np.uint8) * 255, field_of_view.astype(np.uint8) * 255


def _retina(
    rng: np.random.Generator, size: tuple[int, int], x: Floats, y: Floats, disc: tuple[float, float], side: int
) -> Floats:
    """The ground: orange to red, brighter towards the light, with a yellow disc and a darker macula."""
    tone = np.array([0.78, 0.36, 0.15], np.float32) * rng.uniform(0.85, 1.15, 3).astype(np.float32)
    light = np.exp(-((x - float(rng.uniform(-0.3, 0.3))) ** 2 + (y - float(rng.uniform(-0.3, 0.3))) ** 2) / 1.6)
    choroid = fractal_noise(rng, size, min(size) / 8, 4, 0.6)
    patches = smooth_noise(rng, size, min(size) / 3)
    rgb = tone * (0.55 + 0.45 * light + 0.035 * choroid + 0.03 * patches)[..., None]
    macula = np.exp(-((x - disc[0] + side * 0.85) ** 2 + (y - disc[1] - 0.05) ** 2) / 0.035)
    rgb *= 1 - float(rng.uniform(0.25, 0.45)) * macula[..., None]
    reach = np.hypot(x - disc[0], (y - disc[1]) / 1.1) / float(rng.uniform(0.15, 0.19))
    cover = smooth_step(reach, 1.12, 0.9) + 0.5 * smooth_step(reach, 0.65, 0.3)
    rgb += (0.55 * cover)[..., None] * (np.array([0.98, 0.78, 0.45], np.float32) - rgb)
    return np.asarray(np.clip(rgb, 0, 1), dtype=np.float32)


def _trees(rng: np.random.Generator, disc: tuple[float, float], side: int, pixel: float) -> list[_Branch]:
    """Grow an artery and a vein from the disc into each quadrant, and a few fine vessels."""
    branches: list[_Branch] = []
    for up in (-1, 1):
        for outward in (-1, 1):
            for is_artery in (True, False):
                start = math.atan2(up, 0.55 * outward * side) + float(rng.normal(0, 0.18))
                width = float(rng.uniform(0.024, 0.032)) if is_artery else float(rng.uniform(0.032, 0.043))
                width *= 1.0 if outward < 0 else 0.75
                bend = (-up * outward * side) * float(rng.uniform(0.5, 1.0)) * (1.0 if outward < 0 else 0.4)
                _grow(rng, disc, start, bend, width, is_artery, 0, pixel, branches)
    for _ in range(int(rng.integers(3, 7))):
        _grow(rng, disc, float(rng.uniform(0, 2 * math.pi)), 0.0, 0.014, bool(rng.random() < 0.5), 3, pixel, branches)
    return branches


def _grow(
    rng: np.random.Generator,
    start: tuple[float, float],
    heading: float,
    bend: float,
    width: float,
    is_artery: bool,
    depth: int,
    pixel: float,
    branches: list[_Branch],
) -> None:
    """Walk one vessel with a wavering heading; let side branches leave it, and fork where it ends."""
    step = 0.025
    steps = int(rng.integers(14, 30)) if depth < _DEEPEST else 10
    wander = np.cumsum(rng.normal(0, 0.09, steps)) * 0.5 + 0.10 * np.sin(np.arange(steps) * rng.uniform(0.3, 0.7))
    headings = heading + wander + bend * step * np.arange(steps)
    points = np.asarray(start) + np.cumsum(step * np.stack([np.cos(headings), np.sin(headings)], axis=1), axis=0)
    points = np.concatenate([[start], points])
    widths = np.maximum(np.linspace(width, 0.86 * width, steps + 1), 1.1 * pixel)
    branches.append(_Branch(points, widths, is_artery))
    last = points[-1]
    if depth >= _DEEPEST or float(np.hypot(*last)) > 1.05 or width < 0.008:
        return
    end, onward = (float(last[0]), float(last[1])), float(headings[-1])
    fork = float(rng.uniform(0.25, 0.5)) * (1 if rng.random() < 0.5 else -1)
    _grow(rng, end, onward + 0.4 * fork, bend, 0.86 * width, is_artery, depth + 1, pixel, branches)
    _grow(rng, end, onward - 1.2 * fork, 0.0, 0.62 * width, is_artery, depth + 2, pixel, branches)
    if depth < 4:
        middle = int(rng.integers(steps // 3, steps))
        leaving = float(headings[middle - 1]) + float(rng.uniform(0.6, 1.1)) * (1 if rng.random() < 0.5 else -1)
        origin = (float(points[middle, 0]), float(points[middle, 1]))
        _grow(rng, origin, leaving, 0.0, 0.48 * width, is_artery, depth + 3, pixel, branches)


def _coverage(branches: list[_Branch], size: tuple[int, int]) -> Floats:
    """Return the share of each pixel that the vessels cover, float32 in [0, 1], (H, W)."""
    canvas = np.zeros((size[0] * _FINE, size[1] * _FINE), np.uint8)
    scale = min(size) / 2 * _FINE
    centre = np.array([size[1] * _FINE / 2, size[0] * _FINE / 2])
    for branch in branches:
        corners = np.rint((branch.points * scale + centre) * 8).astype(np.int32)
        thickness = np.maximum(1, np.rint(branch.widths[:-1] * scale)).astype(int)
        for stretch in np.split(np.arange(thickness.size), np.flatnonzero(np.diff(thickness)) + 1):
            line = corners[stretch[0] : stretch[-1] + 2].reshape(-1, 1, 2)
            cv2.polylines(canvas, [line], False, (255,), int(thickness[stretch[0]]), cv2.LINE_8, 3)
    return np.asarray(cv2.resize(canvas, size[::-1], interpolation=cv2.INTER_AREA), dtype=np.float32) / np.float32(255)
