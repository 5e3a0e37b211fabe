"""Grey values of a NIfTI file beside the DICOM series that it was made of, as MONAI Label keeps series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from msrf_monai.errors import DataError
from msrf_monai.transforms import LoadImage2D, to_rows

try:
    from pydicom.pixels import apply_modality_lut, apply_voi_lut
except ImportError:  # pydicom 2
    from pydicom.pixel_data_handlers.util import apply_modality_lut, apply_voi_lut

WIDTH, HEIGHT = 31, 22
UID = "1.2.826.0.1.3680043.8.498.77"


def stored(largest: int) -> np.ndarray:
    """``(H, W)``, from 0 to the largest."""
    return (np.linspace(0, largest, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)).round().astype(np.uint16)


def series(folder: Path, pixels: np.ndarray, bits: int, **tags: Any) -> tuple[Path, FileDataset]:
    """Keep a series of one image as MONAI Label does: a folder with the DICOM file, and NIfTI beside it."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID = UID
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    allocated = 8 if bits <= 8 else 16
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, bits, bits - 1
    dataset.PixelData = pixels.astype(np.uint8 if bits <= 8 else np.uint16).tobytes()
    dataset["PixelData"].VR = "OW"
    for name, value in tags.items():
        setattr(dataset, name, value)
    (folder / UID).mkdir(parents=True)
    dataset.save_as(folder / UID / "1.dcm")
    values = np.asarray(apply_modality_lut(pixels, dataset))
    path = folder / f"{UID}.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values.T[..., None].astype(np.float32), np.eye(4)), path)
    return path, pydicom.dcmread(folder / UID / "1.dcm")


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT"])
def test_a_ct_slice_is_seen_through_its_first_window(tmp_path: Path, function: str) -> None:
    path, dataset = series(
        tmp_path,
        stored(4095),
        12,
        Modality="CT",
        RescaleSlope=1,
        RescaleIntercept=-1024,
        WindowCenter=[40, 300],
        WindowWidth=[400, 1500],
        VOILUTFunction=function,
    )

    image = LoadImage2D(channels=1)(path)

    # pydicom maps the window to the range of the rescaled values
    seen = apply_voi_lut(apply_modality_lut(stored(4095), dataset), dataset, index=0).astype(float)
    expected = (seen - seen.min()) / (seen.max() - seen.min()) * 255
    np.testing.assert_allclose(to_rows(image)[..., 0], expected, atol=0.01)


def test_a_mr_slice_without_a_window_goes_by_percentiles(tmp_path: Path) -> None:
    path, _ = series(tmp_path, stored(900), 12, Modality="MR")

    image = to_rows(LoadImage2D(channels=1)(path))[..., 0]

    low, high = np.percentile(stored(900), [0.5, 99.5])
    np.testing.assert_allclose(image, np.clip((stored(900) - low) / (high - low), 0, 1) * 255, atol=0.001)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_an_x_ray_goes_by_its_bits(tmp_path: Path, photometric: str) -> None:
    # GDCM has turned the values of MONOCHROME1 before they come here
    path, _ = series(tmp_path, stored(3000), 12, Modality="DX", PhotometricInterpretation=photometric)

    image = to_rows(LoadImage2D(channels=1)(path))[..., 0]

    np.testing.assert_allclose(image, stored(3000) / 4095 * 255, atol=0.001)


def test_ultrasound_of_8_bits_stays_as_it_is(tmp_path: Path) -> None:
    path, _ = series(tmp_path, stored(200), 8, Modality="US")

    image = to_rows(LoadImage2D(channels=1)(path))

    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image[..., 0], stored(200))


@pytest.mark.parametrize("wrong", ["series", "no file", "no dicom"])
def test_another_folder_of_that_name_says_nothing(tmp_path: Path, wrong: str) -> None:
    path, dataset = series(tmp_path, stored(4095), 12, Modality="CT", RescaleSlope=1, RescaleIntercept=-1024)
    file = tmp_path / UID / "1.dcm"
    if wrong == "series":
        dataset.SeriesInstanceUID = "1.2.3"
        dataset.save_as(file)
    else:
        file.unlink()
        (tmp_path / UID / "notes.txt").write_text("no DICOM") if wrong == "no dicom" else None

    with pytest.raises(DataError, match="nothing says which one is white"):
        LoadImage2D()(path)
