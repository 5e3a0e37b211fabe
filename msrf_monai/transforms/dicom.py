"""Single-frame DICOM files as pixels: the basic form, replaced as a whole when a clinical reader is at hand.

``reading.read_picture`` calls ``read_dicom(data, name, max_pixels=...)`` and nothing else of this module.
"""

from __future__ import annotations

import importlib
import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.errors import InvalidDicomError

from msrf_monai.errors import DataError
from msrf_monai.transforms.picture import Picture

__all__ = ["is_dicom", "read_dicom"]

_DAMAGE = (InvalidDicomError, AttributeError, EOFError, KeyError, NotImplementedError, OSError, RuntimeError, TypeError)

_GIVES_RGB = int(pydicom.__version__.split(".")[0]) >= 3
"""pydicom 3 turns YBR_FULL and YBR_FULL_422 into RGB while it decodes; pydicom 2 leaves that to its caller."""
_pixels = importlib.import_module("pydicom.pixels" if _GIVES_RGB else "pydicom.pixel_data_handlers.util")


def is_dicom(data: bytes) -> bool:
    """Tell whether the bytes begin as a DICOM file does: a preamble of 128 bytes, then ``DICM``."""
    return data[128:132] == b"DICM"


def read_dicom(data: bytes, name: str, *, max_pixels: int) -> Picture:
    """Read one frame of RGB, YBR or monochrome pixels.

    Monochrome values go through the modality LUT and then through the first window of the file, or, where it has none,
    from their smallest to their largest value; MONOCHROME1 is turned so that larger means brighter. 8-bit MONOCHROME2
    without rescaling and window stays as it is.

    Args:
        data: the file's bytes.
        name: the file, for errors.
        max_pixels: largest allowed rows times columns.

    Returns:
        uint8 ``(H, W, 1)`` or ``(H, W, 3)``, or float32 ``(H, W, 1)`` in [0, 255].

    Raises:
        DataError: when the file is damaged, holds no or several frames, or more pixels than ``max_pixels``.
    """
    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        frames, height, width = int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns)
        if frames > 1:
            raise DataError(f"{name} holds {frames} frames, and one 2-D image was expected; extract the wanted frame")
        if not 0 < height * width <= max_pixels:
            raise DataError(f"{name} is refused: {width} x {height} pixels, and max_pixels is {max_pixels}")
        pixels = np.array(dataset.pixel_array)
        if pixels.ndim == 3:
            return Picture(_rgb(pixels, dataset, name), 255.0)
        return _monochrome(pixels, dataset)
    except DataError:
        raise
    except (*_DAMAGE, ValueError) as error:
        raise DataError(f"{name} cannot be read as a DICOM image ({error}); export the file again") from error


def _rgb(pixels: npt.NDArray[Any], dataset: Any, name: str) -> npt.NDArray[np.uint8]:
    if pixels.dtype != np.uint8 or pixels.shape[2] != 3:
        raise DataError(f"{name} holds colour pixels of shape {pixels.shape} and type {pixels.dtype}, not 8-bit RGB")
    if str(dataset.PhotometricInterpretation) in ("YBR_FULL", "YBR_FULL_422") and not _GIVES_RGB:
        pixels = _pixels.convert_color_space(pixels, "YBR_FULL", "RGB")
    return pixels


def _monochrome(pixels: npt.NDArray[Any], dataset: Any) -> Picture:
    values = np.asarray(_pixels.apply_modality_lut(pixels, dataset))
    is_inverted = str(dataset.get("PhotometricInterpretation", "")) == "MONOCHROME1"
    has_window = "WindowCenter" in dataset and "WindowWidth" in dataset
    if pixels.dtype == np.uint8 and np.array_equal(values, pixels) and not has_window:
        return Picture((np.uint8(255) - pixels if is_inverted else pixels)[..., None], 255.0)
    if has_window:
        centre, width = _first(dataset.WindowCenter), max(_first(dataset.WindowWidth), 1.0)
        low, high = centre - width / 2, centre + width / 2
    else:
        low, high = float(values.min()), float(values.max())
    scaled = np.clip((values.astype(np.float32) - low) * (255 / max(high - low, 1e-6)), 0, 255).astype(np.float32)
    return Picture((255 - scaled if is_inverted else scaled)[..., None], 255.0)


def _first(value: Any) -> float:
    return float(value[0]) if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else float(value)
