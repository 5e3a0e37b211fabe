"""Processes that torchrun has started again."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

__all__ = ["rejoin_processes"]


def rejoin_processes(device: torch.device) -> None:
    """Join the processes that torchrun started once more, after one had died; at the first start do nothing.

    torchrun keeps one store of addresses for all its starts. A process of a later start may find there the address of
    one that is dead, before its living successor has written its own, and waits for it in vain. So each start after the
    first has its own place in the store. Call it before ``msrf_monai.bundle.start_process_group``, which keeps a group
    that is there.

    Args:
        device: this process's own device: NCCL on CUDA devices, Gloo on CPUs.
    """
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if start == "0" or dist.is_initialized():
        return
    store, rank, world_size = next(rendezvous("env://"))
    dist.init_process_group(
        backend="nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore(f"start_{start}", store),
        rank=rank,
        world_size=world_size,
    )
