"""What 3D Slicer, OHIF and QuPath ask for, word for word as their plugins in MONAI Label 0.8.5 do."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from support.bundle_runs import BUNDLES
from support.nrrd import read_nrrd
from support.slicer_client import slicer_client

pytestmark = pytest.mark.label
NAMES = [bundle.folder_name for bundle in BUNDLES]
VESSEL = "imff_net_retinal_vessel_segmentation"


@pytest.fixture(scope="module")
def slicer() -> Any:
    """3D Slicer's own client."""
    return slicer_client()


@pytest.mark.parametrize("bundle", NAMES)
def test_slicer_gets_a_mask_as_nrrd_for_an_image_of_the_server(studio, slicer, tmp_path, bundle):
    client = slicer.MONAILabelClient(studio.server.url, tmpdir=str(tmp_path))

    file, said = client.infer(bundle, "colour", {"result_extension": ".nrrd", "result_dtype": "uint8"})

    mask, fields = read_nrrd(Path(file).read_bytes())
    assert fields["type"] in ("unsigned char", "uint8")
    assert studio.differing(mask, bundle, "colour.png") == 0
    assert list(said["label_names"].values()) == [1]


def test_slicer_gets_a_mask_for_an_image_that_it_uploads_to_a_session(studio, slicer, tmp_path):
    client = slicer.MONAILabelClient(studio.server.url, tmpdir=str(tmp_path))
    session = client.create_session(str(studio.pictures / "grey.png"))["session_id"]

    file, _ = client.infer(VESSEL, "", {"result_extension": ".nrrd", "result_dtype": "uint8"}, session_id=session)

    mask, _ = read_nrrd(Path(file).read_bytes())
    assert studio.differing(mask, VESSEL, "grey.png") == 0


@pytest.mark.parametrize("bundle", NAMES)
def test_ohif_gets_an_uncompressed_nrrd(studio, bundle):
    options = {"device": "cpu", "model_filename": "model.pt", "restore_label_idx": False}
    params = {**options, "result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}

    answer = studio.server.post(
        f"/infer/{bundle}?image=alpha&output=image", files={"params": (None, json.dumps(params))}
    )

    mask, fields = read_nrrd(answer.content)
    assert fields["encoding"] == "raw"
    assert studio.differing(mask, bundle, "alpha.png") == 0


@pytest.mark.parametrize("extension", [".nii.gz", ".nii", ".nrrd", ".png", ".tif"])
def test_a_mask_comes_in_the_format_that_was_asked_for(studio, extension, tmp_path):
    params = json.dumps({"result_extension": extension, "result_dtype": "uint8"})

    answer = studio.server.post(f"/infer/{VESSEL}?image=photo&output=image", data={"params": params})

    path = tmp_path / f"mask{extension}"
    path.write_bytes(answer.content)
    if extension.startswith(".nii"):
        mask = np.asarray(nibabel.load(path).dataobj).squeeze().T
    elif extension == ".nrrd":
        mask, _ = read_nrrd(answer.content)
    else:
        mask = np.asarray(Image.open(path))
    assert studio.differing(mask, VESSEL, "photo.jpg") == 0


def test_json_and_mask_come_together_in_parts(studio, slicer):
    answer = studio.server.post(f"/infer/{VESSEL}?image=colour&output=all")

    assert answer.headers["content-type"].startswith("multipart/form-data")
    assert b'"label_names": {"vessel": 1}' in answer.content
    assert studio.server.post(f"/infer/{VESSEL}?image=colour&output=json").json()["label_names"] == {"vessel": 1}


@pytest.mark.parametrize("bundle", NAMES)
def test_qupath_gets_outlines_of_a_file_that_it_uploads(studio, bundle):
    asked = {"level": 0, "location": [0, 0], "size": [0, 0], "tile_size": [1024, 1024], "min_poly_area": 0}
    with (studio.pictures / "colour.png").open("rb") as file:
        answer = studio.server.post(
            f"/infer/wsi_v2/{bundle}?output=asap",
            files={"file": ("colour.png", file)},
            data={"wsi": json.dumps({**asked, "params": {"foreground": [], "background": [], "max_workers": 1}})},
        )

    mask = _painted(answer.text, studio.probabilities[bundle, "colour.png"].shape)
    assert studio.differing(mask, bundle, "colour.png") == 0


def test_qupath_gets_outlines_within_the_rectangle_that_it_asks_for(studio):
    asked = {"level": 0, "location": [10, 5], "size": [30, 20], "tile_size": [1024, 1024], "min_poly_area": 0}
    whole = studio.server.post(f"/infer/{VESSEL}?image=scan&output=image")

    answer = studio.server.post(f"/infer/wsi/{VESSEL}?output=asap&image=scan", json=asked)

    expected = np.zeros((58, 43), np.uint8)
    expected[5:25, 10:40] = np.asarray(Image.open(io.BytesIO(whole.content)))[5:25, 10:40]
    assert np.array_equal(_painted(answer.text, expected.shape), expected)


def test_the_slide_archive_gets_its_json(studio):
    answer = studio.server.post(f"/infer/wsi/{VESSEL}?output=dsa&image=colour", json={"min_poly_area": 0}).json()

    assert {element["label"]["value"] for element in answer["elements"]} == {"vessel"}
    assert all(len(element["points"]) >= 4 for element in answer["elements"])


def _painted(xml: str, shape: tuple[int, int]) -> np.ndarray:
    """Fill the polygons of ASAP's XML: inside is where a ray from a pixel's middle to the right meets an odd number."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    x, y = columns.ravel() + 0.5, rows.ravel() + 0.49
    painted = np.zeros(x.shape, np.uint8)
    for annotation in ElementTree.fromstring(xml).iter("Annotation"):
        points = [(float(each.get("X")), float(each.get("Y"))) for each in annotation.iter("Coordinate")]
        crossings = np.zeros(x.shape, int)
        for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
            if y0 != y1:
                meets = ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
                crossings += meets
        painted += (crossings % 2).astype(np.uint8)
    return painted.reshape(shape)
