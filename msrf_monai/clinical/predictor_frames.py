"""The one place where a case's frame becomes what a bundle's own loader would have given: ``(C, W, H)`` with metadata.

``Case`` speaks of rows and columns; MONAI holds files as ``(C, W, H)``. The first loading transform of a bundle's
chain is kept, and its own rules (channels, dtype, channel first or not) are applied to the frame instead of to a file.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config.type_definitions import PathLike
from monai.data.image_reader import ImageReader
from monai.data.meta_tensor import MetaTensor
from monai.transforms.io.dictionary import LoadImaged
from monai.utils.enums import SpaceKeys

from msrf_monai.clinical.case import Case, ImageInfo
from msrf_monai.clinical.intensity import IntensityPolicy, IntensityScaler
from msrf_monai.clinical.monai_reader import to_monai
from msrf_monai.transforms.load import FileLoaderd, LoadImage2D
from msrf_monai.transforms.picture import Picture, to_channels
from msrf_monai.transforms.rows import to_planes

__all__ = ["FrameLoader", "frame_affine", "make_loader"]


@dataclass(frozen=True)
class FrameLoader:
    """Give a frame as the bundle's loading transform would give its file.

    ``LoadImage2Dd`` gets the frame on the scale 0..255 and makes its own channels of it. Any other loader gets the
    values as they are, as MONAI's readers and ``LoadClinicalImaged`` do, in as many channels as the network takes, when
    that is 1 or 3.
    """

    loader: LoadImaged
    scaler: IntensityScaler
    channels: int | None
    """Channels for loaders that have no rule of their own: 1, 3, or None to leave the frame as it is."""

    @property
    def key(self) -> Hashable:
        """The image's key in the chain."""
        return self.loader.keys[0]

    def picture(self, case: Case, pixels: npt.NDArray[Any]) -> Picture:
        """Return a frame ``(H, W)`` or ``(H, W, 3)`` on the bundle's scale; raises ``DataError`` where it cannot be."""
        return self.scaler.picture(case, pixels)

    def load(self, case: Case, index: int, picture: Picture) -> dict[Hashable, Any]:
        """Return an item with the image, and with its metadata where the loader gives them apart.

        Args:
            case: where the frame is from.
            index: the frame's number.
            picture: the frame, from ``picture``.

        Returns:
            The item of one key, or two.

        Raises:
            DataError: when the loader cannot take such values.
        """
        source = str(case.sources[min(index, len(case.sources) - 1)]) if case.sources else ""
        place = frame_affine(case.info, index)
        own = self.loader._loader
        if isinstance(own, LoadImage2D):
            planes = to_planes(np.ascontiguousarray(own._pixels(picture, "the image")))
            return self._item(_with_meta(planes, {**_place_meta(place), "filename_or_obj": source}))
        rows = self._with_channels(picture.rows)
        if isinstance(self.loader, FileLoaderd):
            return self._item(_as_clinical(case, index, rows, picture.white))
        return dict(self.loader({self.key: source}, reader=_FrameReader(rows, place)))

    def _item(self, image: MetaTensor) -> dict[Hashable, Any]:
        if self.loader._loader.image_only:
            return {self.key: image}
        name = self.loader.meta_keys[0] or f"{self.key}_{self.loader.meta_key_postfix[0]}"
        return {self.key: image, name: image.meta}

    def _with_channels(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self.channels is None or rows.shape[2] == self.channels:
            return rows
        # OpenCV and Pillow weigh colours in 8 bits or float32 only
        fit = rows if rows.dtype == np.uint8 else rows.astype(np.float32)
        return to_channels(fit, self.channels)


def _with_meta(planes: torch.Tensor, meta: dict[str, Any]) -> MetaTensor:
    known = {**meta, "spatial_shape": np.asarray(planes.shape[1:]), "original_channel_dim": 0}
    return MetaTensor(planes, meta=known)


@dataclass(frozen=True)
class _OneFrame:
    """The pixels of a case of one frame."""

    rows: npt.NDArray[Any]

    def frame(self, index: int) -> npt.NDArray[Any]:
        """Return the frame."""
        return self.rows


def _as_clinical(case: Case, index: int, rows: npt.NDArray[Any], white: float | None) -> MetaTensor:
    """Return a frame as ``LoadClinicalImaged`` gives a file that holds nothing else."""
    values = rows if rows.dtype == np.uint8 else rows.astype(np.float32)
    places = case.info.positions_mm
    affine = None if case.info.affine is None else frame_affine(case.info, index)
    alone = replace(
        case.info,
        frames=1,
        samples=3 if values.shape[2] == 3 else 1,
        dtype="uint8" if values.dtype == np.uint8 else "float32",
        white=white,
        positions_mm=None if places is None else places[min(index, len(places) - 1) :][:1],
        affine=None if affine is None else tuple(tuple(line) for line in affine.tolist()),
    )
    source = case.sources[min(index, len(case.sources) - 1) :][:1]
    pixels = _OneFrame(values if alone.samples == 3 else values[..., 0])
    array, meta = to_monai(Case(case.digest, source, alone, pixels))
    planes = np.moveaxis(array, -1, 0) if alone.samples == 3 else array[None]
    return _with_meta(torch.from_numpy(planes), meta)


class _FrameReader(ImageReader):
    """A reader of MONAI's kind whose file is a frame that has been decoded already."""

    def __init__(self, rows: npt.NDArray[Any], place: npt.NDArray[np.float64] | None) -> None:
        self._rows = rows
        self._place = place

    def verify_suffix(self, filename: Any) -> bool:
        """Accept any name."""
        return True

    def read(self, data: PathLike | Any, **_: Any) -> Any:
        """Return the name: there is nothing to open."""
        return data

    def get_data(self, img: Any) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Return the frame ``(W, H)`` or ``(W, H, 3)`` and its metadata, as ``PILReader`` does."""
        is_grey = self._rows.shape[2] == 1
        array = np.swapaxes(self._rows[..., 0] if is_grey else self._rows, 0, 1)
        meta = {
            **_place_meta(self._place),
            "spatial_shape": np.asarray(array.shape[:2]),
            "original_channel_dim": float("nan") if is_grey else -1,
        }
        return array, meta


def frame_affine(info: ImageInfo, index: int) -> npt.NDArray[np.float64] | None:
    """Return the affine that MONAI's readers give for a frame: pixel (column, row) to millimetres in RAS.

    Args:
        info: of the case.
        index: the frame's number.

    Returns:
        4 x 4, or None where the file does not say where its pixels lie, for which MONAI takes the identity.
    """
    if info.affine is not None:
        affine = np.array(info.affine, dtype=np.float64)
        if len(info.stored_shape) >= 3:
            affine[:3, 3] += affine[:3, 2] * index
        return affine
    if info.orientation is None or info.positions_mm is None or info.spacing_mm is None:
        return None
    row, column = (np.array(direction) for direction in info.orientation)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * info.spacing_mm[1], column * info.spacing_mm[0]
    affine[:3, 3] = info.positions_mm[min(index, len(info.positions_mm) - 1)]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # DICOM's x and y run to the left and to the back


def _place_meta(place: npt.NDArray[np.float64] | None) -> dict[str, Any]:
    return {} if place is None else {"affine": place, "original_affine": place.copy(), "space": SpaceKeys.RAS}


def make_loader(
    loader: LoadImaged, intensity: Any, channels: int | None, read: Callable[[Case, int], npt.NDArray[Any]] = Case.frame
) -> FrameLoader:
    """Return the stand-in of a loading transform.

    Args:
        loader: the bundle's.
        intensity: the key of that name in the bundle's config, or None.
        channels: see ``FrameLoader``.
        read: see ``IntensityScaler``.

    Raises:
        ConfigError: when ``intensity`` is not understood.
    """
    policy = IntensityPolicy.from_config(intensity, "auto" if isinstance(loader._loader, LoadImage2D) else "stored")
    return FrameLoader(loader, IntensityScaler(policy, read), channels)
