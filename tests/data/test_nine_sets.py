"""The data sets of Hi-gMISnet in copies of their official layouts, and everything wrong in them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from msrf_monai.data import CATALOGUE, load_datalist, prepare_dataset, verify_dataset
from msrf_monai.data.division import divide
from msrf_monai.data.layouts import SourceItem
from msrf_monai.data.pathology import monuseg_patient
from msrf_monai.data.radiology import montgomery_class
from msrf_monai.data.splits import sized_split
from msrf_monai.errors import DataError, InputError
from msrf_monai.transforms import LoadImage2Dd, LoadMask2Dd
from support.volume_files import SHAPE, mask_values, save_dicom_series, save_mhd, save_nifti, scan_values

Maker = Callable[..., Path]
PARTS = ("training", "validation", "test")
NINE = ("physionet_ich", "busi", "cvc_clinicdb", "monuseg", "glas", "isic2018", "drive", "montgomery", "promise12")


def datalist(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "dataset.json").read_text(encoding="utf-8"))


def all_items(folder: Path) -> list[dict[str, Any]]:
    content = datalist(folder)
    return [{**item, "part": part} for part in PARTS for item in content[part]]


def torn(items: list[dict[str, Any]]) -> int:
    parts = defaultdict(set)
    for item in items:
        parts[item["group"]].add(item["part"])
    return sum(len(found) > 1 for found in parts.values())


def has(notes: tuple[str, ...], text: str) -> bool:
    return any(text in note for note in notes)


@pytest.fixture
def ich(tmp_path: Path) -> Maker:
    """75 scans in version 1.3.1, here twelve of four slices; two in three show hemorrhage in slices 1 and 2."""

    def make(suffix: str = ".nii", root: str = "ich") -> Path:
        for patient in range(49, 61):
            marked = (1, 2) if patient % 3 else ()
            save_nifti(tmp_path / root / "ct_scans" / f"{patient:03d}{suffix}", scan_values(patient))
            save_nifti(tmp_path / root / "masks" / f"{patient:03d}{suffix}", mask_values(marked))
        return tmp_path / root

    return make


@pytest.fixture
def promise(tmp_path: Path) -> Maker:
    def make(folders: dict[str, int], *, masks: tuple[str, ...] = ()) -> Path:
        for number, (folder, count) in enumerate(folders.items()):
            for case in range(count):
                stem = tmp_path / "promise" / folder / f"Case{case:02d}"
                save_mhd(stem.with_suffix(".mhd"), scan_values(100 * number + case, low=0, high=900))
                if not masks or folder in masks:
                    save_mhd(stem.with_name(f"{stem.name}_segmentation.mhd"), mask_values())
        return tmp_path / "promise"

    return make


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_ich_slices_with_hemorrhage_become_pictures_in_the_brain_window(
    tmp_path: Path, ich: Maker, suffix: str
) -> None:
    prepared = prepare_dataset("physionet_ich", ich(suffix), tmp_path / "out")

    items = all_items(tmp_path / "out")
    patients = {f"{patient:03d}" for patient in range(49, 61) if patient % 3}
    assert {item["id"] for item in items} == {f"{name}_slice{k:03d}" for name in patients for k in (1, 2)}
    for item in items:
        scan, k = scan_values(int(item["group"])), item["slice"]
        pixels = np.asarray(Image.open(tmp_path / "out" / item["image"]))
        np.testing.assert_array_equal(pixels, np.rint(np.clip(scan[::-1, ::-1, k].T / 80, 0, 1) * 255))
        mask = np.asarray(Image.open(tmp_path / "out" / item["label"]))
        np.testing.assert_array_equal(mask, mask_values()[::-1, ::-1, k].T * 255)
        assert item["spacing_mm"] == [0.75, 0.5]
        assert (item["slice_spacing_mm"], item["window"], item["stratum"]) == (3.0, [0.0, 80.0], "hemorrhage")
    content = datalist(tmp_path / "out")
    assert content["modality"] == {"0": "CT"}
    assert content["window"] == "0 to 80 HU (level 40, width 80), 8 bits"
    assert has(prepared.notes, "16 slices of 8 volumes were written as 8-bit PNG, window 0 to 80 HU")
    assert has(prepared.notes, "32 no_hemorrhage pictures were left out; include 'no_hemorrhage' to take them")
    assert has(prepared.notes, "16 pictures (hemorrhage) are here, the official number is 318 (82 scans")
    assert verify_dataset(tmp_path / "out") == 32


def test_ich_is_split_by_patient_unless_the_published_split_is_asked_for(tmp_path: Path, ich: Maker) -> None:
    source = ich()

    by_patient = prepare_dataset("physionet_ich", source, tmp_path / "a", folds=3)
    by_slice = prepare_dataset("physionet_ich", source, tmp_path / "b", split="higmisnet", folds=0)

    assert (by_patient.split, torn(all_items(tmp_path / "a"))) == ("random", 0)
    assert len({(item["group"], item.get("fold")) for item in all_items(tmp_path / "a")}) == 8
    assert by_slice.counts == {"training": 12, "validation": 2, "test": 2}
    assert torn(all_items(tmp_path / "b")) > 0
    assert has(by_slice.notes, "254/32/32 as published; of the 16 that are here: 12/2/2")
    assert has(
        by_slice.notes, "(patient) have pictures in more than one part of the higmisnet split: its scores are too"
    )


def test_ich_slices_without_hemorrhage_come_when_asked_in_16_bits_and_another_window(
    tmp_path: Path, ich: Maker
) -> None:
    prepared = prepare_dataset(
        "physionet_ich",
        ich(),
        tmp_path / "out",
        include=["no_hemorrhage"],
        window="50,100",
        bits=16,
        images="reference",
    )

    items = all_items(tmp_path / "out")
    assert len(items) == 48
    assert has(prepared.notes, "32 masks are empty")
    image = Image.open(tmp_path / "out" / items[0]["image"])
    expected = scan_values(int(items[0]["group"]))[::-1, ::-1, items[0]["slice"]].T / 100
    assert image.mode.startswith("I")
    np.testing.assert_allclose(np.asarray(image) / 65535, np.clip(expected, 0, 1), atol=1 / 65535)
    assert datalist(tmp_path / "out")["window"] == "0 to 100 HU (level 50, width 100), 16 bits"


def test_the_loader_reads_a_slice_as_it_was_written(tmp_path: Path, ich: Maker) -> None:
    prepare_dataset("physionet_ich", ich(), tmp_path / "out")
    item = load_datalist(tmp_path / "out", "training")[0]

    loaded = LoadMask2Dd("label")(LoadImage2Dd("image", channels=3)(item))

    pixels = np.asarray(Image.open(item["image"]))
    np.testing.assert_array_equal(np.asarray(loaded["image"]), np.broadcast_to(pixels.T, (3, *pixels.T.shape)))
    assert loaded["label"].shape == (1, *SHAPE[:2])
    assert loaded["label"].max() == 1


def test_a_ct_in_dicom_is_read_like_one_in_nifti(tmp_path: Path) -> None:
    for patient in (49, 50, 52):
        values = scan_values(patient) // 2 * 2
        save_dicom_series(tmp_path / "s/ct_scans" / f"{patient:03d}", values)
        # the mask's axes run to the right and to the front
        place = np.diag([0.5, 0.75, 3, 1.0])
        save_nifti(tmp_path / "s/masks" / f"{patient:03d}.nii.gz", mask_values()[::-1, ::-1], place)

    prepare_dataset("physionet_ich", tmp_path / "s", tmp_path / "out", folds=0)

    for item in all_items(tmp_path / "out"):
        k = item["slice"]
        mask = np.asarray(Image.open(tmp_path / "out" / item["label"]))
        np.testing.assert_array_equal(mask, mask_values()[:, :, k].T * 255)
        scan = scan_values(int(item["group"])) // 2 * 2
        pixels = np.asarray(Image.open(tmp_path / "out" / item["image"]))
        np.testing.assert_array_equal(pixels, np.rint(np.clip(scan[:, :, k].T / 80, 0, 1) * 255))
        assert item["spacing_mm"] == [0.75, 0.5]


def test_old_ich_pictures_are_read_by_patient(tmp_path: Path, save_image: Maker, save_mask: Maker) -> None:
    for patient in ("049", "050", "051"):
        folder = tmp_path / "s/Patients_CT" / patient
        for number in range(1, 4):
            save_image(folder / "brain" / f"{number}.png", seed=number)
            save_image(folder / "bone" / f"{number}.png", seed=number)
        save_mask(folder / "brain" / "2_HGE_Seg.png")

    some = prepare_dataset("physionet_ich", tmp_path / "s", tmp_path / "a")
    every = prepare_dataset("physionet_ich", tmp_path / "s", tmp_path / "b", include=["no_hemorrhage"])

    assert {(item["id"], item["group"]) for item in all_items(tmp_path / "a")} == {
        (f"{patient}_slice002", patient) for patient in ("049", "050", "051")
    }
    assert sum(some.counts.values()) == 3
    assert has(every.notes, "6 masks are empty")
    with pytest.raises(InputError, match="window and bits are for volumes; physionet_ich holds pictures here"):
        prepare_dataset("physionet_ich", tmp_path / "s", tmp_path / "c", window="40,80")
    save_mask(tmp_path / "s/Patients_CT/049/brain/9_HGE_Seg.png")
    with pytest.raises(DataError, match=r"9_HGE_Seg\.png: this mask has no picture"):
        prepare_dataset("physionet_ich", tmp_path / "s", tmp_path / "c")


def test_everything_wrong_with_volumes_is_listed_at_once(tmp_path: Path, ich: Maker) -> None:
    source = ich()
    (source / "masks/049.nii").unlink()
    (source / "ct_scans/050.nii").write_bytes(b"no volume")
    save_nifti(source / "masks/052.nii", scan_values())
    save_nifti(source / "masks/053.nii", mask_values(shape=(6, 5, 5)))
    save_nifti(source / "masks/099.nii", mask_values())
    save_nifti(source / "ct_scans/055.nii.gz", scan_values())
    (source / "ct_scans/table.docx").write_bytes(b"x")
    (source / "ct_scans/readme.txt").write_text("x", encoding="utf-8")

    with pytest.raises(DataError) as caught:
        prepare_dataset("physionet_ich", source, tmp_path / "out")

    message = str(caught.value)
    for sentence in (
        "has 7 problems",
        "049.nii: has no mask; expected",
        "050.nii: cannot be read as NIfTI",
        "masks/052.nii: is not a binary mask",
        "masks/053.nii: is 6 x 5 x 5 voxels; expected 6 x 5 x 4, the size of 053.nii",
        "masks/099.nii: this mask has no volume in",
        "055.nii.gz: 055.nii has the same name",
        "table.docx: is no volume (.docx)",
    ):
        assert sentence in message
    assert not (tmp_path / "out").exists()


def test_promise12_takes_its_official_cases_where_all_have_masks(tmp_path: Path, promise: Maker) -> None:
    source = promise({"training_data": 3, "livechallenge_test_data": 2, "test_data": 2})

    prepared = prepare_dataset("promise12", source, tmp_path / "out", folds=2)
    same = prepare_dataset("promise12", source, tmp_path / "same", split="higmisnet")

    assert prepared.split == "official"
    assert tuple(prepared.counts.values()) == tuple(same.counts.values()) == (6, 4, 4)
    items = all_items(tmp_path / "out")
    assert {item["group"] for item in items if item["part"] == "test"} == {"test_Case00", "test_Case01"}
    assert torn(items) == 0
    for item in items[:3]:
        scan = scan_values(int(item["group"][-2:]), low=0, high=900)
        low, high = np.percentile(scan, [0.5, 99.5])
        pixels = np.asarray(Image.open(tmp_path / "out" / item["image"])).astype(int)
        expected = np.clip((scan[:, :, item["slice"]].T - low) / (high - low), 0, 1) * 255
        assert np.abs(pixels - expected).max() <= 1
        assert item["window"] == [float(f"{low:.6g}"), float(f"{high:.6g}")]
        assert item["spacing_mm"] == [0.75, 0.5]
    assert has(prepared.notes, "3 patients (training) are here, the official number is 50")


def test_promise12_without_test_masks_is_split_by_case(tmp_path: Path, promise: Maker) -> None:
    folders = {"TrainingData_Part1": 5, "TestData": 2}
    source = promise(folders, masks=("TrainingData_Part1",))
    for case in range(5, 8):
        stem = source / "TrainingData_Part2" / f"Case{case:02d}"
        save_mhd(stem.with_suffix(".mhd"), scan_values(case, low=0, high=900))
        save_mhd(stem.with_name(f"{stem.name}_segmentation.mhd"), mask_values())

    prepared = prepare_dataset("promise12", source, tmp_path / "out")

    items = all_items(tmp_path / "out")
    assert prepared.split == "random"
    assert {item["group"] for item in items} == {f"Case{case:02d}" for case in range(8)}
    assert torn(items) == 0
    assert has(
        prepared.notes, "TestData holds no mask: the challenge did not give out those of its live and test cases"
    )
    assert has(prepared.notes, "2 volumes were left out")
    with pytest.raises(DataError, match="the higmisnet split needs folders that tell training from test; they tell"):
        prepare_dataset("promise12", source, tmp_path / "other", split="higmisnet")


def test_promise12_cases_in_one_folder_and_data_files_without_a_header(tmp_path: Path, promise: Maker) -> None:
    source = promise({".": 3})

    prepared = prepare_dataset("promise12", source, tmp_path / "out", folds=0)

    assert sum(prepared.counts.values()) == 6
    (source / "Case02.mhd").unlink()
    with pytest.raises(DataError) as caught:
        prepare_dataset("promise12", source, tmp_path / "other")
    assert "Case02.raw: is no volume (.raw), nor the data of one" in str(caught.value)
    assert "Case02_segmentation.mhd: this mask has no volume" in str(caught.value)


def test_a_table_of_groups_may_name_volumes(tmp_path: Path, ich: Maker) -> None:
    source = ich()
    rows = "".join(f"{patient:03d},family{patient // 4}\n" for patient in range(49, 61))
    (source / "groups.csv").write_text("id,group\n" + rows, encoding="utf-8")

    prepare_dataset("physionet_ich", source, tmp_path / "out")

    assert {item["group"] for item in all_items(tmp_path / "out")} == {f"family{n}" for n in (12, 13, 14)}


def test_both_lungs_of_a_montgomery_radiograph_are_united(tmp_path: Path, save_image: Maker) -> None:
    root = tmp_path / "s/MontgomerySet"
    for number in range(20):
        stem = f"MCUCXR_{number:04d}_{number % 2}"
        save_image(root / "CXR_png" / f"{stem}.png", seed=number)
        for place, columns in (("left", slice(12, 17)), ("right", slice(2, 8))):
            mask = np.zeros((12, 20), np.uint8)
            mask[3:9, columns] = 255
            (root / f"ManualMask/{place}Mask").mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(root / f"ManualMask/{place}Mask" / f"{stem}.png")
    (root / "CXR_png/Thumbs.db").write_bytes(b"x")

    prepared = prepare_dataset("montgomery", tmp_path / "s", tmp_path / "out", split="higmisnet")

    assert prepared.counts == {"training": 16, "validation": 2, "test": 2}
    items = all_items(tmp_path / "out")
    assert Counter(item["stratum"] for item in items) == {"normal": 10, "tuberculosis": 10}
    mask = np.asarray(Image.open(tmp_path / "out" / items[0]["label"]))
    assert np.flatnonzero(mask.any(axis=0)).tolist() == [*range(2, 8), *range(12, 17)]
    (root / "ManualMask/leftMask/MCUCXR_0003_1.png").rename(root / "ManualMask/leftMask/MCUCXR_0099_1.png")
    (root / "CXR_png/x.docx").write_bytes(b"x")
    save_image(root / "CXR_png/MCUCXR_0005_1.bmp")
    with pytest.raises(DataError) as caught:
        prepare_dataset("montgomery", tmp_path / "s", tmp_path / "other")
    for sentence in (
        "MCUCXR_0003_1.png: has no mask in",
        "MCUCXR_0099_1.png: this mask has no picture in",
        "x.docx: is not a picture",
        "has the same stem",
    ):
        assert sentence in str(caught.value)


def test_a_montgomery_copy_without_one_folder_of_masks_is_refused(
    tmp_path: Path, save_image: Maker, save_mask: Maker
) -> None:
    save_image(tmp_path / "s/CXR_png/MCUCXR_0001_0.png")
    save_mask(tmp_path / "s/ManualMask/leftMask/MCUCXR_0001_0.png")

    with pytest.raises(DataError, match="rightMask: this folder of masks is missing"):
        prepare_dataset("montgomery", tmp_path / "s", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("MCUCXR_0001_0", "normal"), ("mcucxr_0104_1", "tuberculosis"), ("MCUCXR_0001_2", None), ("CHNCXR_0001_0", None)],
)
def test_the_class_of_a_montgomery_radiograph_is_in_its_name(name: str, expected: str | None) -> None:
    assert montgomery_class(name) == expected


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

    with pytest.raises(DataError) as caught:
        prepare_dataset("monuseg", source, tmp_path / "out")

    for sentence in (
        "has 6 problems",
        f"{first.stem}.tif: has no annotations; expected",
        "lonely.xml: these annotations have no picture",
        f"{second.name}: cannot be read as XML",
        f"{third.stem}.png: 2 pictures have this stem",
        f"{fourth.stem}.tif: is not a picture",
        "x.docx: is neither a picture nor annotations",
    ):
        assert sentence in str(caught.value)


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
