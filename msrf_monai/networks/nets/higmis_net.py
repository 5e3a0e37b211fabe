"""Hi-gMISnet: two generators, one of the lesion and one of the background, and the fusion of what they say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
from torch import nn

from msrf_monai.errors import InputError
from msrf_monai.networks.nets.higmis_net_generator import HiGMISNetGenerator, HiGMISNetGeneratorOutput

__all__ = ["FusionMode", "HiGMISNet", "HiGMISNetOutput", "fuse_probabilities"]

FusionMode = Literal["and", "or", "mean", "lesion", "background"]
"""How the two predictions become one, see ``fuse_probabilities``."""


class HiGMISNetOutput(NamedTuple):
    """What the pair gives in training mode.

    Attributes:
        lesion: the maps of the generator that predicts the mask.
        background: the maps of the generator that predicts its complement.
    """

    lesion: HiGMISNetGeneratorOutput
    background: HiGMISNetGeneratorOutput


def fuse_probabilities(lesion: torch.Tensor, background: torch.Tensor, mode: FusionMode) -> torch.Tensor:
    """Make one probability of foreground of the two predictions.

    The minimum and the maximum, decided at 0.5, are the hard AND and OR of the two decided masks: both are above 0.5
    exactly where the minimum is.

    Args:
        lesion: probability of foreground p, any shape.
        background: probability of background q, the same shape.
        mode: "and" min(p, 1 - q), "or" max(p, 1 - q), "mean" (p + 1 - q) / 2, "lesion" p, or "background" 1 - q.

    Returns:
        The probability of foreground.

    Raises:
        InputError: when ``mode`` is none of these.

    Example:
        >>> p, q = torch.tensor([0.9, 0.9, 0.2]), torch.tensor([0.1, 0.7, 0.7])
        >>> (fuse_probabilities(p, q, "and") > 0.5).tolist(), (fuse_probabilities(p, q, "or") > 0.5).tolist()
        ([True, False, False], [True, True, False])
    """
    return _fuse_all(lesion, background)[_code(mode)]


def _fuse_all(lesion: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """Stack the results of all modes, in the order of their names in ``FusionMode``."""
    reversed_ = 1.0 - background
    return torch.stack(
        [
            torch.minimum(lesion, reversed_),
            torch.maximum(lesion, reversed_),
            (lesion + reversed_) * 0.5,
            lesion,
            reversed_,
        ]
    )


def _code(mode: str) -> int:
    modes = get_args(FusionMode)
    if mode not in modes:
        raise InputError(f"fusion is {mode!r}; expected one of {', '.join(map(repr, modes))}")
    return int(modes.index(mode))


class HiGMISNet(nn.Module):
    """Hi-gMISnet's two generators as one network: image in, fused probability out.

    Showrav and Hasan, "Hi-gMISnet: generalized medical image segmentation using DWT based multilayer fusion and dual
    mode attention into high resolution pGAN", Physics in Medicine and Biology 69 (2024) 115019,
    doi:10.1088/1361-6560/ad3cb3. One generator predicts the mask, the other, of the same build and with its own
    weights, its complement. The discriminators are needed for training only and are not part of this network.

    The fusion is a decision made on validation data, so it is saved with the weights (as a number, the place of its
    name in ``FusionMode``).

    Args:
        fusion: how the two predictions become one. None starts with "and" and takes over what loaded weights say; a
            name holds whatever is loaded.
        mc_samples: in evaluation mode, return the mean over this many passes with Monte-Carlo dropout; 0 is one pass
            without dropout, which always gives the same.
        **generator: options of both generators, see ``HiGMISNetGenerator``; the defaults are the published network.

    Attributes:
        lesion: the generator of the mask.
        background: the generator of its complement.

    Raises:
        InputError: when an argument is none of the above.

    Example:
        >>> net = HiGMISNet(features=4, backbones=(), fusion="or").eval()
        >>> tuple(net(torch.rand(1, 3, 50, 63)).shape)
        (1, 1, 50, 63)
    """

    requires_divisible_by = 1
    """Sizes are padded inside, so a caller may send any."""

    decided_buffers: ClassVar[tuple[str, ...]] = ("fusion_code",)
    """What validation decides for this very network: a moving average keeps its own."""

    __jit_unused_properties__: ClassVar[list[str]] = ["fusion"]

    def __init__(self, *, fusion: FusionMode | None = None, mc_samples: int = 0, **generator: Any) -> None:
        super().__init__()
        if mc_samples < 0:
            raise InputError(f"mc_samples is {mc_samples}; expected 0 for none, or a number of passes such as 20")
        self.mc_samples = mc_samples
        options = {**generator, "mc_dropout": mc_samples > 0 or bool(generator.get("mc_dropout", False))}
        self.lesion = HiGMISNetGenerator(**options)
        self.background = HiGMISNetGenerator(**options)
        self.features = self.lesion.features
        self._holds_fusion = fusion is not None
        self.fusion_code: torch.Tensor
        self.register_buffer("fusion_code", torch.tensor([_code(fusion or "and")]))

    @property
    def fusion(self) -> FusionMode:
        """The mode in use; set it to choose another, which is saved with the weights."""
        modes: tuple[FusionMode, ...] = get_args(FusionMode)
        return modes[int(self.fusion_code.item())]

    @fusion.setter
    def fusion(self, mode: FusionMode) -> None:
        self.fusion_code.fill_(_code(mode))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Segment.

        Args:
            x: float image ``(B, in_channels, H, W)`` in [0, 1], any H and W.

        Returns:
            In evaluation mode the fused probability ``(B, 1, H, W)``, in training mode ``HiGMISNetOutput`` (except
            under TorchScript, which knows only the probability).
        """
        if not torch.jit.is_scripting() and self.training:
            # The annotation is evaluation mode's: TorchScript takes one type only.
            return self.forward_all(x)  # type: ignore[return-value]
        fused = self._fuse_once(x)
        if self.mc_samples > 1:
            for _ in range(self.mc_samples - 1):
                fused = fused + self._fuse_once(x)
            fused = fused / self.mc_samples
        return fused

    @torch.jit.unused
    def forward_all(self, x: torch.Tensor) -> HiGMISNetOutput:
        """Give all maps of both generators, in training as in evaluation mode.

        Args:
            x: as for ``forward``.

        Returns:
            The maps of the two generators.
        """
        return HiGMISNetOutput(self.lesion.forward_all(x), self.background.forward_all(x))

    def _fuse_once(self, x: torch.Tensor) -> torch.Tensor:
        # Chosen by a tensor and not by a branch, so that exported programs, too, follow the weights.
        return torch.index_select(_fuse_all(self.lesion(x), self.background(x)), 0, self.fusion_code).squeeze(0)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        held = self.fusion_code.clone()
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if self._holds_fusion:
            self.fusion_code.copy_(held)
