"""The moving average against its closed form."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from msrf_monai.engines import ExponentialMovingAverage
from msrf_monai.errors import ConfigError


class _Counting(nn.Module):
    """One weight and one buffer, both set to the number of the iteration."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("running", torch.zeros(2))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))


def _run(network: _Counting, ema: ExponentialMovingAverage, iterations: int) -> list[float]:
    momenta = []

    def step(engine: Engine, batch: Any) -> None:
        with torch.no_grad():
            network.weight.fill_(engine.state.iteration)
            network.running.fill_(engine.state.iteration)
            network.count.fill_(engine.state.iteration)

    engine = Engine(step)
    ema.attach(engine)
    from ignite.engine import Events

    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: momenta.append(engine.state.ema_momentum))
    engine.run(range(iterations))
    return momenta


def test_the_average_equals_the_closed_form() -> None:
    network = _Counting()
    ema = ExponentialMovingAverage(network, momentum=0.25)
    _run(network, ema, 6)
    expected = sum(0.25 * 0.75 ** (6 - t) * t for t in range(1, 7))  # the start is 0
    torch.testing.assert_close(ema.ema_model.weight.detach(), torch.full((2,), expected))
    assert ema.ema_model.running.tolist() == [6.0, 6.0]
    assert ema.ema_model.count.item() == 6


def test_updated_buffers_follow_the_closed_form_and_counters_are_copied() -> None:
    network = _Counting()
    ema = ExponentialMovingAverage(network, momentum=0.25, handle_buffers="update")
    _run(network, ema, 6)
    torch.testing.assert_close(ema.ema_model.running, ema.ema_model.weight.detach())
    assert ema.ema_model.count.item() == 6


def test_buffers_are_not_shared_with_the_network() -> None:
    network = _Counting()
    ema = ExponentialMovingAverage(network, momentum=0.25)
    _run(network, ema, 2)
    network.running.fill_(-1)
    assert ema.ema_model.running.tolist() == [2.0, 2.0]


def test_what_validation_has_decided_stays_in_the_average() -> None:
    network = _Counting()
    network.decided_buffers = ("count",)
    ema = ExponentialMovingAverage(network, momentum=0.25)
    ema.ema_model.count.fill_(3)
    _run(network, ema, 6)
    assert ema.ema_model.running.tolist() == [6.0, 6.0]
    assert ema.ema_model.count.item() == 0  # taken over when training starts
    ema.ema_model.count.fill_(4)
    ema._update_ema_model(Engine(lambda *_: None), "momentum")
    assert ema.ema_model.count.item() == 4


def test_the_momentum_warms_up_linearly() -> None:
    network = _Counting()
    momenta = _run(network, ExponentialMovingAverage(network, momentum=0.1, momentum_warmup=0.5, warmup_iters=5), 7)
    assert momenta == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1])


def test_the_average_starts_from_the_weights_of_the_first_iteration() -> None:
    network = _Counting()
    ema = ExponentialMovingAverage(network, momentum=0.5)
    with torch.no_grad():
        network.weight.fill_(8.0)  # as a checkpoint that is loaded after the configuration was read
    _run(network, ema, 1)
    assert ema.ema_model.weight.tolist() == [4.5, 4.5]


def test_the_averaged_network_is_in_eval_mode_without_gradients(tmp_path: Path, job: ModuleType) -> None:
    run = job.build(tmp_path, epochs=1)
    run["trainer"].run()
    average = run["ema"].ema_model
    assert not average.training
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert run["network"].training


def test_a_wrapped_network_is_averaged_itself() -> None:
    network = nn.DataParallel(nn.Linear(2, 1))
    assert isinstance(ExponentialMovingAverage(network).ema_model, nn.Linear)


def test_a_network_without_parameters_is_no_error() -> None:
    engine = Engine(lambda engine, batch: None)
    ExponentialMovingAverage(nn.ReLU()).attach(engine)
    assert engine.run([1]).iteration == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"momentum": 0.0},
        {"momentum": 1.0},
        {"momentum_warmup": 0.5},
        {"warmup_iters": 5},
        {"momentum_warmup": 2.0, "warmup_iters": 5},
        {"handle_buffers": "ema_train"},
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"momentum|handle_buffers"):
        ExponentialMovingAverage(nn.Linear(1, 1), **arguments)
