"""The model zoo's checks that run offline, each a function from a bundle's folder to a list of problems."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle.scripts import verify_net_in_out
from monai.bundle.workflows import ConfigWorkflow

from msrf_monai import __version__
from msrf_monai.bundle.export import (
    build_network,
    export_onnx,
    export_torchscript,
    largest_difference,
    onnx_runner,
    openvino_runner,
)
from msrf_monai.bundle.large_files import check_large_files
from msrf_monai.bundle.lint import read_json
from msrf_monai.errors import ConfigError
from msrf_monai.optional import require

__all__ = [
    "check_files",
    "check_metadata",
    "check_network",
    "check_onnx",
    "check_schema",
    "check_torchscript",
    "check_versions",
    "check_workflow",
]

MAX_FILE_BYTES = 25 * 1024 * 1024
_REQUIRED_FILES = (
    "LICENSE",
    "configs/metadata.json",
    "configs/train.json",
    "configs/evaluate.json",
    "configs/inference.json",
    "configs/multi_gpu_train.json",
    "configs/multi_gpu_evaluate.json",
    "configs/logging.conf",
    "docs/README.md",
    "docs/data_license.txt",
)
_TEXT_SUFFIXES = {".json", ".md", ".txt", ".conf", ".yml", ".yaml", ".toml"}
_PERSONAL = re.compile(r"(/home/\w|/Users/\w|[A-Za-z]:\\Users\\)")
_REQUIRED_FIELDS = (
    "schema",
    "version",
    "changelog",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "required_packages_version",
    "name",
    "task",
    "description",
    "authors",
    "copyright",
    "data_source",
    "data_type",
    "image_classes",
    "label_classes",
    "pred_classes",
    "eval_metrics",
    "intended_use",
    "references",
    "network_data_format",
)
_TENSOR_FIELDS = ("type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "channel_def")
TOLERANCE = 1e-4


def check_files(bundle: str | os.PathLike[str]) -> list[str]:
    """Check that the zoo's files are there, none is over 25 MB or names a user's folder, and ``scripts`` is absent."""
    root = Path(bundle)
    problems = [f"{name} is missing" for name in _REQUIRED_FILES if not (root / name).is_file()]
    if (root / "scripts").exists():
        problems.append("scripts/ is there; code belongs in the installed package")
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root)
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            problems.append(f"{name} has {size} bytes, over 25 MB; list it in large_files.yml instead")
        elif path.suffix in _TEXT_SUFFIXES and _PERSONAL.search(path.read_text(encoding="utf-8", errors="replace")):
            problems.append(f"{name} holds a path of one user")
    return problems + check_large_files(root)


def check_metadata(bundle: str | os.PathLike[str]) -> list[str]:
    """Check what the zoo's reviewers, its CI and MONAI Label read in ``metadata.json``."""
    try:
        meta = read_json(Path(bundle) / "configs" / "metadata.json")
    except ConfigError as error:
        return [str(error)]
    problems = [f"metadata.json: the field {name} is missing" for name in _REQUIRED_FIELDS if name not in meta]
    version = meta.get("version")
    if version not in meta.get("changelog", {}):
        problems.append(f"metadata.json: the version {version} is not in the changelog")
    if not re.fullmatch(r"\d+\.\d+\.\d+", str(version)):
        problems.append(f"metadata.json: the version {version} is not of the form 1.2.3")
    if "optional_packages_version" in meta:
        problems.append("metadata.json: optional_packages_version is the old name of required_packages_version")
    formats = meta.get("network_data_format", {})
    for side, tensor in (("inputs", "image"), ("outputs", "pred")):
        problems += _tensor(formats.get(side, {}), side, tensor)
    return problems


def check_schema(bundle: str | os.PathLike[str], schema: Mapping[str, Any]) -> list[str]:
    """Validate ``metadata.json`` against MONAI's schema.

    Args:
        bundle: folder of the bundle.
        schema: the schema, parsed; the file is MONAI's and does not come with this package.
    """
    validator = require("jsonschema", "dev").validators.validator_for(schema)(schema)
    meta = read_json(Path(bundle) / "configs" / "metadata.json")
    return [f"metadata.json: {'::'.join(map(str, e.absolute_path))}: {e.message}" for e in validator.iter_errors(meta)]


def check_versions(bundle: str | os.PathLike[str], constraints: str | os.PathLike[str]) -> list[str]:
    """Check that the versions in ``metadata.json`` are the tested ones, those of the constraints file.

    Args:
        bundle: folder of the bundle.
        constraints: a pip constraints file with lines ``name==version``.
    """
    meta = read_json(Path(bundle) / "configs" / "metadata.json")
    tested = {"msrf-monai": __version__}
    for line in Path(constraints).read_text(encoding="utf-8").splitlines():
        name, equals, version = line.partition("#")[0].partition(";")[0].strip().partition("==")
        if equals:
            tested[_normal(name)] = version.strip().partition("+")[0]
    stated = {_normal(name): str(version) for name, version in meta.get("required_packages_version", {}).items()}
    for package, key in (("monai", "monai_version"), ("torch", "pytorch_version"), ("numpy", "numpy_version")):
        stated[package] = str(meta.get(key))
    return [
        f"metadata.json: {name} is {version}, and the tested version is {tested.get(name, 'not in the constraints')}"
        for name, version in stated.items()
        if tested.get(name) != version
    ]


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


def _tensor(tensors: Mapping[str, Any], side: str, name: str) -> list[str]:
    where = f"metadata.json: network_data_format::{side}::{name}"
    tensor = tensors.get(name)
    if tensor is None:
        return [f"{where} is missing; MONAI Label knows no other name"]
    problems = [f"{where}::{field} is missing" for field in _TENSOR_FIELDS if field not in tensor]
    shape = tensor.get("spatial_shape", [])
    if not shape or not all(isinstance(n, int) and not isinstance(n, bool) for n in shape):
        problems.append(f"{where}::spatial_shape must hold integers, is {shape}")
    channel_def = tensor.get("channel_def", {})
    if side == "outputs" and (channel_def.get("0") != "background" or len(channel_def) < 2):
        problems.append(f'{where}::channel_def needs "0": "background" and a class even for one channel')
    if side == "inputs" and len(channel_def) != tensor.get("num_channels"):
        problems.append(f"{where}::channel_def names {len(channel_def)} of {tensor.get('num_channels')} channels")
    return problems


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _reason(error: BaseException) -> str:
    """Return the innermost cause in one line: MONAI's wrappers repeat the config before they say what was wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
