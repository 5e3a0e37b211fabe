"""The recalibrated U-Net: structure, sizes, scopes and errors; its numbers are held against the original elsewhere."""

from __future__ import annotations

from typing import Any, ClassVar, get_args

import pytest
import torch
from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer
from torch import nn

from msrf_monai.errors import InputError
from msrf_monai.networks import RecalibratedUNet, SEUNet, SSRUNet
from msrf_monai.networks.blocks import SoftLevelSets
from msrf_monai.networks.nets.recalibrated_unet import Recalibration
from support.net_tester import NetTester

KINDS: tuple[Any, ...] = (None, *get_args(Recalibration))

# Trainable parameters of the originals with one class (measured in their own framework).
COUNTS = {
    None: 1_946_881,
    "cse": 1_968_721,
    "scse": 1_968_948,
    "srm": 1_947_335,
    "fca": 1_968_721,
    "ssr": 1_969_169,
    "multifractal": 1_947_530,
}


class TestSSRUNet(NetTester):
    """The shared checks for the network of the paper and its relatives."""

    target = "msrf_monai.networks.SSRUNet"
    options: ClassVar[dict[str, Any]] = {"features": (4, 8, 16), "in_channels": 3, "out_channels": 1}
    variants: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"norm": "batch"},
        {"max_scale": 4},
        {"norm": ("group", {"num_groups": 2})},
    )
    export_options: ClassVar[dict[str, Any]] = {"features": (4, 8)}
    export_tolerance = 1e-5
    in_channels = 3
    sizes: ClassVar[tuple[tuple[int, int], ...]] = ((32, 48), (41, 27), (8, 200), (5, 6))


class TestRelatives(NetTester):
    """The shared checks for the other recalibrations."""

    target = "msrf_monai.networks.RecalibratedUNet"
    options: ClassVar[dict[str, Any]] = {"features": (16, 16, 32), "recalibration": "multifractal"}
    variants: ClassVar[tuple[dict[str, Any], ...]] = tuple({"recalibration": kind} for kind in KINDS if kind != "ssr")
    export_options: ClassVar[dict[str, Any]] = {"features": (4, 8)}
    export_tolerance = 1e-5
    in_channels = 3
    sizes: ClassVar[tuple[tuple[int, int], ...]] = ((32, 48), (41, 27), (9, 6))


@pytest.mark.parametrize("kind", KINDS)
def test_parameter_count_equals_the_original(kind: Any) -> None:
    net = RecalibratedUNet(recalibration=kind)
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == COUNTS[kind]


def test_one_seed_gives_all_variants_the_same_convolutions() -> None:
    states = []
    for kind in KINDS:
        torch.manual_seed(7)
        states.append(RecalibratedUNet(features=(16, 32), recalibration=kind).state_dict())
    shared = [name for name in states[0] if ".convs." in name or name.startswith(("bottom", "head"))]
    assert len(shared) == len(states[0])
    for state in states[1:]:
        assert all(torch.equal(state[name], states[0][name]) for name in shared)


def test_batch_norm_option_has_the_original_count() -> None:
    assert sum(p.numel() for p in RecalibratedUNet(norm="batch").parameters()) == 1_949_697
    assert sum(p.numel() for p in SSRUNet(norm="batch").parameters()) == 1_971_985


def test_presets_are_the_recalibrated_unet() -> None:
    torch.manual_seed(0)
    preset = SSRUNet(features=(4, 8), max_scale=4, reduction=4)
    same = RecalibratedUNet(features=(4, 8), max_scale=4, reduction=4, recalibration="ssr")
    same.load_state_dict(preset.state_dict())
    x = torch.rand(1, 3, 24, 20)
    assert torch.equal(preset.eval()(x), same.eval()(x))
    assert SEUNet(features=(4, 8)).state_dict().keys() == (
        RecalibratedUNet(features=(4, 8), recalibration="cse").state_dict().keys()
    )


def test_published_network_has_no_norm_and_recalibrates_the_encoder_only() -> None:
    net = SSRUNet()
    names = [name for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert names == [f"encoder.{k}.recalibrate.strength.norm" for k in range(3)]
    assert all(m.eps == 1e-3 and m.momentum == 0.01 for m in net.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize("kind", KINDS)
def test_three_dimensional_network_takes_any_size(kind: Any) -> None:
    net = RecalibratedUNet(3, 1, 2, features=(8, 16, 16), recalibration=kind).eval()
    with torch.inference_mode():
        out = net(torch.rand(2, 1, 9, 13, 10))
    assert out.shape == (2, 2, 9, 13, 10)
    assert torch.isfinite(out).all()


def test_any_function_of_channels_is_a_recalibration() -> None:
    net = RecalibratedUNet(features=(4, 8, 16), recalibration=nn.BatchNorm2d)
    assert [m.num_features for m in net.modules() if isinstance(m, nn.BatchNorm2d)] == [4, 8]
    config = {"net": {"_target_": "msrf_monai.networks.RecalibratedUNet", "recalibration": "$torch.nn.BatchNorm2d"}}
    parsed = ConfigParser(config).get_parsed_content("net")
    assert sum(isinstance(m, nn.BatchNorm2d) for m in parsed.modules()) == 3


def lively(kind: str, scope: Any) -> RecalibratedUNet:
    torch.manual_seed(1)
    net = RecalibratedUNet(features=(8, 16, 16), recalibration=kind, norm_scope=scope)  # type: ignore[arg-type]
    for levels in (m for m in net.modules() if isinstance(m, SoftLevelSets)):
        nn.init.uniform_(levels.anchors, -2.0, 2.0)  # as drawn at first, all levels are the same
        nn.init.uniform_(levels.widths, 0.5, 1.5)
    x = torch.rand(4, 3, 48, 64)
    for _ in range(60):
        net(x)  # the norms learn the exponents' statistics
    # Double precision: a channel that is nearly constant is stretched so much that float32's rounding shows.
    return net.eval().double()


@pytest.mark.parametrize("kind", ["ssr", "multifractal"])
def test_sample_scope_keeps_images_apart(kind: str) -> None:
    image = torch.rand(1, 3, 48, 64).double()
    mate = 10.0 * torch.rand(1, 3, 48, 64).double()
    for scope, differs in (("sample", False), ("batch", True)):
        net = lively(kind, scope)
        with torch.inference_mode():
            alone = net(image)
            moved = (net(torch.cat([image, mate]))[:1] - alone).abs().max()
        assert (moved > 1e-4) if differs else (moved < 1e-9), (scope, moved)


@pytest.mark.parametrize("kind", ["ssr", "multifractal"])
def test_windows_and_shards_of_a_batch_change_nothing(kind: str) -> None:
    net = lively(kind, "sample")
    x = torch.rand(3, 3, 70, 90).double()
    with torch.inference_mode():
        one, many = (SlidingWindowInferer(48, sw_batch_size=size, overlap=0.25)(x, net) for size in (1, 5))
        shards = torch.cat([net(x[:1]), net(x[1:])])
        whole = net(x)
    torch.testing.assert_close(one, many, rtol=0, atol=1e-9)
    torch.testing.assert_close(shards, whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 1}, "spatial_dims is 1; expected 2 or 3"),
        ({"features": (8,)}, "at least two positive numbers"),
        ({"recalibration": "senet"}, "recalibration is 'senet'; expected None, 'cse'"),
        ({"recalibration": "fca", "features": (8, 16)}, "8 channels cannot be cut into 16 equal groups"),
        ({"recalibration": "ssr", "max_scale": 1}, "max_scale is 1; expected at least 2"),
        ({"recalibration": "ssr", "norm_scope": "image"}, "norm_scope is 'image'; expected one of 'sample'"),
        ({"recalibration": "ssr", "reduction": 64}, "reduction is 64 for 32 channels"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RecalibratedUNet(**options)


def test_options_that_weights_do_not_show_are_in_the_repr() -> None:
    assert "max_scale=4, norm_scope='batch'" in repr(SSRUNet(features=(4, 8), max_scale=4, norm_scope="batch"))
