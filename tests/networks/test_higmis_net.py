"""Hi-gMISnet: golden values, ledgers and shapes of the published network, fusion, dropout, batches, exports, errors."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from msrf_monai.errors import InputError
from msrf_monai.networks import (
    HiGMISNet,
    HiGMISNetGenerator,
    HiGMISNetGeneratorOutput,
    HiGMISNetOutput,
    PatchDiscriminator,
)
from msrf_monai.networks.blocks import ReverseAttention
from msrf_monai.networks.inference import fold_batch_norms, merge_convolutions
from msrf_monai.networks.nets.higmis_net import FusionMode, fuse_probabilities
from support.net_tester import NetTester

SMALL: dict[str, Any] = {"features": 4, "backbones": ()}
MODES: tuple[FusionMode, ...] = ("and", "or", "mean", "lesion", "background")


class _InstanceNormTester(NetTester):
    """The shared checks, where chains of instance norms need more than single precision or more than one cell."""

    in_channels = 3
    export_tolerance = 1e-3
    dtype: torch.dtype = torch.float32
    least: int = 1

    def build(self, **changes: Any) -> nn.Module:
        return super().build(**changes).to(self.dtype)

    def image(self, height: int, width: int, batch: int = 1) -> torch.Tensor:
        return super().image(max(height, self.least), max(width, self.least), batch).to(self.dtype)

    # Norms of nearly constant maps enlarge single precision's rounding to about 1e-4.
    def test_eval_mode_is_deterministic_and_independent_of_the_batch(self) -> None:
        self.dtype = torch.float64
        super().test_eval_mode_is_deterministic_and_independent_of_the_batch()

    def test_channels_last_gives_the_same(self) -> None:
        self.dtype = torch.float64
        super().test_channels_last_gives_the_same()

    # An exported program takes images of more than 32 pixels along both axes.
    @pytest.mark.extended
    def test_export_equals_eager_at_other_sizes(self) -> None:
        self.least = 33
        super().test_export_equals_eager_at_other_sizes()

    @pytest.mark.extended
    def test_compile_has_no_graph_break(self) -> None:
        self.least = 33
        super().test_compile_has_no_graph_break()

    @pytest.mark.extended
    @pytest.mark.filterwarnings("ignore:# 'dynamic_axes' is not recommended", "ignore:.*LeafSpec.*:FutureWarning")
    def test_onnx_equals_eager_at_other_sizes_and_batches(self) -> None:
        self.least = 33
        super().test_onnx_equals_eager_at_other_sizes_and_batches()


class TestHiGMISNetGenerator(_InstanceNormTester):
    """The shared checks for the generator without trunks."""

    target = "msrf_monai.networks.HiGMISNetGenerator"
    options: ClassVar[dict[str, Any]] = SMALL
    variants: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"norm": "batch", "head_norm": False, "features": 6, "side_channels": 3, "dropout": 0.0},
    )

    @pytest.mark.extended  # the pair's own test scripts two of these
    def test_torchscript_equals_eager_at_other_sizes(self) -> None:
        super().test_torchscript_equals_eager_at_other_sizes()


class TestHiGMISNet(_InstanceNormTester):
    """The shared checks for the pair."""

    # Minutes each for twice what the generator's own checks do; the pair's ONNX is checked with trunks, further below.
    test_compile_has_no_graph_break = None  # type: ignore[assignment]
    test_onnx_equals_eager_at_other_sizes_and_batches = None  # type: ignore[assignment]

    target = "msrf_monai.networks.HiGMISNet"
    options: ClassVar[dict[str, Any]] = SMALL
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({"fusion": "mean"},)

    def test_gradient_reaches_every_parameter(self) -> None:
        net = self.build().train()
        outputs = net(self.image(32, 40, batch=2))
        assert isinstance(outputs, HiGMISNetOutput)
        sum((m.square() * torch.rand_like(m)).sum() for output in outputs for m in output).backward()
        assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []

    def test_torchscript_equals_eager_at_other_sizes(self) -> None:
        pair = self.build()
        scripted = torch.jit.script(pair)
        x = self.image(41, 56, batch=2)
        with torch.inference_mode():
            expected = pair(x)
            torch.testing.assert_close(scripted(x), expected, rtol=0, atol=1e-3)
            pair.fusion = "or"
            scripted.load_state_dict(pair.state_dict())  # the mode is part of it
            torch.testing.assert_close(scripted(x), pair(x), rtol=0, atol=1e-3)
            assert (pair(x) - expected).abs().max() > 0.01


# --- golden values: measured once on the published network with these weights and this image, never on this code


def fill_by_formula(net: nn.Module) -> None:
    """Give every convolution and linear layer weights that depend on the element's number only, and biases of 0.1."""
    for layer in net.modules():
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        k = np.arange(layer.weight.numel(), dtype=np.int64)
        fan = layer.weight.shape[0] if isinstance(layer, nn.ConvTranspose2d) else layer.weight[0].numel()
        values = ((31 * k**2 + 17 * k) % 1009 / 1009 - 0.5) * np.sqrt(24 / fan)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(values.reshape(layer.weight.shape)))
            if layer.bias is not None:
                layer.bias.fill_(0.1)


def waves(height: int, width: int) -> torch.Tensor:
    c, i, j = np.meshgrid(range(3), range(height), range(width), indexing="ij")
    return torch.from_numpy(0.5 + 0.5 * np.cos(0.1 * i + 0.2 * j + c))[None]


def on_meta(kind: Any = HiGMISNetGenerator, **options: Any) -> Any:
    with torch.device("meta"):
        return kind(**options)


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


def test_golden_values_of_the_published_generator(published: HiGMISNetGenerator) -> None:
    with torch.inference_mode():
        outputs = published.forward_all(waves(64, 96))
    assert [tuple(m.shape) for m in outputs] == [(1, 1, 64, 96)] * 3 + [(1, 1, 32, 48)] * 2 + [(1, 1, 16, 24)] * 2
    for name, map_ in outputs._asdict().items():
        plane = map_[0, 0]
        found = [v.item() for v in (plane.mean(), plane.std(correction=0), plane[0, 0], plane[15, 23])]
        assert found == pytest.approx(GOLDEN[name], abs=1e-6), name


# --- parameters, multiplications and shapes of the published network


def count(*modules: Any) -> int:
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)


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


# --- the discriminator


def test_discriminator_has_the_published_size_and_cost() -> None:
    net = on_meta(PatchDiscriminator)
    assert count(net) == 2_767_553
    statistics = sum(b.numel() for name, b in net.named_buffers() if "running" in name)
    assert count(net) + statistics == 2_769_345
    with FlopCounterMode(display=False) as counter:
        out = net(torch.empty(1, 3, 256, 256, device="meta"), torch.empty(1, 1, 256, 256, device="meta"))
    assert out.shape == (1, 1, 16, 16)
    assert counter.get_total_flops() / 1e9 == pytest.approx(3.36, abs=0.01)


@pytest.mark.parametrize("size", [(288, 384), (64, 96), (75, 41)])
def test_discriminator_has_a_patch_for_every_16_pixels(size: tuple[int, int]) -> None:
    judge = PatchDiscriminator(channels=(4, 8, 8, 8))
    scores = judge(torch.rand(2, 3, *size), torch.rand(2, 1, *size))
    assert scores.shape == (2, 1, -(-size[0] // 16), -(-size[1] // 16))
    assert ((scores > 0) & (scores < 1)).all()


@pytest.mark.parametrize("size", [(8, 6), (7, 9)])
def test_discriminator_pads_as_tensorflow_does(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    judge = PatchDiscriminator(channels=(2,)).double()
    image, mask = torch.randn(1, 3, *size).double(), torch.rand(1, 1, *size).double()

    def same(x: torch.Tensor, conv: nn.Conv2d) -> torch.Tensor:
        stride = conv.stride[0]
        totals = [max((-(-n // stride) - 1) * stride + 4 - n, 0) for n in x.shape[2:]]
        (top, bottom), (left, right) = ((t // 2, t - t // 2) for t in totals)
        return F.conv2d(F.pad(x, (left, right, top, bottom)), conv.weight, conv.bias, stride)

    hidden = F.leaky_relu(same(torch.cat([image, mask], dim=1), judge.convs[0]), 0.2)  # type: ignore[arg-type]
    torch.testing.assert_close(judge(image, mask), torch.sigmoid(same(hidden, judge.head)), rtol=0, atol=1e-12)


def test_generator_step_through_a_frozen_discriminator_changes_nothing_there() -> None:
    torch.manual_seed(0)
    judge = PatchDiscriminator(channels=(4, 8, 8)).train()
    generator = HiGMISNetGenerator(**SMALL)
    image = torch.rand(2, 3, 64, 64)
    open_scores = judge(image, torch.full((2, 1, 64, 64), 0.5))
    before = {name: tensor.clone() for name, tensor in judge.state_dict().items()}
    # Even an optimiser that has the discriminator's parameters, with weight decay, leaves them alone.
    optimizer = torch.optim.AdamW([*generator.parameters(), *judge.parameters()], lr=1e-2)
    with judge.frozen():
        assert torch.equal(judge(image, torch.full((2, 1, 64, 64), 0.5)), open_scores)  # by the batch's statistics
        (1 - judge(image, generator(image).mask)).mean().backward()
    optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in judge.state_dict().items())
    assert all(p.grad is not None for p in generator.head.parameters())
    assert all(p.requires_grad for p in judge.parameters())
    judge(image, torch.rand(2, 1, 64, 64))
    assert not torch.equal(judge.state_dict()["norms.1.running_mean"], before["norms.1.running_mean"])


def test_discriminator_can_be_scripted() -> None:
    judge = PatchDiscriminator(channels=(4, 8)).eval()
    image, mask = torch.rand(1, 3, 21, 34), torch.rand(1, 1, 21, 34)
    torch.testing.assert_close(torch.jit.script(judge)(image, mask), judge(image, mask))


# --- batches, windows, sizes, backgrounds


def lively(kind: Any = HiGMISNetGenerator, **options: Any) -> Any:
    """A small network in evaluation mode whose results differ from place to place, in double precision."""
    net = kind(**{**SMALL, **options}).double().eval()
    fill_by_formula(net)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):  # the two generators of a pair must differ
            with torch.no_grad():
                layer.weight.add_(0.02 * torch.randn_like(layer.weight))
    return net


@pytest.mark.parametrize("norm", ["instance", "batch", "batch_always"])
def test_optimized_network_gives_the_same(norm: str) -> None:
    net = lively(norm=norm, backbones=("densenet201",))
    optimized = merge_convolutions(fold_batch_norms(net))
    with torch.inference_mode():
        torch.testing.assert_close(optimized(waves(64, 64)), net(waves(64, 64)), rtol=0, atol=1e-8)
    left = [m for m in optimized.modules() if isinstance(m, nn.BatchNorm2d)]
    # Norms stay that have no convolution right before them: of each dense layer and transition of the trunk one, of
    # each of 11 MultiRes blocks two, of each of 11 steps of the skips' paths one, and the head's.
    assert len(left) == 6 + 12 + 48 + 3 + (2 * 11 + 11 + 1 if norm == "batch" else 0)


@pytest.mark.parametrize("kind", [HiGMISNetGenerator, HiGMISNet])
def test_only_norms_of_the_batch_let_images_meet(kind: Any) -> None:
    x = torch.cat([waves(64, 96), 0.2 * torch.rand(1, 3, 64, 96).double()])
    for norm, differs in (("instance", False), ("batch", False), ("batch_always", True)):
        net = lively(kind, norm=norm)
        with torch.inference_mode():
            alone, together = net(x[:1]), net(x)[:1]
        assert ((alone - together).abs().max() > 1e-2) if differs else ((alone - together).abs().max() < 1e-12), norm


def test_instance_norm_of_one_image_is_the_released_batch_norm() -> None:
    ours, released = lively(), lively(norm="batch_always")
    released.load_state_dict(ours.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(released(waves(64, 96)), ours(waves(64, 96)), rtol=0, atol=1e-9)


def test_windows_of_a_batch_change_nothing() -> None:
    net = lively(HiGMISNet)
    with torch.inference_mode():
        one, many = (SlidingWindowInferer(64, sw_batch_size=k, overlap=0.25)(waves(100, 130), net) for k in (1, 5))
    assert one.std() > 0.01
    torch.testing.assert_close(one, many, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(288, 384), (75, 41), (3, 5)])
def test_other_sizes_are_padded_by_repetition_and_cropped(size: tuple[int, int]) -> None:
    net = lively()
    x = waves(*size)
    by_hand = torch.from_numpy(np.pad(x.numpy(), [(0, 0), (0, 0), *((0, -s % 32) for s in size)], mode="edge"))
    with torch.inference_mode():
        ours, padded = net.forward_all(x), net.forward_all(by_hand)
    for k, (small, large) in enumerate(zip(ours, padded, strict=True)):
        factor = (1, 1, 1, 2, 2, 4, 4)[k]
        height, width = (-(-s // factor) for s in size)
        assert small.shape == (1, 1, height, width)
        torch.testing.assert_close(small, large[:, :, :height, :width], rtol=0, atol=1e-12)


def test_grey_images_are_repeated_to_three_channels() -> None:
    grey = lively(in_channels=1)
    colour = lively()
    colour.load_state_dict(grey.state_dict())
    x = waves(64, 64)[:, :1]
    with torch.inference_mode():
        assert torch.equal(grey(x), colour(x.expand(1, 3, 64, 64)))


def test_an_image_can_be_all_background_only_without_the_norm_of_the_head() -> None:
    free, normed = (lively(head_norm=flag) for flag in (False, True))
    main: dict[str, torch.Tensor] = {}
    for net in (free, normed):
        nn.init.constant_(net.head.bias, -1e3)
        net.head_norm.register_forward_hook(lambda _m, _i, out: main.update(logits=out))
    with torch.inference_mode():
        assert free(waves(64, 96)).max() < 1e-6
        normed(waves(64, 96))
    assert main["logits"].max() > 0  # by the main map alone, some place is always foreground
    assert main["logits"].mean().abs() < 1e-9


def test_an_all_background_image_can_be_learnt() -> None:
    torch.manual_seed(0)
    net = HiGMISNet(**SMALL, head_norm=False)
    image, empty = torch.rand(1, 3, 32, 64), torch.zeros(1, 1, 32, 64)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        lesion, background = net(image)
        loss = F.binary_cross_entropy(lesion.mask, empty) + F.binary_cross_entropy(background.mask, 1 - empty)
        loss.backward()
        optimizer.step()
    for mode in MODES:
        net.fusion = mode
        with torch.inference_mode():
            assert net.eval()(image).max() < 0.5, mode


# --- dropout


def test_evaluation_has_no_dropout_and_training_has() -> None:
    net = lively()
    x = waves(64, 64)
    with torch.no_grad():
        assert torch.equal(net(x), net(x))
        first, second = (net.train()(x).mask for _ in range(2))
    assert not torch.equal(first, second)


def test_dropout_of_evaluation_is_an_option() -> None:
    x = waves(64, 64)
    with torch.inference_mode():
        net = lively(mc_dropout=True)
        assert not torch.equal(net(x), net(x))
        assert "p=0.5, always_on=True" in repr(net)

        pair = lively(HiGMISNet, mc_samples=3)
        torch.manual_seed(5)
        mean = pair(x)
        torch.manual_seed(5)
        passes = [fuse_probabilities(pair.lesion(x), pair.background(x), "and") for _ in range(3)]
    assert not torch.equal(passes[0], passes[1])
    torch.testing.assert_close(mean, sum(passes) / 3)


def test_dropout_is_in_the_three_coarsest_levels_only() -> None:
    net = HiGMISNetGenerator(**SMALL)
    assert [getattr(level.dropout, "p", 0.0) for level in net.decoder] == [0.5, 0.5, 0.5, 0.0, 0.0]


# --- fusion


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
    x = waves(64, 64)
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


# --- training


def test_one_step_of_both_generators_with_published_widths_of_the_trunks() -> None:
    torch.manual_seed(0)
    net = HiGMISNetGenerator(features=4)  # both trunks, narrow elsewhere
    output = net(torch.rand(2, 3, 64, 64))
    sum(m.square().mean() for m in output).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.extended
def test_fourteen_steps_at_base_32_learn_two_images() -> None:
    from msrf_monai.losses import HiGMISGeneratorLoss, ReciprocalLoss

    torch.manual_seed(0)
    image, mask = torch.rand(2, 3, 64, 64) * 0.3, torch.zeros(2, 1, 64, 64)
    mask[0, :, 10:34, 20:50] = 1
    mask[1, :, 30:55, 8:30] = 1
    image = image + 0.5 * mask
    pair = HiGMISNet(backbones=())
    optimizer = torch.optim.Adam(pair.parameters(), lr=4e-4, betas=(0.5, 0.999))
    losses = {"lesion": HiGMISGeneratorLoss("lesion"), "background": HiGMISGeneratorLoss("background")}
    couple = ReciprocalLoss()
    first = last = torch.zeros(())
    for step in range(14):
        optimizer.zero_grad()
        outputs = pair(image)
        last = couple(outputs.lesion.mask, outputs.background.mask, image, mask)
        first = last if step == 0 else first
        total = losses["lesion"](outputs.lesion, mask) + losses["background"](outputs.background, mask) + last
        total.backward()
        optimizer.step()
    with torch.inference_mode():
        decided = pair.eval()(image) > 0.5
    iou = (decided & (mask > 0)).sum() / (decided | (mask > 0)).sum()
    assert iou > 0.9
    assert last < 0.5 * first


# --- exports of the pair as one module


@pytest.mark.extended
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
def test_pair_with_trunks_is_exported_as_one_module() -> None:
    torch.manual_seed(0)
    net = HiGMISNet(features=4).eval()
    x, single = torch.rand(2, 3, 64, 96), torch.rand(1, 3, 64, 96)
    # The batch is free; free sizes, which the shared checks export, take minutes with the trunks.
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    model = torch.onnx.export(program, dynamo=True, input_names=["image"], verbose=False).model_proto
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    fixed = {"export": program.module(), "onnx": lambda image: _run_onnx(session, image)}
    free = {"script": torch.jit.script(net)}
    with torch.inference_mode():
        for image, forms in ((x, free | fixed), (single, free | fixed), (torch.rand(1, 3, 70, 90), free)):
            expected = net(image)
            for name, form in forms.items():
                assert (form(image) - expected).abs().max() < 1e-3, name


def _run_onnx(session: onnxruntime.InferenceSession, image: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def test_pair_comes_from_a_configuration() -> None:
    definition = {"_target_": "msrf_monai.networks.HiGMISNet", "features": 8, "backbones": [], "fusion": "or"}
    net = ConfigParser({"net": definition}).get_parsed_content("net")
    assert (net.fusion, net.features, net.lesion.taps.vgg) == ("or", 8, None)


# --- errors


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
