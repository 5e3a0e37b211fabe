"""How workers load: one exports a network for all, and each takes the next GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from msrf_monai.clinical.execution import worker_handle
from msrf_monai.clinical.execution.loading import load_predictor
from msrf_monai.clinical.execution.worker_pool import WorkerPool
from msrf_monai.clinical.run_options import RunOptions
from support.clinical_workers import PROGRAM, stub_bundle


@pytest.mark.parametrize(("backend", "at_first"), [("eager", 3), ("openvino", 1)])
def test_the_first_worker_exports_the_network_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Any, at_first: int
) -> None:
    begun: list[dict[str, Any]] = []
    real = worker_handle.WorkerHandle

    def begin(setup: dict[str, Any], threads: int) -> Any:
        begun.append(setup)
        return real(setup, threads)

    monkeypatch.setattr("msrf_monai.clinical.execution.worker_handle.PROGRAM", PROGRAM)
    monkeypatch.setattr(worker_handle, "WorkerHandle", begin)
    settings = RunOptions(num_workers=3, backend=backend)

    with WorkerPool(stub_bundle(tmp_path / "bundle"), settings, tmp_path) as pool:
        assert len(begun) == at_first
        assert pool.name == "threshold"
        pool.fill(3)
        assert [setup["worker"] for setup in begun] == [0, 1, 2]


@pytest.mark.parametrize(
    ("device", "worker", "found"),
    [
        ("auto", None, "auto"),
        ("auto", 1, "cuda:1"),
        ("auto", 4, "cuda:0"),
        ("cuda", 3, "cuda:1"),
        ("cuda:1", 0, "cuda:1"),
    ],
    ids=["alone", "second", "fifth", "any", "told"],
)
def test_workers_share_the_gpus(monkeypatch: pytest.MonkeyPatch, device: str, worker: int | None, found: str) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("msrf_monai.clinical.backends.pick_device", lambda *given: torch.device("cuda:0"))
    monkeypatch.setattr(
        "msrf_monai.clinical.predictor.Predictor.from_bundle", lambda bundle, options: loaded.append(options.device)
    )

    load_predictor(Path("none"), RunOptions(device=device), worker=worker)

    assert loaded == [found]


def test_without_gpus_every_worker_is_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(
        "msrf_monai.clinical.predictor.Predictor.from_bundle", lambda bundle, options: loaded.append(options.device)
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    load_predictor(Path("none"), RunOptions(device="auto"), worker=1)

    assert loaded == ["cpu"]
