"""What a fundus camera sees: the round part of a picture, inside a dark surround."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from msrf_monai.errors import InputError

__all__ = ["derive_field_of_view"]

_LONGEST_PX = 1024  # larger pictures are shrunk to this for the search; the disc is drawn at full size
_CORNER_SHARE = 1 / 20  # side of the squares in the corners that show the surround
_DARK_SHARE = 0.5  # a corner is surround when it is darker than this share of the centre
_NOISE_WIDTHS = 6.0  # the field is brighter than the surround by so many standard deviations of its noise …
_CONTRAST_SHARE = 0.10  # … and by this share of the difference to the centre
_TOLERANCE = 0.012  # distance from the circle, of the shorter side, up to which a point of the outline lies on it
_TRIPLES = 400
_COVERED_SHARE = 0.6  # share of the visible circle that the outline must follow
_VISIBLE_SHARE = 0.3  # share of the circle that picture and cuts must show at least


@dataclass(frozen=True)
class _Circle:
    """Centre (x, y) and radius in pixels."""

    x: float
    y: float
    radius: float


def derive_field_of_view(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find the field of view of a fundus picture.

    The surround is what the corners show. What is brighter is the field; its outline is fitted by a circle, which
    bridges dark rims, shadows and letters in the surround. A field that is cut straight at the top, the bottom or a
    side stays cut. An outline that is no circle is taken as it stands.

    Args:
        rgb: picture, uint8, (H, W, 3).

    Returns:
        True where the camera sees the eye, bool, (H, W). All True where there is no dark surround (fewer than two dark
        corners), as in a picture that was cropped inside the field, or in one that is dark all over.

    Raises:
        InputError: when the array has another type or shape, or no pixel.

    Example:
        >>> picture = np.zeros((90, 120, 3), np.uint8)
        >>> picture[20:70, 30:90] = (180, 90, 40)
        >>> int(derive_field_of_view(picture).sum())
        3000
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise InputError(f"rgb is {rgb.dtype} of shape {rgb.shape}; expected uint8 of shape (H, W, 3) with pixels")
    height, width = rgb.shape[:2]
    scale = min(1.0, _LONGEST_PX / max(height, width))
    level: NDArray[np.uint8] = np.ascontiguousarray(rgb.max(axis=2))
    if scale < 1:
        level = cv2.resize(level, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    field = _bright_part(level)
    if field is None:
        return np.ones((height, width), np.bool_)
    circle = _circle_of(field)
    if circle is None:
        grown = cv2.resize(field.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        return np.asarray(grown > 0)
    return _disc(circle, _sides(field, circle), (height, width), (height / level.shape[0], width / level.shape[1]))


def _bright_part(level: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """Return the largest connected part that is brighter than the corners, without holes; None without surround."""
    calm = cv2.medianBlur(level, 5) if min(level.shape) >= 5 else level
    threshold = _threshold(calm)
    if threshold is None:
        return None
    bright = (calm > threshold).astype(np.uint8)
    side = 2 * max(1, round(min(level.shape) / 120)) + 1
    opened = cv2.morphologyEx(bright, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    outlines, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return None
    filled = np.zeros(level.shape, np.uint8)
    cv2.drawContours(filled, [max(outlines, key=cv2.contourArea)], -1, (1,), cv2.FILLED)
    return filled > 0


def _threshold(level: NDArray[np.uint8]) -> float | None:
    """Return the brightness that divides surround and field, None when fewer than two corners are dark."""
    rows, columns = (max(1, round(length * _CORNER_SHARE)) for length in level.shape)
    corners = [level[y, x] for y in (slice(rows), slice(-rows, None)) for x in (slice(columns), slice(-columns, None))]
    height, width = level.shape
    centre = float(np.median(level[height // 4 : height - height // 4, width // 4 : width - width // 4]))
    dark = [corner.ravel() for corner in corners if float(np.median(corner)) < _DARK_SHARE * centre]
    if len(dark) < 2:
        return None
    surround = np.concatenate(dark)
    base = float(np.median(surround))
    noise = 1.4826 * float(np.median(np.abs(surround - base)))
    return base + max(_NOISE_WIDTHS * noise, _CONTRAST_SHARE * (centre - base))


def _circle_of(field: NDArray[np.bool_]) -> _Circle | None:
    """Return the circle that most of the outline follows, or None when there is none."""
    points = _outline(field)
    tolerance = _TOLERANCE * min(field.shape)
    if len(points) < 3:
        return None
    circle = _most_supported(points, tolerance, field.shape)
    for _ in range(3):
        if circle is None:
            return None
        near = points[np.abs(_distances(points, circle)) <= tolerance]
        circle = _least_squares(near)
    if circle is None or _covered(points, circle, _sides(field, circle), field.shape, tolerance) < _COVERED_SHARE:
        return None
    return circle


def _outline(field: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the points (x, y) of the outline that do not lie on the frame of the picture."""
    outlines, _ = cv2.findContours(field.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = np.concatenate(outlines).reshape(-1, 2).astype(np.float64)
    last = np.array([field.shape[1] - 1, field.shape[0] - 1])
    return np.asarray(points[((points > 1) & (points < last - 1)).all(axis=1)])


def _most_supported(points: NDArray[np.float64], tolerance: float, size: tuple[int, ...]) -> _Circle | None:
    """Return the circle through three points on which most of the others lie."""
    rng = np.random.default_rng(0)
    some = points[:: max(1, len(points) // 720)]
    a, b, c = (some[rng.integers(0, len(some), _TRIPLES)] for _ in range(3))
    ab, ac = b - a, c - a
    area = 2 * (ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        square_ab, square_ac = (ab**2).sum(axis=1), (ac**2).sum(axis=1)
        x = (ac[:, 1] * square_ab - ab[:, 1] * square_ac) / area
        y = (ab[:, 0] * square_ac - ac[:, 0] * square_ab) / area
    radius = np.hypot(x, y)
    centres = a + np.stack([x, y], axis=1)
    possible = np.isfinite(radius) & (radius > 0.25 * min(size)) & (radius < max(size))
    if not possible.any():
        return None
    centres, radius = centres[possible], radius[possible]
    off = np.abs(np.hypot(some[:, 0] - centres[:, :1], some[:, 1] - centres[:, 1:]) - radius[:, None])
    best = int((off <= tolerance).sum(axis=1).argmax())
    return _Circle(float(centres[best, 0]), float(centres[best, 1]), float(radius[best]))


def _distances(points: NDArray[np.float64], circle: _Circle) -> NDArray[np.float64]:
    return np.asarray(np.hypot(points[:, 0] - circle.x, points[:, 1] - circle.y) - circle.radius)


def _least_squares(points: NDArray[np.float64]) -> _Circle | None:
    """Fit x² + y² = 2 a x + 2 b y + c."""
    if len(points) < 3:
        return None
    matrix = np.column_stack([2 * points, np.ones(len(points))])
    (x, y, c), *_ = np.linalg.lstsq(matrix, (points**2).sum(axis=1), rcond=None)
    square = float(c + x * x + y * y)
    return _Circle(float(x), float(y), square**0.5) if square > 0 else None


def _sides(field: NDArray[np.bool_], circle: _Circle) -> tuple[float, float, float, float]:
    """Return left, right, top and bottom of the field where it is cut straight, infinite where the circle ends it."""
    rows, columns = np.flatnonzero(field.any(axis=1)), np.flatnonzero(field.any(axis=0))
    far = 2 * _TOLERANCE * min(field.shape)
    sides = []
    for first, last, middle in ((columns[0], columns[-1], circle.x), (rows[0], rows[-1], circle.y)):
        sides.append(float(first) if first - (middle - circle.radius) > far else -np.inf)
        sides.append(float(last) if middle + circle.radius - last > far else np.inf)
    return sides[0], sides[1], sides[2], sides[3]


def _covered(
    points: NDArray[np.float64],
    circle: _Circle,
    sides: tuple[float, float, float, float],
    size: tuple[int, ...],
    tolerance: float,
) -> float:
    """Return the share of the circle, as far as picture and cuts show it, that the outline follows."""
    left, right, top, bottom = sides
    near = points[np.abs(_distances(points, circle)) <= tolerance]
    degrees = np.degrees(np.arctan2(near[:, 1] - circle.y, near[:, 0] - circle.x)).astype(int) % 360
    angles = np.radians(np.arange(360) + 0.5)
    x, y = circle.x + circle.radius * np.cos(angles), circle.y + circle.radius * np.sin(angles)
    visible = (x > max(left, 1)) & (x < min(right, size[1] - 2)) & (y > max(top, 1)) & (y < min(bottom, size[0] - 2))
    if visible.mean() < _VISIBLE_SHARE:
        return 0.0
    followed = np.zeros(360, np.bool_)
    followed[degrees] = True
    return float((followed & visible).sum() / visible.sum())


def _disc(
    circle: _Circle,
    sides: tuple[float, float, float, float],
    size: tuple[int, int],
    scale: tuple[float, float],
) -> NDArray[np.bool_]:
    """Draw the disc between its sides at full size; ``scale`` holds the factors of the rows and of the columns."""
    y = (np.arange(size[0])[:, None] + 0.5) / scale[0] - 0.5
    x = (np.arange(size[1])[None] + 0.5) / scale[1] - 0.5
    left, right, top, bottom = sides
    inside = np.hypot(x - circle.x, y - circle.y) <= circle.radius + 0.5
    return np.asarray(inside & (x >= left - 0.5) & (x <= right + 0.5) & (y >= top - 0.5) & (y <= bottom + 0.5))
