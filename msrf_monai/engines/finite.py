"""Weights that are not numbers are never saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msrf_monai.errors import NonFiniteLossError

__all__ = ["refuse_non_finite"]


def refuse_non_finite(state: Mapping[str, Any], prefix: str = "", *, epoch: int, path: Path) -> None:
    """Refuse to save a state with a value that is NaN or infinite.

    Args:
        state: tensors by name; entries that are no floating-point tensors are passed over.
        prefix: what to write before a tensor's name in the error.
        epoch: the epoch after which the state is saved.
        path: the file that would be replaced; when it exists, the error says that it is kept.

    Raises:
        NonFiniteLossError: when a tensor holds such a value; the message names the tensor and the epoch.
    """
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor) or _is_finite(tensor.detach()):
            continue
        kept = f"the file of the epoch saved before, {path}, is kept" if path.exists() else "nothing has been saved yet"
        raise NonFiniteLossError(
            f"{prefix}{name} is not finite after epoch {epoch}, so this epoch is not saved; {kept}. "
            "Lower the learning rate, or clip the gradients, and start again from the last good file"
        )


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    # The sum costs no memory and no NaN or infinity gets lost in it; large finite values alone may overflow it.
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())
