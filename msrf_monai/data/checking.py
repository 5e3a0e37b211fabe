"""The check of every picture and mask of a data set, which writes them to the new folder in the same pass."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from msrf_monai.data.layouts import SourceItem
from msrf_monai.data.outlines import fill_outlines, read_outlines
from msrf_monai.data.pictures import (
    PACKED_SUFFIX,
    Picture,
    encode_png,
    large_pictures_allowed,
    read_bytes,
    read_instances,
    read_mask,
    read_picture,
    read_rgb,
)
from msrf_monai.data.volumes.slices import read_slices
from msrf_monai.data.volumes.window import Window
from msrf_monai.errors import DataError
from msrf_monai.field_of_view import derive_field_of_view

__all__ = ["CheckedItem", "ImageMode", "Progress", "check_items"]

ImageMode = Literal["copy", "link", "reference"]
Progress = Callable[[int, int], None]

_Read = TypeVar("_Read")


@dataclass(frozen=True)
class CheckedItem:
    """What the check of one item gave: its place in the new folder, or what is wrong with it.

    Attributes:
        item: the item.
        paths: path of the picture and of its masks for the datalist, under "image", "label", "label2" and "fov".
        digests: SHA-256 by path.
        rewritten: why the picture was written anew, or an empty string.
        is_empty: the mask has no foreground.
        details: what dataset.json says of it besides: spacing, slice, ….
        remark: what is odd about it, in words, or an empty string.
        problems: sentences that name a file each; the fields above are empty then.
    """

    item: SourceItem
    paths: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    rewritten: str = ""
    is_empty: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)
    remark: str = ""
    problems: tuple[str, ...] = ()


def check_items(
    items: Sequence[SourceItem],
    folder: Path,
    images: ImageMode,
    progress: Progress | None,
    *,
    with_field_of_view: bool = False,
    window: Window | None = None,
    bits: int = 8,
) -> list[CheckedItem]:
    """Check all items, several at a time, and write those that are right.

    Args:
        items: pictures with their masks.
        folder: the new folder; the folders of pictures and masks are made in it.
        images: what becomes of the pictures, see ``prepare_dataset``.
        progress: called with the number of items done and the number of all.
        with_field_of_view: write a mask of the field of view for each picture, derived where none is given.
        window: which values of a volume become black and white; None for that of ``Window()``.
        bits: 8 or 16, the depth of slices.

    Returns:
        One result for each item, in order.
    """
    checked = []
    for name in ("images", "labels", *(("fov",) if with_field_of_view else ())):
        (folder / name).mkdir()
    if any(item.label2 is not None for item in items):
        (folder / "labels2").mkdir()
    check = partial(_check, folder=folder, images=images, with_field_of_view=with_field_of_view)
    check_volume = partial(_check_volume, folder=folder, window=window or Window(), bits=bits)
    # the slices of a volume together, so that it is read once and then let go
    batches = [list(batch) for _, batch in groupby(items, key=lambda item: item.volume or item)]
    with large_pictures_allowed(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for results in pool.map(lambda batch: check_volume(batch) if batch[0].volume else [check(batch[0])], batches):
            checked.extend(results)
            if progress is not None:
                progress(len(checked), len(items))
    return checked


def _check_volume(items: Sequence[SourceItem], *, folder: Path, window: Window, bits: int) -> list[CheckedItem]:
    """Read a volume and write those of its slices that are wanted; an error is reported with the first of them."""
    volume = items[0].volume
    if volume is None:
        return []
    try:
        stack = read_slices(volume, window, bits)
    except DataError as error:
        return [CheckedItem(items[0], problems=(str(error),)), *(CheckedItem(item) for item in items[1:])]
    remark = f"{volume.scan}: {stack.remark}" if stack.remark else ""
    checked = []
    for item in items:
        pixels, mask = stack.pixels[item.slice_index], stack.masks[item.slice_index]
        image = f"images/{item.identity}.png"
        placed = {"image": (image, _write(folder / image, encode_png(pixels)))}
        placed["label"] = _place_mask(folder, "labels", item, mask)
        paths, details = {key: path for key, (path, _) in placed.items()}, stack.details(item.slice_index)
        empty = not mask.any()
        checked.append(CheckedItem(item, paths, dict(placed.values()), is_empty=empty, details=details, remark=remark))
    return checked


def _check(item: SourceItem, *, folder: Path, images: ImageMode, with_field_of_view: bool) -> CheckedItem:
    """Decode a picture and its masks, compare their sizes, and write all of them to the new folder."""
    problems: list[str] = []
    content = _read(item.image, problems)
    picture = _attempt(read_picture, content, item.image, problems)
    known = _read_masks(item, picture, problems)
    if picture is not None:
        problems += _size_problems(item, picture, {path: marked.mask for path, marked in known.items()})
    seen = known[item.field_of_view].mask if item.field_of_view in known else None
    if seen is not None and not seen.any():
        problems.append(f"{item.field_of_view}: is an empty field of view; expected what the camera sees")
    if problems or picture is None or content is None:
        return CheckedItem(item, problems=tuple(problems))
    label = np.zeros((picture.height_px, picture.width_px), np.bool_)
    for path in item.masks:
        label |= known[path].mask
    placed = {"image": _place_picture(item, content, picture.replacement, folder, images)}
    placed["label"] = _place_mask(folder, "labels", item, label)
    if item.label2 is not None:
        placed["label2"] = _place_mask(folder, "labels2", item, known[item.label2].mask)
    if with_field_of_view:
        seen = derive_field_of_view(read_rgb(content, item.image)) if seen is None else seen
        placed["fov"] = _place_mask(folder, "fov", item, seen)
    spacing = next((marked.spacing_mm for marked in known.values() if marked.spacing_mm is not None), None)
    return CheckedItem(
        item,
        paths={key: path for key, (path, _) in placed.items()},
        digests=dict(placed.values()),
        rewritten=picture.reason,
        is_empty=not label.any(),
        details={} if spacing is None else {"spacing_mm": [float(f"{spacing:.6g}")] * 2},
        remark="; ".join(f"{path}: {marked.remark}" for path, marked in known.items() if marked.remark),
    )


@dataclass(frozen=True)
class _Marked:
    """A mask that was read, with what else its file says."""

    mask: NDArray[np.bool_]
    spacing_mm: float | None = None
    remark: str = ""


def _read_masks(item: SourceItem, picture: Picture | None, problems: list[str]) -> dict[Path, _Marked]:
    """Return the masks that could be read; outlines are filled where the size of the picture is known."""

    def binary(content: bytes, path: Path) -> _Marked:
        return _Marked(read_mask(content, path))

    def instances(content: bytes, path: Path) -> _Marked:
        return _Marked(read_instances(content, path))

    def outlines(content: bytes, path: Path) -> _Marked:
        found = read_outlines(content, path)
        remark = f"{found.unclosed} regions have fewer than three corners and no area" if found.unclosed else ""
        mask = np.zeros((1, 1), np.bool_)
        if picture is not None:
            mask = fill_outlines(found, (picture.height_px, picture.width_px), path)
        return _Marked(mask, found.spacing_mm, remark)

    reader = {"binary": binary, "instances": instances, "outlines": outlines}[item.mask_kind]
    others = (path for path in (item.label2, item.field_of_view) if path is not None)
    readers = dict.fromkeys(item.masks, reader) | dict.fromkeys(others, binary)
    read = {path: _attempt(reader, _read(path, problems), path, problems) for path, reader in readers.items()}
    return {path: marked for path, marked in read.items() if marked is not None}


def _size_problems(item: SourceItem, picture: Picture, masks: Mapping[Path, NDArray[np.bool_]]) -> list[str]:
    height, width = picture.height_px, picture.width_px
    turned = " after its EXIF orientation" if "EXIF" in picture.reason else ""
    return [
        f"{path}: is {mask.shape[1]} x {mask.shape[0]} pixels; expected {width} x {height}, the size of "
        f"{item.image.name}{turned}"
        for path, mask in masks.items()
        if mask.shape != (height, width)
    ]


def _place_mask(folder: Path, place: str, item: SourceItem, mask: NDArray[np.bool_]) -> tuple[str, str]:
    """Write a mask as 0 and 255; return its path for the datalist and its digest."""
    path = f"{place}/{item.identity}.png"
    return path, _write(folder / path, encode_png(mask.astype(np.uint8) * 255))


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
    packed = item.image.suffix.lower() == PACKED_SUFFIX
    suffix = Path(item.image.stem).suffix.lower() if packed else item.image.suffix.lower()
    if images == "reference" and not packed:
        return item.image.as_posix(), hashlib.sha256(content).hexdigest()
    image = f"images/{item.identity}{suffix}"
    if images == "link" and not packed:
        (folder / image).symlink_to(item.image)
        return image, hashlib.sha256(content).hexdigest()
    return image, _write(folder / image, content)


def _read(path: Path, problems: list[str]) -> bytes | None:
    try:
        return read_bytes(path)
    except DataError as error:
        problems.append(str(error))
        return None
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
