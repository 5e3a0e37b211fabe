"""Which decoder reads which transfer syntax: one each, so that the same file gives the same pixels everywhere.

Where two decoders give different pixels (lossy JPEG by 1 to 12 grey levels) a fallback would make results depend on
what happens to be installed; a missing decoder is therefore an error that names it. None of them may end the process:
GDCM does on frames with an odd header (an assertion of its own that nothing catches), so it is not among them.
"""

from __future__ import annotations

from typing import Any

from msrf_monai.clinical.reading.refusal import RefusalCode, RefusedInput
from msrf_monai.optional import require

__all__ = ["PINNED_PLUGINS", "pinned_plugin"]

_JPEG = "1.2.840.10008.1.2.4."

PINNED_PLUGINS: dict[str, tuple[str, str]] = {
    _JPEG + "50": ("imagecodecs", "imagecodecs"),  # JPEG baseline
    _JPEG + "51": ("imagecodecs", "imagecodecs"),  # JPEG extended, 8 and 12 bits
    _JPEG + "57": ("imagecodecs", "imagecodecs"),  # JPEG lossless
    _JPEG + "70": ("imagecodecs", "imagecodecs"),  # JPEG lossless, first-order prediction
    _JPEG + "80": ("pyjpegls", "pyjpegls"),  # JPEG-LS lossless
    _JPEG + "81": ("pyjpegls", "pyjpegls"),  # JPEG-LS near lossless
    _JPEG + "90": ("imagecodecs", "imagecodecs"),  # JPEG 2000 lossless
    _JPEG + "91": ("imagecodecs", "imagecodecs"),  # JPEG 2000
    _JPEG + "201": ("imagecodecs", "imagecodecs"),  # HTJ2K lossless
    _JPEG + "202": ("imagecodecs", "imagecodecs"),  # HTJ2K lossless RPCL
    _JPEG + "203": ("imagecodecs", "imagecodecs"),  # HTJ2K
    "1.2.840.10008.1.2.5": ("pydicom", "pydicom"),  # RLE
}
"""Transfer syntax UID -> (pydicom's name of the plugin, package to install). Native ones need none."""

_PLUGIN_MODULE = "msrf_monai.clinical.reading.imagecodecs_plugin"


def pinned_plugin(transfer_syntax: Any) -> str:
    """Return the decoding plugin of an encapsulated transfer syntax, registered and ready.

    Args:
        transfer_syntax: a ``pydicom.uid.UID``.

    Returns:
        The plugin's name for pydicom; empty for native transfer syntaxes.

    Raises:
        RefusedInput: ``unsupported`` when nothing here decodes it, ``decoder_missing`` when its package is missing.
    """
    if not transfer_syntax.is_encapsulated:
        return ""
    if str(transfer_syntax) not in PINNED_PLUGINS:
        raise RefusedInput(
            RefusalCode.UNSUPPORTED,
            f"pixels compressed by transfer syntax {transfer_syntax} cannot be decoded here; "
            "have the archive send the file uncompressed",
        )
    plugin, package = PINNED_PLUGINS[str(transfer_syntax)]
    decoder = require("pydicom.pixels", "clinical").get_decoder(transfer_syntax)
    if plugin == "imagecodecs" and plugin not in (*decoder.available_plugins, *decoder._unavailable):
        decoder.add_plugin(plugin, (_PLUGIN_MODULE, "_decode_frame"))
    if plugin not in decoder.available_plugins:
        raise RefusedInput(
            RefusalCode.DECODER_MISSING,
            f"transfer syntax {transfer_syntax} needs {package}, which is not installed; "
            "run: pip install 'msrf-monai[clinical]'",
        )
    return plugin
