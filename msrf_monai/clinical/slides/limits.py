"""How much one slide may cost, decided from its headers before a tile is decoded."""

from __future__ import annotations

from dataclasses import dataclass, fields

from msrf_monai.clinical.reading import Limits, RefusalCode, RefusedInput
from msrf_monai.errors import ConfigError

__all__ = ["SlideLimits"]


@dataclass(frozen=True)
class SlideLimits:
    """Upper bounds for one slide.

    Raises:
        ConfigError: when a bound is not a positive whole number.
    """

    file_bytes: int = 1 << 40
    """Bytes of one file: 1 TiB; slides are read by tiles and never held as a whole."""
    header_bytes: int = 1 << 28
    """Bytes of one file's header: 256 MiB, above the per-frame groups of a million tiles."""
    level_pixels: int = 200_000_000_000
    """Rows times columns of one level: about 450,000 x 450,000."""
    tile_pixels: int = 1 << 24
    """Rows times columns of one stored tile: 4096 x 4096; a tile is the least that is decoded at once."""
    tiles: int = 4_000_000
    """Tiles of one level, each of which costs 16 bytes for its place in the file."""
    levels: int = 64
    """Pictures in one file, or files of one series."""
    files: int = 512
    """Files of one slide in a maker's format."""
    cache_bytes: int = 1 << 27
    """Decoded tiles that a slide keeps when nothing else is asked for: 128 MiB."""

    def __post_init__(self) -> None:
        for bound in fields(self):
            value = getattr(self, bound.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"limit {bound.name} must be a whole number above 0, got {value!r}")

    @property
    def of_file(self) -> Limits:
        """The same bounds in the words of reading, for one file and one tile."""
        return Limits(file_bytes=self.file_bytes, frame_pixels=self.tile_pixels)

    def check_level(self, rows: int, columns: int, tile_rows: int, tile_columns: int) -> None:
        """Hold what a header claims of a level against the bounds.

        Args:
            rows: height of the level in pixels.
            columns: its width.
            tile_rows: height of its tiles.
            tile_columns: width of its tiles.

        Raises:
            RefusedInput: ``bad_header`` when a number is below 1, ``too_many_pixels`` or ``too_many_frames``.
        """
        if min(rows, columns, tile_rows, tile_columns) < 1:
            raise RefusedInput(
                RefusalCode.BAD_HEADER,
                f"the header gives a level of {rows} x {columns} pixels in tiles of {tile_rows} x {tile_columns}; "
                "each number must be at least 1",
            )
        if rows * columns > self.level_pixels:
            raise RefusedInput(
                RefusalCode.TOO_MANY_PIXELS,
                f"{rows} x {columns} pixels are more than the limit of {self.level_pixels} a level; "
                "raise level_pixels if the slide is meant to be that large",
            )
        if tile_rows * tile_columns > self.tile_pixels:
            raise RefusedInput(
                RefusalCode.TOO_MANY_PIXELS,
                f"tiles of {tile_rows} x {tile_columns} pixels are more than the limit of {self.tile_pixels}; "
                "raise tile_pixels if that is meant",
            )
        tiles = -(-rows // tile_rows) * -(-columns // tile_columns)
        if tiles > self.tiles:
            raise RefusedInput(
                RefusalCode.TOO_MANY_FRAMES,
                f"{tiles} tiles are more than the limit of {self.tiles} a level; raise tiles if that is meant",
            )
