"""Pictures of vessels: the right colour at the right pixel, legends, and thin vessels in small pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from PIL import Image

from msrf_monai.engines import VesselReport, draw_vessel_overlay
from msrf_monai.engines.vessel_report_overlay import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    TRUE_POSITIVE,
    thumbnail_of,
    with_legend,
)
from msrf_monai.errors import InputError


@pytest.fixture(autouse=True)
def _no_diagram(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the diagram, which takes most of the time and is tested elsewhere."""
    monkeypatch.setattr("msrf_monai.engines.vessel_report.draw_reliability", lambda calibration: b"png")


def _masks() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prediction, truth and field of view of 6 rows and 8 columns, with one pixel of each kind inside and outside."""
    pred, label, fov = (np.zeros((6, 8), bool) for _ in range(3))
    fov[:, :5] = True
    pred[1, [1, 2, 6, 7]] = True
    label[1, [2, 3, 6]] = True
    return pred, label, fov


def test_each_kind_of_pixel_has_its_colour_inside_the_field_of_view_only() -> None:
    picture = np.full((6, 8, 3), 200, np.uint8)
    picture[0, 0] = 0
    before = picture.copy()
    drawn = draw_vessel_overlay(picture, *_masks())

    assert drawn[1, 1].tolist() == list(FALSE_POSITIVE)
    assert drawn[1, 2].tolist() == list(TRUE_POSITIVE)
    assert drawn[1, 3].tolist() == list(FALSE_NEGATIVE)
    coloured = np.ptp(drawn.astype(int), axis=2) > 0
    assert sorted(zip(*np.nonzero(coloured), strict=True)) == [(1, 1), (1, 3)]  # found vessels are white
    assert (drawn[2:, :5] == 110).all()
    assert (drawn[:, 5:] == 40).all()
    assert drawn[0, 0].tolist() == [0, 0, 0]
    assert (picture == before).all()


def test_without_picture_and_field_of_view_everything_counts_on_black() -> None:
    pred, label, _ = _masks()
    drawn = draw_vessel_overlay(None, pred, label)
    assert drawn[1, 6].tolist() == list(TRUE_POSITIVE)
    assert drawn[1, 7].tolist() == list(FALSE_POSITIVE)
    assert drawn.any(axis=2).sum() == 5
    assert not draw_vessel_overlay(None, pred, label, np.zeros_like(pred)).any()


def test_sizes_must_agree() -> None:
    pred, label, fov = _masks()
    for arguments in ((np.zeros((8, 6, 3), np.uint8), pred, label), (None, pred.T, label), (None, pred, label, fov.T)):
        with pytest.raises(InputError, match="different sizes"):
            draw_vessel_overlay(*arguments)


@pytest.mark.parametrize("width", [60, 260, 500, 900])
def test_the_legend_stands_below_and_names_each_colour(width: int) -> None:
    overlay = np.full((30, width, 3), 7, np.uint8)
    whole = with_legend(overlay, "eye.png: F1 0.8123 at 0.5")
    assert whole.shape[1] == width
    assert (whole[:30] == 7).all()
    for colour in (TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE):
        assert (whole[30:] == colour).all(axis=2).sum() >= 100
    assert (whole[-26:] == 255).all(axis=2).any()  # the caption is in the last line


def _bright(jpeg: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(jpeg)) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize("colour", [TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE])
def test_a_vessel_of_one_pixel_is_seen_in_a_small_picture(colour: tuple[int, int, int]) -> None:
    overlay = np.full((960, 999, 3), 60, np.uint8)
    overlay[:, 500] = colour
    small = _bright(thumbnail_of(overlay, longest_px=460))
    assert small.shape == (442, 460, 3)
    column = small[100:300].mean(axis=0)
    stands_out = np.abs(column - 60).max(axis=1)
    assert stands_out.max() > 0.8 * max(abs(part - 60) for part in colour)
    assert np.abs(column[int(stands_out.argmax())] - colour).max() < 60


def test_small_pictures_keep_their_size_and_mix_colours_by_their_share() -> None:
    overlay = np.full((20, 30, 3), 60, np.uint8)
    assert _bright(thumbnail_of(overlay)).shape == (20, 30, 3)
    wide = np.zeros((400, 400, 3), np.uint8)
    wide[:, ::2], wide[:, 1::2] = TRUE_POSITIVE, FALSE_POSITIVE
    mixed = _bright(thumbnail_of(wide, longest_px=100)).mean(axis=(0, 1))
    assert mixed == pytest.approx((np.array(TRUE_POSITIVE) + FALSE_POSITIVE) / 2, abs=3)


def _report(tmp_path: Path, image: MetaTensor, **changes: Any) -> np.ndarray:
    columns, rows = 30, 20
    label = torch.zeros(1, columns, rows)
    label[0, 25, 3] = 1  # right and up
    item = {"image": image, "label": label, "probability": torch.zeros(1, columns, rows), **changes}

    def step(engine: Engine, batch: Any) -> Any:
        engine.state.batch = [{"image": image}]
        return [item]

    engine = Engine(step)
    VesselReport(str(tmp_path / "out"), topology=False).attach(engine)
    engine.run([0])
    (path,) = (tmp_path / "out" / "overlays").glob("*.png")
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_the_picture_is_upright_on_its_source(tmp_path: Path) -> None:
    source = np.zeros((20, 30, 3), np.uint8)
    source[15, 2] = 255  # left and down
    Image.fromarray(source).save(tmp_path / "eye.png")
    image = MetaTensor(torch.rand(3, 30, 20), meta={"filename_or_obj": str(tmp_path / "eye.png")})
    drawn = _report(tmp_path, image)
    assert drawn[3, 25].tolist() == list(FALSE_NEGATIVE)
    assert drawn[15, 2].tolist() == [110, 110, 110]
    assert drawn[5, 5].tolist() == [0, 0, 0]


def test_without_a_source_the_networks_input_is_shown_where_it_fits(tmp_path: Path) -> None:
    values = torch.full((3, 30, 20), -1.0)
    values[:, 2, 15] = 3.0
    assert _report(tmp_path / "a", MetaTensor(values))[15, 2].tolist() == [110, 110, 110]
    small = MetaTensor(torch.ones(3, 10, 10), meta={"filename_or_obj": "/not/there.png"})
    assert _report(tmp_path / "b", small)[:20].any(axis=2).sum() == 1  # black but for the vessel
    assert _report(tmp_path / "c", MetaTensor(torch.ones(3, 30, 20)))[5, 5].tolist() == [0, 0, 0]
