"""Work on a few planes of a map at a time, so that what lies between stays in a core's cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

__all__ = ["is_exporting", "map_planes"]

_PIECE = 1 << 19
"""Pixels of a piece: two mebibytes in float32."""


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
    arguments = [
        t.expand(batch, *t.shape[1:]).reshape(1, count, *t.shape[2:]) for t in (_plane_by_plane(x), *parameters)
    ]
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


def _plane_by_plane(x: torch.Tensor) -> torch.Tensor:
    """Return a map whose planes lie one after the other; from channels last ``contiguous`` takes 3 times as long."""
    if x.is_contiguous() or x.device.type != "cpu":
        return x
    if x.requires_grad and torch.is_grad_enabled():
        planes: torch.Tensor = _PlaneByPlane.apply(x)  # type: ignore[no-untyped-call]
        return planes
    return _to_planes(x)


def _to_planes(x: torch.Tensor) -> torch.Tensor:
    planes = x.new_empty(x.shape)
    for source, target in zip(x, planes, strict=True):
        # Two axes, since PyTorch turns a matrix over block by block and larger tensors element by element.
        target.flatten(1).copy_(source.movedim(0, -1).reshape(-1, x.shape[1]).t())
    return planes


class _PlaneByPlane(torch.autograd.Function):
    """``_to_planes`` whose gradient lies channels last again, as the map it is for."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return _to_planes(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        channels_last = gradient.new_empty(gradient.shape[0], *gradient.shape[2:], gradient.shape[1])
        for source, target in zip(gradient, channels_last, strict=True):
            target.view(-1, gradient.shape[1]).copy_(source.flatten(1).t())
        return channels_last.movedim(-1, 1)


def is_exporting() -> bool:
    """Return whether the program is being traced or exported, so that no loop may depend on the input's size."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[no-untyped-call]
    return tracing or torch.compiler.is_compiling()
