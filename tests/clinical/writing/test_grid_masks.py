"""PNG and NIfTI masks on the pixels of their source, judged by Pillow, nibabel and dcmqi."""

from __future__ import annotations

import gzip
import io

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image, ImageOps

from msrf_monai.clinical.writing import (
    DicomSource,
    Identity,
    affine_of,
    as_stored,
    build_segmentation,
    check_nifti,
    check_png,
    encode,
    encode_nifti,
    encode_png_mask,
)
from msrf_monai.errors import InputError, StorageError
from support.dicom_writing import POLYP, PRODUCER, blobs, clip, dcmqi_planes, photo, slices


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_is_turned_back_to_the_stored_pixels(orientation):
    stored = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7)
    picture = Image.fromarray(stored)
    picture.getexif()[0x0112] = orientation
    upright = np.array(ImageOps.exif_transpose(picture))

    np.testing.assert_array_equal(as_stored(upright, orientation), stored)


def test_a_png_mask_holds_the_class_numbers():
    mask = blobs(1, 13, 21, 2)[0]

    content = encode_png_mask(mask)

    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(content))), mask)
    check_png(content, mask)


@pytest.mark.parametrize("content", [b"", b"no picture", encode_png_mask(np.ones((13, 21), np.uint8))])
def test_a_png_that_came_back_changed_is_refused(content):
    with pytest.raises(StorageError, match="not kept"):
        check_png(content, np.zeros((13, 21), np.uint8))


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["ct_series", "mr_oblique", "us_gray", "derm_photo"])
def test_nifti_lies_where_dcmqi_puts_the_segmentation(data_root, tmp_path, name):
    pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'msrf-monai[clinical]'")
    folder = data_root / "dicom_samples"
    paths = list((folder / name).iterdir()) if (folder / name).is_dir() else [folder / f"{name}.dcm"]
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    headers.sort(key=lambda header: float(np.dot(_normal(header), header.get("ImagePositionPatient", [0, 0, 0]))))
    source = DicomSource.of_headers(headers)
    mask = np.ones((source.frames, source.rows, source.columns), np.uint8)
    mask[0, :20, :30] = 0
    (tmp_path / "seg.dcm").write_bytes(
        encode(build_segmentation(source, mask, (POLYP,), Identity.repeatable(PRODUCER)))
    )

    ours = nibabel.Nifti1Image.from_bytes(gzip.decompress(encode_nifti(mask, affine_of(source))))
    theirs, affine = dcmqi_planes(tmp_path / "seg.dcm", tmp_path / "dcmqi", fractional=False)

    np.testing.assert_allclose(ours.affine[:, :2], affine[:, :2], atol=1e-4)
    if np.dot(ours.affine[:3, 2], affine[:3, 2]) < 0:  # dcmqi may count the slices from the other end
        affine = affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, len(mask) - 1], [0, 0, 0, 1.0]])
        theirs[1] = theirs[1][:, :, ::-1]
    np.testing.assert_allclose(ours.affine, affine, atol=1e-3)
    np.testing.assert_array_equal(np.asarray(ours.dataobj), theirs[1])


def _normal(header) -> np.ndarray:
    orientation = np.array(header.get("ImageOrientationPatient", [1, 0, 0, 0, 1, 0]), dtype=float)
    return np.cross(orientation[:3], orientation[3:])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_nifti_comes_back_and_is_the_same_each_time(dtype):
    frames = blobs(4, 13, 21).astype(dtype)
    affine = affine_of(DicomSource.of_headers(slices()))

    contents = {encode_nifti(frames, affine) for _ in range(2)}

    assert len(contents) == 1
    check_nifti(contents.pop(), frames, affine)


def test_gantry_tilt_is_kept_as_a_shear():
    headers = slices()
    for index, header in enumerate(headers):
        header.ImagePositionPatient = [-10, -20 + 0.7 * index, 3.0 * index]
    affine = affine_of(DicomSource.of_headers(headers))

    check_nifti(encode_nifti(blobs(4, 13, 21), affine), blobs(4, 13, 21), affine)

    np.testing.assert_allclose(affine[:3, 2], [0, -0.7, 3.0])


def test_pictures_and_clips_lie_on_their_own_pixels():
    np.testing.assert_array_equal(affine_of(), np.diag([-1.0, -1.0, 1.0, 1.0]))
    np.testing.assert_array_equal(affine_of(DicomSource.of_headers([clip()])), np.diag([-1.0, -1.0, 1.0, 1.0]))
    np.testing.assert_array_equal(affine_of(DicomSource.of_headers([photo()])), np.diag([-1.0, -1.0, 1.0, 1.0]))


def test_slices_at_uneven_distances_are_refused():
    headers = slices()
    headers[1].ImagePositionPatient = [-10, -20, 4.0]

    with pytest.raises(InputError, match="not equally far apart"):
        affine_of(DicomSource.of_headers(headers))


@pytest.mark.parametrize(
    "content", [b"", b"nothing", gzip.compress(b"nothing", mtime=0)], ids=["empty", "text", "gzip"]
)
def test_a_nifti_that_cannot_be_read_is_refused(content):
    with pytest.raises(StorageError, match="cannot be read back"):
        check_nifti(content, np.zeros((1, 13, 21), np.uint8), np.eye(4))


def test_a_nifti_at_another_place_is_refused():
    content = encode_nifti(blobs(1, 13, 21), np.eye(4))

    with pytest.raises(StorageError, match="came back changed"):
        check_nifti(content, blobs(1, 13, 21), np.diag([2.0, 1, 1, 1]))


@pytest.mark.parametrize(
    "call",
    [
        lambda: encode_png_mask(np.zeros((1, 13, 21), np.uint8)),
        lambda: encode_nifti(np.zeros((13, 21), np.uint8), np.eye(4)),
        lambda: as_stored(np.zeros((13, 21), np.uint8), 9),
    ],
)
def test_masks_of_another_form_are_refused(call):
    with pytest.raises(InputError):
        call()
