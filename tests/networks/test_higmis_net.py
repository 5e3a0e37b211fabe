"""Hi-gMISnet: golden values, parameters, operations and shapes of the published network; fusion, errors."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from msrf_monai.errors import InputError
from msrf_monai.networks import (
    HiGMISNet,
    HiGMISNetGenerator,
    HiGMISNetGeneratorOutput,
    PatchDiscriminator,
)
from msrf_monai.networks.blocks import ReverseAttention
from msrf_monai.networks.nets.higmis_net import FusionMode, fuse_probabilities
from support.formula_weights import fill_by_formula
from support.higmis import MODES, SMALL, bright_waves, count, lively, on_meta


@pytest.fixture(scope="module")
def published() -> Iterator[HiGMISNetGenerator]:
    """The published generator in double precision with the weights of the formula; made without drawing any."""
    net = on_meta().double().to_empty(device="cpu").eval()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.InstanceNorm2d):
            layer.reset_parameters()
    for trunk in (net.taps.vgg, net.taps.dense):
        trunk.colour_mean.zero_()
        trunk.colour_std.fill_(1)
    fill_by_formula(net)
    yield net
    net.to("meta")  # the module keeps the fixture's value, and 540 MB would stay


GOLDEN: dict[str, tuple[float, ...]] = {  # mean, population standard deviation, [0, 0], [15, 23]
    "mask": (0.32797975, 0.14428627, 0.10556771, 0.41703272),
    "alpha1": (0.10672541, 0.18031269, 0.00084441, 0.05167781),
    "beta1": (0.66969928, 0.32402090, 0.95602476, 0.92313386),
    "alpha2": (0.02260372, 0.06242672, 0.00189928, 0.00008102),
    "beta2": (0.78766966, 0.26107565, 0.99299962, 0.99951590),
    "alpha3": (0.14686942, 0.22507603, 0.45371214, 0.04068149),
    "beta3": (0.76099845, 0.29998726, 0.73427369, 0.77681425),
}


# ---- golden values: measured once on the published network with these weights and this image, never on this code


def test_golden_values_of_the_published_generator(published: HiGMISNetGenerator) -> None:
    with torch.inference_mode():
        outputs = published.forward_all(bright_waves(64, 96))
    assert [tuple(m.shape) for m in outputs] == [(1, 1, 64, 96)] * 3 + [(1, 1, 32, 48)] * 2 + [(1, 1, 16, 24)] * 2
    for name, map_ in outputs._asdict().items():
        plane = map_[0, 0]
        found = [v.item() for v in (plane.mean(), plane.std(correction=0), plane[0, 0], plane[15, 23])]
        assert found == pytest.approx(GOLDEN[name], abs=1e-6), name


# ---- parameters, multiplications and shapes of the published network


def test_parameter_ledger() -> None:
    net = on_meta()
    levels, stages, side = net.encoder, net.decoder, net.side
    ledger = {
        "vgg": count(net.taps.vgg),
        "dense": count(net.taps.dense),
        "encoder": count(*(level.convs for level in levels)),
        "paths": count(*(level.path for level in levels)),
        "waves": count(*(level.wave for level in levels if level.wave is not None)),
        "bottom": count(net.bottom),
        "signals": count(*(stage.signal for stage in stages)),
        "gates": count(*(stage.attend for stage in stages)),
        "enlarge": count(*(stage.enlarge for stage in stages)),
        "decoder": count(*(stage.convs for stage in stages)),
        "head": count(net.head, net.head_norm),
        "fields": count(side.field3, side.field4, side.field5),
        "partial": count(side.decode),
        "reverse": count(side.refine3, side.refine4, side.refine5),
    }
    assert ledger == {
        "vgg": 12_354_880,
        "dense": 11_110_528,
        "encoder": 7_400_645,
        "paths": 6_967_872,
        "waves": 656_992,
        "bottom": 10_047_824,
        "signals": 1_167_808,
        "gates": 2_800_426,
        "enlarge": 4_662_304,
        "decoder": 4_854_369,
        "head": 54,
        "fields": 431_936,
        "partial": 305_185,
        "reverse": 5_222_534,
    }
    assert count(net) == 67_983_357


# Options, millions of parameters, units of 1e9 floating-point operations at 256x256; measured on the published network.
VARIANTS = [
    ({}, 67.983357, 104.25),
    ({"backbones": ("densenet201",)}, 67.983357 - 14.2, 61.5),
    ({"backbones": ("vgg16",)}, 67.983357 - 13.4, 91.3),
    ({"backbones": ()}, 40.4, 48.6),
]


@pytest.mark.parametrize(("options", "millions", "cost"), VARIANTS)
def test_parameters_and_operations_of_variants(options: dict[str, Any], millions: float, cost: float) -> None:
    net = on_meta(**options).eval()
    assert count(net) / 1e6 == pytest.approx(millions, abs=0.06)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.empty(1, 3, 256, 256, device="meta"))
    assert counter.get_total_flops() / 1e9 == pytest.approx(cost, abs=0.06)


# The measured narrow networks had a side branch of 8 and half of our hidden channels in the coarsest reverse attention.
@pytest.mark.parametrize(("features", "millions"), [(8, 2.29), (4, 0.60)])
def test_parameters_of_narrow_networks(features: int, millions: float) -> None:
    net = on_meta(features=features, backbones=(), side_channels=8)
    narrower = on_meta(lambda: ReverseAttention(16 * features, 4 * features, kernels=(1, 5, 5, 5, 1)))
    assert (count(net) - count(net.side.refine5) + count(narrower)) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize(("size", "cost"), [((288, 384), 175.9), ((512, 512), 417)])
def test_operations_at_other_sizes(size: tuple[int, int], cost: float) -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        on_meta().eval()(torch.empty(1, 3, *size, device="meta"))
    assert counter.get_total_flops() / 1e9 == pytest.approx(cost, rel=0.002)


@pytest.mark.parametrize("size", [(256, 256), (288, 384), (64, 96)])
def test_shapes_inside_the_network(size: tuple[int, int]) -> None:
    net = on_meta()
    seen: dict[str, Any] = {}
    for name, module in net.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    output = net(torch.empty(2, 3, *size, device="meta"))

    def shapes(pattern: str, part: int | None, levels: Any) -> list[tuple[int, ...]]:
        outs = (seen[pattern.format(k)] for k in levels)
        return [tuple((out if part is None else out[part]).shape) for out in outs]

    def expected(channels: tuple[int, ...], first: int) -> list[tuple[int, ...]]:
        return [(2, c, size[0] >> k, size[1] >> k) for k, c in enumerate(channels, start=first)]

    assert shapes("encoder.{}.convs", None, range(5)) == expected((51, 105, 212, 426, 853), 0)
    assert shapes("encoder.{}", 0, range(5)) == expected((51, 117, 244, 490, 981), 0)
    assert shapes("encoder.{}", 1, range(5)) == expected((32, 64, 128, 256, 512), 0)
    assert shapes("encoder.{}.wave", None, range(2, 5)) == expected((32, 64, 128), 2)
    assert shapes("taps.vgg.stages.{}", None, range(4)) == expected((128, 256, 512, 512), 1)
    assert shapes("taps.dense.stages.{}", None, range(4)) == expected((64, 128, 256, 896), 1)
    assert shapes("bottom", None, [0]) == expected((1709,), 5)
    assert shapes("decoder.{}.signal", None, range(4, -1, -1)) == expected((32, 64, 128, 256, 512), 1)
    assert shapes("decoder.{}.enlarge", None, range(4, -1, -1)) == expected((32, 64, 128, 256, 512), 0)
    assert shapes("decoder.{}", 0, range(4, -1, -1)) == expected((51, 105, 212, 426, 853), 0)
    assert shapes("side.decode", None, [0]) == expected((1,), 2)
    assert shapes("side.refine{}", None, (3, 4, 5)) == expected((1, 1, 1), 2)
    assert [tuple(m.shape) for m in output[1::2]] == expected((1, 1, 1), 0)


# ---- fusion


def test_fused_probabilities_decide_as_the_fused_masks() -> None:
    p, q = torch.rand(2, 1, 40, 50), torch.rand(2, 1, 40, 50)
    p[0, 0, 0, 0], q[0, 0, 0, 1] = 0.5, 0.5  # NumPy rounds 0.5 to 0
    f, b = np.round(p.numpy()) == 1, np.round(1 - q.numpy()) == 1
    expected = {"and": f & b, "or": f | b, "lesion": f, "background": b, "mean": (p + 1 - q).numpy() / 2 > 0.5}
    for mode in MODES:
        assert np.array_equal((fuse_probabilities(p, q, mode) > 0.5).numpy(), expected[mode]), mode


@pytest.mark.parametrize("mode", MODES)
def test_pair_fuses_its_two_generators(mode: FusionMode) -> None:
    pair = lively(HiGMISNet, fusion=mode)
    x = bright_waves(64, 64)
    with torch.inference_mode():
        lesion, background = pair.forward_all(x)
        assert isinstance(lesion, HiGMISNetGeneratorOutput)
        assert not torch.allclose(lesion.mask, background.mask)
        assert torch.equal(pair(x), fuse_probabilities(lesion.mask, background.mask, mode))


def test_fusion_mode_is_saved_with_the_weights() -> None:
    trained = HiGMISNet(**SMALL)
    assert trained.fusion == "and"
    trained.fusion = "or"
    buffer = io.BytesIO()
    torch.save(trained.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    for asked, expected in ((None, "or"), ("mean", "mean")):
        net = HiGMISNet(**SMALL, fusion=asked)  # type: ignore[arg-type]
        net.load_state_dict(state)
        assert net.fusion == expected


# ---- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 3}, "spatial_dims is 3; .*2-D images only"),
        ({"in_channels": 4}, "in_channels is 4; expected 3 for RGB images, or 1"),
        ({"out_channels": 2}, "out_channels is 2; .*one network a class"),
        ({"features": 2}, "features is 2; expected an even number of at least 4"),
        ({"features": 9}, "features is 9; expected an even number"),
        ({"dropout": 1.0}, "dropout is 1.0; expected a share"),
        ({"norm": "layer"}, "norm is 'layer'; expected one of 'instance'"),
        ({"fusion": "xor"}, "fusion is 'xor'; expected one of 'and', 'or', 'mean', 'lesion', 'background'"),
        ({"mc_samples": -1}, "mc_samples is -1; expected 0"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        HiGMISNet(**{**SMALL, **options})


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (3, 32, 32)])
def test_image_of_another_shape_is_refused_with_the_way_out(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(batch, 3, height, width\).*another in_channels"):
        HiGMISNetGenerator(**SMALL)(torch.rand(shape))


def test_discriminator_refuses_wrong_arguments_in_a_sentence() -> None:
    with pytest.raises(InputError, match=r"channels is \(\); expected positive numbers"):
        PatchDiscriminator(channels=())
    with pytest.raises(InputError, match="norm is 'layer'"):
        PatchDiscriminator(channels=(4, 4), norm="layer")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"shape \(1, 3, 32, 32\) and the mask \(1, 1, 32, 30\); expected"):
        PatchDiscriminator(channels=(4, 4))(torch.rand(1, 3, 32, 32), torch.rand(1, 1, 32, 30))
