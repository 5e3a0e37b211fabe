"""GlaS and MoNuSeg in copies of their official layouts, and everything wrong in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msrf_monai.data import prepare_dataset
from msrf_monai.data.pathology import monuseg_patient
from msrf_monai.errors import DataError
from support.prepared_sets import all_items, check_refused, has, torn

Maker = Callable[..., Path]


@pytest.fixture
def glas(tmp_path: Path, save_image: Maker) -> Maker:
    def make(root: str = "s/Warwick QU Dataset (Released 2016_07_08)", *, graded: bool = True) -> Path:
        rows = ["name, patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"]
        for name, count in (("train", 17), ("testA", 12), ("testB", 4)):
            for number in range(1, count + 1):
                save_image(tmp_path / root / f"{name}_{number}.bmp", seed=number + 100 * len(name) * ord(name[-1]))
                labels = np.zeros((12, 20), np.uint8)
                labels[1:4, 2:6], labels[6:9, 11:18] = 1, number  # two glands, numbered
                Image.fromarray(labels).save(tmp_path / root / f"{name}_{number}_anno.bmp")
                rows.append(f"{name}_{number}, {number % 5}, {' benign' if number % 2 else 'malignant'}, adenomatous")
        if graded:
            (tmp_path / root / "Grade.csv").write_text("\n".join(rows), encoding="utf-8")
        return tmp_path / root.split("/")[0]

    return make


def test_the_numbered_glands_of_glas_become_one_mask(tmp_path: Path, glas: Maker) -> None:
    source = glas()

    prepared = prepare_dataset("glas", source, tmp_path / "a", split="higmisnet")
    whole = prepare_dataset("glas", source, tmp_path / "b", split="random")

    assert tuple(prepared.counts.values()) == (14, 3, 16)
    assert has(prepared.notes, "72/13/80 as published; of the 17 that are here: 14/3/16")
    assert has(prepared.notes, "groups (patient) have pictures in more than one part")
    items = all_items(tmp_path / "a")
    assert {item["id"][:5] for item in items if item["part"] == "test"} == {"testA", "testB"}
    for item in items:
        mask = np.asarray(Image.open(tmp_path / "a" / item["label"]))
        assert mask.sum() == 255 * (3 * 4 + 3 * 7)
    first = next(item for item in items if item["id"] == "train_3")
    assert (first["group"], first["stratum"]) == ("patient_3", "benign")
    assert torn(all_items(tmp_path / "b")) == 0
    assert not has(whole.notes, "more than one part")
    assert not has(whole.notes, "Grade.csv")


@pytest.mark.parametrize(("split", "test"), [("official", 16), ("test_a", 12), ("test_b", 4)])
def test_glas_is_tested_on_both_parts_or_on_one(tmp_path: Path, glas: Maker, split: str, test: int) -> None:
    prepared = prepare_dataset("glas", glas(graded=False), tmp_path / "out", split=split)

    assert tuple(prepared.counts.values()) == (14, 3, test)
    assert has(prepared.notes, "have no known patient")


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (b"image,kind\na,b\n", "has the columns image, kind; expected name, patient ID and grade"),
        (b"\xff\xfe\xff", "table"),
    ],
)
def test_a_glas_table_that_cannot_be_read_is_named(tmp_path: Path, glas: Maker, table: bytes, reason: str) -> None:
    source = glas("s")
    (source / "Grade.csv").write_bytes(table)

    with pytest.raises(DataError, match=f"Grade.csv: .*{reason}"):
        prepare_dataset("glas", source, tmp_path / "out")


@pytest.fixture
def monuseg(tmp_path: Path, save_image: Maker) -> Maker:
    """The folders as they come out of the two archives; three patients have two pictures each."""

    def make(training: str = "MoNuSeg 2018 Training Data", test: str = "MoNuSegTestData") -> Path:
        def save(images: str, annotations: str, stem: str, seed: int) -> None:
            save_image(tmp_path / "s" / images / f"{stem}.tif", seed=seed)
            (tmp_path / "s" / annotations).mkdir(parents=True, exist_ok=True)
            corners = [(2, 1), (9, 1), (9, 6), (2, 6)]
            vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in corners)
            (tmp_path / "s" / annotations / f"{stem}.xml").write_text(
                f'<Annotations MicronsPerPixel="0.252000"><Annotation Id="1"><Attributes/><Regions>'
                f'<RegionAttributeHeaders/><Region Id="1" NegativeROA="0"><Attributes/><Vertices>{vertices}</Vertices>'
                f"</Region></Regions><Plots/></Annotation></Annotations>",
                encoding="utf-8",
            )

        for number in range(10):
            stem = f"TCGA-18-{5590 + number // 2 if number < 6 else 6000 + number}-01Z-00-DX{number}"
            save(f"{training}/Tissue Images", f"{training}/Annotations", stem, number)
        for number in range(4):
            save(test, test, f"TCGA-2Z-A9J{number}-01A-01-TS1", 50 + number)
        return tmp_path / "s"

    return make


@pytest.mark.parametrize(
    ("training", "test"),
    [
        ("MoNuSeg 2018 Training Data", "MoNuSegTestData"),
        ("MoNuSeg 2018 Training Data/MoNuSeg 2018 Training Data", "MoNuSegTestData/MoNuSegTestData"),
        (".", "Test"),
    ],
)
def test_the_outlines_of_monuseg_become_masks(tmp_path: Path, monuseg: Maker, training: str, test: str) -> None:
    prepared = prepare_dataset("monuseg", monuseg(training, test), tmp_path / "out")

    assert prepared.split == "official"
    assert tuple(prepared.counts.values()) == (8, 2, 4)
    items = all_items(tmp_path / "out")
    expected = np.zeros((12, 20), bool)
    expected[1:6, 2:9] = True
    for item in items:
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / item["label"])), expected * 255)
        assert item["spacing_mm"] == [0.000252, 0.000252]
        assert item["group"] == item["id"][:12]
    assert torn(items) == 0
    assert has(prepared.notes, "10 pictures (training) are here, the official number is 30 (later copies have 37")


def test_regions_without_area_are_noted_with_the_file(tmp_path: Path, monuseg: Maker) -> None:
    source = monuseg()
    path = sorted((source / "MoNuSegTestData").glob("*.xml"))[0]
    region = "<Region Id='2'><Vertices><Vertex X='1' Y='1'/></Vertices></Region></Regions>"
    path.write_text(path.read_text(encoding="utf-8").replace("</Regions>", region), encoding="utf-8")

    prepared = prepare_dataset("monuseg", source, tmp_path / "out")

    assert has(prepared.notes, f"{path.name}: 1 regions have fewer than three corners and no area")


def test_the_published_split_of_monuseg_keeps_the_test_part(tmp_path: Path, monuseg: Maker) -> None:
    prepared = prepare_dataset("monuseg", monuseg(), tmp_path / "out", split="higmisnet", seed=5)

    assert tuple(prepared.counts.values()) == (8, 2, 4)
    assert {item["id"][:7] for item in all_items(tmp_path / "out") if item["part"] == "test"} == {"TCGA-2Z"}


def test_everything_wrong_with_outlined_pictures_is_listed_at_once(
    tmp_path: Path, monuseg: Maker, save_image: Maker
) -> None:
    source = monuseg()
    images, annotations = (source / "MoNuSeg 2018 Training Data" / name for name in ("Tissue Images", "Annotations"))
    first, second, third, fourth, *_ = sorted(annotations.glob("*.xml"))
    first.rename(annotations / "lonely.xml")
    second.write_text("<Annotations><Annotation>", encoding="utf-8")
    save_image(images / f"{third.stem}.png")
    (images / f"{fourth.stem}.tif").write_bytes(b"no picture")
    (annotations / "readme.txt").write_text("x", encoding="utf-8")
    (annotations / "x.docx").write_bytes(b"x")

    sentences = (
        "has 6 problems",
        f"{first.stem}.tif: has no annotations; expected",
        "lonely.xml: these annotations have no picture",
        f"{second.name}: cannot be read as XML",
        f"{third.stem}.png: 2 pictures have this stem",
        f"{fourth.stem}.tif: is not a picture",
        "x.docx: is neither a picture nor annotations",
    )
    check_refused("monuseg", source, tmp_path / "out", sentences)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("TCGA-18-5592-01Z-00-DX1", "TCGA-18-5592"),
        ("tcga-2z-a9j9", "TCGA-2Z-A9J9"),
        ("case_1", None),
        ("TCGA-18", None),
    ],
)
def test_the_patient_of_a_monuseg_picture_is_in_its_name(name: str, expected: str | None) -> None:
    assert monuseg_patient(name) == expected
