"""Loading weights, and one clear sentence for every way in which a file can be wrong."""

from __future__ import annotations

import hashlib
import logging
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import safetensors.torch
import torch
from ignite.engine import Engine
from monai.handlers import CheckpointLoader
from torch import nn

from msrf_monai.engines import LoadWeights, load_weights, read_weights, save_weights
from msrf_monai.engines.weights import unwrap
from msrf_monai.errors import CheckpointError, ConfigError


@pytest.fixture
def saved(tmp_path: Path, job: ModuleType) -> tuple[nn.Module, Path]:
    """A network with random weights and the file of them."""
    network = job.ToyNet(4)
    save_weights(network, tmp_path / "model.pt")
    return network, tmp_path / "model.pt"


def _equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_weights_come_back_and_stock_torch_reads_the_file(saved: tuple[nn.Module, Path], job: ModuleType) -> None:
    network, path = saved
    other = job.ToyNet(4)
    load_weights(other, path)
    assert _equal(network, other)
    stock = job.ToyNet(4)
    stock.load_state_dict(torch.load(path, weights_only=True))
    assert _equal(network, stock)


def test_the_returned_digest_is_the_files_own_and_is_demanded(saved: tuple[nn.Module, Path], job: ModuleType) -> None:
    network, path = saved
    digest = save_weights(network, path)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    load_weights(job.ToyNet(4), path, sha256=digest.upper())
    with pytest.raises(CheckpointError, match=r"model\.pt is not the expected file"):
        load_weights(job.ToyNet(4), path, sha256="0" * 64)


def test_channels_last_weights_load_into_a_default_network(tmp_path: Path, job: ModuleType) -> None:
    network = job.ToyNet(4).to(memory_format=torch.channels_last)
    save_weights(network, tmp_path / "model.pt")
    other = job.ToyNet(4)
    load_weights(other, tmp_path / "model.pt")
    assert _equal(network, other)
    assert all(t.is_contiguous() for t in torch.load(tmp_path / "model.pt", weights_only=True).values())


@pytest.mark.parametrize("name", ["model", "network", "net", "state_dict"])
def test_a_nested_state_dictionary_is_found(saved: tuple[nn.Module, Path], job: ModuleType, name: str) -> None:
    network, path = saved
    torch.save({"epoch": 3, name: network.state_dict()}, path)
    other = job.ToyNet(4)
    load_weights(other, path)
    assert _equal(network, other)


def test_names_of_a_distributed_wrapper_are_understood(saved: tuple[nn.Module, Path], job: ModuleType) -> None:
    network, path = saved
    torch.save({f"module.{name}": tensor for name, tensor in network.state_dict().items()}, path)
    wrapped = nn.DataParallel(job.ToyNet(4))
    load_weights(wrapped, path)
    assert _equal(network, wrapped.module)
    assert unwrap(wrapped) is wrapped.module


def test_safetensors_are_read(saved: tuple[nn.Module, Path], job: ModuleType, tmp_path: Path) -> None:
    network, _ = saved
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    other = job.ToyNet(4)
    load_weights(other, path)
    assert _equal(network, other)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        read_weights(path)


def test_another_width_names_tensor_shapes_counts_and_width(saved: tuple[nn.Module, Path], job: ModuleType) -> None:
    _, path = saved
    other = job.ToyNet(8)
    before = other.stem.weight.clone()
    expected = (
        r"stem\.weight has shape \(4, 3, 3, 3\) in the file and \(8, 3, 3, 3\) in the network; "
        r"0 tensors missing, 0 unexpected, 7 of another shape .* looks like features=4, the network has features=8"
    )
    with pytest.raises(CheckpointError, match=expected):
        load_weights(other, path)
    assert torch.equal(before, other.stem.weight)


def test_a_network_that_does_not_tell_its_width_gets_the_ratio(tmp_path: Path) -> None:
    save_weights(nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 6)), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="look 2 times as wide"):
        load_weights(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), tmp_path / "model.pt")


def test_missing_and_unexpected_tensors_are_named(tmp_path: Path) -> None:
    save_weights(nn.Sequential(nn.Linear(2, 2)), tmp_path / "small.pt")
    save_weights(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), tmp_path / "large.pt")
    with pytest.raises(CheckpointError, match=r"1\.weight is missing in the file; 2 tensors missing, 0 unexpected"):
        load_weights(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), tmp_path / "small.pt")
    with pytest.raises(CheckpointError, match=r"1\.weight has no place in the network; 0 tensors missing, 2 unexp"):
        load_weights(nn.Sequential(nn.Linear(2, 2)), tmp_path / "large.pt")


def test_other_inputs_only_give_no_guess_of_the_width(tmp_path: Path) -> None:
    save_weights(nn.Conv2d(4, 2, 1), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"the file 2\)$"):
        load_weights(nn.Conv2d(3, 2, 1), tmp_path / "model.pt")


def test_not_strict_loads_what_fits_and_counts_it(
    saved: tuple[nn.Module, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="msrf_monai")
    source = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    save_weights(source, tmp_path / "model.pt")
    target = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5))
    load_weights(target, tmp_path / "model.pt", strict=False)
    assert torch.equal(source[0].weight, target[0].weight)
    assert "loaded 2 of the network's 4 tensors" in caplog.text
    with pytest.raises(CheckpointError, match="none of its 4 tensors"):
        load_weights(nn.Conv2d(1, 1, 1), tmp_path / "model.pt", strict=False)


def test_a_missing_file_is_named(tmp_path: Path, job: ModuleType) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint at .*nowhere\.pt"):
        load_weights(job.ToyNet(), tmp_path / "nowhere.pt")


@pytest.mark.parametrize(
    "content",
    [b"", b"no checkpoint at all", pickle.dumps({"a": 1}, protocol=2)],
    ids=["empty", "text", "foreign pickle"],
)
def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path, job: ModuleType, content: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.pt (cannot be read|holds no network weights)"):
        load_weights(job.ToyNet(), tmp_path / "model.pt")


def test_one_flipped_bit_is_noticed(saved: tuple[nn.Module, Path], job: ModuleType) -> None:
    network, path = saved
    content = bytearray(path.read_bytes())
    place = content.find(network.stem.weight.detach().numpy().tobytes()[:16])
    assert place > 0
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_weights(job.ToyNet(4), path)


def test_objects_in_a_file_are_never_built(tmp_path: Path, job: ModuleType) -> None:
    torch.save({"model": job.ToyNet(4)}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="holds more than tensors and plain values"):
        read_weights(tmp_path / "model.pt")


def test_a_file_of_other_values_holds_no_weights(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="holds no network weights"):
        read_weights(tmp_path / "model.pt")


def test_the_handler_loads_at_the_start_and_the_average_starts_from_it(
    saved: tuple[nn.Module, Path], tmp_path: Path, job: ModuleType
) -> None:
    network, path = saved
    run = job.build(tmp_path / "run", epochs=1, learning_rate=0.0, weights=path)
    run["trainer"].run()
    assert issubclass(LoadWeights, CheckpointLoader)
    assert torch.equal(run["network"].stem.weight, network.stem.weight)
    assert torch.equal(run["ema"].ema_model.stem.weight, network.stem.weight)


@pytest.mark.parametrize("position", ["before", "behind"])
def test_a_resumed_run_keeps_its_own_weights(
    saved: tuple[nn.Module, Path], tmp_path: Path, job: ModuleType, position: str
) -> None:
    _, path = saved
    first = job.build(tmp_path / "run", epochs=1)
    first["trainer"].run()
    second = job.build(tmp_path / "run", epochs=1, resume=True, weights=path if position == "before" else None)
    if position == "behind":
        LoadWeights(str(path), {"model": second["network"]}).attach(second["trainer"])
    second["trainer"].run()
    assert _equal(first["network"], second["network"])


def test_several_networks_are_loaded_by_name(tmp_path: Path, job: ModuleType) -> None:
    one, two = job.ToyNet(4), job.ToyNet(4)
    torch.save({"g": one.state_dict(), "d": two.state_dict()}, tmp_path / "both.pt")
    targets = {"g": job.ToyNet(4), "d": job.ToyNet(4)}
    LoadWeights(str(tmp_path / "both.pt"), targets)(Engine(print))
    assert _equal(one, targets["g"])
    assert _equal(two, targets["d"])
    with pytest.raises(CheckpointError, match="no weights named 'x'"):
        LoadWeights(str(tmp_path / "both.pt"), {"g": targets["g"], "x": targets["d"]})(Engine(print))
    with pytest.raises(CheckpointError, match=r"'d' of .* does not fit its network"):
        LoadWeights(str(tmp_path / "both.pt"), {"g": targets["g"], "d": job.ToyNet(2)})(Engine(print))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", {"model": nn.Linear(1, 1)}), "needs a load_path"),
        (("model.pt", {}), "needs a load_path"),
        (("model.pt", {"optimizer": torch.optim.SGD([nn.Parameter(torch.zeros(1))])}), "loads networks only"),
    ],
)
def test_wrong_arguments_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoadWeights(*arguments)
