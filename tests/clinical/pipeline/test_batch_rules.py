"""Series rules: which DICOM images are taken, with reasons that name attributes and never their values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from msrf_monai.clinical.inputs import InputOptions, plan_inputs
from msrf_monai.clinical.series_rules import SeriesRules
from msrf_monai.errors import ConfigError
from support.dicom_files import as_bytes, image_dataset, pattern


def rules(*conditions: Any, **more: Any) -> SeriesRules:
    return SeriesRules.from_json({"selections": [{"name": "S", "conditions": each, **more} for each in conditions]})


def header(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for name, value in {"Modality": "CT", **attributes}.items():
        setattr(dataset, name, value)
    return dataset


@pytest.mark.parametrize(
    ("condition", "attributes", "holds"),
    [
        ({"Modality": "CT"}, {}, True),
        ({"Modality": "ct"}, {}, True),
        ({"Modality": "MR"}, {}, False),
        ({"SeriesDescription": "abdomen|liver"}, {"SeriesDescription": "Liver 2.0"}, True),
        ({"SeriesDescription": "^liver"}, {"SeriesDescription": "thin liver"}, False),
        ({"SeriesDescription": "a.c"}, {}, False),
        ({"SliceThickness": 2}, {"SliceThickness": "2.0"}, True),
        ({"SliceThickness": [0.5, 2]}, {"SliceThickness": "2.0"}, True),
        ({"SliceThickness": [0.5, 2]}, {"SliceThickness": "2.5"}, False),
        ({"SliceThickness": [0.5, 2]}, {}, False),
        ({"PixelSpacing": [0.5, 2]}, {"PixelSpacing": ["0.7", "0.7"]}, True),
        ({"PixelSpacing": [0.5, 2]}, {"PixelSpacing": ["0.7", "3"]}, False),
        ({"ImageType": ["PRIMARY", "ORIGINAL"]}, {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}, True),
        ({"ImageType": ["PRIMARY", "^LOCAL"]}, {"ImageType": ["ORIGINAL", "PRIMARY"]}, False),
        ({"ImageType": "LOCALIZER"}, {"ImageType": ["ORIGINAL", "LOCALIZER"]}, True),
        ({"PatientName": "doe"}, {"PatientName": "Doe^John"}, True),
        ({"Modality": "CT", "SliceThickness": 1}, {"SliceThickness": 2}, False),
        ({"SeriesDescription": [1, 2]}, {"SeriesDescription": "no number"}, False),
    ],
)  # fmt: skip
def test_conditions_hold_as_described(condition: Any, attributes: Any, holds: bool) -> None:
    assert bool(rules(condition).choose(header(**attributes)).selection) is holds


def test_the_first_selection_that_holds_chooses() -> None:
    found = SeriesRules.from_json(
        {"selections": [{"conditions": {"Modality": "MR"}}, {"name": "any", "conditions": {"Modality": "."}}]}
    )

    assert found.choose(header()).selection == "any"


def test_reasons_name_attributes_and_no_values() -> None:
    found = SeriesRules.from_json(
        {
            "selections": [
                {"name": "thin", "conditions": {"Modality": "CT", "PatientName": "smith"}},
                {"name": "mr", "conditions": {"Modality": "MR"}},
            ]
        }
    )

    choice = found.choose(header(PatientName="DOE^JOHN"))

    assert choice.explanation == "no selection holds: 'thin' fails at PatientName; 'mr' fails at Modality"
    assert rules({"Modality": "CT"}).choose(header()).explanation == "selection 'S' holds: Modality"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "series rules are"),
        ({"selections": []}, "series rules are"),
        ({"selections": [1]}, "selection 1 holds name"),
        ({"selections": [{"conditions": {}}]}, "at least one attribute"),
        ({"selections": [{"conditions": {"Modality": "CT"}, "sort": 1}]}, "selection 1 holds name"),
        ({"selections": [{"conditions": {"Modality": "CT"}, "keep": "some"}]}, "'all' or 'largest'"),
        ({"selections": [{"conditions": {"Modality": "CT"}, "name": "\n"}]}, "printable"),
        ({"selections": [{"conditions": {"Modalitie": "CT"}}]}, "no DICOM keyword"),
        ({"selections": [{"conditions": {"Modality": "("}}]}, "no regular expression"),
        ({"selections": [{"conditions": {"SliceThickness": [2, 1]}}]}, "two numbers"),
        ({"selections": [{"conditions": {"SliceThickness": True}}]}, "two numbers"),
        ({"selections": [{"name": "a", "conditions": {"Modality": "CT"}}] * 2}, "must differ"),
    ],
)
def test_rules_that_say_nothing_are_refused(content: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SeriesRules.from_json(content)


def test_rules_come_from_a_file_and_have_a_digest_of_their_meaning(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    content = {"selections": [{"name": "S", "conditions": {"Modality": "CT"}}]}
    path.write_text(json.dumps(content, indent=8))

    assert SeriesRules.from_file(path).digest == rules({"Modality": "CT"}).digest != rules({"Modality": "MR"}).digest
    path.write_text("{")
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        SeriesRules.from_file(path)


def study(folder: Path) -> Path:
    """Two single CT slices of different series, an ultrasound clip of three frames, and a picture."""
    folder.mkdir()
    for number, (modality, frames) in enumerate((("CT", 1), ("CT", 1), ("US", 3), ("US", 1))):
        pixels = pattern(6, 8)[None].repeat(frames, 0) if frames > 1 else pattern(6, 8)
        dataset = image_dataset(pixels, Modality=modality, SeriesDescription=f"scan {number}")
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}"
        dataset.SeriesInstanceUID = f"2.25.10{number}"
        (folder / f"{number}.dcm").write_bytes(as_bytes(dataset))
    return folder


def test_rules_choose_among_dicom_inputs_and_say_why(tmp_path: Path) -> None:
    planned = plan_inputs([study(tmp_path / "in")], InputOptions(rules=rules({"SeriesDescription": "scan [02]"})))

    assert [each.skipped[0] if each.skipped else "" for each in planned] == ["", "not_selected", "", "not_selected"]
    assert [each.flags for each in planned if not each.skipped] == [
        ("rule:selection 'S' holds: SeriesDescription",)
    ] * 2
    assert "fails at SeriesDescription" in (planned[1].skipped or ("", ""))[1]


def test_the_largest_of_a_study_is_kept_when_asked_for(tmp_path: Path) -> None:
    planned = plan_inputs([study(tmp_path / "in")], InputOptions(rules=rules({"Modality": "US"}, keep="largest")))

    taken = [each for each in planned if not each.skipped]
    assert [each.frames for each in taken] == [3]
    reasons = [each.skipped[1] for each in planned if each.skipped]
    assert sum("keeps only the largest of the 2" in reason for reason in reasons) == 1


@pytest.mark.realdata
def test_samples_of_one_study_are_told_apart_by_their_modality(data_root: Path) -> None:
    folder = data_root / "dicom_samples"
    inputs = [folder / "ct_series", folder / "us_gray.dcm", folder / "fundus_op8.dcm"]

    planned = plan_inputs(inputs, InputOptions(rules=rules({"Modality": "^(CT|OP)$"})))

    assert sorted(each.case.info.modality for each in planned if each.case and not each.skipped) == ["CT", "OP"]
    assert [each.skipped[0] for each in planned if each.skipped] == ["not_selected"]
