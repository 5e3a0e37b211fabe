"""The zoo's checks that build a bundle's network or workflow, and so execute it; each gives a list of problems."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle.config_parser import ConfigParser
from monai.bundle.properties import TrainProperties
from monai.bundle.scripts import verify_net_in_out
from monai.bundle.workflows import ConfigWorkflow
from monai.utils.enums import BundleProperty, BundlePropertyConfig
from PIL import Image

from msrf_monai.bundle.export import (
    build_network,
    export_onnx,
    export_torchscript,
    largest_difference,
    onnx_runner,
    openvino_runner,
)
from msrf_monai.bundle.lint import read_json

__all__ = [
    "check_exported",
    "check_network",
    "check_onnx",
    "check_properties",
    "check_torchscript",
    "check_workflow",
]

TOLERANCE = 1e-4


def check_network(bundle: str | os.PathLike[str], **overrides: Any) -> list[str]:
    """Run MONAI's ``verify_net_in_out``: channels and dtype of the network's output are those of the metadata."""
    configs = Path(bundle) / "configs"
    try:
        verify_net_in_out(
            net_id="network_def",
            meta_file=str(configs / "metadata.json"),
            config_file=str(configs / "inference.json"),
            device="cpu",
            **overrides,
        )
    except Exception as error:  # whatever the network raises is a finding
        return [f"verify_net_in_out: {_reason(error)}"]
    return []


def check_torchscript(bundle: str | os.PathLike[str], work_dir: str | os.PathLike[str], **overrides: Any) -> list[str]:
    """Export by ``torch.jit.script`` and compare with eager at the metadata's size and at odd ones.

    Args:
        bundle: folder of the bundle.
        work_dir: where the exported file goes.
        **overrides: config ids and values, such as ``network_def::features``.
    """
    try:
        network, checkpoint, shapes = _prepared(bundle, work_dir, overrides)
        path = export_torchscript(bundle, Path(work_dir) / "model.ts", checkpoint=checkpoint, **overrides)
        difference = largest_difference(network, _load_script(path), shapes)
    except Exception as error:  # whatever the exporter raises is a finding
        return [f"ckpt_export: {_reason(error)}"]
    return [] if difference <= TOLERANCE else [f"ckpt_export: TorchScript differs from eager by {difference:.3g}"]


def check_onnx(bundle: str | os.PathLike[str], work_dir: str | os.PathLike[str], **overrides: Any) -> list[str]:
    """Export to ONNX and compare ONNX Runtime and OpenVINO with eager at other batches and sizes than exported.

    Args:
        bundle: folder of the bundle.
        work_dir: where the exported file goes.
        **overrides: config ids and values, such as ``network_def::features``.
    """
    problems = []
    try:
        network, checkpoint, shapes = _prepared(bundle, work_dir, overrides)
        path = export_onnx(bundle, Path(work_dir) / "model.onnx", checkpoint=checkpoint, **overrides)
        for name, runner in (("ONNX Runtime", onnx_runner), ("OpenVINO", openvino_runner)):
            difference = largest_difference(network, runner(path), shapes)
            if not difference <= TOLERANCE:
                problems.append(f"onnx_export: {name} differs from eager by {difference:.3g}")
    except Exception as error:  # whatever the exporter or a runtime raises is a finding
        problems.append(f"onnx_export: {_reason(error)}")
    return problems


def check_workflow(
    bundle: str | os.PathLike[str], configs: Sequence[str], workflow_type: str, *, run: bool = False, **overrides: Any
) -> list[str]:
    """Open a workflow through MONAI's API, initialise it, check its properties and, when asked, run it to its end.

    Args:
        bundle: folder of the bundle.
        configs: names of files in ``configs``, overlays last.
        workflow_type: ``"train"`` or ``"infer"``.
        run: also run and finalise.
        **overrides: config ids and values, such as ``dataset_dir``.
    """
    files = [str(Path(bundle) / "configs" / name) for name in configs]
    label = "+".join(configs)
    try:
        workflow = ConfigWorkflow(
            config_file=files,
            workflow_type=workflow_type,
            logging_file=False,
            bundle_root=os.fspath(bundle),
            **overrides,
        )
        workflow.initialize()
        problems = [
            f"{label}: the property {name} is missing or misnamed" for name in workflow.check_properties() or ()
        ]
        if run and not problems:
            workflow.run()
            workflow.finalize()
    except Exception as error:  # whatever a config or a component raises is a finding
        return [f"{label}: {_reason(error)}"]
    return problems


def check_properties(bundle: str | os.PathLike[str]) -> list[str]:
    """Check the properties that MONAI's workflows ask for: of training by their ids, of inference by opening it.

    Args:
        bundle: folder of the bundle; inference is opened on one small picture made for it, in a temporary folder.
    """
    parser = ConfigParser()
    try:
        parser.read_config(str(Path(bundle) / "configs" / "train.json"))
    except Exception as error:  # whatever MONAI's parser raises is a finding
        return [f"train.json: {_reason(error)}"]
    problems = [
        f"train.json: the property {name} is missing, MONAI looks for {each[BundlePropertyConfig.ID]}"
        for name, each in TrainProperties.items()
        if each[BundleProperty.REQUIRED] and str(each[BundlePropertyConfig.ID]) not in parser
    ]
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        Image.new("RGB", (72, 56), (90, 60, 30)).save(pictures / "picture.png")
        out = str(Path(folder) / "out")
        return problems + check_workflow(
            bundle, ["inference.json"], "infer", dataset_dir=str(pictures), output_dir=out, device="cpu"
        )


def check_exported(bundle: str | os.PathLike[str]) -> list[str]:
    """Load ``models/model.ts`` where a bundle ships it, as the zoo's CI does."""
    path = Path(bundle) / "models" / "model.ts"
    if not path.is_file():
        return []
    try:
        _load_script(path)
    except Exception as error:  # whatever TorchScript's reader raises is a finding
        return [f"models/model.ts: {_reason(error)}"]
    return []


def _prepared(
    bundle: str | os.PathLike[str], work_dir: str | os.PathLike[str], overrides: Mapping[str, Any]
) -> tuple[torch.nn.Module, Path, list[tuple[int, ...]]]:
    """Return a seeded network, a checkpoint of it, and shapes to try: the metadata's, another batch, an odd size."""
    torch.manual_seed(0)
    network = build_network(bundle, **overrides)
    checkpoint = Path(work_dir) / "seeded.pt"
    torch.save(network.state_dict(), checkpoint)
    image = read_json(Path(bundle) / "configs" / "metadata.json")["network_data_format"]["inputs"]["image"]
    channels, size = image["num_channels"], image["spatial_shape"]
    return network, checkpoint, [(1, channels, *size), (2, channels, 72, 56), (1, channels, 61, 45)]


def _load_script(path: Path) -> torch.nn.Module:
    loaded: torch.nn.Module = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    return loaded.eval()


def _reason(error: BaseException) -> str:
    """Return the innermost cause in one line: MONAI's wrappers repeat the config before they say what was wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
