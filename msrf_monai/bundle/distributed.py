"""Start and end of a run in several processes."""

from __future__ import annotations

import logging

import torch
import torch.distributed as dist

__all__ = ["start_process_group", "stop_process_group"]


def start_process_group(device: torch.device) -> None:
    """Join the processes that torchrun started: NCCL on CUDA devices, Gloo on CPUs.

    Processes other than the first log warnings only, so that each line appears once.

    Args:
        device: this process's own device.
    """
    if not dist.is_initialized():
        dist.init_process_group(backend="nccl" if device.type == "cuda" else "gloo")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if dist.get_rank() > 0:
        logging.getLogger().setLevel(logging.WARNING)


def stop_process_group() -> None:
    """Leave the group of processes, when there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
