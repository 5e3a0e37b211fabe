"""ImageNet weights in torchvision's layout, from a file on this computer into a trunk, strictly; never a download."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from msrf_monai.errors import CheckpointError
from msrf_monai.files import sha256_of
from msrf_monai.networks.backbones import Backbone, DenseNet201Taps, VGG16Taps
from msrf_monai.tensor_files import read_tensors

__all__ = ["BackboneWeights", "load_backbone_weights"]

logger = logging.getLogger(__name__)

_OLD_SPELLING = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
_COUNTER = ".num_batches_tracked"


@dataclass(frozen=True)
class BackboneWeights:
    """Where the weights of a trunk came from, for the record of a training run."""

    file: str
    """Name of the file, without its folder."""
    sha256: str
    """Its digest."""
    matched: int
    """How many tensors the trunk took."""
    unmatched: tuple[str, ...]
    """Names in the file that have no place in the trunk: the classifier, layers after the last tap, anything else."""


def load_backbone_weights(
    backbone: VGG16Taps | DenseNet201Taps, path: str | os.PathLike[str], *, sha256: str | None = None
) -> BackboneWeights:
    """Load ImageNet weights in torchvision's layout into a trunk; on any error it keeps the weights it has.

    Every tensor of the trunk must be in the file with the right shape (the norms' counters, which old files have not,
    excepted). Both spellings of DenseNet's layers are taken, ``denselayer1.norm.1`` and ``denselayer1.norm1``.

    Args:
        backbone: the trunk; changed in place.
        path: a ``.safetensors`` file, or a state dictionary of ``torch.save``, which is read with
            ``weights_only=True``.
        sha256: the digest that the file must have, if it is known.

    Returns:
        The record of what was loaded.

    Raises:
        CheckpointError: when the file is missing, unreadable or not the expected one, or does not hold the whole trunk.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"there is no file of backbone weights at {path}; give the path of a file in torchvision's layout, which "
            "this package never downloads, or none to start from random weights"
        )
    given = {_OLD_SPELLING.sub(r"\1\2.", name): tensor for name, tensor in _read(path, sha256).items()}
    digest = sha256_of(path)
    matched, unmatched = _fill(backbone, given, path)
    strange = [name for name in unmatched if not name.startswith(backbone.unused)]
    if strange:
        logger.warning("%d tensors of %s have no place in the trunk: %s", len(strange), path, ", ".join(strange[:5]))
    logger.info(
        "loaded %d tensors into %s from %s (sha256 %s); %d of the file's are not used",
        matched,
        type(backbone).__name__,
        path,
        digest,
        len(unmatched),
    )
    return BackboneWeights(path.name, digest, matched, tuple(unmatched))


def _read(path: Path, sha256: str | None) -> Mapping[str, Tensor]:
    state = read_tensors(path, sha256=sha256)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no state dictionary: expected tensors by torchvision's names")
    return state


def _fill(backbone: Backbone, given: Mapping[str, Tensor], path: Path) -> tuple[int, list[str]]:
    """Copy the whole trunk or nothing; return how many tensors were copied, and the file's names that were not."""
    own = backbone.state_dict()
    places = backbone.torchvision_names()
    places = {name: theirs for name, theirs in places.items() if theirs in given or not name.endswith(_COUNTER)}
    missing = [theirs for theirs in places.values() if theirs not in given]
    wrong = [
        f"{theirs} has shape {tuple(given[theirs].shape)}, expected {tuple(own[name].shape)}"
        for name, theirs in places.items()
        if theirs in given and given[theirs].shape != own[name].shape
    ]
    if missing or wrong:
        first = wrong[0] if wrong else f"{missing[0]} is missing"
        raise CheckpointError(
            f"{path} does not hold the trunk of {type(backbone).__name__} in torchvision's layout: {first}; "
            f"{len(missing)} tensors missing and {len(wrong)} of another shape, of {len(places)}"
        )
    backbone.load_state_dict({name: given[theirs] for name, theirs in places.items()}, strict=False)
    used = set(places.values())
    return len(places), sorted(name for name in given if name not in used)
