"""Classes of pictures: balanced parts and folds, and BUSI, which has classes, in its layouts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.model_selection import StratifiedKFold

from msrf_monai.data import load_datalist, prepare_dataset
from msrf_monai.data.catalogue import busi_class
from msrf_monai.data.splits import assign_folds, hold_out, random_split
from msrf_monai.errors import DataError, InputError
from support.prepared_sets import check_refused, datalist

Maker = Callable[..., Path]
MakeBusi = Callable[..., Path]
CLASSES = {"benign": 14, "malignant": 8, "normal": 5}


@pytest.fixture
def busi(tmp_path: Path, save_image: Maker, save_mask: Maker) -> MakeBusi:
    """Make the official folders: names with a number in brackets, masks beside the pictures."""

    def make(root: str = "source", *, counts: dict[str, int] = CLASSES) -> Path:
        for name, count in counts.items():
            for index in range(1, count + 1):
                stem = tmp_path / root / name / f"{name} ({index})"
                save_image(stem.with_name(f"{stem.name}.png"), seed=index)
                if name == "normal":
                    Image.new("L", (20, 12)).save(stem.with_name(f"{stem.name}_mask.png"))
                else:
                    save_mask(stem.with_name(f"{stem.name}_mask.png"), seed=index)
        return tmp_path / root.split("/")[0]

    return make


@given(sizes=st.lists(st.integers(5, 60), min_size=1, max_size=4), folds=st.integers(2, 5), seed=st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_folds_hold_every_class_as_evenly_as_stratified_k_fold(sizes: list[int], folds: int, seed: int) -> None:
    strata = {f"{stratum}_{index}": str(stratum) for stratum, size in enumerate(sizes) for index in range(size)}
    names, classes = list(strata), list(strata.values())

    fold_of = assign_folds(dict.fromkeys(names), folds=folds, seed=seed, strata=strata)

    ours = sorted(Counter((strata[name], fold) for name, fold in fold_of.items()).values())
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    theirs = sorted(n for _, test in splitter.split(names, classes) for n in Counter(classes[i] for i in test).values())
    assert ours == theirs
    per_fold = Counter(fold_of.values()).values()
    assert max(per_fold) - min(per_fold) <= 1


def test_parts_hold_every_class_in_its_share() -> None:
    strata = {f"b{index}": "benign" for index in range(430)} | {f"m{index}": "malignant" for index in range(210)}

    parts = random_split(dict.fromkeys(strata), seed=3, strata=strata)
    held_out = hold_out(dict.fromkeys(strata), seed=3, strata=strata)

    counts = Counter((strata[name], part) for name, part in parts.items())
    assert (counts["benign", "test"], counts["benign", "validation"]) == (43, 43)
    assert (counts["malignant", "test"], counts["malignant", "validation"]) == (21, 21)
    assert Counter(strata[name] for name in held_out) == {"benign": 43, "malignant": 21}


def test_a_group_of_several_classes_stays_whole() -> None:
    groups = {f"n{index}": f"patient{index // 4}" for index in range(80)}
    strata = {name: "malignant" if index % 4 == 3 else "benign" for index, name in enumerate(groups)}

    fold_of = assign_folds(groups, folds=5, seed=0, strata=strata)

    assert len({(groups[name], fold) for name, fold in fold_of.items()}) == 20
    assert Counter(fold_of.values()) == dict.fromkeys(range(5), 16)


def test_one_class_is_divided_as_if_there_were_none() -> None:
    groups = {f"n{index}": f"g{index // 3}" if index % 2 else None for index in range(50)}
    strata = dict.fromkeys(groups, "all")

    assert random_split(groups, seed=5, strata=strata) == random_split(groups, seed=5)
    assert hold_out(groups, seed=5, strata=strata) == hold_out(groups, seed=5)
    assert assign_folds(groups, folds=4, seed=5, strata=strata) == assign_folds(groups, folds=4, seed=5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("benign (7)", "benign"),
        ("MALIGNANT_12", "malignant"),
        ("normal", "normal"),
        ("benignity", None),
        ("a benign (7)", None),
    ],
)
def test_the_class_of_a_busi_picture_is_in_its_name(name: str, expected: str | None) -> None:
    assert busi_class(name) == expected


@pytest.mark.parametrize("root", ["source", "source/Dataset_BUSI_with_GT"])
def test_official_busi_is_read_without_normals_and_balanced(tmp_path: Path, busi: MakeBusi, root: str) -> None:
    prepared = prepare_dataset("busi", busi(root), tmp_path / "out", folds=2)

    content = datalist(tmp_path / "out")
    classes = {part: Counter(item["stratum"] for item in content[part]) for part in ("training", "validation", "test")}
    assert classes["test"] == classes["validation"] == {"benign": 1, "malignant": 1}
    assert classes["training"] == {"benign": 12, "malignant": 6}
    assert {item["id"] for item in content["training"]} < {f"benign ({n})" for n in range(1, 15)} | {
        f"malignant ({n})" for n in range(1, 9)
    }
    folds = Counter((item["stratum"], item["fold"]) for part in ("training", "validation") for item in content[part])
    assert sorted(folds.values()) == [3, 4, 6, 7]
    assert [item["stratum"] for item in load_datalist(tmp_path / "out", "test")] == ["benign", "malignant"]
    assert "5 normal pictures were left out; include 'normal' to take them" in prepared.notes
    assert "14 pictures (benign) are here, the official number is 437" in prepared.notes


def test_normal_busi_pictures_come_when_asked(tmp_path: Path, busi: MakeBusi) -> None:
    prepared = prepare_dataset("busi", busi(), tmp_path / "out", include=["normal"])

    assert sum(prepared.counts.values()) == sum(CLASSES.values())
    assert "5 masks are empty" in prepared.notes
    assert "5 pictures (normal) are here, the official number is 133" in prepared.notes


@pytest.mark.parametrize(
    ("name", "reason"),
    [("busi", "busi leaves out no class 'healthy' that could be included; expected normal"), ("paired", "leaves no")],
)
def test_including_what_is_not_left_out_is_refused(tmp_path: Path, busi: MakeBusi, name: str, reason: str) -> None:
    source = busi()
    (source / "images").mkdir()
    (source / "masks").mkdir()

    with pytest.raises(InputError, match=reason):
        prepare_dataset(name, source, tmp_path / "out", include=["healthy"])


def test_several_masks_of_a_busi_picture_are_united(tmp_path: Path, busi: MakeBusi) -> None:
    source = busi()
    masks = np.zeros((3, 12, 20), np.uint8)
    for index, mask in enumerate(masks):
        mask[2 + index : 4 + index, 5 * index : 5 * index + 3] = 255
        ending = f"_{index}" if index else ""
        Image.fromarray(mask).save(source / "benign" / f"benign (2)_mask{ending}.png")

    prepare_dataset("busi", source, tmp_path / "out")

    label = np.asarray(Image.open(tmp_path / "out/labels/benign (2).png"))
    np.testing.assert_array_equal(label, masks.max(axis=0))


def test_what_is_wrong_with_busi_folders_is_listed(tmp_path: Path, busi: MakeBusi, save_image: Maker) -> None:
    source = busi()
    (source / "benign/benign (3)_mask.png").unlink()
    (source / "benign/benign (4).png").unlink()
    save_image(source / "malignant/malignant (1).jpg")
    for path in (source / "normal").iterdir():
        path.unlink()

    sentences = (
        "has 4 problems",
        "benign (3).png: has no mask; expected",
        "benign (4)_mask.png: this mask has no picture",
        "2 pictures have this stem (malignant (1).jpg, malignant (1).png)",
        "normal: no picture in this folder",
    )
    check_refused("busi", source, tmp_path / "out", sentences)


def test_a_folder_that_is_not_busi_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()

    with pytest.raises(DataError, match=r"expected benign/, malignant/, normal/ with NAME.png and NAME_mask.png or im"):
        prepare_dataset("busi", tmp_path / "source", tmp_path / "out")


def test_a_split_file_may_name_pictures_that_are_left_out(tmp_path: Path, busi: MakeBusi) -> None:
    source = busi()
    split = {"train": [f"benign ({n})" for n in range(1, 15)] + ["normal (1)"], "test": ["malignant (1)", "normal (2)"]}
    (source / "splits.json").write_text(json.dumps({"mine": split}), encoding="utf-8")

    prepared = prepare_dataset("busi", source, tmp_path / "out", split="mine")

    assert prepared.counts == {"training": 13, "validation": 1, "test": 1}


def test_pictures_of_unknown_class_are_counted_and_no_class_is_passed_on(
    tmp_path: Path, save_image: Maker, save_mask: Maker
) -> None:
    for name in ("benign_1", "benign_2", "malignant_1", "case_9"):
        save_image(tmp_path / "source/images" / f"{name}.png")
        save_mask(tmp_path / "source/masks" / f"{name}.png")

    prepared = prepare_dataset("busi", tmp_path / "source", tmp_path / "out", folds=0)

    assert "1 of 4 pictures have no known class (benign, malignant, normal)" in prepared.notes
    assert "4 pictures (all) are here, the official number is 780" in prepared.notes
    assert all(item.keys() == {"image", "label"} for item in load_datalist(tmp_path / "out", "training"))


@pytest.mark.realdata
def test_real_busi_has_the_classes_of_its_names(data_root: Path, tmp_path: Path) -> None:
    prepared = prepare_dataset("busi", data_root / "BUSI", tmp_path / "out", images="reference")

    items = [item for part in prepared.counts for item in load_datalist(prepared.folder, part)]
    assert Counter(item["stratum"] for item in items) == {"benign": 16, "malignant": 20}
    for item in items:
        truth = np.asarray(Image.open(data_root / "BUSI" / "masks" / f"{Path(item['image']).stem}.png"))
        np.testing.assert_array_equal(np.asarray(Image.open(item["label"])), (truth > 127) * 255)
