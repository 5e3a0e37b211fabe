"""PhysioNet ICH, PROMISE12 and Montgomery in copies of their official layouts, and everything wrong in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msrf_monai.data import load_datalist, prepare_dataset, verify_dataset
from msrf_monai.data.radiology import montgomery_class
from msrf_monai.errors import DataError, InputError
from msrf_monai.transforms import LoadImage2Dd, LoadMask2Dd
from support.prepared_sets import all_items, check_refused, datalist, has, torn
from support.volume_files import SHAPE, mask_values, save_dicom_series, save_mhd, save_nifti, scan_values

Maker = Callable[..., Path]


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

    sentences = (
        "has 7 problems",
        "049.nii: has no mask; expected",
        "050.nii: cannot be read as NIfTI",
        "masks/052.nii: is not a binary mask",
        "masks/053.nii: is 6 x 5 x 5 voxels; expected 6 x 5 x 4, the size of 053.nii",
        "masks/099.nii: this mask has no volume in",
        "055.nii.gz: 055.nii has the same name",
        "table.docx: is no volume (.docx)",
    )
    check_refused("physionet_ich", source, tmp_path / "out", sentences)
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
    sentences = (
        "Case02.raw: is no volume (.raw), nor the data of one",
        "Case02_segmentation.mhd: this mask has no volume",
    )
    check_refused("promise12", source, tmp_path / "other", sentences)


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
    sentences = (
        "MCUCXR_0003_1.png: has no mask in",
        "MCUCXR_0099_1.png: this mask has no picture in",
        "x.docx: is not a picture",
        "has the same stem",
    )
    check_refused("montgomery", tmp_path / "s", tmp_path / "other", sentences)


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
