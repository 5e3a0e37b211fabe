"""DRIVE, STARE, CHASE_DB1 and HRF in copies of their layouts that the tests write, with the formats they come in."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msrf_monai.data import load_datalist, prepare_dataset, synthesize_case, synthesize_dataset, verify_dataset
from msrf_monai.data.fundus import chase_child, hrf_class
from msrf_monai.errors import DataError, InputError
from msrf_monai.transforms import LoadImage2Dd, LoadMask2Dd

Truth = dict[str, dict[str, np.ndarray]]
SIZE = (44, 60)


@cache
def picture(seed: int, size: tuple[int, int] = SIZE) -> dict[str, np.ndarray]:
    """Draw a retina with two observers' masks, the second one's shifted by a pixel, and a field of view."""
    case = synthesize_case("vessels", seed, size)
    assert case.field_of_view is not None
    return {
        "image": case.image,
        "label": case.mask > 0,
        "label2": np.roll(case.mask > 0, 1, axis=1),
        "fov": case.field_of_view > 0,
    }


def as_palette(mask: np.ndarray) -> Image.Image:
    """A palette picture whose index 1 is white, as a GIF stores a mask."""
    image = Image.fromarray(mask.astype(np.uint8), mode="L").convert("P")
    image.putdata(mask.astype(np.uint8).ravel().tolist())
    image.putpalette([0, 0, 0, 255, 255, 255])
    return image


def save(image: Image.Image, path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        buffer = io.BytesIO()
        image.save(buffer, format="PPM")
        path.write_bytes(gzip.compress(buffer.getvalue(), mtime=0))
    else:
        image.save(path, **options)


def grey(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * 255)


@pytest.fixture
def drive(tmp_path: Path) -> Callable[..., tuple[Path, Truth]]:
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


@pytest.fixture
def stare(tmp_path: Path) -> Callable[..., tuple[Path, Truth]]:
    def make(*, packed: bool = True, flat: bool = False, count: int = 20) -> tuple[Path, Truth]:
        truth = {}
        suffix = ".ppm.gz" if packed else ".ppm"
        places = (".", ".", ".") if flat else ("stare-images", "labels-ah", "labels-vk")
        for number in range(1, count + 1):
            drawn, stem = picture(number), f"im{number:04d}"
            images = (Image.fromarray(drawn["image"]), grey(drawn["label"]), grey(drawn["label2"]).convert("RGB"))
            for place, ending, image in zip(places, ("", ".ah", ".vk"), images, strict=True):
                save(image, tmp_path / "stare" / place / f"{stem}{ending}{suffix}")
            truth[stem] = drawn
        return tmp_path / "stare", truth

    return make


@pytest.fixture
def chase(tmp_path: Path) -> Callable[..., tuple[Path, Truth]]:
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
def hrf(tmp_path: Path) -> Callable[..., tuple[Path, Truth]]:
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


def datalist(folder: Path) -> dict[str, list[dict[str, object]]]:
    return json.loads((folder / "dataset.json").read_text(encoding="utf-8"))


def stems(items: list[dict[str, str]]) -> list[str]:
    return [Path(item["image"]).stem for item in items]


def check_masks(folder: Path, truth: Truth, keys: tuple[str, ...]) -> None:
    """Every mask is an 8-bit PNG of 0 and 255 and holds what was drawn, row by row."""
    content = datalist(folder)
    for item in (item for part in ("training", "validation", "test") for item in content[part]):
        for key in keys:
            image = Image.open(folder / str(item[key]))
            assert (image.format, image.mode) == ("PNG", "L")
            np.testing.assert_array_equal(np.asarray(image), truth[str(item["id"])][key] * 255)


@pytest.mark.parametrize("root", ["DRIVE", "downloads/DRIVE"])
def test_drive_keeps_its_official_parts_fields_and_second_observer(
    tmp_path: Path, drive: Callable[..., tuple[Path, Truth]], root: str
) -> None:
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


def test_drive_without_test_labels_says_so_and_keeps_the_training_pictures(
    tmp_path: Path, drive: Callable[..., tuple[Path, Truth]]
) -> None:
    source, _ = drive(with_test_labels=False)

    prepared = prepare_dataset("drive", source, tmp_path / "out", strict=True)

    assert prepared.counts == {"training": 16, "validation": 4, "test": 0}
    assert (
        "test/1st_manual holds no mask: this copy is one without test labels, as the challenge site gives it out; 20 "
        "pictures were left out"
    ) in prepared.notes
    with pytest.raises(DataError, match="the test part is empty"):
        load_datalist(prepared.folder, "test")


def test_drive_with_a_hole_is_refused_with_every_file(tmp_path: Path, drive: Callable[..., tuple[Path, Truth]]) -> None:
    source, _ = drive()
    (source / "test/1st_manual/03_manual1.gif").unlink()
    (source / "training/images/25_training.tif").unlink()
    (source / "training/mask/30_training_mask.gif").unlink()  # this one is derived
    save(grey(np.ones((44, 59), bool)), source / "training/mask/31_training_mask.gif")
    save(grey(np.zeros(SIZE, bool)), source / "training/mask/32_training_mask.gif")
    (source / "training/1st_manual/readme.odt").touch()

    with pytest.raises(DataError) as caught:
        prepare_dataset("drive", source, tmp_path / "out")

    message = str(caught.value)
    for sentence in (
        "03_test.tif: has no mask; expected test/1st_manual/21_manual1.gif",
        "25_manual1.gif: this mask has no picture; expected training/images/21_training.tif",
        "25_training_mask.gif: this mask has no picture",
        "31_training_mask.gif: is 59 x 44 pixels; expected 60 x 44",
        "32_training_mask.gif: is an empty field of view",
        "readme.odt: is not a file of this data set; expected names such as 21_manual1.gif",
    ):
        assert sentence in message
    assert "has 6 problems" in message


def test_fields_that_are_not_given_are_derived_and_named(
    tmp_path: Path, drive: Callable[..., tuple[Path, Truth]]
) -> None:
    source, truth = drive()
    (source / "training/mask/30_training_mask.gif").unlink()

    prepared = prepare_dataset("drive", source, tmp_path / "out")

    assert "fields of view: 39 were given, 1 were derived from the pictures (30_training)" in prepared.notes
    derived = np.asarray(Image.open(prepared.folder / "fov/30_training.png")) > 0
    given = truth["30_training"]["fov"]
    assert 2 * (derived & given).sum() / (derived.sum() + given.sum()) > 0.95


@pytest.mark.parametrize("options", [{}, {"packed": False}, {"flat": True}])
@pytest.mark.parametrize("images", ["copy", "reference"])
def test_stare_is_unpacked_and_both_observers_kept_apart(
    tmp_path: Path, stare: Callable[..., tuple[Path, Truth]], options: dict[str, bool], images: str
) -> None:
    source, truth = stare(count=5, **options)

    prepared = prepare_dataset("stare", source, tmp_path / "out", images=images)

    check_masks(prepared.folder, truth, ("label", "label2"))
    for item in load_datalist(prepared.folder, "all"):
        assert Path(item["image"]).suffix == ".ppm"
        assert item["image"].startswith(str(source)) == (images == "reference" and options.get("packed") is False)
        drawn = truth[Path(item["image"]).stem]
        np.testing.assert_array_equal(np.asarray(Image.open(item["image"])), drawn["image"])
    assert any("fields of view: 0 were given, 5 were derived" in note for note in prepared.notes)
    assert "5 pictures (all) are here, the official number is 20" in prepared.notes


@pytest.mark.parametrize(("split", "folds", "validation"), [(None, 5, 4), ("5fold", 5, 4), ("leave_one_out", 20, 4)])
def test_every_stare_picture_is_tested_once_and_nothing_is_chosen_on_it(
    tmp_path: Path, stare: Callable[..., tuple[Path, Truth]], split: str | None, folds: int, validation: int
) -> None:
    source, truth = stare(packed=False)

    prepared = prepare_dataset("stare", source, tmp_path / "out", split=split, folds=2)

    assert (prepared.split, prepared.folds) == (split or "5fold", folds)
    tested = []
    for fold in range(folds):
        parts = {part: stems(load_datalist(prepared.folder, part, fold=fold)) for part in ("training", "validation")}
        parts["test"] = stems(load_datalist(prepared.folder, "test", fold=fold))
        assert sorted(name for names in parts.values() for name in names) == sorted(truth)
        assert len(parts["validation"]) == validation
        assert len(parts["test"]) == 20 // folds
        tested += parts["test"]
        if fold == 0:
            for part, names in parts.items():
                assert stems(load_datalist(prepared.folder, part)) == names
    assert sorted(tested) == sorted(truth)
    with pytest.raises(InputError, match=f"fold is {folds}; expected from 0 to {folds - 1}"):
        load_datalist(prepared.folder, "test", fold=folds)


def test_leaving_one_out_goes_by_name_and_folds_by_the_seed(
    tmp_path: Path, stare: Callable[..., tuple[Path, Truth]]
) -> None:
    source, truth = stare(packed=False, count=10)
    folders = [
        prepare_dataset("stare", source, tmp_path / f"{split}{seed}", split=split, seed=seed).folder
        for split in ("leave_one_out", "5fold")
        for seed in (0, 1)
    ]

    tested = [[stems(load_datalist(folder, "test", fold=fold)) for fold in range(5)] for folder in folders]

    assert tested[0] == tested[1] == [[name] for name in sorted(truth)[:5]]
    assert tested[2] != tested[3]


@pytest.mark.parametrize(("split", "count", "least"), [("5fold", 4, 5), ("leave_one_out", 2, 3)])
def test_a_cross_validation_of_too_few_pictures_is_refused(
    tmp_path: Path, stare: Callable[..., tuple[Path, Truth]], split: str, count: int, least: int
) -> None:
    source, _ = stare(packed=False, count=count)

    with pytest.raises(
        DataError, match=f"has {count} pictures or groups, too few for the split '{split}'; expected {least}"
    ):
        prepare_dataset("stare", source, tmp_path / "out", split=split)


def test_a_damaged_packed_file_and_one_that_is_there_twice_are_named(
    tmp_path: Path, stare: Callable[..., tuple[Path, Truth]]
) -> None:
    source, truth = stare()
    (source / "labels-ah/im0001.ah.ppm.gz").write_bytes(b"no gzip")
    whole = (source / "stare-images/im0002.ppm.gz").read_bytes()
    (source / "stare-images/im0002.ppm.gz").write_bytes(whole[:200])
    save(Image.fromarray(truth["im0003"]["image"]), source / "stare-images/im0003.ppm")
    (source / "stare-images/stare-images.tar").touch()
    (source / "labels-ah/notes.txt").touch()

    with pytest.raises(DataError) as caught:
        prepare_dataset("stare", source, tmp_path / "out")

    message = str(caught.value)
    assert "has 3 problems" in message
    assert "im0001.ah.ppm.gz: cannot be unpacked" in message
    assert "im0002.ppm.gz: cannot be unpacked" in message
    assert "2 files have this name (im0003.ppm, im0003.ppm.gz); expected one" in message


def test_a_packed_file_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, stare: Callable[..., tuple[Path, Truth]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = stare(count=5)
    (source / "labels-vk/im0004.vk.ppm.gz").write_bytes(gzip.compress(b"\0" * (2**20 + 700)))
    monkeypatch.setattr("msrf_monai.data.pictures.MAX_PIXELS", 100)

    with pytest.raises(DataError, match=r"im0004\.vk\.ppm\.gz: unpacks to more than 1049176 bytes"):
        prepare_dataset("stare", source, tmp_path / "out")


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
    chase: Callable[..., tuple[Path, Truth]],
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


def test_chase_lies_in_a_folder_with_its_archive_and_given_fields(
    tmp_path: Path, chase: Callable[..., tuple[Path, Truth]]
) -> None:
    source, truth = chase(root="downloads/CHASEDB1", children=5)
    (source / "CHASEDB1.zip").touch()
    for stem, drawn in truth.items():
        save(grey(drawn["fov"]), source / "fov" / f"{stem}.png")

    prepared = prepare_dataset("chase_db1", source.parent, tmp_path / "out", split="8_20")

    assert tuple(prepared.counts.values()) == (6, 2, 2)
    check_masks(prepared.folder, truth, ("label", "label2", "fov"))
    assert any("CHASEDB1.zip" in note for note in prepared.notes)


def test_a_split_file_in_the_source_may_replace_a_standard_split(
    tmp_path: Path, chase: Callable[..., tuple[Path, Truth]]
) -> None:
    source, _ = chase(children=3)
    own = {"train": ["Image_01L", "Image_01R", "Image_02L", "Image_02R"], "test": ["Image_03L", "Image_03R"]}
    (source / "splits.json").write_text(json.dumps({"20_8": own}), encoding="utf-8")

    prepared = prepare_dataset("chase_db1", source, tmp_path / "out", folds=0)

    assert tuple(prepared.counts.values()) == (2, 2, 2)
    with pytest.raises(DataError, match="has no split '7_21'; it offers 8_20, random, 20_8"):
        prepare_dataset("chase_db1", source, tmp_path / "other", split="7_21")


@pytest.mark.parametrize("by_class", [False, True])
def test_hrf_trains_on_the_first_five_of_each_class(
    tmp_path: Path, hrf: Callable[..., tuple[Path, Truth]], by_class: bool
) -> None:
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
