"""3D Slicer's own client for MONAI Label, which MONAI Label brings along, and files as 3D Slicer writes them."""

from __future__ import annotations

import importlib.util
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from support.label_server import label_environment

__all__ = ["save_node", "slicer_client"]


@lru_cache(maxsize=1)
def slicer_client() -> Any:
    """Return the module of the extension of 3D Slicer that holds the class ``MONAILabelClient``."""
    path = label_environment().folder / "monailabel/plugins/slicer/MONAILabel/MONAILabelLib/client.py"
    spec = importlib.util.spec_from_file_location("slicer_client", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it imports cgi
        spec.loader.exec_module(module)
    return module


def save_node(pixels: npt.NDArray[Any], path: Path) -> Path:
    """Write a picture or a label as ``slicer.util.saveNode`` does: NIfTI of one slice, axes to the left and the back.

    Args:
        pixels: ``(H, W)``, or ``(H, W, 3)``, which becomes a volume of vectors.
        path: ends in ``.nii.gz``.
    """
    volume = pixels.swapaxes(0, 1)[:, :, None]
    if pixels.ndim == 3:
        volume = volume[:, :, :, None]
    image: Any = nibabel.Nifti1Image(np.ascontiguousarray(volume), np.diag([-1.0, -1.0, 1.0, 1.0]))
    if pixels.ndim == 3:
        image.header.set_intent("vector")
    nibabel.save(image, path)
    return path
