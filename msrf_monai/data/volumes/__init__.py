"""Volumes that become slices: MetaImage, NIfTI and DICOM series, their masks, and the window of their values."""

from __future__ import annotations

from msrf_monai.data.volumes.folders import VolumeFolders, VolumePart
from msrf_monai.data.volumes.slices import SliceStack, VolumePair, read_slices
from msrf_monai.data.volumes.volume import Volume
from msrf_monai.data.volumes.window import Window

__all__ = ["SliceStack", "Volume", "VolumeFolders", "VolumePair", "VolumePart", "Window", "read_slices"]
