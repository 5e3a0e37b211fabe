"""Load any clinical case in a MONAI chain: ``LoadClinicalImage`` and ``LoadClinicalImaged``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection
from monai.data.image_reader import ImageReader
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor

from msrf_monai.clinical.monai_reader import ClinicalImageReader
from msrf_monai.transforms.load import FileLoader, FileLoaderd, FileName

__all__ = ["LoadClinicalImage", "LoadClinicalImaged"]


class LoadClinicalImage(FileLoader):
    """Load one clinical input as a channel-first MetaTensor.

    What ``ClinicalImageReader`` reads, with nothing to fall back to: DICOM, pictures, NIfTI and MetaImage, a folder of
    one volume, or the files of one series. 8-bit images stay uint8; all others become float32 of the same values, not
    windowed and not scaled.

    Args:
        limits: bounds that differ from those of ``clinical.reading.Limits``, by name, such as ``{"frames": 500}``.
        convert_unusual: take grey with alpha as grey, and CMYK by the plain formula, instead of refusing them.
        image_only: return the image alone, or the pair (image, metadata).

    Raises:
        ConfigError: when there is no such limit.
    """

    def __init__(
        self, limits: Mapping[str, int] | None = None, *, convert_unusual: bool = False, image_only: bool = True
    ) -> None:
        self._reader = ClinicalImageReader(limits, convert_unusual)
        super().__init__(max_pixels=self._reader.limits.frame_pixels, image_only=image_only)

    def __call__(self, filename: Sequence[FileName] | FileName, reader: ImageReader | None = None) -> Any:
        """Load one input.

        Args:
            filename: a file, a folder of one image or volume, or a list of the files of one series.
            reader: must be None; it is here because MONAI's loader has it.

        Returns:
            ``(C, W, H)``, or ``(C, W, H, D)`` for several frames, C 1 or 3, uint8 or float32; or the pair of it and its
            metadata when ``image_only`` is False.

        Raises:
            DataError: when it is refused; the message names the file, the code and the reason.
            ConfigError: when a reader is given.
        """
        if reader is not None:
            self.register(reader)
        pixels, meta = self._reader.get_data(self._reader.read(filename))
        planes = np.moveaxis(pixels, -1, 0) if meta["original_channel_dim"] == -1 else pixels[None]
        tensor = torch.from_numpy(planes if planes.dtype == np.uint8 else planes.astype(np.float32, copy=False))
        meta["original_channel_dim"] = 0
        image: torch.Tensor = MetaTensor(tensor, meta=meta) if get_track_meta() else tensor
        return image if self.image_only else (image, getattr(image, "meta", meta))


class LoadClinicalImaged(FileLoaderd):
    """Dictionary form of ``LoadClinicalImage``: ``data[key]``, a path, becomes a channel-first MetaTensor.

    Args:
        keys: keys of the paths.
        limits: bounds that differ from the usual ones, see ``LoadClinicalImage``.
        convert_unusual: see ``LoadClinicalImage``.
        meta_keys: where the metadata goes when ``image_only`` is False; default ``{key}_{meta_key_postfix}``.
        meta_key_postfix: see ``meta_keys``.
        overwriting: allow metadata that is already there to be replaced.
        image_only: keep the metadata in the MetaTensor alone.
        allow_missing_keys: skip keys that an item has not.

    Raises:
        ConfigError: when an argument is none of the above.
    """

    def __init__(
        self,
        keys: KeysCollection,
        limits: Mapping[str, int] | None = None,
        *,
        convert_unusual: bool = False,
        meta_keys: KeysCollection | None = None,
        meta_key_postfix: str = "meta_dict",
        overwriting: bool = False,
        image_only: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(
            keys,
            LoadClinicalImage(limits, convert_unusual=convert_unusual, image_only=image_only),
            meta_keys=meta_keys,
            meta_key_postfix=meta_key_postfix,
            overwriting=overwriting,
            allow_missing_keys=allow_missing_keys,
        )
