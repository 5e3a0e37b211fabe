"""What a bundle's config calls around a run, and the checks that a bundle has to pass.

Importing this room loads neither torch nor MONAI: what needs them is imported when one of its names is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msrf_monai.bundle.checks import check_network, check_onnx, check_torchscript, check_workflow
    from msrf_monai.bundle.contents import check_contents
    from msrf_monai.bundle.distributed import start_process_group, stop_process_group
    from msrf_monai.bundle.explain import explain_bundle
    from msrf_monai.bundle.export import (
        build_network,
        export_onnx,
        export_pt2,
        export_torchscript,
        largest_difference,
        onnx_runner,
        openvino_runner,
    )
    from msrf_monai.bundle.keys import check_keys
    from msrf_monai.bundle.large_files import check_large_files, check_weights
    from msrf_monai.bundle.lint import config_files, lint_bundle, lint_config, lint_name, read_json
    from msrf_monai.bundle.linting import run_checks
    from msrf_monai.bundle.manifest import finish_manifest, git_commit, write_manifest
    from msrf_monai.bundle.metadata_checks import (
        check_files,
        check_metadata,
        check_requirements,
        check_schema,
        check_versions,
    )
    from msrf_monai.bundle.overrides import CommandLine, check_overrides, parse_command_line
    from msrf_monai.bundle.package import package_bundle
    from msrf_monai.bundle.registry import public_components, register, unregister
    from msrf_monai.bundle.reporting import install_error_line, is_bundle_program, sentence_of
    from msrf_monai.bundle.run import prepare_run
    from msrf_monai.bundle.unpack import unpack_bundle

_HOMES = {
    "checks": ("check_network", "check_onnx", "check_torchscript", "check_workflow"),
    "contents": ("check_contents",),
    "distributed": ("start_process_group", "stop_process_group"),
    "explain": ("explain_bundle",),
    "export": ("build_network", "export_onnx", "export_pt2", "export_torchscript"),
    "keys": ("check_keys",),
    "large_files": ("check_large_files", "check_weights"),
    "lint": ("config_files", "lint_bundle", "lint_config", "lint_name", "read_json"),
    "linting": ("run_checks",),
    "manifest": ("finish_manifest", "git_commit", "write_manifest"),
    "metadata_checks": ("check_files", "check_metadata", "check_requirements", "check_schema", "check_versions"),
    "overrides": ("CommandLine", "check_overrides", "parse_command_line"),
    "package": ("package_bundle",),
    "registry": ("public_components", "register", "unregister"),
    "reporting": ("install_error_line", "is_bundle_program", "sentence_of"),
    "run": ("prepare_run",),
}
_LATER = {name: home for home, names in _HOMES.items() for name in names} | {
    "largest_difference": "export",
    "onnx_runner": "export",
    "openvino_runner": "export",
    "unpack_bundle": "unpack",
}

__all__ = [
    "CommandLine",
    "build_network",
    "check_contents",
    "check_files",
    "check_keys",
    "check_large_files",
    "check_metadata",
    "check_network",
    "check_onnx",
    "check_overrides",
    "check_requirements",
    "check_schema",
    "check_torchscript",
    "check_versions",
    "check_weights",
    "check_workflow",
    "config_files",
    "explain_bundle",
    "export_onnx",
    "export_pt2",
    "export_torchscript",
    "finish_manifest",
    "git_commit",
    "install_error_line",
    "is_bundle_program",
    "largest_difference",
    "lint_bundle",
    "lint_config",
    "lint_name",
    "onnx_runner",
    "openvino_runner",
    "package_bundle",
    "parse_command_line",
    "prepare_run",
    "public_components",
    "read_json",
    "register",
    "run_checks",
    "sentence_of",
    "start_process_group",
    "stop_process_group",
    "unpack_bundle",
    "unregister",
    "write_manifest",
]


def __getattr__(name: str) -> Any:
    """Import a module of this room when one of its names is first used."""
    if name in _LATER:
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
