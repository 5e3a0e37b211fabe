"""Which files an input can have, and what is said of those that it cannot."""

from __future__ import annotations

import numpy as np
import pytest

from msrf_monai.clinical.artefacts import mask_values
from msrf_monai.clinical.outputs import DEFAULT_OUTPUTS, OUTPUTS, OutputOptions, plan_outputs
from msrf_monai.errors import ConfigError
from support.clinical_cases import array_case

DICOM_ONLY = {"seg", "labelmap", "fractional", "sr", "overlay-sc", "pr"}


def info_of(kind, **more):
    return array_case(np.zeros((1, 4, 5), np.uint8), kind=kind, **more).info


@pytest.mark.parametrize("kind", ["dicom", "dicom-volume"])
def test_dicom_can_have_everything(kind):
    plan = plan_outputs(info_of(kind), OutputOptions(OUTPUTS), probabilities=True)

    assert plan.kinds == OUTPUTS
    assert plan.skipped == ()


@pytest.mark.parametrize("kind", ["raster", "nifti", "metaimage"])
def test_other_inputs_can_have_what_refers_to_no_dicom_object(kind):
    plan = plan_outputs(info_of(kind), OutputOptions(OUTPUTS), probabilities=True)

    assert plan.kinds == ("mask", "nifti", "prob", "stats")
    assert {each.kind for each in plan.skipped} == DICOM_ONLY
    assert all("DICOM" in each.reason for each in plan.skipped)


def test_the_default_set_is_for_every_input_so_nothing_of_it_is_reported():
    plan = plan_outputs(info_of("raster"), OutputOptions(), probabilities=False)

    assert set(DEFAULT_OUTPUTS) == {"mask", "seg", "stats"}
    assert plan.kinds == ("mask", "stats")
    assert plan.skipped == ()


def test_who_names_a_kind_hears_that_it_cannot_be():
    plan = plan_outputs(info_of("raster"), OutputOptions(("seg",)), probabilities=False)

    assert plan.kinds == ()
    assert [each.kind for each in plan.skipped] == ["seg"]


def test_what_is_made_of_probabilities_needs_them():
    plan = plan_outputs(info_of("dicom"), OutputOptions(("mask", "fractional", "prob")), probabilities=False)

    assert plan.kinds == ("mask",)
    assert [each.kind for each in plan.skipped] == ["fractional", "prob"]
    assert all("probabilities" in each.reason for each in plan.skipped)


def test_a_report_brings_the_segmentation_that_it_refers_to():
    options = OutputOptions(("sr",))

    assert plan_outputs(info_of("dicom"), options, probabilities=False).kinds == ("seg", "sr")
    assert [each.kind for each in plan_outputs(info_of("raster"), options, probabilities=False).skipped] == ["sr"]


def test_a_slide_is_left_to_the_writer_of_tiles():
    plan = plan_outputs(info_of("slide"), OutputOptions(("mask", "stats")), probabilities=True)

    assert plan.kinds == ()
    assert all("tile by tile" in each.reason for each in plan.skipped)


@pytest.mark.parametrize("outputs", [("mask", "masks"), ()])
def test_unknown_outputs_are_refused_with_the_list(outputs):
    with pytest.raises(ConfigError, match="mask, seg, labelmap, fractional, sr, overlay-sc, pr, nifti, prob, stats"):
        OutputOptions(outputs)


@pytest.mark.parametrize(
    ("kind", "frames", "segments", "values"),
    [
        ("raster", 1, 1, {"0": 0, "1": 255}),
        ("dicom", 1, 1, {"0": 0, "1": 255}),
        ("dicom", 1, 2, {"0": 0, "1": 1, "2": 2}),
        ("dicom", 3, 1, {"0": 0, "1": 1}),
        ("nifti", 1, 1, {"0": 0, "1": 1}),
    ],
)
def test_pictures_of_one_class_are_black_and_white_and_all_else_holds_class_numbers(kind, frames, segments, values):
    assert mask_values(info_of(kind, frames=frames), segments) == values
