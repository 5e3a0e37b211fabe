"""What MONAI Label's own app for bundles leaves open for 2-D images; ``main.py`` of the app's folder mixes it in.

Only what no configuration of a bundle and no environment variable can say stands here; docs/monai-label.md has the
reasons. Nothing of MONAI Label is replaced: these are its app's own methods, called with better requests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

__all__ = ["BundleAppMixin", "mask_extension"]

_KEPT = (".nii.gz", ".nii", ".nrrd")


def mask_extension(image: str) -> str:
    """Return the kind of file that a mask of an image is sent as when the client does not say.

    Args:
        image: the image's path.

    Returns:
        A volume's own ending, else ``.png``: MONAI Label would write a mask of ``photo.jpg`` as JPEG, which blurs its
        values, and one of a DICOM file as a DICOM object that nothing reads as a mask.
    """
    name = image.lower()
    return next((ending for ending in _KEPT if name.endswith(ending)), ".png")


class BundleAppMixin:
    """Better defaults for requests, over MONAI Label's ``MyApp``."""

    def infer(self, request: Any, datastore: Any = None) -> Any:
        """Segment one image, losslessly whatever the kind of its file."""
        request = dict(request)
        if not request.get("result_extension"):
            request["result_extension"] = mask_extension(self._path_of(request.get("image"), datastore))
        return super().infer(request, datastore)  # type: ignore[misc]

    def batch_infer(self, request: Any, datastore: Any = None) -> Any:
        """Segment many images, on the CPU where there is no GPU: MONAI Label would divide by their number."""
        request = dict(request)
        if not torch.cuda.is_available():
            request["multi_gpu"] = False
            request["device"] = "cpu"
        return super().batch_infer(request, datastore)  # type: ignore[misc]

    def _path_of(self, image: Any, datastore: Any) -> str:
        if not isinstance(image, str):
            return ""
        if Path(image).exists():
            return image
        return str((datastore or self.datastore()).get_image_uri(image))  # type: ignore[attr-defined]
