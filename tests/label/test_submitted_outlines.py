"""QuPath's outlines as masks: against matplotlib's own test of points, and back from our own outlines."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
from fastapi import HTTPException
from matplotlib.path import Path
from PIL import Image

from msrf_monai.errors import DataError
from msrf_monai.label.polygons import polygons
from msrf_monai.label.submitted_outlines import filled, mask_of_outlines, with_masks

NUMBERS = {"polyp": 1, "vessel": 2}


def asap(*annotations: tuple[str, Any]) -> bytes:
    """ASAP's XML with a polygon for each label."""
    polygons_ = "".join(
        f'<Annotation Type="Polygon" PartOfGroup="{label}"><Coordinates>'
        + "".join(f'<Coordinate Order="{order}" X="{x}" Y="{y}"/>' for order, (x, y) in enumerate(corners))
        + "</Coordinates></Annotation>"
        for label, corners in annotations
    )
    return f"<ASAP_Annotations><Annotations>{polygons_}</Annotations></ASAP_Annotations>".encode()


@pytest.mark.parametrize("seed", range(8))
def test_what_lies_inside_is_what_matplotlib_says(seed: int) -> None:
    angles = np.sort(np.random.default_rng(seed).uniform(0, 2 * np.pi, 12))
    radii = np.random.default_rng(seed + 100).uniform(4, 30, 12)
    corners = np.stack([22 + radii * np.cos(angles), 18 + radii * np.sin(angles)], axis=1)
    x, y = np.meshgrid(np.arange(44) + 0.5, np.arange(36) + 0.5)
    expected = Path(corners).contains_points(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(36, 44)

    found = filled(corners, (36, 44))

    assert found.any()
    assert np.array_equal(found, expected)
    assert np.array_equal(filled(corners[::-1], (36, 44)), expected)


@pytest.mark.parametrize("seed", range(6))
def test_our_own_outlines_come_back_as_the_same_mask(seed: int) -> None:
    mask = np.random.default_rng(seed).random((23, 31)) < 0.55
    mask[:2, :3] = True

    back = mask_of_outlines(asap(*(("polyp", ring) for ring in polygons(mask))), mask.shape, NUMBERS)

    assert np.array_equal(back, mask.astype(np.uint8))


def test_the_later_outline_holds_and_case_means_nothing() -> None:
    square = [(2, 2), (8, 2), (8, 8), (2, 8)]
    mask = mask_of_outlines(asap(("Polyp", square), ("VESSEL", np.add(square, 3))), (12, 12), NUMBERS)

    assert (mask[3, 3], mask[6, 6], mask[9, 9], mask[0, 0]) == (1, 2, 2, 0)
    assert (mask == 2).sum() == 36


def test_labels_of_two_bundles_do_not_become_one() -> None:
    square = [(2, 2), (8, 2), (8, 8), (2, 8)]
    both = asap(("vessel", square), ("Polyp", square))

    with pytest.raises(DataError, match="'vessel' and 'polyp' are labels of different bundles"):
        mask_of_outlines(both, (12, 12), {"polyp": 1, "vessel": 1})


def test_nothing_drawn_is_an_empty_mask() -> None:
    assert not mask_of_outlines(asap(), (5, 6), NUMBERS).any()
    assert not filled([(1, 1), (4, 4)], (5, 6)).any()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (asap(("Other", [(0, 0), (3, 0), (3, 3)])), "label 'Other', and those of the bundles are polyp, vessel"),
        (asap(("polyp", [("left", 0), (3, 0), (3, 3)])), "a corner whose X or Y is no number"),
        (asap(("polyp", [("nan", 0), (3, 0), (3, 3)])), "a corner whose X or Y is no number"),
        (asap(("polyp", [(0, -1e308), (5, 1e308), (3, 2)])), "a corner more than 10000000 pixels away"),
        (b"<html></html>", "no XML of ASAP"),
        (b"P6 4 4", "no XML of ASAP"),
    ],
    ids=["unknown", "no-number", "not-finite", "far-away", "other-xml", "no-xml"],
)
def test_what_makes_no_mask_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        mask_of_outlines(content, (8, 8), NUMBERS)


class Store:
    """What a datastore of MONAI Label does with labels: it keeps a copy of the file."""

    def __init__(self, folder: FilePath) -> None:
        self.folder = folder
        Image.new("RGB", (12, 9)).save(folder / "photo.png")

    def get_image_uri(self, image_id: str) -> str:
        return str(self.folder / f"{image_id}.png")

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        copy = self.folder / f"{image_id}-{label_tag}{FilePath(label_filename).suffix}"
        copy.write_bytes(FilePath(label_filename).read_bytes())
        return image_id


def test_a_store_saves_outlines_as_a_mask_and_masks_as_they_are(tmp_path: FilePath) -> None:
    store = with_masks(Store(tmp_path), lambda: NUMBERS)
    (tmp_path / "sent.xml").write_bytes(asap(("polyp", [(2, 1), (7, 1), (7, 4), (2, 4)])))
    (tmp_path / "sent.nrrd").write_bytes(b"as it came")

    store.save_label("photo", str(tmp_path / "sent.xml"), "final", {})
    store.save_label(image_id="photo", label_filename=str(tmp_path / "sent.nrrd"), label_tag="final", label_info={})

    mask = np.asarray(Image.open(tmp_path / "photo-final.png"))
    assert mask.shape == (9, 12)
    assert mask.sum() == mask[1:4, 2:7].sum() == 15
    assert (tmp_path / "photo-final.nrrd").read_bytes() == b"as it came"
    assert not (tmp_path / "photo-final.xml").exists()


def test_a_store_keeps_nothing_of_outlines_that_it_refuses(tmp_path: FilePath) -> None:
    store: Any = with_masks(Store(tmp_path), lambda: NUMBERS)
    (tmp_path / "sent.xml").write_bytes(b"nothing")

    with pytest.raises(HTTPException) as refused:
        store.save_label("photo", str(tmp_path / "sent.xml"), "final", {})

    assert refused.value.status_code == 400
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.png", "sent.xml"]


def test_a_picture_that_cannot_be_read_is_said_in_one_sentence(tmp_path: FilePath) -> None:
    store: Any = with_masks(Store(tmp_path), lambda: NUMBERS)
    (tmp_path / "photo.png").write_bytes(b"damaged")
    (tmp_path / "sent.xml").write_bytes(asap())

    with pytest.raises(HTTPException) as refused:
        store.save_label("photo", str(tmp_path / "sent.xml"), "final", {})

    assert refused.value.status_code == 400
    assert "photo.png" in refused.value.detail
