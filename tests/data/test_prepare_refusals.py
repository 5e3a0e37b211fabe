"""Everything that can be wrong with the pictures and masks of a data set to prepare."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from msrf_monai.data import load_datalist, prepare_dataset
from msrf_monai.errors import DataError
from support.prepared_sets import check_refused, siblings

Maker = Callable[..., Path]


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
