"""Two processes that share a batch learn from it what one process with the whole batch learns."""

from __future__ import annotations

import pytest
import torch

from support import sharded_losses
from support.bundle_runs import BUNDLES, Bundle
from support.processes import run_script

Gradients = list[dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> Gradients:
    """What each of the two processes has after averaging."""
    folder = tmp_path_factory.mktemp("shared")
    done = run_script(sharded_losses.__file__, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def _difference(one: torch.Tensor, two: torch.Tensor) -> float:
    return float((one - two).norm() / one.norm())


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_gradient_averaged_over_two_ranks_is_that_of_the_whole_batch(bundle: Bundle, of_two: Gradients) -> None:
    whole = sharded_losses.gradient(bundle, {})

    shared = [gradients[bundle.name] for gradients in of_two]

    assert whole.norm() > 0
    assert torch.equal(shared[0], shared[1])
    assert _difference(whole, shared[0]) < 1e-6


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_loss_of_the_batch_as_a_whole_would_depend_on_the_sharding(bundle: Bundle) -> None:
    changes = sharded_losses.OF_THE_BATCH[bundle]
    whole, *halves = (sharded_losses.gradient(bundle, changes, half=half) for half in (None, 0, 1))

    assert _difference(whole, (halves[0] + halves[1]) / 2) > 1e-3
