"""Several prepared data sets as one, and weights that draw each of them equally often."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence

from msrf_monai.data.datalist import load_datalist
from msrf_monai.errors import InputError

__all__ = ["balanced_weights", "load_pool"]


def load_pool(
    datasets: Mapping[str, str | os.PathLike[str]], split: str, *, fold: int | None = None, limit: int | None = None
) -> list[dict[str, str]]:
    """Return one part of several prepared data sets, for a network that learns all of them.

    Args:
        datasets: the folder of each by the name that tables shall show.
        split: see ``load_datalist``.
        fold: see ``load_datalist``.
        limit: at most so many of each data set.

    Returns:
        Absolute paths under "image" and "label", and the name under "dataset", one data set after the other; the
        fields that only some data sets have are left out, since a batch needs equal keys.

    Raises:
        DataError: as ``load_datalist``.
        InputError: when there is no data set, and as ``load_datalist``.
    """
    if not datasets:
        raise InputError("the pool has no data set; name at least one, as {'busi': 'data/busi'}")
    return [
        {"image": item["image"], "label": item["label"], "dataset": name}
        for name, folder in datasets.items()
        for item in load_datalist(folder, split, fold=fold, limit=limit)
    ]


def balanced_weights(items: Sequence[Mapping[str, str]]) -> list[float]:
    """Weigh images so that a ``torch.utils.data.WeightedRandomSampler`` draws every data set equally often.

    Args:
        items: of ``load_pool``.

    Returns:
        One weight an item; those of each data set add up to 1.

    Raises:
        InputError: when an item names no data set.

    Example:
        >>> balanced_weights([{"dataset": "a"}, {"dataset": "b"}, {"dataset": "b"}])
        [1.0, 0.5, 0.5]
    """
    if not all("dataset" in item for item in items):
        raise InputError("an item has no 'dataset'; take the items of load_pool")
    count = Counter(item["dataset"] for item in items)
    return [1.0 / count[item["dataset"]] for item in items]
