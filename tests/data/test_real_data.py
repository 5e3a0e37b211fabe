"""The real data sets, against what their SOURCE.md says and against Pillow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msrf_monai.data import load_datalist, prepare_dataset
from msrf_monai.data.splits import read_splits

pytestmark = pytest.mark.realdata


@pytest.mark.parametrize(
    ("name", "folder", "split", "counts"),
    [
        ("kvasir_seg", "Kvasir-SEG", "random_80_10_10", (320, 40, 40)),
        ("dsb2018", "DSB2018", "random_80_10_10", (286, 35, 36)),
        ("isic2017", "ISIC2017_256x192", "official_2017_subset", (300, 60, 80)),
    ],
)
def test_real_sets_are_prepared_with_their_own_split(
    data_root: Path, tmp_path: Path, name: str, folder: str, split: str, counts: tuple[int, int, int]
) -> None:
    source = data_root / folder

    prepared = prepare_dataset(name, source, tmp_path / "out", split=split, images="reference")

    assert tuple(prepared.counts.values()) == counts
    assert prepared.folds == 5
    assert not any("written anew" in note for note in prepared.notes)
    wanted = json.loads((source / "splits.json").read_text(encoding="utf-8"))[split]
    for part, key in (("training", "train"), ("validation", "val"), ("test", "test")):
        items = load_datalist(prepared.folder, part)
        assert {Path(item["image"]).stem for item in items} == set(wanted[key])
        for item in items[::25]:
            image = Path(item["image"])
            truth = np.asarray(Image.open(source / "masks" / f"{image.stem}.png")) > 127
            label = np.asarray(Image.open(item["label"]))
            assert image.parent == (source / "images").resolve()
            assert label.shape[::-1] == Image.open(image).size
            np.testing.assert_array_equal(label, truth * 255)


def test_the_membership_form_of_kvasirs_splits_is_read(data_root: Path) -> None:
    path = data_root / "Kvasir-SEG" / "splits.json"
    members = json.loads(path.read_text(encoding="utf-8"))["simula_700_101_199_membership"]
    names = {"train": "training", "val": "validation", "test": "test"}

    splits = read_splits(path)

    assert splits["simula_700_101_199_membership"] == {name: names[part] for name, part in members.items()}
    assert splits.keys() == {"random_80_10_10", "simula_700_101_199_membership"}
