"""Where the pixels of a warped image come from, and how they are fetched.

Not MONAI's ``Affine``: it mirrors an image at the outer side of its rim, and the published augmentations at the centres
of the outermost pixels; nor has MONAI a lens with radial distortion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import grid_sample

from msrf_monai.errors import InputError
from msrf_monai.transforms.rows import plain

__all__ = ["affine_positions", "distortion_positions", "warp", "zoom_matrix"]

Matrix = npt.NDArray[np.float64]


def zoom_matrix(
    *,
    scale: Sequence[float] = (1.0, 1.0),
    rotation: float = 0.0,
    shear: Sequence[float] = (0.0, 0.0),
) -> Matrix:
    """Return the matrix that takes a point of the image, counted from its centre, to its new place.

    Args:
        scale: factors along x (columns) and y (rows).
        rotation: angle in radians, from x towards y.
        shear: angles in radians by which x is sheared along y, after the scale, and y along x, before it.

    Returns:
        ``(2, 2)``; its determinant, by which areas change, is the product of the scales.
    """
    turn = np.array([[np.cos(rotation), -np.sin(rotation)], [np.sin(rotation), np.cos(rotation)]])
    along_x = np.array([[1, np.tan(shear[0])], [0, 1]])
    along_y = np.array([[1, 0], [np.tan(shear[1]), 1]])
    matrix: Matrix = turn @ along_x @ np.diag(scale) @ along_y
    return matrix


def affine_positions(size: tuple[int, int], matrix: Matrix, shift_px: Sequence[float] = (0.0, 0.0)) -> torch.Tensor:
    """Return where each pixel of an affinely moved image comes from.

    Args:
        size: width and height.
        matrix: see ``zoom_matrix``.
        shift_px: what is added afterwards, along x and y.

    Returns:
        float32 ``(2, W, H)``: x and y in pixels, counted from the centre of the first pixel.
    """
    centre = (np.array(size) - 1) / 2
    back = np.linalg.inv(matrix)
    offset = centre - back @ (centre + np.asarray(shift_px, np.float64))
    x, y = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return torch.stack(
        [float(row[0]) * x + float(row[1]) * y + float(off) for row, off in zip(back, offset, strict=True)]
    )


def distortion_positions(
    size: tuple[int, int], strength: float, shift_px: Sequence[float] = (0.0, 0.0)
) -> torch.Tensor:
    """Return where each pixel comes from behind a lens with radial distortion (Brown's model with k1 = k2).

    Args:
        size: width and height, which are also the focal lengths.
        strength: k; above 0 the image is squeezed, below it is stretched at the rim.
        shift_px: shift of the lens' axis from the middle of the image, along x and y.

    Returns:
        float32 ``(2, W, H)``, as ``affine_positions``.
    """
    middle = [0.5 * length + shift for length, shift in zip(size, shift_px, strict=True)]
    x = ((torch.arange(size[0], dtype=torch.float64) - middle[0]) / size[0])[:, None]
    y = ((torch.arange(size[1], dtype=torch.float64) - middle[1]) / size[1])[None, :]
    radius2 = x**2 + y**2
    factor = 1 + strength * radius2 + strength * radius2**2
    return torch.stack([x * factor * size[0] + middle[0], y * factor * size[1] + middle[1]]).to(torch.float32)


def warp(
    img: torch.Tensor,
    positions: torch.Tensor,
    *,
    mode: Literal["bilinear", "nearest"] = "bilinear",
    padding_mode: Literal["zeros", "reflection"] = "reflection",
) -> torch.Tensor:
    """Fetch the pixels of a warped image.

    Args:
        img: ``(C, W, H)``.
        positions: ``(2, W', H')``, see ``affine_positions``.
        mode: "bilinear" for images, "nearest" for masks.
        padding_mode: what lies outside: 0, or the image mirrored at the centres of its outermost pixels.

    Returns:
        A plain tensor ``(C, W', H')`` of the dtype of ``img``, whole numbers rounded.

    Raises:
        InputError: when ``img`` or ``positions`` has not three axes.
    """
    tensor = plain(img)
    if tensor.ndim != 3 or positions.ndim != 3 or positions.shape[0] != 2:
        raise InputError(
            f"an image (C, W, H) and positions (2, W, H) were expected, got the shapes {tuple(tensor.shape)} and "
            f"{tuple(positions.shape)}"
        )
    values = tensor.to(torch.float32)[None]
    ends = torch.tensor([max(length - 1, 1) for length in tensor.shape[1:]]).view(2, 1, 1)
    grid = 2 * positions.to("cpu", torch.float32) / ends - 1  # -1 and 1 are the centres of the outermost pixels
    grid = grid.flip(0).permute(1, 2, 0)[None].to(values.device)  # the last axis of the image comes first
    fetched = grid_sample(values, grid, mode=mode, padding_mode=padding_mode, align_corners=True)[0]
    return fetched.to(tensor.dtype) if tensor.dtype.is_floating_point else fetched.round().to(tensor.dtype)
