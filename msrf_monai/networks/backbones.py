"""Trunks of classification networks that give maps at 1/2, 1/4, 1/8 and 1/16 of the image's size."""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import ClassVar, Literal

import torch
from monai.networks.nets import DenseNet201
from torch import nn

__all__ = ["Backbone", "BackboneName", "DenseNet201Taps", "VGG16Taps"]

BackboneName = Literal["vgg16", "densenet201"]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

# The convolutions of each stage by their channels; "pool" halves the size.
_VGG_STAGES: tuple[tuple[int | str, ...], ...] = (
    (64, 64, "pool", 128, 128),
    ("pool", 256, 256),
    (256, "pool", 512, 512),
    (512, "pool", 512, 512),
)
_VGG_PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26)
"""Where torchvision's ``features`` has these convolutions."""


class Backbone(nn.Module):
    """Stages that each give a map of half the size of the one before, behind a norm of the image's colours.

    The colours' mean and standard deviation are buffers, so that saved weights carry the scaling they were trained
    with: 0 and 1 until ``use_imagenet_colours`` is called.

    Attributes:
        channels: channels of the four maps.
        stages: the layers between them.
    """

    channels: ClassVar[tuple[int, int, int, int]]

    def __init__(self, stages: list[nn.Sequential]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.colour_mean: torch.Tensor
        self.colour_std: torch.Tensor
        self.register_buffer("colour_mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("colour_std", torch.ones(1, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Run the trunk.

        Args:
            image: float RGB in [0, 1], ``(B, 3, H, W)``, H and W multiples of 16.

        Returns:
            Maps ``(B, channels[k], H / 2**(k + 1), W / 2**(k + 1))`` for k = 0, 1, 2, 3.
        """
        x = (image - self.colour_mean) / self.colour_std
        taps: list[torch.Tensor] = []
        for stage in self.stages:
            x = stage(x)
            taps.append(x)
        return taps

    @torch.jit.unused
    def use_imagenet_colours(self) -> None:
        """Scale images from now on as torchvision's ImageNet weights expect them."""
        for buffer, values in ((self.colour_mean, _IMAGENET_MEAN), (self.colour_std, _IMAGENET_STD)):
            buffer.copy_(torch.tensor(values).reshape(1, 3, 1, 1))

    @torch.jit.unused
    def torchvision_names(self) -> dict[str, str]:
        """Return torchvision's name for each of this trunk's parameters and running statistics."""
        raise NotImplementedError


class VGG16Taps(Backbone):
    """The first twelve convolutions of VGG16, without batch norm, tapped after the second of blocks 2 to 5.

    Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015. 12,354,880
    parameters, drawn as Kaiming normal.

    Example:
        >>> [tuple(tap.shape[1:]) for tap in VGG16Taps()(torch.rand(1, 3, 32, 48))]
        [(128, 16, 24), (256, 8, 12), (512, 4, 6), (512, 2, 3)]
    """

    channels = (128, 256, 512, 512)
    unused: ClassVar[tuple[str, ...]] = ("features.28.", "classifier.")
    """Beginnings of torchvision's names that have no place here."""

    def __init__(self) -> None:
        stages: list[nn.Sequential] = []
        width = 3
        for parts in _VGG_STAGES:
            layers: list[nn.Module] = []
            for part in parts:
                if isinstance(part, int):
                    layers += [nn.Conv2d(width, part, 3, padding=1), nn.ReLU(inplace=True)]
                    width = part
                else:
                    layers.append(nn.MaxPool2d(2))
            stages.append(nn.Sequential(*layers))
        super().__init__(stages)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    @torch.jit.unused
    def torchvision_names(self) -> dict[str, str]:
        """Return torchvision's name for each parameter; see ``Backbone``."""
        convs = [name for name, layer in self.named_modules() if isinstance(layer, nn.Conv2d)]
        return {
            f"{name}.{part}": f"features.{place}.{part}"
            for name, place in zip(convs, _VGG_PLACES, strict=True)
            for part in ("weight", "bias")
        }


class DenseNet201Taps(Backbone):
    """The trunk of MONAI's DenseNet201 up to the third transition, tapped after the stem and each transition's 1x1.

    Huang et al., "Densely connected convolutional networks", CVPR 2017. 11,110,528 parameters, drawn as MONAI does.

    Args:
        norm_momentum: share of a new batch in the norms' running statistics; 0.01 is Keras'.
        frozen_statistics: keep the running statistics, and norm by them, in training mode too.

    Example:
        >>> [tuple(tap.shape[1:]) for tap in DenseNet201Taps()(torch.rand(1, 3, 32, 48))]
        [(64, 16, 24), (128, 8, 12), (256, 4, 6), (896, 2, 3)]
    """

    channels = (64, 128, 256, 896)
    unused: ClassVar[tuple[str, ...]] = ("features.denseblock4.", "features.norm5.", "classifier.")
    """Beginnings of torchvision's names that have no place here."""

    def __init__(self, *, norm_momentum: float = 0.01, frozen_statistics: bool = False) -> None:
        # The last block is not used, so it is made as small as can be.
        parts = dict(DenseNet201(2, 3, 1, block_config=(6, 12, 48, 1)).features.named_children())
        stages = [nn.Sequential(OrderedDict({name: parts[name] for name in ("conv0", "norm0", "relu0")}))]
        pool = parts["pool0"]
        for k in (1, 2, 3):
            transition = dict(parts[f"transition{k}"].named_children())
            following = transition.pop("pool")
            layers = {
                f"pool{k - 1}": pool,
                f"denseblock{k}": parts[f"denseblock{k}"],
                f"transition{k}": nn.Sequential(OrderedDict(transition)),
            }
            stages.append(nn.Sequential(OrderedDict(layers)))
            pool = following
        super().__init__(stages)
        self.frozen_statistics = frozen_statistics
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = norm_momentum

    def train(self, mode: bool = True) -> DenseNet201Taps:
        """Set the mode, which leaves frozen norms in evaluation mode."""
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d) and self.frozen_statistics:
                layer.eval()
        return self

    @torch.jit.unused
    def torchvision_names(self) -> dict[str, str]:
        """Return torchvision's name for each parameter and running statistic; see ``Backbone``."""
        own = (name for name in self.state_dict() if name.startswith("stages."))
        return {name: "features." + re.sub(r"^stages\.\d+\.", "", name).replace(".layers.", ".") for name in own}
