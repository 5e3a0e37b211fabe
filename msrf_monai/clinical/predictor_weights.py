"""A bundle's network with its weights: the right file, the listed digest, nothing executed while it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from msrf_monai.clinical.predictor_config import BundleConfig
from msrf_monai.engines.weights import load_weights
from msrf_monai.errors import CheckpointError, ConfigError
from msrf_monai.files import sha256_of
from msrf_monai.optional import require

__all__ = ["find_weights", "load_network"]

_LISTS = ("large_files.yml", "large_files.yaml")
_PLACES = ("models/model.pt", "models/model.safetensors")
_HASHES = ("sha256", "sha512", "sha1", "md5")


def find_weights(config: BundleConfig, given: Path | None) -> Path:
    """Return the file of weights: the one given, the one the configuration names, or the usual one.

    Args:
        config: the bundle's.
        given: a file instead of the bundle's own.

    Raises:
        CheckpointError: when there is none.
    """
    if given is not None:
        if not given.is_file():
            raise CheckpointError(f"there is no file of weights at {given}; give the path of one on this computer")
        return given
    named = [Path(path) for path in _named(config)]
    # a bundle's paths are meant to be seen from its folder
    tried = [path if path.is_absolute() or path.is_file() else config.folder / path for path in named]
    tried += [config.folder / place for place in _PLACES]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        raise CheckpointError(
            f"{config.folder} has no weights: there is no file at {tried[0]}; train it or fetch them, or give a file"
        )
    return found


def _named(config: BundleConfig) -> Iterator[str]:
    if config.has("weights"):
        weights = config.build("weights")
        if isinstance(weights, str):
            yield weights
    for component in _handlers(config.parser.get()):
        if "load_path" in component and str(component.get("_target_")).endswith(("CheckpointLoader", "LoadWeights")):
            load_path = component["load_path"]
            if isinstance(load_path, str) and not load_path.startswith(("$", "@")):
                yield load_path


def _handlers(config: Any) -> Iterator[dict[str, Any]]:
    for child in config.values() if isinstance(config, dict) else config:
        if isinstance(child, dict):
            yield child
        if isinstance(child, (dict, list)):
            yield from _handlers(child)


def load_network(config: BundleConfig, weights: Path) -> tuple[nn.Module, str]:
    """Build the network on the CPU, in evaluation mode, and load its weights.

    Args:
        config: the bundle's.
        weights: the file; when ``large_files.yml`` lists it, it must have the digest that stands there.

    Returns:
        The network and the file's SHA-256.

    Raises:
        CheckpointError: when the file is not the listed one, damaged, or made by another network.
        ConfigError: when the configuration has no 2-D network.
    """
    digest = sha256_of(weights)
    _check_listed(config.folder, weights, digest)
    name = "network_def" if config.has("network_def") else "network"
    network = config.build(name)
    if not isinstance(network, nn.Module):
        raise ConfigError(f'"{name}" of {config.file} is a {type(network).__name__}; expected a torch.nn.Module')
    if any(isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)) for module in network.modules()):
        raise ConfigError(f"{config.folder} segments volumes, and only bundles for 2-D images can be used here")
    load_weights(network, weights, sha256=digest)
    return network.cpu().eval(), digest


def _check_listed(folder: Path, weights: Path, sha256: str) -> None:
    listing = next((folder / name for name in _LISTS if (folder / name).is_file()), None)
    if listing is None:
        return
    content = require("yaml", "clinical").safe_load(listing.read_text(encoding="utf-8"))
    entries = (content or {}).get("large_files") or [] if isinstance(content, Mapping) else []
    for entry in entries:
        if not isinstance(entry, Mapping) or (folder / str(entry.get("path"))).resolve() != weights.resolve():
            continue
        kind, expected = str(entry.get("hash_type") or "sha256"), str(entry.get("hash_val") or "")
        if not expected or kind not in _HASHES:
            continue
        found = sha256 if kind == "sha256" else _digest(weights, kind)
        if found != expected.lower():
            raise CheckpointError(
                f"{weights} is not the file that {listing.name} lists: its {kind} is {found}, expected {expected}; "
                "fetch it again"
            )


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, kind).hexdigest()
