"""Exported files: whole or not at all, and equal to the network that was exported."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from msrf_monai.bundle import build_network, export_onnx, export_pt2, export_torchscript, largest_difference
from msrf_monai.errors import InputError, StorageError
from msrf_monai.networks import MSRFNet

EXPORTERS = [(export_torchscript, "ckpt_export", "model.ts"), (export_onnx, "onnx_export", "model.onnx")]


@pytest.fixture
def checkpoint(bundle: Path, tmp_path: Path) -> Path:
    path = tmp_path / "weights.pt"
    torch.save(build_network(bundle).state_dict(), path)
    return path


def test_pt2_file_equals_the_network_at_other_sizes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = MSRFNet(features=2, wiring="head7").eval()

    path = export_pt2(network, tmp_path / "new" / "model.pt2", torch.rand(1, 4, 40, 56))

    loaded = torch.export.load(path).module()
    assert largest_difference(network, loaded, [(1, 4, 61, 27), (3, 4, 48, 72)]) <= 1e-5
    assert [entry.name for entry in path.parent.iterdir()] == ["model.pt2"]


def test_pt2_needs_eval_mode_and_an_image(tmp_path: Path) -> None:
    network = nn.Conv2d(3, 1, 3)

    with pytest.raises(InputError, match="training mode"):
        export_pt2(network, tmp_path / "a.pt2", torch.rand(1, 3, 8, 8))
    for shape in ((3, 8, 8), (1, 3, 1, 8)):
        with pytest.raises(InputError, match="H and W of at least 2"):
            export_pt2(network.eval(), tmp_path / "a.pt2", torch.rand(shape))
    assert list(tmp_path.iterdir()) == []


def test_torchscript_replaces_the_old_file(bundle: Path, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.ts").write_bytes(b"old")

    path = export_torchscript(bundle, out / "model.ts", checkpoint=checkpoint)

    network = build_network(bundle)
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    assert largest_difference(network, torch.jit.load(str(path)), [(1, 3, 9, 7)]) <= 1e-6
    assert [entry.name for entry in out.iterdir()] == ["model.ts"]


@pytest.mark.parametrize(("export", "command", "name"), EXPORTERS)
def test_export_that_breaks_off_keeps_the_old_file(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, export: Callable[..., Path], command: str, name: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(b"old")

    def half(*, filepath: str, **kwargs: Any) -> None:
        Path(filepath).write_bytes(b"ne")
        raise RuntimeError("power cut")

    monkeypatch.setattr(importlib.import_module("msrf_monai.bundle.export"), command, half)
    with pytest.raises(RuntimeError, match="power cut"):
        export(bundle, out / name, checkpoint=tmp_path / "weights.pt")

    assert [(entry.name, entry.read_bytes()) for entry in out.iterdir()] == [(name, b"old")]


def test_place_that_cannot_be_written_is_named(bundle: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "model.ts" / "x").mkdir(parents=True)

    with pytest.raises(StorageError, match="choose another folder"):
        export_torchscript(bundle, tmp_path / "file" / "model.ts", checkpoint=checkpoint)
    with pytest.raises(StorageError, match="the old file was kept"):
        export_torchscript(bundle, tmp_path / "model.ts", checkpoint=checkpoint)
