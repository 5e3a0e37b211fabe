"""Bundles with random weights, made once, and pictures for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from msrf_monai.bundle import build_network
from support.predictor_bundles import OURS, ROOT, Tiny, picture, shake, stock_config, stock_metadata


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tiny]:
    """Make one of our bundles small."""
    made: dict[str, Tiny] = {}

    def make(name: str) -> Tiny:
        if name not in made:
            folder, overrides = OURS[name]
            torch.manual_seed(3)
            network = shake(build_network(ROOT / folder, **dict(overrides)))
            weights = tmp_path_factory.mktemp(name) / "model.pt"
            torch.save(network.state_dict(), weights)
            made[name] = Tiny(ROOT / folder, overrides, weights)
        return made[name]

    return make


@pytest.fixture(autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the user an empty cache folder, so that no test finds or leaves exported networks in the real one."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.delenv("MSRF_NETWORK_CACHE", raising=False)
    return folder


@pytest.fixture
def stock(tmp_path: Path) -> Callable[..., Tiny]:
    """Write a bundle of MONAI's own parts; ``change`` edits its configuration, ``describe`` its metadata."""

    def make(
        channels: int = 3,
        planes: int = 2,
        change: Callable[[dict[str, Any]], None] | None = None,
        describe: Callable[[dict[str, Any]], None] | None = None,
    ) -> Tiny:
        folder = tmp_path / f"stock{len(list(tmp_path.glob('stock*')))}"
        (folder / "configs").mkdir(parents=True)
        (folder / "models").mkdir()
        config, metadata = stock_config(channels, planes), stock_metadata(channels, planes)
        if change is not None:
            change(config)
        if describe is not None:
            describe(metadata)
        (folder / "configs" / "inference.json").write_text(json.dumps(config))
        (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
        torch.manual_seed(5)
        network = shake(build_network(folder))
        torch.save(network.state_dict(), folder / "models" / "model.pt")
        return Tiny(folder, (), folder / "models" / "model.pt")

    return make


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Not square, asymmetric, of different sizes: RGB, grey and 16-bit grey."""
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(picture()).save(folder / "colour.png")
    Image.fromarray(picture(38, 71, seed=1)[..., 1]).save(folder / "grey.png")
    deep = picture(52, 49, seed=2)[..., 0].astype(np.uint16) * 211 + 7
    Image.fromarray(deep).save(folder / "deep.png")
    return folder
