"""Copies of our bundles, small enough to be trained and used by MONAI Label in a test."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from PIL import Image

from support.bundle_runs import BUNDLES, SSR, Bundle
from support.label_networks import BrightnessNet
from support.predictor_bundles import Tiny, gap_threshold, shake

__all__ = ["bright_bundle", "centre_threshold", "small_bundle", "small_bundles", "write_discs"]


def small_bundles(folder: Path, **more: dict[str, Any]) -> dict[str, Path]:
    """Write all of our bundles with small networks and seeded weights.

    Args:
        folder: where; each bundle gets a folder of its own name.
        more: further overrides of ``train.json`` by the short name of the bundle.

    Returns:
        The bundles by their short names.
    """
    return {one.name: small_bundle(one, folder, more.get(one.name)) for one in BUNDLES}


def small_bundle(bundle: Bundle, folder: Path, training: dict[str, Any] | None = None) -> Path:
    """Write one bundle with its small settings in the files themselves, as MONAI Label takes no overrides.

    Args:
        bundle: which one.
        folder: where its folder is made.
        training: further overrides of ``train.json``.

    Returns:
        The bundle's folder.
    """
    root = folder / bundle.folder_name
    shutil.copytree(bundle.folder, root, ignore=shutil.ignore_patterns("model.*", "data", "eval", "docs"))
    (root / "large_files.yml").unlink(missing_ok=True)
    for name, overrides in (
        ("inference.json", {**bundle.network, "threshold": 0.5}),  # the one that is stored belongs to trained weights
        ("train.json", {**bundle.network, **bundle.training, **(training or {})}),
    ):
        parser = ConfigParser()
        parser.read_config(str(root / "configs" / name))
        for key, value in overrides.items():
            parser.set(value, key.replace("::", "#"))
        (root / "configs" / name).write_text(json.dumps(parser.get(), indent=4))
    torch.manual_seed(3)
    network = parser.get_parsed_content("network_def")
    (root / "models").mkdir(exist_ok=True)
    torch.save(shake(network).state_dict(), root / "models" / "model.pt")
    return root


def bright_bundle(folder: Path, patch_size: list[int]) -> Path:
    """Write the skin bundle with a network that marks what is bright, at the images' own size.

    Args:
        folder: where its folder is made.
        patch_size: of the sliding windows.

    Returns:
        The bundle's folder.
    """
    root = small_bundle(SSR, folder)
    file = root / "configs" / "inference.json"
    config: dict[str, Any] = json.loads(file.read_text())
    config["network_def"] = {"_target_": "support.label_networks.BrightnessNet", "dropout": 0.0}
    config |= {"image_size": None, "patch_size": patch_size}
    file.write_text(json.dumps(config))
    torch.save(BrightnessNet().state_dict(), root / "models" / "model.pt")
    return root


def centre_threshold(bundle: Path, images: Path, scratch: Path) -> float:
    """Set a bundle's threshold where the masks of its random network are neither empty nor full, and return it."""
    results = Tiny(bundle, (), bundle / "models" / "model.pt").evaluate(images, scratch, ("save_probabilities", True))
    found = [np.asarray(Image.open(path)).ravel() / 65535 for path in sorted(results.glob("*_prob*.png"))]
    path = bundle / "configs" / "inference.json"
    config = json.loads(path.read_text())
    config["threshold"] = gap_threshold(np.concatenate(found))
    path.write_text(json.dumps(config, indent=4))
    return float(config["threshold"])


def write_discs(images: Path, masks: Path, count: int) -> list[str]:
    """Write colour pictures of 88 x 60 pixels with one disc each, and the discs as masks {0, 1}; return their names."""
    rng = np.random.default_rng(0)
    names = [f"case_{index}" for index in range(count)]
    for index, name in enumerate(names):
        down, across = np.mgrid[:60, :88]
        disc = (down - 20 - 3 * index) ** 2 + (across - 25 - 6 * index) ** 2 < (10 + index) ** 2
        picture = np.where(disc[..., None], (200, 60, 60), (90, 140, 120)) + rng.normal(0, 8, (60, 88, 3))
        for folder, pixels in ((images, picture.clip(0, 255)), (masks, disc)):
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}.png")
    return names
