"""Our way of reading and writing 2-D images in the shape of MONAI's readers and writers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.config.type_definitions import PathLike
from monai.data.image_reader import ImageReader
from monai.data.image_writer import ImageWriter, PILWriter
from monai.data.utils import is_supported_format
from monai.utils.misc import ensure_tuple

from msrf_monai.errors import DataError
from msrf_monai.files import atomic_write
from msrf_monai.transforms.picture import Picture
from msrf_monai.transforms.reading import read_picture

__all__ = ["AtomicPNGWriter", "Image2DReader"]

_SUFFIXES = ("png", "jpg", "jpeg", "bmp", "tif", "tiff", "ppm", "pgm", "gif", "webp")


class Image2DReader(ImageReader):
    """MONAI reader of one PNG, JPEG, BMP, TIFF, PPM, GIF or WebP image, with this package's rules and limits.

    Palettes are looked up, alpha is dropped, EXIF orientation is applied; TIFF, GIF and PPM need no ITK. For DICOM and
    NIfTI use ``msrf_monai.transforms.LoadImage2Dd``.
    """

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Say whether every name ends as one of the formats above."""
        return bool(is_supported_format(filename, _SUFFIXES))

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> Picture:
        """Read one file.

        Args:
            data: the path, or a list of one path.
            **kwargs: arguments of ``msrf_monai.transforms.reading.read_picture``, such as ``max_pixels``.

        Raises:
            DataError: when the file is missing, damaged, too large, or more than one is given.
        """
        names = ensure_tuple(data)
        if len(names) != 1:
            raise DataError(f"one image file was expected, got {len(names)}; load them under keys of their own")
        return read_picture(names[0], **kwargs)

    def get_data(self, img: Picture) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Return the pixels as ``(W, H)`` or ``(W, H, C)``, as MONAI's readers do, and their metadata."""
        rows = img.rows[..., 0] if img.rows.shape[-1] == 1 else img.rows
        pixels = np.swapaxes(rows, 0, 1)
        channel_dim = float("nan") if pixels.ndim == 2 else -1
        meta = {**img.meta, "spatial_shape": np.asarray(pixels.shape[:2]), "original_channel_dim": channel_dim}
        return pixels, meta


class AtomicPNGWriter(PILWriter):
    """MONAI's ``PILWriter``, pixel for pixel, but the PNG file appears whole or not at all (full disk, power cut)."""

    def write(self, filename: PathLike, verbose: bool = False, **kwargs: Any) -> None:
        """Write the image.

        Args:
            filename: the PNG file.
            verbose: log the file's name.
            **kwargs: ``reverse_indexing`` and ``image_mode`` as in ``PILWriter``; others go to Pillow's encoder.

        Raises:
            StorageError: when the file cannot be written; what was there before is untouched.
        """
        ImageWriter.write(self, filename, verbose=verbose)  # only logs; PILWriter's own would write in place
        picture = self.create_backend_obj(
            data_array=self.data_obj,
            dtype=self.output_dtype,
            reverse_indexing=kwargs.pop("reverse_indexing", True),
            image_mode=kwargs.pop("image_mode", None),
            scale=self.scale,
        )
        with atomic_write(Path(filename)) as handle:
            picture.save(handle, format="PNG", **kwargs)
