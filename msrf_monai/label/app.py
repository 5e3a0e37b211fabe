"""What MONAI Label's own app for bundles leaves open for 2-D images; ``main.py`` of the app's folder mixes it in.

Only what no configuration of a bundle and no environment variable can say stands here; docs/monai-label.md has the
reasons. Nothing of MONAI Label is replaced: these are its app's own methods, called with better requests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from msrf_monai.clinical.writing.segments import COLOURS
from msrf_monai.label.archive_images import with_images_only
from msrf_monai.label.guard import guarded
from msrf_monai.label.polygons import annotation_of
from msrf_monai.label.submitted_outlines import with_masks
from msrf_monai.optional import require

__all__ = ["BundleAppMixin", "mask_extension"]

_KEPT = (".nii.gz", ".nii", ".nrrd")
_WHOLE = (0, 0, 2048, 2048)
"""What MONAI Label puts in where a client names no rectangle."""


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

    def infer_wsi(self, request: Any, datastore: Any = None) -> Any:
        """Segment one picture and answer with polygons, as QuPath and the Digital Slide Archive ask for.

        MONAI Label's own method answers with the mask where they expect outlines, and takes every TIFF for a slide.
        """
        request = {**request, "result_extension": ".png", "save_label": False}
        result = self.infer(request, datastore)
        path = Path(result["file"])
        mask = np.asarray(Image.open(path))
        path.unlink()
        said = result.get("params") or {}
        labels = said.get("label_names") or {}
        colours = {name: COLOURS[(int(number) - 1) % len(COLOURS)] for name, number in labels.items()}
        area = float(request.get("min_poly_area") or 0)
        answer = {
            "name": f"MONAI Label annotations of {request.get('model')}",
            "description": "",
            "model": request.get("model"),
            "location": request.get("location"),
            "size": request.get("size"),
            "annotations": [annotation_of(_within(mask, request), labels, colours, area)],
            "latencies": said.get("latencies"),
        }
        return {"file": _polygon_file(answer, request.get("output") or "dsa"), "params": answer}

    def init_datastore(self) -> Any:
        """Refuse ids and tags that lead out of the folder of images, and take outlines as masks."""
        return guarded(with_masks(super().init_datastore(), self._numbers))  # type: ignore[misc]

    def init_remote_datastore(self) -> Any:
        """List images alone, give each series by its file in the cache, and leave no other copy of it behind.

        The first time that MONAI Label makes NIfTI of a series, it returns a temporary file, which it never deletes
        and beside which the series does not lie.
        """
        store = super().init_remote_datastore()  # type: ignore[misc]
        first = store.get_image_uri

        def settled(image_id: str) -> str:
            given = str(first(image_id))
            kept = str(first(image_id))
            if given != kept:
                Path(given).unlink(missing_ok=True)
            return kept

        store.get_image_uri = settled
        settings = require("monailabel.config", "label").settings
        return with_images_only(store, settings.MONAI_LABEL_DICOMWEB_CACHE_EXPIRY)

    def init_strategies(self) -> Any:
        """Offer the least certain image first, where a bundle scores images: MONAI Label's app uses no score."""
        strategies = dict(super().init_strategies())  # type: ignore[misc]
        if self.conf.get("epistemic_model"):  # type: ignore[attr-defined]
            active = require("monailabel.tasks.activelearning.epistemic", "label")
            strategies["epistemic"] = active.Epistemic()
        return strategies

    def _numbers(self) -> dict[str, int]:
        """Return the class number of each label on which all bundles that know it agree."""
        found: dict[str, set[int]] = {}
        for task in self._infers.values():  # type: ignore[attr-defined]
            for label, number in task.info()["labels"].items():
                found.setdefault(str(label).lower(), set()).add(int(number))
        agreed = {label: numbers.pop() for label, numbers in found.items() if len(numbers) == 1}
        return {label: number for label, number in agreed.items() if 0 < number < 256}

    def _path_of(self, image: Any, datastore: Any) -> str:
        if not isinstance(image, str):
            return ""
        if Path(image).exists():
            return image
        return str((datastore or self.datastore()).get_image_uri(image))  # type: ignore[attr-defined]


def _within(mask: npt.NDArray[Any], request: Any) -> npt.NDArray[Any]:
    """Clear what lies outside the rectangle that was asked for; one without a size means the whole picture."""
    (x, y), (width, height) = request.get("location") or (0, 0), request.get("size") or (0, 0)
    if not (width and height) or (x, y, width, height) == _WHOLE:
        return mask
    kept = np.zeros_like(mask)
    inside = (slice(max(y, 0), max(y + height, 0)), slice(max(x, 0), max(x + width, 0)))
    kept[inside] = mask[inside]
    return kept


def _polygon_file(answer: dict[str, Any], output: str) -> str | None:
    if output == "json":
        return None
    formats = require("monailabel.utils.others.pathology", "label")
    write = formats.create_asap_annotations_xml if output == "asap" else formats.create_dsa_annotations_json
    return str(write(answer)[0])
