"""Clinical batch inference: clinical files in, clinical objects out, nothing lost.

Importing this room loads neither pydicom's pixel code nor any decoder; what needs them imports them when it is used.
"""

from __future__ import annotations

import importlib
from typing import Any

from msrf_monai.clinical.case import Case, ImageInfo, ImageKind, PixelSource, SopReference, Vector, Window

__all__ = ["Case", "ImageInfo", "ImageKind", "PixelSource", "SopReference", "Vector", "Window"]

# What needs torch is imported when it is first asked for; bundles name it as "msrf_monai.clinical.<name>".
_LATER = {
    "ClinicalImageReader": "monai_reader",
    "LoadClinicalImage": "monai_load",
    "LoadClinicalImaged": "monai_load",
    "RunOptions": "run_options",
    "RunResult": "run_options",
    "predict": "pipeline",
}


def __getattr__(name: str) -> Any:
    """Import a module of this room when one of its names is first used."""
    if name in _LATER:
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
