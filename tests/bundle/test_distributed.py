"""Joining and leaving a group of processes, with one process."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from msrf_monai.bundle import start_process_group, stop_process_group

CPU = torch.device("cpu")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What torchrun puts into the environment of a single process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port), ("RANK", "0"), ("WORLD_SIZE", "1")):
        monkeypatch.setenv(name, value)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.fixture
def root_level() -> Iterator[int]:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.INFO)
    yield logging.INFO
    root.setLevel(level)


@pytest.mark.usefixtures("launched")
def test_cpu_process_joins_over_gloo_adds_up_and_leaves(root_level: int) -> None:
    start_process_group(CPU)
    total = torch.tensor([3.0])
    dist.all_reduce(total)
    state = (dist.get_backend(), dist.get_rank(), dist.get_world_size(), logging.getLogger().level)
    stop_process_group()

    assert state == ("gloo", 0, 1, root_level)
    assert total.item() == 3.0
    assert not dist.is_initialized()


@pytest.mark.usefixtures("launched")
def test_second_start_keeps_the_group() -> None:
    start_process_group(CPU)
    group = dist.group.WORLD

    start_process_group(CPU)

    assert dist.group.WORLD is group


@pytest.mark.usefixtures("launched")
def test_process_other_than_the_first_logs_warnings_only(root_level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    start_process_group(CPU)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)

    start_process_group(CPU)

    assert logging.getLogger().level == logging.WARNING


def test_cuda_process_joins_over_nccl_on_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(dist, "init_process_group", lambda backend: calls.append(backend))
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)

    start_process_group(torch.device("cuda:1"))

    assert calls == ["nccl", torch.device("cuda:1")]


def test_stop_without_a_start_does_nothing() -> None:
    stop_process_group()

    assert not dist.is_initialized()
