"""What the dictionary transforms that write results share: the keys of the results, and where their metadata is."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

from monai.config.type_definitions import KeysCollection
from monai.transforms.io.dictionary import SaveImaged
from monai.transforms.transform import MapTransform
from monai.utils.misc import ensure_tuple_rep

__all__ = ["ResultSaverd"]


class ResultSaverd(SaveImaged):
    """Base of what writes results without MONAI's writers; a ``SaveImaged``, by which MONAI Label knows and removes it.

    Args:
        keys: keys of the results.
        image_key: key of the image whose metadata names a result that brings none.
        meta_keys: keys of metadata for results that bring none.
        meta_key_postfix: default of ``meta_keys``: ``{key}_{meta_key_postfix}``.
        allow_missing_keys: skip keys that an item has not.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        image_key: str | None = "image",
        meta_keys: KeysCollection | None = None,
        meta_key_postfix: str = "meta_dict",
        allow_missing_keys: bool = False,
    ) -> None:
        # SaveImaged would build a SaveImage, and make its output folder, for nothing
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.meta_keys = ensure_tuple_rep(meta_keys, len(self.keys))
        self.meta_key_postfix = ensure_tuple_rep(meta_key_postfix, len(self.keys))
        self.image_key = image_key

    def _results(self, data: Mapping[Hashable, Any]) -> Iterator[tuple[Hashable, dict[str, Any]]]:
        """Yield each key with the metadata for a result that brings none: its own entry's, or else the image's."""
        for key, meta_key, postfix in self.key_iterator(data, self.meta_keys, self.meta_key_postfix):
            meta = data.get(meta_key or f"{key}_{postfix}")
            yield key, dict(getattr(data.get(self.image_key), "meta", {})) if meta is None else meta
