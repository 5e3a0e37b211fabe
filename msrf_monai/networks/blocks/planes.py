"""Work on a few planes of a map at a time, so that what lies between stays in a core's cache."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

__all__ = ["is_exporting", "map_planes"]

_PIECE = 1 << 17
"""Pixels of a piece: half a mebibyte in float32."""


def map_planes(function: Callable[..., torch.Tensor], x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
    """Apply a function of planes (one channel of one image each) to a few planes at a time.

    In training each piece is computed again in the backward pass; on a CPU that takes less time than fetching what it
    would have to keep, and it keeps next to nothing. On other devices there is one piece.

    Args:
        function: takes planes ``(1, n, *spatial)`` and the parameters of these planes, each ``(1, n, …)``; returns a
            tensor ``(1, n, …)``.
        x: map ``(B, C, *spatial)``.
        parameters: values for each plane, ``(B, C, …)`` or ``(1, C, …)``.

    Returns:
        The results put together, ``(B, C, …)``.
    """
    batch, channels = x.shape[:2]
    count = batch * channels
    arguments = [t.expand(batch, *t.shape[1:]).reshape(1, count, *t.shape[2:]) for t in (x, *parameters)]
    step = max(1, _PIECE * count // max(1, x.numel())) if x.device.type == "cpu" else count
    results = []
    # Not slices: the backward pass of each would fill a map of zeros.
    for piece in zip(*(torch.split(t, step, dim=1) for t in arguments), strict=True):
        if torch.is_grad_enabled():
            results.append(checkpoint(function, *piece, use_reentrant=False, preserve_rng_state=False))
        else:
            results.append(function(*piece))
    result = torch.cat(results, dim=1)
    return result.reshape(batch, channels, *result.shape[2:])


def is_exporting() -> bool:
    """Return whether the program is being traced or exported, so that no loop may depend on the input's size."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[no-untyped-call]
    return tracing or torch.compiler.is_compiling()
