"""Ways to run one network: eager PyTorch, TorchScript, ONNX Runtime, OpenVINO, TensorRT. All give eager's results.

A backend is a function of a float32 batch ``(B, C, H, W)``; the bundle's own inferer calls it for each window.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from msrf_monai.bundle.export import export_onnx
from msrf_monai.clinical.network_cache import NetworkCache, folder_of_process, folder_of_user
from msrf_monai.errors import ConfigError, MissingExtraError, StorageError
from msrf_monai.networks.inference import optimize_for_inference
from msrf_monai.optional import require
from msrf_monai.runtime import versions

__all__ = ["Backend", "Runnable", "build_backend", "first_output", "pick_device"]

_log = logging.getLogger(__name__)

Backend = Literal["eager", "torchscript", "onnxruntime", "openvino", "tensorrt"]
Network = Callable[[torch.Tensor], Any]

_TOLERANCE = 1e-3
_TRACED_SHAPES = 8
_RUNTIMES: dict[Backend, tuple[str, ...]] = {
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
}
"""Distributions that run an exported network; another version of one is another runtime, and compared anew."""
_TENSORRT = ("onnxruntime-gpu", "tensorrt", "tensorrt-cu12", "tensorrt-cu13")


@dataclass(frozen=True)
class Runnable:
    """All that a backend may need to know of a loaded network."""

    network: nn.Module = field(repr=False)
    """With its weights, in evaluation mode, on the CPU."""
    bundle: Path
    config: str
    """Name of the file in ``configs`` that defines the network."""
    overrides: dict[str, Any]
    """Of that file, as they were when ``network`` was built."""
    input_shape: tuple[int, int, int, int]
    """A shape that the network takes."""
    digest: str
    """Of the weights and the configuration."""
    cache: Path | None = None
    """Folder of exported networks; None for the user's own, see ``network_cache.folder_of_user``."""
    threads: int | None = None


def pick_device(device: str, backend: Backend) -> torch.device:
    """Return where a network is to run.

    Args:
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        backend: OpenVINO runs on the CPU, TensorRT on CUDA only.

    Raises:
        ConfigError: when there is no such device here, or the backend cannot use it.
    """
    if backend not in get_args(Backend):
        raise ConfigError(f"backend is {backend!r}; expected one of {', '.join(get_args(Backend))}")
    if backend == "tensorrt" and (device == "cpu" or not torch.cuda.is_available()):
        raise ConfigError("the backend tensorrt needs an NVIDIA GPU with CUDA, and none is used here; choose eager")
    if device == "auto":
        runs_on_cuda = torch.cuda.is_available() and backend != "openvino"
        if backend == "onnxruntime":
            runs_on_cuda = runs_on_cuda and "CUDAExecutionProvider" in _providers()
        return torch.device("cuda:0" if runs_on_cuda else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = torch.device("meta")
    if chosen.type not in ("cpu", "cuda"):
        raise ConfigError(f"device is {device!r}; expected auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device is {device!r}, and this computer has {torch.cuda.device_count()} CUDA devices")
    if chosen.type == "cuda" and backend == "openvino":
        raise ConfigError("OpenVINO runs on the CPU here; choose device cpu or auto")
    if chosen.type == "cuda" and backend == "onnxruntime" and "CUDAExecutionProvider" not in _providers():
        raise ConfigError("the installed ONNX Runtime has no CUDA; install onnxruntime-gpu, or choose device cpu")
    return chosen


def build_backend(name: Backend, source: Runnable, device: torch.device) -> Network:
    """Return a network in the form that a backend runs.

    Args:
        name: the backend.
        source: the network and where it is from.
        device: from ``pick_device``.

    Returns:
        A function of a float32 ``(B, C, H, W)`` on any device, which gives the network's output.

    Raises:
        MissingExtraError: when the backend's library is not installed.
        ConfigError: when the exported network does not give the results of eager PyTorch.
        StorageError: when the exported network cannot be written.
    """
    if name == "eager":
        return _optimized(source.network).to(device)
    if name == "torchscript":
        return _Traced(_optimized(source.network).to(device))
    if name == "openvino":
        require("openvino", "export")  # before the export, which takes its time
        return _openvino(_exported(source, "openvino"), source)
    if name == "onnxruntime":
        providers: list[Any] = ["CPUExecutionProvider"]
        if device.type == "cuda":
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
        require("onnxruntime", "export")
        return _onnxruntime(_exported(source, "onnxruntime"), source, providers)
    return _tensorrt(source, device)


def _optimized(network: nn.Module) -> nn.Module:
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if any(norm.running_mean is None for norm in norms):  # without running statistics there is nothing to fold
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
    return optimize_for_inference(network)


class _Traced:
    """A network traced anew for each shape of batches, of which sliding windows have one or two."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._traced: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def __call__(self, batch: torch.Tensor) -> Any:
        shape = tuple(batch.shape)
        if shape not in self._traced:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # constants of a shape are meant to be constants here
                traced = torch.jit.trace(self._network, batch, check_trace=False)  # type: ignore[no-untyped-call]
                self._traced[shape] = torch.jit.freeze(traced)
            while len(self._traced) > _TRACED_SHAPES:
                self._traced.popitem(last=False)
        self._traced.move_to_end(shape)
        return self._traced[shape](batch)


def _exported(source: Runnable, backend: Backend) -> Path:
    """Return the ONNX file of a network, exported and compared once and then found in the cache."""
    require("onnx", "export")
    folder = source.cache or folder_of_user()
    if folder is not None:
        try:
            return _cached(source, backend, NetworkCache(folder))
        except StorageError as error:
            if source.cache is not None:
                raise
            _log.warning("exported networks are not kept: %s", error)
    return _cached(source, backend, NetworkCache(folder_of_process()))


def _cached(source: Runnable, backend: Backend, cache: NetworkCache) -> Path:
    parts = {**versions(), **_versions_of("onnx", "onnxscript")}
    key = hashlib.sha256(f"{source.digest} {sorted(parts.items())}".encode()).hexdigest()[:32]
    runtime = "-".join((backend, *_versions_of(*_RUNTIMES[backend]).values()))
    found = cache.find(key)
    if found is not None and cache.is_approved(found, runtime):
        return found
    try:
        with cache.exporting() as work:
            path = cache.find(key)  # another process may have exported it meanwhile
            if path is None:
                draft = _export(source, work)
                _compare(source, _run_on_cpu(backend, draft, source))
                path = cache.keep(key, draft)
                _log.info("exported the network as %s", path.name)
            else:
                _compare(source, _run_on_cpu(backend, path, source))
            cache.approve(path, runtime)
    except OSError as error:
        raise StorageError(f"cannot write the exported network to {cache.folder}: {error.strerror or error}") from error
    return path


def _export(source: Runnable, work: Path) -> Path:
    state, draft = work / "state.pt", work / "network.onnx"
    torch.save(source.network.state_dict(), state)  # the exporter reads no safetensors
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return export_onnx(
            source.bundle,
            draft,
            checkpoint=state,
            config=source.config,
            input_shape=list(source.input_shape),
            **source.overrides,
        )


def _versions_of(*distributions: str) -> dict[str, str]:
    """Return the versions of those distributions that are installed."""
    found = {}
    for name in distributions:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _run_on_cpu(backend: Backend, path: Path, source: Runnable) -> Network:
    return _openvino(path, source) if backend == "openvino" else _onnxruntime(path, source)


def _compare(source: Runnable, other: Network) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(*source.input_shape, generator=generator)
    with torch.no_grad():
        expected, found = first_output(source.network(image)), first_output(other(image))
    if expected.shape != found.shape:
        raise ConfigError("the exported network gives another shape than eager PyTorch; use the backend eager")
    if float(expected.min()) < 0 or float(expected.max()) > 1:
        expected, found = expected.sigmoid(), found.sigmoid()
    difference = float((expected - found).abs().max())
    if not difference <= _TOLERANCE:
        raise ConfigError(
            f"the exported network differs from eager PyTorch by {difference:.2g} on probabilities, and {_TOLERANCE:g} "
            "is allowed; use the backend eager"
        )


def first_output(output: Any) -> torch.Tensor:
    """Return the prediction of a network that may give further tensors after it."""
    while isinstance(output, (tuple, list)):
        output = output[0]
    return output  # type: ignore[no-any-return]


def _providers() -> Sequence[str]:
    try:
        return list(require("onnxruntime", "export").get_available_providers())
    except MissingExtraError:
        return ()


def _onnxruntime(path: Path, source: Runnable, providers: Sequence[Any] = ("CPUExecutionProvider",)) -> Network:
    runtime = require("onnxruntime", "export")
    options = runtime.SessionOptions()
    if source.threads is not None:
        options.intra_op_num_threads = source.threads
    session = runtime.InferenceSession(str(path), options, providers=list(providers))
    name = session.get_inputs()[0].name

    def run(batch: torch.Tensor) -> torch.Tensor:
        output = session.run(None, {name: batch.detach().cpu().contiguous().numpy()})[0]
        return torch.from_numpy(output).to(batch.device)

    return run


def _openvino(path: Path, source: Runnable) -> Network:
    # CPUs with bfloat16 units would compute in it by default, and differ by 1e-2 from eager
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if source.threads is not None:
        settings["INFERENCE_NUM_THREADS"] = source.threads
    compiled = require("openvino", "export").Core().compile_model(str(path), "CPU", settings)

    def run(batch: torch.Tensor) -> torch.Tensor:
        output = compiled(batch.detach().cpu().contiguous().numpy())[0]
        return torch.from_numpy(output.copy()).to(batch.device)

    return run


def _tensorrt(source: Runnable, device: torch.device) -> Network:
    """Run by ONNX Runtime's TensorRT provider, in float32, with engines kept in the cache."""
    if "TensorrtExecutionProvider" not in _providers():
        raise MissingExtraError(
            "the installed ONNX Runtime has no TensorRT provider; install onnxruntime-gpu and TensorRT, or choose "
            "another backend"
        )
    path = _exported(source, "onnxruntime")
    index = device.index or 0
    # an engine of another version would not load
    made_by = "-".join(_versions_of(*_TENSORRT).values())
    engines = {
        "device_id": index,
        "trt_fp16_enable": False,
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(path.with_name(f"{path.stem}.{made_by}.engines")),
    }
    providers = [("TensorrtExecutionProvider", engines), ("CUDAExecutionProvider", {"device_id": index})]
    network = _onnxruntime(path, source, providers)
    _compare(source, network)
    return network
