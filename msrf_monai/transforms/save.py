"""Save masks and probability maps of the source's size, whole or not at all, under names that never meet."""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config.type_definitions import KeysCollection
from monai.data.folder_layout import FolderLayoutBase
from monai.data.meta_tensor import MetaTensor
from monai.transforms.io.array import SaveImage
from monai.transforms.transform import Transform

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.files import write_bytes
from msrf_monai.transforms.encode import check_extension, encode
from msrf_monai.transforms.layout import SafeFolderLayout
from msrf_monai.transforms.result_saver import ResultSaverd
from msrf_monai.transforms.rows import to_rows

__all__ = ["FileSaver", "FileSaverd", "SaveMask", "SaveMaskd", "SaveProbability", "SaveProbabilityd"]

_log = logging.getLogger(__name__)


class FileSaver(SaveImage):
    """What the savers share: a name from the metadata, pixels from the subclass, one atomic write.

    Args:
        output_dir: the folder of the results, made when missing.
        output_postfix: added to the stem of the name.
        output_ext: extension of the results.
        data_root_dir: the folder below which sub-folders are kept; see ``SafeFolderLayout``.
        separate_folder: put each result into a folder named after its stem.
        folder_layout: another way of naming; then the four arguments above do not count.
    """

    _extensions: tuple[str, ...] = (".png",)

    def __init__(
        self,
        output_dir: str | os.PathLike[str] = "./",
        *,
        output_postfix: str,
        output_ext: str = ".png",
        data_root_dir: str | os.PathLike[str] = "",
        separate_folder: bool = False,
        folder_layout: FolderLayoutBase | None = None,
    ) -> None:
        Transform.__init__(self)
        self.output_ext = check_extension(output_ext, self._extensions)
        self.folder_layout = folder_layout or SafeFolderLayout(
            output_dir, output_postfix, self.output_ext, data_root_dir, parent=separate_folder
        )
        self._data_index = 0

    def set_options(self, *_: Any, **__: Any) -> SaveImage:
        """Refuse options for MONAI's writers, since none is used.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{type(self).__name__} uses none of MONAI's writers; set its own arguments instead")

    def __call__(
        self,
        img: torch.Tensor | npt.NDArray[Any],
        meta_data: Mapping[str, Any] | None = None,
        filename: str | os.PathLike[str] | None = None,
    ) -> torch.Tensor | npt.NDArray[Any]:
        """Save one item.

        Args:
            img: ``(K, W, H)``.
            meta_data: metadata for an ``img`` that brings none.
            filename: the path to write, without extension, instead of one made from the metadata.

        Returns:
            ``img``, with the path written in its metadata under ``saved_to``.

        Raises:
            InputError: when ``img`` cannot be saved as this kind of picture.
            StorageError: when the file cannot be written; nothing is left half-written.
        """
        meta: Any = img.meta if isinstance(img, MetaTensor) else (meta_data if meta_data is not None else {})
        if filename is not None:
            path = f"{os.fspath(filename)}{self.output_ext}"
        else:
            subject = meta.get("filename_or_obj", f"{self._data_index:05d}")
            path = str(self.folder_layout.filename(subject=subject, idx=meta.get("patch_index")))
        _check_size(img, meta)
        write_bytes(path, encode(self._pixels(img, meta), self.output_ext, meta.get("affine")))
        self._data_index += 1
        if isinstance(meta, dict):
            meta["saved_to"] = path
        _log.debug("wrote %s", Path(path).name)
        return img

    def _pixels(self, img: torch.Tensor | npt.NDArray[Any], meta: Mapping[str, Any]) -> npt.NDArray[Any]:
        raise NotImplementedError


def _check_size(img: torch.Tensor | npt.NDArray[Any], meta: Mapping[str, Any]) -> None:
    """Refuse a result that does not lie on the pixels of its source; a patch has its own size."""
    source = [int(size) for size in meta.get("spatial_shape", ())][:2]
    if source and meta.get("patch_index") is None and list(img.shape[1:]) != source:
        raise InputError(
            f"the result is {' x '.join(map(str, img.shape[1:]))} pixels and its image file "
            f"{' x '.join(map(str, source))}; put Invertd or RestoreSized before the transform that saves"
        )


class FileSaverd(ResultSaverd):
    """Dictionary form of a ``FileSaver``; a ``SaveImaged``, by which MONAI Label knows and removes it."""

    def __init__(
        self,
        keys: KeysCollection,
        saver: FileSaver,
        *,
        image_key: str | None = "image",
        meta_keys: KeysCollection | None = None,
        meta_key_postfix: str = "meta_dict",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(
            keys,
            image_key=image_key,
            meta_keys=meta_keys,
            meta_key_postfix=meta_key_postfix,
            allow_missing_keys=allow_missing_keys,
        )
        self.saver = saver

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Save the results of one item; see ``FileSaver.__call__``.

        A result without metadata takes it from ``{key}_{meta_key_postfix}``, or else from ``data[image_key]``.
        """
        d = dict(data)
        for key, meta in self._results(d):
            img = d[key]
            if isinstance(img, MetaTensor) and "filename_or_obj" not in img.meta and meta:
                img = MetaTensor(img.as_tensor(), meta={**meta, **img.meta})
            d[key] = self.saver(img, meta)
        return d


class SaveMask(FileSaver):
    """Save a mask as a grey picture of the mask's own size.

    Args:
        output_dir: the folder of the results, made when missing.
        output_postfix: added to the stem of the name.
        output_ext: ``.png`` (compression level 1), ``.tif``, ``.tiff``, ``.nii`` or ``.nii.gz``.
        scale: the grey level of class 1: 255 for a mask that people look at, 1 for class numbers.
        data_root_dir: the folder below which sub-folders are kept; see ``SafeFolderLayout``.
        separate_folder: put each result into a folder named after its stem.
        folder_layout: another way of naming.

    Raises:
        ConfigError: when ``scale`` is outside 1..255, or the extension is none of the above.
    """

    _extensions = (".png", ".tif", ".tiff", ".nii", ".nii.gz")

    def __init__(
        self,
        output_dir: str | os.PathLike[str] = "./",
        *,
        output_postfix: str = "seg",
        output_ext: str = ".png",
        scale: int = 255,
        data_root_dir: str | os.PathLike[str] = "",
        separate_folder: bool = False,
        folder_layout: FolderLayoutBase | None = None,
    ) -> None:
        super().__init__(
            output_dir,
            output_postfix=output_postfix,
            output_ext=output_ext,
            data_root_dir=data_root_dir,
            separate_folder=separate_folder,
            folder_layout=folder_layout,
        )
        if not 1 <= scale <= 255:
            raise ConfigError(f"scale must lie in 1..255, got {scale}")
        self.scale = int(scale)

    def _pixels(self, img: torch.Tensor | npt.NDArray[Any], meta: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
        rows = to_rows(img)
        if rows.shape[2] != 1:
            raise InputError(f"a mask has one plane (1, W, H), got {tuple(img.shape)}; decide it before it is saved")
        largest = rows.max(initial=0)
        if largest * self.scale > 255 or rows.min(initial=0) < 0 or (rows.dtype.kind == "f" and (rows % 1).any()):
            raise InputError(
                f"a mask holds whole numbers from 0 to {255 // self.scale} with scale={self.scale}, this one holds up "
                f"to {largest:g}; decide it before it is saved, or set scale to 1 for class numbers"
            )
        return rows.astype(np.uint8) * np.uint8(self.scale)


class SaveMaskd(FileSaverd):
    """Dictionary form of ``SaveMask``.

    Args:
        keys: keys of the masks, ``(1, W, H)``.
        output_dir: the folder of the results, made when missing.
        output_postfix: added to the stem of the name.
        output_ext: ``.png``, ``.tif``, ``.tiff``, ``.nii`` or ``.nii.gz``.
        scale: the grey level of class 1.
        data_root_dir: the folder below which sub-folders are kept; see ``SafeFolderLayout``.
        separate_folder: put each result into a folder named after its stem.
        folder_layout: another way of naming.
        image_key: key of the image whose metadata names a result that brings none.
        meta_keys: keys of metadata for results that bring none.
        meta_key_postfix: default of ``meta_keys``: ``{key}_{meta_key_postfix}``.
        allow_missing_keys: skip keys that an item has not.

    Raises:
        ConfigError: when ``scale`` or the extension is not one that ``SaveMask`` knows.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        output_dir: str | os.PathLike[str] = "./",
        *,
        output_postfix: str = "seg",
        output_ext: str = ".png",
        scale: int = 255,
        data_root_dir: str | os.PathLike[str] = "",
        separate_folder: bool = False,
        folder_layout: FolderLayoutBase | None = None,
        image_key: str | None = "image",
        meta_keys: KeysCollection | None = None,
        meta_key_postfix: str = "meta_dict",
        allow_missing_keys: bool = False,
    ) -> None:
        saver = SaveMask(
            output_dir,
            output_postfix=output_postfix,
            output_ext=output_ext,
            scale=scale,
            data_root_dir=data_root_dir,
            separate_folder=separate_folder,
            folder_layout=folder_layout,
        )
        super().__init__(
            keys,
            saver,
            image_key=image_key,
            meta_keys=meta_keys,
            meta_key_postfix=meta_key_postfix,
            allow_missing_keys=allow_missing_keys,
        )


class SaveProbability(FileSaver):
    """Save a probability map: 16-bit PNG (probability 1 is 65535), or float32 in TIFF and NIfTI.

    Args:
        output_dir: the folder of the results, made when missing.
        output_postfix: added to the stem of the name.
        output_ext: ``.png``, ``.tif``, ``.tiff``, ``.nii`` or ``.nii.gz``.
        channel: the plane to save, negative from the end; the last one by default, the foreground of two.
        data_root_dir: the folder below which sub-folders are kept; see ``SafeFolderLayout``.
        separate_folder: put each result into a folder named after its stem.
        folder_layout: another way of naming.

    Raises:
        ConfigError: when the extension is none of the above.
    """

    _extensions = (".png", ".tif", ".tiff", ".nii", ".nii.gz")

    def __init__(
        self,
        output_dir: str | os.PathLike[str] = "./",
        *,
        output_postfix: str = "prob",
        output_ext: str = ".png",
        channel: int = -1,
        data_root_dir: str | os.PathLike[str] = "",
        separate_folder: bool = False,
        folder_layout: FolderLayoutBase | None = None,
    ) -> None:
        super().__init__(
            output_dir,
            output_postfix=output_postfix,
            output_ext=output_ext,
            data_root_dir=data_root_dir,
            separate_folder=separate_folder,
            folder_layout=folder_layout,
        )
        self.channel = channel

    def _pixels(self, img: torch.Tensor | npt.NDArray[Any], meta: Mapping[str, Any]) -> npt.NDArray[Any]:
        if not -img.shape[0] <= self.channel < img.shape[0]:
            raise InputError(f"plane {self.channel} is to be saved, and the map has the shape {tuple(img.shape)}")
        probability = to_rows(img)[..., self.channel, None].astype(np.float32)
        if not (probability.min() >= 0 and probability.max() <= 1):
            raise InputError(
                f"a probability map lies in [0, 1], this one in [{probability.min():g}, {probability.max():g}]; "
                "apply the sigmoid before it is saved"
            )
        if self.output_ext != ".png":
            return probability
        return np.asarray(np.rint(probability * np.float32(65535)), dtype=np.uint16)


class SaveProbabilityd(FileSaverd):
    """Dictionary form of ``SaveProbability``.

    Args:
        keys: keys of the probability maps, ``(K, W, H)``.
        output_dir: the folder of the results, made when missing.
        output_postfix: added to the stem of the name.
        output_ext: ``.png``, ``.tif``, ``.tiff``, ``.nii`` or ``.nii.gz``.
        channel: the plane to save, negative from the end.
        data_root_dir: the folder below which sub-folders are kept; see ``SafeFolderLayout``.
        separate_folder: put each result into a folder named after its stem.
        folder_layout: another way of naming.
        image_key: key of the image whose metadata names a result that brings none.
        meta_keys: keys of metadata for results that bring none.
        meta_key_postfix: default of ``meta_keys``: ``{key}_{meta_key_postfix}``.
        allow_missing_keys: skip keys that an item has not.

    Raises:
        ConfigError: when the extension is not one that ``SaveProbability`` knows.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        output_dir: str | os.PathLike[str] = "./",
        *,
        output_postfix: str = "prob",
        output_ext: str = ".png",
        channel: int = -1,
        data_root_dir: str | os.PathLike[str] = "",
        separate_folder: bool = False,
        folder_layout: FolderLayoutBase | None = None,
        image_key: str | None = "image",
        meta_keys: KeysCollection | None = None,
        meta_key_postfix: str = "meta_dict",
        allow_missing_keys: bool = False,
    ) -> None:
        saver = SaveProbability(
            output_dir,
            output_postfix=output_postfix,
            output_ext=output_ext,
            channel=channel,
            data_root_dir=data_root_dir,
            separate_folder=separate_folder,
            folder_layout=folder_layout,
        )
        super().__init__(
            keys,
            saver,
            image_key=image_key,
            meta_keys=meta_keys,
            meta_key_postfix=meta_key_postfix,
            allow_missing_keys=allow_missing_keys,
        )
