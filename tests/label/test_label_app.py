"""The better defaults over a stand-in for MONAI Label's own app; the real one is in the tests with a server."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from msrf_monai.label.app import BundleAppMixin, mask_extension


class Stock:
    """What MONAI Label's app does with a request: it notes it, and writes a mask."""

    def __init__(self, folder: Path, mask: np.ndarray) -> None:
        self.asked: list[dict[str, Any]] = []
        self.folder, self.mask = folder, mask

    def datastore(self):
        return SimpleNamespace(get_image_uri=lambda name: f"/images/{name}.jpg")

    def infer(self, request, datastore=None):
        self.asked.append(request)
        Image.fromarray(self.mask).save(self.folder / "mask.png")
        return {
            "file": str(self.folder / "mask.png"),
            "params": {"label_names": {"polyp": 1}, "latencies": {"total": 1}},
        }

    def batch_infer(self, request, datastore=None):
        self.asked.append(request)


class App(BundleAppMixin, Stock):
    pass


@pytest.fixture
def app(tmp_path: Path) -> App:
    mask = np.zeros((30, 40), np.uint8)
    mask[4:20, 6:30] = 1
    mask[8:12, 10:15] = 0
    return App(tmp_path, mask)


@pytest.mark.parametrize(
    ("image", "extension"),
    [
        ("a/photo.jpg", ".png"),
        ("photo.JPEG", ".png"),
        ("x.dcm", ".png"),
        ("scan.tiff", ".png"),
        ("slice.nii.gz", ".nii.gz"),
        ("SLICE.NII", ".nii"),
        ("volume.nrrd", ".nrrd"),
        ("", ".png"),
    ],
)
def test_masks_are_lossless(image, extension):
    assert mask_extension(image) == extension


def test_the_kind_of_the_image_decides_where_the_client_does_not(app, tmp_path):
    slice_file = tmp_path / "slice.nii.gz"
    slice_file.touch()

    app.infer({"image": "photo"})
    app.infer({"image": str(slice_file)})
    app.infer({"image": "photo", "result_extension": ".nrrd"})
    app.infer({"image": np.zeros((4, 4, 3))})

    assert [asked["result_extension"] for asked in app.asked] == [".png", ".nii.gz", ".nrrd", ".png"]


@pytest.mark.parametrize(("has_gpu", "expected"), [(False, (False, "cpu")), (True, (True, "cuda"))])
def test_a_batch_asks_for_gpus_only_where_there_are_some(app, monkeypatch, has_gpu, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    request = {"multi_gpu": True, "device": "cuda"}

    app.batch_infer(request)

    assert (app.asked[0]["multi_gpu"], app.asked[0]["device"]) == expected
    assert request == {"multi_gpu": True, "device": "cuda"}


def test_outlines_come_with_their_names_and_colours(app):
    answer = app.infer_wsi({"image": "photo", "model": "m", "output": "json", "min_poly_area": 0})

    assert answer["file"] is None
    (part,) = answer["params"]["annotations"]
    (element,) = part["annotation"]["elements"]
    assert element["label"] == "polyp"
    assert len(element["contours"]) == 1  # the hole is part of the outline
    assert list(part["annotation"]["labels"]) == ["polyp"]
    assert not (app.folder / "mask.png").exists()


@pytest.mark.parametrize(
    ("asked", "pixels"),
    [
        ({}, 16 * 24 - 20),
        ({"location": [0, 0], "size": [2048, 2048]}, 16 * 24 - 20),
        ({"location": [6, 4], "size": [3, 2]}, 6),
        ({"location": [-5, -5], "size": [12, 10]}, 1),
    ],
    ids=["whole", "default", "inside", "over the edge"],
)
def test_only_the_rectangle_that_was_asked_for_is_outlined(app, asked, pixels):
    params = app.infer_wsi({"image": "photo", "model": "m", "output": "json", **asked})["params"]

    (element,) = params["annotations"][0]["annotation"]["elements"]
    x, y = np.array(element["contours"][0]).T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    assert area == pixels


@pytest.mark.parametrize("output", ["asap", "dsa", None])
def test_files_are_written_by_monai_label(app, monkeypatch, output):
    written = SimpleNamespace(
        create_asap_annotations_xml=lambda answer: ("asap", 1), create_dsa_annotations_json=lambda answer: ("dsa", 1)
    )
    monkeypatch.setitem(sys.modules, "monailabel.utils.others.pathology", written)

    answer = app.infer_wsi({"image": "photo", "model": "m", "output": output})

    assert answer["file"] == (output or "dsa")
