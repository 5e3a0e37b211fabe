"""Draw a mask over its image, so that a person sees at a glance what was found."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from monai.config.type_definitions import KeysCollection
from monai.data.folder_layout import FolderLayoutBase

from msrf_monai.errors import ConfigError, InputError
from msrf_monai.transforms.load import LoadImage2D
from msrf_monai.transforms.rows import plain, to_rows
from msrf_monai.transforms.save import FileSaver, FileSaverd

__all__ = ["SaveOverlay", "SaveOverlayd", "draw_overlay"]

COLOURS = ((0, 230, 118), (255, 171, 0), (41, 121, 255), (245, 0, 87), (0, 229, 255), (213, 0, 249))
"""RGB of classes 1, 2, …, bright against tissue; from the seventh class on they repeat."""


def draw_overlay(
    image: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    *,
    opacity: float = 0.25,
    colours: Sequence[Sequence[int]] = COLOURS,
    thickness: int | None = None,
) -> npt.NDArray[np.uint8]:
    """Return the image with each class tinted and outlined.

    Args:
        image: RGB ``(H, W, 3)``; it is not changed.
        mask: ``(H, W)``, class numbers, 0 for background.
        opacity: of the tint, 0 (outline only) to 1.
        colours: RGB of class 1, 2, …, used again from the first when there are more classes.
        thickness: of the outline in pixels; None for one that suits the size of the image.

    Returns:
        RGB ``(H, W, 3)``.

    Raises:
        InputError: when the sizes of image and mask differ.
    """
    if image.shape[:2] != mask.shape:
        raise InputError(
            f"the image is {image.shape[:2]} (H, W) and its mask {mask.shape}; they must have the same size"
        )
    drawn = image.copy()
    width = thickness or max(1, round(min(mask.shape) / 256))
    for value in np.unique(mask):
        if value == 0:
            continue
        colour = colours[(int(value) - 1) % len(colours)]
        region = (mask == value).astype(np.uint8)
        inside = region.astype(bool)
        drawn[inside] = np.rint((1 - opacity) * drawn[inside] + opacity * np.asarray(colour)).astype(np.uint8)
        outlines, _ = cv2.findContours(region, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, outlines, -1, [int(part) for part in colour], width)
    return drawn


class SaveOverlay(FileSaver):
    """Save the source image with its mask drawn over it, at the source's size.

    The source is read again from the path in the metadata, since the image in the chain has been resized and scaled.

    Args:
        output_dir: the folder of the results, made when missing.
        output_postfix: added to the stem of the name.
        output_ext: ``.png``, ``.jpg`` or ``.jpeg``.
        opacity: of the tint, 0 (outline only) to 1.
        data_root_dir: the folder below which sub-folders are kept; see ``SafeFolderLayout``.
        separate_folder: put each result into a folder named after its stem.
        folder_layout: another way of naming.

    Raises:
        ConfigError: when ``opacity`` is outside [0, 1], or the extension is none of the above.
    """

    _extensions = (".png", ".jpg", ".jpeg")

    def __init__(
        self,
        output_dir: str | os.PathLike[str] = "./",
        *,
        output_postfix: str = "overlay",
        output_ext: str = ".jpg",
        opacity: float = 0.25,
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
        if not 0 <= opacity <= 1:
            raise ConfigError(f"opacity must lie in [0, 1], got {opacity}")
        self.opacity = opacity
        self.loader = LoadImage2D(3)

    def _pixels(self, img: torch.Tensor | npt.NDArray[Any], meta: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
        mask = to_rows(img)
        if mask.shape[2] != 1:
            raise InputError(f"a mask has one plane (1, W, H), got {tuple(img.shape)}; decide it before it is drawn")
        source = meta.get("filename_or_obj")
        if source is None:
            raise InputError("the mask's metadata does not name its image file, so there is nothing to draw it on")
        image = to_rows(plain(self.loader(source)))
        if image.dtype != np.uint8:
            image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        return draw_overlay(image, mask[..., 0].astype(np.uint8), opacity=self.opacity)


class SaveOverlayd(FileSaverd):
    """Dictionary form of ``SaveOverlay``.

    Args:
        keys: keys of the masks, ``(1, W, H)``, of the source's size.
        output_dir: the folder of the results, made when missing.
        output_postfix: added to the stem of the name.
        output_ext: ``.png``, ``.jpg`` or ``.jpeg``.
        opacity: of the tint, 0 (outline only) to 1.
        data_root_dir: the folder below which sub-folders are kept; see ``SafeFolderLayout``.
        separate_folder: put each result into a folder named after its stem.
        folder_layout: another way of naming.
        image_key: key of the image whose metadata names a result that brings none.
        meta_keys: keys of metadata for results that bring none.
        meta_key_postfix: default of ``meta_keys``: ``{key}_{meta_key_postfix}``.
        allow_missing_keys: skip keys that an item has not.

    Raises:
        ConfigError: when ``opacity`` or the extension is not one that ``SaveOverlay`` knows.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        output_dir: str | os.PathLike[str] = "./",
        *,
        output_postfix: str = "overlay",
        output_ext: str = ".jpg",
        opacity: float = 0.25,
        data_root_dir: str | os.PathLike[str] = "",
        separate_folder: bool = False,
        folder_layout: FolderLayoutBase | None = None,
        image_key: str | None = "image",
        meta_keys: KeysCollection | None = None,
        meta_key_postfix: str = "meta_dict",
        allow_missing_keys: bool = False,
    ) -> None:
        saver = SaveOverlay(
            output_dir,
            output_postfix=output_postfix,
            output_ext=output_ext,
            opacity=opacity,
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
