"""imagecodecs as one of pydicom's decoding plugins, for JPEG, JPEG 2000 and HTJ2K.

pydicom has plugins of its own for most of these. GDCM, the usual one, ends the whole process when the header of a frame
is odd, and knows neither 12-bit JPEG nor HTJ2K. pydicom imports this module by its name and asks for these three names;
``decoders.pinned_plugin`` registers it.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pydicom.uid

__all__ = ["DECODER_DEPENDENCIES", "is_available"]

_JPEG = "1.2.840.10008.1.2.4."
_DCT_AND_LOSSLESS = tuple(_JPEG + part for part in ("50", "51", "57", "70"))
_WAVELETS = tuple(_JPEG + part for part in ("90", "91", "201", "202", "203"))

DECODER_DEPENDENCIES = {pydicom.uid.UID(uid): ("imagecodecs",) for uid in (*_DCT_AND_LOSSLESS, *_WAVELETS)}


def is_available(uid: str) -> bool:
    """Tell whether this plugin decodes a transfer syntax here."""
    return uid in DECODER_DEPENDENCIES and find_spec("imagecodecs") is not None


def _decode_frame(src: bytes, runner: Any) -> bytearray:
    import imagecodecs

    photometric = str(runner.photometric_interpretation)
    if str(runner.transfer_syntax) in _WAVELETS:
        pixels = imagecodecs.jpeg2k_decode(src)
        if photometric in ("YBR_ICT", "YBR_RCT"):  # a part of the compression, which is undone
            runner.set_option("photometric_interpretation", "RGB")
    elif runner.samples_per_pixel == 3:
        # components as they are stored: DICOM's header says what they mean, and pydicom turns them into RGB
        space = "RGB" if photometric == "RGB" else "YCBCR"
        pixels = imagecodecs.jpeg8_decode(src, colorspace=space, outcolorspace=space)
    else:
        pixels = imagecodecs.jpeg8_decode(src)
    runner.set_option("bits_allocated", pixels.dtype.itemsize * 8)
    if pixels.ndim == 3:
        runner.set_option("planar_configuration", 0)
    return bytearray(np.ascontiguousarray(pixels).tobytes())
