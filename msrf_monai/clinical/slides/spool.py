"""Rows of a mask become tiles, and compressed tiles wait in a file without a name until the result is written.

A file without a name cannot be mistaken for a result and is gone when the process is, however that ends. It lies in the
result's own folder, so that a full disk is noticed while there is nothing to mend.
"""

from __future__ import annotations

import io
import os
import tempfile
import zlib
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.slides.files import SeekableReader
from msrf_monai.errors import InputError
from msrf_monai.files import storing

__all__ = ["DescriptorReader", "Nameless", "RowBlocks", "TileSpool"]

Mask = npt.NDArray[np.uint8]


class RowBlocks:
    """Gather rows that come in any number into blocks of one height.

    Args:
        height: rows of a block.
        width: columns.
    """

    def __init__(self, height: int, width: int) -> None:
        self._block = np.zeros((height, width), dtype=np.uint8)
        self._filled = 0

    def push(self, rows: Mask) -> Iterator[Mask]:
        """Add rows; yield each block that is full. A block is valid until the next one.

        Args:
            rows: ``(h, width)`` uint8.

        Raises:
            InputError: when the rows have another width.
        """
        if rows.ndim != 2 or rows.shape[1] != self._block.shape[1] or rows.dtype != np.uint8:
            raise InputError(
                f"rows of {self._block.shape[1]} uint8 pixels were expected, got {rows.shape} {rows.dtype}"
            )
        while len(rows):
            taken = rows[: len(self._block) - self._filled]
            self._block[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            rows = rows[len(taken) :]
            if self._filled == len(self._block):
                self._filled = 0
                yield self._block

    def rest(self) -> Iterator[Mask]:
        """Yield what is left, filled up with zeros, if anything is."""
        if self._filled:
            self._block[self._filled :] = 0
            self._filled = 0
            yield self._block


class TileSpool:
    """Compressed tiles in the order in which they were added.

    Args:
        path: the result that they are for.
        encode: compresses a tile ``(h, w)`` uint8.
    """

    def __init__(self, path: Path, encode: Callable[[Mask], bytes]) -> None:
        self._path = path
        self._encode = encode
        self._plain: dict[int, bytes] = {}
        self._sizes = array("Q")
        self._checks = array("L")
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=path.parent, prefix=".tiles.", suffix=".part")  # noqa: SIM115

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Bytes of each tile."""
        return np.array(self._sizes, dtype=np.int64)

    @property
    def checks(self) -> npt.NDArray[np.int64]:
        """CRC-32 of each tile's pixels before they were compressed."""
        return np.array(self._checks, dtype=np.int64)

    def add_blocks(self, block: Mask, width: int) -> None:
        """Cut a row of tiles out of a block and add them; the last one is filled up with zeros.

        Args:
            block: ``(h, w)``.
            width: of a tile.

        Raises:
            StorageError: when the disk refuses.
        """
        for left in range(0, block.shape[1], width):
            tile = np.zeros((len(block), width), dtype=np.uint8)
            part = block[:, left : left + width]
            tile[:, : part.shape[1]] = part
            self._add(tile)

    def read_all(self) -> Iterator[bytes]:
        """Yield the tiles in order."""
        with storing(self._path):
            self._file.seek(0)
            for size in self._sizes:
                yield self._file.read(size)

    def close(self) -> None:
        """Give the disk its space back."""
        # what a full disk has not taken is tried again on closing, and no longer wanted
        with suppress(OSError):
            self._file.close()

    def _add(self, tile: Mask) -> None:
        value = int(tile[0, 0])
        is_plain = bool((tile == value).all())
        data = self._plain[value] if is_plain and value in self._plain else self._encode(tile)
        if is_plain:
            self._plain[value] = data
        with storing(self._path):
            self._file.write(data)
        self._sizes.append(len(data))
        self._checks.append(zlib.crc32(tile.data))


class DescriptorReader(SeekableReader):
    """What has been written to a file that is still open, as a stream.

    Args:
        descriptor: of the open file; not closed.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def _end(self) -> int:
        return os.fstat(self._descriptor).st_size

    def readinto(self, buffer: object) -> int:
        """Fill ``buffer`` as far as the file goes."""
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = os.pread(self._descriptor, len(view), self._position)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


class Nameless(io.RawIOBase):
    """A file that is open for writing, for libraries that want to know its name and would not understand a number.

    Args:
        handle: the open file; not closed.
    """

    name = ""

    def __init__(self, handle: IO[bytes]) -> None:
        super().__init__()
        self._handle = handle

    def writable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, as every stream does."""
        return self._handle.seek(offset, whence)

    def tell(self) -> int:
        """Return where the next byte goes."""
        return self._handle.tell()

    def write(self, data: Any) -> int:
        """Write all of ``data``."""
        return int(self._handle.write(data))
