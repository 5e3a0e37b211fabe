"""The generator of Hi-gMISnet: a U-Net with wavelet fusion, classification trunks, gated skips and a side branch."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import NamedTuple, get_args

import torch
from torch import nn

from msrf_monai.errors import InputError
from msrf_monai.networks.backbones import BackboneName, DenseNet201Taps, VGG16Taps
from msrf_monai.networks.backbones_weights import BackboneWeights, load_backbone_weights
from msrf_monai.networks.blocks.feature_norm import FeatureNorm, feature_norm
from msrf_monai.networks.blocks.initialization import glorot_uniform_, normal_weights_
from msrf_monai.networks.blocks.multi_res import MultiResBlock, ResPath
from msrf_monai.networks.input_check import check_channels
from msrf_monai.networks.nets.higmis_net_levels import DecoderLevel, EncoderLevel, SideBranch, Taps, haar_pyramid
from msrf_monai.networks.padding import crop_from_multiple, pad_to_multiple

__all__ = ["HiGMISNetGenerator", "HiGMISNetGeneratorOutput"]

logger = logging.getLogger(__name__)


class HiGMISNetGeneratorOutput(NamedTuple):
    """What a generator gives in training mode for images ``(B, C, H, W)``; everything is a probability in [0, 1].

    Attributes:
        mask: the generator's prediction, ``(B, 1, H, W)``.
        alpha1: foreground attention at the finest skip, ``(B, 1, H, W)``.
        beta1: background attention there.
        alpha2: foreground attention at the second skip, ``(B, 1, ceil(H / 2), ceil(W / 2))``.
        beta2: background attention there.
        alpha3: foreground attention at the third skip, ``(B, 1, ceil(H / 4), ceil(W / 4))``.
        beta3: background attention there.
    """

    mask: torch.Tensor
    alpha1: torch.Tensor
    beta1: torch.Tensor
    alpha2: torch.Tensor
    beta2: torch.Tensor
    alpha3: torch.Tensor
    beta3: torch.Tensor


class HiGMISNetGenerator(nn.Module):
    """One of the two generators of Hi-gMISnet, a complete segmentation network by itself.

    Showrav and Hasan, "Hi-gMISnet: generalized medical image segmentation using DWT based multilayer fusion and dual
    mode attention into high resolution pGAN", Physics in Medicine and Biology 69 (2024) 115019,
    doi:10.1088/1361-6560/ad3cb3. The defaults are the network that the authors' published code builds, with
    67,983,357 parameters.

    A MultiRes encoder of five levels and a bottom takes in the maps of two classification trunks and, at each level,
    Haar sub-bands of the image and of finer skips; the decoder gates its skips by dual-mode attention; a side branch
    of the three coarse skips gives a second map. The result is the product of the two maps' probabilities.

    Where this class departs from the authors' code: the norms take the statistics of each image (theirs take the
    batch's, in evaluation mode too: ``norm="batch_always"``), which is the same for batches of one, as they evaluate;
    dropout is off in evaluation mode (theirs stays on: ``mc_dropout=True``); sizes that are no multiple of 32 are
    padded by repeating the last row and column and cropped again (theirs fails). Exported programs with free sizes
    take images of more than 32 pixels along both axes.

    As published, a norm keeps the mean of each image's main logits at 0, so that the main map alone can call no image
    all background or all foreground; ``head_norm=False`` leaves it out and is right for data with empty masks.

    Args:
        spatial_dims: 2; the network is defined for images only.
        in_channels: 3, or 1 for grey images, which are repeated to 3.
        out_channels: 1; the network is defined for one foreground.
        features: width of the finest level; the others are 2, 4, 8, 16 and 32 times as wide. A multiple of 2, at
            least 4.
        backbones: classification trunks to take in: "vgg16", "densenet201", both or none.
        norm: "instance", "batch_always" or "batch", see ``feature_norm``. The trunks keep their own.
        head_norm: whether the logits of the main map are normed, as published.
        dropout: share of values dropped after the enlargements of the three coarsest decoder levels, in training mode.
        mc_dropout: drop values in evaluation mode too; results then differ from call to call.
        side_channels: channels of the side branch; None takes ``features``, as published.
        vgg_weights: file with ImageNet weights for the trunk, see ``load_backbone_weights``; None starts from random
            weights, with a warning. It is needed when a training begins, not where saved weights are loaded later.
        dense_weights: the same for the other trunk.
        imagenet_colours: whether the trunks get images scaled by ImageNet's mean and standard deviation. None does so
            for trunks whose weights come from a file. Saved weights carry the choice.
        frozen_statistics: keep the running statistics of "densenet201", and norm by them, in training mode too.

    Attributes:
        backbone_weights: the record of the file that was loaded into each trunk.

    Raises:
        InputError: when an argument is none of the above, or the input has not ``in_channels`` channels.
        CheckpointError: when a file of weights is not what is expected.

    Example:
        >>> net = HiGMISNetGenerator(features=4, backbones=()).eval()
        >>> tuple(net(torch.rand(1, 3, 50, 63)).shape)
        (1, 1, 50, 63)
        >>> [tuple(map.shape[1:]) for map in net.train()(torch.rand(2, 3, 50, 63))][1::2]
        [(1, 50, 63), (1, 25, 32), (1, 13, 16)]
    """

    requires_divisible_by = 1
    """Sizes are padded inside, so a caller may send any."""

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 3,
        out_channels: int = 1,
        features: int = 32,
        backbones: Sequence[BackboneName] = ("vgg16", "densenet201"),
        norm: FeatureNorm = "instance",
        head_norm: bool = True,
        dropout: float = 0.5,
        mc_dropout: bool = False,
        side_channels: int | None = None,
        vgg_weights: str | os.PathLike[str] | None = None,
        dense_weights: str | os.PathLike[str] | None = None,
        imagenet_colours: bool | None = None,
        frozen_statistics: bool = False,
    ) -> None:
        super().__init__()
        _check(spatial_dims, in_channels, out_channels, features, dropout)
        _check_backbones(backbones, vgg_weights, dense_weights)
        self.in_channels = in_channels
        self.features = features
        self.multiple = 32
        self.taps = Taps(
            VGG16Taps() if "vgg16" in backbones else None,
            DenseNet201Taps(frozen_statistics=frozen_statistics) if "densenet201" in backbones else None,
        )
        widths = [features * 2**k for k in range(5)]
        self.pool = nn.MaxPool2d(2)
        self.encoder = nn.ModuleList()
        channels = 3
        for k, (steps, tapped) in enumerate(zip((4, 3, 2, 1, 1), (*self.taps.channels, 0), strict=True)):
            encoder = EncoderLevel(k, channels, widths, steps, norm)
            self.encoder.append(encoder)
            channels = encoder.out_channels + tapped
        self.bottom = MultiResBlock(channels, 2 * widths[-1], norm=norm)
        channels = self.bottom.out_channels
        self.decoder = nn.ModuleList()  # coarsest first
        for k in (4, 3, 2, 1, 0):
            decoder = DecoderLevel(channels, widths[k], dropout if k >= 2 else 0.0, mc_dropout, norm)
            self.decoder.append(decoder)
            channels = decoder.convs.out_channels
        self.head = nn.Conv2d(channels, 1, kernel_size=1)
        self.head_norm = feature_norm(norm, 1) if head_norm else nn.Identity()
        self.side = SideBranch(widths[2:], side_channels or features, 2 * features, norm)
        self.reset_parameters()
        self.backbone_weights = self._start_backbones(vgg_weights, dense_weights, imagenet_colours)

    def reset_parameters(self) -> None:
        """Draw new weights as the authors' code does, except those of the trunks, which stay as they are.

        Normal with a standard deviation of 0.02 in the MultiRes blocks, the paths of the skips and the head, Glorot
        uniform elsewhere.
        """
        for name, child in self.named_children():
            if name != "taps":
                glorot_uniform_(child)
        for block in self.modules():
            if isinstance(block, MultiResBlock | ResPath):
                block.reset_parameters()
        normal_weights_(self.head, 0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Segment.

        Args:
            x: float image ``(B, in_channels, H, W)`` in [0, 1], any H and W.

        Returns:
            In evaluation mode the probability ``(B, 1, H, W)``, in training mode ``HiGMISNetGeneratorOutput`` (except
            under TorchScript, which knows only the probability).
        """
        if not torch.jit.is_scripting() and self.training:
            # The annotation is evaluation mode's: TorchScript takes one type only.
            return self.forward_all(x)  # type: ignore[return-value]
        mask, _, _ = self._decode(x)
        return crop_from_multiple(mask, list(x.shape[2:]), self.multiple)

    @torch.jit.unused
    def forward_all(self, x: torch.Tensor) -> HiGMISNetGeneratorOutput:
        """Give the probability and the attention maps, in training as in evaluation mode.

        Args:
            x: as for ``forward``.

        Returns:
            All seven maps.
        """
        mask, alphas, betas = self._decode(x)
        height, width = x.shape[2:]
        maps = [mask[:, :, :height, :width]]
        for k in (0, 1, 2):
            rows, columns = (height + 2**k - 1) // 2**k, (width + 2**k - 1) // 2**k
            maps += [levels[-1 - k][:, :, :rows, :columns] for levels in (alphas, betas)]
        return HiGMISNetGeneratorOutput(*maps)

    def _decode(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
        """Run the network at a padded size: the probability, and the attention maps of all levels, coarsest first."""
        if not torch.jit.is_scripting():
            check_channels(x, self.in_channels)
        image = pad_to_multiple(x, self.multiple)
        if self.in_channels == 1:
            image = torch.cat([image, image, image], dim=1)

        skips, features = self._encode(image)
        alphas: list[torch.Tensor] = []
        betas: list[torch.Tensor] = []
        for i, level in enumerate(self.decoder):
            features, alpha, beta = level(features, skips[len(skips) - 1 - i])
            alphas.append(alpha)
            betas.append(beta)

        main = self.head_norm(self.head(features))  # (B, 1, H, W)
        side = self.side(skips[2], skips[3], skips[4])  # (B, 1, H, W)
        return _probability(main) * _probability(side), alphas, betas

    def _encode(self, image: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the five skip connections, finest first, and the bottom's map at 1/32 of the size."""
        pyramid = haar_pyramid(image)
        taps = self.taps(image)
        features = image
        skips: list[torch.Tensor] = []
        for k, level in enumerate(self.encoder):
            if k > 0:
                features = torch.cat([self.pool(features)] + taps[k - 1], dim=1)
            features, skip = level(features, pyramid, skips)  # at 1 / 2**k of the size
            skips.append(skip)
        return skips, self.bottom(self.pool(features))

    def _start_backbones(
        self,
        vgg_weights: str | os.PathLike[str] | None,
        dense_weights: str | os.PathLike[str] | None,
        imagenet_colours: bool | None,
    ) -> dict[str, BackboneWeights]:
        records: dict[str, BackboneWeights] = {}
        trunks = {"vgg16": (self.taps.vgg, vgg_weights), "densenet201": (self.taps.dense, dense_weights)}
        for name, (trunk, file) in trunks.items():
            if trunk is None:
                continue
            if file is not None:
                records[name] = load_backbone_weights(trunk, file)
            else:
                logger.warning(
                    "the trunk %r starts from random weights: a training that should begin with ImageNet's needs the "
                    "path of a file in torchvision's layout (weights loaded into the network later are not affected)",
                    name,
                )
            if imagenet_colours if imagenet_colours is not None else file is not None:
                trunk.use_imagenet_colours()
        return records


def _probability(logits: torch.Tensor) -> torch.Tensor:
    """Take the sigmoid, of half precision in float32: the loss of a product of two near 0 or 1 needs the digits."""
    if logits.dtype == torch.float16 or logits.dtype == torch.bfloat16:  # TorchScript knows no 'in' for types
        logits = logits.float()
    return torch.sigmoid(logits)


def _check(spatial_dims: int, in_channels: int, out_channels: int, features: int, dropout: float) -> None:
    if spatial_dims != 2:
        raise InputError(f"spatial_dims is {spatial_dims}; Hi-gMISnet is defined for 2-D images only, use 2")
    if in_channels not in (1, 3):
        raise InputError(f"in_channels is {in_channels}; expected 3 for RGB images, or 1 for grey ones")
    if out_channels != 1:
        raise InputError(
            f"out_channels is {out_channels}; Hi-gMISnet is defined for one foreground, use 1 and one network a class"
        )
    if features < 4 or features % 2:
        raise InputError(f"features is {features}; expected an even number of at least 4, such as 32 or 8")
    if not 0.0 <= dropout < 1.0:
        raise InputError(f"dropout is {dropout}; expected a share of at least 0 and less than 1, such as 0.5")


def _check_backbones(backbones: Sequence[str], vgg_weights: object, dense_weights: object) -> None:
    names = get_args(BackboneName)
    if isinstance(backbones, str) or len(set(backbones)) != len(backbones) or not set(backbones) <= set(names):
        raise InputError(f"backbones is {backbones!r}; expected a list with some of {', '.join(map(repr, names))}")
    files = {"vgg16": ("vgg_weights", vgg_weights), "densenet201": ("dense_weights", dense_weights)}
    for name, (argument, file) in files.items():
        if file is not None and name not in backbones:
            raise InputError(f"{argument} is given, and backbones {list(backbones)} has no {name!r}: leave one out")
