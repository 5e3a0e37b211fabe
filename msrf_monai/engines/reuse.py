"""A way to name one handler in two places of a configuration."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["use_handler"]

_Handler = TypeVar("_Handler")


def use_handler(handler: _Handler) -> _Handler:
    """Return the handler that is given.

    A list of handlers in a bundle must hold dictionaries with a ``_target_`` (MONAI Label edits them), so a handler
    that is defined elsewhere because others refer to it enters the list as
    ``{"_target_": "msrf_monai.engines.use_handler", "handler": "@ema"}``.

    Args:
        handler: any handler, usually a reference such as ``"@ema"``.

    Returns:
        The same object.
    """
    return handler
