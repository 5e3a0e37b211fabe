"""How much one input may cost, decided from headers before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass, fields

from msrf_monai.clinical.reading.refusal import RefusalCode, RefusedInput
from msrf_monai.errors import ConfigError

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Upper bounds for one input.

    Raises:
        ConfigError: when a bound is not a positive whole number.
    """

    file_bytes: int = 1 << 30
    """Bytes of one file: 1 GiB, above any clip or tomosynthesis; a file is held in memory while it is read."""
    inflated_bytes: int = 1 << 28
    """Bytes that a deflated or gzipped file may become: 256 MiB, since they are held about three times over."""
    frame_pixels: int = 100_000_000
    """Rows times columns of one frame: 10,000 x 10,000, above any camera or detector; whole slides are tiled."""
    frames: int = 20_000
    """Frames of one file, or files of one series: above any cine run."""

    def __post_init__(self) -> None:
        for bound in fields(self):
            value = getattr(self, bound.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"limit {bound.name} must be a whole number above 0, got {value!r}")

    def check_size(self, rows: int, columns: int, frames: int = 1) -> None:
        """Hold what a header claims against the bounds.

        Args:
            rows: height in pixels.
            columns: width in pixels.
            frames: number of frames.

        Raises:
            RefusedInput: ``bad_header`` when a number is below 1, ``too_many_pixels`` or ``too_many_frames``.
        """
        if rows < 1 or columns < 1 or frames < 1:
            raise RefusedInput(
                RefusalCode.BAD_HEADER,
                f"the header gives {rows} rows, {columns} columns and {frames} frames; each must be at least 1",
            )
        if rows * columns > self.frame_pixels:
            raise RefusedInput(
                RefusalCode.TOO_MANY_PIXELS,
                f"{rows} x {columns} pixels are more than the limit of {self.frame_pixels} a frame; "
                "raise frame_pixels if the image is meant to be that large",
            )
        if frames > self.frames:
            raise RefusedInput(
                RefusalCode.TOO_MANY_FRAMES,
                f"{frames} frames are more than the limit of {self.frames}; raise frames if that is meant",
            )
