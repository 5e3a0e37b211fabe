"""The check of every picture and mask of a data set, which writes them to the new folder in the same pass."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from msrf_monai.data.layouts import SourceItem
from msrf_monai.data.pictures import encode_png, large_pictures_allowed, read_mask, read_picture
from msrf_monai.errors import DataError

__all__ = ["CheckedItem", "ImageMode", "Progress", "check_items"]

ImageMode = Literal["copy", "link", "reference"]
Progress = Callable[[int, int], None]

_Read = TypeVar("_Read")


@dataclass(frozen=True)
class CheckedItem:
    """What the check of one item gave: its place in the new folder, or what is wrong with it.

    Attributes:
        item: the item.
        image: path of the picture for the datalist.
        label: path of the mask for the datalist.
        digests: path and SHA-256 of both.
        rewritten: why the picture was written anew, or an empty string.
        is_empty: the mask has no foreground.
        problems: sentences that name a file each; the fields above are empty then.
    """

    item: SourceItem
    image: str = ""
    label: str = ""
    digests: tuple[tuple[str, str], ...] = ()
    rewritten: str = ""
    is_empty: bool = False
    problems: tuple[str, ...] = ()


def check_items(
    items: Sequence[SourceItem], folder: Path, images: ImageMode, progress: Progress | None
) -> list[CheckedItem]:
    """Check all items, several at a time, and write those that are right.

    Args:
        items: pictures with their masks.
        folder: the new folder; ``images`` and ``labels`` are made in it.
        images: what becomes of the pictures, see ``prepare_dataset``.
        progress: called with the number of items done and the number of all.

    Returns:
        One result for each item, in order.
    """
    checked = []
    for name in ("images", "labels"):
        (folder / name).mkdir()
    with large_pictures_allowed(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for result in pool.map(partial(_check, folder=folder, images=images), items):
            checked.append(result)
            if progress is not None:
                progress(len(checked), len(items))
    return checked


def _check(item: SourceItem, *, folder: Path, images: ImageMode) -> CheckedItem:
    """Decode a picture and its masks, compare their sizes, and write both to the new folder."""
    problems: list[str] = []
    content = _read(item.image, problems)
    picture = _attempt(read_picture, content, item.image, problems)
    masks = [_attempt(read_mask, _read(path, problems), path, problems) for path in item.masks]
    if picture is not None:
        size = picture.height_px, picture.width_px
        problems += [
            f"{path}: is {mask.shape[1]} x {mask.shape[0]} pixels; expected {size[1]} x {size[0]}, the size of "
            f"{item.image.name}" + (" after its EXIF orientation" if "EXIF" in picture.reason else "")
            for path, mask in zip(item.masks, masks, strict=True)
            if mask is not None and mask.shape != size
        ]
    if problems or picture is None or content is None:
        return CheckedItem(item, problems=tuple(problems))
    mask = np.logical_or.reduce([mask for mask in masks if mask is not None])
    label = f"labels/{item.identity}.png"
    digests = [(label, _write(folder / label, encode_png(mask.astype(np.uint8) * 255)))]
    image, digest = _place_picture(item, content, picture.replacement, folder, images)
    digests.append((image, digest))
    return CheckedItem(item, image, label, tuple(digests), picture.reason, not mask.any())


def _place_picture(
    item: SourceItem,
    content: bytes,
    replacement: NDArray[np.uint8] | NDArray[np.uint16] | None,
    folder: Path,
    images: ImageMode,
) -> tuple[str, str]:
    """Put the picture where the mode says; return its path for the datalist and its digest."""
    if replacement is not None:
        image = f"images/{item.identity}.png"
        return image, _write(folder / image, encode_png(replacement))
    if images == "reference":
        return item.image.as_posix(), hashlib.sha256(content).hexdigest()
    image = f"images/{item.identity}{item.image.suffix.lower()}"
    if images == "link":
        (folder / image).symlink_to(item.image)
        return image, hashlib.sha256(content).hexdigest()
    return image, _write(folder / image, content)


def _read(path: Path, problems: list[str]) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError as error:
        problems.append(f"{path}: cannot be read ({error.strerror or error})")
        return None


def _attempt(
    reader: Callable[[bytes, Path], _Read], content: bytes | None, path: Path, problems: list[str]
) -> _Read | None:
    if content is None:
        return None
    try:
        return reader(content, path)
    except DataError as error:
        problems.append(str(error))
        return None


def _write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()
