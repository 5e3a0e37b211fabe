"""Small and golden Hi-gMISnets for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from msrf_monai.networks import HiGMISNetGenerator
from msrf_monai.networks.nets.higmis_net import FusionMode
from support.formula_weights import fill_by_formula, waves

SMALL: dict[str, Any] = {"features": 4, "backbones": ()}
MODES: tuple[FusionMode, ...] = ("and", "or", "mean", "lesion", "background")


def bright_waves(height: int, width: int) -> torch.Tensor:
    """The formula's image as colours in [0, 1]."""
    return 0.5 + 0.5 * waves(height, width)


def on_meta(kind: Any = HiGMISNetGenerator, **options: Any) -> Any:
    with torch.device("meta"):
        return kind(**options)


def count(*modules: Any) -> int:
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)


def lively(kind: Any = HiGMISNetGenerator, **options: Any) -> Any:
    """A small network in evaluation mode whose results differ from place to place, in double precision."""
    net = kind(**{**SMALL, **options}).double().eval()
    fill_by_formula(net)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):  # the two generators of a pair must differ
            with torch.no_grad():
                layer.weight.add_(0.02 * torch.randn_like(layer.weight))
    return net
