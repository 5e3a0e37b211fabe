"""Masks and probabilities on the pixels of the source: PNG and NIfTI, judged by Pillow and nibabel."""

from __future__ import annotations

import hashlib
import json

import nibabel
import numpy as np
import pytest
from PIL import Image, ImageOps

from msrf_monai.clinical.artefacts import grid_affine
from msrf_monai.clinical.outputs import OutputOptions, write_outputs
from msrf_monai.clinical.reading import open_case, open_folder
from msrf_monai.clinical.writing import DicomSource, affine_of
from msrf_monai.errors import StorageError
from support.clinical_cases import array_case, prediction_of
from support.dicom_writing import POLYP, PRODUCER, VESSEL, blobs


def written(case, prediction, folder, *kinds, segments=(POLYP,)):
    done = write_outputs(
        case,
        prediction,
        folder=folder,
        predictor_identity=PRODUCER,
        segments=segments,
        options=OutputOptions(kinds, thumbnail=False),
    )
    return {each.kind: each for each in done}


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_a_mask_lies_on_the_stored_pixels_of_a_turned_picture(tmp_path, orientation):
    stored = np.zeros((13, 21, 3), np.uint8)
    stored[2:5, 3:11] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    case = open_case(tmp_path / "a.png")
    upright = np.array(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))

    done = written(case, prediction_of(upright[None, ..., 0] > 0, classes=1), tmp_path / "out", "mask", "prob")

    mask = np.array(Image.open(tmp_path / "out" / done["mask"].path))
    np.testing.assert_array_equal(mask, stored[..., 0])
    probability = np.array(Image.open(tmp_path / "out" / done["prob"].path))
    np.testing.assert_array_equal(probability, np.where(stored[..., 0] > 0, round(0.75 * 65535), round(0.125 * 65535)))


def test_several_classes_are_numbers_and_each_has_its_probabilities(tmp_path):
    mask = blobs(1, 13, 21, 2)
    case = array_case(np.zeros((1, 13, 21), np.uint8))

    written(case, prediction_of(mask, classes=2), tmp_path, "mask", "prob", "stats", segments=(POLYP, VESSEL))

    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "mask.png")), mask[0])
    for number in (1, 2):
        probability = np.array(Image.open(tmp_path / f"prob_{number}.png"))
        np.testing.assert_array_equal(probability > 32768, mask[0] == number)
    assert json.loads((tmp_path / "stats.json").read_text())["mask_values"] == {"0": 0, "1": 1, "2": 2}


def test_several_frames_are_one_nifti_file_under_both_names(tmp_path):
    mask = blobs(3, 13, 21)
    case = array_case(np.zeros((3, 13, 21), np.uint8), kind="dicom", spacing_mm=(0.5, 0.25))

    done = written(case, prediction_of(mask, classes=1), tmp_path, "mask", "nifti", "prob")

    assert done["mask"].path == done["nifti"].path == "mask.nii.gz"
    image = nibabel.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), mask)
    np.testing.assert_allclose(np.linalg.norm(image.affine[:3, :3], axis=0), [0.25, 0.5, 1])
    maps = np.asarray(nibabel.load(tmp_path / "prob.nii.gz").dataobj)
    assert maps.dtype == np.float32
    np.testing.assert_array_equal(maps.transpose(2, 1, 0), np.where(mask > 0, 0.75, 0.125))


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 4), (6, 5, 4, 1)], ids=["2d", "one", "3d", "4d"])
def test_a_nifti_mask_has_the_shape_and_the_place_of_its_source(tmp_path, shape):
    affine = np.array([[0.5, 0.1, 0, 7], [-0.1, 0.75, 0.2, -8], [0, -0.2, 3, 9], [0, 0, 0, 1.0]])
    voxels = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "a.nii.gz")
    case = open_case(tmp_path / "a.nii.gz")
    limit = float(np.median(voxels))
    mask = np.stack([frame > limit for frame in case.iter_frames()])

    written(case, prediction_of(mask, classes=1), tmp_path / "out", "mask", "prob")

    made = nibabel.load(tmp_path / "out" / "mask.nii.gz")
    assert made.shape == shape
    np.testing.assert_allclose(made.affine, affine, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(made.dataobj), voxels > limit)
    maps = np.asarray(nibabel.load(tmp_path / "out" / "prob.nii.gz").dataobj)
    np.testing.assert_array_equal(maps > 0.5, voxels > limit)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["ct_series", "mr_oblique", "series/sagittal", "series/oblique"])
def test_a_volume_lies_where_its_headers_put_it(data_root, name):
    (case,) = open_folder(data_root / "dicom_samples" / name).cases

    np.testing.assert_allclose(grid_affine(case.info), affine_of(DicomSource.of_case(case)), atol=1e-3)


@pytest.mark.parametrize(
    "positions", [None, ((0, 0, 0), (0, 0, 0), (0, 0, 0)), ((0, 0, 0), (0, 0, 1), (0, 0, 5))], ids=str
)
def test_frames_that_lie_nowhere_or_unevenly_lie_on_their_own_pixels(positions):
    case = array_case(
        np.zeros((3, 4, 5), np.uint8),
        kind="dicom",
        spacing_mm=(0.5, 0.25),
        orientation=((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
        positions_mm=positions,
    )

    np.testing.assert_array_equal(grid_affine(case.info), np.diag([-0.25, -0.5, 1, 1]))


def test_a_single_frame_with_a_place_keeps_it():
    case = array_case(
        np.zeros((1, 4, 5), np.uint8),
        kind="dicom",
        spacing_mm=(0.5, 0.25),
        orientation=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
        positions_mm=((10.0, 20.0, 30.0),),
    )

    expected = np.array([[-0.25, 0, 0, -10], [0, -0.5, 0, -20], [0, 0, 1, 30], [0, 0, 0, 1.0]])
    np.testing.assert_array_equal(grid_affine(case.info), expected)


def test_what_is_returned_is_what_lies_on_the_disk_and_no_more(tmp_path):
    case = array_case(np.zeros((1, 13, 21), np.uint8))

    done = write_outputs(
        case, prediction_of(blobs(1, 13, 21)), folder=tmp_path / "new", predictor_identity=PRODUCER, segments=(POLYP,)
    )

    assert [(each.kind, each.path) for each in done] == [
        ("mask", "mask.png"),
        ("stats", "stats.json"),
        ("thumbnail", "thumbnail.png"),
    ]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {each.path for each in done}
    for each in done:
        content = (tmp_path / "new" / each.path).read_bytes()
        assert (each.sha256, each.size) == (hashlib.sha256(content).hexdigest(), len(content))


def test_without_a_thumbnail_no_pixel_of_the_source_is_written(tmp_path):
    case = array_case(np.zeros((1, 13, 21), np.uint8))

    write_outputs(
        case,
        prediction_of(blobs(1, 13, 21)),
        folder=tmp_path,
        predictor_identity=PRODUCER,
        segments=(POLYP,),
        options=OutputOptions(thumbnail=False),
    )

    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.png", "stats.json"]


def test_statistics_name_the_model_the_input_and_what_was_asked_in_vain(tmp_path):
    case = array_case(np.zeros((1, 13, 21), np.uint8))

    written(case, prediction_of(blobs(1, 13, 21)), tmp_path, "stats", "prob")

    record = json.loads((tmp_path / "stats.json").read_text())
    assert record["model"]["digest"] == PRODUCER.model_digest
    assert record["input_sha256"] == case.digest
    assert [each["kind"] for each in record["skipped"]] == ["prob"]
    assert record["mask_values"] == {"0": 0, "1": 255}


@pytest.mark.parametrize("kind", ["stats", "prob"])
def test_files_that_came_back_changed_are_not_kept(tmp_path, monkeypatch, kind):
    damage = {"stats": b'{"a": 1}', "prob": b"x"}[kind]
    monkeypatch.setattr("msrf_monai.clinical.writing.store._read_all", lambda _: damage)
    case = array_case(np.zeros((3, 13, 21), np.uint8), stored_shape=(21, 13, 3, 1), kind="nifti")

    with pytest.raises(StorageError, match="not kept"):
        written(case, prediction_of(blobs(3, 13, 21), classes=1), tmp_path, kind)

    assert list(tmp_path.iterdir()) == []
