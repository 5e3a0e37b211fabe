"""Two processes train a bundle by torchrun; one of them is killed with SIGKILL, and the result is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from msrf_monai.data import load_datalist
from support.bundle_runs import BUNDLES, MSRF, Bundle, finished
from support.elastic_runs import Elastic, train

EPOCHS = 3
# The lesions' eight images and the vessels' six are two batches of a process or more in an epoch.
SMALL = {"max_epochs": EPOCHS, "batch_size": 2}


def _same(one: Elastic, other: Elastic) -> None:
    """Fail unless two trainings left the same bits, whatever became of their processes on the way."""
    assert one.state() == other.state()
    first, second = one.weights(), other.weights()
    assert first.keys() == second.keys()
    generators = [name for name in first if "/generators/" in name]
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert generators


def _learnt_in_shares(job: Elastic, images: set[str]) -> None:
    """Fail unless each epoch's images were shared out without an overlap, and in another order each time."""
    orders = [job.order(rank) for rank in range(2)]
    assert list(orders[0]) == list(orders[1]) == list(range(1, EPOCHS + 1))
    for epoch in orders[0]:
        shares = [set(order[epoch]) for order in orders]
        assert not shares[0] & shares[1]
        assert shares[0] | shares[1] == images
        assert all(len(share) == len(order[epoch]) for share, order in zip(shares, orders, strict=True))
    assert len({(*orders[0][epoch], *orders[1][epoch]) for epoch in orders[0]}) == EPOCHS


@pytest.mark.slow
def test_killed_ranks_are_restarted_and_the_training_ends_with_the_same_bits(tmp_path: Path, lesion_data: Path) -> None:
    bar = {"train::handlers::7::is_shown": True}
    whole = train(MSRF, tmp_path / "whole", lesion_data, kills=[], **SMALL, **bar)
    finished(whole.done)
    kills = [{"rank": 1, "iteration": 3}, {"rank": 0, "in_save": 2}]
    broken = train(MSRF, tmp_path / "broken", lesion_data, kills=kills, **SMALL)
    finished(broken.done)

    assert (whole.tries(), broken.tries()) == (1, 3)
    _same(whole, broken)
    # each image once, the same order for the same seed however often the processes were started
    images = {Path(item["image"]).name for item in load_datalist(lesion_data, "training")}
    _learnt_in_shares(whole, images)
    assert [broken.order(rank) for rank in range(2)] == [whole.order(rank) for rank in range(2)]
    # one writer, one bar
    assert {"models/model.pt", "eval/history.csv", "eval/run.json"} <= {
        str(path.relative_to(whole.root)) for path in whole.root.rglob("*")
    }
    assert any("training_state.pt" in name for name in whole.wrote(0))
    assert whole.wrote(1) == broken.wrote(1) == set()
    assert [whole.done.stderr.count(f"training epoch {epoch}/{EPOCHS}:   0%") for epoch in (1, 2, 3)] == [1, 1, 1]
    assert not list(broken.root.rglob("*.part"))


@pytest.mark.extended
@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_every_bundle_survives_three_kills_in_new_processes(
    bundle: Bundle, tmp_path: Path, lesion_data: Path, vessel_data: Path
) -> None:
    data = {"lesions": lesion_data, "vessels": vessel_data}[bundle.data]
    kills = [{"rank": 0, "iteration": 1}, {"rank": 1, "iteration": 4}, {"rank": 0, "in_save": 2}]
    whole = train(bundle, tmp_path / "whole", data, kills=[], is_warm=False, **SMALL)
    finished(whole.done)
    broken = train(bundle, tmp_path / "broken", data, kills=kills, is_warm=False, **SMALL)
    finished(broken.done)

    assert broken.tries() == 4
    _same(whole, broken)
    assert [broken.order(rank) for rank in range(2)] == [whole.order(rank) for rank in range(2)]
    assert whole.wrote(1) == broken.wrote(1) == set()
