"""Export a bundle's network by MONAI's own commands, and measure how far the exported file is from eager PyTorch."""

from __future__ import annotations

import io
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from monai.bundle.config_parser import ConfigParser
from monai.bundle.scripts import ckpt_export, onnx_export
from torch import nn

from msrf_monai.errors import ConfigError, InputError, StorageError
from msrf_monai.optional import require

__all__ = [
    "ONNX_CONVERTER_KWARGS",
    "build_network",
    "export_onnx",
    "export_pt2",
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
        path: file to write, ``.ts``; it appears whole or not at all.
        checkpoint: the weights.
        config: name of the file in ``configs`` that defines the network.
        **overrides: config ids and values, as on the command line.

    Returns:
        The path of the file.

    Raises:
        StorageError: when the folder or the file cannot be made.
    """
    with _quiet(), _replacing(path) as temporary:
        ckpt_export(
            net_id="network_def",
            filepath=str(temporary),
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
        StorageError: when the folder or the file cannot be made.
    """
    require("onnx", "export")
    require("onnxscript", "export")
    with _quiet(), _replacing(path) as temporary:
        onnx_export(
            net_id="network_def",
            filepath=str(temporary),
            ckpt_file=str(checkpoint),
            meta_file=_config(bundle, "metadata.json"),
            config_file=_config(bundle, config),
            converter_kwargs=deepcopy(ONNX_CONVERTER_KWARGS),
            **overrides,
        )
    return Path(path)


def export_pt2(network: nn.Module, path: str | os.PathLike[str], example: torch.Tensor) -> Path:
    """Write the network by ``torch.export``, with free batch, height and width; it appears whole or not at all.

    ``torch.export.load(path).module()`` is the network again, without this package. That file format holds pickles:
    load your own files only. A network may set a smallest size, MSRF-Net 9 by 9.

    Args:
        network: the network, in eval mode.
        path: file to write, ``.pt2``.
        example: an input ``(B, C, H, W)``, on the network's device, H and W at least 2; the values do not matter.

    Returns:
        The path of the file.

    Raises:
        InputError: when the network is in training mode or the example has another shape.
        StorageError: when the folder or the file cannot be made.
    """
    if network.training:
        raise InputError("the network is in training mode; call eval() before export_pt2")
    if example.ndim != 4 or min(example.shape[2:]) < 2:
        raise InputError(f"the example is {tuple(example.shape)}; give (B, C, H, W) with H and W of at least 2")
    if example.shape[0] == 1:  # torch.export takes a size of 1 for a constant
        example = example.repeat(2, 1, 1, 1)
    free = torch.export.Dim.DYNAMIC  # unlike AUTO it fails, rather than fix a size silently
    with torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes=({0: free, 2: free, 3: free},))
    with _replacing(path) as temporary:
        torch.export.save(program, temporary)
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
def _replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a file of the same name in a temporary folder beside ``path``; it takes the place of ``path`` at the end.

    The exporters open their file by its name, and some look at its ending.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=f".{path.name[:80]}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error
    with folder as name:
        temporary = Path(name) / path.name
        yield temporary
        try:
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
            temporary.replace(path)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror or error}; the old file was kept") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back MONAI's summary of the arguments, which would print each path, and what PyTorch tells of its steps.

    PyTorch tells it on stdout, which may be for a program's answer.
    """
    held = {"monai.bundle.scripts": logging.WARNING, "torch.onnx": logging.ERROR}
    before = {name: logging.getLogger(name).level for name in held}
    for name, level in held.items():
        logging.getLogger(name).setLevel(level)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
