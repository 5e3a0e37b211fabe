"""Measures beside the masks: names, fields of view, spacing, and a table that is whole at every moment."""

from __future__ import annotations

import csv
import json
import multiprocessing
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImaged
from PIL import Image

from msrf_monai.errors import ConfigError, InputError, StorageError
from msrf_monai.transforms import LoadImage2Dd, SaveMaskd, SaveVesselMeasuresd
from msrf_monai.transforms.vessel_measures import add_row, stated_spacing_um
from msrf_monai.vessel_measures import MEASURES, vessel_measures


def _mask() -> torch.Tensor:
    """A level bar of 4 x 30 pixels in a picture of 50 x 20 (W x H)."""
    mask = torch.zeros(1, 50, 20, dtype=torch.uint8)
    mask[0, 10:40, 8:12] = 1
    return mask


def _item(root: Path, name: str = "eye.png", *, mask: torch.Tensor | None = None, fov: Any = None) -> dict[str, Any]:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        Image.new("RGB", (50, 20)).save(path)
    image = LoadImage2Dd("image")({"image": str(path)})["image"]
    item = {"image": image, "pred": MetaTensor(_mask() if mask is None else mask, meta=image.meta)}
    return item if fov is None else {**item, "fov": fov}


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "measures.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_the_file_lies_beside_the_mask_with_the_same_name(tmp_path: Path) -> None:
    out = tmp_path / "out"
    item = _item(tmp_path / "in", "left/eye.png")
    item = SaveVesselMeasuresd("pred", out, data_root_dir=tmp_path / "in")(item)
    SaveMaskd("pred", out, data_root_dir=tmp_path / "in")(item)

    assert sorted(path.name for path in (out / "left").iterdir()) == ["eye_measures.json", "eye_seg.png"]
    assert torch.equal(item["pred"].as_tensor(), _mask())


def test_the_measures_are_those_of_the_upright_mask_in_its_field_of_view(tmp_path: Path) -> None:
    fov = torch.zeros(1, 50, 20)
    fov[:, :, :15] = 1  # columns first: the upper 15 rows
    SaveVesselMeasuresd("pred", tmp_path / "out")(_item(tmp_path, fov=fov))

    (path,) = (tmp_path / "out").glob("*_measures.json")
    found = _json(path)
    expected = vessel_measures(_mask()[0].T.numpy(), fov[0].T.numpy()).as_dict()
    assert found["measures"] == pytest.approx({name: expected[name] for name in MEASURES})
    assert found["measures"]["fov_area_px"] == 50 * 15
    assert found["region"] == "field of view"
    assert found["file"] == "eye.png"
    (row,) = _rows(tmp_path / "out")
    assert row["measures"] == path.name
    assert float(row["mean_calibre_px"]) == pytest.approx(expected["mean_calibre_px"])
    assert row["mean_calibre_um"] == ""
    assert "not known" in row["reasons"]


def test_without_a_field_of_view_the_file_says_so(tmp_path: Path) -> None:
    SaveVesselMeasuresd("pred", tmp_path / "out")(_item(tmp_path))
    (path,) = (tmp_path / "out").glob("*_measures.json")
    assert _json(path)["region"] == "whole image: no field of view was given"
    assert _json(path)["measures"]["vessel_density"] == pytest.approx(120 / 1000)


def test_an_empty_mask_is_written_with_nulls_and_reasons(tmp_path: Path) -> None:
    SaveVesselMeasuresd("pred", tmp_path / "out")(_item(tmp_path, mask=torch.zeros(1, 50, 20)))
    (path,) = (tmp_path / "out").glob("*_measures.json")
    found = _json(path)
    assert found["measures"]["mean_calibre_px"] is None
    assert found["measures"]["vessel_density"] == 0
    assert "no vessel pixel" in found["reasons"]["mean_calibre_px"]
    assert _rows(tmp_path / "out")[0]["mean_calibre_px"] == ""


def test_a_second_run_replaces_rows_and_adds_others(tmp_path: Path) -> None:
    save = SaveVesselMeasuresd("pred", tmp_path / "out", data_root_dir=tmp_path / "in")
    for name in ("1.png", "11.png", "a,b.png"):
        save(_item(tmp_path / "in", name))
    save(_item(tmp_path / "in", "1.png", mask=torch.zeros(1, 50, 20)))
    SaveVesselMeasuresd("pred", tmp_path / "out", data_root_dir=tmp_path / "in")(_item(tmp_path / "in", "a,b.png"))

    found = {row["measures"]: row["vessel_area_px"] for row in _rows(tmp_path / "out")}
    assert found == {"11_measures.json": "120", "1_measures.json": "0", "a,b_measures.json": "120"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [*sorted(found), "measures.csv"]


def test_no_table_is_written_when_none_is_wanted(tmp_path: Path) -> None:
    SaveVesselMeasuresd("pred", tmp_path / "out", table=None)(_item(tmp_path))
    assert [path.suffix for path in (tmp_path / "out").iterdir()] == [".json"]


def test_a_given_spacing_counts(tmp_path: Path) -> None:
    for number, spacing in enumerate((5, (5.0, 5.0))):
        SaveVesselMeasuresd("pred", tmp_path / f"{number}", spacing_um=spacing)(_item(tmp_path))
        (row,) = _rows(tmp_path / f"{number}")
        assert float(row["mean_calibre_um"]) == pytest.approx(5 * float(row["mean_calibre_px"]))
        assert row["pixel_width_um"] == "5.0"


@pytest.mark.parametrize("spacing", [0, (1.0, -1.0), (1.0,), float("nan")])
def test_a_spacing_that_cannot_be_is_refused(spacing: Any) -> None:
    with pytest.raises(ConfigError, match="spacing_um is"):
        SaveVesselMeasuresd("pred", spacing_um=spacing)


def _nifti(tmp_path: Path, width_mm: float, height_mm: float) -> Path:
    path = tmp_path / "eye.nii.gz"
    nibabel.Nifti1Image(np.zeros((50, 20), np.uint8), np.diag([width_mm, height_mm, 1, 1])).to_filename(path)
    return path


def test_the_spacing_of_a_nifti_file_counts(tmp_path: Path) -> None:
    image = LoadImage2Dd("image")({"image": str(_nifti(tmp_path, 0.005, 0.02))})["image"]
    SaveVesselMeasuresd("pred", tmp_path / "out")({"image": image, "pred": _mask()})
    (row,) = _rows(tmp_path / "out")
    assert float(row["pixel_width_um"]) == pytest.approx(5)
    assert float(row["pixel_height_um"]) == pytest.approx(20)
    assert 60 < float(row["mean_calibre_um"]) <= 80.01  # 4 rows of 20 µm, less at the ends of so short a bar


def test_no_spacing_is_invented(tmp_path: Path) -> None:
    unit = LoadImage2Dd("image")({"image": str(_nifti(tmp_path, 1, 1))})["image"]
    assert stated_spacing_um(unit.meta, (20, 50)) is None
    assert stated_spacing_um(_item(tmp_path)["image"].meta, (20, 50)) is None
    other = LoadImage2Dd("image")({"image": str(_nifti(tmp_path, 0.005, 0.005))})["image"]
    assert stated_spacing_um(other.meta, (20, 50)) == pytest.approx((5, 5))
    assert stated_spacing_um(other.meta, (10, 25)) is None  # of another size than the file
    assert stated_spacing_um({**other.meta, "original_affine": np.diag([0, 0.1, 1, 1])}, (20, 50)) is None


def test_what_is_no_mask_is_refused(tmp_path: Path) -> None:
    save = SaveVesselMeasuresd("pred", tmp_path / "out")
    with pytest.raises(InputError, match="pred has 2 planes"):
        save(_item(tmp_path, mask=torch.zeros(2, 50, 20)))
    with pytest.raises(InputError, match="fov has shape"):
        save(_item(tmp_path, fov=torch.ones(1, 20, 50)))
    with pytest.raises(InputError, match="decided mask"):
        save(_item(tmp_path, mask=torch.full((1, 50, 20), 0.3)))


def test_keys_and_metadata_work_as_for_masks(tmp_path: Path) -> None:
    save = SaveVesselMeasuresd(["pred", "other"], tmp_path / "out", allow_missing_keys=True)
    assert isinstance(save, SaveImaged)  # by which MONAI Label removes it
    item = _item(tmp_path)
    save({"image": item["image"], "pred": _mask()})
    assert len(list((tmp_path / "out").glob("eye-*_measures.json"))) == 1
    SaveVesselMeasuresd("pred", tmp_path / "alone", fov_key=None, image_key=None)({"pred": _mask()})
    assert len(list((tmp_path / "alone").glob("00000*_measures.json"))) == 1
    with pytest.raises(KeyError):
        SaveVesselMeasuresd("what", tmp_path)(item)


COLUMNS = ("name", "value")


def test_what_a_power_cut_left_of_a_row_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    add_row(path, COLUMNS, {"name": "a", "value": 1})
    with path.open("a") as handle:
        handle.write("b,0.123")
    add_row(path, COLUMNS, {"name": "c", "value": None})
    assert path.read_text() == "name,value\na,1\nc,\n"


def test_a_row_that_cannot_be_written_leaves_the_table_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.csv"
    add_row(path, COLUMNS, {"name": "a", "value": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("msrf_monai.transforms.vessel_measures.os.fsync", full)
    with pytest.raises(StorageError, match="No space left on device; nothing was added"):
        add_row(path, COLUMNS, {"name": "b", "value": 2})
    assert path.read_text() == "name,value\na,1\n"


def test_other_tables_and_folders_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("other,columns\n")
    with pytest.raises(StorageError, match="is a table of other columns"):
        add_row(path, COLUMNS, {"name": "a", "value": 1})
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StorageError, match="cannot add a row"):
        add_row(path, COLUMNS, {"name": "a", "value": 1})
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write into"):
        add_row(tmp_path / "file" / "t.csv", COLUMNS, {"name": "a", "value": 1})


def _add_many(path: Path, letter: str) -> None:
    for number in range(25):
        add_row(path, COLUMNS, {"name": f"{letter}{number}", "value": number})


def test_processes_that_share_a_table_lose_no_row(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_add_many, args=(path, letter)) for letter in "xyz"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    with path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert sorted(row["name"] for row in rows) == sorted(
        f"{letter}{number}" for letter in "xyz" for number in range(25)
    )
