"""Random streams that depend on seed, epoch and rank alone."""

from __future__ import annotations

import random
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset, ThreadDataLoader
from monai.transforms import Compose, RandGaussianNoised

from msrf_monai.engines import SeedEpochs, epoch_seed
from msrf_monai.errors import ConfigError, InputError


def _seen(loader: Any, *, epochs: int, start: int = 0, epoch_length: int | None = None) -> list[list[float]]:
    """First pixels of the batches and global draws of each epoch, from epoch ``start + 1`` on."""
    epochs_seen: list[list[float]] = []

    def step(engine: Engine, batch: Any) -> None:
        epochs_seen[-1] += batch["image"][:, 0, 0, 0].tolist()

    engine = Engine(step)
    engine.data_loader = loader
    engine.add_event_handler(Events.EPOCH_STARTED, lambda: epochs_seen.append([]))
    SeedEpochs(5).attach(engine)
    engine.add_event_handler(
        Events.EPOCH_COMPLETED,
        lambda: epochs_seen[-1].extend(
            [random.random(), float(np.random.rand()), torch.rand(1).item()]  # noqa: NPY002 - the global one is meant
        ),
    )
    engine.state.max_epochs = start + epochs
    engine.state.epoch_length = len(loader) if epoch_length is None else epoch_length
    engine.state.epoch = start
    engine.state.iteration = start * engine.state.epoch_length
    engine.run(loader, max_epochs=start + epochs)
    return epochs_seen


def _loader(workers: int) -> DataLoader:
    items = [{"image": torch.full((1, 5, 3), float(index))} for index in range(6)]
    noise = Compose([RandGaussianNoised("image", prob=1.0)])
    return DataLoader(Dataset(items, noise), batch_size=2, shuffle=True, num_workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_is_the_same_whatever_was_drawn_before(workers: int) -> None:
    whole = _seen(_loader(workers), epochs=3)
    random.seed(1)
    torch.manual_seed(1)
    later = _seen(_loader(workers), epochs=1, start=2)
    assert later == whole[2:]
    assert whole[0] != whole[1] != whole[2]


def test_order_and_noise_both_change_from_epoch_to_epoch() -> None:
    first, second = _seen(_loader(0), epochs=2)
    orders = [[round(value) for value in epoch[:6]] for epoch in (first, second)]
    assert [sorted(order) for order in orders] == [list(range(6))] * 2
    assert orders[0] != orders[1]
    assert sorted(first[:6]) != sorted(second[:6])


def test_an_epoch_length_other_than_the_loaders_keeps_epochs_apart() -> None:
    whole = _seen(_loader(0), epochs=3, epoch_length=2)
    assert _seen(_loader(0), epochs=1, start=2, epoch_length=2) == whole[2:]
    assert len(whole[1]) == 4 + 3


def test_a_threaded_loader_is_reproduced_too() -> None:
    def threaded() -> ThreadDataLoader:
        return ThreadDataLoader(_loader(0).dataset, batch_size=2, shuffle=True, num_workers=0)

    assert _seen(threaded(), epochs=1, start=1) == _seen(threaded(), epochs=2)[1:]


def test_seeds_differ_by_seed_epoch_and_rank_and_are_pinned() -> None:
    seeds = {epoch_seed(s, epoch=e, rank=r) for s in range(4) for e in range(4) for r in range(4)}
    assert len(seeds) == 64
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert epoch_seed(0, epoch=1) == int(np.random.SeedSequence([0, 1, 0]).generate_state(1)[0]) // 2


def test_persistent_workers_are_refused(tmp_path: Path, job: ModuleType) -> None:
    run = job.build(tmp_path, epochs=1)
    run["trainer"].data_loader = DataLoader([1, 2], num_workers=1, persistent_workers=True)
    with pytest.raises(ConfigError, match="persistent_workers"):
        SeedEpochs(1).attach(run["trainer"])


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(InputError, match="must be 0 or more"):
        SeedEpochs(-1)


def test_an_engine_without_a_loader_is_seeded_as_well() -> None:
    draws = []
    for _ in range(2):
        engine = Engine(lambda engine, batch: draws.append(torch.rand(1).item()))
        SeedEpochs(2).attach(engine)
        engine.run([0], max_epochs=1)
    assert draws[0] == draws[1]
