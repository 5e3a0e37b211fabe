"""Several data sets as one: which images, whose they are, and how often each is drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils.data import WeightedRandomSampler

from msrf_monai.data import balanced_weights, load_pool, synthesize_dataset
from msrf_monai.errors import InputError


def test_items_name_their_data_set_and_every_set_is_drawn_equally_often(tmp_path: Path) -> None:
    for name, counts in (("small", (2, 1, 1)), ("large", (12, 1, 1))):
        synthesize_dataset("lesion", tmp_path / name, counts=counts, size=(32, 48), seed=len(name), folds=0)
    folders = {name: tmp_path / name for name in ("small", "large")}

    items = load_pool(folders, "training")

    assert Counter(item["dataset"] for item in items) == {"small": 2, "large": 12}
    assert all(item.keys() == {"image", "label", "dataset"} and Path(item["image"]).is_file() for item in items)
    assert len(load_pool(folders, "training", limit=3)) == 2 + 3
    sampler = WeightedRandomSampler(balanced_weights(items), 2000, generator=torch.Generator().manual_seed(1))
    drawn = Counter(items[index]["dataset"] for index in sampler)
    assert drawn["small"] == pytest.approx(1000, abs=100)


def test_an_empty_pool_and_items_of_no_pool_are_errors() -> None:
    with pytest.raises(InputError, match="no data set"):
        load_pool({}, "training")
    with pytest.raises(InputError, match="no 'dataset'"):
        balanced_weights([{"image": "a.png"}])
