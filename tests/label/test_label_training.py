"""Labels that were submitted to the real server fine-tune a bundle, and its next masks are another network's."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from msrf_monai.files import sha256_of
from support.bundle_runs import BUNDLES
from support.label_server import LabelServer
from support.small_label_bundles import centre_threshold, small_bundles, write_discs

pytestmark = pytest.mark.label
NAMES = [bundle.folder_name for bundle in BUNDLES]
SSR = "ssr_unet_skin_lesion_segmentation"


@dataclass(frozen=True)
class School:
    """A server with labelled pictures."""

    server: LabelServer
    bundles: dict[str, Path]

    def weights(self, bundle: str) -> Path:
        """The weights that the server reads and trains."""
        return self.server.app_dir / "model" / bundle / "models" / "model.pt"

    def mask(self, bundle: str) -> np.ndarray:
        """What the server finds on a picture without a label."""
        answer = self.server.post(f"/infer/{bundle}?image=case_5&output=image")
        assert answer.status_code == 200, answer.text
        return np.asarray(Image.open(io.BytesIO(answer.content)))

    def train(self, bundle: str, **request: Any) -> None:
        """Train and wait until it is over."""
        answer = self.server.post(f"/train/{bundle}?run_sync=true", json=request)
        assert answer.status_code == 200, self.server.said()[-3000:]

    def epochs(self, bundle: str) -> list[dict[str, str]]:
        """The history that the training left."""
        path = self.server.app_dir / "model" / bundle / "eval" / "history.csv"
        return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Iterator[School]:
    """Start the server on six pictures and submit the masks of four."""
    root = tmp_path_factory.mktemp("school")
    names = write_discs(root / "pictures", root / "masks", 6)
    bundles = {path.name: path for path in small_bundles(root / "bundles").values()}
    for name, bundle in bundles.items():
        centre_threshold(bundle, root / "pictures", root / "results" / name)
    with LabelServer(root / "pictures", list(bundles.values()), root / "app") as server:
        for name in names[:4]:
            with (root / "masks" / f"{name}.png").open("rb") as mask:
                answer = server.put(
                    f"/datastore/label?image={name}&tag=final",
                    files={"label": mask},
                    data={"params": json.dumps({"label_info": [{"name": "disc", "idx": 1}]})},
                )
            assert answer.status_code == 200, answer.text
        yield School(server, bundles)


@pytest.mark.parametrize("bundle", NAMES)
def test_training_as_slicer_asks_for_it_changes_the_next_mask_and_runs_once(school: School, bundle: str) -> None:
    # Slicer sends back what /info/ offers; a run_id of "" makes MONAI evaluate the whole of train.json
    offered = school.server.get("/info/").json()["trainers"][bundle]["config"]
    assert offered["run_id"] == ""
    before, mask = sha256_of(school.weights(bundle)), school.mask(bundle)
    said = len(school.server.said())

    school.train(bundle, **{**offered, "max_epochs": 2, "val_split": 0.25, "device": "cpu"})

    log = school.server.said()[said:]
    assert log.count("Trainer - INFO - Engine run finished") == 1
    assert "Restored all variables from" in log  # it starts from the weights that the masks were made with
    assert [row["epoch"] for row in school.epochs(bundle)] == ["1", "2"]
    assert sha256_of(school.weights(bundle)) != before
    assert sha256_of(school.bundles[bundle] / "models" / "model.pt") == before
    assert (school.mask(bundle) != mask).any()


def test_training_without_validation_keeps_the_last_weights(school: School) -> None:
    before = sha256_of(school.weights(SSR))

    school.train(SSR, max_epochs=1, val_split=0, device="cpu")

    assert sha256_of(school.weights(SSR)) != before
    assert json.loads(school.weights(SSR).with_suffix(".json").read_text())["metric"] is None


def test_training_learns_what_the_labels_show(school: School) -> None:
    disc = np.asarray(Image.open(school.bundles[SSR].parents[1] / "masks" / "case_5.png")) > 0

    school.train(SSR, max_epochs=30, val_split=0.25, device="cpu")

    best = max(float(row["val_dice"]) for row in school.epochs(SSR))
    mask = school.mask(SSR) > 0
    assert best > 0.7
    assert 2 * (mask & disc).sum() / (mask.sum() + disc.sum()) > 0.6
