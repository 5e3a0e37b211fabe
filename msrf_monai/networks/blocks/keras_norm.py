"""Batch normalisation with the constants of the Keras originals."""

from __future__ import annotations

from torch import nn

__all__ = ["keras_batch_norm"]


def keras_batch_norm(channels: int, *, eps: float = 1e-3) -> nn.BatchNorm2d:
    """Return a batch norm with Keras' defaults: eps 1e-3 and momentum 0.99, which PyTorch writes as 0.01.

    Args:
        channels: channels to normalise.
        eps: added to the variance.

    Returns:
        The layer for ``(B, channels, H, W)``.
    """
    return nn.BatchNorm2d(channels, eps=eps, momentum=0.01)
