"""Weights of the original implementations, carried into our networks.

The originals are Keras models. For MSRF-Net an array is named ``<role>/<part>``: the role is the layer's place in the
network (``enc1.conv1``, ``dsdf3.x2``, ``dec2.att.psi`` …), the part one of kernel, bias, gamma, beta, mean and var.
Kernels are laid out as Keras does: (height, width, in, out) for convolutions, (height, width, out, in) for transposed
ones, (in, out) for dense layers. For SSR-U-Net and its relatives it is named ``W_<place>_<part>``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from msrf_monai.errors import CheckpointError
from msrf_monai.networks.blocks import (
    MultifractalRecalibration,
    SingularityStrengthRecalibration,
    SpatialChannelSqueezeExcitation,
    StyleRecalibration,
)
from msrf_monai.networks.nets.msrf_net import MSRFNet
from msrf_monai.networks.nets.recalibrated_unet import RecalibratedUNet

__all__ = ["load_msrf_reference", "load_ssr_reference", "msrf_reference_roles"]

logger = logging.getLogger(__name__)

_NORM_PARTS = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "var": "running_var"}
_WEIGHT_PARTS = {"kernel": "weight", "bias": "bias"}

_MSRF_HINT = "expected exactly the layers of this network, see msrf_reference_roles(net)"
_SSR_HINT = "expected exactly the layers of this network, named W_enc0_conv1_kernel, W_att0_…, W_dec0_…, W_head_…"

# Numbers that the authors' code gives to the fusion blocks, round by round: (top, bottom) or (middle,).
_BLOCK_NUMBERS: dict[int, tuple[tuple[int, ...], ...]] = {
    6: ((1, 2), (3, 4), (5,), (6, 7), (8,), (9, 10)),  # chain10
    4: ((1, 2), (3, 4), (5,), (9, 10)),  # head7: 6, 7 and 8 are overwritten there
}


def load_msrf_reference(net: MSRFNet, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Load the weights of an original MSRF-Net (Keras) into ours, strictly.

    Every parameter and running statistic of ``net`` must be in ``arrays`` with the right shape, and every array must
    have its place. One exception: arrays of the fusion blocks 6, 7 and 8 are left out, with a warning, when ``net`` has
    the ``head7`` wiring, since the published file creates these blocks and overwrites their results.

    Args:
        net: a network of any width and either wiring with ``profile="reference"``; changed in place, and only when
            everything fits.
        arrays: ``{"<role>/<part>": array}`` in Keras layout, any float dtype.

    Raises:
        CheckpointError: when the network has the "paper" profile, or arrays are missing, left over or of another
            shape; the message names the first of each kind and counts them.

    Example:
        >>> net = MSRFNet(features=2)
        >>> roles = msrf_reference_roles(net)
        >>> roles["enc1.se.fc2"], roles["dsdf8.x5"]
        ('encoder.stage1.squeeze.fc.2', 'fusion.rounds.4.middle.steps.3.high_conv')
    """
    roles = msrf_reference_roles(net)
    if net.shape_stream.start_scale == 1:
        raise CheckpointError('this network has profile="paper", for which no original weights exist; use "reference"')
    dead = sorted(
        name for name in arrays if len(net.fusion.rounds) == 4 and name.startswith(("dsdf6.", "dsdf7.", "dsdf8."))
    )
    if dead:
        logger.warning("left out %d arrays of fusion blocks 6, 7 and 8, which the head7 wiring does not use", len(dead))
    _load({name: arrays[name] for name in arrays if name not in dead}, dict(_places(net, roles)), _MSRF_HINT)


def msrf_reference_roles(net: MSRFNet) -> dict[str, str]:
    """Return the dotted module path in ``net`` for every layer role of the original.

    Args:
        net: a network with ``profile="reference"``.

    Returns:
        ``{role: module path}``; the path is what ``net.get_submodule`` takes.
    """
    roles: dict[str, str] = {}
    for k in (1, 2, 3, 4):
        _put(roles, f"enc{k}", f"encoder.stage{k}", {"conv1": "conv1", "conv2": "conv2", "bn": "norm"})
        if k < 4:
            _put(roles, f"enc{k}.se", f"encoder.stage{k}.squeeze", {"fc1": "fc.0", "fc2": "fc.2"})
    for number, path in _fusion_blocks(len(net.fusion.rounds)):
        _put(roles, f"dsdf{number}", path, _fusion_block_roles())
    _put(roles, "shape", "shape_stream", _shape_stream_roles())
    _put(roles, "edge", "edge_fusion", {"mix": "mix", "conv": "conv", "bn": "norm"})
    for name, head in (("2", "quarter_head"), ("3", "half_head")):
        _put(roles, f"dec{name}", f"decoder{name}", _decoder_roles())
        roles[f"dec{name}.head"] = head
    plain = ("up", "fuse", "conv", "refine", "head")
    _put(roles, "dec4", "decoder4", {**{role: role for role in plain}, "bn": "norm"})
    return roles


def load_ssr_reference(net: RecalibratedUNet, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Load the weights of an original SSR-U-Net, or of one of its relatives (Keras), into ours, strictly.

    The names, with L = 0, 1, 2 for the encoder's stages (3 is the bottom) and 0 for the decoder's deepest stage:

    - ``W_encL_conv{1,2}_{kernel,bias}``, ``W_decL_conv{1,2}_{kernel,bias}``, ``W_head_{kernel,bias}``;
    - ``W_attL_{w1,w2}_{kernel,bias}``: the two dense layers of "cse", "scse", "fca" and "ssr";
    - ``W_attL_bn_{gamma,beta,mean,var}``: the norm of the exponents ("ssr", "multifractal") or of the style ("srm");
    - ``W_attL_place_{kernel,bias}``: the 1x1 convolution of "scse"; ``W_attL_style_kernel``, (2, 1), of "srm";
    - ``W_attL_{ols_w,anchor,member}`` and ``W_attL_hbn_{gamma,beta,mean,var}``: "multifractal".

    Args:
        net: a two-dimensional network with any recalibration and without norms in its convolution blocks; changed in
            place, and only when everything fits.
        arrays: the arrays in Keras layout, any float dtype. Names that do not begin with ``W_`` are left out, so a
            whole fixture file may be given.

    Raises:
        CheckpointError: when arrays are missing, left over or of another shape; the message names the first of each
            kind and counts them.
    """
    stages = [stage.get_submodule("convs") for stage in net.encoder]
    wanted: dict[str, torch.Tensor] = {}
    for level, convs in enumerate([*stages, net.bottom]):
        wanted |= _conv_block_places(f"W_enc{level}", convs)
    for level, stage in enumerate(net.encoder):
        wanted |= _recalibration_places(f"W_att{level}", stage.get_submodule("recalibrate"))
    for level, stage in enumerate(net.decoder):
        wanted |= _conv_block_places(f"W_dec{level}", stage.get_submodule("convs"))
    wanted |= _part_places("W_head", net.head)
    _load({name: array for name, array in arrays.items() if name.startswith("W_")}, wanted, _SSR_HINT)


def _conv_block_places(name: str, convs: nn.Module) -> dict[str, torch.Tensor]:
    places: dict[str, torch.Tensor] = {}
    for number, layer in enumerate((m for m in convs.modules() if isinstance(m, nn.Conv2d)), start=1):
        places |= _part_places(f"{name}_conv{number}", layer)
    return places


def _recalibration_places(name: str, block: nn.Module) -> dict[str, torch.Tensor]:
    places: dict[str, torch.Tensor] = {}
    for number, layer in enumerate((m for m in block.modules() if isinstance(m, nn.Linear)), start=1):
        places |= _part_places(f"{name}_w{number}", layer)
    if isinstance(block, SpatialChannelSqueezeExcitation):
        places |= _part_places(f"{name}_place", block.place)
    if isinstance(block, StyleRecalibration):
        places |= {f"{name}_style_kernel": block.style_weights} | _part_places(f"{name}_bn", block.norm)
    if isinstance(block, SingularityStrengthRecalibration | MultifractalRecalibration):
        places |= _part_places(f"{name}_bn", block.strength.norm)
    if isinstance(block, MultifractalRecalibration):
        levels = block.level_sets
        places |= {f"{name}_ols_w": cast(torch.Tensor, block.strength.scale_logits)}
        places |= {f"{name}_anchor": levels.anchors, f"{name}_member": levels.widths}
        places |= _part_places(f"{name}_hbn", levels.norm)
    return places


def _part_places(name: str, layer: nn.Module) -> dict[str, torch.Tensor]:
    parts = _NORM_PARTS if hasattr(layer, "running_mean") else _WEIGHT_PARTS
    return {f"{name}_{part}": getattr(layer, attribute) for part, attribute in parts.items()}


def _put(roles: dict[str, str], role: str, path: str, parts: Mapping[str, str]) -> None:
    roles.update({f"{role}.{part}": f"{path}.{place}" for part, place in parts.items()})


def _fusion_blocks(rounds: int) -> Iterable[tuple[int, str]]:
    for index, numbers in enumerate(_BLOCK_NUMBERS[rounds]):
        places = ("top", "bottom") if len(numbers) == 2 else ("middle",)
        for number, place in zip(numbers, places, strict=True):
            yield number, f"fusion.rounds.{index}.{place}"


def _fusion_block_roles() -> dict[str, str]:
    parts = {"x1": "high_first"}
    for step in range(4):
        # "x1c" carries x1 down into y2, "y1t" carries y1 up into x2, and so on.
        parts[f"x{step + 1}c"] = f"steps.{step}.down.conv"
        parts[f"y{step + 1}t"] = f"steps.{step}.up.conv"
        parts[f"x{step + 2}"] = f"steps.{step}.high_conv"
        parts[f"y{step + 2}"] = f"steps.{step}.low_conv"
    return parts


def _shape_stream_roles() -> dict[str, str]:
    parts = {"in": "inlet", "head": "head", "red3": "last_reduction"}
    parts |= {"res3.conv": "last_residual.conv", "res3.bn": "last_residual.norm"}
    for k in (0, 1):
        stage = f"stages.{k}"
        parts |= {f"res{k + 1}.conv": f"{stage}.residual.conv", f"res{k + 1}.bn": f"{stage}.residual.norm"}
        parts |= {f"red{k + 1}": f"{stage}.reduction", f"side{k + 3}": f"{stage}.side"}
        gate = {"bn_in": "norm_in", "conv1": "conv1", "conv2": "conv2", "bn_out": "norm_out"}
        parts |= {f"gate{k + 1}.{part}": f"{stage}.gate.{place}" for part, place in gate.items()}
    return parts


def _decoder_roles() -> dict[str, str]:
    gate = {"theta": "theta", "phi": "phi", "psi": "psi", "up": "up", "bn": "norm"}
    dual = {
        "up": "up",
        "up_bn": "up_norm",
        "conv": "conv",
        "bn": "norm",
        "se.fc1": "channel.fc.0",
        "se.fc2": "channel.fc.2",
        "sa.conv1": "place1",
        "sa.bn": "place_norm",
        "sa.conv2": "place2",
    }
    parts = {f"att.{part}": f"gate.{place}" for part, place in gate.items()}
    parts |= {f"dual.{part}": f"attend.{place}" for part, place in dual.items()}
    parts |= {"up": "up", "fuse": "fuse"}
    return parts | {"bn1": "refine.0", "conv1": "refine.2", "bn2": "refine.3", "conv2": "refine.5"}


def _places(net: nn.Module, roles: Mapping[str, str]) -> Iterable[tuple[str, torch.Tensor]]:
    for role, path in roles.items():
        module = net.get_submodule(path)
        parts = _NORM_PARTS if isinstance(module, nn.BatchNorm2d) else _WEIGHT_PARTS
        for part, attribute in parts.items():
            yield f"{role}/{part}", getattr(module, attribute)


def _to_torch_layout(name: str, array: NDArray[np.generic]) -> torch.Tensor:
    value = torch.from_numpy(np.asarray(array, dtype=np.float32).copy())
    if value.ndim == 4:  # (h, w, in, out) to (out, in, h, w); transposed: (h, w, out, in) to (in, out, h, w)
        return value.permute(3, 2, 0, 1)
    return value.T if value.ndim == 2 and name.endswith("kernel") else value


def _load(arrays: Mapping[str, NDArray[np.generic]], wanted: Mapping[str, torch.Tensor], hint: str) -> None:
    """Copy every array to its place, or nothing at all."""
    _refuse("missing", wanted.keys() - arrays.keys(), hint)
    _refuse("without a place in this network", arrays.keys() - wanted.keys(), hint)
    values = {name: _to_torch_layout(name, arrays[name]) for name in wanted}
    wrong = [
        f"{n} {tuple(values[n].shape)} for {tuple(wanted[n].shape)}"
        for n in wanted
        if values[n].shape != wanted[n].shape
    ]
    _refuse("of another shape (the network has another width, or other channels)", wrong, hint)
    with torch.no_grad():
        for name, place in wanted.items():
            place.copy_(values[name])


def _refuse(what: str, names: Iterable[str], hint: str) -> None:
    listed = sorted(names)
    if listed:
        raise CheckpointError(f"{len(listed)} arrays are {what}, the first: {', '.join(listed[:3])}; {hint}")
