"""The statistics of norms in several processes: each gathers its own, and only those of the first are saved."""

from __future__ import annotations

import torch
from torch import distributed, nn

__all__ = ["share_buffers"]


@torch.no_grad()
def share_buffers(network: nn.Module) -> None:
    """Give every process the buffers of the first, so that all of them validate the network that is saved.

    Args:
        network: it is changed in place. In a run of one process nothing happens.
    """
    if distributed.is_available() and distributed.is_initialized():
        for buffer in network.buffers():
            distributed.broadcast(buffer, src=0)
