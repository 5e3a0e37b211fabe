"""What the tests of the pipeline share."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from support.dicom_files import as_bytes, image_dataset, pattern


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk, in tests of many inputs that end no process."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """DICOM files full of what names a patient, which also make pydicom warn, in files that do so too."""
    folder = tmp_path / "in" / "SECRET_FOLDER"
    folder.mkdir(parents=True)
    for number, rows in enumerate((18, 20, 22)):
        dataset = image_dataset(pattern(rows, 30))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.777{number}"
        dataset.StudyInstanceUID = dataset.SeriesInstanceUID = "2.25.7779"
        dataset.PatientName, dataset.PatientID = "SECRET^NAME", "4711-0815"
        dataset.SeriesDescription = dataset.StudyDescription = "../../Geheim"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset.add_new(0x00100030, "DA", "1950-01-31")
            dataset.add_new(0x00080020, "DA", "19500131")
            dataset.add_new(0x00080030, "TM", "SECRET TIME")
            data = as_bytes(dataset)
        (folder / f"SECRET_19500131_{number}.dcm").write_bytes(data)
        (folder / f"SECRET_cut_{number}.dcm").write_bytes(data[:-50])
    (folder / "SECRET_text.dcm").write_bytes(b"SECRET")
    (folder / "SECRET_link.dcm").symlink_to(tmp_path / "SECRET_nowhere")
    return tmp_path
