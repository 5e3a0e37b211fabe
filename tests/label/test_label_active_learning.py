"""Uncertainty by dropout, scored on the real server, decides which picture is offered next."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.bundle_runs import BUNDLES
from support.label_server import LabelServer
from support.real_data import REPOSITORY
from support.small_label_bundles import bright_bundle, small_bundle

pytestmark = pytest.mark.label
SHARES = {"black": 0.0, "quarter": 0.25, "half": 0.5, "bright": 1.0}
"""Pictures, and the share of each that is bright: the only part that dropout changes."""
DROPOUT, PASSES = 0.2, 5
"""MONAI Label's own defaults."""
ROWS, COLUMNS = 300, 440
"""So many pixels that chance moves a score by half a percent."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    """Start the server with a bundle of the network that can be calculated, and score the pictures."""
    root = tmp_path_factory.mktemp("ranking")
    bundle = bright_bundle(root / "bundles", [COLUMNS, ROWS])
    (root / "pictures").mkdir()
    for name, share in SHARES.items():
        pixels = np.zeros((ROWS, COLUMNS), np.uint8)
        pixels[:, : round(COLUMNS * share)] = 255
        Image.fromarray(pixels).save(root / "pictures" / f"{name}.png")
    variables = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
    started = LabelServer(root / "pictures", [bundle], root / "app", "--epistemic", bundle.name, variables=variables)
    with started as running:
        wait_for_scores(running, 1)
        yield running


def wait_for_scores(server: LabelServer, bundles: int) -> None:
    """Wait for the scores that the server begins with by itself, bundle after bundle."""
    until = time.monotonic() + 600
    while server.said().count("EPISTEMIC:: {'total'") < bundles:
        assert time.monotonic() < until, server.said()[-3000:]
        time.sleep(0.2)


def expected_score(share: float) -> tuple[float, float]:
    """The mean of - p log p over the pixels, where p is how often a pixel is found in all passes; its standard error.

    A bright pixel is found unless it is dropped; its count is binomial. MONAI Label takes 0.00005 for 0, pass by pass.
    """
    found = np.arange(PASSES + 1)
    chances = np.array([math.comb(PASSES, k) * (1 - DROPOUT) ** k * DROPOUT ** (PASSES - k) for k in found])
    p = (found + (PASSES - found) * 0.00005) / PASSES
    terms = -p * np.log(p)
    bright = chances @ terms
    deviation = math.sqrt(chances @ (terms - bright) ** 2)
    return share * bright + (1 - share) * terms[0], deviation * math.sqrt(share / (ROWS * COLUMNS))


@pytest.mark.parametrize("name", list(SHARES))
def test_the_score_of_a_picture_is_what_its_network_gives_by_hand(server: LabelServer, name: str) -> None:
    info = server.get(f"/datastore/image/info?image={name}").json()

    score, error = expected_score(SHARES[name])
    assert info["epistemic_entropy"] == pytest.approx(score, abs=6 * error + 1e-6)


def test_the_least_certain_picture_is_offered_first_and_each_but_once(server: LabelServer) -> None:
    assert "epistemic" in server.get("/info/").json()["strategies"]

    offered = [server.post("/activelearning/epistemic", json={}).json()["id"] for _ in SHARES]

    assert offered == ["bright", "half", "quarter", "black"]


def test_a_picture_with_a_label_is_not_offered(server: LabelServer, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((ROWS, COLUMNS), np.uint8)).save(tmp_path / "bright.png")
    with (tmp_path / "bright.png").open("rb") as mask:
        server.put("/datastore/label?image=bright&tag=final", files={"label": mask})

    offered = set()
    for _ in SHARES:
        offered.add(server.post("/activelearning/epistemic", json={}).json()["id"])
        time.sleep(1.1)  # MONAI Label knows to the second what it has offered: within one it offers the same again

    assert offered == set(SHARES) - {"bright"}


@pytest.mark.slow
def test_every_bundle_is_scored(tmp_path: Path) -> None:
    """Their own networks, in training mode with the dropout that MONAI Label sets."""
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(2)
    for index in range(2):
        pixels = rng.integers(0, 256, (60, 88, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"noise_{index}.png")
    bundles = [small_bundle(bundle, tmp_path / "bundles") for bundle in BUNDLES]
    names = [bundle.name for bundle in bundles]

    for age, bundle in enumerate(bundles):  # MONAI Label knows by the time of the file whose scores it has
        os.utime(bundle / "models" / "model.pt", (age, 1_000_000_000 + age))

    with LabelServer(tmp_path / "pictures", bundles, tmp_path / "app", "--epistemic", ",".join(names)) as server:
        assert sorted(server.get("/info/").json()["scoring"]) == sorted(names)
        wait_for_scores(server, len(names))

        scores = re.findall(r"noise_\d => iters: 5; entropy: ([\d.]+|nan)", server.said())

    assert len(scores) == 2 * len(names)
    assert all(float(score) > 0 for score in scores), scores
