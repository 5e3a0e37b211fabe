"""What a bundle's config calls around a run, and the checks that a bundle has to pass."""

from __future__ import annotations

from msrf_monai.bundle.checks import (
    check_files,
    check_metadata,
    check_network,
    check_onnx,
    check_schema,
    check_torchscript,
    check_versions,
    check_workflow,
)
from msrf_monai.bundle.distributed import start_process_group, stop_process_group
from msrf_monai.bundle.export import (
    build_network,
    export_onnx,
    export_pt2,
    export_torchscript,
    largest_difference,
    onnx_runner,
    openvino_runner,
)
from msrf_monai.bundle.large_files import check_large_files, check_weights
from msrf_monai.bundle.lint import config_files, lint_bundle, lint_config, lint_name, read_json
from msrf_monai.bundle.manifest import finish_manifest, git_commit, write_manifest
from msrf_monai.bundle.overrides import CommandLine, check_overrides, parse_command_line
from msrf_monai.bundle.registry import public_components, register, unregister
from msrf_monai.bundle.reporting import install_error_line, is_bundle_program, sentence_of
from msrf_monai.bundle.run import prepare_run

__all__ = [
    "CommandLine",
    "build_network",
    "check_files",
    "check_large_files",
    "check_metadata",
    "check_network",
    "check_onnx",
    "check_overrides",
    "check_schema",
    "check_torchscript",
    "check_versions",
    "check_weights",
    "check_workflow",
    "config_files",
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
    "parse_command_line",
    "prepare_run",
    "public_components",
    "read_json",
    "register",
    "sentence_of",
    "start_process_group",
    "stop_process_group",
    "unregister",
    "write_manifest",
]
