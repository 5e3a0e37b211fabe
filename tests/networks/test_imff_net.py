"""IMFF-Net and its blocks: golden values and parameter ledger of the published network, ablations, sizes, errors."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from msrf_monai.errors import InputError
from msrf_monai.networks import IMFFNet, IMFFNetOutput
from msrf_monai.networks.blocks import AttentionPoolingFusion, UpDownFusion
from msrf_monai.networks.blocks.convex_sum import ConvexSum
from msrf_monai.networks.inference import fold_batch_norms, merge_convolutions, optimize_for_inference
from support.formula_weights import fill_by_formula, waves
from support.net_tester import NetTester

EIGHTH = (8, 16, 32, 64, 128)
ALL_SKIPS = (0, 1, 2, 3)
PLAIN: dict[str, Any] = {"apf_levels": (), "up_down_fusion": False}
LEARNABLE: dict[str, Any] = {"fusion_weights": "learnable", "pool_weights": "learnable"}


class TestIMFFNet(NetTester):
    """The shared checks for the published network, its ablations and its options."""

    target = "msrf_monai.networks.IMFFNet"
    options: ClassVar[dict[str, Any]] = {"features": (4, 8, 12), "in_channels": 3, "out_channels": 1}
    variants: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"apf_levels": (0, 1), **LEARNABLE},
        {"apf_form": "literal", "padding": "zeros"},
        {"up_down_fusion": False},
        {"features": (4, 8), **PLAIN},
        {"features": (4, 8), "apf_levels": (0,)},  # the side pyramid has its bottom only
    )
    export_options: ClassVar[dict[str, Any]] = {"features": (4, 4, 8), "padding": "zeros", **LEARNABLE}
    export_tolerance = 1e-5
    in_channels = 3


class TestIMFFNetPaddedByItsEdge(NetTester):
    """The exports once more with the default padding and fixed weights."""

    target = "msrf_monai.networks.IMFFNet"
    options: ClassVar[dict[str, Any]] = {"features": (4, 4, 8)}
    export_tolerance = 1e-5
    in_channels = 3
    sizes: ClassVar[tuple[tuple[int, int], ...]] = ((41, 27),)


# --- golden values: measured once on the published network with these weights and this image, never on this code


def golden_net(**options: Any) -> IMFFNet:
    net = IMFFNet(features=EIGHTH, **options).double().eval()
    fill_by_formula(net)
    return net


def summary(map_: torch.Tensor) -> list[float]:
    """Mean, population standard deviation and three pixels of the first channel."""
    plane = map_[0, 0]
    return [v.item() for v in (plane.mean(), plane.std(correction=0), plane[0, 0], plane[15, 23], plane[-1, -1])]


FORMS = pytest.mark.parametrize("form", ["low_resolution", "literal"])

GOLDEN_OUTPUTS = {
    "mask": [-5.171963, 15.682569, -2.566775, 18.207396, -1.467149],
    "head": [-3.988784, 18.147176, -0.914361, 16.446706, -4.637668],
    "side": [-7.932716, 22.834589, -6.422408, 22.315674, 5.930730],
}


@FORMS
def test_golden_values_of_the_whole_network(form: Any) -> None:
    with torch.inference_mode():
        outputs = golden_net(apf_form=form).forward_all(waves(32, 48))
    assert {name: pytest.approx(values, abs=1e-5) for name, values in GOLDEN_OUTPUTS.items()} == {
        name: summary(map_) for name, map_ in outputs._asdict().items()
    }


@FORMS
def test_golden_values_of_a_size_that_is_filled_with_zeros(form: Any) -> None:
    with torch.inference_mode():
        out = golden_net(apf_form=form, padding="zeros")(waves(37, 41))
    assert out.shape == (1, 1, 37, 41)
    assert summary(out) == pytest.approx([-6.937653, 20.994014, -2.686471, 5.388001, 3.740109], abs=1e-5)


@FORMS
def test_golden_values_of_attention_pooling_fusion(form: Any) -> None:
    block = AttentionPoolingFusion(16, form=form).double()
    fill_by_formula(block)
    x = waves(16, 24, channels=16)
    with torch.inference_mode():
        gates, out = block.gate(x), block(x)
    assert gates[0, :4].tolist() == pytest.approx([0.380465, 0.475524, 0.448097, 0.451961], abs=1e-5)
    assert summary(out) == pytest.approx([0.023744, 0.294248, -0.425627, -0.782300, -0.782300], abs=1e-5)


# --- parameters and multiplications of the published network


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)


def full_size(**options: Any) -> IMFFNet:
    with torch.device("meta"):
        return IMFFNet(**options)


def test_parameter_ledger() -> None:
    net = full_size()
    apf, fusion = net.skips[1], net.fusion
    assert fusion is not None
    assert [count(stage) for stage in net.encoder] == [38_976, 221_952, 886_272, 3_542_016]
    assert count(net.bottom) == 14_161_920
    assert [count(stage.enlarge) for stage in net.decoder] == [2_097_664, 524_544, 131_200, 32_832]
    assert [count(stage.convs) for stage in net.decoder] == [7_080_960, 1_771_008, 443_136, 110_976]
    assert [count(skip) for skip in net.skips] == [0, 188_672, 0, 0]
    assert [count(part) for part in (apf.gate, apf.conv, apf.join)] == [8_192, 147_584, 32_896]
    assert count(net.head) == 65
    projects = [fusion.bottom_project, *(rise.project for rise in fusion.rises)]
    assert [count(project) for project in projects] == [525_312, 131_584, 33_024, 8_320]
    enlarges = [*(rise.enlarge for rise in fusion.rises), fusion.last_enlarge]
    assert [count(enlarge) for enlarge in enlarges] == [2_097_664, 524_544, 131_200, 513]
    assert count(net) == 34_684_354


COUNTS = [
    ({}, 34_684_354),
    ({"up_down_fusion": False}, 31_232_193),
    ({"apf_levels": ()}, 34_495_682),
    (PLAIN, 31_043_521),
    ({"in_channels": 1}, 34_683_202),
    ({"apf_levels": ALL_SKIPS}, 38_501_442),
    ({"features": (32, 64, 128, 256, 512)}, 8_677_090),
    ({"features": (16, 32, 64, 128, 256)}, 2_172_274),
    ({"features": EIGHTH}, 544_570),
    ({"apf_form": "literal", "padding": "zeros"}, 34_684_354),
    ({"fusion_weights": "learnable"}, 34_684_354 + 4),  # one share a sum
    ({"pool_weights": "learnable"}, 34_684_354 + 1),  # one share a fusion
    ({"pool_weights": "learnable", "apf_levels": ALL_SKIPS}, 38_501_442 + 4),
]


@pytest.mark.parametrize(("options", "expected"), COUNTS)
def test_parameter_counts_of_ablations_and_widths(options: dict[str, Any], expected: int) -> None:
    assert count(full_size(**options)) == expected


# Multiplications for 512x512 in units of 1e9, measured on the published network; the last follows from its cost note.
COSTS = [
    ({"apf_form": "literal"}, 242.1),
    ({"apf_form": "literal", "up_down_fusion": False}, 233.5),
    ({"apf_levels": ()}, 201.3),
    (PLAIN, 192.7),
    ({"apf_form": "literal", "apf_levels": ALL_SKIPS}, 364),
    ({"apf_form": "literal", "features": (16, 32, 64, 128, 256)}, 15.2),
    ({}, 242.1 - 38.7 + 17.2),
]


@pytest.mark.parametrize(("options", "expected"), COSTS)
def test_number_of_multiplications(options: dict[str, Any], expected: float) -> None:
    net = full_size(**options).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.empty(1, 3, 512, 512, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(expected, rel=0.005)


# --- the two forms of the attention-pooling fusion


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 14)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pool_weights", ["fixed", "learnable"])
def test_both_forms_have_the_same_results_and_gradients(
    size: tuple[int, int], dtype: torch.dtype, pool_weights: Any
) -> None:
    torch.manual_seed(0)
    low = AttentionPoolingFusion(6, 3, pool_weights=pool_weights).to(dtype)
    literal = AttentionPoolingFusion(6, 3, form="literal", pool_weights=pool_weights).to(dtype)
    literal.load_state_dict(low.state_dict())
    x, probe = torch.randn(2, 6, *size, dtype=dtype), torch.randn(2, 6, *size, dtype=dtype)
    results = []
    for block in (low, literal):
        image = x.clone().requires_grad_()
        out = block(image)
        (out * probe).sum().backward()
        results.append([out.detach(), image.grad, *(p.grad for p in block.parameters())])
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_both_forms_give_the_same_network() -> None:
    torch.manual_seed(0)
    low = IMFFNet(features=EIGHTH, apf_levels=ALL_SKIPS).eval()
    literal = IMFFNet(features=EIGHTH, apf_levels=ALL_SKIPS, apf_form="literal").eval()
    literal.load_state_dict(low.state_dict())
    x = torch.rand(2, 3, 50, 63)
    with torch.inference_mode():
        torch.testing.assert_close(low(x), literal(x), rtol=0, atol=1e-5)


def test_low_resolution_form_keeps_less_for_the_backward_pass() -> None:
    kept = {}
    for form in ("low_resolution", "literal"):
        block = AttentionPoolingFusion(8, form=form)  # type: ignore[arg-type]
        storages: dict[int, int] = {}

        def note(tensor: torch.Tensor, storages: dict[int, int] = storages) -> torch.Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            out = block(torch.rand(1, 8, 64, 64))
        assert out.requires_grad
        kept[form] = sum(storages.values())
    assert kept["low_resolution"] < 0.8 * kept["literal"]


# --- fusion weights


def test_learnable_weights_start_where_the_fixed_ones_are_and_learn() -> None:
    torch.manual_seed(0)
    fixed = IMFFNet(features=EIGHTH)
    learnable = IMFFNet(features=EIGHTH, **LEARNABLE)
    missing, unexpected = learnable.load_state_dict(fixed.state_dict(), strict=False)
    assert len(missing) == 5
    assert unexpected == []
    x = torch.rand(2, 3, 32, 48)
    torch.testing.assert_close(learnable(x), fixed(x), rtol=0, atol=1e-5)

    optimizer = torch.optim.SGD([p for name, p in learnable.named_parameters() if name in missing], lr=1.0)
    learnable(x).square().mean().backward()
    optimizer.step()
    shares = [m.share() for m in learnable.modules() if isinstance(m, ConvexSum)]
    assert all(abs(share - start) > 1e-6 for share, start in zip(shares, [0.5, 0.3, 0.3, 0.3, 0.3], strict=True))
    assert all(0 < share < 1 for share in shares)


def test_mask_is_mixed_from_head_and_side() -> None:
    net = IMFFNet(features=(4, 8, 16), out_channels=2).eval()
    with torch.inference_mode():
        x = torch.rand(1, 3, 21, 34)
        out = net.forward_all(x)
        assert isinstance(out, IMFFNetOutput)
        assert [tuple(map_.shape) for map_ in out] == [(1, 2, 21, 34)] * 3
        torch.testing.assert_close(out.mask, 0.3 * out.side + 0.7 * out.head)
        assert torch.equal(out.mask, net(x))


def test_network_without_side_pyramid_is_its_head() -> None:
    net = IMFFNet(features=(4, 8, 16), up_down_fusion=False).eval()
    with torch.inference_mode():
        out = net.forward_all(torch.rand(1, 3, 21, 34))
    assert out.side is None
    assert torch.equal(out.mask, out.head)


def test_side_pyramid_is_linear_but_for_its_biases() -> None:
    torch.manual_seed(0)
    block = UpDownFusion((3, 4, 6), out_channels=2).double()
    shapes = [(1, 2, 16, 24), (1, 4, 8, 12), (1, 6, 4, 6), (1, 3, 8, 12), (1, 4, 4, 6)]
    a, b = ([torch.randn(shape).double() for shape in shapes] for _ in range(2))
    mean = [(x + y) / 2 for x, y in zip(a, b, strict=True)]
    outputs = [block(maps[0], maps[1:3], maps[3:])[0] for maps in (a, b, mean)]
    torch.testing.assert_close((outputs[0] + outputs[1]) / 2, outputs[2], rtol=0, atol=1e-12)


# --- faster forms


@pytest.mark.parametrize("features", [(3, 5), (3, 4, 6, 5)])
@pytest.mark.parametrize("weights", ["fixed", "learnable"])
def test_inference_form_of_the_side_pyramid_gives_the_same(features: tuple[int, ...], weights: Any) -> None:
    torch.manual_seed(0)
    block = UpDownFusion(features, out_channels=2, weights=weights).double()
    for mix in (m for m in block.modules() if isinstance(m, ConvexSum) and m.logit is not None):
        nn.init.uniform_(mix.logit, -2, 2)
    size = 2 ** len(features)
    decoded = [torch.randn(2, c, size >> k, 3 * size >> k).double() for k, c in enumerate(features[1:], start=1)]
    pooled = [torch.randn(2, c, size >> k, 3 * size >> k).double() for k, c in enumerate(features[:-1], start=1)]
    head = torch.randn(2, 2, size, 3 * size).double()
    direct = torch.jit.script(block.inference_form())
    for ours, theirs in zip(direct(head, decoded, pooled), block(head, decoded, pooled), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{}, PLAIN, {"apf_levels": ALL_SKIPS, **LEARNABLE}])
def test_optimized_network_gives_the_same(options: dict[str, Any]) -> None:
    net = golden_net(**options)
    x = waves(37, 41)
    exact = merge_convolutions(fold_batch_norms(net))
    with torch.inference_mode():
        torch.testing.assert_close(exact(x), net(x), rtol=0, atol=1e-10)
        torch.testing.assert_close(optimize_for_inference(net.float())(x.float()), net(x.float()), rtol=1e-4, atol=1e-3)
    assert not [m for m in exact.modules() if isinstance(m, nn.BatchNorm2d)]


def test_inference_form_of_the_full_network_needs_a_tenth_for_the_side_pyramid() -> None:
    costs = []
    for block in (UpDownFusion((32, 64, 128)), UpDownFusion((32, 64, 128)).inference_form()):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            decoded = [torch.rand(1, 64, 16, 16), torch.rand(1, 128, 8, 8)]
            pooled = [torch.rand(1, 32, 16, 16), torch.rand(1, 64, 8, 8)]
            block(torch.rand(1, 1, 32, 32), decoded, pooled)
        costs.append(counter.get_total_flops())
    assert costs[1] < 0.1 * costs[0]


# --- sizes, windows, ablations, configuration


@pytest.mark.parametrize("size", [(40, 61), (37, 56), (3, 5)])
def test_odd_sizes_are_padded_by_repetition_and_cropped(size: tuple[int, int]) -> None:
    net = golden_net()
    x = waves(*size)
    fill = [(0, 0), (0, 0), *((0, -s % 16) for s in size)]
    by_hand = torch.from_numpy(np.pad(x.numpy(), fill, mode="edge"))
    with torch.inference_mode():
        torch.testing.assert_close(net(x), net(by_hand)[:, :, : size[0], : size[1]], rtol=0, atol=1e-10)


def test_padding_does_nothing_where_sizes_fit() -> None:
    x = waves(32, 48)
    with torch.inference_mode():
        assert torch.equal(golden_net(padding="zeros")(x), golden_net()(x))


def test_windows_of_a_batch_change_nothing() -> None:
    net = golden_net()
    x = waves(70, 90)
    with torch.inference_mode():
        one, many = (SlidingWindowInferer(48, sw_batch_size=size, overlap=0.25)(x, net) for size in (1, 5))
    torch.testing.assert_close(one, many, rtol=0, atol=1e-10)


def test_ablations_have_the_blocks_that_their_options_say() -> None:
    fusions = {levels: IMFFNet(features=EIGHTH, apf_levels=levels).skips for levels in ((), (1,), (3, 0), ALL_SKIPS)}
    for levels, skips in fusions.items():
        found = [k for k, skip in enumerate(skips) if isinstance(skip, AttentionPoolingFusion)]
        assert found == sorted(levels)
    plain = IMFFNet(features=EIGHTH, **PLAIN)
    assert not [m for m in plain.modules() if isinstance(m, AttentionPoolingFusion | UpDownFusion | ConvexSum)]


def test_network_comes_from_a_configuration_with_lists() -> None:
    definition = {"_target_": "msrf_monai.networks.IMFFNet", "features": [16, 32, 64, 128, 256], "apf_levels": [0, 1]}
    net = ConfigParser({"net": definition}).get_parsed_content("net")
    assert [isinstance(skip, AttentionPoolingFusion) for skip in net.skips] == [True, True, False, False]


def test_options_that_weights_do_not_show_are_in_the_repr() -> None:
    net = IMFFNet(features=EIGHTH, apf_form="literal", fusion_weights="learnable")
    assert "form='literal'" in repr(net)
    assert "share=0.3, weights=learnable" in repr(net)
    assert "share=0.5, weights=fixed" in repr(net)


# --- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 3}, "spatial_dims is 3; .*2-D images only"),
        ({"features": (8,)}, r"features is \(8,\); expected at least two positive numbers"),
        ({"features": (8, 0)}, "at least two positive numbers"),
        ({"apf_levels": (4,)}, r"apf_levels is \(4,\); .* from 0 for the finest to 3 for the coarsest of 5 stages"),
        ({"apf_levels": (-1,)}, "apf_levels is"),
        ({"apf_levels": (1, 1)}, "expected different numbers"),
        ({"fusion_weights": "free"}, "weights is 'free'; expected one of 'fixed', 'learnable'"),
        ({"pool_weights": "free"}, "weights is 'free'; expected one of 'fixed', 'learnable'"),
        ({"apf_form": "exact"}, "form is 'exact'; expected one of 'low_resolution', 'literal'"),
        ({"padding": "reflect"}, "padding is 'reflect'; expected one of 'edge', 'zeros'"),
        ({"reduction": 32}, "reduction is 32 for 16 channels; expected 1 to 16"),
        ({"reduction": 0}, "reduction is 0 for 16 channels; expected 1 to 16"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        IMFFNet(**{"features": EIGHTH, **options})


@pytest.mark.parametrize("share", [0.0, 1.0, -0.3])
def test_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="expected a number between 0 and 1"):
        UpDownFusion((4, 8), share_from_below=share)


def test_side_pyramid_of_one_stage_is_refused() -> None:
    with pytest.raises(InputError, match=r"features is \(4,\); expected at least two"):
        UpDownFusion((4,))


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (3, 32, 32)])
def test_image_of_another_shape_is_refused_with_the_way_out(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(batch, 3, height, width\).*another in_channels"):
        IMFFNet(features=(4, 8, 16))(torch.rand(shape))
