"""The field of view that is derived from a fundus picture, against masks that others drew and against geometry."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from msrf_monai.data import synthesize_case
from msrf_monai.errors import InputError
from msrf_monai.field_of_view import derive_field_of_view


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def disc(size: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    return np.hypot(x - centre[0], y - centre[1]) <= radius


def fundus(field: np.ndarray, *, surround: float = 4.0, brightness: float = 1.0, rim: float = 0.5) -> np.ndarray:
    """Draw a plain retina that is darker towards its rim, with the noise of a sensor."""
    rng = np.random.default_rng(1)
    depth = cv2.distanceTransform(field.astype(np.uint8), cv2.DIST_L2, 5)
    light = rim + (1 - rim) * np.minimum(1, depth / (0.3 * depth.max()))
    rgb = surround + (field * light)[..., None] * np.array([170, 80, 35]) * brightness
    return np.clip(rgb + rng.normal(0, 1.5, (*field.shape, 3)), 0, 255).astype(np.uint8)


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "suffix"), [("CHASE_DB1", "jpg"), ("STARE", "ppm")])
def test_derived_fields_agree_with_given_ones(data_root: Path, name: str, suffix: str) -> None:
    scores = []
    for path in sorted((data_root / name / "images").glob(f"*.{suffix}")):
        given = np.asarray(Image.open(data_root / name / "fov" / f"{path.stem}.png")) > 127
        scores.append(dice(derive_field_of_view(np.asarray(Image.open(path).convert("RGB"))), given))

    assert len(scores) in (20, 28)
    assert min(scores) > 0.99
    assert np.mean(scores) > 0.995


@pytest.mark.parametrize("seed", range(4))
def test_the_field_of_a_drawn_retina_is_found(seed: int) -> None:
    case = synthesize_case("vessels", seed, (192, 240))
    assert case.field_of_view is not None

    assert dice(derive_field_of_view(case.image), case.field_of_view > 0) > 0.985


@pytest.mark.parametrize(
    ("size", "centre", "radius"),
    [
        ((292, 282), (141, 146), 135),  # DRIVE at half size: whole
        ((240, 330), (160, 121), 140),  # cut by the frame at top and bottom
        ((250, 200), (70, 125), 110),  # off the centre, cut at the left
    ],
)
def test_a_disc_is_found_to_a_pixel_where_the_frame_cuts_it_too(
    size: tuple[int, int], centre: tuple[float, float], radius: float
) -> None:
    field = disc(size, centre, radius)

    found = derive_field_of_view(fundus(field))

    band = (
        np.abs(np.hypot(np.arange(size[1])[None] - centre[0], np.arange(size[0])[:, None] - centre[1]) - radius) < 1.6
    )
    np.testing.assert_array_equal(found[~band], field[~band])


def test_a_field_cut_straight_inside_the_picture_stays_cut() -> None:
    field = disc((300, 320), (160, 150), 140)
    field[:30] = field[272:] = False

    found = derive_field_of_view(fundus(field))

    assert dice(found, field) > 0.99
    assert not found[:28].any()
    assert not found[275:].any()
    assert found[32].any()


def test_dark_pictures_and_dark_rims_are_seen() -> None:
    field = disc((250, 270), (133, 126), 115)

    assert dice(derive_field_of_view(fundus(field, surround=2, brightness=0.18)), field) > 0.985
    shaded = fundus(field, surround=2)
    shadow = disc((250, 270), (10, 126), 60)  # it swallows the rim at the left
    shaded[shadow] = np.minimum(shaded[shadow], 4)
    assert dice(derive_field_of_view(shaded), field) > 0.985


def test_letters_and_reflections_in_the_surround_are_left_out() -> None:
    field = disc((260, 300), (150, 130), 112)
    picture = fundus(field)
    cv2.putText(picture, "OD 17", (2, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2)
    picture[240:, 270:] = 200
    cv2.rectangle(picture, (150, 4), (170, 24), (255, 255, 255), cv2.FILLED)  # touches the field

    assert dice(derive_field_of_view(picture), field) > 0.99


def test_holes_are_seen_through() -> None:
    field = disc((200, 220), (110, 100), 90)
    picture = fundus(field)
    picture[80:120, 90:130] = 0

    assert derive_field_of_view(picture)[80:120, 90:130].all()


@pytest.mark.parametrize("level", [0, 90, 255])
def test_a_picture_without_a_surround_is_all_field(level: int) -> None:
    assert derive_field_of_view(np.full((40, 50, 3), level, np.uint8)).all()
    inside = fundus(disc((400, 400), (200, 200), 190))[80:320, 70:330]
    assert derive_field_of_view(inside).all()


def test_an_outline_that_is_no_circle_is_taken_as_it_stands() -> None:
    picture = np.zeros((90, 120, 3), np.uint8)
    picture[20:70, 30:90] = (180, 90, 40)

    found = derive_field_of_view(picture)

    assert dice(found, picture[..., 0] > 0) > 0.99


def test_large_pictures_are_searched_small_and_drawn_large() -> None:
    field = disc((1500, 2100), (1040, 760), 700)

    found = derive_field_of_view(fundus(field))

    assert found.shape == (1500, 2100)
    assert dice(found, field) > 0.995


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (3, 4), (6, 5)])
def test_tiny_pictures_do_no_harm(height: int, width: int) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)

    assert derive_field_of_view(picture).shape == (height, width)


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 3), np.float32), np.zeros((0, 5, 3), np.uint8)]
)
def test_other_arrays_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected uint8 of shape"):
        derive_field_of_view(wrong)


@pytest.mark.parametrize("size", [(8, 10_000), (10_000, 1)])
def test_a_picture_that_is_nearly_a_line_is_all_field(size: tuple[int, int]) -> None:
    found = derive_field_of_view(np.full((*size, 3), 90, np.uint8))
    assert found.shape == size
    assert found.all()
