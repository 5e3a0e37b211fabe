"""The splits of the article on Hi-gMISnet: published numbers, the authors' own folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msrf_monai.data import CATALOGUE, prepare_dataset
from msrf_monai.data.division import divide
from msrf_monai.data.layouts import SourceItem
from msrf_monai.data.splits import sized_split
from msrf_monai.errors import InputError
from support.prepared_sets import PARTS, datalist, has

Maker = Callable[..., Path]
NINE = ("physionet_ich", "busi", "cvc_clinicdb", "monuseg", "glas", "isic2018", "drive", "montgomery", "promise12")
PUBLISHED = {
    "physionet_ich": (254, 32, 32),
    "busi": (517, 65, 65),
    "cvc_clinicdb": (490, 61, 61),
    "monuseg": (23, 7, 14),
    "glas": (72, 13, 80),
    "isic2018": (2074, 260, 260),
    "drive": (16, 4, 20),
    "montgomery": (110, 14, 14),
}


@pytest.mark.parametrize("name", NINE)
def test_every_set_has_the_published_split(name: str) -> None:
    assert "higmisnet" in {split.name for split in CATALOGUE[name].standard_splits}


@pytest.mark.parametrize(("name", "sizes"), PUBLISHED.items())
def test_complete_sets_get_the_published_numbers(tmp_path: Path, name: str, sizes: tuple[int, int, int]) -> None:
    info, given = CATALOGUE[name], sum(sizes[:2])
    has_test = name in ("monuseg", "glas", "drive")
    names = [f"{number:02d}_{'training' if number < given else 'test'}" for number in range(sum(sizes))]
    parts = ["training" if number < given or not has_test else "test" for number in range(sum(sizes))]
    items = [
        SourceItem(*pair[:1], Path(pair[0]), (), pair[1] if has_test else None)
        for pair in zip(names, parts, strict=True)
    ]

    division = divide(info, tmp_path, items, split="higmisnet", folds=0, seed=3)

    assert tuple(Counter(division.parts.values())[part] for part in PARTS) == sizes
    assert not has(tuple(division.notes), "that are here")


def test_the_official_parts_of_isic_beside_training_are_left_out_of_the_published_split(tmp_path: Path) -> None:
    items = [
        SourceItem(f"{part}{number}", Path("x"), (), part)
        for part, count in (("training", 40), ("validation", 5), ("test", 7))
        for number in range(count)
    ]

    division = divide(CATALOGUE["isic2018"], tmp_path, items, split="higmisnet", folds=2, seed=0)

    assert tuple(Counter(division.parts.values())[part] for part in PARTS) == (32, 4, 4)
    assert has(tuple(division.notes), "12 pictures are not in the higmisnet split and were left out")


def test_a_sized_split_depends_on_the_seed_and_not_on_the_order() -> None:
    names = [f"n{number}" for number in range(30)]

    first = sized_split(names, (8, 1, 1), seed=0)

    assert first == sized_split(names[::-1], (8, 1, 1), seed=0)
    assert first != sized_split(names, (8, 1, 1), seed=1)
    assert Counter(sized_split(names[:2], (8, 1, 1), seed=0).values()) == {"training": 2}
    assert Counter(sized_split(names[:3], (8, 1, 1), seed=0).values()) == dict.fromkeys(PARTS, 1)
    assert Counter(sized_split(names[:9], (8, 2, 0), seed=0).values()) == {"training": 7, "validation": 2}


def test_the_authors_own_folders_keep_their_split(tmp_path: Path, save_image: Maker, save_mask: Maker) -> None:
    for number, (part, count) in enumerate((("train", 12), ("val", 2), ("test", 3))):
        for index in range(count):
            save_image(tmp_path / "s" / f"{part}_folder/img" / f"p{index}.png", seed=20 * number + index)
            mask = f"p{index}" if part == "val" else f"mask-{index}"
            save_mask(tmp_path / "s" / f"{part}_folder/label" / f"{mask}.png", seed=index)

    prepared = prepare_dataset("busi", tmp_path / "s", tmp_path / "out")

    assert (prepared.split, tuple(prepared.counts.values())) == ("official", (12, 2, 3))
    assert sum("matched by the order of their names; look at some" in note for note in prepared.notes) == 2
    for item in datalist(tmp_path / "out")["training"]:
        index = int(item["id"].removeprefix("training_p"))
        expected = np.asarray(Image.open(tmp_path / "s/train_folder/label" / f"mask-{index}.png"))
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / item["label"])), expected)


@pytest.mark.parametrize(("arguments", "reason"), [({"bits": 12}, "bits is 12"), ({"bits": 16}, "holds pictures here")])
def test_wrong_depths_are_named(tmp_path: Path, paired_source: Maker, arguments: dict[str, int], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        prepare_dataset("paired", paired_source(3), tmp_path / "out", **arguments)


@pytest.mark.realdata
def test_busi_gets_32_4_4_of_its_forty_pictures(data_root: Path, tmp_path: Path) -> None:
    prepared = prepare_dataset(
        "busi", data_root / "BUSI", tmp_path / "out", split="higmisnet", include=["normal"], images="reference"
    )

    assert tuple(prepared.counts.values()) == (32, 4, 4)
