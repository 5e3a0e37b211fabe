"""One server for all tests of this folder that need pictures in a folder, and small bundles for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.label_pictures import write_pictures
from support.label_server import NO_NETWORK, LabelServer
from support.predictor_bundles import Tiny, gap_threshold
from support.real_data import data_folder
from support.small_label_bundles import small_bundles


@dataclass(frozen=True)
class Studio:
    """A running server, its pictures and its bundles."""

    server: LabelServer
    pictures: Path
    bundles: dict[str, Path]
    probabilities: dict[tuple[str, str], np.ndarray]
    """``(H, W)`` by bundle and name of the picture, from ``python -m monai.bundle run`` without MONAI Label."""
    thresholds: dict[str, float]

    def differing(self, mask: np.ndarray, bundle: str, picture: str) -> int:
        """Count the pixels that differ from the bundle's own mask, leaving out those that rounding decides."""
        probability, threshold = self.probabilities[bundle, picture], self.thresholds[bundle]
        assert mask.shape == probability.shape
        # other builds of the libraries round otherwise; how much it matters is a matter of the network's spread
        spread = float(np.subtract(*np.percentile(probability, (95, 5))))
        decided = np.abs(probability - threshold) > max(0.003 * spread, 3e-5)
        expected = probability > threshold
        assert 0 < expected.sum() < expected.size
        assert decided.mean() > 0.95
        return int(np.count_nonzero((mask != expected) & decided))


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """Start the server on pictures of every kind with all bundles, where no network is reached."""
    root = tmp_path_factory.mktemp("label")
    data = data_folder()
    samples = data / "dicom_samples" if data and (data / "dicom_samples").is_dir() else None
    paths = write_pictures(root / "pictures", samples)
    bundles = {path.name: path for path in small_bundles(root / "bundles").values()}
    probabilities, thresholds = {}, {}
    for name, bundle in bundles.items():
        results = Tiny(bundle, (), bundle / "models" / "model.pt").evaluate(
            root / "pictures", root / "results" / name, ("save_probabilities", True)
        )
        found = {path.name: _probability(results, path) for path in paths}
        probabilities.update({(name, picture): found[picture] for picture in found})
        thresholds[name] = _set_threshold(bundle, np.concatenate([each.ravel() for each in found.values()]))
    with LabelServer(root / "pictures", list(bundles.values()), root / "app", variables=NO_NETWORK) as server:
        yield Studio(server, root / "pictures", bundles, probabilities, thresholds)


def _probability(results: Path, picture: Path) -> np.ndarray:
    (path,) = results.glob(f"{picture.stem}_prob*.png")
    return np.asarray(Image.open(path)).astype(np.float64) / 65535


def _set_threshold(bundle: Path, probabilities: np.ndarray) -> float:
    """Make the masks of a random network neither empty nor full."""
    path = bundle / "configs" / "inference.json"
    config = json.loads(path.read_text())
    config["threshold"] = gap_threshold(probabilities)
    path.write_text(json.dumps(config, indent=4))
    return float(config["threshold"])
