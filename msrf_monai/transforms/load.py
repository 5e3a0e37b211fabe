"""Load a 2-D image of any usual kind as a channel-first MetaTensor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection
from monai.data.image_reader import ImageReader
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms.io.array import LoadImage
from monai.transforms.io.dictionary import LoadImaged
from monai.transforms.transform import MapTransform
from monai.utils.misc import ensure_tuple, ensure_tuple_rep

from msrf_monai.errors import ConfigError, DataError
from msrf_monai.transforms.picture import Intensity, Picture, check_intensity, to_channels, to_intensity
from msrf_monai.transforms.raster import DEFAULT_MAX_PIXELS, Palette
from msrf_monai.transforms.reading import read_picture
from msrf_monai.transforms.rows import to_planes

__all__ = ["FileLoader", "FileLoaderd", "LoadImage2D", "LoadImage2Dd"]

FileName = str | os.PathLike[str]


class FileLoader(LoadImage):
    """What the loaders of images and of masks share: one path in, one MetaTensor ``(C, W, H)`` out.

    It is a ``monai.transforms.LoadImage`` with the same attributes, but builds none of MONAI's readers: they would be
    probed for each loader, and none is tried here.
    """

    _palette: Palette = "colour"
    _volumes = False

    def __init__(self, *, max_pixels: int = DEFAULT_MAX_PIXELS, image_only: bool = True) -> None:
        self.auto_select = True
        self.image_only = image_only
        self.dtype = None
        self.ensure_channel_first = True
        self.simple_keys = False
        self.pattern = None
        self.sep = "."
        self.expanduser = True
        self.readers: list[ImageReader] = []
        self.max_pixels = max_pixels

    def register(self, reader: ImageReader) -> None:
        """Refuse a reader of MONAI's: these loaders choose by the file's content alone.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"{type(self).__name__} reads its files by itself and takes no reader ({type(reader).__name__}); "
            "use monai.transforms.LoadImaged for a reader of your own"
        )

    def __call__(self, filename: Sequence[FileName] | FileName, reader: ImageReader | None = None) -> Any:
        """Load one file.

        Args:
            filename: the file, or a list of one file.
            reader: must be None; it is here because MONAI's loader has it.

        Returns:
            The MetaTensor, or the pair (MetaTensor, metadata) when ``image_only`` is False.

        Raises:
            DataError: when the file cannot be read as one 2-D image.
            ConfigError: when a reader is given.
        """
        if reader is not None:
            self.register(reader)
        path = _one_path(filename)
        picture = read_picture(path, max_pixels=self.max_pixels, palette=self._palette, volumes=self._volumes)
        planes = to_planes(np.ascontiguousarray(self._pixels(picture, str(path))))
        planes, size = _slices(planes, picture.depth)
        meta = {
            **picture.meta,
            "filename_or_obj": str(path),
            # NumPy, not torch: MONAI Label compares it with np.not_equal
            "spatial_shape": np.asarray(size),
            "original_channel_dim": 0,
        }
        image: torch.Tensor = MetaTensor(planes, meta=meta) if get_track_meta() else planes
        if self.image_only:
            return image
        return image, getattr(image, "meta", meta)

    def _pixels(self, picture: Picture, name: str) -> Any:
        raise NotImplementedError


class LoadImage2D(FileLoader):
    """Load one 2-D image as a channel-first MetaTensor.

    PNG, JPEG, TIFF, BMP, PPM, GIF, WebP, single-frame DICOM and 2-D NIfTI. Alpha is dropped without blending, palettes
    are looked up, CMYK becomes RGB, the EXIF orientation is applied. 8-bit images stay uint8; deeper ones become
    float32 in [0, 255] by ``intensity``.

    Args:
        channels: 3 (grey is repeated) or 1 (colour is weighed as ITU-R 601).
        intensity: ``"full_range"`` (16 bits: 65535 becomes 255) or ``"minmax"`` (the image's own range becomes 0..255).
        max_pixels: largest width times height; larger files are refused before they are decoded.
        image_only: return the image alone, or the pair (image, metadata).
        volumes: load the slices of a NIfTI volume as ``(C, W, H, D)`` instead of refusing it; MONAI Label hands over a
            CT or MR series so.

    Raises:
        ConfigError: when ``channels`` or ``intensity`` is none of the above.
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        intensity: Intensity = "full_range",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        image_only: bool = True,
        volumes: bool = False,
    ) -> None:
        super().__init__(max_pixels=max_pixels, image_only=image_only)
        self._volumes = volumes
        if channels not in (1, 3):
            raise ConfigError(f"channels must be 1 or 3, got {channels!r}")
        check_intensity(intensity)
        self.channels = channels
        self.intensity: Intensity = intensity

    def _pixels(self, picture: Picture, name: str) -> Any:
        return to_channels(to_intensity(picture, self.intensity, name), self.channels)


class FileLoaderd(LoadImaged):
    """Dictionary form of a ``FileLoader``; a ``monai.transforms.LoadImaged``, by which MONAI Label knows it."""

    def __init__(
        self,
        keys: KeysCollection,
        loader: FileLoader,
        *,
        meta_keys: KeysCollection | None = None,
        meta_key_postfix: str = "meta_dict",
        overwriting: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        # LoadImaged would build a LoadImage, and that all of MONAI's readers, only to have it replaced
        MapTransform.__init__(self, keys, allow_missing_keys)
        self._loader = loader
        self.meta_keys = ensure_tuple_rep(None, len(self.keys)) if meta_keys is None else ensure_tuple(meta_keys)
        if len(self.keys) != len(self.meta_keys):
            raise ConfigError(f"{len(self.keys)} keys need as many meta_keys, got {len(self.meta_keys)}")
        self.meta_key_postfix = ensure_tuple_rep(meta_key_postfix, len(self.keys))
        self.overwriting = overwriting


class LoadImage2Dd(FileLoaderd):
    """Dictionary form of ``LoadImage2D``: ``data[key]``, a path, becomes a channel-first MetaTensor ``(C, W, H)``.

    Args:
        keys: keys of the paths.
        channels: 3 (grey is repeated) or 1 (colour is weighed as ITU-R 601).
        intensity: ``"full_range"`` or ``"minmax"``, see ``LoadImage2D``.
        max_pixels: largest width times height; larger files are refused before they are decoded.
        meta_keys: where the metadata goes when ``image_only`` is False; default ``{key}_{meta_key_postfix}``.
        meta_key_postfix: see ``meta_keys``.
        overwriting: allow metadata that is already there to be replaced.
        image_only: keep the metadata in the MetaTensor alone.
        allow_missing_keys: skip keys that an item has not.
        volumes: load the slices of a NIfTI volume as ``(C, W, H, D)`` instead of refusing it.

    Raises:
        ConfigError: when an argument is none of the above.
    """

    def __init__(
        self,
        keys: KeysCollection,
        channels: int = 3,
        *,
        intensity: Intensity = "full_range",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        meta_keys: KeysCollection | None = None,
        meta_key_postfix: str = "meta_dict",
        overwriting: bool = False,
        image_only: bool = True,
        allow_missing_keys: bool = False,
        volumes: bool = False,
    ) -> None:
        super().__init__(
            keys,
            LoadImage2D(channels, intensity=intensity, max_pixels=max_pixels, image_only=image_only, volumes=volumes),
            meta_keys=meta_keys,
            meta_key_postfix=meta_key_postfix,
            overwriting=overwriting,
            allow_missing_keys=allow_missing_keys,
        )


def _slices(planes: torch.Tensor, depth: int | None) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Return ``(C, W, H)``, or ``(C, W, H, D)`` of a volume, and the size of the file on its own axes."""
    channels, width, height = planes.shape
    if depth is None:
        return planes, (width, height)
    height //= depth
    if depth > 1:
        planes = planes.reshape(channels, width, depth, height).transpose(2, 3)
    return planes, (width, height, depth)


def _one_path(filename: Sequence[FileName] | FileName) -> Path:
    names = ensure_tuple(filename)
    if len(names) != 1 or not isinstance(names[0], (str, os.PathLike)):
        raise DataError(f"one path of an image file was expected, got {filename!r:.200}")
    return Path(names[0]).expanduser()
