"""Copies of our bundles, small enough to be trained and used by MONAI Label in a test."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from support.bundle_runs import BUNDLES, Bundle
from support.predictor_bundles import shake

__all__ = ["small_bundle", "small_bundles"]


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
        ("inference.json", bundle.network),
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
