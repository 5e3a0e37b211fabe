"""The one door to optional libraries: a missing one yields an error that names the extra to install."""

from __future__ import annotations

import importlib
from typing import Any

from msrf_monai.errors import MissingExtraError

__all__ = ["require"]


def require(module: str, extra: str) -> Any:
    """Import an optional library where it is used.

    Args:
        module: dotted name of the module, such as ``"matplotlib.pyplot"``.
        extra: the extra of ``msrf-monai`` that installs it, such as ``"train"``.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: when the module, or something that it needs, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{module} is needed here and is not installed ({error}); run: pip install 'msrf-monai[{extra}]'"
        ) from error
