"""STARE in copies of its layouts that the tests write: packed files, two observers, cross-validation."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msrf_monai.data import load_datalist, prepare_dataset
from msrf_monai.errors import DataError, InputError
from support.fundus_sets import Maker, Truth, check_masks, grey, picture, save
from support.prepared_sets import check_refused, stems


@pytest.fixture
def stare(tmp_path: Path) -> Maker:
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


@pytest.mark.parametrize("options", [{}, {"packed": False}, {"flat": True}])
@pytest.mark.parametrize("images", ["copy", "reference"])
def test_stare_is_unpacked_and_both_observers_kept_apart(
    tmp_path: Path, stare: Maker, options: dict[str, bool], images: str
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
    tmp_path: Path, stare: Maker, split: str | None, folds: int, validation: int
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


def test_leaving_one_out_goes_by_name_and_folds_by_the_seed(tmp_path: Path, stare: Maker) -> None:
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
    tmp_path: Path, stare: Maker, split: str, count: int, least: int
) -> None:
    source, _ = stare(packed=False, count=count)

    with pytest.raises(
        DataError, match=f"has {count} pictures or groups, too few for the split '{split}'; expected {least}"
    ):
        prepare_dataset("stare", source, tmp_path / "out", split=split)


def test_a_damaged_packed_file_and_one_that_is_there_twice_are_named(tmp_path: Path, stare: Maker) -> None:
    source, truth = stare()
    (source / "labels-ah/im0001.ah.ppm.gz").write_bytes(b"no gzip")
    whole = (source / "stare-images/im0002.ppm.gz").read_bytes()
    (source / "stare-images/im0002.ppm.gz").write_bytes(whole[:200])
    save(Image.fromarray(truth["im0003"]["image"]), source / "stare-images/im0003.ppm")
    (source / "stare-images/stare-images.tar").touch()
    (source / "labels-ah/notes.txt").touch()

    sentences = (
        "has 3 problems",
        "im0001.ah.ppm.gz: cannot be unpacked",
        "im0002.ppm.gz: cannot be unpacked",
        "2 files have this name (im0003.ppm, im0003.ppm.gz); expected one",
    )
    check_refused("stare", source, tmp_path / "out", sentences)


def test_a_packed_file_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, stare: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = stare(count=5)
    (source / "labels-vk/im0004.vk.ppm.gz").write_bytes(gzip.compress(b"\0" * (2**20 + 700)))
    monkeypatch.setattr("msrf_monai.data.pictures.MAX_PIXELS", 100)

    with pytest.raises(DataError, match=r"im0004\.vk\.ppm\.gz: unpacks to more than 1049176 bytes"):
        prepare_dataset("stare", source, tmp_path / "out")
