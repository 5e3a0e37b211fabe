"""Reciprocal loss of Hi-gMISnet, which couples the predictions of the lesion and of the background."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch.nn.modules.loss import _Loss

from msrf_monai.errors import InputError

__all__ = ["ReciprocalForm", "ReciprocalLoss"]

ReciprocalForm = Literal["soft", "hard"]

_WINDOW = 11
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2
_LEAST_SSIM = 1e-6
_SSIM_SHARE, _SQUARE_SHARE = 0.4, 0.6


class ReciprocalLoss(_Loss):
    """Union of lesion and background must show the whole image, and lesion without background must be the mask.

    Showrav and Hasan, "Hi-gMISnet", Physics in Medicine and Biology 69 (2024) 115019, doi:10.1088/1361-6560/ad3cb3.
    With image I, mask Y, probability p of lesion and q of background::

        U = p + q - p·q            A = p·(1 - q)
        L = w0·(0.6·MSE(I, I·U) - 0.4·ln SSIM(I, I·U)) + w1·MAE(Y, A)
          + w2·(|mean(|∂y Y| - |∂y A|)| + |mean(|∂x Y| - |∂x A|)|)

    SSIM has an 11x11 Gaussian window of standard deviation 1.5 and is averaged over whole windows, channels and images;
    ∂ is the forward difference, 0 in the last row or column.

    The authors' code decides p, q and 1 - q at 0.5 first and has no gradient: ``form="hard"`` is that, to compare
    values. ``form="soft"`` is the same formula of the probabilities, which trains. On decided probabilities both agree.
    Where the image is black the first term sees nothing, and the others must do. Under autocast everything is computed
    in float32.

    Args:
        form: "soft" or "hard".
        weights: w0 of the image, w1 of the area, w2 of the boundary.

    Raises:
        InputError: when ``form`` is unknown, or ``weights`` are not three numbers of which none is negative.

    Example:
        >>> import torch
        >>> mask = torch.zeros(1, 1, 16, 24)
        >>> mask[:, :, 4:9, 5:15] = 1
        >>> loss = ReciprocalLoss()
        >>> round(loss(mask, 1 - mask, torch.rand(1, 3, 16, 24), mask).item(), 5)
        0.0
    """

    def __init__(self, form: ReciprocalForm = "soft", weights: Sequence[float] = (5.0, 2.0, 5.0)) -> None:
        super().__init__()
        if form not in get_args(ReciprocalForm):
            raise InputError(f"form is {form!r}; expected one of {', '.join(map(repr, get_args(ReciprocalForm)))}")
        if len(weights) != 3 or any(w < 0 or not math.isfinite(w) for w in weights):
            raise InputError(
                f"weights is {tuple(weights)}; expected three numbers of at least 0: of image, area and boundary"
            )
        self.form = form
        self.weights = tuple(float(w) for w in weights)

    def forward(
        self, lesion: torch.Tensor, background: torch.Tensor, image: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Compute the weighted sum.

        Args:
            lesion: probability of foreground, float in [0, 1], ``(B, 1, H, W)``, H and W at least 11.
            background: probability of background, the same shape.
            image: float in [0, 1], ``(B, C, H, W)``.
            mask: true foreground in [0, 1], ``(B, 1, H, W)``.

        Returns:
            A scalar in float32 (float64 when the probabilities are).

        Raises:
            InputError: when the shapes do not fit, or the image is smaller than the window.
        """
        terms = self.terms(lesion, background, image, mask)
        return torch.stack([w * term for w, term in zip(self.weights, terms.values(), strict=True)]).sum()

    def terms(
        self, lesion: torch.Tensor, background: torch.Tensor, image: torch.Tensor, mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Compute the three terms, not weighted; arguments and errors as for ``forward``.

        Returns:
            Scalars image, area and boundary.
        """
        _check_shapes(lesion, background, image, mask)
        dtype = torch.promote_types(lesion.dtype, torch.float32)
        p, q, picture, truth = (t.as_subclass(torch.Tensor).to(dtype) for t in (lesion, background, image, mask))
        with torch.autocast(device_type=lesion.device.type, enabled=False):
            if self.form == "hard":
                p, q, foreground = p.round(), q.round(), (1.0 - q).round()
            else:
                foreground = 1.0 - q
            union = p + q - p * q
            agreed = p * foreground
            shown = picture * union
            similarity = _mean_ssim(picture, shown).clamp(min=_LEAST_SSIM)
            return {
                "image": _SQUARE_SHARE * F.mse_loss(shown, picture) - _SSIM_SHARE * similarity.log(),
                "area": F.l1_loss(agreed, truth),
                "boundary": _edge_difference(truth, agreed, 2) + _edge_difference(truth, agreed, 3),
            }


def _edge_difference(first: torch.Tensor, second: torch.Tensor, axis: int) -> torch.Tensor:
    """Return by how much the mean strength of the edges across an axis differs; the last row or column has none."""
    difference = first.diff(dim=axis).abs() - second.diff(dim=axis).abs()
    return (difference.sum() / first.numel()).abs()


def _mean_ssim(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the mean structural similarity of maps in [0, 1]; computed in the maps' own precision."""
    place = torch.arange(_WINDOW, dtype=x.dtype, device=x.device) - _WINDOW // 2
    window = torch.softmax(-(place**2) / (2 * _SIGMA**2), dim=0)
    channels = x.shape[1]

    def smooth(values: torch.Tensor) -> torch.Tensor:
        rows = window.reshape(1, 1, _WINDOW, 1).expand(channels, 1, _WINDOW, 1)
        down = F.conv2d(values, rows, groups=channels)
        return F.conv2d(down, rows.transpose(2, 3), groups=channels)

    mean_x, mean_y = smooth(x), smooth(y)
    covariance = smooth(x * y) - mean_x * mean_y
    variances = smooth(x * x) - mean_x**2 + smooth(y * y) - mean_y**2
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return (luminance * (2 * covariance + _C2) / (variances + _C2)).mean()


def _check_shapes(lesion: torch.Tensor, background: torch.Tensor, image: torch.Tensor, mask: torch.Tensor) -> None:
    expected = (image.shape[0], 1, *image.shape[2:])
    if image.ndim != 4 or any(t.shape != expected for t in (lesion, background, mask)):
        shapes = ", ".join(str(tuple(t.shape)) for t in (lesion, background, image, mask))
        raise InputError(
            f"lesion, background, image and mask have the shapes {shapes}; expected (B, 1, H, W), (B, 1, H, W), "
            "(B, C, H, W) and (B, 1, H, W)"
        )
    if min(image.shape[2:]) < _WINDOW:
        raise InputError(f"the image is {tuple(image.shape[2:])} pixels; the window of SSIM needs at least {_WINDOW}")
