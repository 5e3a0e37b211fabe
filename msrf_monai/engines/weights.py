"""Weights from a file into a network, checked before anything is changed."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine
from monai.handlers.checkpoint_loader import CheckpointLoader
from torch import Tensor, nn

from msrf_monai.errors import CheckpointError, ConfigError
from msrf_monai.files import sha256_of
from msrf_monai.tensor_files import read_tensors

__all__ = [
    "LoadWeights",
    "fit_error",
    "load_weights",
    "read_tensors",
    "read_weights",
    "unwrap",
    "verified_file",
]

_LOGGER = logging.getLogger(__name__)
_NESTED = ("model", "network", "net", "state_dict")


def unwrap(network: nn.Module) -> nn.Module:
    """Return the network inside ``DistributedDataParallel``, ``DataParallel`` or a compiled module."""
    inner = getattr(network, "_orig_mod", network)
    if isinstance(inner, nn.parallel.DistributedDataParallel | nn.DataParallel):
        inner = inner.module
    return inner


def verified_file(path: str | os.PathLike[str] | None, *, sha256: str | None = None) -> str | None:
    """Return the path of a file of weights after comparing its digest, so that a configuration can ask for both.

    Args:
        path: the file; None stays None.
        sha256: the digest that it must have; None compares nothing.

    Returns:
        The path.

    Raises:
        CheckpointError: when the file is missing or has another digest.
        ConfigError: when there is a digest and no file.
    """
    if path is None:
        if sha256 is not None:
            raise ConfigError(
                f"the sha256 {sha256[:12]}… is given without a file of weights; give the file's path as well"
            )
        return None
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file of weights at {path}; give the path of one on this computer, or none")
    if sha256 is not None and (found := sha256_of(path)) != sha256.lower():
        raise CheckpointError(f"{path} is not the expected file: its SHA-256 is {found}, expected {sha256}")
    return str(path)


def read_weights(path: str | os.PathLike[str], *, sha256: str | None = None) -> dict[str, Tensor]:
    """Read a network's state dictionary from a file.

    Args:
        path: a ``.safetensors`` or ``.pt`` file with a plain state dictionary, or a dictionary that holds one as
            ``model``, ``network``, ``net`` or ``state_dict``. A leading ``module.`` of every name is dropped.
        sha256: the digest that the file must have.

    Returns:
        Names and tensors on the CPU.

    Raises:
        CheckpointError: as ``read_tensors``, and when there is no state dictionary in the file.
    """
    state = read_tensors(path, sha256=sha256)
    if isinstance(state, Mapping) and not _is_state(state):
        state = next((state[name] for name in _NESTED if _is_state(state.get(name))), None)
    if not _is_state(state):
        raise CheckpointError(f"{path} holds no network weights: expected a dictionary of tensors by parameter name")
    if all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return dict(state)


def load_weights(
    network: nn.Module, path: str | os.PathLike[str], *, sha256: str | None = None, strict: bool = True
) -> None:
    """Load a network's weights from a file; on any error the network keeps the weights it has.

    Args:
        network: takes the weights, on whatever device it is.
        path: see ``read_weights``.
        sha256: the digest that the file must have.
        strict: whether every tensor of the network must come from the file and every tensor of the file must have a
            place. If not, tensors with the same name and shape are loaded and the others are counted in the log.

    Raises:
        CheckpointError: when the file is missing, damaged, not the expected one, or made by another network.
    """
    target = unwrap(network)
    state = read_weights(path, sha256=sha256)
    own = target.state_dict()
    if strict:
        problem = fit_error(target, state)
        if problem is not None:
            raise CheckpointError(f"{path} does not fit this network: {problem}")
        target.load_state_dict(state)
        _LOGGER.info("loaded %d tensors from %s", len(state), path)
        return
    fitting = {name: tensor for name, tensor in state.items() if name in own and own[name].shape == tensor.shape}
    if not fitting:
        raise CheckpointError(f"{path} does not fit this network: none of its {len(state)} tensors has a place in it")
    target.load_state_dict(fitting, strict=False)
    _LOGGER.info("loaded %d of the network's %d tensors from %s", len(fitting), len(own), path)


def fit_error(network: nn.Module, state: Mapping[str, Tensor]) -> str | None:
    """Say in one sentence why a state dictionary does not fit a network.

    Args:
        network: the network that should take it.
        state: names and tensors.

    Returns:
        The first tensor of another shape with both shapes, how many are missing, unexpected and of another shape, and
        the width that the file seems to have; ``None`` when it fits.
    """
    own = network.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    mismatched = [name for name in own if name in state and state[name].shape != own[name].shape]
    if not (missing or unexpected or mismatched):
        return None
    counts = (
        f"{len(missing)} tensors missing, {len(unexpected)} unexpected, {len(mismatched)} of another shape "
        f"(the network has {len(own)}, the file {len(state)})"
    )
    if mismatched:
        first = mismatched[0]
        shapes = (
            f"{first} has shape {tuple(state[first].shape)} in the file and {tuple(own[first].shape)} in the network"
        )
        return f"{shapes}; {counts}{_width_hint(network, own, state, mismatched)}"
    first = f"{missing[0]} is missing in the file" if missing else f"{unexpected[0]} has no place in the network"
    return f"{first}; {counts}"


def _width_hint(
    network: nn.Module, own: Mapping[str, Tensor], state: Mapping[str, Tensor], mismatched: list[str]
) -> str:
    """Guess the file's width from the commonest ratio of output channels."""
    ratios = Counter(
        state[name].shape[0] / own[name].shape[0]
        for name in mismatched
        if state[name].ndim == own[name].ndim > 0 and own[name].shape[0] > 0
    )
    if not ratios:
        return ""
    ratio, _ = ratios.most_common(1)[0]
    if ratio == 1:
        return ""
    features = getattr(network, "features", None)
    if isinstance(features, int):
        return f"; the file looks like features={round(features * ratio)}, the network has features={features}"
    return f"; the file's layers look {ratio:g} times as wide"


def _is_state(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


class LoadWeights(CheckpointLoader):
    """MONAI's ``CheckpointLoader`` for network weights, with strict checks and errors that can be understood.

    It loads when the engine starts, unless ``TrainingState`` has resumed a saved run by then: that has its own weights.

    Args:
        load_path: the file, see ``read_weights``.
        load_dict: the networks to load by name; with one network the file is its plain state dictionary, with more
            the file holds a dictionary of state dictionaries by these names.
        sha256: the digest that the file must have.
        strict: see ``load_weights``.
        name: name of the logger, the engine's own by default.
        map_location: accepted as in MONAI and not needed: tensors are read on the CPU and copied to the network's
            device.
    """

    def __init__(
        self,
        load_path: str,
        load_dict: dict[str, nn.Module],
        *,
        sha256: str | None = None,
        strict: bool = True,
        name: str | None = None,
        map_location: Any = None,
    ) -> None:
        if not load_path or not load_dict:
            raise ConfigError("LoadWeights needs a load_path and a load_dict such as {'model': '@network'}")
        for key, value in load_dict.items():
            if not isinstance(value, nn.Module):
                raise ConfigError(
                    f"LoadWeights loads networks only, and load_dict[{key!r}] is a {type(value).__name__}; "
                    "use TrainingState with resume to restore optimisers and schedulers"
                )
        super().__init__(load_path, load_dict, name=name, map_location=map_location, strict=strict)
        self.sha256 = sha256

    def __call__(self, engine: Engine) -> None:
        """Load every network of ``load_dict``.

        Raises:
            CheckpointError: as ``load_weights``.
        """
        if engine.state.iteration > 0:  # evaluators start at 0 on every run, trainers only when they start afresh
            _LOGGER.info("going on with the weights of iteration %d, not %s", engine.state.iteration, self.load_path)
            return
        if len(self.load_dict) == 1:
            (network,) = self.load_dict.values()
            load_weights(network, self.load_path, sha256=self.sha256, strict=self.strict)
            return
        states = read_tensors(self.load_path, sha256=self.sha256)
        for name, network in self.load_dict.items():
            state: Any = states.get(name) if isinstance(states, Mapping) else None
            if not _is_state(state):
                raise CheckpointError(f"{self.load_path} holds no weights named {name!r}")
            problem = fit_error(unwrap(network), state)
            if problem is not None:
                raise CheckpointError(f"{name!r} of {self.load_path} does not fit its network: {problem}")
        for name, network in self.load_dict.items():
            unwrap(network).load_state_dict(states[name])
