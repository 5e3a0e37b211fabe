"""The trunks of Hi-gMISnet: counts, taps, and ImageNet weights from files in torchvision's layout."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from monai.networks.nets import DenseNet201
from torch import nn

from msrf_monai.errors import CheckpointError, InputError
from msrf_monai.networks import HiGMISNetGenerator
from msrf_monai.networks.backbones import Backbone, DenseNet201Taps, VGG16Taps
from msrf_monai.networks.backbones_weights import load_backbone_weights


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def plain_vgg16() -> nn.Module:
    """VGG16's ``features`` and ``classifier`` in torchvision's order, with a small classifier."""
    layers: list[nn.Module] = []
    width = 3
    for part in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if part:
            layers += [nn.Conv2d(width, part, 3, padding=1), nn.ReLU()]
            width = part
        else:
            layers.append(nn.MaxPool2d(2))
    net = nn.Module()
    net.features = nn.Sequential(*layers)
    net.classifier = nn.Linear(4, 4)
    return net


@pytest.fixture(scope="module")
def monai_densenet() -> DenseNet201:
    torch.manual_seed(1)
    net = DenseNet201(2, 3, 4).eval()
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return net


def torchvision_state(densenet: nn.Module, *, old: bool = False) -> dict[str, torch.Tensor]:
    """A MONAI DenseNet's weights by torchvision's names, in its files' old spelling or the new one."""
    state = {}
    for name, tensor in densenet.state_dict().items():
        name = name.replace("class_layers.out", "classifier").replace(".layers.", ".")
        if old and "denselayer" in name:
            for part in ("norm1", "norm2", "conv1", "conv2"):
                name = name.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        if not (old and name.endswith("num_batches_tracked")):
            state[name] = tensor.clone()
    return state


def test_trunks_have_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert count(VGG16Taps()) == 12_354_880
        assert count(DenseNet201Taps()) == 11_110_528


def test_vgg_taps_are_torchvisions_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole, trunk = plain_vgg16(), VGG16Taps()
    torch.save(whole.state_dict(), tmp_path / "vgg.pth")
    record = load_backbone_weights(trunk, tmp_path / "vgg.pth")
    x = torch.rand(1, 3, 32, 48)
    with torch.inference_mode():
        expected = [whole.features[: place + 1](x) for place in (8, 13, 20, 27)]  # ReLU of conv2_2 … conv5_2
        for tap, one in zip(trunk(x), expected, strict=True):
            torch.testing.assert_close(tap, one)
    assert record.matched == 24
    assert record.unmatched == ("classifier.bias", "classifier.weight", "features.28.bias", "features.28.weight")


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_densenet_taps_are_monais_layers(monai_densenet: DenseNet201, tmp_path: Path, old: bool, suffix: str) -> None:
    file = tmp_path / f"dense.{suffix}"
    state = torchvision_state(monai_densenet, old=old)
    if suffix == "pth":
        torch.save(state, file)
    else:
        safetensors.torch.save_file(state, file)
    trunk = DenseNet201Taps().eval()
    record = load_backbone_weights(trunk, file)
    assert record.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert record.file == f"dense.{suffix}"
    assert {name.split(".")[1] for name in record.unmatched} == {"denseblock4", "norm5", "weight", "bias"}

    taps: dict[str, torch.Tensor] = {}
    parts = dict(monai_densenet.features.named_children())
    x = torch.rand(1, 3, 64, 32)
    with torch.inference_mode():
        features = x
        for name, part in parts.items():
            if name.startswith("transition"):
                taps[name] = part.conv(part.relu(part.norm(features)))
            features = part(features)
            if name == "relu0":
                taps[name] = features.clone()
        for tap, expected in zip(trunk(x), taps.values(), strict=True):
            torch.testing.assert_close(tap, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [VGG16Taps, DenseNet201Taps])
def test_torchvision_layout_makes_the_round_trip(kind: Callable[[], Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, second = kind(), kind()
    own = first.state_dict()
    state = {theirs: own[name].clone() for name, theirs in first.torchvision_names().items()}
    torch.save(state, tmp_path / "weights.pth")
    assert load_backbone_weights(second, tmp_path / "weights.pth").unmatched == ()
    loaded = second.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in own.items())


def vgg_state() -> dict[str, torch.Tensor]:
    trunk = VGG16Taps()
    own = trunk.state_dict()
    return {theirs: own[name] for name, theirs in trunk.torchvision_names().items()}


def test_file_without_the_whole_trunk_changes_nothing(tmp_path: Path) -> None:
    state = vgg_state()
    trunk = VGG16Taps()
    before = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    cases = [
        ({k: v for k, v in state.items() if k != "features.26.bias"}, r"features\.26\.bias is missing; 1 tensors miss"),
        ({**state, "features.0.weight": torch.zeros(64, 1, 3, 3)}, r"\(64, 1, 3, 3\), expected \(64, 3, 3, 3\)"),
        (
            {k.removeprefix("features."): v for k, v in state.items()},
            "24 tensors missing and 0 of another shape, of 24",
        ),
    ]
    for broken, message in cases:
        torch.save(broken, tmp_path / "broken.pth")
        with pytest.raises(CheckpointError, match=message):
            load_backbone_weights(trunk, tmp_path / "broken.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in trunk.state_dict().items())


def test_tensors_that_are_not_torchvisions_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save({**vgg_state(), "features.1.weight": torch.zeros(64)}, tmp_path / "batch_norm.pth")
    with caplog.at_level(logging.WARNING):
        record = load_backbone_weights(VGG16Taps(), tmp_path / "batch_norm.pth")
    assert record.unmatched == ("features.1.weight",)
    assert "1 tensors of" in caplog.text
    assert "features.1.weight" in caplog.text


def test_files_that_are_not_weights_are_refused(tmp_path: Path) -> None:
    trunk = VGG16Taps()
    with pytest.raises(CheckpointError, match="there is no file of backbone weights at"):
        load_backbone_weights(trunk, tmp_path / "none.pth")
    (tmp_path / "noise.pth").write_bytes(b"not a checkpoint")
    torch.save({"model": nn.Linear(1, 1)}, tmp_path / "pickled.pth")
    (tmp_path / "noise.safetensors").write_bytes(b"not a checkpoint")
    for name in ("noise.pth", "pickled.pth", "noise.safetensors"):
        with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
            load_backbone_weights(trunk, tmp_path / name)
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds no state dictionary"):
        load_backbone_weights(trunk, tmp_path / "list.pth")
    torch.save({}, tmp_path / "right.pth")
    with pytest.raises(CheckpointError, match="is not the expected file: its SHA-256 is"):
        load_backbone_weights(trunk, tmp_path / "right.pth", sha256="0" * 64)


def small(**options: Any) -> HiGMISNetGenerator:
    return HiGMISNetGenerator(features=4, **options)


def test_generator_records_its_files_and_scales_colours_for_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(vgg_state(), tmp_path / "vgg.pth")
    with caplog.at_level(logging.WARNING):
        net = small(backbones=["vgg16"], vgg_weights=tmp_path / "vgg.pth")
    assert caplog.text == ""
    assert net.backbone_weights["vgg16"].matched == 24
    x = torch.rand(1, 3, 32, 32)
    scaled = (x - torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).reshape(1, 3, 1, 1)
    bare = VGG16Taps()
    load_backbone_weights(bare, tmp_path / "vgg.pth")
    for ours, expected in zip(net.taps.vgg(x), bare(scaled), strict=True):  # type: ignore[misc]
        torch.testing.assert_close(ours, expected)

    rebuilt = small(backbones=["vgg16"])  # as for inference, where the file is not there
    rebuilt.load_state_dict(net.state_dict())
    with torch.inference_mode():
        assert torch.equal(rebuilt.eval()(x), net.eval()(x))


def test_generator_without_files_warns_and_takes_colours_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        net = small(backbones=["vgg16"])
    assert "the trunk 'vgg16' starts from random weights" in caplog.text
    assert net.backbone_weights == {}
    trunk: Backbone | None = net.taps.vgg
    assert trunk is not None
    assert trunk.colour_mean.abs().sum() == 0
    assert (trunk.colour_std == 1).all()
    trunk = small(backbones=["vgg16"], imagenet_colours=True).taps.vgg
    assert trunk is not None
    assert trunk.colour_mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_statistics_of_densenet_are_frozen_on_request() -> None:
    for frozen in (False, True):
        trunk = DenseNet201Taps(frozen_statistics=frozen).train()
        norms = [m for m in trunk.modules() if isinstance(m, nn.BatchNorm2d)]
        before = norms[0].running_mean.clone()  # type: ignore[union-attr]
        trunk(torch.rand(2, 3, 32, 32))
        assert torch.equal(norms[0].running_mean, before) is frozen  # type: ignore[arg-type]
        assert {m.training for m in norms} == {not frozen}
        assert {m.momentum for m in norms} == {0.01}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbones": ("resnet50",)}, r"backbones is \('resnet50',\); expected a list with some of 'vgg16', 'dens"),
        ({"backbones": "vgg16"}, "backbones is 'vgg16'; expected a list"),
        ({"backbones": ("vgg16", "vgg16")}, "expected a list with some of"),
        ({"backbones": (), "vgg_weights": "x.pth"}, r"vgg_weights is given, and backbones \[\] has no 'vgg16'"),
        ({"backbones": (), "dense_weights": "x.pth"}, "dense_weights is given"),
    ],
)
def test_wrong_trunks_are_refused_in_a_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(**options)
