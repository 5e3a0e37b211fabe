"""Joining once more after torchrun has started the processes again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from msrf_monai.engines import rejoin_processes

CPU = torch.device("cpu")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[dist.TCPStore]:
    """The store of torchrun's agent, which outlives the processes that it starts, and what it gives to the only one."""
    agents = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=30))
    given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": agents.port, "RANK": 0, "WORLD_SIZE": 1}
    for name, value in {**given, "TORCHELASTIC_USE_AGENT_STORE": "True"}.items():
        monkeypatch.setenv(name, str(value))
    yield agents
    if dist.is_initialized():
        dist.destroy_process_group()


def test_each_later_start_keeps_its_addresses_apart(store: dist.TCPStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = store.num_keys()
    found = []
    for start in ("1", "2"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", start)
        rejoin_processes(CPU)
        total = torch.tensor([3.0])
        dist.all_reduce(total)
        found.append((dist.get_backend(), dist.get_rank(), dist.get_world_size(), total.item()))
        dist.destroy_process_group()

    assert found == [("gloo", 0, 1, 3.0)] * 2
    assert store.num_keys() > before
    names = [key for key in store.list_keys() if "start_" in key]
    assert {name.partition("start_")[2][0] for name in names} == {"1", "2"}


@pytest.mark.usefixtures("store")
def test_first_start_and_a_group_that_is_there_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    rejoin_processes(CPU)
    assert not dist.is_initialized()

    dist.init_process_group("gloo")
    group = dist.group.WORLD
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    rejoin_processes(CPU)
    assert dist.group.WORLD is group
