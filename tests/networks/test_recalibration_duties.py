"""What every recalibration block owes: shapes, gradients, layouts, batches, low precision, clear refusals."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from msrf_monai.errors import InputError
from msrf_monai.networks.blocks import (
    BiasedBatchNorm,
    ChannelExcitation,
    FrequencyChannelAttention,
    GaussianSingularityStrength,
    LocalSingularityStrength,
    MultifractalRecalibration,
    SingularityStrengthRecalibration,
    SpatialChannelSqueezeExcitation,
    keras_batch_norm,
)
from support.recalibration import BLOCKS, features, largest, lively, make

PIECES = (
    "msrf_monai.networks.blocks.planes._PIECE",
    "msrf_monai.networks.blocks.multifractal._EVAL_PIECE",
    "msrf_monai.networks.blocks.multifractal._TRAIN_PIECE",
)


SINGULAR = [name for name in BLOCKS if name.startswith(("ssr", "multifractal"))]


# ---- what all of them owe


@pytest.mark.parametrize("name", list(BLOCKS))
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (9, 31), (5, 6, 7)])
def test_every_block_keeps_shape_and_reaches_all_parameters(name: str, size: tuple[int, ...], training: bool) -> None:
    x = features(2, 16, *size).requires_grad_()
    block = make(name, 16, len(size)).train(training)
    out = block(x)
    out.square().sum().backward()
    assert out.shape == x.shape
    assert torch.isfinite(out).all()
    assert all(p.grad is not None for p in block.parameters())


@pytest.mark.parametrize("name", SINGULAR)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("piece", [1, 777])
def test_results_do_not_depend_on_the_size_of_the_pieces(
    name: str, training: bool, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if piece == 1:
        piece = 61 if name.startswith("multifractal") else 1  # a few values, but not one by one
    x = features(3, 16, 14, 19).requires_grad_()
    whole, parts = make(name).train(training), make(name).train(training)
    found = []
    for block, small in ((whole, False), (parts, True)):
        if small:
            for place in PIECES:
                monkeypatch.setattr(place, piece)
        x.grad = None
        out = block(x)
        out.square().mean().backward()
        with torch.no_grad():
            quiet = copy.deepcopy(block).eval()(x)
        found.append([out, quiet, x.grad, *(p.grad for p in block.parameters()), *block.buffers()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("name", list(BLOCKS))
def test_evaluation_is_the_same_with_and_without_gradients(name: str) -> None:
    x = features(2, 16, 21, 17)
    block = make(name).eval()
    with torch.no_grad():
        quiet = block(x)
    with torch.inference_mode():
        inference = block(x)
    torch.testing.assert_close(block(x), quiet, rtol=0, atol=2e-6)
    assert torch.equal(inference, quiet)


@pytest.mark.parametrize("name", list(BLOCKS))
@pytest.mark.parametrize("training", [False, True])
def test_the_memory_layout_does_not_matter(name: str, training: bool) -> None:
    x = features(2, 16, 18, 13)
    plain, last = make(name).train(training), make(name).train(training)
    out = last(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(out.contiguous(), plain(x), rtol=1e-5, atol=5e-6)
    with torch.no_grad():
        quiet = last.eval()(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(quiet.contiguous(), plain.eval()(x), rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("name", [n for n in BLOCKS if n != "gaussian"])
def test_an_image_does_not_feel_a_brighter_batch_mate(name: str) -> None:
    image, mate = features(1, 16, 20, 16), 10 * features(1, 16, 20, 16)
    block = make(name).eval()
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            alone, together = block(image), block(torch.cat([image, mate]))[:1]
        assert largest(alone, together) < 1e-6 * image.max().item()


@pytest.mark.parametrize(
    "block_type", [SingularityStrengthRecalibration, MultifractalRecalibration, GaussianSingularityStrength]
)
def test_in_batch_scope_a_brighter_mate_changes_an_image(block_type: Callable[..., nn.Module]) -> None:
    image, mate = features(1, 16, 20, 16), 10 * features(1, 16, 20, 16)
    changes = []
    for scope in ("sample", "batch"):
        block = lively(block_type(16, norm_scope=scope)).eval()
        with torch.no_grad():
            changes.append(largest(block(image), block(torch.cat([image, mate]))[:1]))
    assert changes[0] < 1e-6
    assert changes[1] > 1e-3


@pytest.mark.parametrize("name", list(BLOCKS))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("training", [False, True])
def test_low_precision_does_not_overflow(name: str, dtype: torch.dtype, training: bool) -> None:
    x = (features(2, 16, 64, 48) * 300).to(dtype).requires_grad_()
    assert x.detach().double().sum((2, 3)).min().item() > 65504  # float16's largest number
    block = make(name).train(training)
    with torch.autocast("cpu", dtype=dtype):
        out = block(x)
    out.float().mean().backward()
    assert torch.isfinite(out).all()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert out.dtype == (torch.float32 if name == "gaussian" else dtype)


@pytest.mark.parametrize("name", SINGULAR)
def test_half_precision_stays_near_single_precision(name: str) -> None:
    x = features(2, 16, 32, 40).bfloat16()
    block = make(name).eval()
    expected = block(x.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = block(x)
    assert largest(found, expected) < 2**-7 * expected.abs().max().item() + 0.02


@pytest.mark.parametrize("weighted", [False, True])
def test_autocast_leaves_the_exponents_within_two_thousandths(weighted: bool) -> None:
    x = torch.relu(torch.randn(4, 16, 56, 56))
    layer = LocalSingularityStrength(16, weighted=weighted)
    exact = layer.exponent(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        untouched, rounded = layer.exponent(x), layer.exponent(x.bfloat16())
    assert untouched.dtype == rounded.dtype == torch.float32
    assert torch.equal(untouched, exact)
    assert 0 < (rounded - exact).square().mean().sqrt().item() < 2e-3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        grown = LocalSingularityStrength(16, 2, max_scale=5).exponent((x * 2000).half())
    assert torch.isfinite(grown).all()


def test_float16_exponents_of_the_largest_and_a_volume_s_boxes_are_those_of_single_precision() -> None:
    for size in ((40, 40), (18, 18, 18)):
        x = (torch.rand(1, 2, *size) * 65000).half()
        layer = LocalSingularityStrength(2, len(size), max_scale=4)
        torch.testing.assert_close(layer.exponent(x), layer.exponent(x.float()), rtol=0, atol=1e-6)


# ---- arguments


@pytest.mark.parametrize("reduction", [0, -2, 17])
def test_a_hidden_layer_without_a_unit_is_refused(reduction: int) -> None:
    for block in (ChannelExcitation, SpatialChannelSqueezeExcitation, FrequencyChannelAttention):
        with pytest.raises(InputError, match=rf"reduction is {reduction} for 16 channels; expected 1 to 16"):
            block(16, reduction=reduction)
    with pytest.raises(InputError, match="at least one unit"):
        SingularityStrengthRecalibration(16, reduction=reduction)


def test_channels_that_cannot_be_grouped_are_refused() -> None:
    with pytest.raises(InputError, match=r"20 channels cannot be cut into 16 equal groups.*now 4"):
        FrequencyChannelAttention(20)
    with pytest.raises(InputError, match=r"20 channels cannot be cut into 8 equal groups.*now 2"):
        FrequencyChannelAttention(20, spatial_dims=3)
    FrequencyChannelAttention(20, frequencies_per_axis=2)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: FrequencyChannelAttention(16, basis="fft"), r"basis is 'fft'; expected one of 'dct', 'reference'"),
        (lambda: LocalSingularityStrength(4, norm_scope="image"), r"norm_scope is 'image'; expected one of 'sample'"),
        (lambda: MultifractalRecalibration(4, norm_scope="image"), r"norm_scope is 'image'"),
        (lambda: MultifractalRecalibration(4, max_scale=1), r"max_scale is 1; expected at least 2"),
        (lambda: GaussianSingularityStrength(4, scales=1), r"scales is 1; expected at least 2"),
        (lambda: GaussianSingularityStrength(4, variant="xu"), r"variant is 'xu'; expected one of 'ssr', 'fenet'"),
        (lambda: LocalSingularityStrength(4, spatial_dims=4), r"spatial_dims is 4; expected 2 or 3"),
        (lambda: keras_batch_norm(4, spatial_dims=1), r"spatial_dims is 1; expected 2 or 3"),
    ],
)
def test_wrong_names_and_numbers_are_refused(call: Callable[[], nn.Module], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        call()


def test_what_the_weights_do_not_show_stands_in_the_description() -> None:
    block = SingularityStrengthRecalibration(4, max_scale=4, norm_scope="batch", normalize_borders=True)
    assert "max_scale=4, norm_scope='batch', normalize_borders=True" in repr(block)


def test_the_biased_norm_is_torch_s_but_for_the_running_variance() -> None:
    x = torch.randn(16, 5) * 3 + 1
    ours, theirs = BiasedBatchNorm(5), nn.BatchNorm1d(5, eps=1e-3, momentum=0.01)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-6)
    assert theirs.running_mean is not None
    assert theirs.running_var is not None
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close((theirs.running_var - 0.99) / (ours.running_var - 0.99), torch.full((5,), 16 / 15))
    torch.testing.assert_close(ours.eval()(x), (x - ours.running_mean) / (ours.running_var + 1e-3).sqrt())
