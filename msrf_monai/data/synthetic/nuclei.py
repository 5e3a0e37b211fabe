"""Pictures as a microscope takes them: touching cell nuclei, glowing on black or stained violet in pink tissue."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from msrf_monai.data.synthetic.noise import Floats, blur, fractal_noise, smooth_noise, smooth_step, to_uint8

__all__ = ["draw_nuclei"]


def draw_nuclei(
    rng: np.random.Generator, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int32]]:
    """Draw nuclei that lie alone and in touching groups.

    Args:
        rng: source of all numbers.
        size: height and width in pixels.

    Returns:
        RGB uint8 (H, W, 3); the nuclei as drawn, before any blur, uint8 {0, 255} (H, W); and the number of the nucleus
        at each pixel from 1, 0 elsewhere, int32 (H, W).
    """
    radius = max(2.5, min(size) / 256 * float(rng.uniform(6, 15)))
    instances, strength = _place(rng, size, radius)
    mask = instances > 0
    rgb = _fluorescence(rng, mask, strength) if rng.random() < 0.7 else _stain(rng, mask, strength)
    return rgb, mask.astype(np.uint8) * 255, instances


def _place(rng: np.random.Generator, size: tuple[int, int], radius: float) -> tuple[NDArray[np.int32], Floats]:
    """Place nuclei one by one, a later one behind the earlier; return their numbers and their brightness."""
    instances = np.zeros(size, np.int32)
    strength = np.zeros(size, np.float32)
    count = max(3, round(float(rng.uniform(0.08, 0.3)) * size[0] * size[1] / (math.pi * radius**2)))
    hearts = rng.uniform(0, 1, (max(1, count // 4), 2)) * size
    number = 0
    for _ in range(count):
        crowded = rng.random() < 0.6
        heart = hearts[rng.integers(len(hearts))] + rng.normal(0, 1.6 * radius, 2)
        centre = heart if crowded else rng.uniform(0, 1, 2) * size
        outline = _outline(rng, (float(centre[0]), float(centre[1])), radius * float(rng.uniform(0.7, 1.3)))
        window, shape = _filled(outline, size)
        here = instances[window]
        free = shape & (here == 0)
        if free.sum() < 0.6 * max(shape.sum(), 1) or free.sum() < 9:
            continue
        number += 1
        here[free] = number
        strength[window][free] = float(rng.uniform(0.45, 1.0))
    return instances, strength


def _outline(rng: np.random.Generator, centre: tuple[float, float], radius: float) -> NDArray[np.float64]:
    """Return the corner points (row, column) of a slightly bent ellipse."""
    angles = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    stretch, turn = float(rng.uniform(0.6, 1.0)), float(rng.uniform(0, math.pi))
    reach = radius * (1 + 0.07 * rng.normal() * np.cos(2 * angles + turn) + 0.06 * rng.normal() * np.cos(3 * angles))
    along, across = reach * np.cos(angles), stretch * reach * np.sin(angles)
    rows = centre[0] + math.sin(turn) * along + math.cos(turn) * across
    columns = centre[1] + math.cos(turn) * along - math.sin(turn) * across
    return np.stack([rows, columns], axis=1)


def _filled(outline: NDArray[np.float64], size: tuple[int, int]) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """Fill an outline; return the window that it lies in, and the filled pixels of that window."""
    low = np.maximum(np.floor(outline.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(outline.max(axis=0)).astype(int) + 1, size)
    window = slice(int(low[0]), max(int(high[0]), int(low[0]))), slice(int(low[1]), max(int(high[1]), int(low[1])))
    canvas = np.zeros((window[0].stop - window[0].start, window[1].stop - window[1].start), np.uint8)
    if canvas.size:
        corners = np.rint((outline - low)[:, ::-1] * 16).astype(np.int32)
        cv2.fillPoly(canvas, [corners.reshape(-1, 1, 2)], (1,), lineType=cv2.LINE_8, shift=4)
    return window, canvas > 0


def _fluorescence(rng: np.random.Generator, mask: NDArray[np.bool_], strength: Floats) -> NDArray[np.uint8]:
    """Bright nuclei with chromatin on an uneven dark ground, in grey as DAPI pictures come."""
    size = (mask.shape[0], mask.shape[1])
    short = min(size)
    chromatin = fractal_noise(rng, size, short / 30, 3, 0.7)
    glow = strength * (1 + 0.16 * chromatin) * _bulge(mask, short)
    sharp = blur(glow, float(rng.uniform(0.6, 1.4)) * max(1.0, short / 256))
    halo = blur(glow, short / 18)
    ground = 0.05 + 0.03 * smooth_noise(rng, size, short / 1.5)
    grey = np.clip(ground + float(rng.uniform(0.25, 0.85)) * sharp + float(rng.uniform(0.05, 0.25)) * halo, 0, 1)
    grey = grey + 0.025 * np.sqrt(grey) * rng.standard_normal(size, dtype=np.float32)
    return np.repeat(np.clip(grey * 255 + 0.5, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def _stain(rng: np.random.Generator, mask: NDArray[np.bool_], strength: Floats) -> NDArray[np.uint8]:
    """Violet nuclei in pink fibrous tissue with pale gaps, by light absorbed in two dyes."""
    size = (mask.shape[0], mask.shape[1])
    short = min(size)
    fibres = np.abs(smooth_noise(rng, size, short / 10) + 0.5 * fractal_noise(rng, size, short / 24, 3))
    gaps = smooth_step(fractal_noise(rng, size, short / 4, 3), 0.7, 1.3)
    eosin = (0.35 + 0.22 * fibres + 0.08 * fractal_noise(rng, size, short / 40, 2)) * (1 - 0.8 * gaps)
    chromatin = fractal_noise(rng, size, short / 40, 3, 0.7)
    rim = blur(mask, 1.2 * short / 256)
    haematoxylin = (0.55 + 0.6 * strength) * mask * (1 + 0.22 * chromatin + 0.35 * (1 - rim))
    haematoxylin = blur(haematoxylin, float(rng.uniform(0.6, 1.1)) * max(1.0, short / 256))
    haematoxylin += 0.06 * smooth_step(fractal_noise(rng, size, short / 12, 3), 0.5, 1.5)
    dyes = np.array([[0.65, 0.90, 0.35], [0.10, 0.62, 0.28]], np.float32) * rng.uniform(0.85, 1.15, (2, 1))
    absorbed = haematoxylin[..., None] * dyes[0].astype(np.float32) + eosin[..., None] * dyes[1].astype(np.float32)
    light = float(rng.uniform(0.9, 0.98)) * np.exp(-absorbed)
    return to_uint8(rng, np.asarray(np.clip(light, 0, 1), dtype=np.float32), 0.012)


def _bulge(mask: NDArray[np.bool_], short: int) -> Floats:
    """Return a factor that is lower near the rim of a nucleus, where it is thinner."""
    thickness = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
    return np.asarray(0.7 + 0.3 * np.minimum(thickness / (4 * short / 256), 1), dtype=np.float32)
