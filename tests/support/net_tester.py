"""What every network of this package must be able to do; a network's test class inherits it and adds its own."""

from __future__ import annotations

import io
from typing import Any, ClassVar

import onnxruntime
import openvino
import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks import convert_to_onnx
from torch import nn


class NetTester:
    """Shared checks. A subclass says which network, with which arguments, and which sizes."""

    target: ClassVar[str]
    options: ClassVar[dict[str, Any]]
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({},)
    export_options: ClassVar[dict[str, Any]] = {}
    export_tolerance: ClassVar[float] = 1e-4
    in_channels: ClassVar[int]
    out_channels: ClassVar[int] = 1
    sizes: ClassVar[tuple[tuple[int, int], ...]] = ((32, 48), (41, 27), (1, 1), (8, 200))

    def build(self, **changes: Any) -> nn.Module:
        """Make the network through MONAI's configuration parser, with fixed weights, in evaluation mode."""
        torch.manual_seed(3)
        definition = {"_target_": self.target, **self.options, **changes}
        network: nn.Module = ConfigParser({"net": definition}).get_parsed_content("net")
        generator = torch.Generator().manual_seed(5)
        for name, buffer in network.named_buffers():  # lively statistics, so that norms are not the identity
            if name.endswith("running_mean"):
                buffer.copy_(0.2 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
        return network.eval()

    def image(self, height: int, width: int, batch: int = 1) -> torch.Tensor:
        """Make a float input in [0, 1], ``(batch, in_channels, height, width)``."""
        generator = torch.Generator().manual_seed(height * 1000 + width)
        return torch.rand(batch, self.in_channels, height, width, generator=generator)

    def first(self, output: Any) -> torch.Tensor:
        """Return the mask's logits of an output in either mode."""
        return output[0] if isinstance(output, tuple) else output

    def test_output_has_the_input_size_for_any_size(self) -> None:
        for changes in self.variants:
            net = self.build(**changes)
            for height, width in self.sizes:
                with torch.inference_mode():
                    out = net(self.image(height, width))
                assert isinstance(out, torch.Tensor)
                assert out.shape == (1, self.out_channels, height, width)
                assert torch.isfinite(out).all()

    def test_gradient_reaches_every_parameter(self) -> None:
        for changes in self.variants:
            net = self.build(**changes).train()
            outputs = net(self.image(32, 40, batch=2))
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            sum((o.square() * torch.rand_like(o)).sum() for o in outputs).backward()
            without = [n for n, p in net.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
            assert without == []

    def test_state_dict_carries_the_network(self) -> None:
        net, other = self.build(), self.build()
        for p in other.parameters():
            nn.init.constant_(p, 0.1)
        buffer = io.BytesIO()
        torch.save(net.state_dict(), buffer)
        buffer.seek(0)
        other.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
        x = self.image(24, 40)
        with torch.inference_mode():
            assert torch.equal(net(x), other(x))

    def test_eval_mode_is_deterministic_and_independent_of_the_batch(self) -> None:
        net, x = self.build(), self.image(32, 48, batch=3)
        with torch.inference_mode():
            together, alone = net(x), torch.cat([net(x[k : k + 1]) for k in range(3)])
            assert torch.equal(together, net(x))
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)

    def test_channels_last_gives_the_same(self) -> None:
        net, x = self.build(), self.image(40, 56)
        with torch.inference_mode():
            expected = net(x)
            out = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)

    def test_bfloat16_autocast_stays_close(self) -> None:
        net, x = self.build(), self.image(32, 48)
        with torch.inference_mode():
            expected = torch.sigmoid(net(x))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = torch.sigmoid(net(x).float())
        assert (out - expected).abs().mean() < 0.02

    def test_torchscript_equals_eager_at_other_sizes(self) -> None:
        for changes in self.variants:
            net = self.build(**changes)
            scripted = torch.jit.script(net)
            traced = torch.jit.trace(net, self.image(32, 32))
            x = self.image(41, 56, batch=2)
            with torch.inference_mode():
                expected = net(x)
                torch.testing.assert_close(scripted(x), expected, rtol=0, atol=self.export_tolerance)
                torch.testing.assert_close(traced(x), expected, rtol=0, atol=self.export_tolerance)

    def test_export_equals_eager_at_other_sizes(self) -> None:
        net = self.build(**self.export_options)
        auto = torch.export.Dim.AUTO
        program = torch.export.export(
            net, (self.image(40, 56, batch=2),), dynamic_shapes=({0: auto, 2: auto, 3: auto},)
        )
        for x in (self.image(61, 27, batch=3), self.image(64, 96)):
            with torch.inference_mode():
                torch.testing.assert_close(program.module()(x), net(x), rtol=0, atol=self.export_tolerance)

    def test_compile_has_no_graph_break(self) -> None:
        net, x = self.build(**self.export_options), self.image(32, 40)
        compiled = torch.compile(net, backend="eager", fullgraph=True, dynamic=True)
        with torch.no_grad():
            for image in (x, self.image(45, 29)):
                torch.testing.assert_close(compiled(image), net(image))
        torch._dynamo.reset()

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:# 'dynamic_axes' is not recommended", "ignore:.*LeafSpec.*:FutureWarning")
    def test_onnx_equals_eager_at_other_sizes_and_batches(self) -> None:
        net = self.build(**self.export_options)
        axes = {"image": {0: "n", 2: "h", 3: "w"}, "pred": {0: "n", 2: "h", 3: "w"}}
        model = convert_to_onnx(
            net, [self.image(40, 56, batch=2)], input_names=["image"], output_names=["pred"], dynamic_axes=axes
        )
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        # CPUs with bfloat16 units would compute in it
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.compile_model(openvino.Core().read_model(model.SerializeToString()), "CPU", settings)
        for shape in ((3, 61, 27), (1, 64, 96)):
            x = self.image(*shape[1:], batch=shape[0])
            with torch.inference_mode():
                expected = net(x)
            for out in (session.run(None, {"image": x.numpy()})[0], compiled(x.numpy())[0]):
                torch.testing.assert_close(torch.from_numpy(out), expected, rtol=0, atol=self.export_tolerance)
