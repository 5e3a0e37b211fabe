"""Where each tile of a DICOM slide lies in its file, without reading the pixel data as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.reading import RefusalCode, RefusedInput
from msrf_monai.clinical.reading.quiet import quiet_pydicom
from msrf_monai.clinical.slides.files import SlideFile
from msrf_monai.clinical.slides.limits import SlideLimits

__all__ = ["FramePlaces", "frame_places"]

_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_TABLES = (b"\xe0\x7f\x01\x00", b"\xe0\x7f\x02\x00")
"""The extended offset table and its lengths: with them every frame is one piece, so that they are not needed."""
_UNDEFINED = 0xFFFFFFFF
_WINDOW = 1 << 20

Whole = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FramePlaces:
    """The frame of each tile, and the pieces of the file that it is made of."""

    frame_of_tile: Whole
    """``(rows, columns)`` of tiles; -1 where there is none."""
    starts: Whole
    """Where each piece begins."""
    sizes: Whole
    first_piece: Whole
    """Of each frame, and one more at the end."""

    def read(self, file: SlideFile, row: int, column: int) -> bytes | None:
        """Return a tile's frame as it is stored, pieces joined; None when there is no tile."""
        frame = int(self.frame_of_tile[row, column])
        if frame < 0:
            return None
        pieces = range(int(self.first_piece[frame]), int(self.first_piece[frame + 1]))
        return b"".join(file.read(int(self.starts[piece]), int(self.sizes[piece])) for piece in pieces)


def frame_places(file: SlideFile, header: Any, position: int, limits: SlideLimits) -> FramePlaces:
    """Find the tiles.

    Args:
        file: the open file.
        header: its data set without pixels, which has been held against the limits.
        position: where the element of the pixel data (or one of its offset tables) begins.
        limits: bounds.

    Returns:
        The place of each tile.

    Raises:
        RefusedInput: ``bad_header``, ``unsupported``, ``truncated``, ``length_mismatch`` or ``bad_encapsulation``.
    """
    grid = (
        -(-int(header.TotalPixelMatrixRows) // int(header.Rows)),
        -(-int(header.TotalPixelMatrixColumns) // int(header.Columns)),
    )
    frames = _number_of_frames(header, limits)
    with quiet_pydicom():
        tiles = _tiles(header, grid, frames)
    is_encapsulated = bool(header.file_meta.TransferSyntaxUID.is_encapsulated)
    value, length = _value(file, position, is_implicit=bool(header.file_meta.TransferSyntaxUID.is_implicit_VR))
    if not is_encapsulated:
        return _native(file, header, tiles, frames, value, length)
    if length != _UNDEFINED:
        raise _badly_packed()
    table, starts, sizes = _fragments(file, value, limits)
    return FramePlaces(tiles, starts, sizes, _first_pieces(frames, starts, table))


def _number_of_frames(header: Any, limits: SlideLimits) -> int:
    try:
        frames = int(header.get("NumberOfFrames") or 1)
    except (TypeError, ValueError):
        frames = 0
    if not 1 <= frames <= limits.tiles:
        raise RefusedInput(
            RefusalCode.TOO_MANY_FRAMES if frames > 0 else RefusalCode.BAD_HEADER,
            f"a slide of {frames} frames was found, and 1 to {limits.tiles} can be read",
        )
    return frames


def _tiles(header: Any, grid: tuple[int, int], frames: int) -> Whole:
    if "PerFrameFunctionalGroupsSequence" not in header:
        if frames != grid[0] * grid[1]:
            raise RefusedInput(
                RefusalCode.BAD_HEADER,
                f"a slide of {grid[0]} x {grid[1]} tiles has {frames} frames and does not say where they lie",
            )
        return np.arange(frames, dtype=np.int64).reshape(grid)
    tiles = np.full(grid, -1, dtype=np.int64)
    groups = header.PerFrameFunctionalGroupsSequence
    if len(groups) != frames:
        raise RefusedInput(RefusalCode.BAD_HEADER, f"{frames} frames and the places of {len(groups)} were found")
    for frame, group in enumerate(groups):
        row, column = _tile_of(group, header)
        if not (0 <= row < grid[0] and 0 <= column < grid[1]) or tiles[row, column] >= 0:
            raise RefusedInput(RefusalCode.BAD_HEADER, "two frames of the slide share a place, or one lies outside")
        tiles[row, column] = frame
    return tiles


def _tile_of(group: Any, header: Any) -> tuple[int, int]:
    try:
        place = group.PlanePositionSlideSequence[0]
        top = int(place.RowPositionInTotalImagePixelMatrix) - 1
        left = int(place.ColumnPositionInTotalImagePixelMatrix) - 1
    except Exception as error:  # absent, or no number
        raise RefusedInput(
            RefusalCode.BAD_HEADER, f"a frame does not say where it lies ({type(error).__name__}); export it again"
        ) from None
    if top % int(header.Rows) or left % int(header.Columns):
        raise RefusedInput(
            RefusalCode.UNSUPPORTED, "the frames of the slide do not lie on a grid; export it as TILED_FULL"
        )
    return top // int(header.Rows), left // int(header.Columns)


def _value(file: SlideFile, position: int, *, is_implicit: bool) -> tuple[int, int]:
    """Step over the extended offset tables to the pixel data; return where its value begins, and its length."""
    for _ in range(3):
        head = file.read(position, min(12, file.size - position)).ljust(12, b"\0")
        is_long = not is_implicit and head[4:6] in (b"OB", b"OW", b"OV", b"UN")
        length = int.from_bytes(head[8:12] if is_long else head[4:8], "little")
        start = position + (12 if is_long else 8)
        if head[:4] == _PIXEL_DATA:
            return start, length
        if head[:4] not in _TABLES or length == _UNDEFINED:
            break
        position = start + length
    raise RefusedInput(RefusalCode.TRUNCATED, "no pixel data follows the header; copy or export the file again")


def _native(file: SlideFile, header: Any, tiles: Whole, frames: int, value: int, length: int) -> FramePlaces:
    bits = int(header.Rows) * int(header.Columns) * int(header.get("SamplesPerPixel") or 1)
    size = bits * int(header.get("BitsAllocated") or 0) // 8
    if str(header.get("PhotometricInterpretation")) == "YBR_FULL_422":
        size = size * 2 // 3
    if length == _UNDEFINED or value + length > file.size or length < size * frames or size < 1:
        raise RefusedInput(
            RefusalCode.TRUNCATED,
            f"the pixel data has {min(length, file.size - value)} of {size * frames} bytes; copy or export it again",
        )
    starts = value + size * np.arange(frames, dtype=np.int64)
    return FramePlaces(tiles, starts, np.full(frames, size), np.arange(frames + 1, dtype=np.int64))


def _fragments(file: SlideFile, position: int, limits: SlideLimits) -> tuple[list[int], Whole, Whole]:
    """Return the basic offset table and the place of each fragment, stepping from item to item."""
    starts, sizes, table = [], [], None
    while True:
        head = file.read(position, 8)
        length = int.from_bytes(head[4:], "little")
        if head[:4] == _END:
            break
        if head[:4] != _ITEM or length == _UNDEFINED or position + 8 + length > file.size:
            raise _badly_packed()
        if table is None:
            table = np.frombuffer(file.read(position + 8, length - length % 4), "<u4").tolist()
        else:
            starts.append(position + 8)
            sizes.append(length)
        if len(starts) > 4 * limits.tiles:
            raise _badly_packed()
        position += 8 + length
    return table or [], np.array(starts, dtype=np.int64), np.array(sizes, dtype=np.int64)


def _first_pieces(frames: int, starts: Whole, table: list[int]) -> Whole:
    """Return the first fragment of each frame: one each, or as an offset table says."""
    if len(starts) == frames:
        return np.arange(frames + 1, dtype=np.int64)
    offsets = np.array(table, dtype=np.int64)
    if len(offsets) != frames or len(starts) < frames:
        raise _badly_packed()
    # offsets count from the item behind the table
    first = np.searchsorted(starts, offsets + starts[0])
    if (np.diff(first) < 1).any() or not np.array_equal(
        starts[np.minimum(first, len(starts) - 1)], offsets + starts[0]
    ):
        raise _badly_packed()
    return np.append(first, len(starts)).astype(np.int64)


def _badly_packed() -> RefusedInput:
    return RefusedInput(
        RefusalCode.BAD_ENCAPSULATION, "the compressed frames of the slide are missing or badly packed; export it again"
    )
