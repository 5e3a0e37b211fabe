"""One level of the two-dimensional Haar wavelet transform."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from msrf_monai.networks.padding import pad_to_multiple

__all__ = ["HaarDWT2d", "haar_low_pass", "haar_sub_bands"]


def haar_sub_bands(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Split maps of even size into the four sub-bands of the orthonormal Haar wavelet.

    Of each 2x2 cell ``[[a, b], [c, d]]``, rows along H: LL = (a + b + c + d) / 2, LH = (a + b - c - d) / 2,
    HL = (a - b + c - d) / 2 and HH = (a - b - c + d) / 2. They are PyWavelets' (cA, (cH, cV, cD)) of "haar".

    Args:
        x: float ``(B, C, H, W)``, H and W even.

    Returns:
        LL, LH, HL and HH, each ``(B, C, H/2, W/2)``. The range of LL is twice that of x.
    """
    a, b = x[:, :, 0::2, 0::2], x[:, :, 0::2, 1::2]
    c, d = x[:, :, 1::2, 0::2], x[:, :, 1::2, 1::2]
    top, bottom = a + b, c + d
    top_step, bottom_step = a - b, c - d
    return (
        (top + bottom) * 0.5,
        (top - bottom) * 0.5,
        (top_step + bottom_step) * 0.5,
        (top_step - bottom_step) * 0.5,
    )


def haar_low_pass(x: torch.Tensor) -> torch.Tensor:
    """Return the LL sub-band alone, ``(B, C, H/2, W/2)`` of ``(B, C, H, W)`` with even H and W."""
    return F.avg_pool2d(x, 2) * 2.0


class HaarDWT2d(nn.Module):
    """One level of the two-dimensional Haar wavelet transform, without weights.

    Odd sizes are extended by half-sample symmetry, that is, the last row or column is repeated; the result equals
    ``pywt.dwt2(x, "haar", mode="symmetric")``. It can be scripted, traced and exported.

    Example:
        >>> dwt = HaarDWT2d()
        >>> cell = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
        >>> dwt(cell).flatten().tolist()
        [6.0, -3.0, -2.0, 1.0]
        >>> tuple(dwt(torch.rand(1, 3, 7, 10)).shape)
        (1, 12, 4, 5)
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform.

        Args:
            x: float ``(B, C, H, W)``, any H and W.

        Returns:
            ``(B, 4C, ceil(H/2), ceil(W/2))``: LL of all channels, then LH, HL and HH of all channels.
        """
        return torch.cat(haar_sub_bands(pad_to_multiple(x, 2)), dim=1)
