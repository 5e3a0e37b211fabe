"""Export a bundle's network by MONAI's own commands, and measure how far the exported file is from eager PyTorch."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from monai.bundle.config_parser import ConfigParser
from monai.bundle.scripts import ckpt_export, onnx_export
from torch import nn

from msrf_monai.errors import ConfigError
from msrf_monai.optional import require

__all__ = [
    "ONNX_CONVERTER_KWARGS",
    "build_network",
    "export_onnx",
    "export_torchscript",
    "largest_difference",
    "onnx_runner",
    "openvino_runner",
]

_AXES = {0: "n", 2: "h", 3: "w"}
ONNX_CONVERTER_KWARGS: dict[str, Any] = {
    "input_names": ["image"],
    "output_names": ["pred"],
    "dynamic_axes": {"image": _AXES, "pred": _AXES},
}
"""What ``python -m monai.bundle onnx_export --converter_kwargs`` needs for any batch, height and width."""


def build_network(bundle: str | os.PathLike[str], *, config: str = "inference.json", **overrides: Any) -> nn.Module:
    """Return a bundle's ``network_def`` in eval mode, with fresh weights.

    Args:
        bundle: folder of the bundle.
        config: name of the file in ``configs`` that defines the network.
        **overrides: config ids and values, as on the command line.

    Raises:
        ConfigError: when the config defines no network.
    """
    parser = ConfigParser()
    parser.read_config(_config(bundle, config))
    parser.update(overrides)
    network = parser.get_parsed_content("network_def") if "network_def" in parser else None
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{_config(bundle, config)}: network_def is {type(network).__name__}, not a network")
    return network.eval()


def export_torchscript(
    bundle: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    checkpoint: str | os.PathLike[str],
    config: str = "inference.json",
    **overrides: Any,
) -> Path:
    """Write the network as TorchScript, by ``torch.jit.script`` (no tracing), with metadata and config inside.

    Args:
        bundle: folder of the bundle.
        path: file to write, ``.ts``.
        checkpoint: the weights.
        config: name of the file in ``configs`` that defines the network.
        **overrides: config ids and values, as on the command line.

    Returns:
        The path of the file.
    """
    with _quiet():
        ckpt_export(
            net_id="network_def",
            filepath=str(path),
            ckpt_file=str(checkpoint),
            meta_file=_config(bundle, "metadata.json"),
            config_file=_config(bundle, config),
            **overrides,
        )
    return Path(path)


def export_onnx(
    bundle: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    checkpoint: str | os.PathLike[str],
    config: str = "inference.json",
    **overrides: Any,
) -> Path:
    """Write the network as ONNX with dynamic batch, height and width; arguments and result as ``export_torchscript``.

    Raises:
        MissingExtraError: when the extra ``export`` is not installed.
    """
    require("onnx", "export")
    require("onnxscript", "export")
    with _quiet():
        onnx_export(
            net_id="network_def",
            filepath=str(path),
            ckpt_file=str(checkpoint),
            meta_file=_config(bundle, "metadata.json"),
            config_file=_config(bundle, config),
            converter_kwargs=deepcopy(ONNX_CONVERTER_KWARGS),
            **overrides,
        )
    return Path(path)


def onnx_runner(path: str | os.PathLike[str]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that runs an ONNX file in ONNX Runtime on the CPU: tensor in, first output out.

    Raises:
        MissingExtraError: when ONNX Runtime is not installed.
    """
    session = require("onnxruntime", "export").InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: torch.from_numpy(session.run(None, {name: image.numpy()})[0])


def openvino_runner(path: str | os.PathLike[str]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that runs an ONNX file in OpenVINO on the CPU in float32: tensor in, first output out.

    Raises:
        MissingExtraError: when OpenVINO is not installed.
    """
    # CPUs with bfloat16 units would compute in it by default, and differ by 1e-2 from eager.
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = require("openvino", "export").Core().compile_model(os.fspath(path), "CPU", options)
    return lambda image: torch.from_numpy(compiled(image.numpy())[0].copy())


def largest_difference(
    network: nn.Module, other: Callable[[torch.Tensor], torch.Tensor], shapes: Sequence[Sequence[int]], *, seed: int = 0
) -> float:
    """Return the largest absolute difference between a network and another form of it on seeded uniform images.

    Args:
        network: the eager network, in eval mode, on the CPU.
        other: the same function of an image.
        shapes: input shapes ``(B, C, H, W)`` to try.
        seed: of the images, float32 in [0, 1).

    Returns:
        The difference over all shapes; infinite when two outputs differ in shape or a value is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    worst = 0.0
    with torch.no_grad():
        for shape in shapes:
            image = torch.rand(*shape, generator=generator)
            expected, got = network(image), other(image)
            if expected.shape != got.shape:
                return float("inf")
            difference = float((expected - got).abs().max())
            worst = max(worst, difference if difference == difference else float("inf"))
    return worst


def _config(bundle: str | os.PathLike[str], name: str) -> str:
    return str(Path(bundle) / "configs" / name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back MONAI's summary of the arguments, which would print each path at INFO."""
    logger = logging.getLogger("monai.bundle.scripts")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
