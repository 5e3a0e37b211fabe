"""Walk the directories of a TIFF or BigTIFF file without trusting one number in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.reading import RefusalCode, RefusedInput
from msrf_monai.clinical.slides.files import SlideFile
from msrf_monai.clinical.slides.limits import SlideLimits

__all__ = ["TiffDirectory", "is_tiff", "read_directories"]

_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TYPES = {
    **{1: "u1", 2: "S1", 3: "u2", 4: "u4", 5: "u4,u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 10: "i4,i4"},
    **{11: "f4", 12: "f8", 13: "u4", 16: "u8", 17: "i8", 18: "u8"},
}
_WHOLE = (1, 3, 4, 13, 16, 18)
_SUB_DIRECTORIES = 330
_MOST_ENTRIES = 4096


@dataclass(frozen=True)
class _Entry:
    kind: int
    count: int
    position: int


@dataclass(frozen=True)
class TiffDirectory:
    """One picture's tags; values are read when they are asked for, and never more than ``header_bytes`` of them."""

    _file: SlideFile
    _order: str
    _limits: SlideLimits
    _entries: dict[int, _Entry]
    children: list[TiffDirectory] = field(default_factory=list)
    """Smaller versions of the picture (SubIFDs)."""

    def count(self, tag: int) -> int:
        """Return how many values a tag has; 0 when it is absent."""
        entry = self._entries.get(tag)
        return entry.count if entry else 0

    def values(self, tag: int) -> npt.NDArray[Any]:
        """Return the values of a tag as an array; empty when it is absent.

        Raises:
            RefusedInput: ``bad_header`` or ``truncated``.
        """
        entry = self._entries.get(tag)
        if entry is None:
            return np.zeros(0, dtype=np.int64)
        dtype = np.dtype(",".join(self._order + part for part in _TYPES[entry.kind].split(",")))
        size = entry.count * dtype.itemsize
        if size > self._limits.header_bytes:
            raise RefusedInput(
                RefusalCode.TOO_LARGE, f"tag {tag} has {size} bytes, more than the limit; raise header_bytes"
            )
        return np.frombuffer(self._file.read(entry.position, size), dtype)

    def whole(self, tag: int, default: int | None = None) -> int:
        """Return the first value of a tag of whole numbers.

        Args:
            tag: the tag.
            default: what an absent tag stands for; None refuses it.

        Raises:
            RefusedInput: ``bad_header`` when it is absent, or no whole number.
        """
        entry = self._entries.get(tag)
        if entry is None and default is not None:
            return default
        if entry is None or entry.kind not in _WHOLE or entry.count < 1:
            raise RefusedInput(
                RefusalCode.BAD_HEADER, f"tag {tag} of the TIFF is missing or no whole number; export the file again"
            )
        return int(self._first(entry)[0])

    def ratio(self, tag: int) -> float | None:
        """Return the first value of a tag as a number, or None when it is absent or no number."""
        entry = self._entries.get(tag)
        if entry is None or entry.count < 1 or entry.kind in (2, 7):
            return None
        value = self._first(entry)[0]
        if entry.kind in (5, 10):
            return float(value[0]) / float(value[1]) if value[1] else None
        return float(value)

    def text(self, tag: int, most: int = 1 << 20) -> str:
        """Return the text of a tag, cut to ``most`` bytes; empty when it is absent. It may name a patient."""
        entry = self._entries.get(tag)
        if entry is None or entry.kind not in (1, 2, 7):
            return ""
        return self._file.read(entry.position, min(entry.count, most)).decode("utf-8", "replace").rstrip("\0")

    def _first(self, entry: _Entry) -> npt.NDArray[Any]:
        dtype = np.dtype(",".join(self._order + part for part in _TYPES[entry.kind].split(",")))
        return np.frombuffer(self._file.read(entry.position, dtype.itemsize), dtype)


def is_tiff(head: bytes) -> bool:
    """Tell whether a file begins as TIFF or BigTIFF does."""
    return head[:4] in _MAGICS


def read_directories(file: SlideFile, limits: SlideLimits) -> list[TiffDirectory]:
    """Read every directory of a file, each once.

    Args:
        file: a TIFF file.
        limits: ``levels`` bounds the number of directories, ``header_bytes`` the values of one tag.

    Returns:
        The directories of the file's chain, in order; at least one.

    Raises:
        RefusedInput: ``bad_header`` for a circle, a broken entry or too many directories, ``truncated`` when a
            directory or a value lies beyond the end.
    """
    return _Walk(file, limits).chain()


class _Walk:
    def __init__(self, file: SlideFile, limits: SlideLimits) -> None:
        self._file = file
        self._limits = limits
        self._order = "<" if file.head[:2] == b"II" else ">"
        self._is_big = 43 in (file.head[2], file.head[3])
        self._seen: set[int] = set()

    def chain(self) -> list[TiffDirectory]:
        position = self._number(8, 8) if self._is_big else self._number(4, 4)
        if self._is_big and (self._number(4, 2), self._number(6, 2)) != (8, 0):
            raise _broken("the header of the BigTIFF is damaged")
        found = self._follow(position)
        if not found:
            raise _broken("the TIFF holds no picture")
        return found

    def _follow(self, position: int, *, only: bool = False) -> list[TiffDirectory]:
        found = []
        while position:
            if position in self._seen:
                raise _broken("the TIFF's directories lead back to themselves")
            self._seen.add(position)
            if len(self._seen) > self._limits.levels:
                raise _broken(f"the TIFF has more than the limit of {self._limits.levels} pictures")
            directory, position = self._directory(position)
            found.append(directory)
            if only:
                break
        return found

    def _directory(self, position: int) -> tuple[TiffDirectory, int]:
        head, wide, word = (8, 20, 8) if self._is_big else (2, 12, 4)
        number = self._number(position, head)
        if number > _MOST_ENTRIES:
            raise _broken(f"a directory of the TIFF claims {number} tags")
        start = position + head
        entries = {}
        for index in range(number):
            tag, entry = self._entry(start + index * wide, word)
            entries[tag] = entry
        directory = TiffDirectory(self._file, self._order, self._limits, entries)
        if directory.count(_SUB_DIRECTORIES):
            for child in directory.values(_SUB_DIRECTORIES)[: self._limits.levels + 1]:
                directory.children.extend(self._follow(int(child), only=True))
        return directory, self._number(start + number * wide, word)

    def _entry(self, position: int, word: int) -> tuple[int, _Entry]:
        tag, kind = self._number(position, 2), self._number(position + 2, 2)
        count = self._number(position + 4, word)
        if kind not in _TYPES:
            # a tag of a type that nobody knows cannot be read, and is none that is needed
            return tag, _Entry(7, 0, position)
        size = count * np.dtype(_TYPES[kind]).itemsize
        place = position + 4 + word if size <= word else self._number(position + 4 + word, word)
        if place + size > self._file.size:
            raise RefusedInput(
                RefusalCode.TRUNCATED, "a tag of the TIFF lies beyond the end of the file; copy or export it again"
            )
        return tag, _Entry(kind, count, place)

    def _number(self, position: int, size: int) -> int:
        return int.from_bytes(self._file.read(position, size), "little" if self._order == "<" else "big")


def _broken(what: str) -> RefusedInput:
    return RefusedInput(RefusalCode.BAD_HEADER, f"{what}; copy or export the file again")
