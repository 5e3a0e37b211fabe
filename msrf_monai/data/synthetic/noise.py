"""Seeded smooth noise, the stuff that tissue, light and outlines are drawn with."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "blur", "coordinates", "fractal_noise", "smooth_noise", "smooth_step", "to_uint8"]

Floats = NDArray[np.float32]


def coordinates(size: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return the x and y coordinates of all pixels, (H, W) each; the short side runs from -1 to 1."""
    height, width = size
    scale = 2.0 / min(size)
    x = (np.arange(width, dtype=np.float32) - (width - 1) / 2) * np.float32(scale)
    y = (np.arange(height, dtype=np.float32) - (height - 1) / 2) * np.float32(scale)
    return np.broadcast_to(x, size), np.broadcast_to(y[:, None], size)


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], cell_px: float) -> Floats:
    """Draw smooth noise.

    Args:
        rng: source of the numbers.
        size: height and width in pixels.
        cell_px: distance of its waves in pixels.

    Returns:
        Noise of mean 0 and standard deviation 1, float32, (H, W).
    """
    return _standardised(_waves(rng, size, cell_px))


def fractal_noise(
    rng: np.random.Generator, size: tuple[int, int], cell_px: float, octaves: int = 3, persistence: float = 0.5
) -> Floats:
    """Add up smooth noise of halving wave lengths and falling strength; mean 0, deviation 1, float32, (H, W)."""
    total = smooth_noise(rng, size, cell_px)
    for octave in range(1, octaves):
        total += persistence**octave * _waves(rng, size, cell_px / 2**octave)
    return _standardised(total)


def _waves(rng: np.random.Generator, size: tuple[int, int], cell_px: float) -> Floats:
    """Return smooth noise of about mean 0 and deviation 1."""
    cell_px = max(cell_px, 1.0)
    rows, columns = (round(length / cell_px) + 2 for length in size)
    # Interpolation between random numbers takes about a quarter of their deviation away.
    coarse = rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(1.35)
    return np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def _standardised(noise: Floats) -> Floats:
    mean, deviation = cv2.meanStdDev(noise)
    return np.asarray((noise - float(mean[0, 0])) / (float(deviation[0, 0]) + 1e-6), dtype=np.float32)


def smooth_step(value: NDArray[np.floating[Any]], low: float, high: float) -> Floats:
    """Return 0 below ``low``, 1 above ``high`` and a smooth rise between; ``high`` may be the smaller one."""
    share = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(share * share * (3 - 2 * share), dtype=np.float32)


def blur(values: NDArray[np.floating[Any]] | NDArray[np.bool_], sigma_px: float) -> Floats:
    """Blur values, (H, W) or (H, W, C), with a Gaussian; float32."""
    return np.asarray(cv2.GaussianBlur(values.astype(np.float32), (0, 0), sigma_px), dtype=np.float32)


def to_uint8(rng: np.random.Generator, rgb: Floats, noise: float) -> NDArray[np.uint8]:
    """Add the sensor's noise to colours in [0, 1], (H, W, 3), and return them as uint8."""
    # Sums of two uniform bytes, seven times as fast as normal numbers: one sum for grey grain, one for each colour.
    draws = rng.integers(0, 256, (2, *rgb.shape[:2], 4), dtype=np.uint8).astype(np.float32)
    grain = (draws[0] + draws[1] - 255) * (noise / 104)
    noisy = rgb * 255 + (0.5 * 255) * grain[..., 1:] + (0.8 * 255) * grain[..., :1]
    return np.asarray(np.clip(noisy + 0.5, 0, 255), dtype=np.uint8)
