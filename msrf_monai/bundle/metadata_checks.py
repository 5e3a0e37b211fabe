"""The zoo's checks of files and metadata, which read and never import; each gives a list of problems."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msrf_monai import __version__
from msrf_monai.bundle.large_files import check_large_files
from msrf_monai.bundle.lint import read_json
from msrf_monai.bundle.tree import bundle_files
from msrf_monai.errors import ConfigError
from msrf_monai.optional import require

__all__ = ["check_files", "check_metadata", "check_requirements", "check_schema", "check_versions"]

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
_VERSION = re.compile(r"\d+(\.\d+)+((a|b|rc|\.post|\.dev)\d+)?")
_PACKAGE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_TENSOR_FIELDS = ("type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "channel_def")


def check_files(bundle: str | os.PathLike[str]) -> list[str]:
    """Check that the zoo's files are there, none is over 25 MB or names a user's folder, and ``scripts`` is absent."""
    root = Path(bundle)
    problems = [f"{name} is missing" for name in _REQUIRED_FILES if not (root / name).is_file()]
    if (root / "scripts").exists():
        problems.append("scripts/ is there; code belongs in the installed package")
    for path in bundle_files(root):
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
    version, changelog = meta.get("version"), meta.get("changelog", {})
    if not isinstance(changelog, Mapping) or str(version) not in changelog:
        problems.append(f"metadata.json: the version {version} is not in the changelog")
    if not re.fullmatch(r"\d+\.\d+\.\d+", str(version)):
        problems.append(f"metadata.json: the version {version} is not of the form 1.2.3")
    if "optional_packages_version" in meta:
        problems.append("metadata.json: optional_packages_version is the old name of required_packages_version")
    formats = _object(meta.get("network_data_format"))
    for side, tensor in (("inputs", "image"), ("outputs", "pred")):
        problems += _tensor(_object(formats.get(side)), side, tensor)
    return problems


def check_requirements(bundle: str | os.PathLike[str]) -> list[str]:
    """Check that each requirement in ``metadata.json`` is one released version, as the zoo's CI installs it.

    Args:
        bundle: folder of the bundle.
    """
    try:
        meta = read_json(Path(bundle) / "configs" / "metadata.json")
    except ConfigError as error:
        return [str(error)]
    packages = meta.get("required_packages_version", {})
    if not isinstance(packages, Mapping):
        return ["metadata.json: required_packages_version must be an object of names and versions"]
    stated = {key: meta.get(key) for key in ("monai_version", "pytorch_version", "numpy_version")}
    stated |= {f"required_packages_version::{name}": version for name, version in packages.items()}
    problems = [
        f"metadata.json: {name} is {version!r}; give one released version, such as 1.2.3"
        for name, version in stated.items()
        if not isinstance(version, str) or not _VERSION.fullmatch(version)
    ]
    return problems + [
        f"metadata.json: required_packages_version::{name} is no package's name"
        for name in packages
        if not _PACKAGE.fullmatch(name)
    ]


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


def _tensor(tensors: Mapping[str, Any], side: str, name: str) -> list[str]:
    where = f"metadata.json: network_data_format::{side}::{name}"
    tensor = tensors.get(name)
    if not isinstance(tensor, Mapping):
        return [f"{where} is missing; MONAI Label knows no other name"]
    problems = [f"{where}::{field} is missing" for field in _TENSOR_FIELDS if field not in tensor]
    shape = tensor.get("spatial_shape", [])
    if (
        not isinstance(shape, list)
        or not shape
        or not all(isinstance(n, int) and not isinstance(n, bool) for n in shape)
    ):
        problems.append(f"{where}::spatial_shape must hold integers, is {shape}")
    channel_def = _object(tensor.get("channel_def"))
    if side == "outputs" and (channel_def.get("0") != "background" or len(channel_def) < 2):
        problems.append(f'{where}::channel_def needs "0": "background" and a class even for one channel')
    if side == "inputs" and len(channel_def) != tensor.get("num_channels"):
        problems.append(f"{where}::channel_def names {len(channel_def)} of {tensor.get('num_channels')} channels")
    return problems


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _object(value: Any) -> Mapping[str, Any]:
    """Return a JSON object, an empty one in place of anything else."""
    return value if isinstance(value, Mapping) else {}
