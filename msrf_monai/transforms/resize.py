"""Resize images and masks, fast on uint8, and undo it on predictions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms.inverse import InvertibleTransform
from monai.transforms.transform import MapTransform
from monai.transforms.utils import scale_affine
from monai.utils.enums import TraceKeys
from monai.utils.misc import ensure_tuple_rep

from msrf_monai.errors import ConfigError
from msrf_monai.transforms.resampling import ResizeMode, check_mode, resize_rows
from msrf_monai.transforms.rows import to_planes, to_rows, with_meta
from msrf_monai.transforms.slices import each_slice

__all__ = ["Resize2D", "Resize2Dd", "resize_planes"]


def resize_planes(planes: torch.Tensor, spatial_size: Sequence[int], mode: ResizeMode) -> torch.Tensor:
    """Resample a channel-first image.

    Args:
        planes: ``(C, W, H)``, on any device; the work is done on the CPU.
        spatial_size: new (W, H), in the order of the array's own axes.
        mode: see ``resampling.resize_rows``.

    Returns:
        A plain tensor ``(C, *spatial_size)`` on the device of ``planes``; uint8 for uint8 and bool, else float32.
    """
    width, height = (int(size) for size in spatial_size)
    return to_planes(resize_rows(to_rows(planes), width, height, mode)).to(planes.device)


class Resize2D(InvertibleTransform):
    """Resize a channel-first 2-D image; ``Invertd`` restores the former size on a prediction.

    The inverse is bilinear; it is nearest when ``Invertd`` asks for it (its ``nearest_interp``) and for the modes of
    masks.

    Args:
        spatial_size: new size in the order of the array's own axes, which for image files is **(width, height)**, since
            MONAI holds them as ``(C, W, H)``; one number for a square; None to leave every image as it is.
        mode: ``"lanczos"``, ``"area"``, ``"bilinear"``, ``"nearest"`` or ``"lanczos_mask"``, see ``resize_rows``.

    Raises:
        ConfigError: when the size or the mode is none of the above.
    """

    def __init__(self, spatial_size: Sequence[int] | int | None, mode: ResizeMode = "lanczos") -> None:
        check_mode(mode)
        self.spatial_size = _as_size(spatial_size)
        self.mode: ResizeMode = mode

    def __call__(self, img: torch.Tensor, mode: ResizeMode | None = None) -> torch.Tensor:
        """Resize one image.

        Args:
            img: ``(C, W, H)``.
            mode: replaces the mode given at construction.

        Returns:
            ``(C, *spatial_size)``, uint8 for uint8 and bool, else float32, with the metadata of ``img``.

        Raises:
            InputError: when ``img`` has not three axes.
        """
        if self.spatial_size is None:
            return img
        mode = self.mode if mode is None else mode
        before = tuple(int(size) for size in img.shape[1:])
        out = with_meta(resize_planes(img, self.spatial_size, mode), img)
        if get_track_meta() and not isinstance(out, MetaTensor):
            out = MetaTensor(out)
        if not isinstance(out, MetaTensor):
            return out
        tracked: torch.Tensor = self.push_transform(  # type: ignore[no-untyped-call]
            out,
            orig_size=before,
            sp_size=self.spatial_size,
            affine=scale_affine(before, self.spatial_size, align_corners=False),
            # the way back; under a name that Invertd knows, so that its nearest_interp can change it
            extra_info={"mode": "nearest" if mode in ("nearest", "lanczos_mask") else "bilinear"},
        )
        return tracked

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        """Restore the size that the image had before.

        Args:
            data: ``(K, W, H)`` MetaTensor whose history holds this transform.

        Returns:
            ``(K, *former size)``.
        """
        if self.spatial_size is None:
            return data
        info = self.pop_transform(data)
        before = [int(size) for size in info[TraceKeys.ORIG_SIZE]]
        mode: ResizeMode = "nearest" if info[TraceKeys.EXTRA_INFO]["mode"] == "nearest" else "bilinear"
        restored = data if list(data.shape[1:]) == before else with_meta(resize_planes(data, before, mode), data)
        return _restore_affine(restored, data.shape[1:], before)


class Resize2Dd(MapTransform, InvertibleTransform):
    """Dictionary form of ``Resize2D``.

    Args:
        keys: keys of the images.
        spatial_size: new (width, height) of image files, one number for a square, or None for no change.
        mode: one mode, or one for each key; masks want ``"nearest"`` or ``"lanczos_mask"``.
        allow_missing_keys: skip keys that an item has not.

    Raises:
        ConfigError: when the size or a mode is not one that ``Resize2D`` knows.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spatial_size: Sequence[int] | int | None,
        mode: ResizeMode | Sequence[ResizeMode] = "lanczos",
        *,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        for one in self.mode:
            check_mode(one)
        self.resizer = Resize2D(spatial_size)

    @each_slice
    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resize the images of one item; see ``Resize2D.__call__``."""
        d = dict(data)
        for key, mode in self.key_iterator(d, self.mode):
            d[key] = self.resizer(d[key], mode=mode)
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Restore the sizes of one item; see ``Resize2D.inverse``."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.resizer.inverse(d[key])
        return d


def _as_size(spatial_size: Sequence[int] | int | None) -> tuple[int, int] | None:
    if spatial_size is None:
        return None
    sizes = (spatial_size, spatial_size) if isinstance(spatial_size, int) else tuple(spatial_size)
    if len(sizes) != 2 or not all(isinstance(size, (int, np.integer)) and size > 0 for size in sizes):
        raise ConfigError(f"spatial_size must be one or two whole numbers > 0, or None; got {spatial_size!r}")
    return int(sizes[0]), int(sizes[1])


def _restore_affine(img: torch.Tensor, shape: Sequence[int], target: Sequence[int]) -> torch.Tensor:
    """Undo what resizing did to the affine (and to the spacing that some readers keep beside it)."""
    if isinstance(img, MetaTensor):
        back = torch.as_tensor(scale_affine(list(shape), list(target), align_corners=False), dtype=torch.float64)
        rank = img.affine.shape[-1]
        full = torch.eye(rank, dtype=torch.float64)
        full[:2, :2], full[:2, -1] = back[:2, :2], back[:2, -1]
        img.affine = img.affine.to(torch.float64) @ full
        if "pixdim" in img.meta:
            spacing = affine_to_spacing(img.affine)
            img.meta["pixdim"][1 : 1 + len(spacing)] = spacing
    return img
