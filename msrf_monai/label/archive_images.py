"""Which series of an archive are images: MONAI Label would offer segmentations and reports for annotation too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msrf_monai.optional import require

__all__ = ["NOT_IMAGES", "with_images_only"]

_WITHOUT_PICTURES = """
ANN AR AU ASMT DOC ECG EEG EMG EOG EPS FID HC HD IOL KER KO LEN M3D MAR NEARLINE OAM OPV PLAN POS PR REG RESP RTDOSE
RTINTENT RTPLAN RTRECORD RTSEGANN RTSTRUCT RWV SEG SMR SR SRF STAIN TEXTUREMAP VA
"""
NOT_IMAGES = frozenset(_WITHOUT_PICTURES.split())
"""Modalities (0008,0060) whose objects hold no picture of a patient; DICOM PS3.3 C.7.3.1.1.1."""


def with_images_only(store: Any, seconds: float) -> Any:
    """Let a datastore of an archive list series of images alone.

    Args:
        store: MONAI Label's datastore of a DICOMweb service; its ``list_images`` is replaced.
        seconds: how long a list is kept, as MONAI Label keeps its own.

    Returns:
        The same datastore. A series without a modality counts as images.
    """
    caching = require("cachetools", "label")

    @caching.cached(cache=caching.TTLCache(maxsize=1, ttl=seconds))
    def list_images() -> list[str]:
        found = store._client.search_for_series(search_filters=store._search_filter)
        return [_value(series, "0020000E") for series in found if _value(series, "00080060") not in NOT_IMAGES]

    store.list_images = list_images
    return store


def _value(series: Mapping[str, Any], tag: str) -> str:
    values = series.get(tag, {}).get("Value") or [""]
    return str(values[0])
