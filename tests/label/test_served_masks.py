"""Every bundle on every kind of picture: the server's mask is the one that the bundle gives without MONAI Label."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from support.bundle_runs import BUNDLES
from support.label_pictures import DICOM_SAMPLES, PICTURES

pytestmark = pytest.mark.label
NAMES = [bundle.folder_name for bundle in BUNDLES]
LABELS = {
    "msrf_net_polyp_segmentation": "polyp",
    "ssr_unet_skin_lesion_segmentation": "lesion",
    "imff_net_retinal_vessel_segmentation": "vessel",
    "higmisnet_breast_ultrasound_segmentation": "lesion",
}


def test_all_bundles_are_listed_with_their_labels(studio):
    said = studio.server.get("/info/").json()

    assert {name: model["labels"] for name, model in said["models"].items()} == {
        name: {label: 1} for name, label in LABELS.items()
    }
    assert {model["type"] for model in said["models"].values()} == {"segmentation"}
    assert {model["dimension"] for model in said["models"].values()} == {2}
    assert sorted(said["trainers"]) == sorted(LABELS)
    assert sorted(said["labels"]) == ["lesion", "polyp", "vessel"]


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("bundle", NAMES)
def test_the_mask_is_the_one_of_the_bundle_itself(studio, bundle, picture, request):
    if picture in DICOM_SAMPLES:
        request.getfixturevalue("dicom_samples")
    stem = picture.partition(".")[0]

    answer = studio.server.post(f"/infer/{bundle}", params={"image": stem, "output": "image"})

    assert answer.status_code == 200, studio.server.said()[-2000:]
    assert answer.headers["content-type"] == "image/png"
    mask = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert mask.dtype == np.uint8
    assert studio.differing(mask, bundle, picture) == 0
