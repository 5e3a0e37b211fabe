"""States as tensors and plain values, so that a file of them can be read without running any code."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msrf_monai.errors import ConfigError

__all__ = ["generator_states", "plain", "restore_generators"]


def plain(value: Any, where: str) -> Any:
    """Return a value with NumPy scalars and tensor subclasses made plain.

    Args:
        value: nested dictionaries, lists and tuples of tensors, numbers, strings, booleans and None.
        where: what to call it in an error.

    Returns:
        The same nesting; tensors share their storage with the originals.

    Raises:
        ConfigError: when something else is in it, which ``torch.load(weights_only=True)`` could not read back.
    """
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, Tensor):
        return value.detach().as_subclass(Tensor)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Counter):
        return Counter({key: plain(item, f"{where}[{key!r}]") for key, item in value.items()})
    if isinstance(value, Mapping):
        return {plain(key, where): plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    raise ConfigError(f"{where} is a {type(value).__name__}: only tensors and plain values can be saved for resume")


def generator_states() -> dict[str, Any]:
    """Return the states of the global generators of Python, NumPy and PyTorch (CPU and CUDA) as plain values."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 - others draw from it
    version, words, gauss = random.getstate()
    return {
        "python": [version, list(words), gauss],
        "numpy": [str(name), [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_generators(states: Mapping[str, Any]) -> None:
    """Set the global generators to saved states; CUDA's only where the number of devices is the same."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
