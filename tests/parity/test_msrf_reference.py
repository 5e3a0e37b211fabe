"""Our MSRF-Net against the outputs, losses, gradients and statistics of the original (Keras)."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from msrf_monai.errors import CheckpointError
from msrf_monai.losses import MSRFLoss
from msrf_monai.networks import MSRFNet
from msrf_monai.networks.reference import load_msrf_reference, msrf_reference_roles

NAMES = {"mask": "x", "edge": "edge_out", "half": "pred2", "quarter": "pred4"}


@pytest.fixture(scope="module")
def fixture_root(parity_root: Path) -> Path:
    return parity_root / "msrf"


@pytest.fixture(scope="module")
def arrays(fixture_root: Path) -> dict[str, np.ndarray]:
    spec = importlib.util.spec_from_file_location("make_weights", fixture_root / "make_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shapes = json.loads((fixture_root / "shapes.json").read_text())
    roles = json.loads((fixture_root / "roles.json").read_text())
    return {k: module.tensor(k, tuple(s), roles[k.split("/")[0]]["class"]) for k, s in shapes.items()}


@pytest.fixture
def net(arrays: dict[str, np.ndarray]) -> MSRFNet:
    network = MSRFNet(features=32, dropout=0.0)
    load_msrf_reference(network, arrays)
    return network


def nchw(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32)).permute(0, 3, 1, 2)


def network_input(fixture: Any) -> torch.Tensor:
    return torch.cat([nchw(fixture["image"]), nchw(fixture["canny"])], dim=1)


@pytest.mark.parametrize("name", ["io", "dbg"])
def test_outputs_equal_the_original_within_1e4(net: MSRFNet, fixture_root: Path, name: str) -> None:
    fixture = np.load(fixture_root / f"{name}_chain10.npz")
    with torch.inference_mode():
        out = net.eval().forward_all(network_input(fixture))
    out = out._replace(mask=torch.sigmoid(out.mask))
    for ours, theirs in NAMES.items():
        assert (getattr(out, ours) - nchw(fixture[f"out_{theirs}"])).abs().max() <= 1e-4, ours


def test_comparison_script_of_the_fixture_prints_ok(fixture_root: Path, tmp_path: Path) -> None:
    roles = {role: f"net.{path}" for role, path in msrf_reference_roles(MSRFNet(features=2)).items()}
    (tmp_path / "map.json").write_text(json.dumps(roles))
    support = Path(__file__).parents[1] / "support"
    command = [sys.executable, str(fixture_root / "compare_torch.py"), "--factory", "msrf_adapter:build"]
    command += ["--path", str(support), "--map", str(tmp_path / "map.json"), "--logits", "x"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(" ok") == 8


def test_training_step_equals_the_original(net: MSRFNet, fixture_root: Path) -> None:
    # In float64, where every gradient norm agrees within 0.4 %. In float32 batch norm over small batches adds noise
    # that depends on the order of sums: with two threads 0.4 %, with one thread up to 4.6 % was seen on one machine.
    data = np.load(fixture_root / "dbg_chain10.npz")
    after = np.load(fixture_root / "train_chain10.npz")
    expected = json.loads((fixture_root / "train_chain10.json").read_text())
    target = torch.cat([nchw(data["mask"]), nchw(data["mask_edge"])], dim=1).double()
    loss = MSRFLoss()

    out = net.double().train()(network_input(data).double())
    terms = loss.terms(out, target)
    total = loss(out, target)
    total.backward()

    for ours, theirs in NAMES.items():
        value = torch.sigmoid(out.mask) if ours == "mask" else getattr(out, ours)
        assert (value - nchw(after[f"out_{theirs}"])).abs().max() <= 1e-3, ours
        assert terms[ours].item() == pytest.approx(expected["losses"][theirs], abs=2e-4), ours
    assert total.item() == pytest.approx(expected["total"], abs=1e-3)
    kinds = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
    paths = msrf_reference_roles(net)
    for name, norm in expected["grad_l2"].items():
        role, part = name.split("/")
        gradient = net.get_parameter(f"{paths[role]}.{kinds[part]}").grad
        assert gradient is not None
        assert gradient.norm().item() == pytest.approx(norm, rel=0.01, abs=1e-4), name
    for name in (n for n in after.files if n.startswith("bn_")):
        role, part = name.removeprefix("bn_").split("/")
        statistic = {"mean": "running_mean", "var": "running_var"}[part]
        ours_after = net.get_buffer(f"{paths[role]}.{statistic}").numpy()
        # Keras stores the biased batch variance, PyTorch the unbiased one
        np.testing.assert_allclose(ours_after, after[name], rtol=2e-3, atol=2e-4, err_msg=name)


def test_dead_blocks_are_left_out_of_the_seven_block_wiring(
    arrays: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    seven, ten = MSRFNet(features=32, wiring="head7"), MSRFNet(features=32)
    load_msrf_reference(seven, arrays)
    load_msrf_reference(ten, arrays)
    assert "fusion blocks 6, 7 and 8" in caplog.text
    last = seven.fusion.rounds[3].top.high_first.weight
    assert torch.equal(last, ten.fusion.rounds[5].top.high_first.weight)


def keras_arrays(net: MSRFNet) -> dict[str, np.ndarray]:
    """Write our own weights in the original's names and layout."""
    arrays = {}
    for role, path in msrf_reference_roles(net).items():
        module = net.get_submodule(path)
        if isinstance(module, torch.nn.BatchNorm2d):
            parts = {
                "gamma": module.weight,
                "beta": module.bias,
                "mean": module.running_mean,
                "var": module.running_var,
            }
        else:
            parts = {"kernel": module.weight, "bias": module.bias}
        for part, value in parts.items():
            array = value.detach().numpy()
            arrays[f"{role}/{part}"] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    return arrays


@pytest.mark.parametrize("wiring", ["chain10", "head7"])
@pytest.mark.parametrize("features", [2, 16])
def test_any_width_and_wiring_is_loaded_whole(wiring: Any, features: int) -> None:
    torch.manual_seed(1)
    source, goal = MSRFNet(features=features, wiring=wiring), MSRFNet(features=features, wiring=wiring)
    load_msrf_reference(goal, keras_arrays(source))
    for (name, a), b in zip(source.state_dict().items(), goal.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_arrays_that_do_not_fit_are_refused_and_nothing_changes() -> None:
    net = MSRFNet(features=2)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    good = keras_arrays(net)
    missing = {k: v for k, v in good.items() if k != "enc2.conv1/kernel"}
    with pytest.raises(CheckpointError, match=r"1 arrays are missing, the first: enc2\.conv1/kernel"):
        load_msrf_reference(net, missing)
    with pytest.raises(CheckpointError, match=r"without a place in this network, the first: enc9\.conv1/kernel"):
        load_msrf_reference(net, good | {"enc9.conv1/kernel": np.zeros(3)})
    with pytest.raises(CheckpointError, match="another shape"):
        load_msrf_reference(net, keras_arrays(MSRFNet(features=4)))
    with pytest.raises(CheckpointError, match="paper"):
        load_msrf_reference(MSRFNet(features=2, profile="paper"), good)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
