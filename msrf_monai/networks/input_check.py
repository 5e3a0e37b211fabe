"""The check that networks make of their input before anything is computed."""

from __future__ import annotations

import torch

from msrf_monai.errors import InputError

__all__ = ["check_channels"]


def check_channels(x: torch.Tensor, channels: int, *, spatial_dims: int = 2, advice: str | None = None) -> None:
    """Refuse an input of another form; while a network is traced nothing is compared, since sizes are no numbers then.

    TorchScript cannot compile it: call it behind ``if not torch.jit.is_scripting():``.

    Args:
        x: the input.
        channels: the number of channels it must have.
        spatial_dims: the number of spatial axes it must have.
        advice: what to do about another number of channels, instead of the general advice.

    Raises:
        InputError: when x is not ``(B, channels, *spatial)``.
    """
    is_tracing: bool = torch.jit.is_tracing()  # type: ignore[no-untyped-call]
    if is_tracing or (x.dim() == 2 + spatial_dims and x.shape[1] == channels):
        return
    axes = ", ".join(("depth", "height", "width")[-spatial_dims:])
    advice = advice or f"convert the image to {channels} channels or build the network with another in_channels"
    raise InputError(f"the input has shape {tuple(x.shape)}; expected (batch, {channels}, {axes}): {advice}")
