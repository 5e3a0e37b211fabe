"""The one place where MONAI's axes and those of image libraries meet.

MONAI's readers give files as ``(C, W, H)``: the first spatial axis runs along a row of the picture. Pillow, OpenCV and
scikit-image speak of ``(H, W, C)``. The two functions here only relabel axes: a tensor made by ``to_planes`` is a view
of the rows, so that ``to_rows`` gives the same memory back and OpenCV finds it contiguous.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor

from msrf_monai.errors import InputError

__all__ = ["plain", "to_planes", "to_rows", "with_meta"]


def plain(data: torch.Tensor | npt.NDArray[Any]) -> torch.Tensor:
    """Return the same data as a plain ``torch.Tensor`` without metadata, so that each operation on it stays cheap."""
    if isinstance(data, MetaTensor):
        tensor: torch.Tensor = data.as_tensor()
        return tensor
    return data if isinstance(data, torch.Tensor) else torch.as_tensor(data)


def to_rows(planes: torch.Tensor | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a channel-first image in row order.

    Args:
        planes: ``(C, W, H)``, any dtype, on any device.

    Returns:
        ``(H, W, C)``, contiguous; a view where the memory already lies so, a copy otherwise.

    Raises:
        InputError: when the image has not three axes.
    """
    tensor = plain(planes)
    if tensor.ndim != 3:
        raise InputError(
            f"a 2-D image has the shape (C, W, H), got {tuple(tensor.shape)}; apply this transform to single images, "
            "after a channel-first loader and before batching"
        )
    return np.ascontiguousarray(tensor.detach().cpu().permute(2, 1, 0).numpy())


def to_planes(rows: npt.NDArray[Any]) -> torch.Tensor:
    """Return an image in row order as MONAI holds it.

    Args:
        rows: ``(H, W)`` or ``(H, W, C)``.

    Returns:
        ``(C, W, H)``, a view of the same memory where NumPy allows it (a read-only array is copied).
    """
    rows = rows[..., None] if rows.ndim == 2 else rows
    writable = rows if rows.flags.writeable and min(rows.strides, default=0) >= 0 else rows.copy()
    return torch.from_numpy(writable).permute(2, 1, 0)


def with_meta(tensor: torch.Tensor, like: Any) -> torch.Tensor:
    """Return ``tensor`` with the metadata and the history of ``like``, where MONAI tracks them and ``like`` has any."""
    if not (isinstance(like, MetaTensor) and get_track_meta()):
        return tensor
    tracked: torch.Tensor = MetaTensor(tensor).copy_meta_from(like)  # type: ignore[no-untyped-call]
    return tracked
