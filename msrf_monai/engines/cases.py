"""Which file a batch or an item came from, as MONAI's readers record it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["UNKNOWN_FILE", "case_names"]

_FILENAME = "filename_or_obj"
UNKNOWN_FILE = "(file not recorded)"


def case_names(batch: Any, *, key: str = "image") -> list[str]:
    """Return the source files of a batch.

    Args:
        batch: what a MONAI engine holds in ``state.batch``: one dictionary of collated tensors (B, C, ., .), or the
            list of dictionaries that decollating makes of it.
        key: the entry whose file is asked for.

    Returns:
        One name an image, as the reader recorded it; ``"(file not recorded)"`` where an image carries no meta data.
    """
    if isinstance(batch, Mapping):
        return _names_of(batch, key)
    if isinstance(batch, Sequence) and not isinstance(batch, str | bytes):
        return [
            name for item in batch for name in (_names_of(item, key) if isinstance(item, Mapping) else [UNKNOWN_FILE])
        ]
    return [UNKNOWN_FILE]


def _names_of(item: Mapping[str, Any], key: str) -> list[str]:
    image: Any = item.get(key)
    meta = getattr(image, "meta", None) or item.get(f"{key}_meta_dict") or {}
    names = meta.get(_FILENAME, item.get("id"))
    if names is None:
        shape: Any = getattr(image, "shape", ())
        return [UNKNOWN_FILE] * (int(shape[0]) if len(shape) == 4 else 1)  # (B, C, ., .) or one item (C, ., .)
    if isinstance(names, str) or not isinstance(names, Sequence):
        return [str(names)]
    return [str(name) for name in names]
