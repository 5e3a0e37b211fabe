"""Pictures as an endoscope takes them: folded wet mucosa lit from the camera, with one or two polyp-like lesions."""

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

__all__ = ["draw_lesions"]


@dataclass
class _Scene:
    """The surface while it is built: relief towards the camera, colours, share of the light that arrives."""

    size: tuple[int, int]
    x: Floats
    y: Floats
    relief: Floats
    albedo: Floats
    depth: Floats


def draw_lesions(rng: np.random.Generator, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw mucosa with one or two lesions.

    The lesions differ from their surroundings by relief, texture and a faint colour shift in either direction, so that
    no threshold finds them. Folds, bubbles, residue, vessels, highlights and the dark lumen are there to be told apart.

    Args:
        rng: source of all numbers.
        size: height and width in pixels.

    Returns:
        RGB uint8 (H, W, 3), and the outline of the lesions as drawn, before any blur, uint8 {0, 255} (H, W).
    """
    scene = _mucosa(rng, size)
    _folds(rng, scene)
    mask = np.zeros(size, bool)
    for _ in range(1 if rng.random() < 0.75 else 2):
        mask |= _add_lesion(rng, scene, mask)
    frame = _frame(rng, scene, mask)
    _add_residue(rng, scene, mask)
    _add_bubbles(rng, scene, mask)
    rgb = _light(rng, scene)
    rgb = blur(rgb, float(rng.uniform(0.5, 0.9)) * max(1.0, min(size) / 256))
    rgb *= frame[..., None]
    return to_uint8(rng, rgb, float(rng.uniform(0.006, 0.014))), (mask & (frame > 0.5)).astype(np.uint8) * 255


def _mucosa(rng: np.random.Generator, size: tuple[int, int]) -> _Scene:
    """Pink to orange tissue with patches and a net of fine vessels."""
    x, y = coordinates(size)
    short = min(size)
    tone = np.array([0.90, 0.54, 0.43], np.float32) + rng.uniform(-1, 1, 3).astype(np.float32) * [0.06, 0.09, 0.10]
    patches = 0.06 * fractal_noise(rng, size, short / 3, 4)
    albedo = tone.astype(np.float32) * (1 + patches[..., None] * np.array([0.7, 1.3, 1.3], np.float32))
    net = np.abs(fractal_noise(rng, size, short / 6, 3, 0.6))
    vessels = smooth_step(net, 0.16, 0.0) * smooth_step(smooth_noise(rng, size, short / 3), -0.8, 1.0)
    albedo *= 1 - float(rng.uniform(0.05, 0.42)) * vessels[..., None] * np.array([0.35, 0.9, 0.8], np.float32)
    relief = 0.012 * fractal_noise(rng, size, short / 6, 3) + 0.0016 * fractal_noise(rng, size, short / 32, 2)
    return _Scene(size, x, y, relief, albedo, np.ones(size, np.float32))


def _folds(rng: np.random.Generator, scene: _Scene) -> None:
    """Raise ring-like folds around the lumen, where it gets dark."""
    angle = rng.uniform(0, 2 * math.pi)
    distance = rng.uniform(0.35, 1.5)
    warp = 0.12 * smooth_noise(rng, scene.size, min(scene.size) / 2.5)
    dx = scene.x - distance * math.cos(angle) + warp
    dy = scene.y - distance * math.sin(angle) + 0.12 * smooth_noise(rng, scene.size, min(scene.size) / 2.5)
    radius, theta = cv2.cartToPolar(dx, dy)
    where = rng.uniform(0.3, 0.6)
    while where < 2.4:
        width = rng.uniform(0.05, 0.11)
        ring = np.exp(-(((radius - where) / width) ** 2))
        side = 0.55 + 0.45 * np.cos(theta - float(rng.uniform(0, 2 * math.pi)))
        scene.relief += float(rng.uniform(0.05, 0.11)) * ring * side
        where += rng.uniform(0.35, 0.75)
    dark = float(rng.uniform(0.6, 0.95)) * np.exp(-((radius / float(rng.uniform(0.3, 0.5))) ** 2))
    scene.depth -= dark


def _frame(rng: np.random.Generator, scene: _Scene, mask: NDArray[np.bool_]) -> Floats:
    """The black surround of the picture, cut corners or rounded ones, at times with a black box; 1 inside."""
    reach_x = np.abs(scene.x) * (min(scene.size) / scene.size[1])
    reach_y = np.abs(scene.y) * (min(scene.size) / scene.size[0])
    if rng.random() < 0.6:
        frame = smooth_step(reach_x + reach_y, 1.56, 1.54)
    else:
        square_x, square_y = reach_x * reach_x, reach_y * reach_y
        frame = smooth_step(square_x * square_x + square_y * square_y, 1.25, 1.15)
    rows, columns = (round(float(rng.uniform(0.2, 0.33)) * length) for length in scene.size)
    # The box must leave most of the lesions to be seen.
    if rng.random() < 0.3 and mask[-rows:, :columns].sum() < 0.3 * mask.sum():
        frame[-rows:, :columns] = 0
    return frame


def _blob(
    rng: np.random.Generator, scene: _Scene, centre: tuple[float, float], radius: float, roughness: float
) -> Floats:
    """Return the distance from the centre in units of an irregular smooth outline: below 1 is inside, (H, W)."""
    stretch, turn = rng.uniform(0.72, 1.0), rng.uniform(0, math.pi)
    cosine, sine = math.cos(turn), math.sin(turn)
    dx, dy = scene.x - centre[0], scene.y - centre[1]
    distance, theta = cv2.cartToPolar(cosine * dx + sine * dy, (cosine * dy - sine * dx) / stretch)
    outline = np.ones(scene.size, np.float32)
    for waves in range(2, 7):
        outline += roughness * rng.normal() / waves * np.cos(waves * theta + rng.uniform(0, 2 * math.pi))
    return np.asarray(distance / (radius * np.clip(outline, 0.4, 1.8)), dtype=np.float32)


def _add_lesion(rng: np.random.Generator, scene: _Scene, taken: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Put a lesion on the surface and return its exact outline; nothing when the place is taken."""
    short = min(scene.size)
    radius = float(rng.uniform(0.27, 0.60))
    half = [scene.size[1] / short, scene.size[0] / short]
    centre = tuple(float(rng.uniform(-0.72, 0.72) * length) for length in half)
    reach = _blob(rng, scene, (centre[0], centre[1]), radius, 0.12)
    inside = reach < 1
    if (taken & (reach < 1.3)).any():
        return np.zeros_like(inside)
    height = np.clip(1 - reach**2, 0, 1)
    steep = float(rng.uniform(0.1, 0.6))
    dome = steep * np.sqrt(height) + (1 - steep) * height
    crease = np.exp(-(((reach - 1.05) / 0.08) ** 2))
    grain = fractal_noise(rng, scene.size, short / float(rng.uniform(22, 34)), 2, 0.6)
    lobes = fractal_noise(rng, scene.size, short / 9, 2)
    scene.relief *= 1 - 0.85 * smooth_step(reach, 1.25, 0.8)
    scene.relief += radius * float(rng.uniform(0.34, 0.54)) * dome - 0.006 * crease
    scene.relief += height * (0.0030 * grain + 0.010 * lobes)
    # Redder or paler than the mucosa, by less than the patches and the light change its colour.
    redder = rng.random() < 0.6
    shift = np.array([0.02, -0.085, -0.065] if redder else [0.04, 0.085, 0.07], np.float32)
    shift = shift * float(rng.uniform(0.7, 1.4)) + rng.uniform(-0.02, 0.02, 3).astype(np.float32)
    soft = smooth_step(reach, 1 + float(rng.uniform(0.02, 0.07)), 1 - float(rng.uniform(0.05, 0.14)))
    scene.depth += 0.75 * soft * (1 - scene.depth)  # it stands out into the light
    spots = smooth_step(grain, 0.1, 1.3) * float(rng.uniform(0.08, 0.22))
    scene.albedo += soft[..., None] * (shift - spots[..., None] * np.array([0.45, 0.8, 0.7], np.float32) * scene.albedo)
    scene.albedo *= (1 - float(rng.uniform(0.05, 0.16)) * crease)[..., None]
    return inside


def _add_residue(rng: np.random.Generator, scene: _Scene, mask: NDArray[np.bool_]) -> None:
    """Yellow-brown residue: flat, small, coloured, and no lesion."""
    for _ in range(int(rng.integers(0, 4))):
        centre = (float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1)))
        reach = _blob(rng, scene, centre, float(rng.uniform(0.05, 0.16)), 0.35)
        cover = smooth_step(reach, 1.1, 0.8) * ~mask * float(rng.uniform(0.4, 0.8))
        colour = np.array([0.78, 0.60, 0.25], np.float32) * float(rng.uniform(0.7, 1.1))
        scene.albedo += cover[..., None] * (colour - scene.albedo)
        scene.relief += 0.01 * cover


def _add_bubbles(rng: np.random.Generator, scene: _Scene, mask: NDArray[np.bool_]) -> None:
    """Foam: groups of small round bubbles with a bright rim."""
    for _ in range(int(rng.integers(0, 3))):
        heart = rng.uniform(-0.9, 0.9, 2)
        for _ in range(int(rng.integers(2, 7))):
            _add_bubble(scene, heart + rng.normal(0, 0.09, 2), float(rng.uniform(0.02, 0.055)), mask)


def _add_bubble(scene: _Scene, place: NDArray[np.float64], radius: float, mask: NDArray[np.bool_]) -> None:
    """Draw one bubble, touching only the window around it."""
    scale = min(scene.size) / 2
    column, row = (round(length / 2 + float(at) * scale) for at, length in zip(place, scene.size[::-1], strict=True))
    reach_px = math.ceil(2 * radius * scale)
    window = (
        slice(max(row - reach_px, 0), max(row + reach_px, 0)),
        slice(max(column - reach_px, 0), max(column + reach_px, 0)),
    )
    reach = np.hypot(scene.x[window] - float(place[0]), scene.y[window] - float(place[1])) / radius
    rim = np.exp(-(((reach - 0.9) / 0.22) ** 2)) * ~mask[window]
    scene.albedo[window] += 0.16 * rim[..., None]
    scene.relief[window] += 0.012 * np.sqrt(np.clip(1 - reach**2, 0, 1)) * ~mask[window]


def _light(rng: np.random.Generator, scene: _Scene) -> Floats:
    """Light the wet surface from beside the camera: diffuse light that falls off with distance, and highlights."""
    scale = min(scene.size) / 2
    slope_x = cv2.Sobel(scene.relief, cv2.CV_32F, 1, 0, ksize=3, scale=scale / 8)
    slope_y = cv2.Sobel(scene.relief, cv2.CV_32F, 0, 1, ksize=3, scale=scale / 8)
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    lamp = rng.uniform([-0.45, -0.45, 1.1], [0.45, 0.45, 1.7]).astype(np.float32)
    to_lamp = lamp[0] - scene.x, lamp[1] - scene.y, lamp[2] - scene.relief
    distance = np.sqrt(to_lamp[0] ** 2 + to_lamp[1] ** 2 + to_lamp[2] ** 2)
    cosine = (to_lamp[2] - slope_x * to_lamp[0] - slope_y * to_lamp[1]) / (length * distance)
    diffuse = np.clip(cosine, 0, 1) * (lamp[2] / distance) ** 2
    shade = (0.16 + 1.0 * diffuse) * scene.depth * float(rng.uniform(0.9, 1.3))
    half = np.sqrt(to_lamp[0] ** 2 + to_lamp[1] ** 2 + (to_lamp[2] + distance) ** 2)
    mirror = (to_lamp[2] + distance - slope_x * to_lamp[0] - slope_y * to_lamp[1]) / (length * half)
    wet = smooth_step(fractal_noise(rng, scene.size, scale / 3, 4, 0.8), 0.0, 0.9)
    shine = np.exp(float(rng.uniform(150, 400)) * (np.minimum(mirror, 1) - 1)) * wet * scene.depth
    rgb = scene.albedo * shade[..., None]
    rgb += float(rng.uniform(0.6, 1.1)) * shine[..., None] * np.array([1.0, 0.98, 0.95], np.float32)
    return np.asarray(np.clip(rgb, 0, 1), dtype=np.float32)
