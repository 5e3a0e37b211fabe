"""Weights for the copies of bundles in the app's folder: given ones, random ones to begin with, or a clear refusal."""

from __future__ import annotations

import io
import json
from pathlib import Path

from msrf_monai.errors import CheckpointError
from msrf_monai.files import sha256_of, write_bytes, write_text

__all__ = ["SEED", "has_weights", "install_weights", "is_untrained", "make_untrained"]

SEED = 0
"""Of random weights, so that two servers begin alike."""

_WEIGHTS = Path("models") / "model.pt"
_RECORD = Path("models") / "untrained.json"


def has_weights(bundle: Path) -> bool:
    """Tell whether a bundle has the file that MONAI Label reads."""
    return (bundle / _WEIGHTS).is_file()


def install_weights(bundle: Path, given: Path) -> None:
    """Put weights into a bundle, as a plain state dictionary.

    Args:
        bundle: folder of the copy.
        given: a ``.pt`` or ``.safetensors`` file; it must fit the bundle's network exactly, since MONAI Label itself
            loads what fits and leaves the rest random.

    Raises:
        CheckpointError: when the file is missing, damaged, or made by another network.
        ConfigError: when the bundle's configuration cannot be read.
    """
    if not given.is_file():
        raise CheckpointError(f"there is no file of weights at {given}; give the path of one on this computer")
    from msrf_monai.clinical.predictor_config import read_bundle
    from msrf_monai.clinical.predictor_weights import load_network

    network, _ = load_network(read_bundle(bundle), given)
    _save(bundle, network.state_dict())
    (bundle / _RECORD).unlink(missing_ok=True)


def make_untrained(bundle: Path) -> None:
    """Put random weights into a bundle, the same whenever it is done.

    Args:
        bundle: folder of the copy.

    Raises:
        ConfigError: when the bundle's configuration cannot be read.
    """
    import torch

    from msrf_monai.clinical.predictor_config import read_bundle

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = read_bundle(bundle).build("network_def")
    _save(bundle, network.state_dict())
    write_text(bundle / _RECORD, json.dumps({"sha256": sha256_of(bundle / _WEIGHTS), "seed": SEED}) + "\n")


def is_untrained(bundle: Path) -> bool:
    """Tell whether a bundle's weights are still the random ones, neither replaced nor fine-tuned."""
    try:
        record = json.loads((bundle / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return has_weights(bundle) and record.get("sha256") == sha256_of(bundle / _WEIGHTS)


def _save(bundle: Path, state: object) -> None:
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(bundle / _WEIGHTS, buffer.getvalue())
