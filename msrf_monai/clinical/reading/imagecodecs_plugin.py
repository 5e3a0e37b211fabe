"""imagecodecs as one of pydicom's decoding plugins: 12-bit JPEG, which GDCM does not read, and HTJ2K.

pydicom imports this module by its name and asks for these three names; ``decoders.pinned_plugin`` registers it.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pydicom.uid

__all__ = ["DECODER_DEPENDENCIES", "is_available"]

_HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")

DECODER_DEPENDENCIES = {pydicom.uid.UID(uid): ("imagecodecs",) for uid in (pydicom.uid.JPEGExtended12Bit, *_HTJ2K)}


def is_available(uid: str) -> bool:
    """Tell whether this plugin decodes a transfer syntax here."""
    return uid in DECODER_DEPENDENCIES and find_spec("imagecodecs") is not None


def _decode_frame(src: bytes, runner: Any) -> bytearray:
    import imagecodecs

    is_wavelet = str(runner.transfer_syntax) in _HTJ2K
    pixels = imagecodecs.jpeg2k_decode(src) if is_wavelet else imagecodecs.jpeg8_decode(src)
    runner.set_option("bits_allocated", pixels.dtype.itemsize * 8)
    if pixels.ndim == 3:
        runner.set_option("photometric_interpretation", "RGB")
        runner.set_option("planar_configuration", 0)
    return bytearray(np.ascontiguousarray(pixels).tobytes())
