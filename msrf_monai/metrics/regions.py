"""Which pixels of an image count: checks of masks, and the pixels inside a field of view."""

from __future__ import annotations

import torch
from torch import Tensor

from msrf_monai.errors import InputError

__all__ = ["as_mask", "check_probabilities", "pixels_inside", "plain"]


def plain(values: Tensor) -> Tensor:
    """Return the values without gradient and without MONAI's metadata, which slows every step down."""
    return values.detach().as_subclass(Tensor)


def as_mask(mask: Tensor, *, name: str) -> Tensor:
    """Return a decided mask as a boolean tensor.

    Args:
        mask: any shape, boolean or of any type with values {0, 1}.
        name: what the mask is called in the error.

    Returns:
        Boolean tensor of the same shape, without metadata.

    Raises:
        InputError: when the mask has other values.
    """
    values = plain(mask)
    if values.dtype != torch.bool and not bool(((values == 0) | (values == 1)).all()):
        raise InputError(
            f"{name} must be a decided mask of 0 and 1, its values go from {values.min()} to {values.max()}"
        )
    return values.bool()


def pixels_inside(
    values: Tensor, label: Tensor, fov: Tensor | None = None, *, name: str = "pred"
) -> tuple[Tensor, Tensor]:
    """Return the pixels inside the field of view, of a map and of its truth.

    Args:
        values: a map of any type and shape, such as probabilities or a decided mask.
        label: the truth, {0, 1}, same shape.
        fov: the field of view, {0, 1}, same shape; every pixel by default.
        name: what the map is called in an error.

    Returns:
        The map's pixels (N,) in its own type, and the truth's pixels (N,), boolean.

    Raises:
        InputError: when shapes differ, or the truth or the field of view has other values than 0 and 1.
    """
    for other, tensor in ((name, values), ("fov", fov)):
        if tensor is not None and tensor.shape != label.shape:
            raise InputError(f"{other} has shape {tuple(tensor.shape)}, expected that of label, {tuple(label.shape)}")
    true = as_mask(label, name="label")
    if fov is None:
        return plain(values).flatten(), true.flatten()
    counted = as_mask(fov, name="fov")
    return plain(values)[counted], true[counted]


def check_probabilities(values: Tensor) -> None:
    """Refuse what cannot be a probability.

    Raises:
        InputError: when a value is outside [0, 1] or NaN.
    """
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise InputError(
            f"probabilities must be in [0, 1], they go from {values.min()} to {values.max()}: "
            "logits want a sigmoid first"
        )
