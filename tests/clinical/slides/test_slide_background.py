"""Glass is skipped, tissue never, and skipping changes nothing where nothing is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from msrf_monai.clinical.slides import TileOptions, Tissue, find_tissue, open_slide, plan_tiles, tissue_mask
from support.slide_files import APERIO, predicted, stain, stained, write_tiff

PICTURE = stained(301, 437)


@pytest.fixture
def svs(tmp_path: Path) -> Path:
    """A slide of three levels at 0.25 micrometres per pixel."""
    write_tiff(tmp_path / "a.svs", PICTURE, description=APERIO)
    return tmp_path / "a.svs"


def test_tissue_is_found_and_glass_is_not() -> None:
    picture = stained(400, 500)
    tissue = np.abs(picture.astype(int) - (246, 245, 247)).max(axis=2) > 30

    found = tissue_mask(picture)

    assert found[tissue].all()
    beside = cv2.dilate(tissue.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    assert found[~beside].mean() < 0.01


@pytest.mark.parametrize("colour", [(205, 120, 175), (235, 205, 222), (120, 120, 120), (10, 10, 10)], ids=str)
def test_slide_full_of_tissue_is_not_cut_into_two_halves(colour: tuple[int, int, int]) -> None:
    random = np.random.default_rng(1)
    picture = np.clip(random.normal(colour, 6, (200, 300, 3)), 0, 255).astype(np.uint8)

    assert tissue_mask(picture).all()


def test_rectangle_of_tissue_is_found_with_its_margin() -> None:
    mask = np.zeros((10, 20), dtype=bool)
    mask[4, 7] = True
    tissue = Tissue(mask)

    assert tissue.is_in(0.4, 0.35, 0.5, 0.4)
    assert tissue.is_in(0.45, 0.39, 0.46, 0.395)
    assert not tissue.is_in(0.5, 0.0, 1.2, 1.2)
    assert not tissue.is_in(-0.2, -0.2, 0.4, 1.0)
    assert tissue.is_in(-1.0, -1.0, 2.0, 2.0)


def test_skipping_glass_changes_nothing_where_nothing_is(svs: Path) -> None:
    seen = []

    def counting(windows: np.ndarray) -> np.ndarray:
        seen.append(len(windows))
        return stain(windows)

    everything, all_of_it = predicted(svs, TileOptions(tile=(32, 48), skip_background=False))
    skipping, some_of_it = predicted(svs, TileOptions(tile=(32, 48)), counting)

    np.testing.assert_array_equal(skipping.mask, everything.mask)
    assert skipping.mask.any()
    assert all_of_it.skipped == 0
    assert some_of_it.skipped > some_of_it.windows / 4
    assert sum(seen) == some_of_it.windows - some_of_it.skipped
    assert some_of_it.pixels == all_of_it.pixels


def test_slide_of_glass_is_all_background_and_never_reaches_the_network(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", np.full((301, 437, 3), 245, np.uint8), description=APERIO)

    def never(windows: np.ndarray) -> np.ndarray:
        raise AssertionError("the network was called")

    sink, result = predicted(tmp_path / "a.tif", TileOptions(tile=(64, 64)), never)

    assert not sink.mask.any()
    assert sink.mask.shape == (301, 437)
    assert (result.pixels, result.areas_mm2, result.confidence) == ((), (), None)


def test_slide_without_a_small_level_is_predicted_whole_and_says_so(svs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msrf_monai.clinical.slides.background._MOST_READ", 100)

    _, result = predicted(svs, TileOptions(tile=(64, 64)))

    assert result.skipped == 0
    assert result.notes == ("no_thumbnail",)


def test_thumbnail_covers_the_whole_slide(svs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msrf_monai.clinical.slides.background._LONGEST", 100)
    with open_slide(svs) as slide:
        tissue = find_tissue(slide)
        plan = plan_tiles(slide, TileOptions(tile=(20, 20), overlap=0))

    assert tissue is not None
    assert max(tissue.mask.shape) == 100
    dark = PICTURE[..., 1] < 150
    for top, lefts in plan.rows():
        for left in set(plan.lefts) - set(lefts):
            assert not dark[top : top + 20, left : left + 20].any()
