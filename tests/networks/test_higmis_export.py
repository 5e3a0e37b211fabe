"""Hi-gMISnet under the checks that every network passes, as one exported module, and from a configuration."""

from __future__ import annotations

import io
from typing import Any, ClassVar

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from torch import nn

from msrf_monai.networks import (
    HiGMISNet,
    HiGMISNetOutput,
)
from msrf_monai.networks.blocks import ImageNorm
from support.higmis import SMALL
from support.net_tester import NetTester


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


# ---- exports of the pair as one module


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


@pytest.mark.filterwarnings("ignore:.*TorchScript-based ONNX export.*:DeprecationWarning")
def test_norm_of_a_large_map_keeps_its_digits_in_onnx() -> None:
    # ONNX Runtime's own instance norm is wrong by 5e-5 here, which the network's depth makes 2e-3.
    x = torch.rand(1, 8, 256, 256) + 10
    norm = ImageNorm(8).eval()
    file = io.BytesIO()
    torch.onnx.export(norm, (x,), file, dynamo=False, input_names=["image"], dynamic_axes={"image": {2: "h", 3: "w"}})
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for image in (x, x[:, :, :100, 1:]):
        exact = F.instance_norm(image.double(), eps=norm.eps)
        assert (_run_onnx(session, image) - exact).abs().max() < 2e-5


@pytest.mark.extended
@pytest.mark.filterwarnings("ignore:.*TorchScript-based ONNX export.*:DeprecationWarning")
def test_onnx_of_the_published_size_stays_within_a_thousandth() -> None:
    torch.manual_seed(0)
    net, x = HiGMISNet(features=8, backbones=()).eval(), torch.rand(1, 3, 256, 256)
    file = io.BytesIO()
    with torch.no_grad():
        torch.onnx.export(net, (x,), file, dynamo=False, input_names=["image"])
        expected = net(x)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    assert (_run_onnx(session, x) - expected).abs().max() < 1e-3


def test_pair_comes_from_a_configuration() -> None:
    definition = {"_target_": "msrf_monai.networks.HiGMISNet", "features": 8, "backbones": [], "fusion": "or"}
    net = ConfigParser({"net": definition}).get_parsed_content("net")
    assert (net.fusion, net.features, net.lesion.taps.vgg) == ("or", 8, None)
