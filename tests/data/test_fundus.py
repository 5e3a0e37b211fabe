"""CHASE_DB1 and HRF in copies of their layouts that the tests write, and what all sets with fields of view share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msrf_monai.data import load_datalist, prepare_dataset, synthesize_dataset, verify_dataset
from msrf_monai.data.fundus import chase_child, hrf_class
from msrf_monai.errors import DataError
from msrf_monai.transforms import LoadImage2Dd, LoadMask2Dd
from support.fundus_sets import Maker, Truth, as_palette, check_masks, grey, picture, save
from support.prepared_sets import datalist, stems


@pytest.fixture
def chase(tmp_path: Path) -> Maker:
    def make(*, root: str = "chase", children: int = 14) -> tuple[Path, Truth]:
        truth = {}
        for child in range(1, children + 1):
            for eye in "LR":
                drawn, stem = picture(2 * child + (eye == "R")), f"Image_{child:02d}{eye}"
                save(Image.fromarray(drawn["image"]), tmp_path / root / f"{stem}.jpg", quality=95)
                save(grey(drawn["label"]).convert("1"), tmp_path / root / f"{stem}_1stHO.png")
                save(grey(drawn["label2"]).convert("1"), tmp_path / root / f"{stem}_2ndHO.png")
                truth[stem] = drawn
        return tmp_path / root, truth

    return make


@pytest.fixture
def hrf(tmp_path: Path) -> Maker:
    def make(*, by_class: bool = False) -> tuple[Path, Truth]:
        truth = {}
        names = {"h": "healthy", "dr": "diabetic_retinopathy", "g": "glaucoma"}
        for number in range(1, 16):
            for ending, name in names.items():
                drawn, stem = picture(number), f"{number:02d}_{ending}"
                places = (name, f"{name}_manualsegm", f"{name}_fovmask") if by_class else ("images", "manual1", "mask")
                suffix = "JPG" if ending == "dr" else "jpg"
                save(Image.fromarray(drawn["image"]), tmp_path / "hrf" / places[0] / f"{stem}.{suffix}", quality=95)
                save(grey(drawn["label"]), tmp_path / "hrf" / places[1] / f"{stem}.tif")
                save(grey(drawn["fov"]).convert("RGB"), tmp_path / "hrf" / places[2] / f"{stem}_mask.tif")
                truth[stem] = drawn
        return tmp_path / "hrf", truth

    return make


@pytest.mark.parametrize(
    ("split", "counts", "validation", "first_test"),
    [
        (None, (16, 4, 8), ["09", "10"], "11"),
        ("20_8", (16, 4, 8), ["09", "10"], "11"),
        ("8_20", (6, 2, 20), ["04"], "05"),
    ],
)
def test_both_eyes_of_a_child_stay_together_in_chase(
    tmp_path: Path,
    chase: Maker,
    split: str | None,
    counts: tuple[int, int, int],
    validation: list[str],
    first_test: str,
) -> None:
    source, truth = chase()

    prepared = prepare_dataset("chase_db1", source, tmp_path / "out", split=split, folds=4)

    assert tuple(prepared.counts.values()) == counts
    assert stems(load_datalist(prepared.folder, "validation")) == [
        f"Image_{n}{eye}" for n in validation for eye in "LR"
    ]
    assert stems(load_datalist(prepared.folder, "test"))[0] == f"Image_{first_test}L"
    check_masks(prepared.folder, truth, ("label", "label2"))
    content = datalist(prepared.folder)
    folds: dict[object, set[object]] = {}
    for item in content["training"] + content["validation"]:
        folds.setdefault(item["group"], set()).add(item["fold"])
    assert all(len(found) == 1 for found in folds.values())
    assert len(set.union(*folds.values())) == 4
    assert not any("more than one part" in note for note in prepared.notes)


def test_chase_lies_in_a_folder_with_its_archive_and_given_fields(tmp_path: Path, chase: Maker) -> None:
    source, truth = chase(root="downloads/CHASEDB1", children=5)
    (source / "CHASEDB1.zip").touch()
    for stem, drawn in truth.items():
        save(grey(drawn["fov"]), source / "fov" / f"{stem}.png")

    prepared = prepare_dataset("chase_db1", source.parent, tmp_path / "out", split="8_20")

    assert tuple(prepared.counts.values()) == (6, 2, 2)
    check_masks(prepared.folder, truth, ("label", "label2", "fov"))
    assert any("CHASEDB1.zip" in note for note in prepared.notes)


def test_a_split_file_in_the_source_may_replace_a_standard_split(tmp_path: Path, chase: Maker) -> None:
    source, _ = chase(children=3)
    own = {"train": ["Image_01L", "Image_01R", "Image_02L", "Image_02R"], "test": ["Image_03L", "Image_03R"]}
    (source / "splits.json").write_text(json.dumps({"20_8": own}), encoding="utf-8")

    prepared = prepare_dataset("chase_db1", source, tmp_path / "out", folds=0)

    assert tuple(prepared.counts.values()) == (2, 2, 2)
    with pytest.raises(DataError, match="has no split '7_21'; it offers 8_20, random, 20_8"):
        prepare_dataset("chase_db1", source, tmp_path / "other", split="7_21")


@pytest.mark.parametrize("by_class", [False, True])
def test_hrf_trains_on_the_first_five_of_each_class(tmp_path: Path, hrf: Maker, by_class: bool) -> None:
    source, truth = hrf(by_class=by_class)

    prepared = prepare_dataset("hrf", source, tmp_path / "out", folds=3)

    assert (prepared.split, tuple(prepared.counts.values())) == ("15_30", (12, 3, 30))
    assert stems(load_datalist(prepared.folder, "validation")) == ["05_dr", "05_g", "05_h"]
    assert {name[:2] for name in stems(load_datalist(prepared.folder, "test"))} == {f"{n:02d}" for n in range(6, 16)}
    assert load_datalist(prepared.folder, "validation")[0]["stratum"] == "diabetic_retinopathy"
    assert not any("label2" in item for item in load_datalist(prepared.folder, "all"))
    check_masks(prepared.folder, truth, ("label", "fov"))
    assert not any("official number" in note or "second observer" in note for note in prepared.notes)


def test_other_folders_are_refused_with_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    for name, expected in (
        ("drive", r"training/images/21_training\.tif \+ training/1st_manual/21_manual1\.gif \(and 1 more such parts\)"),
        ("stare", r"stare-images/im0001\.ppm \+ labels-ah/im0001\.ah\.ppm or images/im0001\.ppm"),
        ("chase_db1", r"or Image_01L\.jpg \+ Image_01L_1stHO\.png"),
        ("hrf", r"images/01_h\.jpg \+ manual1/01_h\.tif or healthy/01_h\.jpg"),
    ):
        with pytest.raises(DataError, match=expected):
            prepare_dataset(name, tmp_path / "empty", tmp_path / "out")


@pytest.mark.parametrize("name", ["Image_1L", "Image_01", "01L", ""])
def test_names_of_other_forms_have_no_child_and_no_class(name: str) -> None:
    assert chase_child(name) is None
    assert hrf_class(name) is None


def test_drawn_retinas_are_a_prepared_set_with_fields_of_view(tmp_path: Path) -> None:
    folder = synthesize_dataset("vessels", tmp_path / "drawn", counts=(3, 1, 1), size=(40, 56), folds=2, seed=3)

    for item in load_datalist(folder, "all"):
        field = np.asarray(Image.open(item["fov"]))
        assert field.shape == (40, 56)
        assert set(np.unique(field)) == {0, 255}
        assert not np.asarray(Image.open(item["label"]))[field == 0].any()
    assert verify_dataset(folder) == 15
    (folder / "fov" / "vessels_00000.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"fov/vessels_00000\.png: has changed"):
        verify_dataset(folder)


def test_a_field_of_view_that_is_no_path_is_refused(tmp_path: Path) -> None:
    folder = synthesize_dataset("vessels", tmp_path / "drawn", counts=(2, 0, 0), size=(32, 40), folds=0)
    content = datalist(folder)
    content["training"][1]["fov"] = 7
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")

    with pytest.raises(DataError, match="item 1 of 'training' has 7 as 'fov'; expected a path"):
        load_datalist(folder, "training")


@pytest.mark.parametrize("suffix", [".tif", ".ppm", ".png", ".gif", ".bmp"])
def test_picture_label_and_field_of_view_are_read_along_the_same_axes(tmp_path: Path, suffix: str) -> None:
    rows = np.zeros((7, 11), bool)
    rows[1, 2:9] = rows[4:6, 3] = True
    field = np.zeros((7, 11), bool)
    field[0:6, 1:] = True
    Image.fromarray(np.repeat(rows[..., None] * np.uint8(200), 3, axis=2)).save(tmp_path / f"image{suffix}")
    forms = {
        "1bit": (grey(rows).convert("1"), ".png"),
        "palette": (as_palette(rows), ".gif"),
        "grey": (grey(rows), suffix),
        "tiff": (grey(rows), ".tif"),
        "ppm": (grey(rows).convert("RGB"), ".ppm"),
    }
    for name, (image, ending) in forms.items():
        image.save(tmp_path / f"{name}{ending}")
    grey(field).save(tmp_path / "fov.gif")

    for name, (_, ending) in forms.items():
        item = {"image": f"image{suffix}", "label": f"{name}{ending}", "fov": "fov.gif"}
        item = {key: str(tmp_path / file) for key, file in item.items()}
        loaded = LoadMask2Dd(keys=("label", "fov"))(LoadImage2Dd(keys="image")(item))
        assert tuple(loaded["image"].shape) == (3, 11, 7)
        label, seen = (np.asarray(loaded[key][0]) > 0 for key in ("label", "fov"))
        np.testing.assert_array_equal(label.T, rows)
        np.testing.assert_array_equal(seen.T, field)
        np.testing.assert_array_equal(np.asarray(loaded["image"][0]).T > 0, rows)
