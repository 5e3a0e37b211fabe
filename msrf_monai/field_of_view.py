"""What a fundus camera sees: the round part of a picture, inside a dark surround."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from msrf_monai.errors import InputError

__all__ = ["derive_field_of_view"]

_LONGEST_PX = 512  # larger pictures are shrunk to this for the search; the disc is drawn at full size
_CORNER_SHARE = 1 / 20  # side of the squares in the corners that show the surround
_DARK_SHARE = 0.5  # a corner is surround when it is darker than this share of the centre
_NOISE_WIDTHS = 6.0  # an outline that is no circle: brighter than the surround by so many deviations of its noise …
_CONTRAST_SHARE = 0.12  # … and by this share of the difference to the centre
_LADDER = (0.12, 0.06, 0.18, 0.25, 0.35, 0.5)  # the same share, tried one after the other for a circle
_LEAST_STEP = 3.0
_TOLERANCE = 0.012  # distance from the circle, of the shorter side, up to which a point of the outline lies on it
_TRIPLES = 400
_SAMPLED_POINTS = 360
_COVERED_SHARE = 0.6  # share of the visible circle that the outline must follow
_WELL_COVERED_SHARE = 0.97  # no better one is looked for
_VISIBLE_SHARE = 0.3  # share of the circle that picture and cuts must show at least
_STRAIGHT_SHARE = 0.5  # share of a chord along which the outline must run for a straight cut


@dataclass(frozen=True)
class _Circle:
    """Centre (x, y) and radius in pixels, and the lines that cut it; those that do not are infinite."""

    x: float
    y: float
    radius: float
    left: float = -np.inf
    right: float = np.inf
    top: float = -np.inf
    bottom: float = np.inf

    def distances(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how far points (x, y), (N, 2), lie outside the circle, in pixels, (N,)."""
        return np.asarray(np.hypot(points[:, 0] - self.x, points[:, 1] - self.y) - self.radius)


def derive_field_of_view(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find the field of view of a fundus picture.

    The corners show the surround. What is brighter is the field; of several limits of brightness, in red and in the
    brightest colour, the one is taken whose outline follows a circle best. The circle bridges dark rims,
    shadows, and letters in the surround. A field that is cut straight at the top, the bottom or a side stays cut. Where
    no outline is a circle, the bright part is taken as it stands.

    Args:
        rgb: picture, uint8, (H, W, 3).

    Returns:
        True where the camera sees the eye, bool, (H, W). All True where there is no dark surround (fewer than two dark
        corners), as in a picture that was cropped inside the field, or in one that is dark all over.

    Raises:
        InputError: when the array has another type or shape, or no pixel.

    Example:
        >>> rows, columns = np.mgrid[:90, :120]
        >>> eye = np.hypot(rows - 44.5, columns - 59.5) < 40
        >>> picture = eye[..., None] * np.array([180, 90, 40], np.uint8)
        >>> found = derive_field_of_view(picture)
        >>> int(eye.sum()), bool((found ^ eye).sum() < 100)
        (5024, True)
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise InputError(f"rgb is {rgb.dtype} of shape {rgb.shape}; expected uint8 of shape (H, W, 3) with pixels")
    height, width = rgb.shape[:2]
    scale = min(1.0, _LONGEST_PX / max(height, width))
    small = rgb
    if scale < 1:
        fx, fy = max(scale, 1 / width), max(scale, 1 / height)  # a very flat picture keeps a row
        small = np.asarray(cv2.resize(rgb, None, fx=fx, fy=fy, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    brightest = _calm(small.max(axis=2))
    surround = _Surround.of(brightest)
    if surround is None:
        return np.ones((height, width), np.bool_)
    circle = _best_circle((_calm(small[..., 0]), brightest))
    if circle is not None:
        return _disc(circle, (height, width), small.shape[:2])
    field = _bright_part(brightest, surround.limit())
    grown = cv2.resize(field.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(grown > 0) if field.any() else np.ones((height, width), np.bool_)


@dataclass(frozen=True)
class _Surround:
    """Brightness of the brightest dark corner, its noise, and the brightness of the centre."""

    base: float
    noise: float
    centre: float

    @classmethod
    def of(cls, level: NDArray[np.uint8]) -> _Surround | None:
        """Look at the corners; None when fewer than two are dark."""
        height, width = level.shape
        rows, columns = (max(1, round(length * _CORNER_SHARE)) for length in level.shape)
        inner = level[height // 4 : height - height // 4, width // 4 : width - width // 4]
        centre = float(np.median(inner))
        medians, noises = [], []
        for y in (slice(rows), slice(-rows, None)):
            for x in (slice(columns), slice(-columns, None)):
                median = float(np.median(level[y, x]))
                if median < _DARK_SHARE * centre:
                    medians.append(median)
                    noises.append(1.4826 * float(np.median(np.abs(level[y, x] - median))))
        return cls(max(medians), max(noises), centre) if len(medians) >= 2 else None

    def limit(self) -> float:
        """Return the brightness that divides surround and field where nothing is known of its form."""
        return self.base + max(_NOISE_WIDTHS * self.noise, _CONTRAST_SHARE * (self.centre - self.base), _LEAST_STEP)

    def ladder(self) -> Iterator[float]:
        """Yield limits to try."""
        for share in _LADDER:
            yield self.base + max(share * (self.centre - self.base), _LEAST_STEP)


def _calm(level: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return brightness without single bright or dark pixels."""
    whole = np.ascontiguousarray(level)
    return np.asarray(cv2.medianBlur(whole, 5) if min(level.shape) >= 5 else whole, dtype=np.uint8)


def _bright_part(level: NDArray[np.uint8], limit: float) -> NDArray[np.bool_]:
    """Return the largest connected part that is brighter than a limit, without holes and without thin bridges."""
    bright = (level > limit).astype(np.uint8)
    side = 2 * max(1, round(min(level.shape) / 120)) + 1
    opened = cv2.morphologyEx(bright, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    outlines, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(level.shape, np.uint8)
    if outlines:
        cv2.drawContours(filled, [max(outlines, key=cv2.contourArea)], -1, (1,), cv2.FILLED)
    return filled > 0


def _best_circle(levels: tuple[NDArray[np.uint8], ...]) -> _Circle | None:
    """Return the circle that an outline follows best, None when none is followed far enough."""
    best, most = None, 0.0
    for level in levels:
        surround = _Surround.of(level)
        for limit in surround.ladder() if surround is not None else ():
            circle, followed = _circle_of(_bright_part(level, limit))
            if circle is not None and followed > most:
                best, most = circle, followed
            if most >= _WELL_COVERED_SHARE:
                return best
    return best


def _circle_of(field: NDArray[np.bool_]) -> tuple[_Circle | None, float]:
    """Return the circle of an outline and how much of what is to be seen of it the outline follows, or (None, 0)."""
    tolerance = max(1.0, _TOLERANCE * min(field.shape))
    points = _outline(field)
    circle = _most_supported(points, tolerance, field.shape) if len(points) >= 3 else None
    for _ in range(3):
        if circle is None:
            return None, 0.0
        circle = _least_squares(points[np.abs(circle.distances(points)) <= tolerance])
    if circle is None:
        return None, 0.0
    circle = _with_cuts(circle, points, tolerance)
    followed, visible = _followed(circle, points, tolerance, field.shape)
    is_circle = visible >= _VISIBLE_SHARE and followed >= _COVERED_SHARE * visible
    return (circle, followed / visible) if is_circle else (None, 0.0)


def _outline(field: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the points (x, y) of the outline that do not lie on the frame of the picture, (N, 2)."""
    outlines, _ = cv2.findContours(field.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return np.empty((0, 2))
    points = np.concatenate(outlines).reshape(-1, 2).astype(np.float64)
    last = np.array([field.shape[1] - 1, field.shape[0] - 1])
    return np.asarray(points[((points > 1) & (points < last - 1)).all(axis=1)])


def _most_supported(points: NDArray[np.float64], tolerance: float, size: tuple[int, ...]) -> _Circle | None:
    """Return the circle through three points on which most of the others lie."""
    rng = np.random.default_rng(0)
    some = points[:: max(1, len(points) // _SAMPLED_POINTS)]
    a, b, c = (some[rng.integers(0, len(some), _TRIPLES)] for _ in range(3))
    ab, ac = b - a, c - a
    area = 2 * (ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        square_ab, square_ac = (ab**2).sum(axis=1), (ac**2).sum(axis=1)
        x = (ac[:, 1] * square_ab - ab[:, 1] * square_ac) / area
        y = (ab[:, 0] * square_ac - ac[:, 0] * square_ab) / area
    radius = np.hypot(x, y)
    possible = np.isfinite(radius) & (radius > 0.25 * min(size)) & (radius < max(size))
    if not possible.any():
        return None
    centres, radius = (a + np.stack([x, y], axis=1))[possible], radius[possible]
    off = np.abs(np.hypot(some[:, 0] - centres[:, :1], some[:, 1] - centres[:, 1:]) - radius[:, None])
    best = int((off <= tolerance).sum(axis=1).argmax())
    return _Circle(float(centres[best, 0]), float(centres[best, 1]), float(radius[best]))


def _least_squares(points: NDArray[np.float64]) -> _Circle | None:
    """Fit x² + y² = 2 a x + 2 b y + c."""
    if len(points) < 3:
        return None
    matrix = np.column_stack([2 * points, np.ones(len(points))])
    (x, y, c), *_ = np.linalg.lstsq(matrix, (points**2).sum(axis=1), rcond=None)
    square = float(c + x * x + y * y)
    return _Circle(float(x), float(y), square**0.5) if square > 0 else None


def _with_cuts(circle: _Circle, points: NDArray[np.float64], tolerance: float) -> _Circle:
    """Add the straight lines that cut the field: where the outline ends early and runs along most of the chord."""
    cuts = []
    for axis, middle in ((0, circle.x), (1, circle.y)):
        for outwards in (-1, 1):
            place = outwards * float((outwards * points[:, axis]).max())
            depth = circle.radius - outwards * (place - middle)
            chord = 2 * max(0.0, circle.radius**2 - (place - middle) ** 2) ** 0.5
            edge = points[np.abs(points[:, axis] - place) <= tolerance]
            is_cut = depth > 2 * tolerance and len(np.unique(edge[:, 1 - axis])) >= _STRAIGHT_SHARE * chord
            cuts.append(float(np.median(edge[:, axis])) if is_cut else outwards * np.inf)
    return _Circle(circle.x, circle.y, circle.radius, *cuts)


def _followed(
    circle: _Circle, points: NDArray[np.float64], tolerance: float, size: tuple[int, ...]
) -> tuple[float, float]:
    """Return the share of the circle that the outline follows, and the share that picture and cuts leave to see."""
    near = points[np.abs(circle.distances(points)) <= tolerance]
    degrees = np.degrees(np.arctan2(near[:, 1] - circle.y, near[:, 0] - circle.x)).astype(int) % 360
    angles = np.radians(np.arange(360) + 0.5)
    x, y = circle.x + circle.radius * np.cos(angles), circle.y + circle.radius * np.sin(angles)
    visible = (x > max(circle.left, 1)) & (x < min(circle.right, size[1] - 2))
    visible &= (y > max(circle.top, 1)) & (y < min(circle.bottom, size[0] - 2))
    followed = np.zeros(360, np.bool_)
    followed[degrees] = True
    return float((followed & visible).mean()), float(visible.mean())


def _disc(circle: _Circle, size: tuple[int, int], searched: tuple[int, ...]) -> NDArray[np.bool_]:
    """Draw the disc between its cuts at full size; ``searched`` is the size in which it was found."""
    y = (np.arange(size[0])[:, None] + 0.5) * (searched[0] / size[0]) - 0.5
    x = (np.arange(size[1])[None] + 0.5) * (searched[1] / size[1]) - 0.5
    # squares that are added once for each pixel; cuts make whole rows and columns infinitely far
    height, width = (y - circle.y) ** 2, (x - circle.x) ** 2
    height[(y < circle.top - 0.5) | (y > circle.bottom + 0.5)] = np.inf
    width[(x < circle.left - 0.5) | (x > circle.right + 0.5)] = np.inf
    return np.asarray(height + width <= (circle.radius + 0.5) ** 2)
