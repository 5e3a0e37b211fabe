"""How values become 0..255: each rule against its formula, one scale for a whole case."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from msrf_monai.clinical.case import Case, ImageInfo, Window
from msrf_monai.clinical.intensity import IntensityPolicy, IntensityScaler
from msrf_monai.errors import ConfigError, DataError

VOLUME = np.random.default_rng(4).normal(40, 300, (5, 12, 17)).astype(np.float32)


class Frames:
    def __init__(self, frames):
        self.frames = frames

    def frame(self, index):
        return self.frames[index].copy()


def case_of(frames, **info):
    described = ImageInfo(
        kind="dicom",
        rows=frames.shape[1],
        columns=frames.shape[2],
        frames=len(frames),
        samples=3 if frames.ndim == 4 else 1,
        dtype=str(frames.dtype),
        modality="CT",
    )
    return Case(f"{frames.sum()}", (), replace(described, **info), Frames(frames))


def scaled(case, index=0, rule=None):
    return IntensityScaler(IntensityPolicy.from_config(rule)).picture(case, case.frame(index))


def test_first_window_of_a_ct_file_is_applied_as_dicom_says():
    picture = scaled(case_of(VOLUME, windows=(Window(40, 400), Window(-600, 1500))))

    expected = np.clip(((VOLUME[0] - 39.5) / 399 + 0.5), 0, 1) * 255
    np.testing.assert_allclose(picture.rows[..., 0], expected, atol=1e-3)
    assert picture.white == 255


def test_without_a_window_the_percentiles_of_the_whole_volume_count():
    low, high = np.percentile(VOLUME, [0.5, 99.5])

    for index in (0, 3):
        picture = scaled(case_of(VOLUME), index)
        expected = np.clip((VOLUME[index] - low) / (high - low), 0, 1) * 255
        np.testing.assert_allclose(picture.rows[..., 0], expected, atol=1e-2)


def test_windows_of_monochrome1_are_left_alone():
    with_windows = scaled(case_of(VOLUME, windows=(Window(40, 400),), photometric="MONOCHROME1"))

    np.testing.assert_array_equal(with_windows.rows, scaled(case_of(VOLUME)).rows)


def test_window_of_the_bundle_goes_before_that_of_the_file():
    case = case_of(VOLUME, windows=(Window(0, 10),))

    picture = scaled(case, rule={"window": [50, 200]})

    np.testing.assert_allclose(picture.rows[..., 0], np.clip((VOLUME[0] + 50) / 200, 0, 1) * 255, atol=1e-3)


def test_percentiles_of_the_bundle():
    picture = scaled(case_of(VOLUME), rule={"percentiles": [10, 90]})

    low, high = np.percentile(VOLUME, [10, 90])
    np.testing.assert_allclose(picture.rows[..., 0], np.clip((VOLUME[0] - low) / (high - low), 0, 1) * 255, atol=1e-2)


def test_sixteen_evenly_spaced_slices_stand_for_a_large_volume():
    frames = np.random.default_rng(1).normal(0, 100, (40, 6, 7)).astype(np.float32)
    chosen = np.linspace(0, 39, 16).round().astype(int)

    picture = scaled(case_of(frames), 5)

    low, high = np.percentile(frames[chosen], [0.5, 99.5])
    np.testing.assert_allclose(picture.rows[..., 0], np.clip((frames[5] - low) / (high - low), 0, 1) * 255, atol=1e-2)


@pytest.mark.parametrize(
    ("frames", "info", "white"),
    [
        (np.arange(12, dtype=np.uint16).reshape(1, 3, 4), {"modality": "DX", "white": 4095.0}, 4095),
        (np.arange(12, dtype=np.uint8).reshape(1, 3, 4), {"modality": "MR", "white": 255.0}, 255),
        (np.full((2, 3, 4), 0.25, np.float32), {"kind": "raster"}, 1),
        (np.full((2, 3, 4), 90, np.float32), {"kind": "nifti"}, 255),
        (np.arange(36, dtype=np.uint16).reshape(1, 3, 4, 3), {"white": 65535.0}, 65535),
    ],
)
def test_other_values_stay_as_they_are_with_their_white(frames, info, white):
    picture = scaled(case_of(frames, **{"modality": "", **info}))

    np.testing.assert_array_equal(picture.rows, frames[0] if frames.ndim == 4 else frames[0][..., None])
    assert picture.white == white


def test_white_of_unmarked_values_is_decided_for_the_whole_case():
    frames = np.stack([np.full((3, 4), value, np.float32) for value in (0.5, 200)])

    assert scaled(case_of(frames, kind="nifti", modality=""), 0).white == 255


def test_unmarked_values_beyond_every_known_range_are_stretched():
    frames = np.linspace(-1000, 1000, 60, dtype=np.float32).reshape(1, 5, 12)

    picture = scaled(case_of(frames, kind="nifti", modality=""))

    assert (picture.rows.min(), picture.rows.max()) == (0, 255)


def test_stored_values_are_given_as_they_are():
    np.testing.assert_array_equal(scaled(case_of(VOLUME), rule="stored").rows[..., 0], VOLUME[0])


def test_a_flat_image_becomes_black_rather_than_an_error():
    picture = scaled(case_of(np.full((1, 3, 4), -700, np.float32)))

    assert np.isfinite(picture.rows).all()


def test_full_range_needs_a_white():
    with pytest.raises(DataError, match="nothing says which one is white"):
        scaled(case_of(VOLUME), rule="full_range")


def test_values_that_are_not_finite_in_another_slice_are_an_error():
    frames = VOLUME.copy()
    frames[4, 2, 2] = np.inf

    with pytest.raises(DataError, match="NaN or infinite"):
        scaled(case_of(frames), 0)


@pytest.mark.parametrize(
    "rule", ["bright", {"window": [1]}, {"window": [1, 0]}, {"percentiles": [60, 40]}, {"windows": [1, 2]}, 3, {}]
)
def test_a_rule_that_makes_no_sense_is_an_error(rule):
    with pytest.raises(ConfigError):
        IntensityPolicy.from_config(rule)
