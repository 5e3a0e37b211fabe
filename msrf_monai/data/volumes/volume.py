"""A volume in memory with its place in the patient, and how its slices are turned for display."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_VOXELS", "Volume", "axis_order", "display_order"]

MAX_VOXELS = 2**29
"""Largest volume that is read: 537 million voxels, such as 1024 x 1024 x 512."""

_DISPLAY = (1.0, 1.0, -1.0)
"""Where columns and rows run on a display: to the patient's left, to the back, to the feet."""


@dataclass(frozen=True)
class Volume:
    """A volume.

    Attributes:
        values: ``(X, Y, Z)``; slices are ``values[:, :, k]``.
        affine: ``(4, 4)``, from voxel indices to millimetres in DICOM's directions: to the patient's left, to the back,
            to the head.
        remark: what is odd in it, in words, or an empty string.
    """

    values: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]
    remark: str = ""

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """Distance between rows and between columns of a displayed slice."""
        lengths = np.linalg.norm(self.affine[:3, :2], axis=0)
        columns, rows = (0, 1) if display_order(self.affine)[0] else (1, 0)
        return float(lengths[rows]), float(lengths[columns])

    @property
    def slice_spacing_mm(self) -> float:
        """Distance between the planes of neighbouring slices."""
        normal = np.cross(self.affine[:3, 0], self.affine[:3, 1])
        return float(abs(normal @ self.affine[:3, 2]) / np.linalg.norm(normal))

    def slices(self, values: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Return the slices as they are displayed: the patient's front above and right side on the left.

        Args:
            values: another array on the same grid, such as a mask; None for the volume's own values.

        Returns:
            ``(Z, rows, columns)``, a view; the order of the slices is that of the file.
        """
        x_is_column, flip_x, flip_y = display_order(self.affine)
        turned = self.values if values is None else values
        turned = turned[:: -1 if flip_x else 1, :: -1 if flip_y else 1]
        return turned.transpose(2, 1, 0) if x_is_column else turned.transpose(2, 0, 1)


def axis_order(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return nibabel's orientation of an affine: for each axis the nearest direction, 0 to 2, and its sign."""
    # imported here, since most data sets are pictures; by name, since it has types only in part
    orientations: Any = import_module("nibabel.orientations")
    order: npt.NDArray[np.float64] = orientations.io_orientation(affine)
    return order


def display_order(affine: npt.NDArray[np.float64]) -> tuple[bool, bool, bool]:
    """Say how the first two axes of a volume lie on a display.

    Args:
        affine: see ``Volume``.

    Returns:
        Whether the first axis runs along the columns' numbers (from left to right), and whether the first and the
        second axis have to be turned round.
    """
    (world_x, sign_x), (world_y, sign_y) = axis_order(affine)[:2]
    return (
        bool(world_x < world_y),
        bool(sign_x * _DISPLAY[int(world_x)] < 0),
        bool(sign_y * _DISPLAY[int(world_y)] < 0),
    )
