"""The resolution at which a slide is read: a level, or the mean of a finer one, the same for every window."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from msrf_monai.clinical.slides import SlideGrid, SlideInfo, SlideLevel, choose_grid, open_slide, read_grid
from msrf_monai.errors import ConfigError, InputError
from support.slide_files import APERIO, stained, write_tiff

PICTURE = stained(301, 437)
LEVELS = tuple(SlideLevel(4000 >> k, 6001 >> k, 256, 256, (0.25 * 2**k, 0.25 * 2**k)) for k in (0, 2, 4))
INFO = SlideInfo("tiff", LEVELS, (0.25, 0.25))


@pytest.fixture
def svs(tmp_path: Path) -> Path:
    """A slide of three levels at 0.25 micrometres per pixel."""
    write_tiff(tmp_path / "a.svs", PICTURE, description=APERIO)
    return tmp_path / "a.svs"


@pytest.mark.parametrize(
    ("wanted", "grid"),
    [
        ({}, SlideGrid(0, 4000, 6001, (1.0, 1.0), (0.25, 0.25))),
        ({"level": 1}, SlideGrid(1, 1000, 1500, (1.0, 1.0), (1.0, 1.0))),
        ({"mpp": 0.26}, SlideGrid(0, 4000, 6001, (1.0, 1.0), (0.25, 0.25))),  # near enough
        ({"mpp": 0.5}, SlideGrid(0, 2000, 3000, (2.0, 2.0), (0.5, 0.5))),
        ({"mpp": 3.0}, SlideGrid(1, 333, 500, (3.0, 3.0), (3.0, 3.0))),
        ({"mpp": 8.0}, SlideGrid(2, 125, 187, (2.0, 2.0), (8.0, 8.0))),
    ],
    ids=str,
)
def test_grid_is_a_level_or_made_of_the_next_finer_one(wanted: dict, grid: SlideGrid) -> None:
    assert choose_grid(INFO, **wanted) == grid


@pytest.mark.parametrize(
    ("info", "wanted", "error"),
    [
        (INFO, {"mpp": 0.2}, InputError),  # would have to be enlarged
        (INFO, {"level": 3}, InputError),
        (INFO, {"mpp": 1.0, "level": 1}, ConfigError),
        (INFO, {"mpp": -1.0}, ConfigError),
        (INFO, {"mpp": 1.0, "tolerance": 1.0}, ConfigError),
        (SlideInfo("tiff", (SlideLevel(9, 9, 3, 3),)), {"mpp": 1.0}, InputError),  # resolution unknown
    ],
    ids=str,
)
def test_grid_that_the_slide_does_not_have_is_an_error(info: SlideInfo, wanted: dict, error: type) -> None:
    with pytest.raises(error):
        choose_grid(info, **wanted)


def test_averaging_by_a_whole_number_is_the_rounded_mean(svs: Path) -> None:
    with open_slide(svs) as slide:
        found = read_grid(slide, SlideGrid(0, 100, 145, (3.0, 3.0)), 0, 0, 100, 145)

    blocks = PICTURE[:300, :435].reshape(100, 3, 145, 3, 3).astype(np.int64).sum(axis=(1, 3))
    np.testing.assert_array_equal(found, (blocks + 4) // 9)


def test_averaging_by_a_fraction_is_opencvs_area_interpolation(svs: Path) -> None:
    # 300 and 430 pixels to 200 and 172: factors 1.5 and 2.5
    with open_slide(svs) as slide:
        found = read_grid(slide, SlideGrid(0, 200, 172, (1.5, 2.5)), 0, 0, 200, 172)

    theirs = cv2.resize(PICTURE[:300, :430], (172, 200), interpolation=cv2.INTER_AREA)
    assert np.abs(found.astype(int) - theirs).max() <= 1


def test_resampled_pixels_do_not_depend_on_the_window_they_are_read_by(
    svs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = SlideGrid(0, 171, 248, (1.7578, 1.7621))
    with open_slide(svs) as slide:
        whole = read_grid(slide, grid, 0, 0, 171, 248)
        monkeypatch.setattr("msrf_monai.clinical.slides.resample._MOST_STORED", 3000)
        for top, left, rows, columns in ((0, 0, 171, 248), (13, 57, 40, 60), (100, 3, 71, 7), (-9, -4, 30, 300)):
            padded = np.pad(whole, ((9, 200), (9, 200), (0, 0)), constant_values=255)
            expected = padded[top + 9 : top + 9 + rows, left + 9 : left + 9 + columns]
            np.testing.assert_array_equal(read_grid(slide, grid, top, left, rows, columns), expected)
        assert (read_grid(slide, grid, 500, 0, 3, 3) == 255).all()
