"""Backends give what eager PyTorch gives; what is missing is said in one sentence."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
import torch

from msrf_monai.clinical import backends
from msrf_monai.errors import ConfigError, MissingExtraError
from support.predictor_bundles import picture, save_case


@pytest.fixture
def cases(tmp_path):
    sizes = [(47, 61), (90, 38)]
    return [save_case(tmp_path / f"{rows}.png", picture(rows, columns)) for rows, columns in sizes]


def largest_gap(predictor, eager, cases):
    pairs = [(predictor.predict(case), eager.predict(case)) for case in cases]
    return max(float(np.abs(a.probabilities.astype(float) - b.probabilities.astype(float)).max()) for a, b in pairs)


def test_an_export_that_differs_from_eager_is_refused_and_not_kept(stock, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    real = backends.export_onnx

    def spoilt(bundle, path, *, checkpoint, **options):
        state = torch.load(checkpoint)
        next(iter(state.values())).add_(0.5)
        torch.save(state, checkpoint)
        return real(bundle, path, checkpoint=checkpoint, **options)

    monkeypatch.setattr(backends, "export_onnx", spoilt)

    with pytest.raises(ConfigError, match="differs from eager PyTorch"):
        stock().predictor(backend="onnxruntime", cache=tmp_path / "cache")
    assert not any((tmp_path / "cache").iterdir())


def test_an_export_changes_no_bundle_and_says_nothing_on_stdout(stock, cases, capfd):
    pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    bundle = stock()

    exported = bundle.predictor(backend="onnxruntime")

    assert capfd.readouterr().out == ""
    assert largest_gap(exported, bundle.predictor(), cases) < 1e-3  # float16 rounds
    assert sorted(path.name for path in bundle.bundle.iterdir()) == ["configs", "models"]


@pytest.mark.parametrize(("backend", "missing"), [("onnxruntime", "onnxruntime"), ("openvino", "openvino")])
def test_a_missing_library_names_the_extra(stock, monkeypatch, tmp_path, backend, missing):
    real = builtins.__import__

    def blocked(name, *args, **kwargs):
        if name.split(".")[0] == missing:
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr("builtins.__import__", blocked)
    monkeypatch.setitem(__import__("sys").modules, missing, None)

    with pytest.raises(MissingExtraError, match=r"msrf-monai\[export\]"):
        stock().predictor(backend=backend, cache=tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this computer has CUDA")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "tensorrt", "device": "auto"}, "needs an NVIDIA GPU"),
        ({"device": "cuda"}, "has 0 CUDA devices"),
        ({"device": "cuda", "backend": "openvino"}, "has 0 CUDA devices"),
        ({"device": "abacus"}, "expected auto, cpu, cuda"),
        ({"device": "meta"}, "expected auto, cpu, cuda"),
        ({"backend": "tensorflow"}, "expected one of eager"),
    ],
)
def test_what_this_computer_has_not_is_said_in_one_sentence(tiny, options, words):
    with pytest.raises(ConfigError, match=words):
        tiny("msrf").predictor(**options)


def test_automatic_device_is_the_cpu_without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert {str(backends.pick_device("auto", name)) for name in ("eager", "torchscript", "onnxruntime")} == {"cpu"}


def test_automatic_device_is_cuda_where_the_backend_can_use_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backends, "_providers", lambda: ("CPUExecutionProvider",))

    found = {name: str(backends.pick_device("auto", name)) for name in ("eager", "onnxruntime", "openvino", "tensorrt")}

    assert found == {"eager": "cuda:0", "onnxruntime": "cpu", "openvino": "cpu", "tensorrt": "cuda:0"}


def test_tensorrt_runs_by_the_provider_of_onnxruntime(tiny, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backends, "_exported", lambda source, backend: tmp_path / "network.onnx")
    results = {"shift": 0.0}

    def session(path, source, providers):
        asked.extend(providers)
        return lambda batch: batch + results["shift"]

    monkeypatch.setattr(backends, "_onnxruntime", session)
    source = backends.Runnable(torch.nn.Identity(), tmp_path, "inference.json", {}, (1, 3, 8, 8), "digest")

    monkeypatch.setattr(backends, "_providers", lambda: ("CPUExecutionProvider",))
    with pytest.raises(MissingExtraError, match="no TensorRT provider"):
        backends.build_backend("tensorrt", source, torch.device("cuda:1"))
    monkeypatch.setattr(backends, "_providers", lambda: ("TensorrtExecutionProvider",))
    backends.build_backend("tensorrt", source, torch.device("cuda:1"))

    (name, settings), (fallback, _) = asked
    assert settings["trt_engine_cache_path"].startswith(str(tmp_path / "network."))
    assert (name, fallback) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert settings["device_id"] == 1
    assert settings["trt_fp16_enable"] is False
    results["shift"] = 0.01
    with pytest.raises(ConfigError, match=r"differs from eager PyTorch by 0\.01"):
        backends.build_backend("tensorrt", source, torch.device("cuda:1"))


def test_networks_without_running_statistics_are_not_folded():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4, track_running_stats=False)).eval()
    image = torch.rand(2, 3, 9, 11)
    source = backends.Runnable(network, None, "", {}, (1, 3, 8, 8), "digest")

    torch.testing.assert_close(backends.build_backend("eager", source, torch.device("cpu"))(image), network(image))


def test_shapes_that_are_not_used_any_more_are_forgotten():
    traced = backends._Traced(torch.nn.Conv2d(1, 1, 3).eval())

    for length in range(4, 20):
        assert traced(torch.rand(1, 1, length, 5)).shape == (1, 1, length - 2, 3)

    assert len(traced._traced) == 8


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["eager", "torchscript"])
def test_cuda_equals_the_cpu(tiny, cases, backend):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    bundle = tiny("msrf")
    on_cuda = bundle.predictor(("amp", False), device="cuda", backend=backend)

    assert largest_gap(on_cuda, bundle.predictor(), cases) < 2e-3
