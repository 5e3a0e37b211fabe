"""What an annotator does in a day, with 3D Slicer's own client and with QuPath's requests, on the real server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import requests
from PIL import Image

from msrf_monai.files import sha256_of
from support.bundle_runs import SSR
from support.label_server import LabelServer
from support.nrrd import read_nrrd
from support.slicer_client import save_node, slicer_client
from support.small_label_bundles import small_bundle, write_discs

pytestmark = pytest.mark.label
NAME = SSR.folder_name
OUTLINES = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<ASAP_Annotations>
  <Annotations Name="" Description="" X="0" Y="0" W="0" H="0">
    <Annotation Name="lesion" Type="Polygon" PartOfGroup="lesion" Color="#c80000">
      <Coordinates>
        <Coordinate Order="0" X="20" Y="15"/>
        <Coordinate Order="1" X="40" Y="15"/>
        <Coordinate Order="2" X="30" Y="35"/>
      </Coordinates>
    </Annotation>
  </Annotations>
  <AnnotationGroups>
    <Group Name="lesion" PartOfGroup="None" Color="#c80000"/>
  </AnnotationGroups>
</ASAP_Annotations>
"""
"""What QuPath's ``SubmitLabel`` writes of one annotation."""


@dataclass(frozen=True)
class Desk:
    """A running server and the true masks of its pictures."""

    server: LabelServer
    pictures: Path
    masks: Path

    @property
    def weights(self) -> Path:
        """What the server reads and trains."""
        return self.server.app_dir / "model" / NAME / "models" / "model.pt"

    def truth(self, name: str) -> np.ndarray:
        """``(H, W)``, of booleans."""
        return np.asarray(Image.open(self.masks / f"{name}.png")) > 0


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Start the server on six pictures without labels; a seventh stays with the annotator."""
    root = tmp_path_factory.mktemp("desk")
    write_discs(root / "pictures", root / "masks", 7)
    (root / "pictures" / "case_6.png").rename(root / "case_6.png")
    bundle = small_bundle(SSR, root / "bundles")
    with LabelServer(root / "pictures", [bundle], root / "app") as server:
        yield Desk(server, root / "pictures", root / "masks")


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    """Dice's coefficient."""
    assert mask.shape == truth.shape
    return float(2 * ((mask > 0) & truth).sum() / ((mask > 0).sum() + truth.sum()))


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/activelearning/first", {"image": "", "patch_size": [1024, 1024], "image_size": [0, 0]}),
        (f"/infer/wsi/{NAME}?output=asap&image=case_5", {"location": [0, 0], "size": [0, 0], "min_poly_area": 30}),
    ],
    ids=["next sample", "outlines of an image of the server"],
)
def test_qupath_is_answered_though_it_does_not_say_that_it_sends_json(
    desk: Desk, path: str, asked: dict[str, Any]
) -> None:
    answer = desk.server.post(path, data=json.dumps(asked))

    assert "Content-Type" not in answer.request.headers
    assert answer.status_code == 200


def test_a_page_has_to_say_that_it_sends_json(desk: Desk) -> None:
    """FastAPI takes JSON for text otherwise, since pages of other sites could send it so."""
    answer = desk.server.post("/activelearning/first", data="{}", headers={"Origin": desk.server.url})

    assert answer.status_code == 422


def test_qupath_s_outlines_train_as_a_mask(desk: Desk) -> None:
    server = desk.server
    asked = {"image": "", "patch_size": [1024, 1024], "image_size": [0, 0]}

    # with the header that QuPath leaves out
    sample = server.post("/activelearning/first", json=asked).json()
    patch = {"image": "case_3", "patch_size": [64, 64], "image_size": [88, 60]}
    next_patch = server.post("/activelearning/first", json=patch).json()
    exists = requests.head(f"{server.url}/datastore/image?image={sample['id']}", timeout=60)
    missing = requests.head(f"{server.url}/datastore/image?image=nobody", timeout=60)
    saved = submit(server, sample["id"], OUTLINES)

    assert (sample["id"], Path(sample["path"])) == ("case_0", desk.pictures / "case_0.png")
    # "Next Patch (from current Image)" names no patch: QuPath would draw a rectangle without a size
    assert "bbox" not in next_patch
    assert (exists.status_code, missing.status_code) == (200, 404)
    assert saved.json() == {"image": "case_0", "label": "case_0"}
    kept = desk.pictures / "labels" / "final" / "case_0.png"
    mask = np.asarray(Image.open(kept))
    assert mask.shape == desk.truth("case_0").shape
    assert np.array_equal(np.unique(mask), [0, 1])
    assert mask.sum() == pytest.approx(200, abs=10)  # half of 20 times 20
    assert (mask[16, 30], mask[33, 30], mask[36, 30]) == (1, 1, 0)
    assert server.post("/activelearning/first", json=asked).json()["id"] == "case_1"

    before = sha256_of(desk.weights)
    training = server.post(f"/train/{NAME}?run_sync=true", json={"max_epochs": 1, "val_split": 0, "device": "cpu"})
    requests.delete(f"{server.url}/datastore/label?id=case_0&tag=final", timeout=60)

    assert training.status_code == 200
    assert sha256_of(desk.weights) != before
    assert not kept.exists()


def test_outlines_of_an_unknown_class_are_refused_and_nothing_is_saved(desk: Desk) -> None:
    refused = submit(desk.server, "case_1", OUTLINES.replace("lesion", "Other"))

    assert refused.status_code == 400
    assert "'Other'" in refused.json()["detail"]
    assert "lesion" in refused.json()["detail"]
    assert not list(desk.pictures.glob("labels/final/case_1.*"))


def submit(server: LabelServer, image: str, outlines: str) -> requests.Response:
    """Do what QuPath's ``Submit Label`` does."""
    files = {"label": (f"{image}123.xml", outlines, "application/xml")}
    return server.put(f"/datastore/label?image={image}", files=files, data={"params": "{}"})


def test_slicer_uploads_labels_trains_and_gets_a_better_mask(desk: Desk, tmp_path: Path) -> None:
    client = slicer_client().MONAILabelClient(desk.server.url, tmpdir=str(tmp_path), client_id="slicer")

    def segment(name: str) -> np.ndarray:
        file, _ = client.infer(NAME, name, {"result_extension": ".nrrd", "result_dtype": "uint8"})
        mask, _ = read_nrrd(Path(file).read_bytes())
        return mask.reshape(mask.shape[-2:])

    # "Upload Volume": a PNG that was opened in 3D Slicer leaves it as NIfTI
    upload = save_node(np.asarray(Image.open(desk.pictures.parent / "case_6.png")), tmp_path / "volume.nii.gz")
    assert client.upload_image(str(upload), "case_6") == {"image": "case_6"}
    offered = client.info()
    assert offered["datastore"]["total"] == 7
    before, first = sha256_of(desk.weights), {name: segment(name) for name in ("case_5", "case_6")}

    # "Next Sample" and "Submit Label", until one picture and the uploaded volume are left
    labelled = []
    for number in range(5):
        sample = client.next_sample("first", {})
        labelled.append(sample["id"])
        assert Path(sample["path"]) == desk.pictures / f"{sample['id']}.png"
        label = save_node(desk.truth(sample["id"]).astype(np.int16), tmp_path / f"label_{number}.nii.gz")
        saved = client.save_label(sample["id"], str(label), params={"label_info": [{"name": "lesion", "idx": 1}]})
        assert saved["label"] == sample["id"]
    assert labelled == [f"case_{number}" for number in range(5)]
    kept: Any = nibabel.load(desk.pictures / "labels" / "final" / "case_0.nii.gz")
    assert np.array_equal(np.asarray(kept.dataobj)[:, :, 0].T > 0, desk.truth("case_0"))
    assert client.info()["datastore"]["completed"] == 5

    # "Train", with what the server offers, and the progress bar
    client.train_start(NAME, {**offered["trainers"][NAME]["config"], "max_epochs": 30, "val_split": 0.2})
    until = time.monotonic() + 180
    while client.train_status()["status"] in ("SUBMITTED", "RUNNING") and time.monotonic() < until:
        time.sleep(0.5)
    assert not client.train_status(check_if_running=True)
    assert client.train_status()["status"] == "DONE", desk.server.said()[-3000:]

    assert sha256_of(desk.weights) != before
    for name, mask in first.items():
        truth = desk.truth(name)
        after = segment(name)
        assert overlap(after, truth) > max(0.6, overlap(mask, truth) + 0.1)
        # a label that was mirrored or turned on its way would have taught the other place
        assert overlap(after, truth) > max(overlap(after, truth[::-1]), overlap(after, truth[:, ::-1])) + 0.2
