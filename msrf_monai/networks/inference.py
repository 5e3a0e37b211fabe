"""Faster forms of a trained network that give the same result: fewer and wider layers, channels-last, OpenVINO."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from msrf_monai.errors import InputError
from msrf_monai.optional import require

__all__ = ["OpenVINONetwork", "fold_batch_norms", "merge_convolutions", "optimize_for_inference"]


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode whose batch norms are folded into the convolutions right before them.

    Pairs are found in every ``nn.Sequential`` and in the modules that declare them in a class attribute
    ``foldable``, a tuple of (convolution, norm) attribute names.

    Args:
        network: any network; it is not changed.

    Returns:
        The copy, whose results differ by rounding only.
    """
    folded = copy.deepcopy(network).eval()
    for parent, conv_name, norm_name in list(_foldable_pairs(folded)):
        conv, norm = parent.get_submodule(conv_name), parent.get_submodule(norm_name)
        transposed = isinstance(conv, nn.ConvTranspose2d)
        fused = fuse_conv_bn_eval(conv, norm, transpose=transposed)  # type: ignore[type-var,arg-type]
        setattr(parent, conv_name, fused)
        setattr(parent, norm_name, nn.Identity())
    return folded


def _foldable_pairs(network: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    convolutions = (nn.Conv2d, nn.ConvTranspose2d)
    for module in network.modules():
        pairs = tuple(getattr(type(module), "foldable", ()))
        if isinstance(module, nn.Sequential):
            names = [name for name, _ in module.named_children()]
            pairs += tuple(pairwise(names))
        for conv, norm in pairs:
            first, second = module.get_submodule(conv), module.get_submodule(norm)
            if isinstance(first, convolutions) and isinstance(second, nn.BatchNorm2d):
                yield module, conv, norm


def merge_convolutions(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode with each block that has a faster equal form replaced by that form.

    Such blocks have a method ``inference_form()`` (``DualScaleDenseFusion`` has one).

    Args:
        network: any network; it is not changed.

    Returns:
        The copy, whose results differ by rounding only and whose weights have other names.
    """
    merged = copy.deepcopy(network).eval()
    for parent in list(merged.modules()):
        for name, child in list(parent.named_children()):
            setattr(parent, name, _inference_form(child))
    return _inference_form(merged)


def _inference_form(module: nn.Module) -> nn.Module:
    make = getattr(module, "inference_form", None)
    return make() if callable(make) else module


def optimize_for_inference(network: nn.Module) -> nn.Module:
    """Return a copy of a network with folded norms and merged convolutions, in channels-last layout.

    Args:
        network: a network whose layers are convolutions and batch norms; it is not changed.

    Returns:
        The copy, for evaluation only, on the same device, whose results differ by rounding only.
    """
    return merge_convolutions(fold_batch_norms(network)).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class OpenVINONetwork(nn.Module):
    """A network that OpenVINO runs on the CPU in float32, called like the original.

    It takes any batch size, height and width. Needs the extra ``export``.

    Args:
        network: a network in any mode whose evaluation-mode forward takes and returns one tensor.
        example: an input as the network takes it, used to trace the network.
        threads: CPU threads to use; None lets OpenVINO choose.

    Raises:
        MissingExtraError: when OpenVINO is not installed.
        InputError: when the example is not on the CPU.
    """

    def __init__(self, network: nn.Module, example: torch.Tensor, *, threads: int | None = None) -> None:
        super().__init__()
        if example.device.type != "cpu":
            raise InputError(f"the example is on {example.device}; expected a CPU tensor, since OpenVINO runs there")
        openvino = require("openvino", "export")
        model = openvino.convert_model(merge_convolutions(fold_batch_norms(network)), example_input=example)
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._compiled = openvino.compile_model(model, "CPU", settings)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the network.

        Args:
            x: float32 CPU tensor, as the original network takes it.

        Returns:
            What the original's evaluation mode returns, float32.
        """
        result = self._compiled(x.detach().contiguous().numpy())[0]
        return torch.from_numpy(result.copy())
