"""Names and codes of segments that go into DICOM segmentations, and what is handed over to dcmqi."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

from msrf_monai.errors import DataError
from msrf_monai.label.segment_names import described_segments
from support.bundle_runs import BUNDLES
from support.real_data import REPOSITORY


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app's folder with all of our bundles' metadata."""
    root = tmp_path_factory.mktemp("app")
    for bundle in BUNDLES:
        target = root / "model" / bundle.folder_name / "configs"
        target.mkdir(parents=True)
        (target / "metadata.json").write_bytes((bundle.configs / "metadata.json").read_bytes())
    return root


def template(*names: str, code: str = "78961009", series: str = "AIName") -> dict:
    """What MONAI Label fills in: its guess at a code for every segment."""
    category = {"CodeValue": "123037004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Anatomical Structure"}
    items = [
        {
            "labelID": 2 * number + 1,
            "SegmentLabel": name,
            "SegmentedPropertyCategoryCodeSequence": category,
            "SegmentedPropertyTypeCodeSequence": {**category, "CodeValue": code, "CodeMeaning": name},
            "recommendedDisplayRGBValue": [9, 8, 7],
        }
        for number, name in enumerate(names)
    ]
    return {"SeriesDescription": series, "segmentAttributes": [items]}


@pytest.mark.parametrize(("label", "code"), [("polyp", "68496003"), ("Vessel", "59820001")])
def test_a_label_that_one_bundle_knows_gets_its_code_and_names_the_bundle(app, label, code):
    numbers, (segment,), model = described_segments(template(label), app)

    assert numbers == (1,)
    assert (segment.kind.value, segment.kind.scheme, segment.number) == (code, "SCT", 1)
    assert model.name != "MONAI Label"
    assert model.version == "0.1.0"


def test_a_label_of_two_bundles_is_tissue_unless_the_bundle_is_named(app):
    _, (unknown,), model = described_segments(template("lesion"), app)
    _, (known,), named = described_segments(template("lesion", series="ssr_unet_skin_lesion_segmentation"), app)

    assert (unknown.kind.meaning, unknown.label, model.name) == ("Tissue", "lesion", "MONAI Label")
    assert known.kind.meaning != "Tissue"
    assert "skin" in named.name.lower()


def test_several_segments_are_numbered_without_gaps(app):
    numbers, segments, _ = described_segments(template("polyp", "vessel", "drawn by hand"), app)

    assert numbers == (1, 3, 5)
    assert [(segment.number, segment.label) for segment in segments] == [
        (1, "polyp"),
        (2, "vessel"),
        (3, "drawn by hand"),
    ]


def test_a_code_that_the_client_chose_is_kept(app):
    _, (segment,), _ = described_segments(template("polyp", code="4242"), app)

    assert segment.kind.value == "4242"
    assert segment.colour == (9, 8, 7)


def test_names_become_what_dicom_takes():
    _, (segment, nameless), model = described_segments(template("Läsion\\n", "é", series="Modell ä"), None)

    assert segment.label.isascii()
    assert "\\" not in segment.label
    assert nameless.label == "segment 2"
    assert model.name == "Modell"


def test_a_description_without_segments_is_refused():
    with pytest.raises(DataError, match="names none"):
        described_segments({"segmentAttributes": []}, None)


def call(folder: Path, app: Path, path: str) -> subprocess.CompletedProcess[str]:
    """Call our program as MONAI Label does."""
    words = ["--inputImageList", "mask.nii.gz", "--inputDICOMDirectory", str(folder)]
    words += ["--outputDICOM", str(app / "seg.dcm"), "--inputMetadata", "meta.json"]
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), "MSRF_LABEL_APP": str(app), "PATH": path}
    command = [sys.executable, "-m", "msrf_monai.label.segimage", *words]
    return subprocess.run(command, capture_output=True, text=True, env=variables, check=False)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "series"
    folder.mkdir()
    for name in ("1.dcm", "2.dcm"):
        (folder / name).touch()
    return folder


def test_a_volume_goes_to_the_next_program_of_that_name_without_our_libraries(tmp_path, volume):
    for place, says in ((tmp_path / "app" / "bin", "ours"), (tmp_path / "dcmqi", "theirs")):
        place.mkdir(parents=True)
        program = place / "itkimage2segimage"
        program.write_text(f'#!/bin/sh\necho "{says} [$PYTHONPATH] $#"\nexit 7\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    path = os.pathsep.join([str(tmp_path / "app" / "bin"), str(tmp_path / "dcmqi"), os.environ["PATH"]])

    done = call(volume, tmp_path / "app", path)

    assert done.stdout.strip() == "theirs [] 8"
    assert done.returncode == 7


def test_a_volume_without_dcmqi_is_told(tmp_path, volume):
    done = call(volume, tmp_path, str(tmp_path))

    assert done.returncode == 1
    assert "itkimage2segimage is not on the PATH" in done.stdout


def test_an_image_that_nothing_can_refer_to_is_told_without_its_names(tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    header = pydicom.Dataset()
    header.PatientName, header.SOPInstanceUID = "Doe^Jane", "1.2.3"
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    pydicom.dcmwrite(folder / "1.dcm", header, enforce_file_format=False, implicit_vr=False, little_endian=True)

    done = call(folder, tmp_path, os.environ["PATH"])

    assert done.returncode == 1
    assert "error: " in done.stdout
    assert "Doe" not in done.stdout + done.stderr
