"""The discriminator of Hi-gMISnet: is a mask right for an image, patch by patch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from msrf_monai.errors import InputError
from msrf_monai.networks.blocks.feature_norm import FeatureNorm, feature_norm
from msrf_monai.networks.blocks.initialization import normal_weights_

__all__ = ["PatchDiscriminator"]

_STD = 0.02


class PatchDiscriminator(nn.Module):
    """PatchGAN that judges a mask together with its image, as Hi-gMISnet has it.

    Isola et al., "Image-to-image translation with conditional adversarial networks", CVPR 2017; Showrav and Hasan,
    Physics in Medicine and Biology 69 (2024) 115019, doi:10.1088/1361-6560/ad3cb3. Four 4x4 convolutions of stride 2,
    each with leaky ReLU and then, except the first, batch norm (in this order), and a fifth of stride 1 with a sigmoid.
    Paddings are TensorFlow's "same": any size works. The defaults are the published network, with 2,767,553 parameters
    and 1,792 running statistics.

    Args:
        in_channels: channels of the image, without the mask.
        channels: channels of the convolutions of stride 2.
        norm: see ``feature_norm``; "batch" as published.

    Raises:
        InputError: when ``channels`` is empty, ``norm`` unknown, or image and mask do not fit.

    Example:
        >>> judge = PatchDiscriminator(channels=(4, 8, 8, 8))
        >>> tuple(judge(torch.rand(2, 3, 64, 96), torch.rand(2, 1, 64, 96)).shape)
        (2, 1, 4, 6)
    """

    def __init__(
        self, in_channels: int = 3, channels: Sequence[int] = (64, 128, 256, 512), norm: FeatureNorm = "batch"
    ) -> None:
        super().__init__()
        if len(channels) < 1 or min(channels) < 1:
            raise InputError(f"channels is {tuple(channels)}; expected positive numbers, as (64, 128, 256, 512)")
        self.in_channels = in_channels
        self.act = nn.LeakyReLU(0.2)
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        width = in_channels + 1
        for k, outputs in enumerate(channels):
            self.convs.append(nn.Conv2d(width, outputs, kernel_size=4, stride=2))
            self.norms.append(feature_norm(norm, outputs) if k > 0 else nn.Identity())
            width = outputs
        self.head = nn.Conv2d(width, 1, kernel_size=4)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                normal_weights_(layer, _STD)

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Judge.

        Args:
            image: float in [0, 1], ``(B, in_channels, H, W)``.
            mask: a true mask or a predicted probability in [0, 1], ``(B, 1, H, W)``.

        Returns:
            For each patch the probability that the mask is a true one, ``(B, 1, ceil(H / 16), ceil(W / 16))`` with four
            convolutions of stride 2.

        Raises:
            InputError: when the shapes are others.
        """
        if not torch.jit.is_scripting():
            self._check_shapes(image, mask)
        x = torch.cat([image, mask.to(image.dtype)], dim=1)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(self.act(conv(_pad_to_halve(x))))
        scores: torch.Tensor = self.head(F.pad(x, [1, 2, 1, 2]))
        return torch.sigmoid(scores)

    @torch.jit.unused
    @contextmanager
    def frozen(self) -> Iterator[PatchDiscriminator]:
        """Let a generator's step pass through without leaving anything here.

        Inside, no parameter asks for a gradient and batch norms do not remember statistics (in training mode they still
        norm by the batch's own, as in the discriminator's own steps). Gradients reach the mask as ever.

        Yields:
            This discriminator.
        """
        asked = [p for p in self.parameters() if p.requires_grad]
        tracking = [m for m in self.modules() if isinstance(m, nn.BatchNorm2d) and m.track_running_stats]
        for parameter in asked:
            parameter.requires_grad_(False)
        for layer in tracking:
            layer.track_running_stats = False
        try:
            yield self
        finally:
            for parameter in asked:
                parameter.requires_grad_(True)
            for layer in tracking:
                layer.track_running_stats = True

    @torch.jit.unused
    def _check_shapes(self, image: torch.Tensor, mask: torch.Tensor) -> None:
        is_tracing: bool = torch.jit.is_tracing()  # type: ignore[no-untyped-call]
        expected = (image.shape[0], 1, *image.shape[2:])
        if not is_tracing and (image.ndim != 4 or image.shape[1] != self.in_channels or mask.shape != expected):
            raise InputError(
                f"the image has shape {tuple(image.shape)} and the mask {tuple(mask.shape)}; expected "
                f"(B, {self.in_channels}, H, W) and (B, 1, H, W)"
            )


def _pad_to_halve(x: torch.Tensor) -> torch.Tensor:
    """Pad for a 4x4 convolution of stride 2 as TensorFlow's "same" does: one before, one after, odd sizes one more."""
    return F.pad(x, [1, 1 + x.shape[3] % 2, 1, 1 + x.shape[2] % 2])
