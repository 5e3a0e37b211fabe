"""DICOM's lookup tables: of the modality, of the window (VOI), and of palettes, plain and segmented.

pydicom has functions for the same; they index with the type of the table or of the pixels, which wraps around or fails
when one has 8 bits and the other more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.reading.refusal import RefusalCode, RefusedInput

__all__ = ["LookupTable", "palette_tables", "table_of"]

_COLOURS = ("Red", "Green", "Blue")
_LARGEST = 1 << 16


@dataclass(frozen=True)
class LookupTable:
    """Values for the stored values ``first``, ``first + 1``, …; those below and above get the outermost ones."""

    first: int
    values: npt.NDArray[Any]
    """Entries, uint8 or uint16."""

    def __call__(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the entry of each whole-numbered pixel, in the table's type."""
        index = np.clip(stored.astype(np.int64) - self.first, 0, len(self.values) - 1)
        return np.asarray(self.values[index])


def table_of(item: Any, is_little_endian: bool) -> LookupTable:
    """Read one item of ModalityLUTSequence or VOILUTSequence.

    Args:
        item: the item, with LUTDescriptor and LUTData.
        is_little_endian: byte order of the file.

    Returns:
        The table.

    Raises:
        RefusedInput: ``lut_failed`` when descriptor and data contradict each other.
    """
    try:
        entries, first, _ = _descriptor(item.LUTDescriptor)
        data = item.LUTData
        if isinstance(data, (bytes, bytearray)):
            values = _unpacked(bytes(data), entries, is_little_endian)
        else:
            values = np.asarray(data if isinstance(data, Sequence) else [data], dtype=np.int64).astype(np.uint16)
        return _checked(first, values, entries)
    except RefusedInput:
        raise
    except Exception as error:  # descriptors hold anything
        raise _broken(error) from None


def palette_tables(dataset: Any, is_little_endian: bool) -> tuple[LookupTable, LookupTable, LookupTable]:
    """Read the palette of a PALETTE COLOR image as 8-bit tables for red, green and blue.

    Args:
        dataset: the image.
        is_little_endian: byte order of the file.

    Returns:
        Three tables of uint8. 16-bit entries give their upper byte, unless none of them is above 255: some writers
        put 8-bit values there.

    Raises:
        RefusedInput: ``lut_failed`` when a table is missing, broken or longer than it says.
    """
    try:
        deep = [_palette_table(dataset, colour, is_little_endian) for colour in _COLOURS]
    except RefusedInput:
        raise
    except Exception as error:  # as above
        raise _broken(error) from None
    shift = 8 if max(int(table.values.max()) for table in deep) > 255 else 0
    red, green, blue = (LookupTable(table.first, (table.values >> shift).astype(np.uint8)) for table in deep)
    return red, green, blue


def _palette_table(dataset: Any, colour: str, is_little_endian: bool) -> LookupTable:
    entries, first, bits = _descriptor(dataset[f"{colour}PaletteColorLookupTableDescriptor"].value)
    plain = dataset.get(f"{colour}PaletteColorLookupTableData")
    if plain:
        return _checked(first, _unpacked(bytes(plain), entries, is_little_endian), entries)
    segments = bytes(dataset[f"Segmented{colour}PaletteColorLookupTableData"].value)
    size = 1 if bits <= 8 else 2
    words = [int(word) for word in _words(segments, size, is_little_endian)]
    values = np.asarray(_expanded(words, size, entries), dtype=np.uint16)
    return _checked(first, values, entries)


def _descriptor(value: Any) -> tuple[int, int, int]:
    entries, first, bits = (int(number) for number in value)
    # 0 stands for 65536, which 16 bits cannot hold
    return entries % _LARGEST or _LARGEST, first, bits


def _unpacked(data: bytes, entries: int, is_little_endian: bool) -> npt.NDArray[Any]:
    # entries of 8 bits come packed, or each in a word of its own: the length tells
    return _words(data, 2 if len(data) >= 2 * entries else 1, is_little_endian)[:entries]


def _words(data: bytes, size: int, is_little_endian: bool) -> npt.NDArray[Any]:
    even = data[: len(data) - len(data) % 2]
    words = np.frombuffer(even, dtype="<u2" if is_little_endian else ">u2").astype("<u2")
    if size == 2:
        return words
    odd = np.frombuffer(data[len(even) :], dtype=np.uint8)
    return np.concatenate([words.view(np.uint8), odd])


def _expanded(words: list[int], size: int, entries: int) -> list[int]:
    """Expand a segmented table: 0 gives entries as they are, 1 a straight line, 2 repeats earlier segments."""
    values: list[int] = []
    starts: set[int] = set()
    # what is still to be done, as (position, segments left); None means to the end
    pending: list[tuple[int, int | None]] = [(0, None)]
    # a step adds an entry or reads a segment once; segments of nothing, repeated, would go on for hours
    steps = entries + len(words)
    while pending and len(values) < entries:
        steps -= 1
        if steps < 0:
            raise RefusedInput(RefusalCode.LUT_FAILED, "a segmented palette repeats segments that hold nothing")
        position, left = pending.pop()
        if left == 0 or position + 1 >= len(words):
            continue
        kind, length = words[position], words[position + 1]
        width = {0: 2 + length, 1: 3, 2: 2 + 4 // size}.get(kind)
        if width is None or (kind == 2 and left is not None):
            raise RefusedInput(
                RefusalCode.LUT_FAILED, f"a segmented palette holds the segment {kind} where none may be"
            )
        starts.add(position)
        pending.append((position + width, None if left is None else left - 1))
        segment = words[position : position + width]
        if kind == 2:
            pending.append((_target(segment[2:], size, starts), length))
        else:
            values += segment[2:] if kind == 0 else _line(values[-1], segment[2], length)
    return values


def _target(parts: list[int], size: int, starts: set[int]) -> int:
    """Return which entry an indirect segment points to: the standard counts bytes, some writers count entries."""
    offset = sum(part << (8 * size * index) for index, part in enumerate(parts))
    return offset // size if offset // size in starts else offset


def _line(start: int, end: int, length: int) -> list[int]:
    return [int(value) for value in np.around(np.linspace(start, end, length + 1))[1:]]


def _checked(first: int, values: npt.NDArray[Any], entries: int) -> LookupTable:
    if len(values) != entries:
        raise RefusedInput(
            RefusalCode.LUT_FAILED,
            f"a lookup table has {len(values)} entries and announces {entries}; export the file again",
        )
    return LookupTable(first, values)


def _broken(error: Exception) -> RefusedInput:
    return RefusedInput(
        RefusalCode.LUT_FAILED, f"a lookup table is missing or broken ({type(error).__name__}); export the file again"
    )
