"""What a bundle's config calls around a run, and the checks that a bundle has to pass."""

from __future__ import annotations

from msrf_monai.bundle.manifest import finish_manifest, git_commit, write_manifest
from msrf_monai.bundle.overrides import CommandLine, check_overrides, parse_command_line
from msrf_monai.bundle.reporting import install_error_line, is_bundle_program, sentence_of
from msrf_monai.bundle.run import prepare_run

__all__ = [
    "CommandLine",
    "check_overrides",
    "finish_manifest",
    "git_commit",
    "install_error_line",
    "is_bundle_program",
    "parse_command_line",
    "prepare_run",
    "sentence_of",
    "write_manifest",
]
