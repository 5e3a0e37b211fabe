"""DRIVE in copies of its layout that the tests write: official parts, given fields of view, masks that are withheld."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msrf_monai.data import load_datalist, prepare_dataset, verify_dataset
from msrf_monai.errors import DataError
from support.fundus_sets import SIZE, Maker, Truth, as_palette, check_masks, grey, picture, save
from support.prepared_sets import check_refused, datalist, stems


@pytest.fixture
def drive(tmp_path: Path) -> Maker:
    def make(*, root: str = "DRIVE", with_test_labels: bool = True) -> tuple[Path, Truth]:
        truth = {}
        for number in range(1, 41):
            part = "test" if number <= 20 else "training"
            drawn = picture(number)
            folder, stem = tmp_path / root / part, f"{number:02d}"
            save(Image.fromarray(drawn["image"]), folder / "images" / f"{stem}_{part}.tif", compression="tiff_lzw")
            save(grey(drawn["fov"]), folder / "mask" / f"{stem}_{part}_mask.gif")
            if part == "training" or with_test_labels:
                save(as_palette(drawn["label"]), folder / "1st_manual" / f"{stem}_manual1.gif")
            if part == "test" and with_test_labels:
                save(as_palette(drawn["label2"]), folder / "2nd_manual" / f"{stem}_manual2.gif")
            truth[f"{stem}_{part}"] = drawn
        return tmp_path / root, truth

    return make


@pytest.mark.parametrize("root", ["DRIVE", "downloads/DRIVE"])
def test_drive_keeps_its_official_parts_fields_and_second_observer(tmp_path: Path, drive: Maker, root: str) -> None:
    source, truth = drive(root=root)

    prepared = prepare_dataset("drive", tmp_path / root.split("/")[0], tmp_path / "out")

    assert source.is_dir()
    assert (prepared.split, prepared.counts) == ("official", {"training": 16, "validation": 4, "test": 20})
    check_masks(prepared.folder, truth, ("label", "fov"))
    assert stems(load_datalist(prepared.folder, "validation")) == [f"{n}_training" for n in range(37, 41)]
    assert stems(load_datalist(prepared.folder, "test")) == [f"{n:02d}_test" for n in range(1, 21)]
    assert all("label2" in item for item in load_datalist(prepared.folder, "test"))
    assert not any("label2" in item for item in load_datalist(prepared.folder, "training"))
    for item in datalist(prepared.folder)["test"]:
        second = np.asarray(Image.open(prepared.folder / str(item["label2"])))
        np.testing.assert_array_equal(second, truth[str(item["id"])]["label2"] * 255)
    assert "fields of view: 40 were given, 0 were derived from the pictures" in prepared.notes
    assert "a second observer's masks are here for 20 of 40 pictures" in prepared.notes
    assert any("this copy is one with test labels, which the challenge site withholds" in n for n in prepared.notes)
    assert not any("official number" in note for note in prepared.notes)
    assert verify_dataset(prepared.folder) == 40 * 3 + 20


def test_drive_without_test_labels_says_so_and_keeps_the_training_pictures(tmp_path: Path, drive: Maker) -> None:
    source, _ = drive(with_test_labels=False)

    prepared = prepare_dataset("drive", source, tmp_path / "out", strict=True)

    assert prepared.counts == {"training": 16, "validation": 4, "test": 0}
    assert (
        "test/1st_manual holds no mask: this copy is one without test labels, as the challenge site gives it out; 20 "
        "pictures were left out"
    ) in prepared.notes
    with pytest.raises(DataError, match="the test part is empty"):
        load_datalist(prepared.folder, "test")


def test_drive_with_a_hole_is_refused_with_every_file(tmp_path: Path, drive: Maker) -> None:
    source, _ = drive()
    (source / "test/1st_manual/03_manual1.gif").unlink()
    (source / "training/images/25_training.tif").unlink()
    (source / "training/mask/30_training_mask.gif").unlink()  # this one is derived
    save(grey(np.ones((44, 59), bool)), source / "training/mask/31_training_mask.gif")
    save(grey(np.zeros(SIZE, bool)), source / "training/mask/32_training_mask.gif")
    (source / "training/1st_manual/readme.odt").touch()

    sentences = (
        "03_test.tif: has no mask; expected test/1st_manual/21_manual1.gif",
        "25_manual1.gif: this mask has no picture; expected training/images/21_training.tif",
        "25_training_mask.gif: this mask has no picture",
        "31_training_mask.gif: is 59 x 44 pixels; expected 60 x 44",
        "32_training_mask.gif: is an empty field of view",
        "readme.odt: is not a file of this data set; expected names such as 21_manual1.gif",
        "has 6 problems",
    )
    check_refused("drive", source, tmp_path / "out", sentences)


def test_fields_that_are_not_given_are_derived_and_named(tmp_path: Path, drive: Maker) -> None:
    source, truth = drive()
    (source / "training/mask/30_training_mask.gif").unlink()

    prepared = prepare_dataset("drive", source, tmp_path / "out")

    assert "fields of view: 39 were given, 1 were derived from the pictures (30_training)" in prepared.notes
    derived = np.asarray(Image.open(prepared.folder / "fov/30_training.png")) > 0
    given = truth["30_training"]["fov"]
    assert 2 * (derived & given).sum() / (derived.sum() + given.sum()) > 0.95
