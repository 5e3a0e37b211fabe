"""2-D medical image segmentation networks, losses, transforms and MONAI bundles, exact and dependable."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

__all__ = ["__version__", "bundle", "data", "engines", "losses", "metrics", "networks", "register", "transforms"]

_ROOMS = {"bundle", "data", "engines", "losses", "metrics", "networks", "transforms"}


def __getattr__(name: str) -> Any:
    """Import a room of the package when it is first used, so that ``import msrf_monai`` alone stays light."""
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "register":
        return importlib.import_module(f"{__name__}.bundle").register
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
