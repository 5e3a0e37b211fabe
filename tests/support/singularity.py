"""Maps and shorthands for tests of the singularity strength."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import settings

QUICK = settings(max_examples=25, deadline=None, derandomize=True)


def as_map(array: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(dtype)[None, None]


def boxes_by_convolution(x: torch.Tensor, max_scale: int) -> list[torch.Tensor]:
    """Sum boxes with kernels of ones over each channel, for two axes."""
    found = []
    for size in (2 ** (j + 1) for j in range(max_scale)):
        before, after = size // 2 - 1, size // 2
        ones = torch.ones(x.shape[1], 1, size, size, dtype=x.dtype)
        found.append(F.conv2d(F.pad(x, (before, after, before, after)), ones, groups=x.shape[1]))
    return found


def boxes_by_integral_image(x: torch.Tensor, max_scale: int) -> list[torch.Tensor]:
    found = []
    for size in (2 ** (j + 1) for j in range(max_scale)):
        before, after = size // 2, size // 2  # one more before: the integral image starts with zeros
        table = F.pad(x.double(), (before, after, before, after)).cumsum(-1).cumsum(-2)
        rows = table[..., size:, :] - table[..., :-size, :]
        found.append(rows[..., size:] - rows[..., :-size])
    return found
