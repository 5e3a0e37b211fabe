"""Preparing small data sets in every layout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from PIL import Image

from msrf_monai.data import load_datalist, prepare_dataset, verify_dataset
from msrf_monai.errors import DataError
from support.prepared_sets import datalist

Maker = Callable[..., Path]


def test_pictures_keep_their_bytes_and_masks_become_0_and_255(
    tmp_path: Path, save_image: Maker, save_mask: Maker
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    for index in range(4):
        save_image(source / "images" / f"{index}.jpg", seed=index, size=(48, 64))
        save_mask(source / "masks" / f"{index}_mask.jpg", seed=index, size=(48, 64), quality=95)

    prepared = prepare_dataset("paired", source, out)

    assert prepared.counts == {"training": 2, "validation": 1, "test": 1}
    assert prepared.folder == out
    for index in range(4):
        assert (out / f"images/{index}.jpg").read_bytes() == (source / f"images/{index}.jpg").read_bytes()
        mask = Image.open(out / f"labels/{index}.png")
        assert mask.mode == "L"
        expected = np.asarray(Image.open(source / f"masks/{index}_mask.jpg")) > 127
        np.testing.assert_array_equal(np.asarray(mask), expected * 255)


def test_monai_reads_the_datalist_as_we_do(tmp_path: Path, paired_source: Maker) -> None:
    prepare_dataset("paired", paired_source(), tmp_path / "out")

    for part in ("training", "validation", "test"):
        theirs = load_decathlon_datalist(str(tmp_path / "out" / "dataset.json"), True, part)
        ours = load_datalist(tmp_path / "out", part)
        assert [(item["image"], item["label"]) for item in theirs] == [(i["image"], i["label"]) for i in ours]


def test_the_datalist_has_sums_licence_labels_and_folds(tmp_path: Path, paired_source: Maker) -> None:
    out = tmp_path / "out"
    prepare_dataset("paired", paired_source(), out, folds=3)

    content = datalist(out)
    assert content["modality"] == {"0": "RGB"}
    assert content["labels"] == {"0": "background", "1": "foreground"}
    assert {"licence", "citation", "description", "name"} <= content.keys()
    assert (content["numTraining"], content["numValidation"], content["numTest"]) == (8, 1, 1)
    for path, digest in content["sha256"].items():
        assert hashlib.sha256((out / path).read_bytes()).hexdigest() == digest
    files = {path.relative_to(out).as_posix() for path in out.rglob("*.png")}
    assert content["sha256"].keys() == files
    assert {item["fold"] for item in content["training"] + content["validation"]} == {0, 1, 2}
    assert all("fold" not in item for item in content["test"])


def test_preparing_twice_writes_the_same_bytes(tmp_path: Path, paired_source: Maker) -> None:
    source = paired_source()
    prepare_dataset("paired", source, tmp_path / "one", seed=4)
    prepare_dataset("paired", source, tmp_path / "two", seed=4)

    assert (tmp_path / "one/dataset.json").read_bytes() == (tmp_path / "two/dataset.json").read_bytes()


@pytest.mark.parametrize("images", ["link", "reference"])
def test_pictures_can_stay_where_they_are(tmp_path: Path, paired_source: Maker, images: str) -> None:
    source, out = paired_source(), tmp_path / "out"

    prepare_dataset("paired", source, out, images=images)

    resolved = {Path(item["image"]).resolve() for item in load_datalist(out, "training")}
    assert all(path.parent == source / "images" for path in resolved)
    assert not [path for path in (out / "images").iterdir() if not path.is_symlink()]
    assert verify_dataset(out) == 20


def test_a_turned_picture_is_written_upright_in_every_mode(tmp_path: Path, paired_source: Maker) -> None:
    source, out = paired_source(), tmp_path / "out"
    pixels = np.arange(20 * 12 * 3, dtype=np.uint8).reshape(20, 12, 3)
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(pixels).save(source / "images/case03.png", exif=exif)

    prepared = prepare_dataset("paired", source, out, images="reference")

    np.testing.assert_array_equal(np.asarray(Image.open(out / "images/case03.png")), np.rot90(pixels))
    assert any("1 pictures were written anew as PNG: EXIF orientation" in note for note in prepared.notes)


def test_instance_masks_of_the_science_bowl_are_merged(tmp_path: Path, save_image: Maker) -> None:
    source = tmp_path / "bowl"
    rng = np.random.default_rng(0)
    unions = {}
    for name in ("aa", "bb", "cc"):
        save_image(source / "stage1_train" / name / "images" / f"{name}.png")
        masks = rng.random((3, 12, 20)) > 0.8
        (source / "stage1_train" / name / "masks").mkdir()
        for index, mask in enumerate(masks):
            Image.fromarray(mask.astype(np.uint8) * 255).save(source / "stage1_train" / name / "masks" / f"{index}.png")
        unions[name] = masks.any(axis=0)

    prepared = prepare_dataset("dsb2018", source, tmp_path / "out")

    for name, union in unions.items():
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"out/labels/{name}.png")), union * 255)
    assert any("3 pictures (all) are here, the official number is 670" in note for note in prepared.notes)


def test_the_folder_of_a_science_bowl_picture_may_be_the_source_itself(
    tmp_path: Path, save_image: Maker, save_mask: Maker
) -> None:
    for name in ("aa", "bb"):
        save_image(tmp_path / "s" / name / "images" / f"{name}.png")
        save_mask(tmp_path / "s" / name / "masks" / "m.png")

    assert sum(prepare_dataset("dsb2018", tmp_path / "s", tmp_path / "out").counts.values()) == 2


@pytest.mark.parametrize(
    ("name", "folders"),
    [
        (
            "isic2018",
            {
                "training": ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
                "validation": ("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth"),
                "test": ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"),
            },
        ),
        (
            "isic2017",
            {
                "training": ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"),
                "validation": ("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth"),
                "test": ("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth"),
            },
        ),
    ],
)
def test_the_official_parts_of_isic_are_kept(
    tmp_path: Path, save_image: Maker, save_mask: Maker, name: str, folders: dict[str, tuple[str, str]]
) -> None:
    source = tmp_path / "isic"
    expected = {}
    for number, (part, (images, masks)) in enumerate(folders.items()):
        names = [f"ISIC_{number}{index:06d}" for index in range(4 - number)]
        for seed, stem in enumerate(names):
            save_image(source / images / f"{stem}.jpg", seed=seed)
            save_image(source / images / f"{stem}_superpixels.png", seed=seed)
            save_mask(source / masks / f"{stem}_segmentation.png", seed=seed)
        expected[part] = names
    (source / folders["training"][0] / "LICENSE.txt").write_text("terms", encoding="utf-8")
    if name == "isic2018":
        for path in source.rglob("*_superpixels.png"):
            path.unlink()

    prepared = prepare_dataset(name, source, tmp_path / "out")

    assert prepared.split == "official"
    content = datalist(tmp_path / "out")
    assert {part: [item["id"] for item in content[part]] for part in expected} == expected
    assert any("LICENSE.txt" in note for note in prepared.notes)


def test_isic_training_pictures_alone_are_split_at_random(tmp_path: Path, save_image: Maker, save_mask: Maker) -> None:
    for index in range(10):
        stem = f"ISIC_{index:07d}"
        save_image(tmp_path / "s/ISIC2018_Task1-2_Training_Input" / f"{stem}.jpg", seed=index)
        save_mask(tmp_path / "s/ISIC2018_Task1_Training_GroundTruth" / f"{stem}_segmentation.png")

    prepared = prepare_dataset("isic2018", tmp_path / "s", tmp_path / "out")

    assert prepared.split == "random"
    assert prepared.counts == {"training": 8, "validation": 1, "test": 1}


@pytest.mark.parametrize("root", ["", "CVC-ClinicDB/", "PNG/", "TIF/"])
def test_clinicdb_frames_of_a_sequence_stay_together(
    tmp_path: Path, save_image: Maker, save_mask: Maker, root: str
) -> None:
    suffix = "tif" if root != "PNG/" else "png"
    frames = [1, 2, 25, 26, 27, 51, 52, 68, 79, 80, 104, 127, 612]
    for frame in frames:
        save_image(tmp_path / f"s/{root}Original/{frame}.{suffix}", seed=frame)
        save_mask(tmp_path / f"s/{root}Ground Truth/{frame}.{suffix}", seed=frame)

    prepared = prepare_dataset("cvc_clinicdb", tmp_path / "s", tmp_path / "out")

    content = datalist(tmp_path / "out")
    items = [{**item, "part": part} for part in ("training", "validation", "test") for item in content[part]]
    group_of = {item["id"]: item["group"] for item in items}
    assert (group_of["1"], group_of["25"], group_of["26"], group_of["612"]) == (
        *("sequence_01", "sequence_01", "sequence_02"),
        "sequence_29",
    )
    for key in ("part", "fold"):
        places: dict[str, set[object]] = {}
        for item in items:
            places.setdefault(item["group"], set()).add(item.get(key))
        assert all(len(found) == 1 for found in places.values())
    assert not any("near-copies" in note for note in prepared.notes)


def test_clinicdb_pictures_of_other_names_are_said_to_leak(tmp_path: Path, save_image: Maker, save_mask: Maker) -> None:
    for name in ("x1", "x2", "x3"):
        save_image(tmp_path / "s/Original" / f"{name}.png")
        save_mask(tmp_path / "s/Ground Truth" / f"{name}.png")

    prepared = prepare_dataset("cvc_clinicdb", tmp_path / "s", tmp_path / "out")

    assert any("3 of 3 pictures have no known video sequence" in note for note in prepared.notes)


def test_a_table_of_groups_overrides_and_serves_generic_layouts(tmp_path: Path, paired_source: Maker) -> None:
    source = paired_source(12)
    rows = "".join(f"case{index:02d},patient{index // 3}\n" for index in range(12))
    (source / "groups.csv").write_text("id,patient\n" + rows, encoding="utf-8")

    prepared = prepare_dataset("paired", source, tmp_path / "out", folds=5)

    content = datalist(tmp_path / "out")
    assert prepared.folds == 3
    assert any("3 folds instead of 5" in note for note in prepared.notes)
    assert len({item["group"] for item in content["test"]}) == 1
    assert len(content["test"]) == 3


def test_a_table_of_groups_may_name_pictures_as_their_files_are_called(
    tmp_path: Path, save_image: Maker, save_mask: Maker
) -> None:
    for number, part in enumerate(("train", "valid", "test")):
        for index in range(3):
            save_image(tmp_path / "s" / part / "image" / f"{index}.png", seed=10 * number + index)
            save_mask(tmp_path / "s" / part / "mask" / f"{index}.png")
    (tmp_path / "s" / "groups.csv").write_text("image,patient\n0.png,p0\n1.png,p1\n2.png,p2\n", encoding="utf-8")

    prepare_dataset("folders", tmp_path / "s", tmp_path / "out")

    groups = {item["id"]: item["group"] for item in datalist(tmp_path / "out")["training"]}
    assert groups == {"training_0": "p0", "training_1": "p1", "training_2": "p2"}


def test_a_table_of_groups_that_names_no_picture_is_refused(tmp_path: Path, paired_source: Maker) -> None:
    source = paired_source(4)
    (source / "groups.csv").write_text("image,patient\nframe_1,p0\nframe_2,p1\n", encoding="utf-8")

    with pytest.raises(DataError, match=r"names none of the 4 pictures \(it says 'frame_1', a picture 'case00'\)"):
        prepare_dataset("paired", source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("parts", "image", "mask"),
    [(("train", "valid", "test"), "image", "mask"), (("training", "val", "test"), "images", "labels")],
)
def test_the_authors_folders_are_read_and_equal_stems_told_apart(
    tmp_path: Path, save_image: Maker, save_mask: Maker, parts: tuple[str, ...], image: str, mask: str
) -> None:
    for number, part in enumerate(parts):
        for index in range(3 - number):
            save_image(tmp_path / "s" / part / image / f"{index}.png", seed=10 * number + index)
            save_mask(tmp_path / "s" / part / mask / f"{index}.png")

    prepared = prepare_dataset("folders", tmp_path / "s", tmp_path / "out")

    assert prepared.counts == {"training": 3, "validation": 2, "test": 1}
    assert [item["id"] for item in datalist(tmp_path / "out")["validation"]] == ["validation_0", "validation_1"]


def test_a_split_without_validation_takes_a_tenth_of_training(
    tmp_path: Path, save_image: Maker, save_mask: Maker
) -> None:
    for part, count in (("train", 10), ("test", 2)):
        for index in range(count):
            save_image(tmp_path / "s" / part / "image" / f"{part}{index}.png", seed=index)
            save_mask(tmp_path / "s" / part / "mask" / f"{part}{index}.png")

    prepared = prepare_dataset("folders", tmp_path / "s", tmp_path / "out")

    assert prepared.counts == {"training": 9, "validation": 1, "test": 2}
    assert any("has no validation part: 1 training pictures" in note for note in prepared.notes)
    assert any("2 pictures lie in more than one part, byte for byte" in note for note in prepared.notes)


def test_a_named_split_is_honoured_and_what_it_leaves_out_is_not_kept(tmp_path: Path, paired_source: Maker) -> None:
    source = paired_source(6)
    split = {"train": ["case00", "case01"], "val": ["case02"], "test": ["case03", "case04"]}
    (source / "splits.json").write_text(json.dumps({"mine": split, "note": "text"}), encoding="utf-8")
    (source / "groups.csv").write_text("id,group\ncase00,g\ncase03,g\n", encoding="utf-8")

    prepared = prepare_dataset("paired", source, tmp_path / "out", split="mine")

    content = datalist(tmp_path / "out")
    assert [item["id"] for item in content["test"]] == ["case03", "case04"]
    assert not (tmp_path / "out/labels/case05.png").exists()
    assert not (tmp_path / "out/images/case05.png").exists()
    assert any("1 pictures are not in the mine split" in note for note in prepared.notes)
    assert any("1 groups (group) have pictures in more than one part" in note for note in prepared.notes)
    assert verify_dataset(tmp_path / "out") == 10


def test_without_a_name_the_splits_that_are_offered_are_told(tmp_path: Path, paired_source: Maker) -> None:
    source = paired_source(6)
    (source / "splits.json").write_text('{"mine": {"train": ["case00"]}}', encoding="utf-8")

    prepared = prepare_dataset("paired", source, tmp_path / "out")

    assert any("splits.json in the source offers mine; the random split was made" in n for n in prepared.notes)
    with pytest.raises(DataError, match="has no split 'other'; it offers random, mine"):
        prepare_dataset("paired", source, tmp_path / "out2", split="other")


def test_names_of_a_split_that_are_not_there_are_listed(tmp_path: Path, paired_source: Maker) -> None:
    source = paired_source(3)
    (source / "splits.json").write_text('{"mine": {"train": ["case00", "gone"]}}', encoding="utf-8")

    with pytest.raises(DataError, match="gone: is in the mine split, no picture is called so"):
        prepare_dataset("paired", source, tmp_path / "out", split="mine")
