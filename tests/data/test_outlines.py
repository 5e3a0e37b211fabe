"""Outlines in XML against scikit-image's polygons and closed forms, and files that are none."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from skimage.draw import polygon as skimage_polygon

from msrf_monai.data.outlines import Outlines, fill_outlines, read_outlines
from msrf_monai.errors import DataError

PATH = Path("a.xml")


def xml(*regions: tuple[list[tuple[float, float]], bool], head: str = "") -> bytes:
    text = "".join(
        f'<Region Id="{number}" Type="0" NegativeROA="{int(is_hole)}"><Attributes/><Vertices>'
        + "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in corners)
        + "</Vertices></Region>"
        for number, (corners, is_hole) in enumerate(regions)
    )
    return f"<Annotations {head}><Annotation><Regions>{text}</Regions></Annotation></Annotations>".encode()


def star(seed: int, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    """A random outline that does not cross itself, (x, y)."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * math.pi, 25))
    radii = rng.uniform(4, 18, 25)
    return np.stack([size[1] / 2 + radii * np.cos(angles), size[0] / 2 + radii * np.sin(angles)], axis=1)


@pytest.mark.parametrize("seed", range(10))
def test_outlines_are_filled_as_scikit_image_fills_them(seed: int) -> None:
    corners = star(seed)
    expected = np.zeros((40, 60), bool)
    # scikit-image counts from the centre of the first pixel, ImageScope from its corner
    expected[skimage_polygon(corners[:, 1] - 0.5, corners[:, 0] - 0.5, expected.shape)] = True

    mask = fill_outlines(Outlines((corners,)), (40, 60), PATH)

    np.testing.assert_array_equal(mask, expected)
    turned = fill_outlines(Outlines((corners[::-1],)), (40, 60), PATH)
    np.testing.assert_array_equal(turned, expected)


def test_a_rectangle_covers_the_pixels_between_its_corners() -> None:
    outlines = read_outlines(xml(([(2, 1), (9, 1), (9, 6), (2, 6)], False)), PATH)

    mask = fill_outlines(outlines, (12, 20), PATH)

    expected = np.zeros((12, 20), bool)
    expected[1:6, 2:9] = True
    np.testing.assert_array_equal(mask, expected)


def test_objects_are_united_holes_cut_out_and_rims_clipped() -> None:
    square = [(-0.4, -0.4), (6, -0.4), (6, 6), (-0.4, 6)]
    other = [(4, 4), (20.3, 4), (20.3, 10), (4, 10)]
    hole = [(1, 1), (3, 1), (3, 3), (1, 3)]

    mask = fill_outlines(read_outlines(xml((square, False), (hole, True), (other, False)), PATH), (12, 20), PATH)

    expected = np.zeros((12, 20), bool)
    expected[:6, :6] = expected[4:10, 4:] = True
    expected[1:3, 1:3] = False
    np.testing.assert_array_equal(mask, expected)


def test_an_outline_that_goes_round_twice_is_filled() -> None:
    twice = [(2, 2), (8, 2), (8, 8), (2, 8)] * 2

    assert fill_outlines(read_outlines(xml((twice, False)), PATH), (12, 20), PATH).sum() == 36


def test_spacing_and_regions_without_area_are_told() -> None:
    outlines = read_outlines(xml(([(1, 1), (2, 2)], False), ([], False), head='MicronsPerPixel="0.252"'), PATH)

    assert outlines.spacing_mm == pytest.approx(0.000252)
    assert outlines.unclosed == 2
    assert not fill_outlines(outlines, (4, 5), PATH).any()
    assert read_outlines(xml(head='MicronsPerPixel="none"'), PATH).spacing_mm is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read as XML"),
        (b"\x89PNG", "cannot be read as XML"),
        (xml()[:-5], "cannot be read as XML"),
        (b"<html></html>", "begins with <html>; expected <Annotations>"),
        (xml(([(1, 2), (float("nan"), 1), (3, 3)], False)), "region 1 has a vertex"),
        (b'<Annotations><Region><Vertex X="1"/></Region></Annotations>', "region 1 has a vertex"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><Annotations>&b;</Annotations>', "declares XML entities"),
    ],
)
def test_files_that_are_no_annotations_are_refused(content: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=f"a.xml: {reason}"):
        read_outlines(content, PATH)


def test_outlines_of_a_larger_picture_are_refused() -> None:
    outlines = read_outlines(xml(([(2, 1), (900, 1), (900, 600)], False)), PATH)

    with pytest.raises(
        DataError, match=r"reach from \[2\.0, 1\.0\] to \[900\.0, 600\.0\]; expected them within 20 x 12"
    ):
        fill_outlines(outlines, (12, 20), PATH)
