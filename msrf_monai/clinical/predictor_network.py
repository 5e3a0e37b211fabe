"""A bundle's network with its weights and all that a backend may need to know of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msrf_monai.clinical.backends import Runnable
from msrf_monai.clinical.predictor_config import BundleConfig
from msrf_monai.clinical.predictor_weights import find_weights, load_network

__all__ = ["digest_of", "load_runnable"]


def load_runnable(
    config: BundleConfig,
    *,
    weights: Path | None = None,
    overrides: Sequence[tuple[str, Any]] = (),
    cache: Path | None = None,
    num_threads: int | None = None,
) -> Runnable:
    """Build a bundle's network on the CPU and load its weights.

    Args:
        config: the bundle's, with its overrides.
        weights: a file of weights instead of the bundle's own.
        overrides: those that ``config`` was read with.
        cache: folder of exported networks; None for the user's own.
        num_threads: CPU threads of the runtimes of exported networks; None leaves it to them.

    Returns:
        The network, for ``build_backend``.

    Raises:
        ConfigError: when the configuration has no 2-D network.
        CheckpointError: when there are no weights, or not the listed ones, or they do not fit the network.
    """
    network, weights_digest = load_network(config, find_weights(config, weights))
    return Runnable(
        network,
        config.folder,
        config.file.name,
        dict(overrides),
        _input_shape(config),
        digest_of(weights=weights_digest, config=config.resolved, overrides=overrides),
        cache,
        num_threads,
    )


def digest_of(**parts: Any) -> str:
    """Return the SHA-256 of named values as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _input_shape(config: BundleConfig) -> tuple[int, int, int, int]:
    """Return a shape that the network takes: that of the metadata, or 64 by 64 where it says none."""
    planes: Any = config.described("inputs", "image", "num_channels")
    if planes is None and config.has("network_def::in_channels"):
        planes = config.build("network_def::in_channels")
    size: Any = config.described("inputs", "image", "spatial_shape")
    is_plain = isinstance(size, Sequence) and len(size) == 2 and all(isinstance(length, int) for length in size)
    height, width = size if is_plain else (64, 64)
    return 1, int(planes or 3), int(height), int(width)
