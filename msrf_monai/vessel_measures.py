"""What a mask of vessels says about the vessels: density, length, calibre, branching and fractal dimension.

All functions take one decided mask as a NumPy array (H, W) and are pure. They measure the mask, not the eye: a broken
or too thick segmentation gives other values, and so does another resolution, so compare only what was made alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from msrf_monai.errors import InputError
from msrf_monai.optional import require

__all__ = [
    "MEASURES",
    "BoxCounting",
    "VesselMeasures",
    "box_counting",
    "branch_and_end_points",
    "calibres",
    "skeleton_length",
    "skeleton_of",
    "vessel_measures",
]

_Mask = NDArray[np.bool_]
Spacing = tuple[float, float]
"""Size of a pixel in µm: its height (along H), then its width (along W)."""

_NEIGHBOURS = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))  # once around
_EIGHT = np.ones((3, 3), dtype=bool)
_LEAST_SCALES = 3
_SMALLEST_BOX_PX = 8
"""Coarser than most vessels are wide: smaller boxes see the width of a vessel, or a piece of line, and not the tree."""
_EMPTY = "the mask has no vessel pixel in the field of view"


@dataclass(frozen=True)
class BoxCounting:
    """Boxes that hold a part of a mask, counted at several sizes.

    Attributes:
        dimension: slope of the least-squares line of log(count) over log(1/size); None with fewer than three sizes.
        sizes: sides of the boxes in pixels, rising.
        counts: boxes of each size with at least one pixel of the mask.
        r_squared: how well the line fits, 1 is perfect; None without a line.
    """

    dimension: float | None
    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    r_squared: float | None


@dataclass(frozen=True)
class VesselMeasures:
    """The measures of one mask; what cannot be known is None, and ``reasons`` says why.

    Attributes:
        fov_area_px: pixels of the field of view.
        vessel_area_px: vessel pixels in it.
        vessel_density: their ratio, in [0, 1].
        skeleton_length_px: length of the centre lines, see ``skeleton_length``.
        skeleton_length_um: the same in µm.
        mean_calibre_px: mean width along the centre lines, see ``calibres``.
        mean_calibre_um: the same in µm.
        fractal_dimension: of the mask, see ``box_counting``.
        fractal_dimension_skeleton: of its centre lines, which the vessels' width does not change.
        branch_points: forks and crossings of the centre lines.
        end_points: loose ends of the centre lines.
        reasons: for each measure that is None, why.
        fits: for each fractal dimension, the sizes of the boxes in pixels, their counts and R² of the line.
    """

    fov_area_px: int
    vessel_area_px: int
    vessel_density: float | None = None
    skeleton_length_px: float | None = None
    skeleton_length_um: float | None = None
    mean_calibre_px: float | None = None
    mean_calibre_um: float | None = None
    fractal_dimension: float | None = None
    fractal_dimension_skeleton: float | None = None
    branch_points: int | None = None
    end_points: int | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    fits: dict[str, dict[str, Any]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values by name, ``reasons`` included."""
        return asdict(self)


MEASURES = tuple(name for name in VesselMeasures.__dataclass_fields__ if name not in ("reasons", "fits"))
"""Names of the measures in the order of a table's columns."""


def vessel_measures(mask: Any, fov: Any = None, *, spacing_um: Spacing | None = None) -> VesselMeasures:
    """Measure one mask inside the field of view; a mask without vessels gives None and reasons, not an error.

    Args:
        mask: decided mask (H, W), boolean or {0, 1}.
        fov: field of view, same shape; the whole image by default, also for the density.
        spacing_um: height and width of a pixel in µm, where they are known; never guess them.

    Returns:
        The measures.

    Raises:
        InputError: when a mask is not a plane of 0 and 1, the shapes differ, or the spacing is not positive.
        MissingExtraError: when scikit-image is not installed.
    """
    vessels, region = _inside(mask, fov)
    _check_spacing(spacing_um)
    areas = {"fov_area_px": int(region.sum()), "vessel_area_px": int(vessels.sum())}
    if not areas["fov_area_px"]:
        return _nothing(areas, "the field of view has no pixel")
    density = areas["vessel_area_px"] / areas["fov_area_px"]
    if not areas["vessel_area_px"]:
        return _nothing({**areas, "vessel_density": density}, _EMPTY)
    skeleton = skeleton_of(vessels)
    reasons: dict[str, str] = {}
    dimensions = {"fractal_dimension": vessels, "fractal_dimension_skeleton": skeleton}
    boxes = {name: box_counting(each) for name, each in dimensions.items()}
    found = {name: each.dimension for name, each in boxes.items()}
    too_small = f"the vessels span too few pixels for {_LEAST_SCALES} sizes of boxes"
    reasons |= {name: too_small for name, value in found.items() if value is None}
    length_um = calibre_um = None
    if spacing_um is None:
        unknown = "the size of a pixel is not known: the file does not state it"
        reasons |= dict.fromkeys(("skeleton_length_um", "mean_calibre_um"), unknown)
    else:
        length_um = skeleton_length(skeleton, spacing=spacing_um)
        calibre_um = float(calibres(vessels, skeleton, spacing=spacing_um).mean())
    branches, ends = branch_and_end_points(skeleton)
    return VesselMeasures(
        **areas,
        vessel_density=density,
        skeleton_length_px=skeleton_length(skeleton),
        skeleton_length_um=length_um,
        mean_calibre_px=float(calibres(vessels, skeleton).mean()),
        mean_calibre_um=calibre_um,
        fractal_dimension=found["fractal_dimension"],
        fractal_dimension_skeleton=found["fractal_dimension_skeleton"],
        branch_points=branches,
        end_points=ends,
        reasons=reasons,
        fits={
            name: {"sizes_px": list(each.sizes), "counts": list(each.counts), "r_squared": each.r_squared}
            for name, each in boxes.items()
        },
    )


def skeleton_of(mask: _Mask) -> _Mask:
    """Return the centre lines of a mask, one pixel wide: scikit-image's ``skeletonize`` (Zhang's method).

    Args:
        mask: boolean (H, W).

    Raises:
        MissingExtraError: when scikit-image is not installed.
    """
    lines: _Mask = require("skimage.morphology", "train").skeletonize(mask)
    return lines


def skeleton_length(skeleton: _Mask, *, spacing: Spacing = (1.0, 1.0)) -> float:
    """Return the length of centre lines: the sum of all steps between neighbouring pixels.

    A step along an axis is as long as the pixel, a diagonal one √2 of that; a diagonal that only cuts the corner of two
    steps along the axes does not count. So a line of n pixels is n - 1 long, and a lone pixel 0.

    Args:
        skeleton: boolean (H, W), see ``skeleton_of``.
        spacing: height and width of a pixel.
    """
    upright = skeleton[:-1] & skeleton[1:]
    level = skeleton[:, :-1] & skeleton[:, 1:]
    falling = skeleton[:-1, :-1] & skeleton[1:, 1:] & ~skeleton[:-1, 1:] & ~skeleton[1:, :-1]
    rising = skeleton[1:, :-1] & skeleton[:-1, 1:] & ~skeleton[:-1, :-1] & ~skeleton[1:, 1:]
    height, width = spacing
    diagonals = int(falling.sum()) + int(rising.sum())
    return int(upright.sum()) * height + int(level.sum()) * width + diagonals * math.hypot(height, width)


def calibres(mask: _Mask, skeleton: _Mask, *, spacing: Spacing = (1.0, 1.0)) -> NDArray[np.float64]:
    """Return the width of a mask at each pixel of its centre lines.

    It is twice the distance to the nearest background, with one refinement: on the pixels themselves a bar of even
    width has no middle. So each pixel is first cut into four, and the largest of the four distances counts. A straight
    bar along an axis that is w pixels wide then gives exactly w, at every w. What lies outside the image is background.

    Args:
        mask: boolean (H, W).
        skeleton: its centre lines, boolean (H, W).
        spacing: height and width of a pixel.

    Returns:
        float64 (N,), one width for each pixel of the skeleton, row by row, in the unit of the spacing.
    """
    fine = np.pad(np.repeat(np.repeat(mask, 2, axis=0), 2, axis=1), 2)
    height, width = spacing
    if height == width:  # OpenCV is ten times as fast, and knows square pixels only
        twice = cv2.distanceTransform(fine.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * float(height)
    else:
        twice = scipy.ndimage.distance_transform_edt(fine, sampling=(height, width))
    rows, columns = (2 * place + 2 for place in np.nonzero(skeleton))  # 2: the frame
    four = [twice[rows + down, columns + right] for down in (0, 1) for right in (0, 1)]
    widths: NDArray[np.float64] = np.max(four, axis=0).astype(np.float64)  # in half pixels: twice the distance
    return widths


def box_counting(mask: _Mask, *, sizes: Sequence[int] | None = None) -> BoxCounting:
    """Estimate the fractal (box-counting, Minkowski) dimension of a mask.

    The grid starts at the mask's first row and column, so that moving the mask changes nothing. A straight line has
    dimension 1, a filled square 2; the vessels of a retina are in between. Where the shape does not repeat itself at
    the sizes that are counted, the estimate is off by some hundredths: a Sierpinski carpet gives its 1.893 at powers of
    three and about 1.85 at powers of two. The sizes decide the value for vessels, too: compare what was counted alike.

    Args:
        mask: boolean (H, W).
        sizes: sides of the boxes in pixels; by default the powers of two from 8 to a quarter of the longer side of the
            mask's bounding box. Boxes below the width of a vessel would count its area.

    Returns:
        The line's slope, and the counts behind it.

    Raises:
        InputError: when a size is below 1 or given twice.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if len(rows) == 0:
        return BoxCounting(None, (), (), None)
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if sizes is None:
        largest = max(box.shape) // 4
        sizes = [2**power for power in range(largest.bit_length()) if 2**power >= _SMALLEST_BOX_PX]
    sides = sorted(int(size) for size in sizes)
    if len(set(sides)) < len(sides) or (sides and sides[0] < 1):
        raise InputError(f"sizes of boxes are whole numbers of 1 or more, each once; got {list(sizes)}")
    counts = [_boxes(box, side) for side in sides]
    if len(sides) < _LEAST_SCALES:
        return BoxCounting(None, tuple(sides), tuple(counts), None)
    x, y = -np.log(sides), np.log(counts)
    slope, offset = np.polyfit(x, y, 1)
    spread = float(((y - y.mean()) ** 2).sum())
    unexplained = float(((y - slope * x - offset) ** 2).sum())
    return BoxCounting(float(slope), tuple(sides), tuple(counts), 1 - unexplained / spread if spread > 0 else 1.0)


def branch_and_end_points(skeleton: _Mask) -> tuple[int, int]:
    """Count the forks and the loose ends of centre lines.

    Going once around a pixel, the number of lines that leave it is that of the changes from background to skeleton:
    three or more make a fork, whose pixels count once where they touch, one makes a loose end.

    Args:
        skeleton: boolean (H, W), see ``skeleton_of``.

    Returns:
        Number of forks and crossings, and number of loose ends; a lone pixel is neither.
    """
    framed = np.pad(skeleton, 1)
    height, width = skeleton.shape
    around = [framed[1 + down : 1 + down + height, 1 + right : 1 + right + width] for down, right in _NEIGHBOURS]
    leaving = np.zeros(skeleton.shape, dtype=np.uint8)
    neighbours = np.zeros(skeleton.shape, dtype=np.uint8)
    for before, here in zip(around, around[1:] + around[:1], strict=True):
        leaving += ~before & here
        neighbours += here
    _, branches = scipy.ndimage.label(skeleton & (leaving >= 3), _EIGHT)
    ends = skeleton & (leaving == 1) & (neighbours <= 2)  # an end of three and more neighbours is a lump's border
    return int(branches), int(ends.sum())


def _boxes(mask: _Mask, side: int) -> int:
    padded = np.pad(mask, [(0, -length % side) for length in mask.shape])
    rows, columns = (length // side for length in padded.shape)
    return int(padded.reshape(rows, side, columns, side).any(axis=(1, 3)).sum())


def _inside(mask: Any, fov: Any) -> tuple[_Mask, _Mask]:
    vessels = _plane(mask, "mask")
    region = np.ones_like(vessels) if fov is None else _plane(fov, "fov")
    if region.shape != vessels.shape:
        raise InputError(f"fov has shape {region.shape}, expected that of the mask, {vessels.shape}")
    return vessels & region, region


def _plane(mask: Any, name: str) -> _Mask:
    plane = np.asarray(mask)
    if plane.ndim != 2:
        raise InputError(f"{name} must be one image (H, W), got shape {plane.shape}")
    if plane.dtype != np.bool_ and not np.isin(plane, (0, 1)).all():
        raise InputError(f"{name} must be a decided mask of 0 and 1, its values go from {plane.min()} to {plane.max()}")
    decided: _Mask = plane.astype(bool)
    return decided


def _check_spacing(spacing: Spacing | None) -> None:
    if spacing is not None and not all(math.isfinite(each) and each > 0 for each in spacing):
        raise InputError(f"spacing_um is {spacing}; expected height and width of a pixel in µm, both above 0")


def _nothing(known: dict[str, Any], reason: str) -> VesselMeasures:
    unknown = [name for name in MEASURES if name not in known]
    return VesselMeasures(**known, reasons=dict.fromkeys(unknown, reason))
