"""Preparing small data sets in every layout, and everything that can be wrong with them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from PIL import Image

from msrf_monai.data import checking as checking_module
from msrf_monai.data import folder as folder_module
from msrf_monai.data import load_datalist, prepare_dataset, verify_dataset
from msrf_monai.errors import DataError, InputError, StorageError
from support.prepared_sets import check_refused, datalist

Maker = Callable[..., Path]


def siblings(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir() if path.name.startswith("."))


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


def test_everything_that_is_wrong_is_listed_at_once_and_nothing_is_written(
    tmp_path: Path, paired_source: Maker, save_mask: Maker, save_image: Maker
) -> None:
    source, out = paired_source(), tmp_path / "out"
    (source / "masks/case00.png").unlink()
    save_mask(source / "masks/case01.png", size=(12, 19))
    (source / "images/case02.png").write_bytes(b"no picture")
    (source / "images/case03.png").write_bytes((source / "images/case03.png").read_bytes()[:80])
    save_image(source / "masks/case04.png")
    save_mask(source / "masks/lonely.png")
    save_image(source / "images/case05.jpg")
    save_mask(source / "masks/case06_seg.png")
    (source / "images/table.docx").write_bytes(b"x")
    (source / "images/empty.png").write_bytes(b"")
    save_mask(source / "masks/empty.png")
    save_image(source / "images/CASE07.png")
    save_mask(source / "masks/CASE07.png")
    (source / "masks/case08.png").unlink()
    (source / "masks/case08.png").symlink_to(source / "nowhere.png")

    sentences = (
        "has 12 problems",
        "case00.png: has no mask",
        "case01.png: is 19 x 12 pixels; expected 20 x 12, the size of case01.png",
        "case02.png: is not a picture that can be read",
        "case03.png: cannot be decoded",
        "case04.png: is not a binary mask",
        "lonely.png: this mask has no picture",
        "2 pictures have this stem (case05.jpg, case05.png)",
        "case06.png: has 2 masks",
        "table.docx: is not a picture (.docx)",
        "empty.png: is an empty file",
        "names must be unique",
        "case08.png: cannot be read (No such file or directory)",
    )
    message = check_refused("paired", source, out, sentences)
    assert message.count("\n  - ") == 12
    assert not out.exists()
    assert not siblings(out)


def test_an_exif_turn_is_named_where_the_mask_does_not_follow_it(tmp_path: Path, paired_source: Maker) -> None:
    source = paired_source(3)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 12)).save(source / "images/case01.png", exif=exif)

    with pytest.raises(DataError, match=r"expected 12 x 20, the size of case01.png after its EXIF orientation"):
        prepare_dataset("paired", source, tmp_path / "out")


def test_a_missing_folder_of_masks_is_one_clear_sentence(tmp_path: Path, save_image: Maker, save_mask: Maker) -> None:
    save_image(tmp_path / "a/images/1.png")
    with pytest.raises(DataError, match="masks: this folder of masks is missing"):
        prepare_dataset("paired", tmp_path / "a", tmp_path / "out")

    save_image(tmp_path / "b/train/image/1.png")
    save_mask(tmp_path / "b/train/mask/1.png")
    save_mask(tmp_path / "b/test/mask/1.png")
    with pytest.raises(DataError, match="test/image: this folder of pictures is missing"):
        prepare_dataset("folders", tmp_path / "b", tmp_path / "out")


def test_empty_and_missing_sources_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "half/images").mkdir(parents=True)
    (tmp_path / "half/masks").mkdir()
    (tmp_path / "file").write_text("x", encoding="utf-8")

    with pytest.raises(DataError, match="nothing: the folder is empty; get the data set at https"):
        prepare_dataset("kvasir_seg", tmp_path / "empty", tmp_path / "out")
    with pytest.raises(DataError, match="no picture in this folder"):
        prepare_dataset("kvasir_seg", tmp_path / "half", tmp_path / "out")
    with pytest.raises(DataError, match="source folder does not exist"):
        prepare_dataset("kvasir_seg", tmp_path / "gone", tmp_path / "out")
    with pytest.raises(DataError, match="source folder is a file"):
        prepare_dataset("kvasir_seg", tmp_path / "file", tmp_path / "out")
    with pytest.raises(DataError, match=r"expected train/image/ \+ train/mask/ .*; found images/, masks/"):
        prepare_dataset("folders", tmp_path / "half", tmp_path / "out")


def test_science_bowl_folders_without_picture_or_masks_are_listed(
    tmp_path: Path, save_image: Maker, save_mask: Maker
) -> None:
    (tmp_path / "s/aa/images").mkdir(parents=True)
    save_image(tmp_path / "s/bb/images/bb.png")

    with pytest.raises(DataError) as caught:
        prepare_dataset("dsb2018", tmp_path / "s", tmp_path / "out")

    assert "aa/images: holds 0 pictures; expected one" in str(caught.value)
    assert "bb.png: has no mask" in str(caught.value)


@pytest.mark.parametrize(("parent", "missing"), [("stage1_train", ["bb", "empty"]), (".", ["bb"])])
def test_science_bowl_folders_without_images_are_listed(
    tmp_path: Path, save_image: Maker, save_mask: Maker, parent: str, missing: list[str]
) -> None:
    root = tmp_path / "s" / parent
    save_image(root / "aa/images/aa.png")
    save_mask(root / "aa/masks/m.png")
    save_mask(root / "bb/masks/m.png")
    (root / "empty").mkdir()
    (root / "__MACOSX").mkdir()

    with pytest.raises(DataError) as caught:
        prepare_dataset("dsb2018", tmp_path / "s", tmp_path / "out")

    lines = str(caught.value).splitlines()[1:]
    assert lines == [f"  - {root / name / 'images'}: is missing" for name in missing]


def test_a_subset_is_a_note_and_with_strict_an_error(tmp_path: Path, paired_source: Maker) -> None:
    source = paired_source(4)

    prepared = prepare_dataset("kvasir_seg", source, tmp_path / "out")

    assert "4 pictures (all) are here, the official number is 1000" in prepared.notes
    with pytest.raises(DataError, match="the official number is 1000"):
        prepare_dataset("kvasir_seg", source, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


def test_empty_masks_are_right_and_counted(tmp_path: Path, paired_source: Maker) -> None:
    source = paired_source(4)
    Image.new("L", (20, 12)).save(source / "masks/case02.png")

    assert "1 masks are empty" in prepare_dataset("paired", source, tmp_path / "out").notes


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 10000)])
def test_one_pixel_and_very_wide_pictures_are_prepared(
    tmp_path: Path, save_image: Maker, height: int, width: int
) -> None:
    save_image(tmp_path / "s/images/a.png", size=(height, width))
    (tmp_path / "s/masks").mkdir()
    Image.new("L", (width, height), 255).save(tmp_path / "s/masks/a.png")

    prepared = prepare_dataset("paired", tmp_path / "s", tmp_path / "out")

    assert prepared.counts == {"training": 1, "validation": 0, "test": 0}
    assert prepared.folds == 0
    assert Image.open(load_datalist(tmp_path / "out", "training")[0]["label"]).size == (width, height)


def test_a_folder_in_use_is_kept_unless_it_is_ours_and_overwriting_is_asked_for(
    tmp_path: Path, paired_source: Maker
) -> None:
    source, out = paired_source(4), tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work", encoding="utf-8")

    with pytest.raises(DataError, match="is not empty"):
        prepare_dataset("paired", source, out)
    with pytest.raises(DataError, match=r"holds no dataset.json"):
        prepare_dataset("paired", source, out, overwrite=True)
    with pytest.raises(DataError, match="is a file; expected a folder"):
        prepare_dataset("paired", source, out / "thesis.txt")
    assert (out / "thesis.txt").read_text(encoding="utf-8") == "years of work"


def test_overwriting_spares_a_folder_that_holds_more_than_a_data_set_of_ours(
    tmp_path: Path, paired_source: Maker
) -> None:
    source, out = paired_source(4), tmp_path / "out"
    prepare_dataset("paired", source, out)
    (out / "eval").mkdir()
    (out / "eval" / "model.pt").write_text("a week of training", encoding="utf-8")
    (out / ".notes").touch()

    with pytest.raises(DataError, match=r"out: holds more than a data set of ours: \.notes, eval; move that away"):
        prepare_dataset("paired", source, out, overwrite=True)

    assert (out / "eval" / "model.pt").read_text(encoding="utf-8") == "a week of training"
    assert verify_dataset(out) == 8


@pytest.mark.parametrize("content", ['{"training": []}', "{", "[]", '{"sha256": "none"}'])
def test_overwriting_spares_a_dataset_json_of_another_program(
    tmp_path: Path, paired_source: Maker, content: str
) -> None:
    source, out = paired_source(4), tmp_path / "out"
    out.mkdir()
    (out / "dataset.json").write_text(content, encoding="utf-8")

    with pytest.raises(DataError, match=r"dataset\.json: has no sha256 sums, so that it is not ours"):
        prepare_dataset("paired", source, out, overwrite=True)

    assert (out / "dataset.json").read_text(encoding="utf-8") == content


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_the_folder_has_the_permissions_that_the_umask_allows(tmp_path: Path, paired_source: Maker, mask: int) -> None:
    source = paired_source(3)
    before = os.umask(mask)
    try:
        prepare_dataset("paired", source, tmp_path / "out")
    finally:
        os.umask(before)

    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~mask


def test_overwriting_keeps_the_old_data_set_until_the_new_one_is_right(tmp_path: Path, paired_source: Maker) -> None:
    source, out = paired_source(4), tmp_path / "out"
    prepare_dataset("paired", source, out)
    before = (out / "dataset.json").read_bytes()
    (source / "masks/case00.png").unlink()

    with pytest.raises(DataError, match="has no mask"):
        prepare_dataset("paired", source, out, overwrite=True)
    assert (out / "dataset.json").read_bytes() == before
    assert verify_dataset(out) == 8

    (source / "images/case00.png").unlink()
    prepare_dataset("paired", source, out, overwrite=True)
    assert verify_dataset(out) == 6
    assert not siblings(out)


def test_an_empty_existing_folder_is_used(tmp_path: Path, paired_source: Maker) -> None:
    (tmp_path / "out").mkdir()

    prepare_dataset("paired", paired_source(3), tmp_path / "out")

    assert verify_dataset(tmp_path / "out") == 6


def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, paired_source: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checking_module, "_write", full)

    with pytest.raises(StorageError, match=r"cannot write .*out: No space left on device; nothing was changed"):
        prepare_dataset("paired", paired_source(3), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not siblings(tmp_path / "out")


def test_a_failed_exchange_brings_the_old_data_set_back(
    tmp_path: Path, paired_source: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = paired_source(3), tmp_path / "out"
    prepare_dataset("paired", source, out)
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))

    with pytest.raises(StorageError, match="Input/output error"):
        prepare_dataset("paired", source, out, overwrite=True)

    assert verify_dataset(out) == 6
    assert folder_module.DATALIST_NAME == "dataset.json"


def test_the_source_must_not_lie_in_the_folder_to_make(tmp_path: Path, paired_source: Maker) -> None:
    source = paired_source(3)

    for out in (source, source.parent):
        with pytest.raises(DataError, match="the source lies in this folder"):
            prepare_dataset("paired", source, out, overwrite=True)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"images": "move"}, "images is 'move'; expected one of copy, link, reference"),
        ({"folds": 1}, "folds is 1"),
        ({"folds": -2}, "folds is -2"),
    ],
)
def test_wrong_arguments_are_named(
    tmp_path: Path, paired_source: Maker, arguments: dict[str, object], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        prepare_dataset("paired", paired_source(3), tmp_path / "out", **arguments)
    with pytest.raises(InputError, match="no data set is called 'kvasir'; the names are kvasir_seg"):
        prepare_dataset("kvasir", tmp_path, tmp_path / "out")


def test_progress_counts_every_picture(tmp_path: Path, paired_source: Maker) -> None:
    seen: list[tuple[int, int]] = []

    prepare_dataset("paired", paired_source(5), tmp_path / "out", folds=0, progress=lambda *now: seen.append(now))

    assert seen == [(done, 5) for done in range(1, 6)]
    assert Counter("fold" in item for item in datalist(tmp_path / "out")["training"]) == {False: 3}
