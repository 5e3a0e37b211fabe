"""Allocator, threads and versions."""

from __future__ import annotations

import platform
from importlib import metadata

import pytest
import torch

from msrf_monai import runtime
from msrf_monai.errors import InputError


def test_allocator_is_tuned_exactly_where_the_c_library_is_glibc() -> None:
    assert runtime.tune_allocator() is (platform.libc_ver()[0] == "glibc")


def test_allocator_is_left_alone_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.platform, "libc_ver", lambda: ("", ""))

    assert runtime.tune_allocator() is False


def test_library_without_mallopt_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.sys, "platform", "linux")
    monkeypatch.setattr(runtime.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda name: object())

    assert runtime.tune_allocator() is False


def test_threads_reach_torch() -> None:
    before = torch.get_num_threads()
    try:
        runtime.set_threads(1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("n", [0, -1, 1.0, True, "2"])
def test_bad_thread_count_is_refused(n: object) -> None:
    with pytest.raises(InputError, match="at least 1"):
        runtime.set_threads(n)  # type: ignore[arg-type]


def test_versions_are_those_of_the_imported_libraries_and_missing_ones_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtime, "_PACKAGES", ("torch", "no-such-package-at-all"))

    found = runtime.versions()

    assert found["torch"] == metadata.version("torch")
    assert found["python"] == platform.python_version()
    assert set(found) == {"python", "msrf-monai", "torch"}
