"""Outlines that QuPath submits become masks as they are saved, since bundles train on masks and cannot read XML."""

from __future__ import annotations

import functools
import inspect
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from PIL import Image

from msrf_monai.errors import DataError, MsrfError
from msrf_monai.optional import require
from msrf_monai.transforms import LoadImage2D

__all__ = ["filled", "mask_of_outlines", "with_masks"]

_MOST_BYTES = 64 * 2**20
"""More than a million points."""

_FARTHEST = 1e7
"""Pixels from the image's corner; no image is so large, and beyond 1e15 sums lose half a pixel."""

Points = npt.NDArray[np.float64]


def with_masks(store: Any, numbers: Callable[[], Mapping[str, int]]) -> Any:
    """Let a datastore save a label that comes as ASAP's XML as a PNG of class numbers.

    Args:
        store: a datastore of MONAI Label; its ``save_label`` is wrapped.
        numbers: returns the class number of each label, in small letters.

    Returns:
        The same datastore. Outlines that make no mask are answered with status 400 and one sentence.
    """
    save = store.save_label
    signature = inspect.signature(save)

    @functools.wraps(save)
    def saved(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        label = Path(given.arguments["label_filename"])
        if label.suffix.lower() != ".xml":
            return save(*args, **kwargs)
        image = store.get_image_uri(given.arguments["image_id"])
        try:
            columns, rows = LoadImage2D()(image).shape[1:]
            mask = mask_of_outlines(_content(label), (rows, columns), numbers())
        except MsrfError as error:
            raise require("fastapi", "label").HTTPException(status_code=400, detail=str(error)) from None
        with tempfile.TemporaryDirectory() as folder:
            given.arguments["label_filename"] = str(Path(folder) / "label.png")
            Image.fromarray(mask).save(given.arguments["label_filename"])
            return save(*given.args, **given.kwargs)

    store.save_label = saved
    return store


def mask_of_outlines(content: bytes, shape: tuple[int, int], numbers: Mapping[str, int]) -> npt.NDArray[np.uint8]:
    """Return the mask that outlines describe; where they overlap, the later one holds.

    Args:
        content: ASAP's XML, as QuPath submits it: a polygon for each annotation, its label in ``PartOfGroup``.
        shape: rows and columns of the image.
        numbers: class number 1..255 of each label, in small letters.

    Returns:
        ``(H, W)`` class numbers; 0 is the background.

    Raises:
        DataError: when it is no such XML, a label is unknown, or two labels have the same number.
    """
    mask = np.zeros(shape, np.uint8)
    labels: dict[int, str] = {}
    for annotation in _annotations(content):
        label = annotation.get("PartOfGroup", "")
        number = numbers.get(label.lower())
        if number is None:
            raise DataError(
                f"an outline has the label {label[:64]!r}, and those of the bundles are {', '.join(sorted(numbers))}; "
                "set its class to one of these and submit again"
            )
        if labels.setdefault(number, label.lower()) != label.lower():
            raise DataError(
                f"{labels[number]!r} and {label.lower()!r} are labels of different bundles, and one mask cannot train "
                "both; submit the outlines of one of them at a time"
            )
        mask[filled(_points(annotation), shape)] = number
    return mask


def filled(polygon: Sequence[tuple[float, float]] | Points, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the pixels whose middles lie in a polygon by the even-odd rule.

    Args:
        polygon: x and y of each corner; the upper left corner of the upper left pixel is (0, 0).
        shape: rows and columns.

    Returns:
        ``(H, W)``, True inside; all False for fewer than three corners.
    """
    corners = np.asarray(polygon, np.float64).reshape(-1, 2)
    crossings = np.zeros((shape[0], shape[1] + 1), bool)
    for (x, y), (next_x, next_y) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        low, high = sorted((y, next_y))
        rows = np.arange(max(math.ceil(low - 0.5), 0), min(math.ceil(high - 0.5), shape[0]))
        if len(rows):
            met = x + (rows + 0.5 - y) * (next_x - x) / (next_y - y)
            first = np.clip(np.ceil(met - 0.5), 0, shape[1]).astype(int)
            crossings[rows, first] ^= True
    return np.logical_xor.accumulate(crossings, axis=1)[:, :-1]


def _content(path: Path) -> bytes:
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(f"the outlines have more than {_MOST_BYTES} bytes; submit fewer, or simpler ones")
    return path.read_bytes()


def _annotations(content: bytes) -> list[ElementTree.Element]:
    try:
        root = ElementTree.fromstring(content)  # noqa: S314 (expat fetches nothing and bounds how entities grow)
    except ElementTree.ParseError:
        root = None
    if root is None or root.tag != "ASAP_Annotations":
        raise DataError("the label is no XML of ASAP, which QuPath submits; expected <ASAP_Annotations>, or a mask")
    return list(root.iter("Annotation"))


def _points(annotation: ElementTree.Element) -> Points:
    try:
        found = [(float(each.get("X", "")), float(each.get("Y", ""))) for each in annotation.iter("Coordinate")]
    except ValueError:
        found = [(math.nan, math.nan)]
    points = np.array(found, np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise DataError("an outline has a corner whose X or Y is no number; submit it again")
    if (np.abs(points) > _FARTHEST).any():
        raise DataError(
            f"an outline has a corner more than {_FARTHEST:.0f} pixels away from the image; draw it on the image and "
            "submit it again"
        )
    return points
