"""From stored values to the image: polarity, rescaling, lookup tables, colours."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.reading.decoders import pinned_plugin
from msrf_monai.clinical.reading.dicom_header import PixelLayout
from msrf_monai.clinical.reading.lookup import palette_tables, table_of
from msrf_monai.clinical.reading.refusal import RefusalCode, RefusedInput
from msrf_monai.optional import require

__all__ = ["decode_stored", "frame_values", "functional_groups", "is_rescaled", "value_dtype"]

Pixels = npt.NDArray[Any]


def decode_stored(dataset: Any, layout: PixelLayout, index: int) -> Pixels:
    """Decode one frame to stored values: unused bits masked, signs extended, YBR turned into RGB.

    Args:
        dataset: from ``parse_dicom``.
        layout: from ``pixel_layout``.
        index: which frame.

    Returns:
        ``(H, W)`` or ``(H, W, 3)``; 8, 16 or 32 bits, signed or not, or float.

    Raises:
        RefusedInput: ``decoder_missing``, ``unsupported`` or ``decode_failed``.
    """
    if layout.bits_allocated == 1 and not layout.transfer_syntax.is_encapsulated:
        return _bits(dataset.PixelData, layout, index)
    plugin = pinned_plugin(layout.transfer_syntax)
    decoder = require("pydicom.pixels", "clinical").get_decoder(layout.transfer_syntax)
    try:
        pixels, _ = decoder.as_array(dataset, index=index, decoding_plugin=plugin, allow_excess_frames=False)
    except Exception as error:  # a decoder in C raises what it likes
        raise RefusedInput(
            RefusalCode.DECODE_FAILED,
            f"frame {index} cannot be decoded ({type(error).__name__}); copy or export the file again",
        ) from None
    return np.array(pixels)


def _bits(data: bytes, layout: PixelLayout, index: int) -> Pixels:
    """Unpack a frame of single bits; pydicom cuts off the end of one that begins within a byte."""
    count = layout.rows * layout.columns
    start = index * count
    packed = np.frombuffer(data, dtype=np.uint8)[start // 8 : (start + count + 7) // 8]
    bits = np.unpackbits(packed, bitorder="little")[start % 8 :][:count]
    return bits.reshape(layout.rows, layout.columns)


def is_rescaled(dataset: Any, layout: PixelLayout) -> bool:
    """Tell whether any frame's values differ from the stored ones by more than polarity."""
    return _table(dataset) is not None or any(_rescale(dataset, index) != (1.0, 0.0) for index in range(layout.frames))


def value_dtype(dataset: Any, layout: PixelLayout) -> str:
    """Return the type of all frames: uint8 or uint16 where values are stored so and stay so, float32 otherwise."""
    if layout.photometric == "PALETTE COLOR":
        return "uint8"
    if layout.keyword != "PixelData" or layout.is_signed or layout.bits_allocated == 32:
        return "float32"
    if layout.samples == 1 and is_rescaled(dataset, layout):
        return "float32"
    return "uint16" if layout.bits_allocated == 16 else "uint8"


def frame_values(dataset: Any, layout: PixelLayout, index: int) -> Pixels:
    """Decode one frame to what it means: RGB, or the values after the modality's rescaling.

    MONOCHROME1 is turned within its stored range first, so that larger always means brighter. Windows (VOI) are not
    applied: they are for people, and the bundle says which one its network wants.

    Args:
        dataset: from ``parse_dicom``.
        layout: from ``pixel_layout``.
        index: which frame.

    Returns:
        ``(H, W)`` or RGB ``(H, W, 3)`` of the type that ``value_dtype`` says.

    Raises:
        RefusedInput: as ``decode_stored``, and ``lut_failed`` for a broken palette or lookup table.
    """
    stored = decode_stored(dataset, layout, index)
    if layout.photometric == "PALETTE COLOR":
        return _colours(stored, dataset, layout)
    dtype = value_dtype(dataset, layout)
    if layout.samples == 3:
        return stored.astype(dtype, copy=False)
    if layout.photometric == "MONOCHROME1":
        stored = _turned(stored, layout)
    table = _table(dataset)
    if table is not None:
        return table_of(table, layout.transfer_syntax.is_little_endian)(stored).astype(np.float32)
    slope, intercept = _rescale(dataset, index)
    if (slope, intercept) == (1.0, 0.0):
        return stored.astype(dtype, copy=False)
    return (stored.astype(np.float64) * slope + intercept).astype(np.float32)


def _turned(stored: Pixels, layout: PixelLayout) -> Pixels:
    if layout.keyword != "PixelData":
        return -stored
    # the lowest and the highest stored value add up to -1 when signed and to the largest one when not
    total = -1 if layout.is_signed else (1 << layout.bits_stored) - 1
    return (total - stored.astype(np.int64)).astype(stored.dtype)


def _colours(stored: Pixels, dataset: Any, layout: PixelLayout) -> Pixels:
    tables = palette_tables(dataset, layout.transfer_syntax.is_little_endian)
    return np.stack([table(stored) for table in tables], axis=-1)


def _table(dataset: Any) -> Any:
    """Return the modality lookup table that is really there, or None: empty items and values count as absent."""
    items = dataset.get("ModalityLUTSequence") or []
    for item in items[:1]:
        if item.get("LUTDescriptor") and item.get("LUTData"):
            return item
    return None


def _rescale(dataset: Any, index: int) -> tuple[float, float]:
    """Return slope and intercept of one frame; absent and empty ones are 1 and 0."""
    source = dataset
    if "SharedFunctionalGroupsSequence" in dataset or "PerFrameFunctionalGroupsSequence" in dataset:
        for group in functional_groups(dataset, index):
            found = group.get("PixelValueTransformationSequence")
            if found:
                source = found[0]
                break
    return _number(source, "RescaleSlope", 1.0), _number(source, "RescaleIntercept", 0.0)


def functional_groups(dataset: Any, index: int) -> list[Any]:
    """Return the functional groups that hold for one frame: its own first, then the shared one."""
    groups = list((dataset.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1])
    return groups + list((dataset.get("SharedFunctionalGroupsSequence") or [])[:1])


def _number(dataset: Any, keyword: str, default: float) -> float:
    value = dataset.get(keyword)
    try:
        number = default if value in (None, "") else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise RefusedInput(RefusalCode.BAD_HEADER, f"{keyword} is not one number; export the file again")
    return number
