"""The process around a run: memory allocator, thread count, versions of what computes."""

from __future__ import annotations

import ctypes
import platform
import sys
from importlib import metadata

from msrf_monai import __version__
from msrf_monai.errors import InputError

__all__ = ["set_threads", "tune_allocator", "versions"]

# The numbers of mallopt's parameters in glibc's <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# mallopt takes a C int; 1 GiB is above any buffer of a 2-D network and below the int's end.
_THRESHOLD_BYTES = 1 << 30

_PACKAGES = ("monai", "torch", "numpy", "pytorch-ignite", "opencv-python-headless", "pillow")


def tune_allocator() -> bool:
    """Tell glibc to keep large blocks instead of handing them back to the system after each use.

    A convolution asks for a workspace and an output of tens of megabytes. glibc maps blocks that large anew each time
    and unmaps them when they are freed, so that the kernel has to clear every page again at every layer. With both
    thresholds raised, freed blocks are reused, and the process keeps its peak memory until its end.

    Returns:
        True when glibc took both settings, False where the C library is another one (macOS, Windows, musl).

    Example:
        >>> tune_allocator() in (True, False)
        True
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    mallopt.restype = ctypes.c_int
    taken = [mallopt(parameter, _THRESHOLD_BYTES) for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD)]
    return all(value == 1 for value in taken)


def set_threads(n: int) -> None:
    """Let PyTorch use ``n`` threads inside one operation (OpenMP and oneDNN).

    Args:
        n: number of threads, at least 1. More threads than free cores slow a run down many times over.

    Raises:
        InputError: when ``n`` is not a whole number of at least 1.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InputError(f"set_threads got {n!r}: give the number of threads, a whole number of at least 1")
    import torch

    torch.set_num_threads(n)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide a result; those not installed are left out.

    Read from the installed packages' metadata, so that nothing heavy is imported.

    Example:
        >>> sorted(versions())[-1]
        'torch'
    """
    found = {"python": platform.python_version(), "msrf-monai": __version__}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
