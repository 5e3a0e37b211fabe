"""Clinical batch inference: clinical files in, clinical objects out, nothing lost.

Importing this room loads neither pydicom's pixel code nor any decoder; what needs them imports them when it is used.
"""

from msrf_monai.clinical.case import Case, ImageInfo, ImageKind, PixelSource, SopReference, Vector, Window

__all__ = ["Case", "ImageInfo", "ImageKind", "PixelSource", "SopReference", "Vector", "Window"]
